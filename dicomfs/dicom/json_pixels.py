"""What the frames of a static DICOMweb tree are, and how they become pixel data again (PS3.5 8, A.4).

A frame says its transfer syntax in its own header, and nothing else is believed. What the reference lost is not
guessed: frames that are missing, or too short for what the header says, and 16-bit colour that became JPEG baseline
are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.dicom.json_part10 import AVAILABLE_TRANSFER_SYNTAX_UID, PIXELS, vr_of
from dicomfs.dicom.json_values import Element, Json, first_number, first_text
from dicomfs.dicom.part10 import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dicomfs.dicom.picture_decode import Layout, decode

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

JPEG_LS: Final = "1.2.840.10008.1.2.4.80"
_MOST_SAMPLES: Final = 1 << 26
"""Of a larger frame nobody looks at the samples."""
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
GE_PRIVATE: Final = "1.2.840.113619.5.2"
_NATIVE: Final = frozenset(
    (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED, EXPLICIT_VR_BIG_ENDIAN, GE_PRIVATE)
)
_ENCAPSULATED: Final = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.8.", "3.2.840.10008.1.2.4.")
_RLE: Final = "1.2.840.10008.1.2.5"
_VIDEO: Final = {
    **dict.fromkeys(("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.101"), "mpg"),
    **{f"1.2.840.10008.1.2.4.{number}": "mp4" for number in range(102, 107)},
    **dict.fromkeys(("1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108"), "h265"),
}
MOST_FRAMES: Final = 1 << 20

LOSSY: Final = "colour was made JPEG baseline by the tree's writer, which loses some of it, and says so now"
SWAPPED: Final = "big endian samples are little endian now"
PACKED: Final = "frames of single bits are joined"
UNTOLD: Final = "its pixel data are fragments of which no transfer syntax tells, and stay what they are"

_FLOATS: Final = {"7FE00008": ("OF", 32), "7FE00009": ("OD", 64)}
"""Float and Double Float Pixel Data: VR, and the bits of a sample (PS3.3 C.7.6.24, C.7.6.25)."""
_ITEM: Final = b"\xfe\xff\x00\xe0"
_DELIMITER: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"


class Unfit(Exception):
    """Frames that do not make the pixel data; the reason holds no value."""


class Plan(NamedTuple):
    """How frames become pixel data."""

    syntax: str
    """Of the file."""
    told: str
    """That of the frames."""
    tag: str
    """The element that holds them."""
    vr: str
    encapsulated: bool
    swap: int
    """So many bytes of a sample are reversed; 1 for none."""
    length: int
    """Bytes of native pixel data that the header calls for, 0 where it does not say."""
    frame_bits: int
    frames: int
    decoded: bool
    """Frames are decoded first: what was coded were samples in the wrong order."""
    changes: dict[str, Element | None]
    """Elements that are not true any more."""
    notes: tuple[str, ...]


def is_video(syntax: str) -> bool:
    """Say whether a transfer syntax is one of video, whose one frame is a stream."""
    return _without_last(syntax) in _VIDEO


def video_syntax(record: Mapping[str, Json], extension: str) -> str:
    """Return the transfer syntax of a video that is a plain file, as the first writer left it; raise Unfit.

    There is no frame to say it, and (0008,3002) is as it was in the file if its VR is still UI.
    """
    told = record.get(AVAILABLE_TRANSFER_SYNTAX_UID)
    syntax = first_text(told) if isinstance(told, dict) and told.get("vr") == "UI" else ""
    if _VIDEO.get(_without_last(syntax)) != extension:
        raise Unfit("nothing tells the transfer syntax of its video")
    return syntax


class Frames(NamedTuple):
    """The frames that there are: how many, the first one, and how many bytes all of them are."""

    syntax: str
    number: int
    first: Callable[[], bytes]
    size: Callable[[], int]


def element_of_frames(record: Mapping[str, Json]) -> str:
    """Return the element that an instance's frames are of, "" where it has none."""
    if PIXELS in record:
        return PIXELS
    return next((tag for tag in _FLOATS if _uri(record, tag).rpartition("/")[2] == "frames"), "")


class Value(NamedTuple):
    """Pixel data that is a bulk value, for it cannot be told where its frames begin."""

    syntax: str
    """Of the file."""
    fragments: bytes | None
    """What is in the element if that is encapsulated; None if it is as any other."""
    notes: tuple[str, ...]


def is_value(record: Mapping[str, Json]) -> bool:
    """Say whether the pixel data are a bulk value as any other, and no frames."""
    return "bulkdata/" in _uri(record, PIXELS)


def of_value(record: Mapping[str, Json], value: bytes) -> Value:
    """Say what pixel data are that are a bulk value; raise Unfit."""
    told = _available(record)
    if _are_fragments(value):
        if told.startswith(_ENCAPSULATED) or told == _RLE:
            return Value(told, value.removesuffix(_DELIMITER), ())
        return Value(EXPLICIT_VR_LITTLE_ENDIAN, value.removesuffix(_DELIMITER), (UNTOLD,))
    if told not in _NATIVE and told:
        raise Unfit("its pixel data are no frames, and not what its transfer syntax has")
    return Value(EXPLICIT_VR_LITTLE_ENDIAN, None, ())


def _are_fragments(value: bytes) -> bool:
    """Say whether a value is made of items up to its end (PS3.5 A.4)."""
    at, end = 0, len(value.removesuffix(_DELIMITER))
    while at + 8 <= end and value.startswith(_ITEM, at):
        at += 8 + int.from_bytes(value[at + 4 : at + 8], "little")
    return 0 < at == end


def plan(record: Mapping[str, Json], found: Frames, *, first_writer: bool) -> Plan:
    """Say how frames become pixel data; raise Unfit.

    `first_writer` where the reference's first writer made them, which transcodes.
    """
    syntax, frames, first, size = found
    told = max(1, _number(record, "00280008"))
    if frames != told and not (is_video(syntax) and frames == 1):
        raise Unfit(f"it has {frames:,} frames, and its header tells of {told:,}")
    tag = element_of_frames(record)
    if syntax in _NATIVE:
        return _native(record, syntax, told, tag)
    if tag != PIXELS:
        raise Unfit("its samples are floating point numbers, and its frames are compressed")
    if not (syntax.startswith(_ENCAPSULATED) or syntax == _RLE):
        raise Unfit("the transfer syntax of its frames is none that is known")
    if _available(record) == EXPLICIT_VR_BIG_ENDIAN and _number(record, "00280100") > 8:
        raise Unfit("its frames were coded from big endian samples, whose bytes may have changed places")
    if not (first_writer and _is_rewritten(record)):
        return Plan(syntax, syntax, PIXELS, "OB", True, 1, 0, 0, told, False, {}, ())
    if syntax == JPEG_LS and _was_swapped(record, first()):
        native = _native(record, EXPLICIT_VR_BIG_ENDIAN, told, PIXELS)
        return native._replace(told=syntax, decoded=True)
    changes, notes = _recompressed(record, first(), size) if syntax == JPEG_BASELINE else ({}, ())
    return Plan(syntax, syntax, PIXELS, "OB", True, 1, 0, 0, told, False, changes, notes)


def is_big_endian(record: Mapping[str, Json], syntax: str) -> bool:
    """Say whether values come from a big endian file, as frames or, without any, (0008,3002) tell."""
    return EXPLICIT_VR_BIG_ENDIAN in (syntax, _available(record))


def _native(record: Mapping[str, Json], syntax: str, frames: int, tag: str) -> Plan:
    bits = _bits(record, tag)
    frame_bits = _native_bits(record, tag) // frames
    element = record[tag]
    vr = vr_of(tag, element if isinstance(element, dict) else {}, record, signed=False)
    swap = 1
    if is_big_endian(record, syntax):
        swap = {16: 2, 32: 4, 64: 8}.get(bits, 2 if vr == "OW" and bits == 8 else 1)
        if bits not in (8, 16, 32, 64):
            raise Unfit("its frames are big endian, in samples of a size that cannot be undone")
    if tag in _FLOATS:
        vr, _ = _FLOATS[tag]
    elif vr not in ("OB", "OW") or bits > 8:
        vr = "OW"
    notes = (SWAPPED,) if swap > 1 else ()
    length = (frame_bits * frames + 7) // 8
    return Plan(EXPLICIT_VR_LITTLE_ENDIAN, syntax, tag, vr, False, swap, length, frame_bits, frames, False, {}, notes)


def _bits(record: Mapping[str, Json], tag: str) -> int:
    """Return how many bits a sample takes."""
    return _FLOATS[tag][1] if tag in _FLOATS else _number(record, "00280100")


def _native_bits(record: Mapping[str, Json], tag: str = PIXELS) -> int:
    """Return how many bits all frames are without compression, 0 where the header does not say."""
    samples = max(1, _number(record, "00280002"))
    if _text(record, "00280004") == "YBR_FULL_422" and samples == 3:
        samples = 2
    frame = _number(record, "00280010") * _number(record, "00280011") * samples * _bits(record, tag)
    return frame * max(1, _number(record, "00280008"))


def _recompressed(
    record: Mapping[str, Json], first: bytes, coded: Callable[[], int]
) -> tuple[dict[str, Element | None], tuple[str, ...]]:
    """Return what is true of colour that was made JPEG baseline; raise Unfit where that destroyed it."""
    if _number(record, "00280100") != 8:
        raise Unfit("its samples of more than 8 bits were made JPEG baseline, which destroyed them")
    methods = [*_values(record, "00282114"), "ISO_10918_1"]
    changes: dict[str, Element | None] = {
        "00282110": {"vr": "CS", "Value": ["01"]},
        "00282114": {"vr": "CS", "Value": [*methods]},
    }
    if (plain := _native_bits(record) // 8) and (size := coded()):
        ratios: list[Json] = [*_values(record, "00282112"), f"{plain / size:.2f}"]
        changes["00282112"] = {"vr": "DS", "Value": ratios}
    if _text(record, "00280004") == "RGB" and (interpretation := _interpretation(first)):
        changes["00280004"] = {"vr": "CS", "Value": [interpretation]}
    return changes, (LOSSY,)


def _is_rewritten(record: Mapping[str, Json]) -> bool:
    """Say whether the first writer set out to transcode: it gives (0008,3002) the VR UN then, and changes no other."""
    available = record.get(AVAILABLE_TRANSFER_SYNTAX_UID)
    return isinstance(available, dict) and available.get("vr") == "UN"


def _was_swapped(record: Mapping[str, Json], frame: bytes) -> bool:
    """Say whether a frame was coded from big endian samples taken for little endian ones.

    They have bits beyond those stored then, and none once their bytes have changed places. Nothing tells it of samples
    that use all of their bits.
    """
    bits, stored = _number(record, "00280100"), _number(record, "00280101")
    shape = _number(record, "00280010"), _number(record, "00280011")
    if bits != 16 or not 0 < stored < bits or not 0 < shape[0] * shape[1] <= _MOST_SAMPLES:
        return False
    import numpy as np

    samples = np.frombuffer(decoded(record, frame), "<u2")
    return not _fits(samples, stored) and _fits(samples.byteswap(), stored)


def decoded(record: Mapping[str, Json], frame: bytes) -> bytes:
    """Return the samples of a JPEG-LS frame as they were coded, 16 bits each; raise Unfit where it is none."""
    rows, columns = _number(record, "00280010"), _number(record, "00280011")
    if _size_of(frame) != (rows, columns):
        raise Unfit("a frame is of another size than its header says")
    layout = Layout("PixelData", JPEG_LS, 1, "MONOCHROME2", 0, rows, columns, 16, 16, signed=False)
    try:
        return decode(frame, layout).pixels.astype("<u2").tobytes()
    except Exception as error:  # whatever a decoder does with what is damaged
        raise Unfit("a frame cannot be decoded") from error


def _fits(samples: npt.NDArray[np.uint16], stored: int) -> bool:
    """Say whether samples have nothing but their sign in the bits above those stored."""
    above = samples >> stored
    return bool(((above == 0) | (above == (1 << 16 - stored) - 1)).all())


def _size_of(frame: bytes) -> tuple[int, int]:
    """Return rows and columns of a JPEG-LS frame (ISO 14495-1 C.2.2)."""
    position = 2
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        if frame[position + 1] == 0xF7:
            return (
                int.from_bytes(frame[position + 5 : position + 7], "big"),
                int.from_bytes(frame[position + 7 : position + 9], "big"),
            )
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return 0, 0


def _interpretation(head: bytes) -> str:
    """Return what a JPEG stream of three components says of its colours, "" if nothing (T.871, Adobe's APP14)."""
    position, said = 2, False
    while position + 4 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        size = int.from_bytes(head[position + 2 : position + 4], "big")
        content = head[position + 4 : position + 2 + size]
        if marker == 0xE0 and content.startswith(b"JFIF\0"):
            said = True
        elif marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12:
            said = content[11] == 1
            if not said:
                return ""
        elif 0xC0 <= marker <= 0xC2 and len(content) >= 15 and content[5] == 3:
            if not said:
                return ""
            return "YBR_FULL_422" if content[7] != content[10] or content[7] != content[13] else "YBR_FULL"
        position += 2 + size
    return ""


def _without_last(syntax: str) -> str:
    """Return a transfer syntax without the `.1` of those that are in several fragments."""
    return ".".join(syntax.split(".")[:8])


def _available(record: Mapping[str, Json]) -> str:
    return _text(record, AVAILABLE_TRANSFER_SYNTAX_UID)


def _number(record: Mapping[str, Json], tag: str) -> int:
    element = record.get(tag)
    return max(0, first_number(element)) if isinstance(element, dict) else 0


def _text(record: Mapping[str, Json], tag: str) -> str:
    element = record.get(tag)
    return first_text(element) if isinstance(element, dict) else ""


def _uri(record: Mapping[str, Json], tag: str) -> str:
    element = record.get(tag)
    uri = element.get("BulkDataURI") if isinstance(element, dict) else None
    return uri if isinstance(uri, str) else ""


def _values(record: Mapping[str, Json], tag: str) -> list[str]:
    element = record.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list):
        return []
    return [text for value in values if isinstance(value, str | int) for text in str(value).split("\\")]
