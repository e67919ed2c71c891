"""Lists of what a project is made of: rows of accession numbers, or of patient IDs and dates, found in the catalog.

    AccessionNumber | PatientID | StudyDate              the first row names the columns, in any order and case;
    A1024           |           |                        MRN, Accession No. and the like are known, other columns
                    | 4711      | 2024-01-31             are passed by
                    | 4711      | 20240101-20240630      or two columns, From and To, of which one may be empty

An accession number decides by itself; a patient ID in its row must be that of the study, a date is passed by. Where
there is none, a patient ID and a date, or a range of dates, name all of the patient's studies then. Both must be the
same to the letter: what stands in a list is never a pattern.

A row that says nothing that can be looked for, or something that is not there, fails, and the rest goes on; a date that
can be read in two ways is refused, as nobody would notice. Messages name rows and columns, never what stands there.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import patterns, project_definition, tables
from dicomfs.archive.list_dates import NoDay, period, plain
from dicomfs.archive.spreadsheet_rows import Cell, Row, column_letters, rows
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import Study, View
    from dicomfs.archive.project_definition import Asked

ANY: Final = 0
"""The number of no patient: all of a study's."""
MAX_WINDOW_DAYS: Final = 366
_NOBODY: Final = "neither an accession number nor a patient ID"
_NO_DATE: Final = "no accession number, and no date for the patient ID"
_AT_ONCE: Final = 256
"""So many rows are looked for in one transaction."""

ACCESSION, PATIENT, DATE, FROM, TO = "accession number", "patient ID", "date", "first date", "last date"
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    ACCESSION: (
        "accessionnumber", "accession", "accessionno", "accessionnum", "accessionnr", "accessionid", "accessions",
        "accnumber", "accno", "accnum", "accnr", "acc", "00080050",
    ),
    PATIENT: (
        "patientid", "patientidentifier", "patientno", "patientnumber", "patid", "pid", "patient", "mrn", "mrnumber",
        "patientmrn", "medicalrecordnumber", "medicalrecordno", "00100020",
    ),
    DATE: (
        "studydate", "date", "examdate", "examinationdate", "scandate", "dateofstudy", "dateofexam", "dateofservice",
        "studydatetime", "dos", "00080020",
    ),
    FROM: ("from", "datefrom", "fromdate", "studydatefrom", "startdate", "start", "datestart", "begin", "begindate"),
    TO: ("to", "dateto", "todate", "studydateto", "enddate", "end", "dateend", "until"),
}  # fmt: skip
"""What columns are called, in small letters and without blanks, points and the like."""
_MEANING: Final = {name: meaning for meaning, names in _COLUMNS.items() for name in names}
_NOT_A_WORD: Final = re.compile(r"[\W_]+")

_OPEN: Final = (date.min, date.max)
_EXACT_DIGITS: Final = 15
"""Excel keeps so many digits of a number."""


class ListQuery(NamedTuple):
    """A row of a list; dates are YYYYMMDD, '' where there is none. With a problem it is not looked for."""

    row: int
    accession: str
    patient_id: str
    date_from: str
    date_to: str
    given: tuple[str, str, str] = ("", "", "")
    """Accession number, patient ID and date as the row has them."""
    problem: str = ""


class Failed(NamedTuple):
    """A row for which nothing was found."""

    row: int
    given: tuple[str, str, str]
    reason: str


class Resolved(NamedTuple):
    """What a list names: studies, each with one of its patients or ANY."""

    studies: frozenset[tuple[int, int]]
    failed: tuple[Failed, ...]


def read_queries(path: Path, *, window_days: int = 0) -> list[ListQuery]:
    """Read a list from .xlsx or CSV; each date stands for so many days before and after it, too.

    Raise UsageError for a file that is none, and for a date that cannot be understood.
    """
    if not 0 <= window_days <= MAX_WINDOW_DAYS:
        raise UsageError(f"a date window is 0 to {MAX_WINDOW_DAYS} days, not {window_days}")
    table = rows(path, lambda row: len(_meanings(row)))
    _, header = next(table, (1, ()))
    columns = _columns(path, header)
    queries = [_query(_Place(path, number, columns), row, window_days) for number, row in table]
    if not queries:
        raise UsageError(f"{path}: has no rows below its first one, which names the columns")
    return queries


def resolve(archive: Archive, queries: Sequence[ListQuery]) -> Resolved:
    """Look for what a list names; an accession number or a day may name several studies."""
    studies: set[tuple[int, int]] = set()
    failed: list[Failed] = []
    for start in range(0, len(queries), _AT_ONCE):
        with archive.view() as view:
            for query in queries[start : start + _AT_ONCE]:
                found = set() if query.problem else set(_found(view, query))
                studies |= found
                if not found:
                    failed.append(Failed(query.row, query.given, query.problem or _why_not(view, query)))
    return Resolved(frozenset(studies), tuple(failed))


def _meanings(header: Row) -> dict[int, str]:
    """Return what columns mean, by their places."""
    names = (_NOT_A_WORD.sub("", str(cell)).casefold() for cell in header)
    return {place: _MEANING[name] for place, name in enumerate(names) if name in _MEANING}


def _columns(path: Path, header: Row) -> dict[str, int]:
    columns: dict[str, int] = {}
    for place, meaning in _meanings(header).items():
        if meaning in columns:
            letters = f"{column_letters(columns[meaning])} and {column_letters(place)}"
            raise UsageError(f"{path}: columns {letters} are both called {meaning}; take one of them out")
        columns[meaning] = place
    if ACCESSION not in columns and PATIENT not in columns:
        raise UsageError(
            f"{path}: the first row names no column AccessionNumber, and none PatientID; "
            "it must, as in 'AccessionNumber' or 'PatientID,StudyDate'"
        )
    if ACCESSION not in columns and not columns.keys() & {DATE, FROM, TO}:
        raise UsageError(f"{path}: has patient IDs but no dates; add a column StudyDate, or two columns From and To")
    if DATE in columns and columns.keys() & {FROM, TO}:
        raise UsageError(f"{path}: has a column of dates and columns From or To as well; take one of both out")
    return columns


class _Place(NamedTuple):
    """A row, for messages."""

    path: Path
    row: int
    columns: dict[str, int]

    def error(self, meaning: str, what: str) -> UsageError:
        return UsageError(f"{self.path}: row {self.row}, column {column_letters(self.columns[meaning])}: {what}")


def _query(place: _Place, row: Row, window_days: int) -> ListQuery:
    cells = {meaning: row[at] for meaning, at in place.columns.items() if at < len(row)}
    accession = _identifier(place, ACCESSION, cells.get(ACCESSION))
    patient_id = _identifier(place, PATIENT, cells.get(PATIENT))
    given = (accession, patient_id, _shown_dates(cells))
    if accession:
        return ListQuery(place.row, accession, patient_id, "", "", given)
    first, last = _dates(place, cells, window_days)
    problem = ""
    if not patient_id:
        problem = _NOBODY
    elif not first:
        problem = _NO_DATE
    return ListQuery(place.row, "", patient_id, first, last, given, problem)


def _identifier(place: _Place, meaning: str, cell: Cell) -> str:
    text = plain(cell)
    if isinstance(cell, (int, float)) and len(text.lstrip("-")) > _EXACT_DIGITS:
        raise place.error(meaning, f"a number of more than {_EXACT_DIGITS} digits, which loses some; make it text")
    if isinstance(cell, date) or (isinstance(cell, float) and not cell.is_integer()):
        raise place.error(meaning, f"a date or a fraction, not a {meaning}; make it text")
    return text


def _shown_dates(cells: Mapping[str, Cell]) -> str:
    day, begin, end = (plain(cells.get(meaning)) for meaning in (DATE, FROM, TO))
    return f"{begin} - {end}" if begin or end else day


def _dates(place: _Place, cells: Mapping[str, Cell], window_days: int) -> tuple[str, str]:
    """Return the first and the last day that a row names, with a window around them; '' where it names none."""
    found: dict[str, tuple[date, date]] = {}
    for meaning in (DATE, FROM, TO):
        if plain(cells.get(meaning)):
            try:
                found[meaning] = period(cells[meaning])
            except NoDay as error:
                raise place.error(meaning, str(error)) from None
    if not found:
        return "", ""
    first = found.get(DATE, found.get(FROM, _OPEN))[0]
    last = found.get(DATE, found.get(TO, _OPEN))[1]
    if last < first:
        raise place.error(DATE if DATE in found else TO, "a last date before the first")
    window = timedelta(days=window_days)
    return _digits(max(first, date.min + window) - window), _digits(min(last, date.max - window) + window)


def _digits(day: date) -> str:
    return day.isoformat().replace("-", "")


def _found(view: View, query: ListQuery) -> Iterator[tuple[int, int]]:
    if query.accession:
        for study in _studies(view, "AccessionNumber", query.accession):
            if not query.patient_id:
                yield study.key, ANY
            yield from ((study.key, patient) for patient in _named(view, study, query.patient_id))
        return
    for study in _studies(view, "PatientID", query.patient_id):
        if any(query.date_from <= day <= query.date_to for day in _days(view, study)):
            yield from ((study.key, patient) for patient in _named(view, study, query.patient_id))


def _studies(view: View, keyword: str, wanted: str) -> Iterator[Study]:
    """Walk the studies with a value that is the same to the letter."""
    for key in sorted(view.studies_where(keyword, wanted)):
        study = view.study(key)
        if not study.instances:
            continue
        if keyword == "PatientID" or wanted in _values(view, study, keyword):
            yield study


def _named(view: View, study: Study, patient_id: str) -> Iterator[int]:
    """Walk the patients of a study who have this ID."""
    for key in study.patients:
        if patient_id and patient_id == view.patient(key).attributes.get("PatientID"):
            yield key


def _values(view: View, study: Study, keyword: str) -> set[str]:
    """Return what is shown of a study, as to of an attribute: its instances may say other things than it does."""
    own = str(study.attributes.get(keyword, ""))
    if not study.mixed:
        return {own}
    said: set[str] = set()
    for series in view.series_of(study.key):
        for ino in view.numbers_from(series.key, 0):
            if view.instance_inode(ino).parent != tables.NOWHERE:
                said.add(str(view.attributes_of(series.key, ino).get(keyword, own)))
    return said


def _days(view: View, study: Study) -> Iterator[str]:
    return filter(None, map(patterns.day, _values(view, study, "StudyDate")))


def _why_not(view: View, query: ListQuery) -> str:
    if query.accession:
        if any(True for _ in _studies(view, "AccessionNumber", query.accession)):
            return "the study with this accession number is another patient's"
        return "no study with this accession number"
    if not any(any(_named(view, study, query.patient_id)) for study in _studies(view, "PatientID", query.patient_id)):
        return "no patient with this ID"
    if query.date_from == query.date_to:
        return "no study of this patient on this date"
    return "no study of this patient between these dates"


def stored(queries: Iterable[ListQuery]) -> tuple[Asked, ...]:
    """Return what a project keeps of queries; those with a problem are among what failed."""
    return tuple((one.accession, one.patient_id, one.date_from, one.date_to) for one in queries if not one.problem)


def from_stored(asked: Iterable[Asked]) -> list[ListQuery]:
    """Return queries of what `stored` returned; they know no rows."""
    return [ListQuery(0, *one) for one in asked]


def rows_of(definition: project_definition.Definition) -> int:
    """Return how many rows a project's list had: those that were looked for, and those of which that cannot be."""
    return len(definition.queries) + sum(reason in (_NOBODY, _NO_DATE) for _, _, reason in definition.failed)


def stored_failed(failed: Iterable[Failed]) -> tuple[project_definition.Failed, ...]:
    """Return what a project keeps of rows that failed: what a row gives is one text, with tabs between."""
    return tuple((one.row, "\t".join(text.replace("\t", " ") for text in one.given), one.reason) for one in failed)


def from_stored_failed(failed: Iterable[project_definition.Failed]) -> list[Failed]:
    """Return rows of what `stored_failed` returned."""
    return [Failed(row, _three(given.split("\t")), reason) for row, given, reason in failed]


def _three(parts: list[str]) -> tuple[str, str, str]:
    accession, patient_id, day, *_ = *parts, "", "", ""
    return accession, patient_id, day
