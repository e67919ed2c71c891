"""Patterns: what a value must be like to be found. Pure; `query` decides whose values are looked at.

    any text   case does not count; `*` stands for any text and `?` for one character
    dates      a day, month or year, or a range of them whose ends may be left open (PS3.4 C.2.2.2.5):
               20240131, 2024-01, 2024, 20240101-20240131, 2023-, -2022
    names      the whole name, or one of its component groups: alphabetic, ideographic, phonetic (PS3.5 6.2.1)
    numbers    equal as numbers: 1.25 finds 1.250000

Of several values one is enough (PS3.4 C.2.2.2.1). A pattern without text finds what has no value.
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import TYPE_CHECKING, Final, TypeAlias

from dicomfs.archive.keywords import CATALOG_KEYWORDS
from dicomfs.archive.names import fold
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Test: TypeAlias = Callable[[str], bool]

# Keywords of the catalog, for which pydicom's dictionary is not loaded; all others hold text.
_VR: Final = {
    **dict.fromkeys(("StudyDate", "PatientBirthDate", "ContentDate", "PerformedProcedureStepStartDate"), "DA"),
    **dict.fromkeys(("PatientName", "ReferringPhysicianName"), "PN"),
    **dict.fromkeys(("SeriesNumber", "InstanceNumber", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"), "IS"),
}
_NUMBERS: Final = frozenset({"DS", "IS", "FL", "FD", "SS", "SL", "SV", "US", "UL", "UV", "US or SS"})
_FLOAT_TOLERANCE: Final = 1e-6
"""FL has 24 bits: 1.2 is stored as 1.2000000476837158."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?").fullmatch
_PERIOD = re.compile(r"(\d{4})(?:([-.]?)(\d\d)(?:\2(\d\d))?)?", re.ASCII).fullmatch
_STORED_DAY = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)", re.ASCII).fullmatch
_DATE_WILDCARDS = re.compile(r"[0-9*?.-]*").fullmatch
_FIRST_DAY, _LAST_DAY = "00000000", "99999999"
_OLD_YEARS: Final = (1900, 2100)
"""The years in which a range with an open end looks for dates of the old form (`indexed`)."""


def value_test(keyword: str, pattern: str) -> Test:
    """Return the test whether an attribute's text is like the pattern; raise UsageError for what cannot be."""
    vr = _vr(keyword)
    if vr == "DA":
        one = _date_test(pattern)
    elif vr in _NUMBERS and _NUMBER(pattern):
        one = _number_test(float(pattern), _FLOAT_TOLERANCE if vr == "FL" else 0.0)
    else:
        one = text_test(pattern)
    parts = re.compile(r"[\\=]" if vr == "PN" else r"\\").split

    def test(text: str) -> bool:
        if one(text):
            return True
        found = parts(text)
        return len(found) > 1 and any(part and one(part) for part in map(str.strip, found))

    return test


def text_test(pattern: str) -> Test:
    """Return the test whether a text as a whole is like the pattern."""
    folded = fold(pattern)
    if "*" not in folded and "?" not in folded:
        return lambda text: fold(text) == folded
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in folded)
    compiled = re.compile(expression, re.DOTALL).fullmatch
    return lambda text: compiled(fold(text)) is not None


def indexed(keyword: str, pattern: str) -> Iterator[str]:
    """Yield what to ask the index for (`View.studies_where`), so that nothing is missed; more may be found."""
    if keyword == "StudyDate":
        yield from _indexed_dates(pattern)
        return
    yield pattern
    if keyword == "PatientName" and pattern and "=" not in pattern:
        yield f"{pattern}=*"
        yield f"*={pattern}*"


def day(text: str) -> str:
    """Return a stored date as YYYYMMDD, '' for what is none; it may be of the old form YYYY.MM.DD (PS3.5 6.2)."""
    match = _STORED_DAY(text)
    if match is None:
        return ""
    year, _, month, number = match.groups()
    return year + month + number if _exists(year, month, number) else ""


def _vr(keyword: str) -> str:
    if keyword in CATALOG_KEYWORDS:
        return _VR.get(keyword, "LO")
    from dicomfs.dicom.dictionary import dictionary_vr, keyword_tag

    return dictionary_vr(keyword_tag(keyword))


def _number_test(wanted: float, tolerance: float) -> Test:
    def test(text: str) -> bool:
        return _NUMBER(text) is not None and math.isclose(float(text), wanted, rel_tol=tolerance)

    return test


def _date_test(pattern: str) -> Test:
    if not pattern:
        return text_test(pattern)
    if "*" in pattern or "?" in pattern:
        if not _DATE_WILDCARDS(pattern):
            raise _no_date(pattern)
        compact = text_test(_compact(pattern))
        return lambda text: compact(_compact(text))
    first, last = _days(pattern)
    return lambda text: bool(found := day(text)) and first <= found <= last


def _indexed_dates(pattern: str) -> Iterator[str]:
    if not pattern:
        yield pattern
    elif "*" in pattern or "?" in pattern:
        yield pattern[: min(pattern.index(c) for c in "*?" if c in pattern)][:4] + "*"
    else:
        first, last = _days(pattern)
        yield f"{first}-{last}"
        # The index has dates as they were stored; those of the old form stand apart.
        begin = _OLD_YEARS[0] if first == _FIRST_DAY else int(first[:4])
        end = _OLD_YEARS[1] if last == _LAST_DAY else int(last[:4])
        yield from (f"{year:04}.*" for year in range(begin, end + 1))


def _days(pattern: str) -> tuple[str, str]:
    """Return the first and the last day of what a pattern names."""
    if (period := _period(pattern.strip())) is not None:
        return period
    # A hyphen may stand within a date as well as between two.
    for at in (at for at, character in enumerate(pattern) if character == "-"):
        left, right = pattern[:at].strip(), pattern[at + 1 :].strip()
        first = _period(left) if left else (_FIRST_DAY, "")
        last = _period(right) if right else ("", _LAST_DAY)
        if first is None or last is None or not (left or right):
            continue
        if first[0] > last[1]:
            raise UsageError(f"'{pattern}' is no range of dates: it ends before it begins")
        return first[0], last[1]
    raise _no_date(pattern)


def _period(text: str) -> tuple[str, str] | None:
    """Return the first and the last day of a day, month or year; None for what is none."""
    match = _PERIOD(text)
    if match is None:
        return None
    year, _, month, number = match.groups()
    if not _exists(year, month or "01", number or "01"):
        return None
    return year + (month or "01") + (number or "01"), year + (month or "12") + (number or "31")


def _exists(year: str, month: str, number: str) -> bool:
    try:
        date(int(year), int(month), int(number))
    except ValueError:
        return False
    return True


def _compact(text: str) -> str:
    return text.replace("-", "").replace(".", "")


def _no_date(pattern: str) -> UsageError:
    return UsageError(
        f"'{pattern}' is no date; write 20240131, 2024-01-31, 2024-01, 2024, "
        "or a range such as 20240101-20240131, 2023- or -2022"
    )
