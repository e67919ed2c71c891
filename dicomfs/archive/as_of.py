"""Moments in the past, as people write them, and which state of an archive each one means.

A moment means the state after the last commit that was made by then. Commits carry the times at which they were made,
each later than the one before. Should a clock have said otherwise, a commit does not count before those ahead of
it: the state is that after the last commit such that it and all before it were made by then. Before the first
commit an archive is empty, and in the future it is as it is now.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from dicomfs.archive.fold_forgetting import FORGOT
from dicomfs.errors import Damaged, Refused, UsageError
from dicomfs.store import intent
from dicomfs.store.earlier import Known, meta_value
from dicomfs.store.index import Index
from dicomfs.store.store import TABLES

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
).fullmatch
"""RFC 3339 5.6, and without seconds, offset or time of the day."""
_EXPECTED: Final = "write it as 2026-01-31T12:00:00Z, 2026-01-31T12:00:00+01:00 or, in local time, 2026-01-31T12:00"
_SECOND: Final = 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AsOf:
    """A moment at which an archive is looked at."""

    time_ns: int
    seq: int | None = None
    """The number of the last commit by then, where it was found out before."""
    directory: Path | None = None
    """Where the state lies if that is nobody else's: it is removed when it is no longer used."""


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


def last_by(commits: Iterable[Known], time_ns: int) -> int:
    """Return the number of the last commit that was made by then, as all before it were; 0 where there is none."""
    seq = 0
    for commit in commits:
        if commit.place.time_ns > time_ns:
            break
        seq = commit.seq
    return seq


def refuse_forgotten(archive_path: Path, time_ns: int) -> None:
    """Raise Refused where an archive no longer has all that it had then, or is just about to forget it."""
    replacement = intent.read(archive_path / "packs")  # which goes when the index says so
    live = Index(archive_path / "index", TABLES, writable=False)
    try:
        told = meta_value(live, FORGOT)
    finally:
        live.close()
    try:
        forgot_ns = max(int(told or b"0"), 0 if replacement is None else replacement.forgot_ns)
    except ValueError as error:
        raise Damaged("the index has a damaged record of what was forgotten; run 'dicomfs reindex'") from error
    if time_ns < forgot_ns:
        limit = time_text(forgot_ns)
        raise Refused(f"what was before {limit} was forgotten by 'dicomfs gc'; name that time or a later one")
