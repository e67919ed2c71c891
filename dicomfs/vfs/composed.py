"""Files put together of texts and ranges of instances: frames, bulk values, whole instances as multipart."""

from collections.abc import Sequence
from concurrent.futures import Future

from dicomfs.archive.parts import Parts
from dicomfs.dicom.model import BulkValue
from dicomfs.vfs.node import OpenFile


class Composed:
    """A file made of bytes and ranges of instances' data. May be shared by threads (`read_ready` by one)."""

    size: int

    def __init__(self, pieces: Sequence[bytes | tuple[Parts, int, int]]) -> None:
        raise NotImplementedError

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return up to `size` bytes at `offset`, fewer only at the end; raise Damaged."""
        raise NotImplementedError

    def read_ready(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return the same if nothing has to be waited for, else None."""
        raise NotImplementedError

    def coming(self, offset: int, size: int) -> Future[memoryview] | None:
        """Return what is being made already and will make `read_ready` answer, if anything is."""
        raise NotImplementedError

    def prefetch(self) -> None:
        """Begin to make what a reader of the whole file asks for first."""
        raise NotImplementedError

    def close(self) -> None:
        """End reading."""
        raise NotImplementedError


def frame_file(parts: Parts, number: int, boundary: str) -> OpenFile:
    """Return frame `number` (from 1) as multipart/related of exactly one part, PS3.18 8.6.1.2."""
    raise NotImplementedError


def frame_size(parts: Parts, number: int, boundary: str) -> int:
    """Return the size of that file; reads no pixels."""
    raise NotImplementedError


def part10_file(parts: Parts, boundary: str) -> OpenFile:
    """Return the whole instance as multipart/related of exactly one part."""
    raise NotImplementedError


def part10_size(parts: Parts, boundary: str) -> int:
    """Return the size of that file."""
    raise NotImplementedError


def pixeldata_file(parts: Parts) -> OpenFile:
    """Return the stream of a video, or all frames of a native image one after another."""
    raise NotImplementedError


def bulk_file(parts: Parts, bulk: BulkValue) -> OpenFile:
    """Return the bytes of a bulk value in little endian."""
    raise NotImplementedError


def gzipped_file(file: OpenFile) -> OpenFile:
    """Return the same file in a gzip member of stored blocks, whose size is known without reading."""
    raise NotImplementedError


def gzipped_size(size: int) -> int:
    """Return how long that is for a file of this size."""
    raise NotImplementedError
