"""`dicomfs check`: tell whether an archive is whole, and what exactly is hurt."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import archive_option, json_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, quoted, size_text, write, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from dicomfs.archive.check import CheckReport, Problem

_DAMAGED = 3
_TOLD = 20
"""How many problems of a kind are told one by one."""
_REINDEX = re.compile(r"[;,] run 'dicomfs (reindex|check)'[^;]*$")
_IN_PACKS = frozenset({"pack", "commit", "blob", "instance", "derived"})


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
      index       dicomfs reindex makes it anew from the packs
      pack        put back the pack from a copy of the archive
      commit      a part of a pack
      blob        a part of a pack: the files that need it give an error when they are read
      instance    a file that cannot be rebuilt, told by its SOP Instance UID; the pack that is hurt
                  is to be put back. Importing the file again does not repair it: the archive knows
                  it by its SHA-256, and takes it for present
      derived     a de-identified file of a project; it is named by the instance it was made of
      quarantine  a file in ARCHIVE/quarantine; put it back from a copy

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
    told: Counter[str] = Counter()
    for problem in report.problems:
        told[problem.kind] += 1
        if verbose or told[problem.kind] <= _TOLD:
            write(_line(problem))
    for kind, number in told.items():
        if number > _TOLD and not verbose:
            write(f"{kind}: … and {number - _TOLD:,} more")
    for line in _advice(archive, set(told)):
        write(line)
    if verbose:
        for line in report.notes:
            note(line)
    looked_at = f"{counted(report.packs, 'pack')}, {counted(report.instances, 'file')}"
    if report.derived:
        looked_at += f", {counted(report.derived, 'derived file')}"
    if report.bytes_verified:
        looked_at += f", {size_text(report.bytes_verified)} verified"
    if report.problems:
        write(f"{archive}: {counted(len(report.problems), 'problem')} in {looked_at}")
    else:
        write(f"{archive}: whole ({looked_at})")


def _advice(archive: Path, hurt: AbstractSet[str]) -> Iterator[str]:
    if "instance" in hurt:
        which = f"-a {quoted(archive)} --level instance --where SOPInstanceUID=UID"
        yield f"to see where a file is in a drive: dicomfs query {which}"
    if hurt & _IN_PACKS:
        yield "to do: put back the packs that are hurt, from a copy of the archive"
    if "attachment" in hurt:
        yield "to do: attach the documents again; dicomfs attachments tells which they are"
    if "index" in hurt:
        first = ", when the packs are whole" if hurt & _IN_PACKS else ""
        yield f"to do{first}: dicomfs reindex -a {quoted(archive)}"


def _line(problem: Problem) -> str:
    """Return what is hurt, its kind said once, without the advice that is given for all of a kind together."""
    what = _REINDEX.sub("", problem.what)
    where = problem.where
    if where == problem.kind or where.startswith(f"{problem.kind} "):
        return f"{where}: {what}"
    return f"{problem.kind}: {where}: {what}"


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
            "derived": report.derived,
            "bytes_verified": report.bytes_verified,
        }
    )
