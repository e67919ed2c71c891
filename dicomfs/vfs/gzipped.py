"""A file shown as a gzip member of stored blocks, so that its size is known without reading it (RFC 1951, 1952).

10 bytes of head | 5 bytes, up to 65,535 of the file | 5 bytes, 65,535 of the file | … | CRC-32 | size mod 2**32
"""

import threading
from concurrent.futures import Future
from struct import Struct
from typing import Final

from isal.isal_zlib import crc32

from dicomfs.vfs.node import OpenFile

_HEAD: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Deflate, no name, no time, no system: the same file always gives the same bytes."""
_BLOCK: Final = 65_535
_BLOCK_HEAD: Final = Struct("<BHH")
_TAIL: Final = Struct("<II")
_STEP: Final = 1 << 20


def gzipped_size(size: int) -> int:
    """Return how long a file of this size is as a gzip member."""
    return len(_HEAD) + _blocks(size) * _BLOCK_HEAD.size + size + _TAIL.size


def _blocks(size: int) -> int:
    return max(1, -(-size // _BLOCK))


class Gzipped:
    """A file in a gzip member. May be shared by threads (`read_ready` by one), as the file may."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self.size = gzipped_size(file.size)
        self._crc: int | None = None
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`; the CRC at the end is had by reading the whole file once more."""
        if offset + size > self.size - _TAIL.size and offset < self.size:
            self._sum()
        first, last = self._inner(offset, size)
        return self._around(self._file.read(first, last - first), first, offset, size)

    def read_ready(self, offset: int, size: int) -> bytes | None:
        """Return the same if nothing has to be waited for, else None."""
        if offset + size > self.size - _TAIL.size and offset < self.size and self._crc is None:
            return None
        first, last = self._inner(offset, size)
        data = self._file.read_ready(first, last - first)
        return None if data is None else self._around(data, first, offset, size)

    def coming(self, offset: int, size: int) -> Future[memoryview] | None:
        """Return what is being made already and will make `read_ready` answer, if anything is."""
        first, last = self._inner(offset, size)
        return self._file.coming(first, last - first)

    def prefetch(self) -> None:
        """Begin to make what a reader of the whole file asks for first."""
        self._file.prefetch()

    def close(self) -> None:
        """End reading."""
        self._file.close()

    def _sum(self) -> None:
        with self._lock:
            if self._crc is None:
                crc = 0
                for offset in range(0, self._file.size, _STEP):
                    crc = crc32(self._file.read(offset, _STEP), crc)
                self._crc = crc

    def _inner(self, offset: int, size: int) -> tuple[int, int]:
        """Return the range of the file that lies in this range of the member."""
        last = max(offset, min(offset + size, self.size))
        return self._plain(offset), self._plain(last)

    def _plain(self, offset: int) -> int:
        """Return how many bytes of the file lie before this offset of the member."""
        blocks, rest = divmod(max(0, offset - len(_HEAD)), _BLOCK_HEAD.size + _BLOCK)
        return min(self._file.size, blocks * _BLOCK + max(0, rest - _BLOCK_HEAD.size))

    def _around(self, data: bytes | memoryview, first: int, offset: int, size: int) -> bytes:
        """Put bytes of the file, from `first` on, into what lies around them."""
        file_size = self._file.size
        tail = self.size - _TAIL.size
        end = min(offset + size, self.size)
        view = memoryview(data)
        parts: list[bytes | memoryview] = []
        while offset < end:
            number, rest = divmod(offset - len(_HEAD), _BLOCK_HEAD.size + _BLOCK)
            at = number * _BLOCK
            length = min(_BLOCK, file_size - at)
            if offset < len(_HEAD):
                part: bytes | memoryview = _HEAD[offset:end]
            elif offset >= tail:
                part = _TAIL.pack(self._crc or 0, file_size & 0xFFFFFFFF)[offset - tail : end - tail]
            elif rest < _BLOCK_HEAD.size:
                head = _BLOCK_HEAD.pack(at + length == file_size, length, length ^ 0xFFFF)
                part = head[rest : rest + end - offset]
            else:
                rest -= _BLOCK_HEAD.size
                part = view[at + rest - first : at + min(length, rest + end - offset) - first]
            if not part:
                break
            parts.append(part)
            offset += len(part)
        return b"".join(parts)
