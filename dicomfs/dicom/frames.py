"""Where the frames of an instance lie, and what they are called when they are served one by one."""

from collections.abc import Callable
from typing import Final, TypeAlias

from dicomfs.dicom.encoding import Data
from dicomfs.dicom.part10 import EXPLICIT_VR_LITTLE_ENDIAN, Part10

MOST_FRAMES: Final = 1 << 20
"""No instance has more: what a file claims beyond is not believed."""

Read: TypeAlias = Callable[[int, int], bytes | memoryview]
"""Returns bytes [start, end) of the data."""


class Frames:
    """Where the frames of an instance lie. Immutable; may be shared by threads."""

    count: int = 0
    """How many there are; 0 where no pixels could be served as frames."""
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN
    """Of the frames as they are served, which is little endian and never deflated."""
    media_type: str = "application/octet-stream"
    """By PS3.18 8.7.3.3."""
    single_stream: bool = False
    """A video: frame 1 is the whole stream."""
    swap: int = 1
    """How many bytes are to be reversed to get little endian, counted from `start`; 1 for none."""
    bit_packed: bool = False
    """Frames do not begin on bytes: the bits have to be moved."""

    def ranges(self, number: int) -> list[tuple[int, int]]:
        """Return the ranges of the data that, joined, are frame `number` (from 1), before swapping."""
        raise NotImplementedError

    def length(self, number: int) -> int:
        """Return how many bytes frame `number` has as it is served."""
        raise NotImplementedError

    def frame(self, number: int, read: Read) -> bytes:
        """Return frame `number` as it is served."""
        raise NotImplementedError


def find_frames(data: Data, part10: Part10, read: Read) -> Frames:
    """Find the frames of the instance in `data`, whose bulk may be missing: that is had by `read`."""
    raise NotImplementedError
