"""What somebody may set an attribute to: which may be edited at all, and what values of each VR are (PS3.5 6.2).

Strict, unlike all that reads: what is written here is read by others. Messages hold no values.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from struct import Struct
from typing import Final

from dicomfs.dicom.attributes import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, SPECIFIC_CHARACTER_SET, STUDY_INSTANCE_UID
from dicomfs.dicom.dictionary import dictionary_keyword, dictionary_values, dictionary_vr, keyword_tag
from dicomfs.dicom.encoding import shown
from dicomfs.errors import UsageError

ORIGINAL_ATTRIBUTES_SEQUENCE: Final = 0x04000561
TEXT: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
"""VRs that are in the Specific Character Set."""
UNSPLIT: Final = frozenset(("LT", "ST", "UR", "UT"))
"""VRs of one value, in which a backslash is a character like any other."""
MOST_VALUES: Final = 1024
LONGEST: Final = 1 << 16
"""Characters of a value whose VR allows any number."""

_SOP_CLASS_UID: Final = 0x00080016
_IDENTITY: Final = frozenset((STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID))
_OF_PIXELS: Final = frozenset(
    (0x00280002, 0x00280003, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101,
     0x00280102, 0x00280103)
)  # fmt: skip
"""Samples per Pixel and Used, Photometric Interpretation, Planar Configuration, Number of Frames, Rows, Columns, Bits
Allocated and Stored, High Bit, Pixel Representation (PS3.3 C.7.6.3)."""
_OF_OVERLAYS: Final = frozenset((0x0010, 0x0011, 0x0015, 0x0050, 0x0051, 0x0100, 0x0102))
_FIRST_GROUP: Final = 0x0008
_PIXEL_GROUP: Final = 0x7FE0
_LAST_GROUP: Final = 0xFFFA
"""Digital signatures begin here, and then padding and delimiters."""

_LENGTHS: Final = {"AE": 16, "AS": 4, "CS": 16, "DS": 16, "DT": 26, "IS": 12, "LO": 64, "LT": 10240, "PN": 64 * 3 + 2,
                   "SH": 16, "ST": 1024, "TM": 14, "UI": 64}  # fmt: skip
_CONTROLS: Final = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROLS_OF_TEXT: Final = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_PATTERNS: Final = {
    "AE": r"(?=.*[^ ])[\x20-\x5b\x5d-\x7e]+",
    "AS": r"[0-9]{3}[DWMY]",
    "CS": r"[A-Z0-9 _]+",
    "DA": r"[0-9]{8}",
    "DS": r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[Ee][+-]?[0-9]+)?",
    "DT": r"[0-9]{4}(?:[0-9]{2}){0,2}"
          r"|[0-9]{8}(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?",
    "IS": r"[+-]?[0-9]+",
    "TM": r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?",
    "UI": r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+",
    "UR": r"[\x21-\x5b\x5d-\x7e]+",
}  # fmt: skip
_LEGAL: Final = {vr: re.compile(pattern).fullmatch for vr, pattern in _PATTERNS.items()}
_OFFSET: Final = re.compile(r"(.*?)([+-](?:0[0-9]|1[0-4])[0-5][0-9])?")
_TAG: Final = re.compile(r"[0-9A-Fa-f]{4},?[0-9A-Fa-f]{4}")
_INTEGERS: Final = {"SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_FLOATS: Final = {"FD": "d", "FL": "f"}
_US_OR_SS: Final = "US or SS"
SETTABLE: Final = frozenset((*_LENGTHS, *_LEGAL, *_INTEGERS, *_FLOATS, *TEXT, "AT"))
"""VRs whose values people can write."""
_MEANT: Final[Mapping[str, str]] = {
    "AE": "up to 16 letters", "AS": "an age such as 034Y", "CS": "up to 16 of A-Z, 0-9, _ and blanks",
    "DA": "a date such as 20260131", "DS": "a decimal number of up to 16 characters",
    "DT": "a date and time such as 20260131120000.5+0100", "IS": "a whole number of up to 12 digits",
    "PN": "a name of up to five parts of components (^) and three of writing (=), each of these up to 64 characters",
    "TM": "a time such as 120000.5", "UI": "a UID of up to 64 digits and dots", "UR": "a URI without blanks",
    "AT": "a tag such as 00100010",
}  # fmt: skip


def parse_setting(setting: str) -> tuple[int, tuple[str, ...]]:
    r"""Read 'KEYWORD=VALUE' or 'gggg,eeee=VALUE': the tag, and its values, which `\` separates. Raise UsageError."""
    name, equals, value = setting.partition("=")
    if not equals:
        raise UsageError(r"a setting is KEYWORD=VALUE, such as PatientName=DOE^JANE, with \ between several values")
    tag = keyword_tag(name.strip())
    vr = "" if tag >> 16 & 1 else dictionary_vr(tag)
    values = (value,) if vr in UNSPLIT else tuple(value.split("\\"))
    try:
        check_settable(tag)
        check_values(tag, vr, values)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return tag, values


def parse_tag(name: str) -> int:
    """Read the keyword or tag of an attribute that is to be emptied or removed. Raise UsageError."""
    tag = keyword_tag(name.strip())
    try:
        check_removable(tag)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return tag


def check_settable(tag: int) -> None:
    """Raise ValueError where no edit may set an attribute."""
    if tag not in _IDENTITY:
        check_removable(tag)
    if tag >> 16 & 1:
        return
    vr = dictionary_vr(tag)
    if vr == "SQ":
        raise ValueError(f"{_named(tag)} is a sequence: it can be emptied or removed, not set")
    if vr not in SETTABLE and vr != _US_OR_SS:
        what = f"is binary ({vr})" if vr else "is not in the data dictionary"
        raise ValueError(f"{_named(tag)} {what}: it can be emptied or removed, not set")


def check_removable(tag: int) -> None:
    """Raise ValueError where no edit may empty or remove an attribute."""
    group, element = tag >> 16, tag & 0xFFFF
    why = ""
    if group < _FIRST_GROUP or group >= _LAST_GROUP:
        why = "is no attribute of the data set that can be edited"
    elif element == 0:
        why = "is a group length, which follows from the elements of its group"
    elif group == _PIXEL_GROUP:
        why = "is pixel data, which is never edited"
    elif tag in _OF_PIXELS or (group & 0xFF01 == 0x6000 and element in _OF_OVERLAYS):
        why = "says how pixel data is encoded: without it, or with another value, pixels could not be read"
    elif tag == SPECIFIC_CHARACTER_SET:
        why = "follows from the values: text that does not fit it is converted"
    elif tag == _SOP_CLASS_UID:
        why = "says what kind of object it is, which an edit does not change"
    elif tag in _IDENTITY:
        why = "cannot be emptied or removed: without it, it is no instance"
    elif tag == ORIGINAL_ATTRIBUTES_SEQUENCE:
        why = "is where earlier values are kept"
    elif group & 1 and element < 0x1000:
        why = "names the owner of private attributes, or belongs to nobody"
    if why:
        raise ValueError(f"{_named(tag)} {why}")


def check_values(tag: int, vr: str, values: Sequence[str]) -> None:
    """Raise ValueError where values are not what a VR ('US or SS' too; "" is not known yet) or the dictionary allows.

    One empty value stands for none. What is said is for people and holds nothing of a value.
    """
    if not 0 < len(values) <= MOST_VALUES or (len(values) > 1 and vr in UNSPLIT):
        raise ValueError(f"{_named(tag)} has too many values, or none")
    most = 0 if tag >> 16 & 1 else dictionary_values(tag)
    if most and len(values) > most:
        raise ValueError(f"{_named(tag)} takes up to {most} of what backslashes separate")
    if sum(map(len, values)) > LONGEST:
        raise ValueError(f"{_named(tag)}: a value may have up to {LONGEST} characters")
    for value in values:
        check = _CHECKS.get(vr)
        if value and not (check(value) if check else _is_text(vr, value)):
            meant = _MEANT.get(vr) or (f"text of up to {_LENGTHS[vr]} characters" if vr in _LENGTHS else "a number")
            meant = meant if vr in (*_MEANT, *_LENGTHS, *_INTEGERS, *_FLOATS, _US_OR_SS) else "text"
            raise ValueError(f"{_named(tag)} must be {meant}, without control characters")
        if not value and len(values) > 1 and vr in (*_INTEGERS, *_FLOATS, _US_OR_SS, "AT"):
            raise ValueError(f"{_named(tag)}: a number is missing between backslashes")


def number_bytes(vr: str, values: Sequence[str], *, big: bool) -> bytes | None:
    """Return values of a VR of numbers or tags as they are written, None for VRs of text."""
    order = ">" if big else "<"
    if vr == "AT":
        tags = (int(value, 16) for value in values if value)
        return b"".join(Struct(order + "HH").pack(tag >> 16, tag & 0xFFFF) for tag in tags)
    if vr in _INTEGERS:
        return b"".join(Struct(order + _INTEGERS[vr]).pack(int(value)) for value in values if value)
    if vr in _FLOATS:
        return b"".join(Struct(order + _FLOATS[vr]).pack(float(value)) for value in values if value)
    return None


def is_uid(value: str) -> bool:
    """Say whether a text is a UID (PS3.5 9.1)."""
    return len(value) <= _LENGTHS["UI"] and bool(_LEGAL["UI"](value))


def tag_of(text: str) -> int:
    """Read a tag as `Changes` writes it, 8 hexadecimal digits. Raise ValueError."""
    if len(text) != 8 or not _TAG.fullmatch(text) or text != text.upper():
        raise ValueError("a tag is 8 hexadecimal digits")
    return int(text, 16)


def _named(tag: int) -> str:
    keyword = "" if tag >> 16 & 1 else dictionary_keyword(tag)
    return f"{keyword} ({shown(tag)})" if keyword else f"({shown(tag)})"


def _is_text(vr: str, value: str) -> bool:
    controls = _CONTROLS_OF_TEXT if vr in UNSPLIT or not vr else _CONTROLS
    if controls.search(value) or len(value) > _LENGTHS.get(vr, LONGEST):
        return False
    if "\\" in value and vr not in UNSPLIT:
        return False
    return not (legal := _LEGAL.get(vr)) or bool(legal(value))


def _is_name(value: str) -> bool:
    writings = value.split("=")
    return (
        not _CONTROLS.search(value)
        and "\\" not in value
        and len(writings) <= 3
        and all(len(one) <= 64 and one.count("^") < 5 for one in writings)
    )


def _is_day(value: str) -> bool:
    try:
        date(int(value[:4]), int(value[4:6] or 1), int(value[6:8] or 1))
    except ValueError:
        return False
    return True


def _is_date_time(value: str) -> bool:
    found = _OFFSET.fullmatch(value)
    return found is not None and len(value) <= _LENGTHS["DT"] and bool(_LEGAL["DT"](found[1])) and _is_day(found[1])


def _integer(least: int, most: int) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        return len(value) <= 20 and bool(_LEGAL["IS"](value)) and least <= int(value) <= most

    return check


def _is_float(largest: float) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        return len(value) <= 64 and bool(_LEGAL["DS"](value)) and abs(float(value)) <= largest

    return check


_CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {
    "AT": lambda value: re.fullmatch("[0-9A-Fa-f]{8}", value) is not None,
    "DA": lambda value: bool(_LEGAL["DA"](value)) and _is_day(value),
    "DT": _is_date_time,
    "FD": _is_float(math.nextafter(math.inf, 0)),
    "FL": _is_float(3.4028234e38),
    "IS": lambda value: len(value) <= 12 and _integer(-(1 << 31), (1 << 31) - 1)(value),
    "PN": _is_name,
    "SL": _integer(-(1 << 31), (1 << 31) - 1),
    "SS": _integer(-(1 << 15), (1 << 15) - 1),
    "SV": _integer(-(1 << 63), (1 << 63) - 1),
    "UL": _integer(0, (1 << 32) - 1),
    "US": _integer(0, (1 << 16) - 1),
    "UV": _integer(0, (1 << 64) - 1),
    _US_OR_SS: _integer(-(1 << 15), (1 << 16) - 1),
}
