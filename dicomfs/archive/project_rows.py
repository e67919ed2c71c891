"""What is in the tables of a project, row by row.

    metadata.xlsx           a row for each series: what its first instance says, as imported; and how it was asked for
    deid_metadata.xlsx      the same columns of the same series as the project shows them
    linker.xlsx             what became what: patients, studies, series, instances (New-… is what the project shows)
    header_extraction.xlsx  chosen attributes of what the project shows: a row for each instance, and for each study
                            one in which different values stand as a JSON list
    failed_queries.csv      rows of a list for which nothing was found when the project was made
    run.txt                 how the project came about, and its sums

Of a project that is de-identified deid_metadata.xlsx, header_extraction.xlsx and run.txt hold nothing but what its
files show, and are in the order of that: not the conditions and not the list that it was asked for by.
"""

from __future__ import annotations

import json
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING, Final

import dicomfs
from dicomfs.archive import patterns
from dicomfs.archive.project_lists import from_stored_failed, rows_of
from dicomfs.archive.project_series import ProjectSeries, members_of, series_as_shown, series_by_source, sums
from dicomfs.archive.runs import escaped
from dicomfs.archive.spreadsheet import Workbook, write_csv
from dicomfs.archive.values import values_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.by_project import ProjectState

# What CTP's and iCore's tables hold, and what the catalog knows besides.
_SERIES: Final = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientAge",
    "AccessionNumber", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "StudyInstanceUID",
    "Modality", "SeriesNumber", "SeriesDescription", "ProtocolName", "BodyPartExamined", "SeriesInstanceUID",
    "InstitutionName", "StationName", "Manufacturer", "ManufacturerModelName",
    "SOPClassUID", "TransferSyntaxUID", "Rows", "Columns",
)  # fmt: skip
_PATIENT: Final = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")
_STUDY: Final = ("PatientID", "StudyInstanceUID", "AccessionNumber", "StudyID", "StudyDate")
_OF_SERIES: Final = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber")
_LINKED: Final = tuple(dict.fromkeys((*_PATIENT, *_STUDY, *_OF_SERIES)))
_SHIFT: Final = "StudyDateShiftDays"
_NEW: Final = "New-"
_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_HEAD: Final = 2048
"""A SOP Instance UID is nearly always in so many bytes at the beginning of a file."""
MOST_VALUES: Final = 1000
"""So many different values of an attribute are listed for a study."""
MOST_REASONS: Final = 100


def metadata(archive: Archive, state: ProjectState, path: Path) -> None:
    """Write what instances say of patients, studies and series, and how the project was asked for."""
    withheld = bool(state.definition.deid)
    with Workbook(path) as book:
        asked = book.sheet("Project", ("Attribute", "Value"))
        for row in _asked(state, whole=True):
            asked.add(row)
        header = (*_SERIES, "Instances", "Bytes", *(("Withheld",) if withheld else ()))
        sheet = book.sheet("Series", header)
        for one in series_by_source(archive, state.root):
            more = (str(one.withheld),) if withheld else ()
            sheet.add((*_values(archive, one.source, _SERIES), str(one.instances), str(one.size), *more))


def deid_metadata(archive: Archive, state: ProjectState, path: Path) -> None:
    """Write the same of what the project shows."""
    with Workbook(path) as book:
        sheet = book.sheet("Series", (*_SERIES, "Instances", "Bytes"))
        for one in series_as_shown(archive, state.root):
            sheet.add((*_values(archive, one.shown, _SERIES), str(one.instances), str(one.size)))


def linker(archive: Archive, state: ProjectState, path: Path) -> None:
    """Write what became what."""
    with Workbook(path) as book:
        patients = book.sheet("Patients", _both(_PATIENT))
        studies = book.sheet("Studies", (*_both(_STUDY), _SHIFT))
        series = book.sheet("Series", _both(_OF_SERIES))
        instances = book.sheet("Instances", (*_both(("SOPInstanceUID",)), "SeriesInstanceUID", "Path", "Withheld"))
        links = (_Link(archive, one) for one in series_by_source(archive, state.root))
        for _, of_patient in groupby(links, _Link.patient):
            patient = None
            for _, of_study in groupby(of_patient, _Link.study):
                study = None
                for link in of_study:
                    series.add(link.both(_OF_SERIES))
                    for row in _instances(archive, state.root, link):
                        instances.add(row)
                    study = link.unless_better(study)
                    patient = link.unless_better(patient)
                if study is not None:
                    studies.add((*study.both(_STUDY), study.shift()))
            if patient is not None:
                patients.add(patient.both(_PATIENT))


def _both(keywords: Sequence[str]) -> tuple[str, ...]:
    return *keywords, *(_NEW + keyword for keyword in keywords)


class _Link:
    """What a series was and what it became."""

    def __init__(self, archive: Archive, series: ProjectSeries) -> None:
        self.series = series
        self._old = dict(zip(_LINKED, _values(archive, series.source, _LINKED), strict=True))
        new = _values(archive, series.shown, _LINKED) if series.shown else [""] * len(_LINKED)
        self._new = dict(zip(_LINKED, new, strict=True))

    def patient(self) -> tuple[str, ...]:
        # Who has no ID is known by the study (layout_values.patient_identity).
        known = self._old["PatientID"], self._old["IssuerOfPatientID"]
        return known if known[0] else ("", "", self._old["StudyInstanceUID"])

    def study(self) -> str:
        return self._old["StudyInstanceUID"]

    def both(self, keywords: Sequence[str]) -> list[str]:
        return [*map(self._old.__getitem__, keywords), *map(self._new.__getitem__, keywords)]

    def shift(self) -> str:
        """Return by how many days the study was moved, '' where one of both dates is none."""
        old, new = (patterns.day(said["StudyDate"]) for said in (self._old, self._new))
        return str((_date(new) - _date(old)).days) if old and new else ""

    def unless_better(self, other: _Link | None) -> _Link:
        """Return the other one if that shows something; of what is withheld nothing became anything."""
        return self if other is None or not other.series.shown else other

    @property
    def series_instance_uid(self) -> str:
        return self._old["SeriesInstanceUID"]


def _date(day: str) -> date:
    return date(int(day[:4]), int(day[4:6]), int(day[6:]))


def _instances(archive: Archive, root: int, link: _Link) -> Iterator[tuple[str, ...]]:
    for member, path in members_of(archive, root, link.series):
        with archive.view() as view:
            old = str(view.instance(member.source).attributes["SOPInstanceUID"])
        new = "" if member.reason else _sop_instance_uid(archive, member.shown)
        yield old, new, link.series_instance_uid, path, member.reason


def _sop_instance_uid(archive: Archive, ino: int) -> str:
    """Return the UID of a file that was derived, of which there may be a million."""
    from dicomfs.dicom.values import text_of

    file = archive.open_instance(ino)
    try:
        return text_of(file.head(_HEAD), "SOPInstanceUID") or _values(archive, ino, ("SOPInstanceUID",))[0]
    finally:
        file.close()


def header_extraction(archive: Archive, state: ProjectState, path: Path) -> None:
    """Write chosen attributes of what the project shows."""
    chosen = tuple(keyword for keyword in dict.fromkeys(state.definition.headers) if keyword not in _UIDS)
    with Workbook(path) as book:
        studies = book.sheet("Studies", (_UIDS[0], *chosen))
        instances = book.sheet("Instances", (*_UIDS, *chosen, "Path"))
        listed = ((one, _values(archive, one.shown, _UIDS[:1])[0]) for one in series_as_shown(archive, state.root))
        for study, series in groupby(listed, lambda each: each[1]):
            different = _Different(len(chosen))
            for one, _ in series:
                for member, below in members_of(archive, state.root, one):
                    if not member.reason:
                        values = _values(archive, member.shown, (*_UIDS, *chosen))
                        instances.add((*values, below))
                        different.add(values[len(_UIDS) :])
            studies.add((study, *different.shown()))


class _Different:
    """The different values of each of some attributes, as they came."""

    def __init__(self, attributes: int) -> None:
        self._values: list[dict[str, None]] = [{} for _ in range(attributes)]
        self._more = [False] * attributes

    def add(self, values: Sequence[str]) -> None:
        for number, value in enumerate(values):
            known = self._values[number]
            if not value or value in known:
                continue
            if len(known) < MOST_VALUES:
                known[value] = None
            else:
                self._more[number] = True

    def shown(self) -> list[str]:
        return [
            _listed([*known, *(["…"] if more else [])]) for known, more in zip(self._values, self._more, strict=True)
        ]


def _listed(values: list[str]) -> str:
    return json.dumps(values, ensure_ascii=False) if len(values) > 1 else "".join(values)


def failed_queries(_archive: Archive, state: ProjectState, path: Path) -> None:
    """Write the rows of a list for which nothing was found, as iCore has them."""
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        write_csv(file, _failed(state))


def _failed(state: ProjectState) -> Iterator[Sequence[str]]:
    yield "Row", "Accession Number", "MRN", "Date", "Failure Reason"
    for row, given, reason in from_stored_failed(state.definition.failed):
        yield str(row), *given, reason


def run(archive: Archive, state: ProjectState, path: Path, files: Sequence[tuple[str, bool]]) -> None:
    """Write how the project came about; `files` are those beside it, and whether they are private."""
    found = sums(archive, state.root)
    lines = [*_asked(state, whole=not state.definition.deid), ("dicomfs", dicomfs.__version__)]
    lines += [
        ("patients", str(found.patients)),
        ("studies", str(found.studies)),
        ("series", str(found.series)),
        ("instances", str(found.instances)),
        ("bytes", str(found.size)),
    ]
    if state.definition.deid:
        lines.append(("withheld", str(found.withheld.total())))
        reasons = sorted(found.withheld.items(), key=lambda each: (-each[1], each[0]))
        lines += [("", f"{count} {reason}") for reason, count in reasons[:MOST_REASONS]]
        if rest := sum(count for _, count in reasons[MOST_REASONS:]):
            lines.append(("", f"{rest} for other reasons"))
    lines += [("file", f"{name} (private)" if private else name) for name, private in files]
    text = "".join(f"{escaped(key):<20} {escaped(value)}".rstrip() + "\n" for key, value in lines)
    path.write_text(text, encoding="utf-8", errors="replace")


def _asked(state: ProjectState, *, whole: bool) -> Iterator[tuple[str, str]]:
    """Yield what was asked for; unless `whole`, without what may tell of a patient."""
    asked = state.definition
    yield "project", state.directory
    yield "name", asked.name
    yield "timestamp", asked.timestamp
    yield "created", asked.created
    yield "goes on", "with each import" if asked.live else "no, it stays as it is"
    yield "profile", asked.deid or "none: identified"
    for keyword, pattern in asked.where:
        yield "condition", f"{keyword}={pattern}" if whole else keyword
    if asked.source:
        yield "list", asked.source if whole else "yes"
        yield "rows of the list", str(rows_of(asked))
        # Of a live project they are not looked for again: what came later is in it all the same.
        yield "found nothing", f"{len(asked.failed)}{' when the project was made' if asked.live else ''}"
    for keyword in asked.headers:
        yield "header", keyword


def _values(archive: Archive, ino: int, keywords: Sequence[str]) -> list[str]:
    return [value or "" for value in values_of(archive, ino, keywords)]
