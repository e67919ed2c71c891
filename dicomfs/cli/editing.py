"""`dicomfs edit`: correct what instances say, in one commit, with all that refers to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option, json_option, wait_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, quoted, write, write_json, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.editing_plan import Asked
    from dicomfs.archive.editing_run import Done, Options
    from dicomfs.archive.editing_selection import Selection
    from dicomfs.cli.terminal import Json

_TOLD = 20
_NEW = "new"
_LONGEST = 80
"""Characters that the table of a dry run shows of a value; a UID has 64."""


@click.command("edit")
@archive_option
@click.option("--study-uid", "studies", multiple=True, metavar="UID", help="Choose this study. May be repeated.")
@click.option("--series-uid", "series", multiple=True, metavar="UID", help="Choose this series. May be repeated.")
@click.option("--sop-uid", "instances", multiple=True, metavar="UID", help="Choose this instance. May be repeated.")
@click.option("--patient-id", metavar="ID", help="Choose what is of this patient, to the letter.")
@click.option("--issuer", metavar="ISSUER", help="Of whom the patient ID is, where several have given it.")
@click.option(
    "--where",
    metavar="KEYWORD=PATTERN",
    multiple=True,
    help="Choose what meets a condition, as of `dicomfs query`. May be repeated: all must be met.",
)
@click.option("--set", "settings", metavar="KEYWORD=VALUE", multiple=True, help="Set an attribute; \\ parts values.")
@click.option("--empty", "emptied", metavar="KEYWORD", multiple=True, help="Leave an attribute without a value.")
@click.option("--remove", "removed", metavar="KEYWORD", multiple=True, help="Take an attribute out.")
@click.option(
    "--move-to-patient", "to_patient", metavar="ID", help="Make it this patient's, of whom all is taken over."
)
@click.option("--to-issuer", metavar="ISSUER", help="Of whom that patient's ID is.")
@click.option("--new-study-uid", "new_study", metavar="[UID]", is_flag=False, flag_value=_NEW, help="Renew study UIDs.")
@click.option(
    "--new-series-uid", "new_series", metavar="[UID]", is_flag=False, flag_value=_NEW, help="Renew series UIDs."
)
@click.option(
    "--new-sop-uids", "new_sop", metavar="[UID]", is_flag=False, flag_value=_NEW, help="Renew SOP Instance UIDs."
)
@click.option("--into-study", metavar="UID|new", help="Put it into another study: one that is there, or a new one.")
@click.option("--into-series", metavar="UID|new", help="Put it into another series: one that is there, or a new one.")
@click.option("--replace-with", "file", type=PATH, metavar="FILE", help="Put a file in the place of the instance.")
@click.option("--set-uids", is_flag=True, help="Give that file the UIDs of the instance.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for `dicomfs history`.")
@click.option(
    "--reason-code",
    type=click.Choice(["CORRECT", "COERCE"]),
    default="CORRECT",
    show_default=True,
    help="What the files say of why: wrong values, or values that were to be like others'.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Show each attribute before and after, and change nothing.")
@click.option("--skip-refused", is_flag=True, help="Leave out instances that cannot be edited, and edit the rest.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="How many processes edit (default: one a CPU).")
@wait_option
@json_option
def edit_command(
    *,
    archive: Path,
    studies: tuple[str, ...],
    series: tuple[str, ...],
    instances: tuple[str, ...],
    patient_id: str | None,
    issuer: str | None,
    where: tuple[str, ...],
    settings: tuple[str, ...],
    emptied: tuple[str, ...],
    removed: tuple[str, ...],
    file: Path | None,
    set_uids: bool,
    reason: str,
    reason_code: str,
    dry_run: bool,
    skip_refused: bool,
    jobs: int | None,
    wait_s: float,
    as_json: bool,
    **targets: str | None,
) -> int:
    """Correct what instances say: each gets a next version, and the one before is kept.

    What is chosen must be all that the options say; of one option that is repeated, any. All versions that
    are shown are edited, those with ~hash in their names too. Everything is one commit: a drive shows all
    of it within a second, or, where the command ends with an error, nothing of it. An instance that cannot
    be edited without a guess (it is damaged, or its text is not in the character set that it declares) is
    listed, and then nothing is changed, unless --skip-refused leaves it out.

    'dicomfs restore --undo COMMIT' takes an edit back; 'dicomfs history' tells who made it and why. Other studies
    of the patient stay as they are: to correct all of them, choose by --patient-id.

    Only the elements that are asked for change; all others keep their bytes, and pixel data is never
    touched. Values are typed in Unicode: a file keeps its character set where that can hold them, and is
    converted to UTF-8 as a whole otherwise. What was there before is kept in the file's
    OriginalAttributesSequence (PS3.3 C.12.1). Attributes are named by keyword or by tag (0010,0010); several
    values are parted by backslashes.

    \b
    Patients:
      --move-to-patient ID   PatientID, its issuer, name, birth date, sex and all else that
                             identifies a patient become those of an instance of that patient;
                             what that has not, goes. One whom the archive does not know is made
                             if --set (or --empty) says PatientName, PatientBirthDate and
                             PatientSex. Whole studies are moved.
      To merge two patients, move all of the one to the other:
                             --patient-id WRONG --move-to-patient RIGHT

    \b
    UIDs; without a UID, or with `new`, one is made (2.25. and a UUID):
      --new-study-uid        chosen studies, which must be whole
      --new-series-uid       chosen series, which must be whole
      --new-sop-uids         chosen instances, and all that is shown of their UIDs elsewhere

    \b
    Split and join:
      --into-study UID|new   chosen series become a part of another study
      --into-series UID|new  chosen instances become a part of another series, in any study
      What is put into a study or series that exists takes over what that says of itself.

    Whatever refers to UIDs that are no more, in the studies of all patients concerned, is rewritten in the same
    commit. A part that leaves its study or series keeps its SOP Instance UIDs, so references find it; the
    study that they name around it stays.

    --replace-with FILE puts FILE in the place of the one instance that is chosen, after the checks of an
    import. It must have the SOP Instance UID of that, or gets its UIDs with --set-uids.

    \b
    Examples:
      dicomfs edit -a /srv/archive --study-uid 1.2.3 --set PatientName='DOE^JANE' --dry-run
      dicomfs edit --patient-id A17 --set PatientSex=F --empty PatientBirthDate --reason 'mistyped'
      dicomfs edit --study-uid 1.2.3 --move-to-patient A18
      dicomfs edit --patient-id A17 --move-to-patient A18 --reason 'one person'
      dicomfs edit --study-uid 1.2.3 --new-study-uid --new-series-uid --new-sop-uids
      dicomfs edit --series-uid 1.2.3.4 --into-study new --set StudyDescription='Knee, left'
      dicomfs edit --sop-uid 1.2.3.4.5 --into-series new --set SeriesDescription=Scout
      dicomfs edit --sop-uid 1.2.3.4.5 --replace-with repaired.dcm

    \b
    Exit status:
      0  it was done, or there was nothing to change
      1  nothing is what was chosen, or an instance cannot be edited
    """
    from dicomfs.archive.editing_run import Options, edit_instances
    from dicomfs.archive.editing_selection import Selection
    from dicomfs.archive.query import parse_condition
    from dicomfs.cli.run import Interrupted

    selection = Selection(
        studies=studies, series=series, instances=instances, patient_id=patient_id, issuer=issuer,
        where=tuple(map(parse_condition, where)),
    )  # fmt: skip
    options = Options(reason=reason, dry_run=dry_run, skip_refused=skip_refused, jobs=jobs or 0, wait_s=wait_s)
    try:
        if file is not None:
            if settings or emptied or removed or any(value is not None for value in targets.values()):
                raise click.UsageError("--replace-with is done alone; edit the instance in a second command")
            done = _replace(archive, selection, file, options, set_uids=set_uids)
        else:
            if set_uids:
                raise click.UsageError("--set-uids goes with --replace-with")
            asked = _asked(settings, emptied, removed, reason_code, targets)
            with progress_bar("looking" if dry_run else "editing") as progress:
                done = edit_instances(archive, selection, asked, options, progress)
    except KeyboardInterrupt:
        raise Interrupted("an edit is done as a whole or not at all; run the same command again") from None
    left = bool(done.refused) and not skip_refused
    if as_json:
        write_json(_json(done))
    else:
        _print(archive, done, dry_run=dry_run, left=left)
    return 1 if done.refused else 0


def _asked(
    settings: tuple[str, ...],
    emptied: tuple[str, ...],
    removed: tuple[str, ...],
    reason_code: str,
    targets: dict[str, str | None],
) -> Asked:
    from dicomfs.archive.editing_plan import Asked
    from dicomfs.dicom.edit_settings import parse_setting, parse_tag

    parsed = [parse_setting(setting) for setting in settings]
    if len({tag for tag, _ in parsed}) < len(parsed):
        raise click.UsageError("an attribute is set twice")
    return Asked(
        set=dict(parsed), empty=tuple(map(parse_tag, emptied)), remove=tuple(map(parse_tag, removed)),
        reason_code=reason_code, **targets,
    )  # fmt: skip


def _replace(archive: Path, selection: Selection, file: Path, options: Options, *, set_uids: bool) -> Done:
    from dicomfs.archive.editing_file import replace_with

    return replace_with(archive, selection, file, options, set_uids=set_uids)


def _json(done: Done) -> Json:
    return {
        "commit": done.seq,
        "chosen": done.chosen,
        "edited": done.edited,
        "references": done.references,
        "referring": done.referring,
        "unchanged": done.unchanged,
        "refused": [{"SOPInstanceUID": uid, "reason": reason} for uid, reason in done.refused],
        "uids": done.uids,
        "changes": [
            {
                "attribute": line.attribute,
                "before": line.before,
                "after": line.after,
                "instances": line.instances,
                "more": line.more,
            }
            for line in done.lines
        ],
        "warnings": [*done.warnings],
    }


def _print(archive: Path, done: Done, *, dry_run: bool, left: bool) -> None:
    for uid, reason in done.refused[:_TOLD]:
        note(f"refused: {uid}: {reason}")
    if len(done.refused) > _TOLD:
        note(f"and {len(done.refused) - _TOLD:,} more; --json tells all")
    for warning in done.warnings:
        note(warning)
    if done.lines:
        _print_table(done)
    if dry_run:
        for uid in done.referring[:_TOLD]:
            write(f"refers to what gets another UID: {uid}")
        if len(done.referring) > _TOLD:
            write(f"and {len(done.referring) - _TOLD:,} more; --json tells all")
    changed = done.edited + done.references
    parts = [counted(done.edited, "instance")]
    if done.references:
        parts.append(f"{done.references:,} more that refer to what has another UID")
    if done.unchanged:
        parts.append(f"{done.unchanged:,} as they are")
    if done.refused:
        parts.append(f"{len(done.refused):,} refused")
    if left:
        write(f"{', '.join(parts)}: nothing was changed; --skip-refused leaves out what is refused")
    elif not changed:
        write(f"nothing to change ({', '.join(parts[1:])})" if done.refused else "nothing to change")
    elif dry_run:
        write(f"{', '.join(parts)} (nothing was changed)")
    else:
        write(f"{', '.join(parts)}: done, in commit {done.seq}")
        write(f"What was before is kept. To bring it back: dicomfs restore -a {quoted(archive)} --undo {done.seq}")


def _print_table(done: Done) -> None:
    rows: list[tuple[str | int, ...]] = []
    for line in done.lines:
        cells = (f"({line.more:,} other values)", "…") if line.more else (_cell(line.before), _cell(line.after))
        rows.append((line.attribute, *cells, line.instances))
    write_table(("Attribute", "Before", "After", "Instances"), rows)


def _cell(value: str | None) -> str:
    """Return a value for the table, of a long one the beginning."""
    if value is None:
        return "(none)"
    return (value if len(value) <= _LONGEST else value[:_LONGEST] + "…") or "(empty)"
