"""Values as PS3.18 F.2 writes them: the bytes of one value to the text '{"vr":…,"Value":[…]}'.

    text, numbers    "Value":[…]            empty values of several are null (F.2.5), none at all leave Value out
    PN               "Value":[{"Alphabetic":…,"Ideographic":…,"Phonetic":…}], those that are not empty
    OB … OW, UN      "InlineBinary":"…"     base64 of the little endian bytes (F.2.7)

Numbers are written as they were in the file where JSON has such numbers: nothing goes through a float. What
JSON or its usual readers cannot hold as a number becomes the string that F.2.3 allows for DS, IS, SV and UV.
"""

import math
import re
from base64 import b64encode
from functools import lru_cache
from json.encoder import encode_basestring
from struct import Struct
from typing import Final

from dicomfs.dicom.charset import CharacterSet, character_set

SHORT: Final = 256
"""Values up to so many bytes are remembered: neighbours in a series repeat nine of ten."""
REMEMBERED: Final = 1 << 14
LONGEST_NUMBER: Final = 64
"""A DS has 16 characters, PS3.5 6.2. Python refuses integers of thousands of digits."""
LARGEST_EXACT: Final = (1 << 53) - 1
"""Integers beyond this lose digits where numbers are doubles, as in every browser."""
LARGEST_SINGLE: Final = 3.4028235e38

BINARY: Final = {"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "UN": 1}
"""Bytes of a sample."""
NUMBERS: Final = {"FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8, "AT": 4}
"""Bytes of a value."""
SAMPLES: Final = {**BINARY, **NUMBERS, "AT": 2}
"""What is turned round between big and little endian."""

_CODES: Final = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_STRUCTS: Final = {
    (vr, big): Struct((">" if big else "<") + code).iter_unpack for vr, code in _CODES.items() for big in (False, True)
}
_TAGS: Final = (Struct("<HH").iter_unpack, Struct(">HH").iter_unpack)
_SINGLE: Final = Struct("<f")
_PADDING: Final = " \0\t\r\n"
_TRIMMED: Final = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"))
"""Blanks on both sides mean nothing."""
_UNSPLIT: Final = frozenset(("LT", "ST", "UR", "UT"))
"""A backslash is a character like any other."""
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_DECIMAL: Final = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?([eE][+-]?[0-9]{1,3})?")
_INTEGER: Final = re.compile(r"([+-]?)0*([0-9]+?)(?:\.0*)?")


def value_json(vr: str, value: bytes, charset: CharacterSet, big: bool) -> str:
    """Return an attribute's JSON, "" where JSON cannot say the value: numbers that are not finite.

    A value that does not fit its VR is an UN.
    """
    if not value:
        return f'{{"vr":"{vr}"}}'
    if vr in BINARY:
        return _inline(vr, swapped(value, BINARY[vr]) if big else value)
    if vr in NUMBERS:
        if len(value) % NUMBERS[vr]:
            return _inline("UN", value)
        values = _numbers(vr, value, big=big)
    else:
        values = _texts(vr, charset.decode(value, is_name=vr == "PN"))
    if values is None:
        return ""
    return f'{{"vr":"{vr}","Value":[{values}]}}' if values else f'{{"vr":"{vr}"}}'


short_value_json: Final = lru_cache(REMEMBERED)(value_json)


def lut_descriptor_json(value: bytes, *, big: bool) -> str:
    """Return a look-up table's descriptor of VR SS, whose first value has no sign all the same (PS3.3 C.7.6.3.1.5)."""
    if not value or len(value) % 2:
        return value_json("SS", value, character_set(b""), big)
    _, *rest = [number for (number,) in _STRUCTS["SS", big](value)]
    first = int.from_bytes(value[:2], "big" if big else "little")
    return f'{{"vr":"SS","Value":[{",".join(map(str, (first, *rest)))}]}}'


def swapped(value: bytes, sample: int) -> bytes:
    """Reverse the bytes of each sample; what is less than a sample at the end stays."""
    if sample == 1:
        return value
    whole = len(value) // sample * sample
    turned = bytearray(value)
    for byte in range(sample):
        turned[byte:whole:sample] = value[sample - 1 - byte : whole : sample]
    return bytes(turned)


def string(text: str) -> str:
    """Quote a text; what UTF-8 cannot hold is replaced."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return encode_basestring(text)


def _inline(vr: str, value: bytes) -> str:
    return f'{{"vr":"{vr}","InlineBinary":"{b64encode(value).decode("ascii")}"}}'


def _numbers(vr: str, value: bytes, *, big: bool) -> str | None:
    if vr == "AT":
        return ",".join([f'"{group:04X}{element:04X}"' for group, element in _TAGS[big](value)])
    numbers = [number for (number,) in _STRUCTS[vr, big](value)]
    if vr in ("FL", "FD"):
        if not all(map(math.isfinite, numbers)):
            return None
        return ",".join(map(_shortest if vr == "FL" else repr, numbers))
    if vr in ("SV", "UV"):
        return ",".join([str(n) if -LARGEST_EXACT <= n <= LARGEST_EXACT else f'"{n}"' for n in numbers])
    return ",".join(map(str, numbers))


def _shortest(number: float) -> str:
    # The shortest decimal that is still the same 32-bit number, as everybody else shows it.
    pack, unpack = _SINGLE.pack, _SINGLE.unpack
    for digits in (6, 7, 8):
        shown = float(f"{number:.{digits}g}")
        if abs(shown) <= LARGEST_SINGLE and unpack(pack(shown))[0] == number:
            return repr(shown)
    return repr(float(f"{number:.9g}"))


def _texts(vr: str, text: str) -> str:
    """Return what goes between the brackets, "" for no value at all."""
    if vr in _UNSPLIT:
        text = text.strip(_PADDING) if vr == "UR" else text.rstrip(" \0")
        return string(text) if text else ""
    one = _SHOWN.get(vr, _text)
    strip = _PADDING if vr in _TRIMMED else " \0"
    if "\\" not in text:
        text = text.strip(strip) if vr in _TRIMMED else text.rstrip(strip)
        shown = one(text) if text else "null"
        return "" if shown == "null" else shown
    texts = [part.strip(strip) if vr in _TRIMMED else part.rstrip(strip) for part in text.split("\\")]
    return ",".join([one(part) if part else "null" for part in texts])


def _text(text: str) -> str:
    return string(text)


def _name(text: str) -> str:
    groups = [group.rstrip(" \0") for group in text.split("=", 3)[:3]]
    shown = [f'"{name}":{string(group)}' for name, group in zip(_NAME_GROUPS, groups, strict=False) if group]
    return f"{{{','.join(shown)}}}" if shown else "null"


def _decimal(text: str) -> str:
    if len(text) <= LONGEST_NUMBER and (match := _DECIMAL.fullmatch(text)):
        sign, whole, fraction, exponent = match.groups("")
        if exponent and not math.isfinite(float(text)):
            return string(text)
        if _JSON_NUMBER.fullmatch(text):
            return text
        number = f"{sign.rstrip('+')}{whole.lstrip('0') or '0'}"
        return f"{number}.{fraction}{exponent}" if fraction else f"{number}{exponent}"
    return string(text)


def _integer(text: str) -> str:
    if len(text) <= LONGEST_NUMBER and (match := _INTEGER.fullmatch(text)):
        number = int(match[1] + match[2])
        if -LARGEST_EXACT <= number <= LARGEST_EXACT:
            return str(number)
    return string(text)


_SHOWN: Final = {"PN": _name, "DS": _decimal, "IS": _integer}
