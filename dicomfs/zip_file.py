"""A ZIP file as it is written: stored entries one after another, of any number and size, in bounded memory.

    local header, name, times, bytes    of each entry, with its sizes and CRC-32
    central directory                   kept aside until the end, on the disk where it is long
    end records                         those of ZIP64 too, where a number is too large for the others

Names are UTF-8. Times are UTC: the two seconds of MS-DOS, and the whole seconds that Info-ZIP's extra field "UT" adds
where 32 bits hold them. Equal input gives equal bytes.
"""

from __future__ import annotations

import os
import tempfile
import time
from calendar import timegm
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from isal.isal_zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOCAL: Final = Struct("<4sHHHHHIIIHH")
_CENTRAL: Final = Struct("<4sHHHHHHIIIHHHHHII")
_END: Final = Struct("<4sHHHHIIH")
_END64: Final = Struct("<4sQHHIIQQQQ")
_LOCATOR64: Final = Struct("<4sIQI")
_TIMES: Final = Struct("<2sHBI")
_FIELD: Final = Struct("<HH")
_LONG: Final = Struct("<Q")
_UTF8: Final = 0x800
_UNIX: Final = 0x31E
_MODE: Final = 0o100644 << 16
_FULL16: Final = 0xFFFF
_FULL32: Final = 0xFFFFFFFF
"""A field that says: the number is elsewhere, in a record or extra field of ZIP64."""
_FIRST_S: Final = timegm((1980, 1, 1, 0, 0, 0))
_LAST_S: Final = timegm((2107, 12, 31, 23, 59, 58))
_FLUSH_BYTES: Final = 4 << 20
_FLUSH_PARTS: Final = 900
_IN_MEMORY: Final = 8 << 20
"""Of the central directory: some 50,000 entries."""


class _Entry(NamedTuple):
    name: bytes
    size: int
    mtime_ns: int
    offset: int
    crc: int


class ZipWriter:
    """Appends entries to one ZIP file, which begins empty. Belongs to one thread."""

    def __init__(self, fd: int, aside: str) -> None:
        """Write to an open file that stays the caller's; `aside` is a directory for what is needed at the end."""
        self._fd = fd
        self._parts: list[bytes | memoryview] = []
        self._pending = 0
        self._position = 0
        self._count = 0
        self._directory = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=aside)  # noqa: SIM115 - closed by `close`

    def add(self, name: bytes, mtime_ns: int, data: bytes | memoryview) -> None:
        """Append an entry whose bytes are at hand; they must not change until `finish`."""
        entry = _Entry(name, len(data), mtime_ns, self._position + self._pending, crc32(data))
        self._put(_local(entry))
        self._put(data)
        self._known(entry)

    def add_long(self, name: bytes, mtime_ns: int, size: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Append an entry of `size` bytes as they come; where they cannot be had, there is no such entry."""
        self._flush()
        entry = _Entry(name, size, mtime_ns, self._position, 0)
        try:
            crc = 0
            self._put(_local(entry))
            for piece in pieces:
                crc = crc32(piece, crc)
                self._put(piece)
                self._flush()  # it may be gone when the next one is made
            self._flush()
            entry = entry._replace(crc=crc)
            assert self._position == entry.offset + len(_local(entry)) + size
            os.pwrite(self._fd, _local(entry), entry.offset)
        except BaseException:
            self._parts, self._pending = [], 0
            os.ftruncate(self._fd, entry.offset)
            self._position = entry.offset
            raise
        self._known(entry)

    def finish(self) -> None:
        """Write the central directory, and bring all to the disk."""
        self._flush()
        start = self._position
        self._directory.seek(0)
        while piece := self._directory.read(_FLUSH_BYTES):
            self._put(piece)
            self._flush()
        self._put(_end(self._count, start, self._position - start))
        self._flush()
        os.fsync(self._fd)

    def close(self) -> None:
        """Give back what was kept aside."""
        self._directory.close()

    def _known(self, entry: _Entry) -> None:
        self._directory.write(_central(entry))
        self._count += 1

    def _put(self, data: bytes | memoryview) -> None:
        self._parts.append(data)
        self._pending += len(data)
        if self._pending >= _FLUSH_BYTES or len(self._parts) >= _FLUSH_PARTS:
            self._flush()

    def _flush(self) -> None:
        parts, self._parts, self._pending = self._parts, [], 0
        while parts:
            done = os.pwritev(self._fd, parts, self._position)
            self._position += done
            kept = 0
            while kept < len(parts) and done >= len(parts[kept]):
                done -= len(parts[kept])
                kept += 1
            parts = parts[kept:]
            if done:
                parts[0] = memoryview(parts[0])[done:]


def _local(entry: _Entry) -> bytes:
    extra = _times(entry.mtime_ns)
    version, size = 20, entry.size
    if size >= _FULL32:
        extra = _FIELD.pack(1, 16) + _LONG.pack(size) * 2 + extra
        version, size = 45, _FULL32
    clock, date = _dos(entry.mtime_ns)
    fixed = (version, _UTF8, 0, clock, date, entry.crc, size, size, len(entry.name), len(extra))
    return _LOCAL.pack(b"PK\3\4", *fixed) + entry.name + extra


def _central(entry: _Entry) -> bytes:
    long = b""
    size, offset = entry.size, entry.offset
    if size >= _FULL32:
        long += _LONG.pack(size) * 2
        size = _FULL32
    if offset >= _FULL32:
        long += _LONG.pack(offset)
        offset = _FULL32
    extra = (_FIELD.pack(1, len(long)) + long if long else b"") + _times(entry.mtime_ns)
    clock, date = _dos(entry.mtime_ns)
    fixed = (_UNIX, 45 if long else 20, _UTF8, 0, clock, date, entry.crc, size, size, len(entry.name), len(extra))
    return _CENTRAL.pack(b"PK\1\2", *fixed, 0, 0, 0, _MODE, offset) + entry.name + extra


def _end(count: int, start: int, length: int) -> bytes:
    """Return the end records of a ZIP file whose central directory begins at `start`."""
    records = b""
    if count >= _FULL16 or start >= _FULL32 or length >= _FULL32:
        records = _END64.pack(b"PK\6\6", 44, _UNIX, 45, 0, 0, count, count, length, start)
        records += _LOCATOR64.pack(b"PK\6\7", 0, start + length, 1)
    short = min(count, _FULL16)
    return records + _END.pack(b"PK\5\6", 0, 0, short, short, min(length, _FULL32), min(start, _FULL32), 0)


def _dos(mtime_ns: int) -> tuple[int, int]:
    year, month, day, hour, minute, second, *_ = time.gmtime(min(max(mtime_ns // 10**9, _FIRST_S), _LAST_S))
    return hour << 11 | minute << 5 | second >> 1, year - 1980 << 9 | month << 5 | day


def _times(mtime_ns: int) -> bytes:
    seconds = mtime_ns // 10**9
    return _TIMES.pack(b"UT", 5, 1, seconds) if 0 <= seconds < 1 << 31 else b""
