"""`dicomfs delete` and `dicomfs restore`: take instances out of everything that shows them, and bring them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import archive_option, json_option, wait_option
from dicomfs.cli.selecting import selected, selection_options
from dicomfs.cli.terminal import counted, note, quoted, size_text, write, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.deleting import Changed

_TOLD = 20

_DRY_RUN = click.option("--dry-run", "-n", is_flag=True, help="Only say what would be done.")


@click.command("delete")
@selection_options
@click.option("--version", metavar="N|SHA256", default="", help="Only this version of the one --sop-uid.")
@click.option("--reason", metavar="TEXT", default="", help="Why; 'dicomfs history' tells. Better always give one.")
@_DRY_RUN
@archive_option
@wait_option
@json_option
def delete_command(
    *,
    study_uid: tuple[str, ...],
    series_uid: tuple[str, ...],
    sop_uid: tuple[str, ...],
    patient_id: str,
    version: str,
    reason: str,
    dry_run: bool,
    archive: Path,
    wait_s: float,
    as_json: bool,
) -> None:
    """Delete studies, series or instances: nothing shows them any more.

    They vanish from lists, queries, exports, layouts, projects and mounted drives, there within a second;
    who has a file open reads on. The bytes stay in the archive, so that 'dicomfs restore' brings
    everything back, under the same names, bit for bit. A deleted instance that arrives again
    is refused by 'dicomfs import', unless told --restore-deleted.

    All versions that are shown of what is named are deleted, in one commit: all of it, or nothing. UIDs are
    whole ones, without wildcards; where kinds of them are given together, all must be met. Each
    must be there, or nothing is done. Of an instance with several versions beside each other, after a conflict
    of an import or of 'dicomfs merge', --version deletes one: by its number in 'dicomfs history
    --sop-uid', or by the first digits of its SHA-256.

    \b
    Examples:
      dicomfs delete -a /srv/archive --study-uid 1.2.3 --reason 'sent to the wrong archive'
      dicomfs delete --series-uid 1.2.3.4 --series-uid 1.2.3.5 --dry-run
      dicomfs delete --study-uid 1.2.3 --patient-id 4711 --json
      dicomfs delete --sop-uid 1.2.3.4.5 --version 85a563f98f1f --reason 'the other is right'

    \b
    Exit status:
      0  it is deleted
      1  nothing of that is in the archive, or is shown any more
    """
    from dicomfs.archive.deleting import delete

    selection = selected(study_uid, series_uid, sop_uid, patient_id)
    done = delete(archive, selection, reason, version, dry_run=dry_run, wait_s=wait_s)
    for warning in done.warnings:
        note(warning)
    back = f"dicomfs restore -a {quoted(archive)} --undo {done.seq}" if done.seq else ""
    if as_json:
        write_json({**_json(done, dry_run=dry_run), "restore": back})
    elif dry_run:
        write(f"would delete {_what(done)}")
    else:
        write(f"deleted {_what(done)}, in commit {done.seq}")
        write(f"They are kept. To bring them back: {back}")


@click.command("restore")
@selection_options
@click.option("--version", metavar="N|SHA256", default="", help="This version of the one --sop-uid, whatever is shown.")
@click.option(
    "--undo", type=click.IntRange(min=1), metavar="COMMIT", help="Everything that this commit deleted or replaced."
)
@click.option("--reason", metavar="TEXT", default="", help="Why; 'dicomfs history' tells.")
@_DRY_RUN
@archive_option
@wait_option
@json_option
def restore_command(
    *,
    study_uid: tuple[str, ...],
    series_uid: tuple[str, ...],
    sop_uid: tuple[str, ...],
    patient_id: str,
    version: str,
    undo: int | None,
    reason: str,
    dry_run: bool,
    archive: Path,
    wait_s: float,
    as_json: bool,
) -> int:
    """Bring back what was deleted, or an earlier version of what was replaced or edited.

    What is named by UIDs and was deleted comes back bit for bit, with the same names and inode numbers, in
    every layout and project. --version brings one version of an instance into the place of what is
    shown: by its number in 'dicomfs history --sop-uid', or by the first digits of its SHA-256.

    --undo takes back what one commit deleted, replaced or edited; 'dicomfs history' has the numbers. What
    something happened to since is left as it is, and told of. What a commit added stays. A
    restore is a commit too, and can be undone where it replaced something.

    \b
    Examples:
      dicomfs restore -a /srv/archive --study-uid 1.2.3
      dicomfs restore --undo 17 --dry-run
      dicomfs restore --sop-uid 1.2.3.4.5 --version 1 --reason 'the edit was wrong'

    \b
    Exit status:
      0  everything asked for is back
      1  there was nothing to bring back, or a part was left as it is
    """
    from dicomfs.archive import deleting

    selection = selected(study_uid, series_uid, sop_uid, patient_id)
    if undo is None:
        done = deleting.restore(archive, selection, version, reason, dry_run=dry_run, wait_s=wait_s)
    elif selection.is_empty and not (patient_id or version):
        done = deleting.undo(archive, undo, reason, dry_run=dry_run, wait_s=wait_s)
    else:
        raise click.UsageError("--undo is about all that a commit did; name nothing else")
    for warning in done.warnings:
        note(warning)
    for left in done.left[:_TOLD]:
        note(f"left as it is: {left.sop_instance_uid or left.ino}: {left.reason}")
    if len(done.left) > _TOLD:
        note(f"and {len(done.left) - _TOLD:,} more; --json lists all")
    if as_json:
        write_json({**_json(done, dry_run=dry_run), "left": [one._asdict() for one in done.left]})
    elif dry_run:
        write(f"would restore {_what(done)}")
    else:
        write(f"restored {_what(done)}, in commit {done.seq}" if done.seq else "restored nothing")
    return 1 if done.left else 0


def _what(done: Changed) -> str:
    within = f"{counted(done.series, 'series', 'series')} of {counted(done.studies, 'study', 'studies')}"
    return f"{counted(done.instances, 'instance')} in {within} ({size_text(done.size)})"


def _json(done: Changed, *, dry_run: bool) -> dict[str, int | bool | list[str]]:
    return {
        "dry_run": dry_run,
        "commit": done.seq,
        "instances": done.instances,
        "series": done.series,
        "studies": done.studies,
        "bytes": done.size,
        "warnings": done.warnings,
    }
