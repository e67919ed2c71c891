"""Values of the DICOM JSON model (PS3.18 F.2) as the bytes of explicit VR little endian: `model_values` undone.

The rules of the Standard, and what the writers of static DICOMweb trees make of them: numbers or strings for DS, IS and
64-bit integers, "" for a value that is not there, tags as integers, several values in one string. A number of DS or IS
is written with the digits that it has in the JSON text.
"""

from __future__ import annotations

import binascii
import math
from base64 import b64decode
from collections.abc import Callable, Sequence
from struct import Struct, error
from typing import Final, TypeAlias

from dicomfs.dicom.model_values import BINARY, NUMBERS

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
"""A parsed document; numbers with a point or an exponent are `Number`."""
Element: TypeAlias = "dict[str, Json]"
Encode: TypeAlias = Callable[[str, str], bytes]
"""(VR, text) to bytes."""


class Number(str):
    """A number as its digits were in the text: `json.loads(text, parse_float=Number, parse_constant=Number)`."""

    __slots__ = ()


class NoValue(Exception):
    """JSON that stands for no value of its VR; the reason holds no value."""


NOT_FINITE: Final = "a number that JSON cannot say was lost"

_CODES: Final = {"SL": "<I", "SS": "<H", "SV": "<Q", "UL": "<I", "US": "<H", "UV": "<Q", "FL": "<f", "FD": "<d"}
_PACK: Final = {vr: Struct(code).pack for vr, code in _CODES.items()}
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_LONGEST_NUMBER: Final = 64
_TAG_DIGITS: Final = 8


def value_bytes(vr: str, element: Element, encode: Encode, note: Callable[[str], None]) -> bytes:
    """Return a value, unpadded; raise NoValue. `note` is told of what could not be kept."""
    inline = element.get("InlineBinary")
    if inline is not None:
        return _decoded(inline)
    values = element.get("Value")
    if values is None:
        return b""
    if not isinstance(values, list):
        values = [values]
    if not values or values == [""] or (values == [None] and vr not in ("FL", "FD")):
        if vr in ("DS", "IS") and values == [None]:
            note(NOT_FINITE)
        return b""
    if vr == "AT":
        return b"".join(map(_tag, values))
    if vr in NUMBERS:
        return b"".join(_binary(vr, value, note) for value in values)
    if vr in BINARY and not all(isinstance(value, str) for value in values):
        raise NoValue(f"a Value of VR {vr} is no text")
    one = _name if vr == "PN" else _text
    return encode(vr, "\\".join([one(value, note) for value in values]))


def first_number(element: Element | None) -> int:
    """Return the first value of an element as a whole number, 0 where it has none."""
    try:
        return int(first_text(element))
    except ValueError:
        return 0


def first_text(element: Element | None) -> str:
    """Return the first value of an element as text, "" where it has none; several may be in one string."""
    values = element.get("Value") if element is not None else None
    value = values[0] if isinstance(values, list) and values else values
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)[: _LONGEST_NUMBER * 2].split("\\", 1)[0].strip(" \0")
    return ""


def texts_of(values: Json) -> Sequence[str]:
    """Return every text in the Value of an element that is no sequence."""
    found: list[str] = []
    for value in values if isinstance(values, list) else [values]:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            found += [part for part in value.values() if isinstance(part, str)]
    return found


def _decoded(inline: Json) -> bytes:
    if not isinstance(inline, str):
        raise NoValue("an InlineBinary is no text")
    try:
        return b64decode(inline, validate=True)
    except (binascii.Error, ValueError) as failure:
        raise NoValue("an InlineBinary is no base64") from failure


def _tag(value: Json) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        number = value
    elif isinstance(value, str) and len(value) == _TAG_DIGITS:
        try:
            number = int(value, 16)
        except ValueError as failure:
            raise NoValue("a Value of VR AT is no tag") from failure
    else:
        raise NoValue("a Value of VR AT is no tag")
    return (number >> 16).to_bytes(2, "little") + (number & 0xFFFF).to_bytes(2, "little")


def _binary(vr: str, value: Json, note: Callable[[str], None]) -> bytes:
    if value is None and vr in ("FL", "FD"):
        note(NOT_FINITE)
        return _PACK[vr](math.nan)
    if isinstance(value, bool) or not isinstance(value, int | str) or len(str(value)) > _LONGEST_NUMBER:
        raise NoValue(f"a Value of VR {vr} is no number")
    try:
        if vr in ("FL", "FD"):
            return _PACK[vr](float(value))
        number = int(value)
    except (ValueError, OverflowError) as failure:
        raise NoValue(f"a Value of VR {vr} is no number") from failure
    bits = NUMBERS[vr] * 8
    # The VR of implicit data sets is a guess where it is US or SS: the bits are the same.
    if not -(1 << bits - 1) <= number < 1 << bits:
        raise NoValue(f"a Value of VR {vr} is out of range")
    try:
        return _PACK[vr](number & (1 << bits) - 1)
    except error as failure:
        raise NoValue(f"a Value of VR {vr} is out of range") from failure


def _text(value: Json, note: Callable[[str], None]) -> str:
    if value is None:
        return ""
    if isinstance(value, Number) and not value[-1].isdigit():  # NaN, Infinity: some writers know no better
        note(NOT_FINITE)
        return ""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise NoValue("a Value is neither text nor a number")
    return str(value)


def _name(value: Json, note: Callable[[str], None]) -> str:
    if not isinstance(value, dict):
        return _text(value, note)
    groups = [_text(value.get(group), note) for group in _NAME_GROUPS]
    return "=".join(groups).rstrip("=") if any(groups) else ""
