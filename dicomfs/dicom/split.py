"""How a file is cut into spans: what stays in the header stream, what is kept apart as bulk.

Spans always tile the file: each starts where the one before ended, the first at 0, the last ends at the
end. So a file that was misunderstood costs deduplication and never a byte.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dicomfs.dicom import walk
from dicomfs.dicom.encoding import DOUBLE_FLOAT_PIXEL_DATA, FLOAT_PIXEL_DATA
from dicomfs.dicom.stride import LARGE

LITERAL, FRAME, FRAGMENT, VALUE = 0, walk.NATIVE, walk.FRAGMENT, walk.VALUE

SMALLEST_FRAME: Final = 1024
"""Smaller frames are not worth a blob each; their whole pixel data is one."""


class Span(NamedTuple):
    """A range of the file; `sample_bytes` is the width of the samples of a FRAME that has whole ones."""

    kind: int
    start: int
    end: int
    sample_bytes: int


class Geometry(NamedTuple):
    """What the length of a native frame follows from (PS3.3 C.7.6.3); 0 where an attribute is missing."""

    rows: int = 0
    columns: int = 0
    samples: int = 0
    bits_allocated: int = 0
    frames: int = 0
    subsampled: bool = False

    def frame_bytes(self, tag: int, length: int) -> int:
        """Return the bytes of one frame of pixel data `length` long, 0 when frames do not start on bytes."""
        bits = self.frame_bits(tag, length)
        return 0 if bits % 8 else bits // 8

    def frame_bits(self, tag: int, length: int) -> int:
        """Return the bits of one frame of pixel data `length` bytes long."""
        bits = {FLOAT_PIXEL_DATA: 32, DOUBLE_FLOAT_PIXEL_DATA: 64}.get(tag, self.bits_allocated)
        pixels = self.rows * self.columns
        full = pixels * self.samples * bits
        frames = max(self.frames, 1)
        if self.subsampled and self.samples == 3 and full // 8 * frames > length:
            full = pixels * 2 * bits  # YBR_FULL_422 keeps two samples a pixel, PS3.3 C.7.6.3.1.2
        return full

    def sample_bytes(self, tag: int) -> int:
        """Return the bytes of one sample, 1 when samples share bytes."""
        bits = {FLOAT_PIXEL_DATA: 32, DOUBLE_FLOAT_PIXEL_DATA: 64}.get(tag, self.bits_allocated)
        return bits // 8 if bits in (8, 16, 32, 64) else 1


def whole(size: int) -> list[Span]:
    """Return the spans of a file that nothing is known about."""
    return _tail([], 0, 0, size)


def spans(bulk: Sequence[walk.Bulk], geometry: Geometry, stop: int, size: int) -> list[Span]:
    """Tile a file: its bulk ranges in order, what was not understood from `stop` on, literals between."""
    tiles: list[Span] = []
    at = 0
    for kind, tag, start, end in bulk:
        if start > at:
            tiles.append(Span(LITERAL, at, start, 1))
        if kind == FRAME:
            _frames(tiles, tag, start, end, geometry)
        else:
            tiles.append(Span(kind, start, end, 1))
        at = tiles[-1].end
    return _tail(tiles, at, max(at, stop), size)


def _frames(tiles: list[Span], tag: int, start: int, end: int, geometry: Geometry) -> None:
    # The number of frames is not trusted: whole frames as far as the value goes, then what is left over.
    length = end - start
    frame = geometry.frame_bytes(tag, length)
    sample = geometry.sample_bytes(tag)
    if not SMALLEST_FRAME <= frame <= length or length // frame > walk.MOST_FRAGMENTS:
        frame = length
    last = start + length // frame * frame
    tiles.extend(Span(FRAME, at, at + frame, sample) for at in range(start, last, frame))
    if end - last >= SMALLEST_FRAME:
        tiles.append(Span(FRAME, last, end, sample))


def _tail(tiles: list[Span], at: int, stop: int, size: int) -> list[Span]:
    if size - stop > LARGE:
        if stop > at:
            tiles.append(Span(LITERAL, at, stop, 1))
        tiles.append(Span(VALUE, stop, size, 1))
    elif size > at:
        tiles.append(Span(LITERAL, at, size, 1))
    return tiles
