"""`dicomfs merge`: join another archive into this one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option, json_option, wait_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, quoted, size_text, write, write_json, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicomfs.archive.merging import MergeReport
    from dicomfs.archive.merging_conflicts import Conflict, Version

_TOLD = 20
"""So many conflicts the table shows."""
_KINDS = {
    "edited": "edited differently",
    "replaced": "replaced by different files",
    "deleted": "deleted, but changed elsewhere: it is kept",
    "files": "different files of one UID",
    "uncombined": "both edits cannot be made",
}


@click.command("merge", no_args_is_help=True)
@click.argument("other", type=PATH, metavar="OTHER-ARCHIVE")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the history.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be done, and change nothing.")
@archive_option
@wait_option
@json_option
def merge_command(*, other: Path, reason: str, dry_run: bool, archive: Path, wait_s: float, as_json: bool) -> int:
    """Join another archive into this one: all that OTHER-ARCHIVE knows comes over.

    Both may have been changed apart: an archive that was copied and edited in two places, or two that never met. Files,
    their earlier versions, edits, deletes and restores of both are joined, with who did it, when and why. Edits of
    one file that have nothing to do with each other are both made; the same edit made twice counts once. OTHER-ARCHIVE
    is only read; merge the other way round, too, and both show the same files.

    What contradicts each other is listed for you to decide, and both versions are kept: the later change is
    current, the other file is shown beside it with a ~hash in its name. `dicomfs delete
    --sop-uid UID --version SHA256` removes the one that you do not want. Of a file that was edited here
    and deleted there, the edit is kept. Of different files of one
    SOP Instance UID the one that was imported first is current.

    Attachments and quarantined files come over, too. Layouts and projects stay each archive's own.

    Run it again after it was stopped: it goes on. If there is nothing new, nothing is done.

    \b
    Examples:
      dicomfs merge /media/usb/archive -a /srv/archive --dry-run
      dicomfs merge /media/usb/archive -a /srv/archive --reason "ward round"
      dicomfs merge /srv/archive -a /media/usb/archive

    \b
    Exit status:
      0  the archives are joined
      1  they are, but there are conflicts for you to decide
      2  both are the same archive
      3  one of the archives is damaged, or there is none
    """
    from dicomfs.archive.merging import merge
    from dicomfs.cli.run import Interrupted

    try:
        with progress_bar("merging") as progress:
            report = merge(archive, other, reason=reason, dry_run=dry_run, wait_s=wait_s, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted("what was committed is safe; run the same command again to go on") from None
    if as_json:
        _print_json(report, dry_run=dry_run)
    else:
        _print(archive, report, dry_run=dry_run)
    return 0 if report.complete else 1


def _print(archive: Path, report: MergeReport, *, dry_run: bool) -> None:
    for warning in report.warnings:
        note(warning)
    write_table(
        ("Conflict", "Kind", "SOP Instance UID", "Version", "Status", "When", "Who", "What"),
        (row for number, conflict in enumerate(report.conflicts[:_TOLD], start=1) for row in _rows(number, conflict)),
    )
    if len(report.conflicts) > _TOLD:
        note(f"and {counted(len(report.conflicts) - _TOLD, 'conflict')} more; --json lists all")
    would = "would be " if dry_run else ""
    size = f" ({size_text(report.bytes_copied)})" if report.bytes_copied else ""
    write(f"{counted(report.copied, 'file')} {would}taken over{size}, {report.combined} {would}made of edits of both")
    write(
        f"{report.replaced} {would}replaced, {report.deleted} {would}deleted, {report.restored} {would}restored; "
        f"{counted(report.attachments, 'attachment')} and {counted(report.quarantined, 'quarantined file')} "
        f"{would}taken over"
    )
    if report.conflicts:
        note(f"{counted(len(report.conflicts), 'conflict')} to be decided by you; both versions are kept")
        note(f"to take one out: dicomfs delete -a {quoted(archive)} --sop-uid UID --version VERSION")
    note("layouts and projects stay each archive's own")


def _rows(number: int, conflict: Conflict) -> Iterator[tuple[str | int, ...]]:
    for at, one in enumerate(conflict.versions):
        what = "; ".join(f"{found.what}={_value(found.values[at])}" for found in conflict.differences)
        yield (
            number, _KINDS[conflict.kind], conflict.sop_instance_uid, one.sha256[:12], one.status, _when(one),
            one.by, conflict.reason or what or " ".join(filter(None, (one.op, one.reason))),
        )  # fmt: skip


def _value(done: tuple[str, ...]) -> str:
    """Return what was done with an attribute, in a few words."""
    what, *values = done
    text = "\\".join(values) if values else f"({what})"
    return text if len(text) <= 40 else f"{text[:39]}…"


def _when(version: Version) -> str:
    return datetime.fromtimestamp(version.time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_json(report: MergeReport, *, dry_run: bool) -> None:
    write_json(
        {
            "dry_run": dry_run,
            "copied": report.copied,
            "bytes_copied": report.bytes_copied,
            "combined": report.combined,
            "replaced": report.replaced,
            "deleted": report.deleted,
            "restored": report.restored,
            "attachments": report.attachments,
            "quarantined": report.quarantined,
            "commits": report.commits,
            "conflicts": [
                {
                    "kind": one.kind,
                    "StudyInstanceUID": one.study_instance_uid,
                    "SeriesInstanceUID": one.series_instance_uid,
                    "SOPInstanceUID": one.sop_instance_uid,
                    "reason": one.reason,
                    "versions": [
                        {
                            "sha256": version.sha256,
                            "status": version.status,
                            "time": _when(version),
                            "op": version.op,
                            "by": version.by,
                            "reason": version.reason,
                            "changes": {found.what: list(found.values[at]) for found in one.differences},
                        }
                        for at, version in enumerate(one.versions)
                    ],
                }
                for one in report.conflicts
            ],
            "warnings": list(report.warnings),
        }
    )
