"""What `list` and `query` say of a study, a series or an instance: as JSON, and as rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicomfs.archive.patterns import day
from dicomfs.archive.query import Level

if TYPE_CHECKING:
    from dicomfs.archive.query import Match
    from dicomfs.cli.terminal import Json

COLUMNS = {
    Level.STUDY: ("PatientName", "PatientID", "Date", "Modality", "Description", "Series", "Files", "StudyInstanceUID"),
    Level.SERIES: ("PatientName", "PatientID", "Date", "Modality", "No.", "Description", "Files", "SeriesInstanceUID"),
    Level.INSTANCE: ("PatientName", "PatientID", "Date", "Modality", "No.", "Size", "SOPInstanceUID", "Path"),
}  # fmt: skip


def record(match: Match) -> dict[str, Json]:
    """Return a match as JSON: attributes by keyword (those of PS3.4 C.3.4 for counts), ours in small letters."""
    study, series, instance = match.study, match.series, match.instance
    found: dict[str, Json] = {
        **match.patient.attributes,
        **study.attributes,
        "ModalitiesInStudy": list(study.modalities),
        "NumberOfStudyRelatedSeries": study.series,
        "NumberOfStudyRelatedInstances": study.instances,
    }
    size = study.size
    if series is not None:
        found |= {**series.attributes, "NumberOfSeriesRelatedInstances": series.instances}
        size = series.size
    if instance is not None:
        found |= instance.attributes
        found |= {"sha256": instance.sha256.hex(), "ino": instance.ino, "current": instance.current}
        size = instance.size
    return found | {"size": size, "path": match.path}


def row(match: Match) -> tuple[str | int, ...]:
    """Return a match as the cells of COLUMNS."""
    patient, study, series, instance = match.patient.attributes, match.study, match.series, match.instance
    who = (patient.get("PatientName", ""), patient.get("PatientID", ""), _date(study.attributes.get("StudyDate", "")))
    if series is None:
        modalities = " ".join(study.modalities)
        described = study.attributes.get("StudyDescription", "")
        uid = study.attributes["StudyInstanceUID"]
        return *who, modalities, described, study.series, study.instances, uid
    modality = series.attributes.get("Modality", "")
    if instance is None:
        number = series.attributes.get("SeriesNumber", "")
        described = series.attributes.get("SeriesDescription", series.attributes.get("ProtocolName", ""))
        return *who, modality, number, described, series.instances, series.attributes["SeriesInstanceUID"]
    number = instance.attributes.get("InstanceNumber", "")
    return *who, modality, number, instance.size, instance.attributes["SOPInstanceUID"], match.path


def _date(value: str | int) -> str:
    found = day(str(value))
    return f"{found[:4]}-{found[4:6]}-{found[6:]}" if found else str(value)
