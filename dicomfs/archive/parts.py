"""One instance of the archive, opened to be taken apart: its header in place, its frames found.

    the data    meta information | elements … | Pixel Data | elements …     the file, or inflated where it is deflated
    `data`      meta information | elements … | 0000000000 | elements …     what is bulk is had by `read`

Offsets of elements are counted in the data, here and in `dicom`.
"""

import mmap
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from typing import Final, Protocol

from dicomfs.archive.archive import Archive, InstanceFile
from dicomfs.dicom import part10 as part10s
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.frames import Frames, find_frames
from dicomfs.dicom.part10 import Part10
from dicomfs.errors import Damaged

MAPPED_FROM: Final = 1 << 16
"""Shorter data is put together in memory that is not returned page by page."""
_MAP_NORESERVE: Final = 0x4000
"""Linux: pages are counted when they are written, which most of these never are."""
_WHOLE_AT_MOST: Final = part10s.INFLATED_AT_MOST
_STEP: Final = 1 << 22
_WALKED_AT_ONCE: Final = 1 << 16
"""A header of up to this length is walked while others wait: less than a millisecond, a tenth of a second at worst."""
_READS_AT_ONCE: Final = 64
"""How often bulk may be read to find frames while others wait."""


class Source(Protocol):
    """Where the bytes of an instance's data come from. `read_ready` is for one thread, the rest for any."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read(self, offset: int, size: int, /) -> bytes | memoryview:
        """Return up to `size` bytes; wait as long as it takes. Raise Damaged."""

    def read_ready(self, offset: int, size: int, /) -> bytes | memoryview | None:
        """Return the same if nothing has to be waited for, else None."""

    def coming(self, offset: int, size: int, /) -> Future[memoryview] | None:
        """Return what is being made and will make `read_ready` answer, if anything is."""

    def prefetch(self, start: int, stop: int, /) -> None:
        """Begin to make what a reader of this range asks for first."""

    def close(self, start: int, stop: int, /) -> None:
        """End reading of this range."""


class Held:
    """Data that is in memory. May be shared by threads."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.size = len(data)

    def read_ready(self, offset: int, size: int) -> memoryview:
        """Return up to `size` bytes at `offset`."""
        return self._data[offset : offset + size]

    read = read_ready

    def coming(self, _offset: int, _size: int) -> None:
        """Have nothing in the making."""

    def prefetch(self, _start: int, _stop: int) -> None:
        """Have nothing to make."""

    def close(self, _start: int, _stop: int) -> None:
        """Hold nothing that others do not."""


class Parts:
    """One instance, opened to be taken apart. Immutable; may be shared by threads."""

    def __init__(self, file: InstanceFile, data: Data, part10: Part10, source: Source, written: int) -> None:
        self.file = file
        """The Part 10 file."""
        self.data = data
        """As long as the data, exact everywhere but within bulk, where there may be zeros."""
        self.part10 = part10
        self.source = source
        """The real bytes of the data."""
        self._written = written

    @property
    def memory(self) -> int:
        """How many bytes it keeps in memory, as far as it was looked at; pages of zeros are none."""
        frames = self.__dict__.get("frames")
        return self._written + (frames.memory if isinstance(frames, Frames) else 0)

    @classmethod
    def open(cls, archive: Archive, ino: int) -> "Parts":
        """Open an instance; wait as long as it takes. Raise NotFound, or Damaged."""
        file = archive.open_instance(ino)
        data, exact = _skeleton(file)
        if not exact:
            data = _whole(file)
        part10 = _located(data)
        if not part10.deflated:
            return cls(file, data, part10, file, file.literal_length if exact else min(file.size, _WHOLE_AT_MOST))
        inflated = memoryview(part10s.inflated(_whole(file), part10.start))
        return cls(file, inflated, _located(inflated), Held(inflated), len(inflated))

    @classmethod
    def open_ready(cls, archive: Archive, ino: int) -> "Parts | None":
        """Return the same with its frames if nothing has to be waited for, else None. For one thread only."""
        file = archive.open_instance_ready(ino)
        if file is None or file.literal_length > _WALKED_AT_ONCE:
            return None
        data, exact = _skeleton(file)
        if not exact:
            return None
        part10 = _located(data)
        if part10.deflated:
            return None
        parts = cls(file, data, part10, file, file.literal_length)
        try:
            parts.__dict__["frames"] = find_frames(data, part10, _at_once(file))
        except _NotReady:
            return None
        except Damaged:
            pass  # which concerns who asks for the frames
        return parts

    @cached_property
    def frames(self) -> Frames:
        """Where the frames lie; raise Damaged where that cannot be found out."""
        return find_frames(self.data, self.part10, self.read)

    def read(self, start: int, end: int) -> bytes | memoryview:
        """Return the real bytes [start, end) of the data; raise Damaged."""
        return self.source.read(start, end - start)


class _NotReady(Exception):
    """Bulk is needed that has to be waited for."""


def _at_once(file: InstanceFile) -> Callable[[int, int], bytes | memoryview]:
    """Return what reads bulk that is in memory, and not for long: others wait."""
    left = iter(range(_READS_AT_ONCE))

    def read(start: int, end: int) -> bytes | memoryview:
        found = None if next(left, None) is None else file.read_ready(start, end - start)
        if found is None:
            raise _NotReady
        return found

    return read


def _located(data: Data) -> Part10:
    found = part10s.locate(data)
    if found is None:
        raise Damaged("an instance of the archive is no DICOM file")
    return found


def _skeleton(file: InstanceFile) -> tuple[Data, bool]:
    """Return a file with zeros where its blobs lie, and whether its header is there: not if it was kept whole."""
    literals = list(file.literals())
    exact = bool(literals) and literals[0][0] == 0
    if file.size < MAPPED_FROM:
        short = bytearray(file.size)
        for start, literal in literals:
            short[start : start + len(literal)] = literal
        return memoryview(short), exact
    mapped = room(file.size)
    for start, literal in literals:
        mapped[start : start + len(literal)] = literal
    return mapped, exact


def _whole(file: InstanceFile) -> Data:
    """Return a file's real bytes, as many as there may be in memory, and zeros after them."""
    mapped = room(file.size)
    for start in range(0, min(file.size, _WHOLE_AT_MOST), _STEP):
        data = file.read(start, _STEP)
        mapped[start : start + len(data)] = data
    return mapped


def room(size: int) -> mmap.mmap:
    """Return zeros that take memory page by page, where something is written."""
    try:
        return mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    except (OSError, OverflowError, ValueError) as error:
        raise Damaged("there is no memory to open an instance in") from error
