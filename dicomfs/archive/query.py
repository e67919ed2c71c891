"""Queries: which studies, series or instances the archive holds that match what was asked.

Indexed keys (patient, UIDs, accession number, date, modality) find their studies in the index and
never scan the archive. Conditions on other attributes of the catalog look at what the indexed ones
left; conditions on any other attribute read the stored headers of what is then still left.

What a value must be like is said in `patterns`. A study or series matches when one instance in it meets
all the conditions together. Studies come in the order of patients' names and IDs, then of dates and
times; series and instances in the order of their numbers.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from dicomfs.archive.keywords import CATALOG_KEYWORDS, CATALOG_TAGS
from dicomfs.archive.names import fold
from dicomfs.archive.patterns import day, indexed, value_test
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import Instance, Patient, Series, Study, View
    from dicomfs.archive.patterns import Test

    Value: TypeAlias = str | int

# What the catalog's index finds by itself (`View.studies_where`).
_INDEXED = frozenset({"PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "StudyDate", "Modality"})
_PATIENT = frozenset({"PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"})
_STUDY = frozenset(
    {
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "StudyDescription",
        "ReferringPhysicianName",
    }
)
_INSTANCE = frozenset(
    {
        "SOPInstanceUID",
        "SOPClassUID",
        "TransferSyntaxUID",
        "InstanceNumber",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "ContentDate",
        "ContentTime",
    }
)
_SERIES = CATALOG_KEYWORDS - _PATIENT - _STUDY - _INSTANCE
_IDENTITY = ("PatientID", "IssuerOfPatientID")


class Level(StrEnum):
    """What a query returns."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: (keyword or tag gggg,eeee, pattern) pairs, all of which must be met."""

    level: Level = Level.STUDY
    where: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """One study, series or instance, with what stands above it; `path` is below the mount's root."""

    patient: Patient
    study: Study
    path: str
    series: Series | None = None
    instance: Instance | None = None


def matches(archive: Archive, query: Query) -> Iterator[Match]:
    """Yield what the query finds, study by study; transactions are as short as one series.

    What is kept of all studies that may match is their order. Raise UsageError for what cannot be asked.
    """
    conditions = _Conditions(query.where)
    return _matches(archive, query, conditions)


def chosen(
    archive: Archive,
    where: tuple[tuple[str, str], ...],
    studies: Mapping[int, Iterable[int | None]] | None = None,
    after: int = 0,
) -> Iterator[Match]:
    """Yield the instances past a number that meet all conditions, in the order of `matches`.

    Where studies are named, of these alone, and in each of the patients named for it; None stands for any.
    """
    conditions = _Conditions(where, after=after)
    with archive.view() as view:
        keys = in_order(view, (one for one in _studies(view, where) if studies is None or one.key in studies))
    for key in keys:
        for patient in (None,) if studies is None else studies[key]:
            yield from _in_study(archive, key, Level.INSTANCE, conditions.of(patient))


def require(where: Iterable[tuple[str, str]]) -> None:
    """Raise UsageError for conditions that cannot be asked."""
    _Conditions(where)


def below(archive: Archive, study: int, level: Level, *, patient: int | None = None) -> Iterator[Match]:
    """Yield all series or all instances of one study, or the study itself; of one patient's, if named."""
    return _in_study(archive, study, level, _Conditions((), patient))


def instances(archive: Archive, series: Match) -> Iterator[Match]:
    """Yield all instances of the series' patient in a series."""
    assert series.series is not None
    conditions = _Conditions((), series.patient.key)
    return _in_series(archive, series.study, series.series, _Owners(archive, series.study), conditions)


def in_order(view: View, studies: Iterable[Study]) -> list[int]:
    """Return the keys of studies by their first patients, then by date and time."""
    return [key for _, key in sorted((_study_order(view, study), study.key) for study in studies)]


def patient_order(attributes: Mapping[str, Value]) -> tuple[str, str]:
    """Return what patients are put in order by: name, then ID."""
    return fold(str(attributes.get("PatientName", ""))), str(attributes.get("PatientID", ""))


def _study_order(view: View, study: Study) -> tuple[str, ...]:
    patient = view.patient(study.patient).attributes
    stored = str(study.attributes.get("StudyDate", ""))
    return *patient_order(patient), day(stored) or stored, str(study.attributes.get("StudyTime", ""))


def _numbered(attributes: Mapping[str, Value], keyword: str) -> tuple[bool, int]:
    """Return what series and instances are put in order by; those without a number come last."""
    number = attributes.get(keyword)
    return (False, number) if isinstance(number, int) else (True, 0)


def _matches(archive: Archive, query: Query, conditions: _Conditions) -> Iterator[Match]:
    with archive.view() as view:
        keys = in_order(view, _studies(view, query.where))
    for key in keys:
        yield from _in_study(archive, key, query.level, conditions)


def _studies(view: View, where: Iterable[tuple[str, str]]) -> Iterator[Study]:
    """Return the studies that the indexed conditions leave, all of them if there is none such."""
    sets: list[set[int]] = []
    for keyword, pattern in where:
        if keyword in _INDEXED:
            sets.append(set().union(*(view.studies_where(keyword, one) for one in indexed(keyword, pattern))))
        elif keyword == "SeriesInstanceUID":
            sets.append({view.series(key).study for key in view.series_where_uid(pattern)})
        elif keyword == "SOPInstanceUID" and not set(pattern) & set("*?"):
            found = map(view.instance, view.instances_where_uid(pattern))
            sets.append({view.series(instance.series).study for instance in found})
    if not sets:
        return view.studies()
    return (study for study in map(view.study, set.intersection(*sets)) if study.instances)


class _Conditions:
    """The conditions of a query, by what decides them; `patient` None stands for any, `after` is a number."""

    def __init__(self, where: Iterable[tuple[str, str]], patient: int | None = None, after: int = 0) -> None:
        self.patient: list[tuple[str, Test]] = []
        self.study: list[tuple[str, Test]] = []
        self.series: list[tuple[str, Test]] = []
        self.instance: list[tuple[str, Test]] = []
        self.header: list[tuple[str, Test]] = []
        self.patient_key = patient
        self.after = after
        for keyword, pattern in where:
            self._deciding(keyword).append((keyword, value_test(keyword, pattern)))

    def of(self, patient: int | None) -> _Conditions:
        """Return the same conditions for the instances of one patient."""
        if patient is None:
            return self
        found = copy(self)
        found.patient_key = patient
        return found

    def _deciding(self, keyword: str) -> list[tuple[str, Test]]:
        if keyword in _PATIENT:
            return self.patient
        if keyword in _STUDY:
            return self.study
        if keyword in _SERIES:
            return self.series
        if keyword in _INSTANCE:
            return self.instance
        _require_keyword(keyword)
        return self.header

    def met_by_owner(self, patient: Patient) -> bool:
        if self.patient_key not in (None, patient.key):
            return False
        return _meet(patient.attributes, self.patient)

    def met_above(self, study: Mapping[str, Value], series: Mapping[str, Value]) -> bool:
        return _meet(study, self.study) and _meet(series, self.series)

    def met_by_header(self, archive: Archive, ino: int) -> bool:
        from dicomfs.archive.values import value_of

        return all(test(value_of(archive, ino, keyword) or "") for keyword, test in self.header)


class _Owners:
    """Whose the instances of a study are: its files may disagree on PatientID, each patient has a directory."""

    def __init__(self, archive: Archive, study: Study) -> None:
        self._archive = archive
        self._by_directory: dict[str, Patient] = {}
        with archive.view() as view:
            self._patients = [view.patient(key) for key in study.patients]

    @property
    def only(self) -> Patient | None:
        return self._patients[0] if len(self._patients) == 1 else None

    def of(self, ino: int, path: str) -> Patient:
        if len(self._patients) == 1:
            return self._patients[0]
        directory = path.split("/", 2)[1]
        if directory not in self._by_directory:
            self._by_directory[directory] = self._read(ino)
        return self._by_directory[directory]

    def _read(self, ino: int) -> Patient:
        """Return the patient that an instance names; the catalog only knows which directory it is in."""
        from dicomfs.archive.values import value_of

        named = [value_of(self._archive, ino, keyword) or "" for keyword in _IDENTITY]
        for patient in self._patients:
            if [str(patient.attributes.get(keyword, "")) for keyword in _IDENTITY] == named:
                return patient
        return self._patients[0]


def _require_keyword(keyword: str) -> None:
    from dicomfs.dicom.dictionary import keyword_tag, similar_keyword

    try:
        keyword_tag(keyword)
    except UsageError as error:
        similar = similar_keyword(keyword)
        if not similar:
            raise
        raise UsageError(f"{keyword!r} is no DICOM keyword; did you mean {similar}?") from error


def _meet(attributes: Mapping[str, Value], conditions: list[tuple[str, Test]]) -> bool:
    return all(test(str(attributes.get(keyword, ""))) for keyword, test in conditions)


def _in_study(archive: Archive, key: int, level: Level, conditions: _Conditions) -> Iterator[Match]:
    with archive.view() as view:
        study = view.study(key)
        series_found = [one for one in view.series_of(key) if study.mixed or _meet(one.attributes, conditions.series)]
    series_found.sort(key=lambda one: (_numbered(one.attributes, "SeriesNumber"), one.key))
    owners = _Owners(archive, study)
    if not study.mixed and not (
        _meet(study.attributes, conditions.study) and (owners.only is None or conditions.met_by_owner(owners.only))
    ):
        return
    for series in series_found:
        found = _in_series(archive, study, series, owners, conditions, any_one=level is not Level.INSTANCE)
        if level is Level.INSTANCE:
            yield from found
            continue
        first = next(found, None)
        if first is None:
            continue
        if level is Level.STUDY:
            yield replace(first, series=None, instance=None, path=_parent(first.path, 2))
            return
        yield replace(first, instance=None, path=_parent(first.path, 1))


def _in_series(
    archive: Archive,
    study: Study,
    series: Series,
    owners: _Owners,
    conditions: _Conditions,
    *,
    any_one: bool = False,
) -> Iterator[Match]:
    """Yield the instances that match; with `any_one`, as few as prove that there is one."""
    with archive.view() as view:
        found = _in_catalog(view, series, conditions)
        decided = owners.only is not None and not conditions.header and not study.mixed
        candidates = list(islice(found, 1) if any_one and decided else found)
    candidates.sort(key=lambda one: (_numbered(one[0].attributes, "InstanceNumber"), one[1]))
    for instance, path in candidates:
        match = Match(owners.of(instance.ino, path), study, path, series, instance)
        if study.mixed:
            match = _as_it_says(match, instance)
            if not conditions.met_above(match.study.attributes, series.attributes | _own(instance, _SERIES)):
                continue
        if conditions.met_by_owner(match.patient) and conditions.met_by_header(archive, instance.ino):
            yield match


def _as_it_says(match: Match, instance: Instance) -> Match:
    """Put in place of patient, study and series what the instance itself says of them (see tables.py)."""
    assert match.series is not None
    patient = replace(match.patient, attributes=_said(match.patient.attributes, instance, _PATIENT))
    study = replace(match.study, attributes=_said(match.study.attributes, instance, _STUDY))
    series = replace(match.series, attributes=_said(match.series.attributes, instance, _SERIES))
    return replace(match, patient=patient, study=study, series=series)


def _said(above: Mapping[str, Value], instance: Instance, keywords: frozenset[str]) -> dict[str, Value]:
    return {key: value for key, value in {**above, **_own(instance, keywords)}.items() if value != ""}


def _own(instance: Instance, keywords: frozenset[str]) -> dict[str, Value]:
    return {key: value for key, value in instance.attributes.items() if key in keywords}


def _in_catalog(view: View, series: Series, conditions: _Conditions) -> Iterator[tuple[Instance, str]]:
    """Yield the instances of a series, with their paths, for which the catalog speaks."""
    for instance in map(view.instance, view.numbers_from(series.key, conditions.after)):
        if not _meet(instance.attributes, conditions.instance):
            continue
        path = view.path(instance.ino)
        if path:  # which an earlier version does not have
            yield instance, path


def _parent(path: str, levels: int) -> str:
    return path.rsplit("/", levels)[0]


def parse_condition(text: str) -> tuple[str, str]:
    """Return the keyword and pattern of KEYWORD=PATTERN; raise UsageError if it is none."""
    keyword, equals, pattern = text.partition("=")
    if not equals or not keyword:
        raise UsageError(f"{text!r} is no condition; write KEYWORD=VALUE, such as BodyPartExamined=CHEST")
    keyword = CATALOG_TAGS.get(keyword.replace(",", "").upper(), keyword)
    if keyword not in CATALOG_KEYWORDS:
        _require_keyword(keyword)
    return keyword, pattern
