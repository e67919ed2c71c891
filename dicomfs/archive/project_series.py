"""The series of a project, in order, for the tables that are made of them.

A series is known by the first file of it that was imported, whose header says what a table shows of patient, study
and series. One whose files name several patients counts as several. Memory grows with the number of series, by some
hundred bytes each, and not with that of instances.

Which values put series in order is the caller's choice: a table that everybody may see must not be in the order of
what nobody may.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive.values import values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.by_project import Member
    from dicomfs.archive.catalog import View

_AT_ONCE: Final = 1024
"""So many instances are looked at in one transaction."""
_ORDER: Final = (
    "PatientID", "IssuerOfPatientID", "StudyDate", "StudyTime", "StudyInstanceUID", "SeriesNumber", "SeriesInstanceUID",
)  # fmt: skip
_PATIENT: Final = _ORDER[:2]
_WHEN: Final = slice(2, 4)
_STUDY: Final = _ORDER.index("StudyInstanceUID")
_NUMBER: Final = _ORDER.index("SeriesNumber")
_LONGEST_NUMBER: Final = 12
"""An IS is no longer (PS3.5 6.2)."""
_UID: Final = _ORDER.index("SeriesInstanceUID")


class ProjectSeries(NamedTuple):
    """A series as far as it is in a project, of one patient."""

    key: int
    patient: tuple[str, ...]
    """What its files say of whose they are, where those of its study name several patients; else nothing."""
    source: int
    """Its first instance."""
    shown: int
    """Its first file in the project; 0 where all of it is withheld."""
    instances: int
    """How many are shown."""
    size: int
    withheld: int


class Sums(NamedTuple):
    """What a project shows."""

    patients: int
    studies: int
    series: int
    instances: int
    size: int
    withheld: Counter[str]
    """How many instances are withheld, by reason."""


def series_by_source(archive: Archive, root: int) -> list[ProjectSeries]:
    """Return the series of a project in the order of what their instances say."""
    return _in_order(archive, _counted(archive, root, Counter()), lambda one: one.source)


def series_as_shown(archive: Archive, root: int) -> list[ProjectSeries]:
    """Return the series of which a project shows something, in the order of what it shows."""
    shown = [one for one in _counted(archive, root, Counter()) if one.shown]
    return _in_order(archive, shown, lambda one: one.shown)


def sums(archive: Archive, root: int) -> Sums:
    """Return what a project shows in sum, and what it does not."""
    reasons: Counter[str] = Counter()
    patients: set[tuple[str, ...]] = set()
    studies: set[str] = set()
    shown = [one for one in _counted(archive, root, reasons) if one.shown]
    for one in shown:
        patient_id, issuer, *_, study = _said(archive, one.shown)[:5]
        studies.add(study)
        patients.add((patient_id, issuer) if patient_id else ("", "", study))
    instances, size = sum(one.instances for one in shown), sum(one.size for one in shown)
    return Sums(len(patients), len(studies), len(shown), instances, size, reasons)


def members_of(archive: Archive, root: int, series: ProjectSeries) -> Iterator[tuple[Member, str]]:
    """Walk what a project has of a series in the order of import, each with its path below the project's root."""
    after = 0
    while True:
        with archive.view() as view:
            paths = Paths(view, root)
            numbers = list(islice(view.numbers_from(series.key, after), _AT_ONCE))
            members = [member for ino in numbers if (member := view.member(root, ino)) is not None]
            found = [(member, paths.of(member)) for member in members]
        if not numbers:
            return
        for member, path in found:
            if not series.patient or _patient(archive, member.source) == series.patient:
                yield member, path
        after = numbers[-1]


class Paths:
    """Where a project shows its files, below its root; for one view."""

    def __init__(self, view: View, root: int) -> None:
        self._view = view
        self._root = root
        self._directories: dict[int, str] = {}

    def of(self, member: Member) -> str:
        """Return the path of a member's file, '' for one that has none any more."""
        if member.shown != member.source:
            return self._below(self._view.path(member.shown))
        for root, directory, name in self._view.links(member.source):
            if root == self._root:
                if directory not in self._directories:
                    self._directories[directory] = self._below(self._view.path(directory))
                return f"{self._directories[directory]}/{name.decode()}".lstrip("/")
        return ""

    def _below(self, path: str) -> str:
        """Leave out 'projects' and the project's own directory."""
        return "/".join(path.split("/")[2:])


def _counted(archive: Archive, root: int, reasons: Counter[str]) -> list[ProjectSeries]:
    found: dict[tuple[int, tuple[str, ...]], ProjectSeries] = {}
    several: dict[int, bool] = {}
    after = 0
    while True:
        with archive.view() as view:
            members = [_sized(view, member, several) for member in islice(view.members(root, after), _AT_ONCE)]
        if not members:
            return list(found.values())
        for member, series, size in members:
            key = series, _patient(archive, member.source) if several[series] else ()
            one = found.get(key) or ProjectSeries(*key, member.source, 0, 0, 0, 0)
            if member.reason:
                found[key] = one._replace(withheld=one.withheld + 1)
                reasons[member.reason] += 1
            else:
                shown = one.shown or member.shown
                found[key] = one._replace(shown=shown, instances=one.instances + 1, size=one.size + size)
        after = members[-1][0].source


def _sized(view: View, member: Member, several: dict[int, bool]) -> tuple[Member, int, int]:
    """Return a member, its series and its size; note whether the files of its study name several patients."""
    inode = view.instance_inode(member.source)
    if inode.series not in several:
        several[inode.series] = len(view.study(view.series(inode.series).study).patients) > 1
    return member, inode.series, inode.size if member.shown == member.source else view.file_inode(member.shown).size


def _patient(archive: Archive, ino: int) -> tuple[str, ...]:
    return tuple(value or "" for value in values_of(archive, ino, _PATIENT))


def _in_order(
    archive: Archive, series: list[ProjectSeries], which: Callable[[ProjectSeries], int]
) -> list[ProjectSeries]:
    said = [_said(archive, which(one)) for one in series]
    # Series of one study stay together, though their files disagree on when it was.
    when: dict[tuple[str, ...], list[str]] = {}
    for one in said:
        one[_WHEN] = when.setdefault((*one[:2], one[_STUDY]), one[_WHEN])
    keyed = [(_order(values), which(one), one) for values, one in zip(said, series, strict=True)]
    return [one for *_, one in sorted(keyed)]


def _said(archive: Archive, ino: int) -> list[str]:
    return [value or "" for value in values_of(archive, ino, _ORDER)]


def _order(said: list[str]) -> tuple[str, ...]:
    number = said[_NUMBER]
    # As numbers are, and those that are none after them.
    shown = number.zfill(_LONGEST_NUMBER) if number.isascii() and number.isdigit() else f"~{number}"
    return *said[:_NUMBER], shown, said[_UID]
