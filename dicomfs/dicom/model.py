"""The DICOM JSON model of one instance, made from its skeleton: PS3.18 Annex F to the letter.

Every value that may lie in a blob becomes a BulkDataURI, for the skeleton has zeros there. These rules are those
of `walk`, which decides what goes into blobs, and of INLINE and LUT_INLINE, which keep the documents short.

    5200,9230 item 1 > 0020,9111 item 1 > 0028,1201      bulkdata/52009230.1.00209111.1.00281201

FL and FD that are not finite are no JSON numbers. F.2.2 allows a BulkDataURI for these VRs, which loses nothing.
"""

from bisect import bisect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final, NamedTuple

from dicomfs.dicom.attributes import SPECIFIC_CHARACTER_SET
from dicomfs.dicom.charset import CharacterSet, character_set
from dicomfs.dicom.encoding import DOUBLE_FLOAT_PIXEL_DATA, FLOAT_PIXEL_DATA, PIXEL_DATA, Data, Encoding
from dicomfs.dicom.model_elements import ENCAPSULATED, DataSet, Element, Elements
from dicomfs.dicom.model_values import (
    BINARY,
    NUMBERS,
    SAMPLES,
    SHORT,
    lut_descriptor_json,
    short_value_json,
    string,
    value_json,
)
from dicomfs.dicom.model_vr import BITS_ALLOCATED, LUT_DESCRIPTOR, one_vr
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.stride import LARGE

__all__ = ["INLINE", "LUT_INLINE", "BulkValue", "Model", "model"]

INLINE: Final = 1024
"""So many bytes of OB OD OF OL OV OW UN are written as InlineBinary, more become a BulkDataURI."""
LUT_INLINE: Final = 131_074
"""So many of look-up tables, which are of no use apart from the header: 65,536 entries of 16 bits."""
AVAILABLE_TRANSFER_SYNTAX_UID: Final = 0x00083002
PIXEL_REPRESENTATION: Final = 0x00280103
DATA_SET_TRAILING_PADDING: Final = 0xFFFCFFFC

_PIXELS: Final = frozenset((PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA))
_LUT_DESCRIPTORS: Final = frozenset((0x00281101, 0x00281102, 0x00281103, LUT_DESCRIPTOR))
_AS_BULK: Final = frozenset(
    ("DS", "FL", "FD", "IS", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "ST", "SV", "UC", "UL", "UN", "US",
     "UT", "UV")
)  # fmt: skip
"""The VRs that F.2.2 allows a BulkDataURI for."""
_LAST_META: Final = 0x0002FFFF
_LUT_GROUP: Final = 0x0028
_FIRST_PIXELS: Final = 0x7FE00000
_LOOKED_AT: Final = 1024
"""So much of a value that others depend on is looked at."""
_UTF8: Final = '{"vr":"CS","Value":["ISO_IR 192"]}'
_KEYED_UTF8: Final = f',"{SPECIFIC_CHARACTER_SET:08X}":{_UTF8}'
_KEY: Final = len(',"00080005":')
_PREFIX: Final = "\0"
"""Stands where PREFIX goes: JSON has no such character but escaped."""
_OF_ITEMS: Final = {SPECIFIC_CHARACTER_SET: _UTF8}
_NO_VALUE: Final[Element] = ("", 0, 0, False, None)


class BulkValue(NamedTuple):
    """A value that the JSON names by BulkDataURI, `start` to `end` of the data.

    `name` is its file's name below `bulkdata/`: tags and item numbers (from 1) from the outermost sequence on,
    joined by dots. `swap` is how many bytes of a sample are to be reversed to get little endian, 1 for none.
    Encapsulated pixel data is all items, offset table included, without the sequence delimiter.
    """

    name: str
    vr: str
    start: int
    end: int
    swap: int


class Model(NamedTuple):
    """An instance's JSON object as text: PREFIX.join(pieces), compact, keys ascending.

    PREFIX leads from the document to the instance's directory; every BulkDataURI is PREFIX + "bulkdata/" + name.
    `bulk` is in the order of the text. `fields` has the texts '{"vr":…}' of the outermost attributes by tag, for
    query documents; attributes that hold a BulkDataURI are not among them.
    """

    pieces: tuple[str, ...]
    bulk: tuple[BulkValue, ...]
    fields: Mapping[int, str]


def model(data: Data, part10: Part10, transfer_syntax: str) -> Model:
    """Return the JSON model of the instance in `data`, of which only what is not bulk is read.

    `transfer_syntax` is what (0008,3002) shall say: that of the frames as they are served. Never raises: what
    cannot be followed is left out. Linear in the length of the header.
    """
    start = len(data) if part10.deflated else part10.start
    outermost = Elements(data, start, len(data), part10.encoding).data_set
    return _Writer(data).instance(outermost.elements, part10.encoding, transfer_syntax)


class _Inherited(NamedTuple):
    """What items take over from the data set around them (PS3.5 7.5.3, PS3.3 C.7.6.3)."""

    charset: CharacterSet
    signed: bool


class _Writer:
    """Writes one instance as parts of its text."""

    __slots__ = ("_bulk", "_data", "_parts")

    def __init__(self, data: Data) -> None:
        self._data = data
        self._parts: list[str] = []
        self._bulk: list[BulkValue] = []

    def instance(self, elements: dict[int, Element], encoding: Encoding, transfer_syntax: str) -> Model:
        inherited = self._inherited(elements, _Inherited(character_set(b""), signed=False))
        told = elements.pop(SPECIFIC_CHARACTER_SET, None) is not None
        elements.pop(AVAILABLE_TRANSFER_SYNTAX_UID, None)
        ready = {}
        if transfer_syntax:
            elements[AVAILABLE_TRANSFER_SYNTAX_UID] = _NO_VALUE
            ready[AVAILABLE_TRANSFER_SYNTAX_UID] = f'{{"vr":"UI","Value":[{string(transfer_syntax)}]}}'
        tags = sorted(elements)
        split = bisect(tags, SPECIFIC_CHARACTER_SET)
        fields: dict[int, str] = {}
        self._attributes(elements, tags[:split], "", inherited, encoding, ready, fields)
        at = len(self._parts)
        self._parts.append(_KEYED_UTF8 if told else "")
        if told:
            fields[SPECIFIC_CHARACTER_SET] = _UTF8
        self._attributes(elements, tags[split:], "", inherited, encoding, ready, fields)
        text = "".join(self._parts)
        if not told and not text.isascii():
            self._parts[at] = _KEYED_UTF8
            text = "".join(self._parts)
            fields = dict(sorted({**fields, SPECIFIC_CHARACTER_SET: _UTF8}.items()))
        pieces = f"{{{text[1:]}}}".split(_PREFIX)  # every attribute begins with a comma
        return Model(tuple(pieces), tuple(self._bulk), fields)

    def _inherited(self, elements: dict[int, Element], around: _Inherited) -> _Inherited:
        if SPECIFIC_CHARACTER_SET not in elements and PIXEL_REPRESENTATION not in elements:
            return around
        charset, signed = around
        if SPECIFIC_CHARACTER_SET in elements:
            charset = character_set(self._value(elements, SPECIFIC_CHARACTER_SET))
        if sign := self._value(elements, PIXEL_REPRESENTATION):
            signed = any(sign)
        return _Inherited(charset, signed)

    def _value(self, elements: dict[int, Element], tag: int) -> bytes:
        _, start, end, _, _ = elements.get(tag, _NO_VALUE)
        return bytes(self._data[start : min(end, start + _LOOKED_AT)])

    def _attributes(
        self,
        elements: dict[int, Element],
        tags: Iterable[int],
        path: str,
        inherited: _Inherited,
        encoding: Encoding,
        ready: Mapping[int, str],
        fields: dict[int, str] | None,
    ) -> None:
        """Write the attributes with these tags; about 1 µs each where their values were seen before."""
        data, parts = self._data, self._parts
        charset, signed = inherited
        for tag in tags:
            if tag <= _LAST_META or not tag & 0xFFFF or tag == DATA_SET_TRAILING_PADDING:
                continue
            vr, start, end, big, items = elements[tag]
            if len(vr) > 2:
                vr = one_vr(vr, tag, implicit=encoding.implicit, signed=signed, number=partial(self._number, elements))
            if tag in ready:
                text = ready[tag]
            elif items is not None:
                text = f'{{"vr":"{vr}"}}' if items is ENCAPSULATED and start == end else ""
            elif end - start <= SHORT and tag < _FIRST_PIXELS and (vr != "SS" or tag not in _LUT_DESCRIPTORS):
                text = short_value_json(vr, bytes(data[start:end]), charset, big)
            else:
                text = self._long(elements, tag, charset, vr)
            if text:
                parts.append(f',"{tag:08X}":{text}')
                if fields is not None:
                    fields[tag] = text
            elif items is None or items is ENCAPSULATED:
                self._bulk_value(elements, tag, path, vr)
            else:
                at = len(parts)
                self._sequence(tag, items, path, inherited)
                if fields is not None and _PREFIX not in (text := "".join(parts[at:])):
                    fields[tag] = text[_KEY:]

    def _long(self, elements: dict[int, Element], tag: int, charset: CharacterSet, vr: str) -> str:
        """Return the JSON of a value that is not short, "" if it is bulk."""
        _, start, end, big, _ = elements[tag]
        length = end - start
        if length % NUMBERS.get(vr, 1):
            vr = "UN"
        most = LARGE
        if vr in BINARY:
            most = LUT_INLINE if tag >> 16 == _LUT_GROUP else INLINE
        if length > most or (tag in _PIXELS and length):
            return ""
        value = bytes(self._data[start:end])
        if tag in _LUT_DESCRIPTORS and vr == "SS":
            return lut_descriptor_json(value, big=big)
        return value_json(vr, value, charset, big)

    def _bulk_value(self, elements: dict[int, Element], tag: int, path: str, vr: str) -> None:
        _, start, end, big, items = elements[tag]
        swap = 1
        if big and items is None and not (end - start) % NUMBERS.get(vr, 1):
            swap = SAMPLES.get(vr, 1)
            if tag == PIXEL_DATA:  # its samples may be wider than the words of OW, or than those of a wrong OB
                swap = {16: 2, 32: 4, 64: 8}.get(self._number(elements, BITS_ALLOCATED), swap)
        vr = vr if vr in _AS_BULK and not (end - start) % NUMBERS.get(vr, 1) else "UN"
        name = f"{path}{tag:08X}"
        self._parts.append(f',"{tag:08X}":{{"vr":"{vr}","BulkDataURI":"{_PREFIX}bulkdata/{name}"}}')
        self._bulk.append(BulkValue(name, vr, start, end, swap))

    def _sequence(self, tag: int, items: list[DataSet], path: str, around: _Inherited) -> None:
        parts = self._parts
        if not items:
            parts.append(f',"{tag:08X}":{{"vr":"SQ"}}')
            return
        parts.append(f',"{tag:08X}":{{"vr":"SQ","Value":[')
        for number, item in enumerate(items, 1):
            elements = item.elements
            parts.append(",{" if number > 1 else "{")
            at = len(parts)
            if elements:
                inside = f"{path}{tag:08X}.{number}."
                inherited = self._inherited(elements, around)
                self._attributes(elements, sorted(elements), inside, inherited, item.encoding, _OF_ITEMS, None)
            if len(parts) > at:
                parts[at] = parts[at][1:]
            parts.append("}")
        parts.append("]}")

    def _number(self, elements: dict[int, Element], tag: int) -> int:
        value = self._value(elements, tag)[:2]
        big = elements[tag][3] if value else False
        return int.from_bytes(value, "big" if big else "little")
