"""Value representations: the bytes of one value as text (PS3.5 6.2).

Text values lose their padding and nothing else; numbers are joined by backslashes as text values are. What
is not readable (OB, OW, SQ, ...) is None. A value that does not fit its VR is shown as the text it is, if
it is text: a malformed element degrades alone.
"""

import math
import re
from struct import Struct
from typing import Final

from dicomfs.dicom.charset import CharacterSet

_PADDING: Final = " \0\t\r\n"
_TRIMMED: Final = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"))
"""Blanks before the text mean nothing either."""
_UNSPLIT: Final = frozenset(("LT", "ST", "UR", "UT"))
"""A backslash is a character like any other."""
_DECODED: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_TEXT: Final = _TRIMMED | _UNSPLIT | _DECODED
_NUMBERS: Final = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_STRUCTS: Final = {
    (vr, big): Struct((">" if big else "<") + code) for vr, code in _NUMBERS.items() for big in (False, True)
}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")


def text(vr: str, value: bytes, charset: CharacterSet, *, big: bool = False) -> str | None:
    """Return a value as text, None if it has none; empty values are ''."""
    if vr in _TEXT:
        return _stripped(vr, charset.decode(value, is_name=vr == "PN"))
    if vr in _NUMBERS:
        unpack = _STRUCTS[vr, big]
        if len(value) % unpack.size == 0:
            show = _shortest if vr == "FL" else str
            return "\\".join(show(number) for (number,) in unpack.iter_unpack(value))
    elif vr == "AT" and len(value) % 4 == 0:
        order = ">HH" if big else "<HH"
        return "\\".join(f"{group:04X}{element:04X}" for group, element in Struct(order).iter_unpack(value))
    elif vr not in ("", "UN"):
        return None
    return _if_readable(value, charset)


def integer(vr: str, shown: str) -> int | None:
    """Return the number that a single value of IS, US and the like is."""
    if (vr == "IS" or vr in _NUMBERS) and _INTEGER.fullmatch(shown):
        return int(shown)
    return None


def _stripped(vr: str, shown: str) -> str:
    strip = str.strip if vr in _TRIMMED else str.rstrip
    if "\\" in shown and vr not in _UNSPLIT:
        return "\\".join(strip(part, _PADDING) for part in shown.split("\\"))
    return strip(shown, _PADDING)


def _shortest(number: float) -> str:
    # The shortest decimal that is still the same 32-bit number, as everybody else shows it.
    if not math.isfinite(number):
        return str(number)
    single = Struct("<f")
    for digits in range(6, 9):
        shown = float(f"{number:.{digits}g}")
        if single.unpack(single.pack(shown))[0] == number:
            return str(shown)
    return str(float(f"{number:.9g}"))


def _if_readable(value: bytes, charset: CharacterSet) -> str | None:
    shown = charset.decode(value).rstrip(_PADDING)
    return shown if shown.replace("\n", "").replace("\r", "").replace("\t", "").isprintable() else None
