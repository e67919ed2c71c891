"""`dicomfs reindex`: make the index of an archive anew from its packs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import archive_option, json_option, wait_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, write, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.rebuild import ReindexReport

_DAMAGED = 3


@click.command("reindex")
@archive_option
@wait_option
@json_option
def reindex_command(*, archive: Path, wait_s: float, as_json: bool) -> int:
    """Make the index of an archive anew from its packs.

    The packs are the archive; the index only makes it quick. The new one gives the same catalog, the
    same names and inode numbers and the same bytes, and takes the place of the old one when it is
    whole. Drives that are mounted go on with it.

    \b
    Examples:
      dicomfs reindex -a /srv/archive
      rm -r /srv/archive/index && dicomfs reindex -a /srv/archive

    \b
    Exit status:
      0  everything that was ever committed is in the index
      3  packs are missing or damaged; what could be read is in the index
    """
    from dicomfs.archive.rebuild import reindex
    from dicomfs.cli.run import Interrupted

    try:
        with progress_bar("reindexing") as progress:
            report = reindex(archive, progress, wait_s=wait_s)
    except KeyboardInterrupt:
        raise Interrupted("the old index is as it was") from None
    if as_json:
        _print_json(report)
    else:
        _print(archive, report)
    return 0 if report.complete else _DAMAGED


def _print(archive: Path, report: ReindexReport) -> None:
    for problem in report.problems:
        note(problem)
    if report.missing_commits:
        missing = ", ".join(map(str, report.missing_commits[:10]))
        note(f"missing commits: {missing}{', …' if len(report.missing_commits) > 10 else ''}")
    before = report.instances_before
    if before is not None and before > report.instances:
        note(f"the old index had {counted(before, 'instance')}; bring back the packs that are missing from a copy")
    write(f"{archive}: {counted(report.instances, 'instance')} in {counted(report.commits, 'commit')}")


def _print_json(report: ReindexReport) -> None:
    write_json(
        {
            "complete": report.complete,
            "commits": report.commits,
            "instances": report.instances,
            "instances_before": report.instances_before,
            "missing_commits": list(report.missing_commits),
            "problems": list(report.problems),
        }
    )
