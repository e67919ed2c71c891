"""`dicomfs check`: tell whether an archive is whole, and what exactly is hurt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import archive_option, json_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, size_text, write, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.check import CheckReport

_DAMAGED = 3


@click.command("check")
@archive_option
@click.option("--verify-files", is_flag=True, help="Also hash every blob, and rebuild and hash every file.")
@click.option("--verbose", "-v", is_flag=True, help="Also tell what is no damage, but worth knowing.")
@json_option
def check_command(*, archive: Path, verify_files: bool, verbose: bool, as_json: bool) -> int:
    """Check that an archive is whole.

    The quick pass looks for every pack and its size, makes the catalog anew from the packs and
    compares it with the index, and resolves what every file is made of. --verify-files also reads
    and hashes every byte, and compares every file with what was imported. Nothing is changed, and
    the archive may be in use.

    \b
    If something is hurt:
      index     dicomfs reindex makes it anew from the packs
      pack      bring the file back from a copy of the archive
      blob      a part of a pack: the files that need it give an error when they are read
      instance  a file that cannot be rebuilt; import it again if you have it

    \b
    Examples:
      dicomfs check -a /srv/archive
      dicomfs check --verify-files --json

    \b
    Exit status:
      0  the archive is whole
      3  something is hurt; stdout says what
    """
    from dicomfs.archive.check import check

    with progress_bar("checking") as progress:
        report = check(archive, verify_files=verify_files, progress=progress)
    if as_json:
        _print_json(report)
    else:
        _print(archive, report, verbose=verbose)
    return _DAMAGED if report.problems else 0


def _print(archive: Path, report: CheckReport, *, verbose: bool) -> None:
    for problem in report.problems:
        write(f"{problem.kind}: {problem.where}: {problem.what}")
    if verbose:
        for line in report.notes:
            note(line)
    looked_at = f"{counted(report.packs, 'pack')}, {counted(report.instances, 'file')}"
    if report.bytes_verified:
        looked_at += f", {size_text(report.bytes_verified)} verified"
    if report.problems:
        write(f"{archive}: {counted(len(report.problems), 'problem')} in {looked_at}")
    else:
        write(f"{archive}: whole ({looked_at})")


def _print_json(report: CheckReport) -> None:
    write_json(
        {
            "whole": not report.problems,
            "problems": [
                {"kind": problem.kind, "where": problem.where, "what": problem.what} for problem in report.problems
            ],
            "notes": list(report.notes),
            "packs": report.packs,
            "commits": report.commits,
            "blobs": report.blobs,
            "instances": report.instances,
            "bytes_verified": report.bytes_verified,
        }
    )
