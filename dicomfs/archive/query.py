"""Queries: which studies, series or instances the archive holds that match what was asked.

Indexed keys (patient, UIDs, accession number, date, modality) find their studies in the index and
never scan the archive. Conditions on other attributes of the catalog look at what the indexed ones
left; conditions on any other attribute read the stored headers of what is then still left.

Patterns ignore case, `*` stands for any text and `?` for one character; for dates and only there,
`20240101-20240131`, `20240101-` and `-20240131` are ranges (PS3.4 C.2.2.2.5). A study or series
matches when one instance in it meets all the conditions together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from dicomfs.archive.layout import CATALOG_KEYWORDS
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import Instance, Patient, Series, Study, View

    Value: TypeAlias = str | int
    Test: TypeAlias = Callable[[str], bool]

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
_RANGE = re.compile(r"(\d{8})?-(\d{8})?").fullmatch


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
    """Yield what the query finds, study by study; each study is read in a transaction of its own."""
    conditions = _Conditions(archive, query.where)
    with archive.view() as view:
        keys = _study_keys(view, query.where)
    for key in keys:
        with archive.view() as view:
            found = list(_in_study(view, view.study(key), query.level, conditions))
        yield from found


def below(archive: Archive, study: int, level: Level) -> list[Match]:
    """Return all series or all instances of one study, or the study itself."""
    with archive.view() as view:
        return list(_in_study(view, view.study(study), level, _Conditions(archive, ())))


def instances(archive: Archive, series: Match) -> list[Match]:
    """Return all instances of a series."""
    with archive.view() as view:
        return list(_instances(view, series, _Conditions(archive, ())))


def pattern_test(pattern: str, *, date: bool = False) -> Test:
    """Return the test whether a text matches a pattern."""
    if date and (found := _RANGE(pattern)):
        first, last = found[1] or "", found[2] or "99999999"
        return lambda text: bool(text) and first <= text[:8] <= last
    folded = pattern.casefold()
    if "*" not in folded and "?" not in folded:
        return lambda text: text.casefold() == folded
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in folded)
    compiled = re.compile(expression, re.DOTALL).fullmatch
    return lambda text: compiled(text.casefold()) is not None


def _study_keys(view: View, where: Iterable[tuple[str, str]]) -> list[int]:
    """Return the studies that the indexed conditions leave, all of them if there is none such."""
    sets: list[set[int]] = []
    for keyword, pattern in where:
        if keyword in _INDEXED:
            sets.append(view.studies_where(keyword, pattern))
        elif keyword == "SeriesInstanceUID":
            sets.append({view.series(key).study for key in view.series_where_uid(pattern)})
        elif keyword == "SOPInstanceUID" and not set(pattern) & set("*?"):
            found = map(view.instance, view.instances_where_uid(pattern))
            sets.append({view.series(instance.series).study for instance in found})
    if not sets:
        return [study.key for study in view.studies()]
    return sorted(set.intersection(*sets))


class _Conditions:
    """The conditions of a query, by the level at which they can be decided."""

    def __init__(self, archive: Archive, where: Iterable[tuple[str, str]]) -> None:
        self.study: list[tuple[str, Test]] = []
        self.series: list[tuple[str, Test]] = []
        self.instance: list[tuple[str, Test]] = []
        self.stored: list[tuple[str, Test]] = []
        self._archive = archive
        for keyword, pattern in where:
            test = pattern_test(pattern, date=keyword.endswith("Date"))
            if keyword in _PATIENT | _STUDY:
                # The index has decided the others, with all patients that a study names.
                if keyword not in _INDEXED:
                    self.study.append((keyword, test))
            elif keyword in _SERIES:
                self.series.append((keyword, test))
            elif keyword in _INSTANCE:
                self.instance.append((keyword, test))
            else:
                _require_keyword(keyword)
                self.stored.append((keyword, test))

    def instance_meets(self, instance: Instance) -> bool:
        if not _meet(instance.attributes, self.instance):
            return False
        return all(_meets(self._stored(instance.ino, keyword), test) for keyword, test in self.stored)

    def _stored(self, ino: int, keyword: str) -> str:
        from dicomfs.archive.values import value_of

        return value_of(self._archive, ino, keyword) or ""


def _require_keyword(keyword: str) -> None:
    from dicomfs.dicom.values import keyword_tag

    keyword_tag(keyword)


def _meet(attributes: Mapping[str, Value], conditions: list[tuple[str, Test]]) -> bool:
    return all(_meets(str(attributes.get(keyword, "")), test) for keyword, test in conditions)


def _meets(text: str, test: Test) -> bool:
    if test(text):
        return True
    # One of several values, or one group of a person's name, is enough (PS3.4 C.2.2.2.1.1).
    return any(test(part.strip()) for part in re.split(r"[\\=]", text)) if re.search(r"[\\=]", text) else False


def _in_study(view: View, study: Study, level: Level, conditions: _Conditions) -> Iterator[Match]:
    patient = view.patient(study.patient)
    if not _meet({**patient.attributes, **study.attributes}, conditions.study):
        return
    for series in view.series_of(study.key):
        if not _meet(series.attributes, conditions.series):
            continue
        match = Match(patient, study, "", series)
        if level is Level.INSTANCE:
            yield from _instances(view, match, conditions)
            continue
        first = next(_instances(view, match, conditions), None)
        if first is None:
            continue
        if level is Level.STUDY:
            yield Match(patient, study, _parent(first.path, 2))
            return
        yield replace(match, path=_parent(first.path, 1))


def _instances(view: View, series: Match, conditions: _Conditions) -> Iterator[Match]:
    assert series.series is not None
    for instance in view.instances_of(series.series.key):
        path = view.path(instance.ino)
        if not instance.current and _displaced(view, instance.ino, path):
            continue
        if conditions.instance_meets(instance):
            yield replace(series, path=path, instance=instance)


def _displaced(view: View, ino: int, path: str) -> bool:
    """Say whether this is an earlier version, which is in no tree any more."""
    node = view.node(ino)
    shown = node and view.child(node.parent, path.rpartition("/")[2].encode())
    return shown is None or shown.ino != ino


def _parent(path: str, levels: int) -> str:
    return path.rsplit("/", levels)[0]


def parse_condition(text: str) -> tuple[str, str]:
    """Return the keyword and pattern of KEYWORD=PATTERN; raise UsageError if it is none."""
    keyword, equals, pattern = text.partition("=")
    if not equals or not keyword:
        raise UsageError(f"{text!r} is no condition; write KEYWORD=VALUE, such as BodyPartExamined=CHEST")
    if keyword not in CATALOG_KEYWORDS:
        _require_keyword(keyword)
    return keyword, pattern
