"""`dicomfs layout`: the trees that an archive is shown as."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option, json_option, wait_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, write, write_json, write_json_array, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.by_layout import LayoutState

_FILE = click.option(
    "--file",
    "-f",
    "file",
    type=PATH,
    metavar="FILE",
    help="Read the template from a file, all its lines as one; those that begin with # are left out.",
)


@click.group("layout", no_args_is_help=True)
def layout_command() -> None:
    """Show an archive as further trees, at no cost of storage.

    A layout is a template of paths. Each that is switched on is a directory of the drive, in which every file has
    a name of its own; they are hard links of one another. Names are given once and never change: neither by
    later imports nor by a rebuild of the index.

    The template, one component of the path after another:

    \b
      {Keyword}            an attribute of the catalog; {PatientName.family_name} a part of a name
      {A|B|'text'}         the first that has a value
      {A:format}           dates %Y %m %d, times %H %M %S, numbers 05d, text .12 (cut off)
      {A!conversion}       upper, lower, plain (special characters become underscores), ctp, uid
      {A='CT'?B|C}         B where A is CT, else C; also A!='CT'? and A? (A has a value);
                           patterns are those of `dicomfs query`
      {n} {n:04d}          counts the entries of a directory, in the order of slices and of imports
      {patient} {study} {series}   no text, but a directory for each of them
      {client:demd}        the patient ID where it is four letters and a number, or such a name
      {{ and }}            braces

    A missing value disappears with the separator before it. What two files or directories would both be
    called gets ~ and some letters of a hash, for the later one.

    \b
    The attributes of the catalog:
      PatientID IssuerOfPatientID PatientName PatientBirthDate PatientSex StudyInstanceUID
      StudyDate StudyTime AccessionNumber StudyID StudyDescription ReferringPhysicianName
      SeriesInstanceUID SeriesNumber Modality SeriesDescription ProtocolName
      BodyPartExamined Manufacturer StationName PerformedProcedureStepStartDate
      PerformedProcedureStepStartTime SOPInstanceUID SOPClassUID TransferSyntaxUID
      InstanceNumber NumberOfFrames Rows Columns BitsAllocated ContentDate ContentTime

    \b
    Examples:
      dicomfs layout list -a /srv/archive
      dicomfs layout preview icore -a /srv/archive
      dicomfs layout add icore -a /srv/archive
      dicomfs layout add dates '{StudyDate:%Y}/{StudyDate:%m}/{Modality}/{SOPInstanceUID}.dcm'
    """


@layout_command.command("list")
@archive_option
@json_option
def list_command(*, archive: Path, as_json: bool) -> None:
    """List the layouts of an archive, and those that come with dicomfs.

    `on` are shown by drives; `off` were taken off, and have the same names if they are switched on
    again; `applying` lack some instances until `dicomfs layout add` is run again.

    \b
    Example:
      dicomfs layout list -a /srv/archive
    """
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.built_in_layouts import built_in
    from dicomfs.archive.layouts import layouts_of

    with Archive.open(archive) as opened:
        states = layouts_of(opened)
    rows = [("patients", "on", built_in()["patients"])]
    rows += [(state.name, _status(state), state.template) for state in states]
    known = {name for name, _, _ in rows}
    rows += [(name, "available", template) for name, template in built_in().items() if name not in known]
    if as_json:
        write_json_array({"name": name, "status": status, "template": template} for name, status, template in rows)
    else:
        write_table(("Layout", "Status", "Template"), rows)


def _status(state: LayoutState) -> str:
    if not state.on:
        return "off"
    return "on" if state.through else "applying"


@layout_command.command("show")
@click.argument("name")
@archive_option
@json_option
def show_command(*, name: str, archive: Path, as_json: bool) -> None:
    """Print the template of the layout NAME.

    \b
    Example:
      dicomfs layout show icore -a /srv/archive
    """
    template = _template_named(archive, name)
    if as_json:
        write_json({"name": name, "template": template})
    else:
        write(template)


@layout_command.command("add")
@click.argument("name")
@click.argument("template", required=False)
@_FILE
@click.option("--prefix", metavar="LETTERS", help="Four letters with which the names of {client} begin.")
@archive_option
@wait_option
@json_option
def add_command(
    *,
    name: str,
    template: str | None,
    file: Path | None,
    prefix: str | None,
    archive: Path,
    wait_s: float,
    as_json: bool,
) -> None:
    """Switch the layout NAME on, and give every file of the archive its name in it.

    Without TEMPLATE, NAME is one of the layouts that come with dicomfs, or one that was taken off. Drives
    that are mounted show it within a second, unless they were told which views to show. If this is
    interrupted, run it again: it goes on where it was. Imports give names to what they bring.

    The layout `omidb` is that of OMI-DB. --prefix says what its clients are called; the Python package of that name
    looks for optm and demd by itself, for others when it is told.

    \b
    Examples:
      dicomfs layout add icore -a /srv/archive
      dicomfs layout add omidb --prefix optm
      dicomfs layout add dates '{StudyDate:%Y}/{StudyDate:%m}/{Modality}/{SOPInstanceUID}.dcm'
      dicomfs layout add mine --file mine.layout

    \b
    Exit status:
      0  every file has its name
      2  the template is wrong; the message says where and why
    """
    from dicomfs.archive.clients import with_prefix
    from dicomfs.archive.layouts import switch_on
    from dicomfs.cli.run import Interrupted

    text = _template(archive, template, file, name)
    if prefix is not None:
        text = with_prefix(text, prefix)
    try:
        with progress_bar("placing") as progress:
            applied = switch_on(archive, name, text, progress, wait_s=wait_s)
    except KeyboardInterrupt:
        raise Interrupted("run the same command again to go on") from None
    if as_json:
        write_json({"name": applied.name, "template": text, "placed": applied.instances})
    else:
        write(f"{applied.name}: on, {counted(applied.instances, 'file')} placed")


@layout_command.command("remove")
@click.argument("name")
@archive_option
@wait_option
def remove_command(*, name: str, archive: Path, wait_s: float) -> None:
    """Take the layout NAME off; no file is touched.

    Drives show it no longer. The archive remembers its names, which take some space in the index: if it is
    switched on again with the same template, every file has the name that it had.

    \b
    Example:
      dicomfs layout remove icore -a /srv/archive
    """
    from dicomfs.archive.layouts import switch_off

    write(f"{switch_off(archive, name, wait_s=wait_s).name}: off")


@layout_command.command("preview")
@click.argument("template", required=False)
@_FILE
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many files to show.")
@click.option(
    "--of-series", type=click.IntRange(min=1), default=2, show_default=True, help="How many files of each series."
)
@archive_option
@json_option
def preview_command(
    *, template: str | None, file: Path | None, limit: int, of_series: int, archive: Path, as_json: bool
) -> None:
    """Show what some files would be called by TEMPLATE, or by the layout of that name; change nothing.

    Suffixes and counters are those of the files that are shown.

    \b
    Examples:
      dicomfs layout preview icore -a /srv/archive
      dicomfs layout preview '{Modality}/{StudyDate:%Y}/{SOPInstanceUID}.dcm' --json
    """
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.layout import Layout
    from dicomfs.archive.previewing import preview

    if template is None and file is None:
        raise click.UsageError("name a layout, or give a template or --file")
    is_name = template is not None and not set("{}/%").intersection(template)
    text = _template_named(archive, template or "") if is_name else _template(archive, template, file, "")
    layout = Layout.parse(text)
    shown = 0
    with Archive.open(archive) as opened:
        found = preview(opened, layout, limit=limit, of_series=of_series)
        if as_json:
            write_json_array({"path": one.path, "patients": one.current, "ino": one.ino} for one in found)
            return
        for shown, one in enumerate(found, 1):  # noqa: B007 - counted
            write(one.path)
    if not shown:
        note("the archive holds no files")


def _template(archive: Path, template: str | None, file: Path | None, name: str) -> str:
    """Return the template that was given, or that of a layout of this name."""
    from dicomfs.archive.built_in_layouts import read

    if template is not None and file is not None:
        raise click.UsageError("give a template or --file, not both")
    if file is not None:
        return read(file)
    return _template_named(archive, name) if template is None else template


def _template_named(archive: Path, name: str) -> str:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.built_in_layouts import built_in
    from dicomfs.archive.layouts import layouts_of
    from dicomfs.errors import UsageError

    with Archive.open(archive) as opened:
        states = sorted(layouts_of(opened), key=lambda state: state.on)
    # Of several that were called so, the one that is on, else the last.
    known = built_in() | {state.name: state.template for state in states}
    if name not in known:
        raise UsageError(f"there is no layout '{name}'; there are {', '.join(known)}, or give a template")
    return known[name]
