"""`dicomfs project`: what somebody chose, shown in a directory of its own, as it is or de-identified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option, json_option, wait_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, write, write_json, write_json_array, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dicomfs.archive.project_lists import ListQuery
    from dicomfs.archive.project_making import Done
    from dicomfs.archive.projects import Listed, Wanted
    from dicomfs.cli.terminal import Json

_JOBS = click.option("--jobs", type=click.IntRange(min=1), help="How many processes de-identify (default: one a CPU).")


@click.group("project", no_args_is_help=True)
def project_command() -> None:
    """Keep what somebody chose as a directory of the drive, at next to no cost of storage.

    A project lies in projects/ of every drive. One of identified instances, PHI_NAME_TIME/, shows the
    files of the archive themselves: hard links. A de-identified one, DeID_NAME_TIME/, shows files with
    headers of their own and the same pixel data, which is stored once. Beside the images lie tables, such as
    metadata.xlsx and linker.xlsx, which are made when somebody reads them.

    What is in a project stays as it is, whatever is imported later; not so in one that is made with --live.

    \b
    Examples:
      dicomfs project create chest -a /srv/archive --where Modality=CT --where BodyPartExamined=CHEST
      dicomfs project create study7 --from-list wanted.xlsx --deid basic,modified-dates
      dicomfs project list -a /srv/archive
    """


@project_command.command("create")
@click.argument("name")
@archive_option
@click.option(
    "--where",
    metavar="KEYWORD=PATTERN",
    multiple=True,
    help="A condition, as of `dicomfs query`. May be given more than once: all must be met.",
)
@click.option(
    "--from-list",
    "from_list",
    type=PATH,
    metavar="FILE",
    multiple=True,
    help="Take the studies that a table names (.csv or .xlsx): by accession number, or by patient ID and date.",
)
@click.option(
    "--date-window",
    "window_days",
    type=click.IntRange(min=0),
    default=0,
    metavar="DAYS",
    help="A date of the list stands for so many days before and after it, too.",
)
@click.option(
    "--deid",
    metavar="PROFILE",
    help="De-identify: 'basic', or with options, such as basic,modified-dates,clean-descriptors.",
)
@click.option("--live", is_flag=True, help="Go on with it: imports add what meets the conditions.")
@click.option(
    "--header",
    "headers",
    metavar="KEYWORD",
    multiple=True,
    help="List this attribute in header_extraction.xlsx. May be given more than once.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Only say how much it would be.")
@_JOBS
@wait_option
@json_option
def create_command(
    *,
    name: str,
    archive: Path,
    where: tuple[str, ...],
    from_list: tuple[Path, ...],
    window_days: int,
    deid: str | None,
    live: bool,
    headers: tuple[str, ...],
    dry_run: bool,
    jobs: int | None,
    wait_s: float,
    as_json: bool,
) -> int:
    """Make the project NAME of all instances that meet the conditions.

    NAME is made of letters, digits, '-' and '_'. With --deid, instances of which nothing may be shown
    (text burned into the pixels, kinds that cannot be judged, damage) are withheld: they lie in the
    project's quarantine/, each beside its reason. Pseudonyms and shifted dates follow from the project's key,
    which lies in ARCHIVE/projects/ and nowhere else: keep a copy of that directory in a safe place.

    The first row of a list, of a workbook's first sheet, names its columns: AccessionNumber, or PatientID with
    StudyDate, or with From and To; others are passed by. Write dates as 2024-01-31. Rows for which nothing is found
    are in failed_queries.csv; of a --live project, those for which nothing was found when it was made.

    If this is interrupted, run it again: it goes on where it was.

    \b
    Profiles (DICOM PS3.15, Annex E) are 'basic', and after it, each after a comma:
      modified-dates   dates of a patient are moved by one number of days; full-dates keeps them
      clean-descriptors, clean-structured-content, clean-graphics
      retain-patient-characteristics, retain-device, retain-institution, retain-uids,
      retain-safe-private

    \b
    Examples:
      dicomfs project create chest -a /srv/archive --where Modality=CT --where BodyPartExamined=CHEST
      dicomfs project create trial --where 'StudyDate=2023-2024' --deid basic,modified-dates --live
      dicomfs project create study7 --from-list wanted.xlsx --date-window 3 --deid basic
      dicomfs project create all --where 'PatientID=*' --deid basic --dry-run

    \b
    Exit status:
      0  all is in the project; what was withheld is told, and is no failure
      1  it could not be made to the end
      2  the request is wrong; the message says where and why
    """
    from dicomfs.archive.project_lists import read_queries, stored
    from dicomfs.archive.projects import Wanted, create
    from dicomfs.archive.query import parse_condition
    from dicomfs.cli.run import Interrupted

    if len(from_list) > 1:
        raise click.UsageError("a project has one list; put the rows of all --from-list into one table")
    if window_days and not from_list:
        raise click.UsageError("--date-window is about the dates of --from-list")
    if deid == "":  # of a script whose variable is not set: it must not make a project that is identified
        raise click.UsageError("--deid names a profile, such as basic; leave it out for the files as they are")
    queries = read_queries(from_list[0], window_days=window_days) if from_list else []
    wanted = Wanted(
        name=name,
        where=tuple(map(parse_condition, where)),
        live=live,
        deid=deid or "",
        headers=headers,
        source=from_list[0].name if from_list else "",
        queries=stored(queries),
    )
    if dry_run:
        return _preview(archive, wanted, queries, as_json=as_json)
    try:
        with progress_bar("de-identifying" if deid else "linking") as progress:
            done = create(archive, wanted, progress, listed=queries, jobs=jobs or 0, wait_s=wait_s)
    except KeyboardInterrupt:
        raise Interrupted("run the same command again to go on") from None
    _make_tables(archive, done)
    _tell(done, as_json=as_json)
    return 0


def _preview(archive: Path, wanted: Wanted, queries: list[ListQuery], *, as_json: bool) -> int:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.project_lists import resolve
    from dicomfs.archive.projects import preview

    with Archive.open(archive) as opened:
        found = preview(opened, wanted)
        failed = len(resolve(opened, queries).failed)
    if as_json:
        write_json(
            {
                "name": wanted.name,
                "studies": found.studies,
                "series": len(found.series),
                "instances": found.instances,
                "failed": failed,
            }
        )
    else:
        amounts = ", ".join(
            (
                counted(found.instances, "instance"),
                counted(len(found.series), "series", "series"),
                counted(found.studies, "study", "studies"),
            )
        )
        write(f"{wanted.name}: {amounts}{_failed(failed)} (nothing was changed)")
    return 0


def _failed(number: int) -> str:
    return f"; {counted(number, 'row')} of the list found nothing" if number else ""


def _make_tables(archive: Path, done: Done) -> None:
    """Have the tables of a project made, so that nobody waits for them who looks into it."""
    from dicomfs.archive.project_tables import make_all
    from dicomfs.errors import DicomfsError

    try:
        with progress_bar("writing tables") as progress:
            make_all(archive, done.state, progress)
    except (DicomfsError, KeyboardInterrupt) as error:
        # The project is made; a drive has its tables made again when somebody looks at them.
        note(f"dicomfs: its tables are not all written yet: {str(error) or 'interrupted'}")


def _tell(done: Done, *, as_json: bool) -> None:
    state = done.state
    if as_json:
        write_json(
            {
                "directory": f"projects/{state.directory}",
                "root": state.root,
                "added": done.added,
                "withheld": done.withheld,
                "failed": len(state.definition.failed),
            }
        )
        return
    amounts = f"{counted(done.added, 'file')} added"
    if done.withheld:
        amounts += f", {done.withheld:,} withheld (see quarantine/ in it)"
    failed = len(state.definition.failed)
    see = " (see failed_queries.csv in it)" if failed else ""
    write(f"projects/{state.directory}: {amounts}{_failed(failed)}{see}")


@project_command.command("list")
@archive_option
@json_option
def list_command(*, archive: Path, as_json: bool) -> None:
    """List the projects of an archive.

    `done` is finished, and stays as it is; `live` is gone on with by imports; `unfinished` was interrupted:
    `dicomfs project resume` goes on with it.

    \b
    Example:
      dicomfs project list -a /srv/archive
    """
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.projects import listed

    with Archive.open(archive) as opened:
        found = listed(opened)
    if as_json:
        write_json_array(_told(one) for one in found)
        return
    rows = [
        (one.state.directory, _status(one), one.state.definition.deid or "-", one.instances, one.withheld)
        for one in found
    ]
    write_table(("Directory", "Status", "De-identified", "Files", "Withheld"), rows)


def _status(one: Listed) -> str:
    if not one.state.through:
        return "unfinished"
    return "live" if one.state.definition.live else "done"


def _told(one: Listed) -> Mapping[str, Json]:
    from dicomfs.archive.project_lists import rows_of

    definition = one.state.definition
    return {
        "directory": one.state.directory,
        "name": definition.name,
        "status": _status(one),
        "created": definition.created,
        "where": [f"{keyword}={pattern}" for keyword, pattern in definition.where],
        "deid": definition.deid,
        "live": definition.live,
        "headers": [*definition.headers],
        "from_list": definition.source,
        "queries": rows_of(definition),
        "failed": len(definition.failed),
        "files": one.instances,
        "withheld": one.withheld,
        "root": one.state.root,
    }


@project_command.command("show")
@click.argument("name")
@archive_option
@json_option
def show_command(*, name: str, archive: Path, as_json: bool) -> None:
    """Tell what the project NAME was made of, and why instances are withheld from it.

    NAME is the project's, or that of its directory. Which instances are withheld is told by the
    project's quarantine/ in a drive.

    \b
    Example:
      dicomfs project show chest -a /srv/archive
    """
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.projects import find, listed, withheld

    with Archive.open(archive) as opened:
        found = listed(opened)
        state = find([one.state for one in found], name)
        reasons = withheld(opened, state.root)
    told = _told(next(one for one in found if one.state.root == state.root))
    if as_json:
        write_json({**told, "reasons": dict(reasons)})
        return
    for key, value in told.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if shown:
            write(f"{key.replace('_', ' ')}: {shown}")
    for reason, number in reasons.items():
        write(f"withheld, {number:,}: {reason}")


@project_command.command("resume")
@click.argument("name")
@archive_option
@_JOBS
@wait_option
@json_option
def resume_command(*, name: str, archive: Path, jobs: int | None, wait_s: float, as_json: bool) -> None:
    """Go on with the project NAME, which was interrupted, or is live and lacks something.

    \b
    Example:
      dicomfs project resume DeID_trial_20240215143025 -a /srv/archive
    """
    from dicomfs.archive.projects import resume
    from dicomfs.cli.run import Interrupted

    try:
        with progress_bar("going on") as progress:
            done = resume(archive, name, progress, jobs=jobs or 0, wait_s=wait_s)
    except KeyboardInterrupt:
        raise Interrupted("run the same command again to go on") from None
    _make_tables(archive, done)
    _tell(done, as_json=as_json)


@project_command.command("remove")
@click.argument("name")
@archive_option
@click.option(
    "--forget-key",
    is_flag=True,
    help="Also remove the key of its pseudonyms. The packs still tell what was made of what.",
)
@wait_option
def remove_command(*, name: str, archive: Path, forget_key: bool, wait_s: float) -> None:
    """Remove the project NAME from all drives, for good; no file of the archive is touched.

    What was derived for it stays in the packs, which are never changed. Its key stays in
    ARCHIVE/projects/, so that who has got pseudonyms can still be told, unless it is to be forgotten.

    \b
    Example:
      dicomfs project remove chest -a /srv/archive
    """
    from dicomfs.archive.projects import remove

    write(f"projects/{remove(archive, name, forget_key=forget_key, wait_s=wait_s).directory}: removed")
