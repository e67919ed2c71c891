"""`dicomfs list`: everything that is in an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.opening import open_archive
from dicomfs.cli.options import archive_option, as_of_option, format_option, json_option
from dicomfs.cli.terminal import branches, counted, size_text, write, write_json_array, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import Patient
    from dicomfs.archive.query import Match
    from dicomfs.cli.terminal import Json


@click.command("list")
@archive_option
@as_of_option
@format_option("tree", "table", "json")
@click.option("--show-instances", is_flag=True, help="Also show every instance.")
@json_option
def list_command(*, archive: Path, as_of: str | None, output_format: str, show_instances: bool, as_json: bool) -> None:
    """List the patients, studies and series of an archive.

    A table has one line for each study, or for each instance with --show-instances. JSON is an array
    of patients with their studies, their series and, if asked for, their instances.

    \b
    Examples:
      dicomfs list -a /srv/archive
      dicomfs list --format table
      dicomfs list --show-instances --json
      dicomfs list --as-of 2026-01-31
    """

    with open_archive(archive, as_of) as opened:
        if as_json or output_format == "json":
            write_json_array(_patients_json(opened, show_instances=show_instances))
        elif output_format == "table":
            _print_table(opened, show_instances=show_instances)
        else:
            write(str(archive))
            for line in branches(_nodes(opened, show_instances=show_instances)):
                write(line)


def _print_table(archive: Archive, *, show_instances: bool) -> None:
    from dicomfs.archive.query import Level, Query, matches
    from dicomfs.cli.records import COLUMNS, row

    level = Level.INSTANCE if show_instances else Level.STUDY
    write_table(COLUMNS[level], map(row, matches(archive, Query(level))))


def _patients(archive: Archive) -> Iterator[tuple[Patient, list[Match]]]:
    """Yield each patient with their studies, in transactions that are as short as one patient."""
    from dicomfs.archive.query import Level, below, in_order, patient_order

    with archive.view() as view:
        patients = sorted((patient_order(patient.attributes), patient.key) for patient in view.patients())
    for _, key in patients:
        with archive.view() as view:
            patient = view.patient(key)
            studies = in_order(view, view.studies_of(key))
        found = [match for study in studies for match in below(archive, study, Level.STUDY, patient=key)]
        if found:
            yield patient, found


def _nodes(archive: Archive, *, show_instances: bool) -> Iterator[tuple[int, str]]:
    from dicomfs.archive.query import Level, below
    from dicomfs.cli.records import row

    for patient, studies in _patients(archive):
        name, number = patient.attributes.get("PatientName", ""), patient.attributes.get("PatientID", "")
        yield 0, f"{name or '(no name)'} [{number or 'no ID'}]"
        for study in studies:
            _, _, date, modalities, description, series, files, uid = row(study)
            held = f"{counted(int(series), 'series', 'series')}, {counted(int(files), 'file')}"
            size = size_text(study.study.size)
            yield 1, f"{_joined(date or 'no date', modalities, description)} ({held}, {size}) {uid}"
            for match in below(archive, study.study.key, Level.SERIES, patient=patient.key):
                _, _, _, modality, number, description, files, uid = row(match)
                yield 2, f"{_joined(number, modality, description) or 'series'} ({counted(int(files), 'file')}) {uid}"
                if show_instances:
                    yield from _instance_nodes(archive, match)


def _instance_nodes(archive: Archive, series: Match) -> Iterator[tuple[int, str]]:
    from dicomfs.archive.query import instances

    for match in instances(archive, series):
        assert match.instance is not None
        uid = match.instance.attributes["SOPInstanceUID"]
        yield 3, f"{match.path.rpartition('/')[2]} ({size_text(match.instance.size)}) {uid}"


def _joined(*parts: str | int) -> str:
    return " ".join(str(part) for part in parts if part != "")


def _patients_json(archive: Archive, *, show_instances: bool) -> Iterator[Json]:
    from dicomfs.archive.query import Level, below

    for patient, studies in _patients(archive):
        yield {
            **patient.attributes,
            "studies": [
                {
                    **_own(study),
                    "series": [
                        _series_json(archive, series, show_instances=show_instances)
                        for series in below(archive, study.study.key, Level.SERIES, patient=patient.key)
                    ],
                }
                for study in studies
            ],
        }


def _series_json(archive: Archive, series: Match, *, show_instances: bool) -> Json:
    from dicomfs.archive.query import instances

    if not show_instances:
        return _own(series)
    return {**_own(series), "instances": [_own(match) for match in instances(archive, series)]}


def _own(match: Match) -> dict[str, Json]:
    """Return what a record says that those above it do not."""
    from dicomfs.cli.records import record

    above: set[str] = set(match.patient.attributes)
    if match.series is not None:
        above |= {*match.study.attributes, "ModalitiesInStudy"}
        above |= {"NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"}
    if match.instance is not None and match.series is not None:
        above |= {*match.series.attributes, "NumberOfSeriesRelatedInstances"}
    return {name: value for name, value in record(match).items() if name not in above}
