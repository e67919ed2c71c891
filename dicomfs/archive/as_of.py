"""Moments in the past, and which state of an archive each one means.

A moment means the state after the last commit that was made by then. Commits carry the times at which they were made,
each later than the one before. Should a clock have said otherwise, a commit does not count before those ahead of
it: the state is that after the last commit such that it and all before it were made by then. Before the first
commit an archive is empty, and in the future it is as it is now.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dicomfs.archive.fold_forgetting import FORGOT
from dicomfs.archive.moments import time_text
from dicomfs.errors import Damaged, Refused
from dicomfs.store import intent
from dicomfs.store.earlier import Known, meta_value
from dicomfs.store.index import Index
from dicomfs.store.store import TABLES


@dataclass(frozen=True, slots=True)
class AsOf:
    """A moment at which an archive is looked at."""

    time_ns: int
    seq: int | None = None
    """The number of the last commit by then, where it was found out before."""
    directory: Path | None = None
    """Where the state lies if that is nobody else's: it is removed when it is no longer used."""


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
