"""Statistics: how much an archive holds, what came in, what it takes, and what saved how much.

All sums are kept by the commits themselves, so this reads one record and the sizes of the packs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.totals import Totals


@dataclass(frozen=True, slots=True)
class Statistics:
    """An archive in numbers; sizes in bytes."""

    totals: Totals
    commits: int
    packs: int
    packs_size: int
    index_size: int
    quarantined: int


def statistics(archive: Archive) -> Statistics:
    """Return the numbers of the archive as it is now."""
    with archive.view() as view:
        totals = view.totals()
        commits = view.seq
    packs = [entry for entry in _files(archive.path / "packs") if entry.name.endswith(".zip")]
    quarantined = sum(entry.name.endswith(".dcm") for entry in _files(archive.path / "quarantine"))
    return Statistics(
        totals,
        commits,
        len(packs),
        sum(entry.stat().st_size for entry in packs),
        # The index is a sparse file, far longer than what it takes on the disk.
        sum(entry.stat().st_blocks * 512 for entry in _files(archive.path / "index")),
        quarantined,
    )


def _files(directory: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, PermissionError):
        return []
