"""How a command opens the archive that it reads: as it is, or as it was at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicomfs.cli.progress import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.archive import Archive


def open_archive(path: Path, as_of: str | None) -> Archive:
    """Open an archive, in the state of a time if one is given (--as-of); raise UsageError where it is none."""
    from dicomfs.archive.archive import Archive

    if as_of is None:
        return Archive.open(path)
    from dicomfs.archive.as_of import AsOf
    from dicomfs.archive.moments import parse_time

    moment = AsOf(parse_time(as_of))
    with progress_bar("earlier state") as progress:
        return Archive.open(path, moment, progress)
