"""`dicomfs export`: write files of an archive to a real directory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option, json_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.querying import conditions, pattern_option
from dicomfs.cli.terminal import counted, note, size_text, write, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.outcome import Progress
    from dicomfs.archive.query import Query
    from dicomfs.export import ExportReport, FileResult


@click.command("export")
@archive_option
@click.option("--output", "-o", required=True, type=PATH, metavar="DIR", help="Where to write.")
@pattern_option("study-uid", "The studies of this Study Instance UID.")
@pattern_option("series-uid", "The series of this Series Instance UID.")
@pattern_option("patient-id", "The studies of this Patient ID.")
@click.option("--all", "everything", is_flag=True, help="The whole archive.")
@click.option(
    "--layout",
    default="patients",
    show_default=True,
    metavar="NAME",
    help="Which tree of the drive to write: patients, dicomweb, or a layout that is on.",
)
@click.option("--flatten", is_flag=True, help="All files in DIR itself, named by SOP Instance UID.")
@click.option("--verbose", "-v", is_flag=True, help="Tell of every file what became of it.")
@json_option
def export_command(
    *,
    archive: Path,
    output: Path,
    everything: bool,
    layout: str,
    flatten: bool,
    verbose: bool,
    as_json: bool,
    **options: str | None,
) -> int:
    """Write files of an archive to a directory, bit for bit.

    The directories and names are those of patients/ in a mounted drive, and so are the times. Each
    file is compared with its SHA-256 while it is written and appears under its name when it is whole.
    Nothing that is there already is overwritten: the same file counts as present, any other as
    failed. An export that was interrupted is completed by running it again.

    --layout dicomweb writes what the drive has below dicomweb/, for a web server or an object store:
    everything, or the studies that are found. Its documents change with the archive, so what differs in size or
    time is written anew there. --layout NAME with --all does the same for a layout of `dicomfs layout`.

    In a PATTERN, * stands for any text and ? for one character. Of several, all must be met.

    \b
    Examples:
      dicomfs export -a /srv/archive --study-uid 1.2.3 --output /media/usb
      dicomfs export --patient-id 4711 --output out --flatten
      dicomfs export --all --output /backup/plain
      dicomfs export --all --layout dicomweb --output /srv/www/dicomweb
      dicomfs export --all --layout icore --output /media/usb

    \b
    Exit status:
      0  every file is there
      1  a file failed, the disk is full, or nothing matched
    """
    if not everything and not any(options.values()):
        raise click.UsageError("say what to export: --study-uid, --series-uid, --patient-id or --all")
    if everything and any(value is not None for value in options.values()):
        raise click.UsageError("--all is the whole archive; leave it out to export a part")
    if layout != "patients" and flatten:
        raise click.UsageError("--flatten is for the files of patients/")
    if layout not in ("patients", "dicomweb") and not everything:
        raise click.UsageError(f"--layout {layout} takes --all: parts are written of patients and dicomweb alone")
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.query import Level, Query
    from dicomfs.cli.run import Interrupted

    query = Query(Level.INSTANCE, conditions(options))
    listener = _Listener(verbose=verbose, as_json=as_json)
    with Archive.open(archive) as opened:
        try:
            if layout == "patients":
                report = _export(opened, output, query, listener, flatten=flatten)
            else:
                report = _export_view(opened, output, layout, None if everything else query, listener)
        except KeyboardInterrupt:
            raise Interrupted("the files written are whole; run the same command again to go on") from None
    if as_json:
        _print_json(report, listener.kept)
    elif report.files or report.stopped:
        write(
            f"{counted(report.files, 'file')}: {report.written:,} written ({size_text(report.bytes_written)}),"
            f" {report.present:,} present, {report.failed:,} failed"
        )
    if report.stopped:
        note(f"stopped: {report.stopped}; once that is solved, run the same command again to go on")
    elif not report.files:
        note("nothing matches")
    return 0 if report.files and not report.failed and not report.stopped else 1


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


def _export(archive: Archive, output: Path, query: Query, listener: _Listener, *, flatten: bool) -> ExportReport:
    from dicomfs.export import export

    with progress_bar("exporting") as progress:
        hear = listener.hear if progress is None else _progressing(archive, query, listener, progress)
        return export(archive, output, query, flatten=flatten, on_result=hear)


def _export_view(archive: Archive, output: Path, view: str, query: Query | None, listener: _Listener) -> ExportReport:
    from dicomfs.archive.documents import directory_name
    from dicomfs.archive.query import Level, Query, matches
    from dicomfs.export_view import export_view, write_study_list

    only = None
    if query is not None:
        studies = matches(archive, Query(Level.STUDY, query.where))
        only = {directory_name(str(match.study.attributes["StudyInstanceUID"])) for match in studies}
    report = export_view(archive, output, view, only=only, on_result=listener.hear)
    if only is not None and not report.stopped:
        write_study_list(output, only)
    return report


def _progressing(
    archive: Archive, query: Query, listener: _Listener, progress: Callable[[Progress], None]
) -> Callable[[FileResult], None]:
    from dicomfs.archive.outcome import Progress
    from dicomfs.archive.query import Level, Query, matches

    total: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for match in matches(archive, Query(Level.SERIES, query.where)):
        assert match.series is not None
        total.update(files=match.series.instances, size=match.series.size)

    def hear(result: FileResult) -> None:
        listener.hear(result)
        done.update(files=1, size=result.size)
        progress(Progress(done["files"], total["files"], done["size"], total["size"]))

    return hear


def _print_json(report: ExportReport, kept: list[FileResult]) -> None:
    write_json(
        {
            "written": report.written,
            "present": report.present,
            "failed": report.failed,
            "bytes_written": report.bytes_written,
            "stopped": report.stopped,
            "files": [
                {"path": one.path, "outcome": one.outcome.value, "reason": one.reason, "size": one.size} for one in kept
            ],
        }
    )
