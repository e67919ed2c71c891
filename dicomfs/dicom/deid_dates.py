"""Dates and times of DICOM (PS3.5 6.2): whether they are some, and moved by whole days."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Final

_RANGED: Final = re.compile(r"([^-]*)-([^-]*)")
_DATE: Final = re.compile(r"([0-9]{4})\.?(0[1-9]|1[0-2])\.?(0[1-9]|[12][0-9]|3[01])")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3])(:?[0-5][0-9](:?[0-6][0-9](\.[0-9]{1,6})?)?)?")
_DATE_TIME: Final = re.compile(
    r"([0-9]{8})((?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:[0-6][0-9](?:\.[0-9]{1,6})?)?)?)?([+-][01][0-9][0-5][0-9])?"
)
_COARSE: Final = re.compile(r"[0-9]{4}(0[1-9]|1[0-2])?([+-][01][0-9][0-5][0-9])?")
_BLANK: Final = " \0"


def moved(vr: str, value: str, days: int) -> str:
    """Return the values of a DA or DT (ranges too) moved by `days`, "" where one of them cannot be."""
    return _each(value, lambda one: _moved(vr, one, days))


def kept(vr: str, value: str) -> str:
    """Return the values of a DA, TM or DT as they are, "" where one of them is none."""
    if vr == "TM":
        return _each(value, lambda one: one if _TIME.fullmatch(one) else "")
    return _each(value, lambda one: one if _moved(vr, one, 0) or (vr == "DT" and _COARSE.fullmatch(one)) else "")


def _each(value: str, change: Callable[[str], str]) -> str:
    values = []
    for text in value.split("\\"):
        one = text.strip(_BLANK)
        new = change(one) if one else ""
        if one and not new and (ends := _RANGED.fullmatch(one)):
            first, last = (change(end) if end else "" for end in ends.groups())
            if bool(first) is bool(ends[1]) and bool(last) is bool(ends[2]) and (first or last):
                new = f"{first}-{last}"
        if one and not new:
            return ""
        values.append(new)
    return "\\".join(values)


def _moved(vr: str, value: str, days: int) -> str:
    if vr == "DA":
        return _day(value, days)
    found = _DATE_TIME.fullmatch(value)
    day = _day(found[1], days) if found else ""
    return f"{day}{found[2] or ''}{found[3] or ''}" if found and day else ""


def _day(value: str, days: int) -> str:
    found = _DATE.fullmatch(value)
    if found is None:
        return ""
    try:
        day = date(int(found[1]), int(found[2]), int(found[3])) + timedelta(days)
    except (ValueError, OverflowError):
        return ""
    return f"{day.year:04}{day.month:02}{day.day:02}" if days else value
