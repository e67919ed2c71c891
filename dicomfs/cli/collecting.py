"""`dicomfs gc`: free what nobody needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import archive_option, json_option, wait_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, size_text, write, write_json
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.gc import GcReport

_AGE = re.compile(r"(\d+)([hdw])", re.IGNORECASE | re.ASCII).fullmatch
_HOUR_NS = 3600 * 10**9
_NS = {"h": _HOUR_NS, "d": 24 * _HOUR_NS, "w": 7 * 24 * _HOUR_NS}
_MOST_DIGITS = 9
_SAMPLE = "2026-01-31T12:00:00Z"


@click.command("gc")
@archive_option
@click.option(
    "--forget-older-than",
    "older_than",
    metavar="AGE",
    help="Also forget versions that were replaced or deleted before: 36h, 90d, 12w, or a time as --as-of takes it.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Only tell what would be freed.")
@wait_option
@json_option
def gc_command(*, archive: Path, older_than: str | None, dry_run: bool, wait_s: float, as_json: bool) -> int:
    """Free what nobody needs: merge small packs, drop what belongs to nothing, tidy the cache.

    Small packs become few, blobs that belong to no file (an import was interrupted, or a damaged
    copy was replaced) are dropped, and so is what the cache holds of earlier states and is older
    than a day. Every version of every file stays, with its names, numbers and bytes.

    What is copied is proved first, by its SHA-256. The archive may be in use: drives that are
    mounted go on, with the files that are open in them. Packs are written before others are
    removed, so room is needed for a while; whatever happens in between, nothing is lost.

    --forget-older-than takes versions out of the archive for good, with their headers and with the
    pixels that nothing else needs: those that were replaced or deleted before then, unless a project
    still shows them or a file that was made of them. They cannot be restored, and the archive cannot
    be seen as it was before that time any more, and where a drive or an export (--as-of) shows it so
    just now, nothing is done. Whoever did what stays in the history, and so does
    what patients, studies, series and directories are called. An instance that was deleted is still
    known, and refused when it arrives again. Copies of the archive made before hold everything.

    \b
    Examples:
      dicomfs gc -a /srv/archive --dry-run
      dicomfs gc -a /srv/archive
      dicomfs gc -a /srv/archive --forget-older-than 90d
      dicomfs gc -a /srv/archive --forget-older-than 2026-01-31T12:00:00Z
      dicomfs gc --json | jq .bytes_freed

    \b
    Exit status:
      0  done, or there was nothing to do
      1  the disk is full, another process is writing, or what would be forgotten is shown
      3  something that would have to be copied is damaged; nothing was changed
    """
    from dicomfs.archive.gc import collect
    from dicomfs.cli.run import Interrupted

    limit_ns = None if older_than is None else _limit(older_than)
    try:
        with progress_bar("collecting") as progress:
            report = collect(archive, forget_before_ns=limit_ns, dry_run=dry_run, progress=progress, wait_s=wait_s)
    except KeyboardInterrupt:
        raise Interrupted("what was begun is undone, or ended by the next command that writes") from None
    if as_json:
        _print_json(report, dry_run=dry_run)
    else:
        _print(archive, report, dry_run=dry_run)
    return 0


def _limit(text: str) -> int:
    """Return the time, in ns since 1970, that an age or a time means; raise UsageError."""
    import time

    from dicomfs.archive.moments import parse_time

    now_ns = time.time_ns()
    age = _AGE(text.strip())
    if age is not None and len(age[1]) <= _MOST_DIGITS:
        return max(now_ns - int(age[1]) * _NS[age[2].lower()], 0)
    try:
        limit_ns = parse_time(text)
    except UsageError as error:
        raise UsageError(f"'{text}' is neither an age such as 36h, 90d or 12w nor a time such as {_SAMPLE}") from error
    if limit_ns > now_ns:
        raise UsageError(f"'{text}' is in the future; what is shown now cannot be forgotten")
    return max(limit_ns, 0)


def _print(archive: Path, report: GcReport, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if report.versions:
        write(f"{counted(report.versions, 'version')} {would}forgotten")
    if report.packs_removed:
        gone, came = counted(len(report.packs_removed), "pack"), counted(report.packs_written, "pack")
        without = f", without {counted(report.blobs, 'blob')} that nothing needs" if report.blobs else ""
        write(f"{gone} {would}written anew as {came}{without}")
    if report.cache_files:
        cached = f"{counted(report.cache_files, 'file')}, {size_text(report.cache_bytes)}"
        write(f"of the cache {would}removed: {cached}")
    packs = counted(report.packs_after, "pack")
    freed = report.bytes_freed + report.cache_bytes
    if report.packs_removed or report.cache_files:
        write(f"{archive}: {size_text(freed)} {would}freed; {packs}")
    else:
        write(f"{archive}: nothing to free; {packs}")


def _print_json(report: GcReport, *, dry_run: bool) -> None:
    write_json(
        {
            "dry_run": dry_run,
            "versions": report.versions,
            "packs_before": report.packs_before,
            "packs_after": report.packs_after,
            "packs_removed": list(report.packs_removed),
            "packs_written": report.packs_written,
            "bytes_written": report.bytes_written,
            "blobs": report.blobs,
            "bytes_freed": report.bytes_freed,
            "cache_files": report.cache_files,
            "cache_bytes": report.cache_bytes,
            "seconds": round(report.seconds, 3),
        }
    )
