"""`dicomfs export`: write files of an archive to a real directory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from dicomfs.cli.ending import tidily_ended
from dicomfs.cli.opening import open_archive
from dicomfs.cli.options import PATH, archive_option, as_of_option, json_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.querying import conditions, pattern_option
from dicomfs.cli.terminal import counted, note, size_text, write, write_json
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.outcome import Progress
    from dicomfs.archive.query import Query
    from dicomfs.export import ExportReport, FileResult


@click.command("export")
@archive_option
@as_of_option
@click.option("--output", "-o", type=PATH, metavar="DIR", help="The directory to write to.")
@click.option("--zip", "target", type=PATH, metavar="FILE", help="Write one ZIP file instead.")
@pattern_option("study-uid", "The studies of this Study Instance UID.")
@pattern_option("series-uid", "The series of this Series Instance UID.")
@pattern_option("patient-id", "The studies of this Patient ID.")
@click.option("--all", "everything", is_flag=True, help="The whole archive.")
@click.option(
    "--layout",
    default="patients",
    show_default=True,
    metavar="NAME",
    help="Which tree of the drive to write: patients, dicomweb, a layout that is on, or a directory in one of them.",
)
@click.option("--project", metavar="NAME", help="A project, by its name or directory: its whole directory.")
@click.option(
    "--private-tables",
    is_flag=True,
    help="With what a de-identified project keeps private: who is who, and quarantine.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["part10", "static-dicomweb"]),
    default="part10",
    show_default=True,
    help="What to write: files of the drive, or a tree for static-wado's tools.",
)
@click.option("--flatten", is_flag=True, help="No directories: all files are named by SOP Instance UID.")
@click.option(
    "--manifest", is_flag=True, help="Add manifest.sha256, the hashes of all files; a ZIP file always has it."
)
@click.option("--verbose", "-v", is_flag=True, help="Tell of every file what became of it.")
@json_option
@tidily_ended
def export_command(
    *,
    archive: Path,
    as_of: str | None,
    output: Path | None,
    target: Path | None,
    everything: bool,
    layout: str,
    project: str | None,
    private_tables: bool,
    form: str,
    flatten: bool,
    manifest: bool,
    verbose: bool,
    as_json: bool,
    **options: str | None,
) -> int:
    """Write files of an archive to a directory or to a ZIP file, bit for bit.

    The directories and names are those of patients/ in a mounted drive, and so are the times. Each
    file is compared with its SHA-256 while it is written and appears under its name when it is whole.
    Nothing that is there already is overwritten: the same file counts as present, any other as
    failed. An export that was interrupted is completed by running it again.

    --layout dicomweb writes what the drive has below dicomweb/, for a web server or an object store:
    everything, or the studies that are found. Its documents change with the archive, so what differs in size or
    time is written anew there. --layout NAME with --all does the same for a layout of `dicomfs layout`, and
    --layout patients/NAME for one directory.

    --format static-dicomweb writes the studies that are found as static-wado (RadicalImaging's Static-DICOMweb) has
    them: frames, metadata, queries, thumbnails, and the deduplicated lists with its hashes. Written to the same
    directory again, it brings that up to date: what differs is written anew, what the archive has no more is removed,
    superseded lists 24 hours later. Studies there that another archive or program wrote are left alone.

    --project writes the directory of a project, as the drive has it below projects/. What a de-identified project keeps
    private is left out, so that it can be handed over; --private-tables writes it too, readable by you alone.

    --manifest adds manifest.sha256, which `sha256sum -c manifest.sha256` reads: the SHA-256 of every file that is
    there, also of those that were present. What it says of files of earlier exports stays.

    --zip writes one file of any size, its entries stored as they are, with their times in UTC, and the manifest as
    the last one. It appears when it is whole and on the disk, is never written over another file, and is the same,
    byte for byte, whenever it is made of the same files with the same times.

    --as-of writes what there was at a time, after the last commit by then, as a drive mounted with
    --as-of shows it. An earlier state that nobody asked for before takes some time in a large archive.

    In a PATTERN, * stands for any text and ? for one character. Of several, all must be met.

    \b
    Examples:
      dicomfs export -a /srv/archive --study-uid 1.2.3 --output /media/usb
      dicomfs export --patient-id 4711 --output out --flatten
      dicomfs export --all --output /backup/plain
      dicomfs export --all --as-of 2026-01-31T12:00:00Z --output /backup/january
      dicomfs export --all --layout dicomweb --output /srv/www/dicomweb
      dicomfs export --all --format static-dicomweb --output /srv/dicomweb
      dicomfs export --all --layout icore --output /media/usb --manifest
      dicomfs export --study-uid 1.2.3 --zip study.zip
      dicomfs export --project heads --zip heads.zip
      dicomfs export --all --layout patients/4711_Doe_Jane --zip 4711.zip

    \b
    Exit status:
      0  every file is there
      1  a file failed, the disk is full, or nothing matched
    """
    if project is not None:
        if everything or any(options.values()) or layout != "patients" or flatten:
            raise click.UsageError("--project is all of a project; leave out what else says what to export, or how")
    elif not everything and not any(options.values()):
        raise click.UsageError("say what to export: --study-uid, --series-uid, --patient-id, --project or --all")
    if everything and any(value is not None for value in options.values()):
        raise click.UsageError("--all is the whole archive; leave it out to export a part")
    if layout != "patients" and flatten:
        raise click.UsageError("--flatten is for the files of patients/")
    if private_tables and project is None and layout.partition("/")[0] != "projects":
        raise click.UsageError("--private-tables is for projects")
    if layout not in ("patients", "dicomweb") and not everything:
        raise click.UsageError(f"--layout {layout} takes --all: parts are written of patients and dicomweb alone")
    if form != "part10" and (project is not None or layout != "patients" or flatten or manifest or target):
        raise click.UsageError(
            f"--format {form} takes --output, --all, --study-uid, --series-uid and --patient-id, and writes a tree of"
            " its own: leave out --project, --layout, --flatten, --manifest and --zip"
        )
    if (output is None) == (target is None):
        raise click.UsageError("say where to write: --output DIR or --zip FILE")
    from dicomfs.archive.query import Level, Query
    from dicomfs.cli.run import Interrupted

    where = _Where(output, target, manifest=manifest, private_tables=private_tables)
    query = Query(Level.INSTANCE, conditions(options))
    listener = _Listener(verbose=verbose, as_json=as_json)
    with open_archive(archive, as_of) as opened:
        try:
            if form != "part10":
                report = _export_static(opened, where, query, listener)
            elif project is not None:
                report = _export_view(opened, where, _project(opened, project), None, listener)
            elif layout == "patients":
                report = _export(opened, where, query, listener, flatten=flatten)
            else:
                report = _export_view(opened, where, layout, None if everything else query, listener)
        except KeyboardInterrupt:
            gone = "the files written are whole; run the same command again to go on"
            raise Interrupted("no ZIP file was written" if target else gone) from None
    if as_json:
        _print_json(report, listener.kept)
    elif report.files or report.removed or report.stopped:
        write(
            f"{counted(report.files, 'file')}: {report.written:,} written ({size_text(report.bytes_written)}),"
            f" {report.present:,} present, {report.failed:,} failed"
            + (f", {report.removed:,} removed" if report.removed else "")
        )
    if report.stopped:
        note(f"stopped: {report.stopped}; once that is solved, run the same command again to go on")
    elif not report.files and not report.removed:
        note("nothing matches")
    return 0 if report.files and not report.failed and not report.stopped else 1


class _Where(NamedTuple):
    """Where an export goes: to a directory, or to a ZIP file."""

    output: Path | None
    target: Path | None
    manifest: bool
    private_tables: bool


class _Listener:
    """Hears of every file: tells a person at once, or keeps it for JSON."""

    def __init__(self, *, verbose: bool, as_json: bool) -> None:
        self.kept: list[FileResult] = []
        self._verbose = verbose
        self._as_json = as_json

    def hear(self, result: FileResult) -> None:
        """Take in what became of one file."""
        if not self._verbose and result.outcome.value != "failed":
            return
        if self._as_json:
            self.kept.append(result)
        else:
            note(f"{result.outcome}: {result.path}" + (f": {result.reason}" if result.reason else ""))


def _export(archive: Archive, where: _Where, query: Query, listener: _Listener, *, flatten: bool) -> ExportReport:
    with progress_bar("exporting") as progress:
        hear = listener.hear if progress is None else _progressing(listener, progress, *_found(archive, query))
        if where.target:
            from dicomfs.export_zip import zip_files

            return zip_files(archive, where.target, query, flatten=flatten, on_result=hear)
        from dicomfs.export import export

        assert where.output is not None
        return export(archive, where.output, query, flatten=flatten, manifest=where.manifest, on_result=hear)


def _project(archive: Archive, name: str) -> str:
    """Return the view of the project with this name or directory."""
    from dicomfs.archive import projects
    from dicomfs.vfs.views import ONE_PROJECT

    with archive.view() as view:
        state = projects.find(view.projects(), name)
    if not state.through:
        raise UsageError(f"the project '{state.directory}' is not finished; go on with 'dicomfs project resume {name}'")
    return ONE_PROJECT + state.directory


def _export_view(archive: Archive, where: _Where, view: str, query: Query | None, listener: _Listener) -> ExportReport:
    from dicomfs.archive.documents import directory_name
    from dicomfs.archive.query import Level, Query, matches

    only = None
    if query is not None:
        studies = matches(archive, Query(Level.STUDY, query.where))
        only = {directory_name(str(match.study.attributes["StudyInstanceUID"])) for match in studies}
    with progress_bar("exporting") as progress:
        hear = listener.hear if progress is None else _progressing(listener, progress, *_shown(archive, view))
        if where.target:
            from dicomfs.export_zip import zip_view

            return zip_view(archive, where.target, view, only=only, private_tables=where.private_tables, on_result=hear)
        from dicomfs.export_view import export_view

        assert where.output is not None
        return export_view(
            archive, where.output, view,
            only=only, manifest=where.manifest, private_tables=where.private_tables, on_result=hear,
        )  # fmt: skip


def _export_static(archive: Archive, where: _Where, query: Query, listener: _Listener) -> ExportReport:
    from dicomfs.export_static import export_static

    assert where.output is not None
    with progress_bar("exporting") as progress:
        hear = listener.hear if progress is None else _progressing(listener, progress, 0, 0)
        return export_static(archive, where.output, query, on_result=hear)


def _found(archive: Archive, query: Query) -> tuple[int, int]:
    """Return how many files and bytes a query finds, more or less: whole series are counted."""
    from dicomfs.archive.query import Level, Query, matches

    files = size = 0
    for match in matches(archive, Query(Level.SERIES, query.where)):
        assert match.series is not None
        files += match.series.instances
        size += match.series.size
    return files, size


def _shown(archive: Archive, view: str) -> tuple[int, int]:
    """Return how many files and bytes a view has, more or less; 0 where only a walk would tell."""
    with archive.view() as opened:
        if view in {state.name for state in opened.layouts()}:
            totals = opened.totals()
            return totals.shown, totals.shown_bytes
    return 0, 0


def _progressing(
    listener: _Listener, progress: Callable[[Progress], None], files: int, size: int
) -> Callable[[FileResult], None]:
    from dicomfs.archive.outcome import Progress

    done: Counter[str] = Counter()

    def hear(result: FileResult) -> None:
        listener.hear(result)
        done.update(files=1, size=result.size)
        progress(Progress(done["files"], files, done["size"], size))

    return hear


def _print_json(report: ExportReport, kept: list[FileResult]) -> None:
    write_json(
        {
            "written": report.written,
            "present": report.present,
            "failed": report.failed,
            "removed": report.removed,
            "bytes_written": report.bytes_written,
            "stopped": report.stopped,
            "files": [
                {"path": one.path, "outcome": one.outcome.value, "reason": one.reason, "size": one.size} for one in kept
            ],
        }
    )
