"""`dicomfs stats`: what an archive holds, takes and saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.opening import open_archive
from dicomfs.cli.options import archive_option, as_of_option, format_option, json_option
from dicomfs.cli.terminal import Right, counted, size_text, write, write_json, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.stats import Statistics
    from dicomfs.archive.totals import Share
    from dicomfs.cli.terminal import Json


@click.command("stats")
@archive_option
@as_of_option
@format_option("text", "json")
@json_option
def stats_command(*, archive: Path, as_of: str | None, output_format: str, as_json: bool) -> None:
    """Tell how much an archive holds, and what deduplication and compression saved.

    Bytes in are the sizes of all files imported. Deduplication saved the pixel data and large values
    that were in the archive already; compression saved the rest of the difference to bytes stored.
    Earlier versions count there, and for each modality, as what was replaced or deleted is still kept.
    With --as-of, what packs and index take on the disk, and how much is in quarantine, are those of now.

    \b
    Examples:
      dicomfs stats -a /srv/archive
      dicomfs stats --json | jq .bytes_stored
    """
    from dicomfs.archive.stats import statistics

    with open_archive(archive, as_of) as opened:
        found = statistics(opened)
    if as_json or output_format == "json":
        write_json(_json(found))
    else:
        _print(found)


def _json(found: Statistics) -> Json:
    totals = found.totals
    return {
        "patients": totals.patients,
        "studies": totals.studies,
        "series": totals.series,
        **_share_json(totals),
        "instances": totals.shown,
        "earlier_versions": {"instances": totals.earlier, "bytes_in": totals.earlier_bytes},
        "modalities": {name: _share_json(share) for name, share in sorted(totals.modalities.items())},
        "commits": found.commits,
        "packs": found.packs,
        "packs_size": found.packs_size,
        "index_size": found.index_size,
        "quarantined": found.quarantined,
    }


def _share_json(share: Share) -> dict[str, Json]:
    return {
        "instances": share.instances,
        "bytes_in": share.bytes_in,
        "bytes_stored": share.bytes_stored,
        "saved_by_deduplication": share.saved_by_deduplication,
        "saved_by_compression": share.saved_by_compression,
    }


def _print(found: Statistics) -> None:
    totals = found.totals
    write(
        f"{counted(totals.patients, 'patient')}, {counted(totals.studies, 'study', 'studies')},"
        f" {counted(totals.series, 'series', 'series')}, {counted(totals.shown, 'instance')}"
    )
    if totals.earlier:
        earlier = counted(totals.earlier, "file")
        write(f"{'earlier versions':<24}{size_text(totals.earlier_bytes):>12}  {earlier}, replaced or deleted and kept")
    write(f"{'bytes in':<24}{size_text(totals.bytes_in):>12}")
    write(f"{'saved by deduplication':<24}{size_text(totals.saved_by_deduplication):>12}")
    write(f"{'saved by compression':<24}{_signed(totals.saved_by_compression):>12}")
    write(f"{'bytes stored':<24}{size_text(totals.bytes_stored):>12}{_percent(totals)}")
    write(f"{'packs on the disk':<24}{size_text(found.packs_size):>12}  in {counted(found.packs, 'pack')}")
    write(f"{'index on the disk':<24}{size_text(found.index_size):>12}  can be rebuilt")
    if found.quarantined:
        write(f"{'quarantined':<24}{counted(found.quarantined, 'file'):>12}")
    if totals.modalities:
        write()
        columns = ("Modality", "Instances", "Bytes in", "Deduplicated", "Compressed", "Stored", "%")
        write_table(columns, (_row(name, share) for name, share in sorted(totals.modalities.items())))


def _row(name: str, share: Share) -> tuple[str | int, ...]:
    return (
        name or "(none)",
        share.instances,
        Right(size_text(share.bytes_in)),
        Right(size_text(share.saved_by_deduplication)),
        Right(_signed(share.saved_by_compression)),
        Right(size_text(share.bytes_stored)),
        round(100 * share.bytes_stored / share.bytes_in) if share.bytes_in else 0,
    )


def _signed(size: int) -> str:
    # Tiny files can take more than they brought.
    return size_text(size) if size >= 0 else f"-{size_text(-size)}"


def _percent(share: Share) -> str:
    return f"  {100 * share.bytes_stored / share.bytes_in:.1f} % of what came in" if share.bytes_in else ""
