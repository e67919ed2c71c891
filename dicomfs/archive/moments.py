"""Moments as people write them and read them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from dicomfs.errors import UsageError

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
).fullmatch
"""RFC 3339 5.6, and without seconds, offset or time of the day."""
_EXPECTED: Final = "write it as 2026-01-31T12:00:00Z, 2026-01-31T12:00:00+01:00 or, in local time, 2026-01-31T12:00"
_SECOND: Final = 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(text: str) -> int:
    """Return the ns since 1970 of a time as RFC 3339 has it, or in the machine's local time; raise UsageError."""
    found = _TIME(text.strip())
    if found is None:
        raise UsageError(f"'{text}' is not a time; {_EXPECTED}")
    day, clock, second, fraction, offset = (part or "" for part in found.groups())
    leap = second == "60"  # which RFC 3339 allows: the moment after :59
    try:
        when = datetime.fromisoformat(f"{day}T{clock or '00:00'}:{'59' if leap else second or '00'}{offset.upper()}")
        if when.tzinfo is None:
            when = when.astimezone()
        seconds = (when - _EPOCH) // timedelta(seconds=1) + leap
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"'{text}' is not a time that there is; {_EXPECTED}") from error
    return seconds * _SECOND + int(fraction.ljust(9, "0"))


def time_text(time_ns: int) -> str:
    """Return a time as RFC 3339 has it, in UTC, with the digits of the second that it takes."""
    seconds, fraction = divmod(time_ns, _SECOND)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    try:
        when = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:  # no clock is set so
        return f"{seconds}{digits} seconds since 1970"
    return f"{when:%Y-%m-%dT%H:%M:%S}{digits}Z"


def local_text(time_ns: int) -> str:
    """Return a time for people, in the machine's local time, to the second."""
    try:
        return datetime.fromtimestamp(time_ns // _SECOND).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # no clock is set so
        return time_text(time_ns)
