"""`dicomfs query`: find studies, series or instances by what is in their headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.opening import open_archive
from dicomfs.cli.options import Function, archive_option, as_of_option, format_option, json_option
from dicomfs.cli.terminal import note, write, write_json_array, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dicomfs.archive.query import Match, Query

_OPTIONS = {
    "patient_name": "PatientName",
    "patient_id": "PatientID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "accession_number": "AccessionNumber",
    "modality": "Modality",
    "study_date": "StudyDate",
}


def pattern_option(name: str, text: str) -> Callable[[Function], Function]:
    """Add one of the options that are indexed attributes."""
    return click.option(f"--{name}", metavar="PATTERN", help=text)


def conditions(options: dict[str, str | None], where: Iterable[str] = ()) -> tuple[tuple[str, str], ...]:
    """Return the conditions that the options and --where ask for."""
    from dicomfs.archive.query import parse_condition

    named = [(_OPTIONS[name], pattern) for name, pattern in options.items() if pattern is not None]
    return (*named, *map(parse_condition, where))


@click.command("query")
@archive_option
@as_of_option
@pattern_option("patient-name", "Patient's name, as in the files: DOE^JANE.")
@pattern_option("patient-id", "Patient ID.")
@pattern_option("study-uid", "Study Instance UID.")
@pattern_option("series-uid", "Series Instance UID.")
@pattern_option("accession-number", "Accession number.")
@pattern_option("modality", "Modality: CT, MR, …")
@pattern_option("study-date", "Date of the study: 20240131, 2024-01, 2024, or a range: 2023-2024, 20240101-, -2022.")
@click.option(
    "--where",
    metavar="KEYWORD=PATTERN",
    multiple=True,
    help="Any attribute, by keyword or by tag (0018,0015=CHEST). May be given more than once.",
)
@click.option(
    "--level",
    type=click.Choice(["study", "series", "instance"]),
    default="study",
    show_default=True,
    help="What to list: each study, series or instance that matches.",
)
@format_option("table", "json", "text")
@json_option
def query_command(
    *,
    archive: Path,
    as_of: str | None,
    where: tuple[str, ...],
    level: str,
    output_format: str,
    as_json: bool,
    **options: str | None,
) -> None:
    """Find studies, series or instances.

    All conditions must be met. In a PATTERN, * stands for any text and ? for one character; case does
    not count. Names are found by any of their component groups, numbers by their value, and dates by
    day, month, year or range, in --where too. The options for patients, UIDs, accession numbers, dates
    and modalities use an index and are quick in an archive of any size. --where also looks at
    attributes that no index has: then the headers of the instances that the other conditions left
    are read. Studies come in the order of patients and dates.

    JSON has the attributes by keyword. Instances come with sha256, size, ino and current, and with
    the path of the file below the mount point.

    \b
    Examples:
      dicomfs query -a /srv/archive --patient-name 'DOE*'
      dicomfs query --modality CT --study-date 20240101-20240131 --level series
      dicomfs query --where BodyPartExamined=CHEST --where 'KVP=1?0' --json
      dicomfs query --study-uid 1.2.3 --level instance --json | jq -r .[].path
    """
    from dicomfs.archive.query import Level, Query, matches

    query = Query(Level(level), conditions(options, where))
    with open_archive(archive, as_of) as opened:
        _print(query, matches(opened, query), "json" if as_json else output_format)


def _print(query: Query, found: Iterable[Match], output_format: str) -> None:
    from dicomfs.cli.records import COLUMNS, record, row

    if output_format == "json":
        write_json_array(map(record, found))
        return
    any_found = False

    def counted() -> Iterable[Match]:
        nonlocal any_found
        for match in found:
            any_found = True
            yield match

    if output_format == "table":
        write_table(COLUMNS[query.level], map(row, counted()))
    else:
        _print_text(counted())
    if not any_found:
        note(f"no {query.level} matches")


def _print_text(found: Iterable[Match]) -> None:
    from dicomfs.cli.records import record

    for match in found:
        for name, value in record(match).items():
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            write(f"{name}: {text}")
        write()
