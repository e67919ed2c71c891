"""Which instances an edit is about: all that are shown of what was chosen, and those that may refer to them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from dicomfs.archive import tables
from dicomfs.archive.query import chosen
from dicomfs.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View
    from dicomfs.archive.query import Match


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is chosen: of each kind that is given, any of the values; of all kinds together, what meets each."""

    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    patient_id: str | None = None
    issuer: str | None = None
    where: tuple[tuple[str, str], ...] = ()
    """Conditions, as of a query."""

    def require(self) -> None:
        """Raise UsageError where it chooses nothing, or might choose more than it says."""
        if not (self.studies or self.series or self.instances or self.patient_id is not None or self.where):
            raise UsageError(
                "nothing is chosen: use --study-uid, --series-uid, --sop-uid, --patient-id or --where KEYWORD=PATTERN"
            )
        if self.issuer is not None and self.patient_id is None:
            raise UsageError("--issuer goes with --patient-id")
        named = (*self.studies, *self.series, *self.instances, self.patient_id or "")
        if any(set(text) & set("*?") for text in named):
            raise UsageError("UIDs and patient IDs are taken to the letter; patterns go with --where KEYWORD=PATTERN")


class Member(NamedTuple):
    """An instance that is chosen, or that may refer to such."""

    ino: int
    series: int
    study: int
    patient: int
    """Whose directory it is in."""
    sop_instance_uid: str
    current: bool


def select(archive: Archive, selection: Selection) -> list[Member]:
    """Return the instances that are chosen, in the order of queries; raise NotFound where there are none."""
    selection.require()
    found: dict[int, Member] = {}
    for where in _conditions(selection):
        for match in chosen(archive, where):
            if _is_meant(selection, match):
                one = _member(match)
                found.setdefault(one.ino, one)
    if not found:
        raise NotFound("nothing in the archive is what was chosen")
    return list(found.values())


def other_versions(view: View, members: Iterable[Member]) -> list[Member]:
    """Return what else is shown of the SOP Instance UIDs of these."""
    known: set[int] = set()
    uids: dict[str, None] = {}
    for member in members:
        known.add(member.ino)
        uids.setdefault(member.sop_instance_uid)
    return [
        other for uid in uids for ino in view.instances_where_uid(uid)
        if ino not in known and (other := member_of(view, ino)) is not None
    ]  # fmt: skip


def beside(view: View, patients: Iterable[int], members: Iterable[Member]) -> Iterator[Member]:
    """Walk all other instances that are shown of the studies of these patients."""
    known = {member.ino for member in members}
    seen: set[int] = set()
    for patient in sorted(patients):
        for study in view.studies_of(patient):
            if study.key in seen:
                continue
            seen.add(study.key)
            for series in view.series_of(study.key):
                for ino in view.numbers_from(series.key, 0):
                    if ino not in known and (member := member_of(view, ino)) is not None:
                        yield member


def member_of(view: View, ino: int) -> Member | None:
    """Return an instance, None for one that is not shown."""
    if view.instance_inode(ino).parent == tables.NOWHERE:
        return None
    instance = view.instance(ino)
    study = view.study(view.series(instance.series).study)
    uid = str(instance.attributes["SOPInstanceUID"])
    return Member(ino, instance.series, study.key, study.patient, uid, instance.current)


def _conditions(selection: Selection) -> Iterator[tuple[tuple[str, str], ...]]:
    patient = () if selection.patient_id is None else (("PatientID", selection.patient_id),)
    kinds = (
        ("StudyInstanceUID", selection.studies),
        ("SeriesInstanceUID", selection.series),
        ("SOPInstanceUID", selection.instances),
    )
    named = [[(keyword, uid) for uid in dict.fromkeys(uids)] for keyword, uids in kinds if uids]
    for one in product(*named):
        yield (*one, *patient, *selection.where)


def _is_meant(selection: Selection, match: Match) -> bool:
    """Queries find IDs whatever their case."""
    said = match.patient.attributes
    if selection.patient_id is not None and str(said.get("PatientID", "")) != selection.patient_id:
        return False
    return selection.issuer is None or str(said.get("IssuerOfPatientID", "")) == selection.issuer


def _member(match: Match) -> Member:
    assert match.instance is not None
    instance = match.instance
    uid = str(instance.attributes["SOPInstanceUID"])
    return Member(instance.ino, instance.series, match.study.key, match.patient.key, uid, instance.current)
