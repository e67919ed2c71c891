"""`dicomfs import`: bring DICOM files into an archive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option, json_option, wait_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, size_text, write, write_json
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dicomfs.archive.outcome import FileResult, ImportReport, Outcome
    from dicomfs.archive.results import OnConflict
    from dicomfs.cli.terminal import Json

_TOLD = 20
_KILLED = 128
"""What shells add to the number of the signal that ended a command."""


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="PATHS…")
@archive_option
@click.option(
    "--recursive/--no-recursive", default=True, show_default=True, help="Also the directories in directories."
)
@click.option(
    "--on-conflict",
    type=click.Choice(["keep", "replace", "skip", "error"]),
    help="What to do with another file of a SOP Instance UID that is there already (default: keep).",
)
@click.option(
    "--skip-duplicates", is_flag=True, help="The same as --on-conflict skip; equal files are never imported twice."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["dicom", "static-dicomweb"]),
    default="dicom",
    show_default=True,
    help="What the paths hold: DICOM files, or roots of static DICOMweb trees.",
)
@click.option(
    "--restore-deleted", is_flag=True, help="Take in again what was deleted from the archive and is among the files."
)
@click.option("--dry-run", "-n", is_flag=True, help="Tell what would become of each file, and change nothing.")
@click.option(
    "--jobs", "-j", type=click.IntRange(min=1), help="How many processes read and compress (default: all cores)."
)
@wait_option
@click.option("--verbose", "-v", is_flag=True, help="Tell of every file what became of it.")
@json_option
def import_command(
    *,
    paths: tuple[Path, ...],
    archive: Path,
    recursive: bool,
    on_conflict: OnConflict | None,
    skip_duplicates: bool,
    form: str,
    restore_deleted: bool,
    dry_run: bool,
    jobs: int | None,
    wait_s: float,
    verbose: bool,
    as_json: bool,
) -> int:
    """Import DICOM files, and the DICOM files in directories, into an archive.

    Files may have any name. Each is proved to read back bit for bit before it counts as imported, and
    what is imported stays, whatever happens next: an import that was interrupted goes on when it is
    run again. Equal files are kept once.

    \b
    Each file ends as one of:
      imported     it is in the archive now
      present      the same bytes were there already
      conflict     other bytes of the same SOP Instance UID are there, see --on-conflict:
                   keep     both stay readable, the new one with ~hash in its name
                   replace  the new one takes the place, the old one is kept as an earlier version
                   skip     the new one is not imported
                   error    the new one is not imported, and the import counts as incomplete
      quarantined  it is DICOM, but cut off or without the UIDs that an archive needs;
                   its bytes and the reason are kept in ARCHIVE/quarantine
      skipped      it is not DICOM, or a DICOMDIR
      failed       it could not be read
      deleted      it was deleted from the archive before (dicomfs delete), and is kept out, unless
                   --restore-deleted brings it back

    ARCHIVE/runs/<time>/ has a table of all of them.

    With --format static-dicomweb the paths are directories as static-wado-creator, create-dicomweb and `dicomfs export`
    write them. Files are built of metadata and frames, and say that they were rebuilt; where a tree keeps the original
    file, that is imported. Text and values that those programs write wrongly are put right where that is certain. An
    instance whose pixels they lost is refused, and so counts as failed; one that was rejected there is skipped.

    \b
    Examples:
      dicomfs import -a /srv/archive /media/cdrom scan.dcm
      dicomfs import --format static-dicomweb /srv/dicomweb
      dicomfs import --on-conflict error --json /data/new
      find /pool -newer stamp -type f -print0 | xargs -0 dicomfs import

    \b
    Exit status:
      0  every file is in the archive; files in directories that are not DICOM do not count
      1  a file was quarantined, failed, was deleted before, was kept out as a conflict by `error`, or
         was named itself and is not DICOM; or the import had to stop
      130, 143  interrupted by Ctrl-C or SIGTERM; what is told as imported is in the archive
    """
    _refuse_archives(paths)
    if skip_duplicates and on_conflict not in (None, "skip"):
        raise click.UsageError(f"--skip-duplicates contradicts --on-conflict {on_conflict}")
    from dicomfs.archive.ingest import ImportOptions, import_paths
    from dicomfs.cli.run import Interrupted

    options = ImportOptions(
        restore_deleted=restore_deleted,
        on_conflict="skip" if skip_duplicates else on_conflict or "keep",
        recursive=recursive,
        jobs=jobs,
        dry_run=dry_run,
        wait_s=wait_s,
        static_dicomweb=form == "static-dicomweb",
    )
    listener = _Listener(options.on_conflict, verbose=verbose, as_json=as_json)
    try:
        with progress_bar("checking" if dry_run else "importing") as progress:
            report = import_paths(archive, list(paths), options, progress=progress, on_result=listener.hear)
    except KeyboardInterrupt:
        raise Interrupted("what was committed is safe; run the same command again to go on") from None
    if as_json:
        write_json(_json(report, listener.kept))
    else:
        listener.finish(report)
        _print(report, dry_run=dry_run)
    if report.interrupted:
        return _KILLED + report.interrupted
    return 0 if report.complete else 1


def _refuse_archives(paths: Iterable[Path]) -> None:
    """Refuse archives as inputs: their packs are no DICOM files, which would look like an empty disk."""
    for path in paths:
        if os.path.isfile(path / "dicomfs.toml"):
            raise UsageError(f"{path}: is a dicomfs archive; mount it, or export from it, and import the files there")


class _Listener:
    """Hears of every file: tells a person at once of what needs attention, or keeps it for JSON."""

    def __init__(self, on_conflict: OnConflict, *, verbose: bool, as_json: bool) -> None:
        self.kept: list[FileResult] = []
        self._on_conflict = on_conflict
        self._verbose = verbose
        self._as_json = as_json
        self._told = 0
        self._untold = 0

    def hear(self, result: FileResult) -> None:
        """Take in what became of one file."""
        if not self._verbose and not self._needs_attention(result):
            return
        if self._as_json:
            self.kept.append(result)
        elif self._verbose or self._told < _TOLD:
            self._told += 1
            reason = f": {result.told}" if result.told else ""
            note(f"{result.outcome}: {result.source}{reason}")
        else:
            self._untold += 1

    def _needs_attention(self, result: FileResult) -> bool:
        from dicomfs.archive.outcome import Outcome
        from dicomfs.archive.results import NOT_READ

        if result.reason == NOT_READ:
            return False  # the sums and the last line tell of all that come after a stop
        if result.outcome is Outcome.SKIPPED:
            return result.explicit
        if result.outcome is Outcome.CONFLICT:
            return self._on_conflict != "skip"
        return result.outcome in (Outcome.QUARANTINED, Outcome.FAILED)

    def finish(self, report: ImportReport) -> None:
        """Say how many were not told, and where they are."""
        if self._untold:
            where = f"; see {report.run_directory}" if report.run_directory else "; --verbose tells all"
            note(f"and {self._untold:,} more{where}")


def _json(report: ImportReport, kept: list[FileResult]) -> Json:
    from dicomfs.archive.outcome import Outcome

    return {
        "complete": report.complete,
        **{outcome.value: report.outcomes[outcome] for outcome in Outcome},
        "bytes_in": report.bytes_in,
        "bytes_stored": report.bytes_stored,
        "seconds": round(report.seconds, 3),
        "run_directory": str(report.run_directory) if report.run_directory else None,
        "stopped": report.stopped,
        "interrupted": report.interrupted,
        "warnings": [*report.warnings],
        "remarks": dict(report.remarks),
        "files": [
            {
                "source": result.source,
                "outcome": result.outcome.value,
                "reason": result.told,
                "size": result.size,
                "sha256": result.sha256,
                "SOPInstanceUID": result.sop_instance_uid,
            }
            for result in kept
        ],
    }


def _print(report: ImportReport, *, dry_run: bool) -> None:
    from dicomfs.archive.outcome import Outcome

    parts = [_part(outcome, report.outcomes[outcome]) for outcome in Outcome if report.outcomes[outcome]]
    line = f"{counted(sum(report.outcomes.values()), 'file')}: {', '.join(parts) or 'nothing to do'}"
    if dry_run:
        write(f"{line} (nothing was changed)")
    else:
        rate = f" at {size_text(int(report.bytes_in / report.seconds))}/s" if report.seconds and report.bytes_in else ""
        stored = f"{size_text(report.bytes_in)} in, {size_text(report.bytes_stored)} stored"
        write(f"{line}; {stored}, {report.seconds:.1f} s{rate}")
    for remark, number in report.remarks.most_common():
        write(f"{number:,} times: {remark}")
    if report.outcomes[Outcome.DELETED]:
        note("deleted: these had been deleted from the archive, and are kept out; --restore-deleted brings them back")
    for warning in report.warnings:
        note(warning)
    if report.interrupted:
        note("interrupted; run the same command again to go on")
    elif report.stopped:
        note(f"stopped: {report.stopped}")


def _part(outcome: Outcome, number: int) -> str:
    return counted(number, "conflict") if outcome.value == "conflict" else f"{number:,} {outcome.value}"
