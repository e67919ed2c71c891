"""A DICOM JSON object (PS3.18 Annex F) as a Part 10 file in explicit VR little endian.

    preamble "DICM" | meta information | head: elements before the pixel data | pixel data | tail: elements after it

The pixel data is the caller's to write: it may be large, and is a directory of frames. What is made says so: an item of
ContributingEquipmentSequence tells that the original file is not available. It has no time and no version in it, so
that the same object gives the same bytes for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from struct import pack
from typing import Final, NamedTuple

from dicomfs.dicom.encoding import EXPLICIT_LITTLE, LONG_VRS, PIXEL_DATA, SEQUENCE_DELIMITER, SHORT_VRS
from dicomfs.dicom.file_meta import beginning
from dicomfs.dicom.json_text import CHARACTER_SET, DEEPEST, UTF8, Text
from dicomfs.dicom.json_values import Element, Json, NoValue, first_number, first_text, value_bytes
from dicomfs.dicom.model_values import SAMPLES, swapped
from dicomfs.dicom.model_vr import one_vr, usual_vr
from dicomfs.dicom.pieces import Form

PIXELS: Final = f"{PIXEL_DATA:08X}"
AVAILABLE_TRANSFER_SYNTAX_UID: Final = "00083002"
CONTRIBUTING_EQUIPMENT_SEQUENCE: Final = "0018A001"
_SOP_CLASS_UID: Final = "00080016"
_SOP_INSTANCE_UID: Final = "00080018"
_PIXEL_REPRESENTATION: Final = "00280103"

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}").fullmatch
_VRS: Final = frozenset(SHORT_VRS + LONG_VRS)
_LONG: Final = frozenset(LONG_VRS)
_FORM: Final = Form(EXPLICIT_LITTLE)
_FIRST: Final = 0x0003_0000
_ITEMS: Final = 0xFFFE
_SHORT_AT_MOST: Final = 0xFFFE
_LONGEST: Final = 0xFFFF_FFFE
_MOST_EQUIPMENT: Final = 1 << 12


class Form10(NamedTuple):
    """A file without its pixel data, which lies between the two."""

    head: bytes
    tail: bytes


class Source(NamedTuple):
    """What an object is made of apart from itself: its text, its bulk values, and how binary values lie in it."""

    text: Text
    bulk: Callable[[str, str], bytes]
    """Returns the value of a BulkDataURI, (tag, URI); raises what the caller likes."""
    big_endian: bool | None
    """Whether bytes of binary values are big endian, as the reference copies them; None where nobody knows."""
    note: Callable[[str], None]


def part10(
    record: Mapping[str, Json],
    syntax: str,
    changes: Mapping[str, Element | None],
    source: Source,
    described: str,
    *,
    pixels: str = "",
) -> Form10:
    """Return the file of an object; raise NoValue where an element is none.

    `changes` replace elements of the outermost level, or take them out; `described` is what the file says of itself.
    `pixels` is the element that the caller writes; without one, all are in the head.
    """
    changed = {tag: element for tag, element in {**record, **changes}.items() if element is not None}
    changed[CONTRIBUTING_EQUIPMENT_SEQUENCE] = _with_equipment(
        _element(changed.get(CONTRIBUTING_EQUIPMENT_SEQUENCE, {"vr": "SQ"})), described
    )
    changed.pop(AVAILABLE_TRANSFER_SYNTAX_UID, None)
    if source.text.converted:
        changed[CHARACTER_SET] = {"vr": "CS", "Value": [UTF8]}
    writer = _Writer(source, signed=first_number(_element(changed.get(_PIXEL_REPRESENTATION, {}))) == 1)
    before = {tag: element for tag, element in changed.items() if not pixels or tag.upper() < pixels}
    after = {tag: element for tag, element in changed.items() if pixels and tag.upper() > pixels}
    uids = [first_text(_element(changed.get(tag, {}))) for tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID)]
    head = beginning(uids[0], uids[1], syntax) + writer.data_set(before, 0)
    return Form10(head, writer.data_set(after, 0))


def pixel_header(vr: str, length: int, tag: str = PIXELS) -> bytes:
    """Return the header of the element that holds the pixels."""
    return _FORM.header(int(tag, 16), vr, length)


def fragment_header(length: int) -> bytes:
    """Return the header of a fragment, or of an offset table."""
    return _FORM.item_header(length)


def pixel_end() -> bytes:
    """Return what ends encapsulated pixel data."""
    return pack("<HHI", SEQUENCE_DELIMITER >> 16, SEQUENCE_DELIMITER & 0xFFFF, 0)


def vr_of(tag: str, element: Element, data_set: Mapping[str, Json], *, signed: bool) -> str:
    """Return the VR of an element: the one it tells, if there is such a VR, else what the dictionary has."""
    told = element.get("vr")
    if isinstance(told, str) and told in _VRS:
        return told
    creator = partial(_creator, data_set)
    vr = usual_vr(int(tag, 16), creator)
    return one_vr(vr, int(tag, 16), implicit=False, signed=signed, number=partial(_number, data_set))


class _Writer:
    """Writes data sets; recursive as far as DEEPEST."""

    def __init__(self, source: Source, *, signed: bool) -> None:
        self._source = source
        self._signed = signed

    def data_set(self, data_set: Mapping[str, Json], depth: int) -> bytes:
        """Return the elements of a data set in the order of their tags."""
        written: dict[str, bytes] = {}
        for tag, value in data_set.items():
            if not _TAG(tag):
                raise NoValue("a key is no tag")
            number = int(tag, 16)
            if number < _FIRST or number >> 16 == _ITEMS or not number & 0xFFFF:
                continue
            written[tag.upper()] = self.element(tag.upper(), _element(value), data_set, depth)
        return b"".join(written[tag] for tag in sorted(written))

    def element(self, tag: str, element: Element, data_set: Mapping[str, Json], depth: int) -> bytes:
        """Return one element."""
        vr = vr_of(tag, element, data_set, signed=self._signed)
        number = int(tag, 16)
        try:
            if vr == "SQ" and "InlineBinary" not in element and "BulkDataURI" not in element:
                return self._sequence(number, element, depth)
            value = self._value(tag, vr, element)
        except NoValue as error:
            raise NoValue(f"({tag[:4]},{tag[4:]}): {error}" if not str(error).startswith("(") else str(error)) from None
        if vr == "SQ" or (len(value) > _SHORT_AT_MOST and vr not in _LONG):
            vr = "UN"  # PS3.5 6.2.2
        if len(value) >= _LONGEST:
            raise NoValue("a value is longer than a file can hold")
        return _FORM.element(number, vr, value)

    def _value(self, tag: str, vr: str, element: Element) -> bytes:
        uri = element.get("BulkDataURI")
        if isinstance(uri, str):
            value = self._source.bulk(tag, uri)
        else:
            encode = self._source.text.encode
            if tag == CHARACTER_SET and self._source.text.converted:
                element = {"vr": "CS", "Value": [UTF8]}
            value = value_bytes(vr, element, encode, self._source.note)
        sample = 1 if vr == "UN" else SAMPLES.get(vr, 1)
        if self._source.big_endian is False or sample == 1 or not ("InlineBinary" in element or isinstance(uri, str)):
            return value
        if self._source.big_endian is None and value:
            raise NoValue("the bytes of a big endian value may have changed places")
        return swapped(value, sample)

    def _sequence(self, number: int, element: Element, depth: int) -> bytes:
        if depth >= DEEPEST:
            raise NoValue(f"sequences are nested more than {DEEPEST} deep")
        items = element.get("Value") or []
        if not isinstance(items, list):
            raise NoValue("a Value of VR SQ is no list")
        content = []
        for item in items:
            inside = self.data_set(_element(item) if item not in (None, "") else {}, depth + 1)
            content += [_FORM.item_header(len(inside)), inside]
        written = b"".join(content)
        if len(written) >= _LONGEST:
            raise NoValue("a value is longer than a file can hold")
        return _FORM.header(number, "SQ", len(written)) + written


def _element(value: Json) -> Element:
    if not isinstance(value, dict):
        raise NoValue("what should be an object is none")
    return value


def _creator(data_set: Mapping[str, Json], tag: int) -> bytes:
    element = data_set.get(f"{tag:08X}")
    return first_text(element).encode("latin_1", "replace") if isinstance(element, dict) else b""


def _number(data_set: Mapping[str, Json], tag: int) -> int:
    element = data_set.get(f"{tag:08X}")
    return first_number(element) if isinstance(element, dict) else 0


def _with_equipment(sequence: Element, described: str) -> Element:
    """Add the item that says what made the file (PS3.3 C.12.1, CID 7005)."""
    items = sequence.get("Value") or []
    if not isinstance(items, list) or len(items) > _MOST_EQUIPMENT:
        raise NoValue("a Value of VR SQ is no list")
    code: dict[str, Json] = {
        "00080100": {"vr": "SH", "Value": ["109103"]},
        "00080102": {"vr": "SH", "Value": ["DCM"]},
        "00080104": {"vr": "LO", "Value": ["Modifying Equipment"]},
    }
    item: dict[str, Json] = {
        "00080070": {"vr": "LO", "Value": ["dicomfs"]},
        "00081090": {"vr": "LO", "Value": ["dicomfs"]},
        "0018A003": {"vr": "ST", "Value": [described]},
        "0040A170": {"vr": "SQ", "Value": [code]},
    }
    return {"vr": "SQ", "Value": [*items, item]}
