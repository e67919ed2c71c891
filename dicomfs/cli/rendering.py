"""`dicomfs render`: make documents and pictures before anybody asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import archive_option, json_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, note, write, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.rendering import RenderReport

_TOLD = 20


@click.command("render")
@archive_option
@click.option("--study-uid", metavar="UID", help="Only the study of this Study Instance UID.")
@click.option("--rendered", is_flag=True, help="Also a PNG of every frame, as large as the frame.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="How many processes work (default: all cores).")
@json_option
def render_command(*, archive: Path, study_uid: str | None, rendered: bool, jobs: int | None, as_json: bool) -> int:
    """Make the documents and thumbnails of dicomweb/ before anybody asks for them.

    A drive makes them when they are first read, and keeps them in ARCHIVE/cache; this makes them all, so
    that the first viewer does not wait. What is there already stays. What cannot be shown, as its
    codestream is broken or takes too long, has a picture that says so. ARCHIVE/cache may be deleted
    at any time.

    --rendered takes the room of all frames uncompressed, at 8 bits for each sample.

    \b
    Examples:
      dicomfs render -a /srv/archive
      dicomfs render --study-uid 1.2.3 --rendered --json

    \b
    Exit status:
      0  everything is there
      1  something could not be made, there is no such study, or the disk is full
      130  interrupted by Ctrl-C; run the same command again to go on
    """
    from dicomfs.archive.rendering import render
    from dicomfs.cli.run import Interrupted

    try:
        with progress_bar("rendering") as progress:
            report = render(archive, study_uid=study_uid, rendered=rendered, jobs=jobs or 0, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted("what was made is kept; run the same command again to go on") from None
    if as_json:
        _print_json(report)
    else:
        _print(report)
    return 1 if report.failed else 0


def _print(report: RenderReport) -> None:
    for line in report.failures[:_TOLD]:
        note(line)
    if report.failed > _TOLD:
        note(f"and {report.failed - _TOLD:,} more")
    line = f"{counted(report.documents, 'document')}, {counted(report.pictures, 'picture')}: {report.made:,} made"
    failed = f", {report.failed:,} failed" if report.failed else ""
    present = report.documents + report.pictures - report.made - report.failed
    write(f"{line}, {present:,} present{failed}, {report.seconds:.1f} s")


def _print_json(report: RenderReport) -> None:
    write_json(
        {
            "complete": not report.failed,
            "documents": report.documents,
            "pictures": report.pictures,
            "made": report.made,
            "present": report.documents + report.pictures - report.made - report.failed,
            "failed": report.failed,
            "failures": report.failures,
            "seconds": round(report.seconds, 3),
        }
    )
