"""Where the frames of an instance lie, and what they are called when they are served one by one.

Native frames follow each other in the value of (Float, Double Float) Pixel Data; those of encapsulated pixel data
are fragments, which `fragments` puts together. Frames are served in little endian and never deflated, as PS3.18
8.7.3.3 has it, so big endian samples are reversed and bits are moved to where bytes begin.
"""

import re
from array import array
from itertools import accumulate
from operator import sub
from typing import Final

from dicomfs.dicom.encoding import DOUBLE_FLOAT_PIXEL_DATA, FLOAT_PIXEL_DATA, PIXEL_DATA, Data, Encoding
from dicomfs.dicom.fragments import MOST_FRAMES, Fragments, Read, by_frame, by_offsets, fragments, offsets
from dicomfs.dicom.part10 import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Part10,
)
from dicomfs.dicom.split import Geometry
from dicomfs.dicom.stretch import Stretch
from dicomfs.dicom.stride import Found
from dicomfs.dicom.walk import Walk
from dicomfs.errors import NotFound

__all__ = ["MOST_FRAMES", "Frames", "Read", "find_frames"]

SAMPLES_PER_PIXEL: Final = 0x00280002
PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
NUMBER_OF_FRAMES: Final = 0x00280008
ROWS: Final = 0x00280010
COLUMNS: Final = 0x00280011
BITS_ALLOCATED: Final = 0x00280100
EXTENDED_OFFSET_TABLE: Final = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS: Final = 0x7FE00002

_PIXELS: Final = (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA)
_WANTED: Final = frozenset((
    SAMPLES_PER_PIXEL, PHOTOMETRIC_INTERPRETATION, NUMBER_OF_FRAMES, ROWS, COLUMNS, BITS_ALLOCATED,
    EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS, *_PIXELS,
))  # fmt: skip

ENCAPSULATED_UNCOMPRESSED: Final = "1.2.840.10008.1.2.1.98"
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
DEFLATED_IMAGE_FRAME: Final = "1.2.840.10008.1.2.8.1"
OCTETS: Final = "application/octet-stream"
_JPEG: Final = "1.2.840.10008.1.2.4."
_MEDIA_TYPES: Final = {
    RLE_LOSSLESS: "image/dicom-rle",
    DEFLATED_IMAGE_FRAME: "application/x-deflate",
    **dict.fromkeys((f"{_JPEG}{number}" for number in range(50, 71)), "image/jpeg"),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (80, 81)), "image/jls"),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (90, 91)), "image/jp2"),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (92, 93)), "image/jpx"),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (110, 111, 112)), "image/jxl"),
    **dict.fromkeys((f"{_JPEG}{number}" for number in (201, 202, 203)), "image/jphc"),
    **dict.fromkeys((f"{_JPEG}{number}" for number in ("100", "100.1", "101", "101.1")), "video/mpeg"),
    **dict.fromkeys((f"{_JPEG}{number}{more}" for number in range(102, 109) for more in ("", ".1")), "video/mp4"),
}
"""PS3.18 table 8.7.3-5; retired JPEG processes are image/jpeg as well."""
_NATIVE: Final = DEFLATED | {
    "", IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, ENCAPSULATED_UNCOMPRESSED
}  # fmt: skip
_ONE_FRAGMENT: Final = _NATIVE | {RLE_LOSSLESS, DEFLATED_IMAGE_FRAME}
"""Each frame is in exactly one fragment, PS3.5 A.4.2, A.4.11."""
_UID: Final = re.compile(r"[0-9.]{1,64}")
_LONGEST: Final = 64
"""No value of these is longer."""
_NO_VALUE: Final = (0, 0, 0)
_NUMBERS: Final = {"US": 2, "SS": 2, "UL": 4, "SL": 4}
_INTEGER: Final = re.compile(rb"[ \0]*\+?([0-9]{1,18})[ \0]*")


class Frames:
    """Where the frames of an instance lie. Immutable; may be shared by threads. This one has none."""

    def __init__(
        self,
        count: int = 0,
        transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
        media_type: str = OCTETS,
        *,
        swap: int = 1,
        bit_packed: bool = False,
    ) -> None:
        self.count = count
        """How many there are; 0 where no pixels can be served as frames."""
        self.transfer_syntax = transfer_syntax
        """Of the frames as they are served."""
        self.media_type = media_type
        """By PS3.18 8.7.3.3."""
        self.single_stream = media_type.startswith("video/")
        """A video: frame 1 is the whole stream."""
        self.swap = swap
        """How many bytes are reversed to get little endian; 1 for none."""
        self.bit_packed = bit_packed
        """Frames do not begin on bytes: the bits have to be moved."""
        self.memory = 0
        """How many bytes it takes to know where they lie."""

    def stretches(self, number: int) -> list[Stretch]:
        """Return what, joined, is frame `number` (from 1) as it is served; raise NotFound where there is none."""
        if not 1 <= number <= self.count:
            raise NotFound(f"there is no frame {number}: this instance has {self.count}")
        return self._stretches(number)

    def _stretches(self, _number: int) -> list[Stretch]:
        return []

    def ranges(self, number: int) -> list[tuple[int, int]]:
        """Return the ranges of the data that hold frame `number`: joined, it is the frame.

        Where `swap` is not 1 these are the samples before swapping; where bits are packed, all bytes that have some.
        """
        return [(one.start, one.end) for one in self.stretches(number)]

    def length(self, number: int) -> int:
        """Return how many bytes frame `number` has as it is served."""
        return sum(one.length for one in self.stretches(number))

    def pieces(self, number: int) -> int:
        """Return how many stretches frame `number` has, without making any."""
        return 1 if 1 <= number <= self.count else 0

    def frame(self, number: int, read: Read) -> bytes:
        """Return frame `number` as it is served."""
        parts = [one.served(read(one.start, one.end), 0, one.length) for one in self.stretches(number)]
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)


class NativeFrames(Frames):
    """Frames of one length, one after another in one value."""

    def __init__(self, start: int, end: int, bits: int, count: int, transfer_syntax: str, swap: int) -> None:
        super().__init__(count, transfer_syntax, swap=swap, bit_packed=bool(bits % 8) and count > 1)
        self._start = start
        self._end = end
        self._bits = bits

    def _stretches(self, number: int) -> list[Stretch]:
        bits, swap = self._bits, self.swap
        first = (number - 1) * bits
        begin = self._start + first // 8 // swap * swap
        stop = -(-(first + bits) // 8)
        end = min(self._start + -(-stop // swap) * swap, self._end)
        skip = first - 8 * (begin - self._start)
        if not self.bit_packed and not skip and 8 * (end - begin) - bits < 8:
            return [Stretch(begin, end, swap)]
        return [Stretch(begin, end, swap, skip, bits)]


class EncapsulatedFrames(Frames):
    """Frames of fragments."""

    def __init__(self, found: Fragments, bounds: "array[int]", transfer_syntax: str, media_type: str) -> None:
        super().__init__(len(bounds) - 1, transfer_syntax, media_type)
        self._starts = found.starts
        self._ends = found.ends
        self._bounds = bounds
        # Of all fragments before each, for one frame may have a million of them.
        self._lengths = array("Q", accumulate(map(sub, found.ends, found.starts), initial=0))
        tables = self._starts, self._ends, self._bounds, self._lengths
        self.memory = sum(len(table) * table.itemsize for table in tables)

    def pieces(self, number: int) -> int:
        """Return how many fragments frame `number` has."""
        return self._bounds[number] - self._bounds[number - 1] if 1 <= number <= self.count else 0

    def length(self, number: int) -> int:
        """Return how many bytes frame `number` has as it is served."""
        if not self.pieces(number):
            return super().length(number)
        first, last = self._bounds[number - 1], self._bounds[number]
        return int(self._lengths[last] - self._lengths[first])

    def _stretches(self, number: int) -> list[Stretch]:
        own = slice(self._bounds[number - 1], self._bounds[number])
        return list(map(Stretch, self._starts[own], self._ends[own]))


def find_frames(data: Data, part10: Part10, read: Read) -> Frames:
    """Find the frames of the instance in `data`, whose bulk may be missing there: it is had by `read`.

    Raises nothing but what `read` does. Linear in the number of elements and fragments.
    """
    if part10.deflated:
        return Frames()
    walk = Walk(data, part10.start, len(data), part10.encoding, _WANTED)
    tag = next((tag for tag in _PIXELS if tag in walk.found), 0)
    if not tag:
        return Frames()
    vr, start, end = walk.found[tag]
    geometry = _geometry(data, walk.found, part10.encoding)
    if start == end and vr == part10.encoding.number("SQ"):
        return _encapsulated(data, start, part10, walk.found, geometry, read)
    return _native(tag, vr, start, end, part10, geometry)


def _native(tag: int, vr: int, start: int, end: int, part10: Part10, geometry: Geometry) -> Frames:
    length = end - start
    bits = geometry.frame_bits(tag, length)
    # The number of frames is not trusted: whole frames as far as the value goes.
    count = min(max(geometry.frames, 1), length * 8 // bits, MOST_FRAMES) if bits else 0
    encoding = part10.encoding
    transfer_syntax = part10.transfer_syntax
    if encoding.big or (transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN and not _is_private(transfer_syntax)):
        # The Standard's names for compressed pixels would be lies, as these are not.
        transfer_syntax = EXPLICIT_VR_LITTLE_ENDIAN
    if not count:
        return Frames(0, transfer_syntax)
    return NativeFrames(start, end, bits, count, transfer_syntax, _swap(tag, vr, geometry, encoding))


def _swap(tag: int, vr: int, geometry: Geometry, encoding: Encoding) -> int:
    if not encoding.big:
        return 1
    sample = geometry.sample_bytes(tag)
    # OW is a stream of 16-bit words, so two 8-bit samples in each are reversed as well, PS3.5 8.1.2.
    if sample == 1 and geometry.bits_allocated == 8 and vr in (0, encoding.number("OW")):
        return 2
    return sample


def _encapsulated(data: Data, position: int, part10: Part10, values: dict[int, Found], geometry: Geometry, read: Read
                  ) -> Frames:  # fmt: skip
    transfer_syntax = part10.transfer_syntax
    if transfer_syntax and not _UID.fullmatch(transfer_syntax):
        return Frames()
    encoding = part10.encoding
    found = fragments(data, position, encoding, read)
    frames = min(max(geometry.frames, 1), MOST_FRAMES)
    native = transfer_syntax in _NATIVE
    if native and not _trim(found, geometry):
        return Frames()  # nobody knows what these fragments are
    media_type = _MEDIA_TYPES.get(transfer_syntax, OCTETS)
    if media_type.startswith("video/"):
        bounds = array("I", sorted({0, len(found.starts)}))
    else:
        basic = offsets(found.table, 4, read, big=encoding.big)
        extended, lengths = (
            offsets(values.get(tag, _NO_VALUE)[1:], 8, read, big=encoding.big)
            for tag in (EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS)
        )
        bounds = by_frame(found, frames, (extended, basic), read, single=transfer_syntax in _ONE_FRAGMENT)
        if len(extended) == len(lengths) == len(found.starts) and by_offsets(found, extended) is not None:
            _shorten(found, lengths)
    return EncapsulatedFrames(found, bounds, EXPLICIT_VR_LITTLE_ENDIAN if native else transfer_syntax, media_type)


def _trim(found: Fragments, geometry: Geometry) -> bool:
    """Say whether each fragment is a native frame, and leave out the padding to even length."""
    length = geometry.frame_bytes(PIXEL_DATA, 1 << 62)
    for number, (start, end) in enumerate(zip(found.starts, found.ends, strict=True)):
        if not 0 < length <= end - start <= length + 1:
            return False
        found.ends[number] = start + length
    return True


def _shorten(found: Fragments, lengths: "array[int]") -> None:
    """Leave out the padding of each frame, as the extended offset table tells its length (PS3.3 C.7.6.3.1.8)."""
    for number, length in enumerate(lengths):
        if 0 < length <= found.ends[number] - found.starts[number]:
            found.ends[number] = found.starts[number] + length


def _is_private(transfer_syntax: str) -> bool:
    return bool(_UID.fullmatch(transfer_syntax)) and not transfer_syntax.startswith("1.2.840.10008.")


def _geometry(data: Data, values: dict[int, Found], encoding: Encoding) -> Geometry:
    rows, columns, samples, bits, frames = (
        _number(data, tag, values.get(tag, _NO_VALUE), encoding)
        for tag in (ROWS, COLUMNS, SAMPLES_PER_PIXEL, BITS_ALLOCATED, NUMBER_OF_FRAMES)
    )
    _, start, end = values.get(PHOTOMETRIC_INTERPRETATION, _NO_VALUE)
    return Geometry(
        rows=rows,
        columns=columns,
        samples=samples or 1,
        bits_allocated=bits,
        frames=frames,
        subsampled=bytes(data[start : min(end, start + _LONGEST)]).strip(b" \0") == b"YBR_FULL_422",
    )


def _number(data: Data, tag: int, found: Found, encoding: Encoding) -> int:
    """Return the number that a value is, 0 where it is none."""
    vr, start, end = found
    value = bytes(data[start : min(end, start + _LONGEST)])
    name = encoding.vr_names.get(vr, "UN")
    if name == "UN":
        name = "IS" if tag == NUMBER_OF_FRAMES else "US"
    if len(value) == _NUMBERS.get(name):
        return int.from_bytes(value, "big" if encoding.big else "little")
    text = None if name in _NUMBERS else _INTEGER.fullmatch(value)
    return int(text[1]) if text else 0
