"""Packs: plain ZIP files of stored entries, written once from front to back.

    local header, name, bytes     one after another: o/<sha256>[.suffix]  a blob
                                                     h/<sha256>[.suffix]  the base of a series' headers
                                                     c/<seq, 16 hex>.cat  a commit, the last entry of its commit
    central directory, end record when the pack is sealed; never changed after

Entries are stored (method 0) with sizes and CRC-32 in the local header and the date 1980-01-01, so
that a pack that was never sealed can be read from front to back, and equal input gives equal packs.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from itertools import islice
from struct import Struct
from typing import Final, NamedTuple

from isal.isal_zlib import crc32

from dicomfs.errors import Damaged

SEAL_BYTES: Final = 512 << 20
SEAL_ENTRIES: Final = 60_000
"""A pack is sealed at the first commit past either, so that it stays a ZIP file that any tool opens."""

_LOCAL = Struct("<4sHHHHHIIIHH")
_CENTRAL = Struct("<4sHHHHHHIIIHHHHHII")
_END = Struct("<4sHHHHIIH")
_END64 = Struct("<4sQHHIIQQQQ")
_LOCATOR64 = Struct("<4sIQI")
_UTF8: Final = 0x800
_DATE: Final = 0x21
_MODE: Final = 0o100444 << 16
_FLUSH_BYTES: Final = 4 << 20
_FLUSH_PARTS: Final = 900
_BEGIN_BYTES: Final = 4 << 20
"""The kernel is told to begin with writing to the disk at every so many bytes, so that `sync` has little left."""
_READ_AHEAD: Final = 4096
_NAME_LIMIT: Final = 128
_NAME_LENGTHS: Final = (66, 70, 22)
"""Of a blob's entry, of one with a suffix, of a commit's."""
_AFTER_ENTRIES: Final = (b"PK\1\2", b"PK\5\6")
_ALIKE: Final = _LOCAL.pack(b"PK\3\4", 20, _UTF8, 0, 0, _DATE, 0, 0, 0, 0, 0)[:14]
"""What every local header begins with."""


class Entry(NamedTuple):
    """One entry of a pack: its bytes lie at [offset, offset + length)."""

    name: bytes
    offset: int
    length: int
    crc: int

    @property
    def end(self) -> int:
        """Where the next entry begins."""
        return self.offset + self.length


class PackWriter:
    """Appends entries to one pack. Belongs to one thread; buffers up to 4 MiB by reference."""

    def __init__(self, fd: int) -> None:
        """Go on at the end of the open file, which the writer owns from now on."""
        self.fd = fd
        self.position = os.fstat(fd).st_size
        self.entries: list[Entry] = []
        self._parts: list[bytes | memoryview] = []
        self._pending = 0
        self._written = self._begun = self.position

    def add(self, name: bytes, data: bytes | memoryview, crc: int | None = None) -> int:
        """Append an entry and return the offset of its bytes. The data must not change until `flush`."""
        length = len(data)
        if crc is None:
            crc = crc32(data)
        header = entry_header(name, crc, length)
        offset = self.position + len(header)
        self._parts += (header, data)
        self.entries.append(Entry(name, offset, length, crc))
        self.position = offset + length
        self._pending += len(header) + length
        if self._pending >= _FLUSH_BYTES or len(self._parts) >= _FLUSH_PARTS:
            self.flush()
        return offset

    def flush(self) -> None:
        """Hand everything to the kernel."""
        parts, self._parts, self._pending = self._parts, [], 0
        while parts:
            batch = parts[:1000]
            done = os.pwritev(self.fd, batch, self._written)
            self._written += done
            kept = 0
            while kept < len(batch) and done >= len(batch[kept]):
                done -= len(batch[kept])
                kept += 1
            parts = parts[kept:]
            if done:
                parts[0] = memoryview(parts[0])[done:]
        if self._written - self._begun >= _BEGIN_BYTES:
            self._begin_writing()

    def _begin_writing(self) -> None:
        # This advice starts the writing of dirty pages (mm/fadvise.c), and drops clean ones: there are none here yet.
        length = self._written - self._begun
        with contextlib.suppress(OSError):
            os.posix_fadvise(self.fd, self._begun, length, os.POSIX_FADV_DONTNEED)
        self._begun = self._written

    def sync(self) -> None:
        """Bring everything to the disk."""
        self.flush()
        os.fdatasync(self.fd)

    def full(self) -> bool:
        """Say whether the pack should be sealed after this commit."""
        return _is_full(self.position, self.entries)

    def cut_back(self, length: int) -> None:
        """Forget everything past `length`: what a failed commit left."""
        self._parts, self._pending = [], 0
        os.ftruncate(self.fd, length)
        self.entries = [entry for entry in self.entries if entry.end <= length]
        self.position = self._written = self._begun = length

    def seal(self) -> int:
        """Write the central directory, bring it to the disk and return the size of the file."""
        self._parts.append(_directory(self.entries, self.position))
        self.sync()
        self.position = self._written
        return self.position

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


class PackMeasure:
    """Counts how long a pack would be, entry by entry, and writes nothing."""

    def __init__(self) -> None:
        self.position = 0
        self.entries: list[Entry] = []

    def add(self, name: bytes, length: int) -> int:
        """Count an entry and return the offset that its bytes would have."""
        offset = self.position + _LOCAL.size + len(name)
        self.entries.append(Entry(name, offset, length, 0))
        self.position = offset + length
        return offset

    def full(self) -> bool:
        """Say whether the pack would be sealed after this commit."""
        return _is_full(self.position, self.entries)

    def sealed(self) -> int:
        """Return how long the pack would be when it is sealed."""
        return self.position + len(_directory(self.entries, self.position))


def _is_full(position: int, entries: list[Entry]) -> bool:
    return position >= SEAL_BYTES or len(entries) >= SEAL_ENTRIES


def entry_header(name: bytes, crc: int, length: int) -> bytes:
    """Return what stands before the bytes of an entry, its name included."""
    return _local_header(crc, length, len(name)) + name


def _local_header(crc: int, length: int, name_length: int) -> bytes:
    return _LOCAL.pack(b"PK\3\4", 20, _UTF8, 0, 0, _DATE, crc, length, length, name_length, 0)


def _central_header(entry: Entry) -> bytes:
    local = entry.offset - len(entry.name) - _LOCAL.size
    extra = b""
    if local >= 0xFFFFFFFF:
        extra = Struct("<HHQ").pack(1, 8, local)
        local = 0xFFFFFFFF
    fixed = _CENTRAL.pack(
        b"PK\1\2", 0x31E, 20, _UTF8, 0, 0, _DATE, entry.crc, entry.length, entry.length,
        len(entry.name), len(extra), 0, 0, 0, _MODE, local,
    )  # fmt: skip
    return fixed + entry.name + extra


def _directory(entries: list[Entry], start: int) -> bytes:
    """Return the central directory, which begins at `start`, and the end record."""
    directory = b"".join(map(_central_header, entries))
    count = len(entries)
    end = b""
    if count >= 0xFFFF or start >= 0xFFFFFFFF:
        end = _END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start)
        end += _LOCATOR64.pack(b"PK\6\7", 0, start + len(directory), 1)
    short = min(count, 0xFFFF)
    end += _END.pack(b"PK\5\6", 0, 0, short, short, len(directory), min(start, 0xFFFFFFFF), 0)
    return directory + end


def scan(fd: int, start: int, *, verify: bool) -> Iterator[Entry]:
    """Walk the local headers from `start`; stop at the first that is torn, foreign or (verify) has a wrong CRC.

    The end of the last entry given is the length up to which the pack is whole.
    """
    size = os.fstat(fd).st_size
    position = start
    while position + _LOCAL.size <= size:
        header = os.pread(fd, _LOCAL.size + _NAME_LIMIT, position)
        *_, crc, _, length, name_length, _ = _LOCAL.unpack_from(header)
        if header[: _LOCAL.size] != _local_header(crc, length, name_length) or not 0 < name_length <= _NAME_LIMIT:
            return
        name = header[_LOCAL.size : _LOCAL.size + name_length]
        offset = position + _LOCAL.size + name_length
        if offset + length > size or (verify and range_crc(fd, offset, length) != crc):
            return
        yield Entry(name, offset, length, crc)
        position = offset + length


class Walked(NamedTuple):
    """How far one comes in a pack that is hurt, from header to header."""

    entries: list[Entry]
    at: int
    """Where the walk ended."""
    end: str
    """Why: `whole` at the end of the file or at a central directory, `cut` in an entry that goes on past
    the end of the file, `lost` at a header that leads nowhere."""


def walk(fd: int, start: int) -> Walked:
    """Step from the entry that begins at `start` to the next, over whatever is hurt in them.

    A header says its length twice, and its name's follows from the kind of entry, so one that is hurt mostly
    still leads to the next. Bytes inside an entry are never taken for a header: whoever made the file that
    was imported chose them.
    """
    size = os.fstat(fd).st_size
    entries: list[Entry] = []
    position = start
    while position + _LOCAL.size <= size:
        header = os.pread(fd, _LOCAL.size + _NAME_LIMIT, position)
        if header[:4] in _AFTER_ENTRIES:
            return Walked(entries, position, "whole")
        *_, crc, packed, length, name_length, _ = _LOCAL.unpack_from(header)
        found = None
        for name_size in dict.fromkeys((name_length, *_NAME_LENGTHS)):
            offset = position + _LOCAL.size + name_size
            fits = (one for one in dict.fromkeys((length, packed)) if _leads_on(fd, offset + one, size))
            stored = next(fits, None) if 0 < name_size <= _NAME_LIMIT else None
            if stored is not None:
                found = Entry(header[_LOCAL.size : _LOCAL.size + name_size], offset, stored, crc)
                break
        if found is None:
            whole = header[: _LOCAL.size] == _local_header(crc, length, name_length)
            cut = whole and position + _LOCAL.size + name_length + length > size
            return Walked(entries, position, "cut" if cut else "lost")
        entries.append(found)
        position = found.end
    return Walked(entries, position, "whole" if position == size else "cut")


def _leads_on(fd: int, at: int, size: int) -> bool:
    """Say whether an entry, a central directory or the end of the file is at this place."""
    if at >= size:
        return at == size
    head = os.pread(fd, len(_ALIKE), at)
    alike = sum(one == other for one, other in zip(head, _ALIKE, strict=False))
    return (
        head[:4] in _AFTER_ENTRIES or alike >= len(_ALIKE) - 2 or (at + _LOCAL.size > size and _ALIKE.startswith(head))
    )


def search(fd: int, start: int, name: bytes) -> Iterator[Entry | None]:
    """Find whole entries with a name like this pattern anywhere from `start`, where a walk was lost.

    They may be part of another entry's bytes, so they prove nothing; nothing but doubt comes of them. None is
    given, and the search over, once it has read as much again as the pack holds.
    """
    header = re.compile(rb"PK\x03\x04.{26}" + name, re.DOTALL)
    overlap = _LOCAL.size + _NAME_LIMIT
    left = os.fstat(fd).st_size
    while piece := os.pread(fd, _FLUSH_BYTES + overlap, start):
        for match in header.finditer(piece):
            if match.start() < _FLUSH_BYTES:
                for entry in islice(scan(fd, start + match.start(), verify=False), 1):
                    left -= entry.length
                    if left < 0:
                        yield None
                        return
                    if range_crc(fd, entry.offset, entry.length) == entry.crc:
                        yield entry
        start += _FLUSH_BYTES


def range_crc(fd: int, offset: int, length: int) -> int:
    """Return the CRC-32 of a range of a file, read in pieces of 4 MiB."""
    crc = 0
    while length:
        piece = os.pread(fd, min(length, _FLUSH_BYTES), offset)
        if not piece:
            return -1
        crc = crc32(piece, crc)
        offset += len(piece)
        length -= len(piece)
    return crc


def directory_start(fd: int) -> int | None:
    """Return where the central directory of a sealed pack begins; None where the pack is not (wholly) sealed."""
    size = os.fstat(fd).st_size
    if size < _END.size:
        return None
    tail = os.pread(fd, min(size, _READ_AHEAD), max(0, size - _READ_AHEAD))
    magic, _, _, _, count, length, start, _ = _END.unpack_from(tail, len(tail) - _END.size)
    if magic != b"PK\5\6":
        return None
    end = size - _END.size
    if count == 0xFFFF or start == 0xFFFFFFFF:
        at = len(tail) - _END.size - _LOCATOR64.size - _END64.size
        if at < 0:
            return None
        magic, *_, length, start = _END64.unpack_from(tail, at)
        if magic != b"PK\6\6":
            return None
        end -= _LOCATOR64.size + _END64.size
    return start if start + length == end else None


def directory(fd: int) -> list[Entry]:
    """Return the entries that the central directory of a sealed pack names; raise Damaged where it is none of ours."""
    start = directory_start(fd)
    if start is None:
        raise Damaged("the pack has no whole central directory")
    data = os.pread(fd, os.fstat(fd).st_size - start, start)
    entries: list[Entry] = []
    at = 0
    while data[at : at + 4] == b"PK\1\2" and at + _CENTRAL.size <= len(data):
        fields = _CENTRAL.unpack_from(data, at)
        crc, length, name_length, extra_length, local = fields[7], fields[8], fields[10], fields[11], fields[16]
        name = data[at + _CENTRAL.size : at + _CENTRAL.size + name_length]
        at += _CENTRAL.size + name_length
        if local == 0xFFFFFFFF and extra_length >= 12:
            (local,) = Struct("<Q").unpack_from(data.ljust(at + 12), at + 4)
        at += extra_length
        entries.append(Entry(name, local + _LOCAL.size + name_length, length, crc))
    if data != _directory(entries, start):
        raise Damaged("the pack's central directory is damaged")
    return entries


def faults(fd: int, end: int, *, sealed: bool) -> Iterator[str]:
    """Say what is wrong before `end`, where the last entry ends, apart from the bytes of blobs in a sealed pack."""
    entries = [entry for entry in scan(fd, 0, verify=not sealed) if entry.end <= end]
    reached = entries[-1].end if entries else 0
    if reached != end:
        yield f"the entry at {reached} is torn"
    elif sealed:
        try:
            if directory(fd) != entries:
                yield "its central directory contradicts its entries"
        except Damaged as error:
            yield str(error)
    for entry in entries:
        if sealed and entry.name.startswith(b"c/") and range_crc(fd, entry.offset, entry.length) != entry.crc:
            yield f"the commit at {entry.offset} is damaged"
