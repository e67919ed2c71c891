"""Pixel data of a de-identified instance: the very pixels, and nothing that is none.

native            as many bytes as rows, columns, samples, bits and frames say; what follows is left behind
encapsulated      the fragments, each a range of its own; an offset table where it is one; no text in the streams
"""

from collections.abc import Mapping
from typing import Final

from dicomfs.dicom import deid_streams
from dicomfs.dicom.encoding import (
    DOUBLE_FLOAT_PIXEL_DATA,
    EXPLICIT_LITTLE,
    FLOAT_PIXEL_DATA,
    IMPLICIT_BIG,
    PIXEL_DATA,
    Data,
    Encoding,
)
from dicomfs.dicom.fragments import MOST_FRAMES, Fragments, Read, by_offsets, fragments, offsets
from dicomfs.dicom.frames import (
    BITS_ALLOCATED,
    COLUMNS,
    ENCAPSULATED_UNCOMPRESSED,
    EXTENDED_OFFSET_TABLE,
    EXTENDED_OFFSET_TABLE_LENGTHS,
    NUMBER_OF_FRAMES,
    PHOTOMETRIC_INTERPRETATION,
    RLE_LOSSLESS,
    ROWS,
    SAMPLES_PER_PIXEL,
)
from dicomfs.dicom.model_elements import ENCAPSULATED, Element
from dicomfs.dicom.part10 import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Part10,
)
from dicomfs.dicom.pieces import Form, Piece, Range
from dicomfs.dicom.refusal import Refused
from dicomfs.dicom.split import Geometry

PIXEL_TAGS: Final = (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA)

_JPEG: Final = "1.2.840.10008.1.2.4."
_WITH_HEADS: Final = frozenset(
    f"{_JPEG}{number}" for number in (*range(50, 67), 70, 80, 81, 90, 91, 92, 93, 201, 202, 203)
)
"""JPEG, JPEG-LS, JPEG 2000: each frame begins with a head that may hold text."""
_JPEG_XL: Final = frozenset(f"{_JPEG}{number}" for number in (110, 111, 112))
_ENCAPSULATING: Final = _WITH_HEADS | _JPEG_XL | {RLE_LOSSLESS, ENCAPSULATED_UNCOMPRESSED}
_ELSEWHERE: Final = frozenset(f"{_JPEG}{number}" for number in (94, 95, 204, 205))
"""JPIP: the pixels are had from a server."""
_RLE_HEADER: Final = 64
_MOST_SEGMENTS: Final = 15
_OVERLAY_BIT_POSITION: Final = 0x0102
_OVERLAY_DATA: Final = 0x3000


def transfer_syntax(part10: Part10, elements: Mapping[int, Element]) -> tuple[str, Encoding]:
    """Return what the result is in: as the source where that is true, else as its bytes are. Raise Refused."""
    if part10.encoding is IMPLICIT_BIG:
        raise Refused("its encoding is none of the Standard's")
    if part10.transfer_syntax in _ELSEWHERE:
        raise Refused("its pixels are somewhere else (TransferSyntaxUID)")
    if any(tag in elements and elements[tag][4] is ENCAPSULATED for tag in PIXEL_TAGS):
        if part10.transfer_syntax not in _ENCAPSULATING or part10.encoding.big:
            raise Refused("its pixels are compressed in a way that cannot be looked into (TransferSyntaxUID)")
        return part10.transfer_syntax, EXPLICIT_LITTLE
    if part10.encoding.big:
        return EXPLICIT_VR_BIG_ENDIAN, part10.encoding
    known = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    if not part10.transfer_syntax.startswith("1.2.840.10008.1.2"):
        raise Refused("its pixels are kept in a way of their maker's own (TransferSyntaxUID)")
    return known[not part10.encoding.implicit], part10.encoding


def pixels(data: Data, elements: Mapping[int, Element], source: Encoding, syntax: str, form: Form, read: Read
           ) -> dict[int, list[Piece]]:  # fmt: skip
    """Return the elements that pixels are in as they are written, by tag. Raise Refused."""
    present = [tag for tag in PIXEL_TAGS if tag in elements]
    if not present:
        return {}
    if len(present) > 1:
        raise Refused("it has pixel data twice")
    tag = present[0]
    if not _text(data, elements, NUMBER_OF_FRAMES).isdigit() and _text(data, elements, NUMBER_OF_FRAMES):
        raise Refused("the number of its frames is none")
    _refuse_bits_beside(data, elements)
    if elements[tag][4] is ENCAPSULATED:
        return _encapsulated(data, elements, source, syntax, form, read)
    return {tag: _native(data, tag, elements, form)}


def _native(data: Data, tag: int, elements: Mapping[int, Element], form: Form) -> list[Piece]:
    vr, start, end, _, items = elements[tag]
    if items is not None:
        raise Refused("its pixel data is a sequence")
    usual = {FLOAT_PIXEL_DATA: "OF", DOUBLE_FLOAT_PIXEL_DATA: "OD"}.get(tag, "OW")
    vr = vr if vr in (usual, "OB") and tag == PIXEL_DATA else usual
    size = _expected(data, tag, elements, end - start)
    if not 0 < size <= end - start:
        raise Refused("the length of its pixel data is not what rows, columns, bits and frames say")
    padding = b"\0" * (size & 1)
    return [form.header(tag, vr, size + len(padding)), Range(start, start + size), padding]


def _expected(data: Data, tag: int, elements: Mapping[int, Element], size: int) -> int:
    rows, columns, samples, bits, frames = (
        _number(data, elements, each) for each in (ROWS, COLUMNS, SAMPLES_PER_PIXEL, BITS_ALLOCATED, NUMBER_OF_FRAMES)
    )
    interpretation = _text(data, elements, PHOTOMETRIC_INTERPRETATION)
    geometry = Geometry(rows, columns, samples or 1, bits, frames, subsampled=interpretation == b"YBR_FULL_422")
    return -(-geometry.frame_bits(tag, size) * max(frames, 1) // 8)


def _number(data: Data, elements: Mapping[int, Element], tag: int) -> int:
    if tag not in elements:
        return 0
    _, start, end, big, _ = elements[tag]
    if tag == NUMBER_OF_FRAMES:
        text = _text(data, elements, tag)
        return int(text) if text.isdigit() and len(text) < 10 else 0
    return int.from_bytes(data[start:end], "big" if big else "little") if end - start == 2 else 0


def _text(data: Data, elements: Mapping[int, Element], tag: int) -> bytes:
    _, start, end, _, _ = elements.get(tag, ("", 0, 0, False, None))
    return bytes(data[start : min(end, start + 64)]).strip(b" \0")


def _refuse_bits_beside(data: Data, elements: Mapping[int, Element]) -> None:
    """Refuse overlays that lie in the unused bits of pixels (PS3.3 C.9.2, retired): nobody takes them out there."""
    for tag in elements:
        if 0x6000 <= tag >> 16 <= 0x60FF and tag & 0xFFFF == _OVERLAY_BIT_POSITION:
            beside = tag & 0xFFFF0000 | _OVERLAY_DATA not in elements
            if beside or _number(data, elements, tag):
                raise Refused("an overlay lies in the unused bits of its pixels")


def _encapsulated(data: Data, elements: Mapping[int, Element], source: Encoding, syntax: str, form: Form, read: Read
                  ) -> dict[int, list[Piece]]:  # fmt: skip
    _, start, end, _, _ = elements[PIXEL_DATA]
    found = fragments(data, start, source, read)
    last = found.ends[-1] if found.ends else start
    if not found.ends or len(found.ends) >= MOST_FRAMES or not last <= end <= last + 1:
        raise Refused("its compressed pixel data is not made as the Standard says")
    frames = max(_number(data, elements, NUMBER_OF_FRAMES), 1)
    if syntax == RLE_LOSSLESS and len(found.ends) > frames:
        raise Refused("it has more compressed pixels than it says")
    if syntax == ENCAPSULATED_UNCOMPRESSED:
        _refuse_more(data, elements, found, frames)
    _refuse_text(found, syntax, frames, read)
    basic = offsets(found.table, 4, read, big=False)
    even = not any((end - start) & 1 for start, end in zip(found.starts, found.ends, strict=True))
    true_table = even and by_offsets(found, basic) is not None
    table = basic.tobytes() if true_table and len(basic) * 4 == found.table[1] - found.table[0] else b""
    items: list[Piece] = [form.item_header(len(table)), table]
    for start, end in zip(found.starts, found.ends, strict=True):
        padding = b"\0" * ((end - start) & 1)
        items += (form.item_header(end - start + len(padding)), Range(start, end), padding)
    written = {PIXEL_DATA: form.encapsulated(PIXEL_DATA, items)}
    if even:
        written |= _extended(elements, found, form, read)
    return written


def _extended(elements: Mapping[int, Element], found: Fragments, form: Form, read: Read) -> dict[int, list[Piece]]:
    """Return the extended offset table and its lengths if they are right: each frame is one fragment there."""
    tags = (EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS)
    if not all(tag in elements for tag in tags):
        return {}
    places = [elements[tag][1:3] for tag in tags]
    table, lengths = (offsets(place, 8, read, big=False) for place in places)
    count = len(found.starts)
    sizes = zip(lengths, found.starts, found.ends, strict=False)
    right = len(table) == len(lengths) == count and all(0 <= end - start - size <= 1 for size, start, end in sizes)
    if not right or any(end - start != 8 * count for start, end in places) or by_offsets(found, table) is None:
        return {}
    return {tag: [form.element(tag, "OV", each.tobytes())] for tag, each in zip(tags, (table, lengths), strict=True)}


def _refuse_more(data: Data, elements: Mapping[int, Element], found: Fragments, frames: int) -> None:
    """Refuse bytes that are no pixels where each fragment is a frame that is not compressed (PS3.5 A.4.11)."""
    size = _expected(data, PIXEL_DATA, elements, sum(found.ends) - sum(found.starts)) // frames
    lengths = [end - start for start, end in zip(found.starts, found.ends, strict=True)]
    if len(lengths) != frames or not all(length == size + (size & 1) for length in lengths):
        raise Refused("the length of its pixel data is not what rows, columns, bits and frames say")


def _refuse_text(found: Fragments, syntax: str, frames: int, read: Read) -> None:
    """Refuse what is no pixels at the beginning and at the end of each stream; two reads a fragment."""
    begins = True
    heads = 0
    following = _head(found, 0, read)
    for number, (start, end) in enumerate(zip(found.starts, found.ends, strict=True)):
        head, following = following, _head(found, number + 1, read)
        if syntax == RLE_LOSSLESS:
            _refuse_rle(head[:_RLE_HEADER])
            continue
        is_head = deid_streams.is_head(head)
        heads += is_head
        if heads > frames:
            raise Refused("it has more compressed pixels than it says")
        if is_head and deid_streams.hidden_text(head, read, start, end):
            raise Refused("its compressed pixels come with comments or other data that may be text")
        if syntax in _JPEG_XL and ((begins and not is_head) or deid_streams.ends_in_text(read, start, end)):
            raise Refused("its compressed pixels are not what the transfer syntax says")
        begins = begins and syntax not in _JPEG_XL
        if syntax in _WITH_HEADS:
            if begins and not is_head:
                raise Refused("its compressed pixels are not what the transfer syntax says")
            last = not following or deid_streams.is_head(following)
            ended = deid_streams.has_ended(read, start, end, last=last)
            if ended is None:
                raise Refused("data follows the end of its compressed pixels")
            begins = ended


def _head(found: Fragments, number: int, read: Read) -> bytes:
    if number >= len(found.starts):
        return b""
    start = found.starts[number]
    return bytes(read(start, min(found.ends[number], start + deid_streams.HEAD)))


def _refuse_rle(head: bytes) -> None:
    segments = int.from_bytes(head[:4], "little")
    first = int.from_bytes(head[4:8], "little")
    if not 0 < segments <= _MOST_SEGMENTS or first != _RLE_HEADER or any(head[4 + 4 * segments :]):
        raise Refused("its compressed pixels are not what the transfer syntax says")
