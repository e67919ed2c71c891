"""`dicomfs gc`: free what nobody needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import archive_option, json_option, wait_option
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import counted, size_text, write, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.gc import GcReport


@click.command("gc")
@archive_option
@click.option("--dry-run", is_flag=True, help="Only tell what would be freed.")
@wait_option
@json_option
def gc_command(*, archive: Path, dry_run: bool, wait_s: float, as_json: bool) -> int:
    """Free what nobody needs: merge small packs, drop what belongs to nothing, tidy the cache.

    Small packs become few, blobs that belong to no file (an import was interrupted, or a damaged
    copy was replaced) are dropped, and so is what the cache holds of earlier states and is older
    than a day. Every version of every file stays, with its names, numbers and bytes.

    What is copied is proved first, by its SHA-256. The archive may be in use: drives that are
    mounted go on, with the files that are open in them. Packs are written before others are
    removed, so room is needed for a while; whatever happens in between, nothing is lost.

    \b
    Examples:
      dicomfs gc -a /srv/archive --dry-run
      dicomfs gc -a /srv/archive
      dicomfs gc --json | jq .bytes_freed

    \b
    Exit status:
      0  done, or there was nothing to do
      1  the disk is full, or another process is writing
      3  something that would have to be copied is damaged; nothing was changed
    """
    from dicomfs.archive.gc import collect
    from dicomfs.cli.run import Interrupted

    try:
        with progress_bar("collecting") as progress:
            report = collect(archive, dry_run=dry_run, progress=progress, wait_s=wait_s)
    except KeyboardInterrupt:
        raise Interrupted("what was begun is undone, or ended by the next command that writes") from None
    if as_json:
        _print_json(report, dry_run=dry_run)
    else:
        _print(archive, report, dry_run=dry_run)
    return 0


def _print(archive: Path, report: GcReport, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if report.packs_removed:
        gone, came = counted(len(report.packs_removed), "pack"), counted(report.packs_written, "pack")
        write(f"{gone} {would}written anew as {came}, without {counted(report.blobs, 'blob')} that nothing needs")
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
