"""What people name to be deleted, brought back or looked up: studies, series and instances by whole UIDs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.archive.lacking import Owners
from dicomfs.archive.values import value_of
from dicomfs.errors import NotFound, UsageError

_KINDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_WORDS = ("study", "series", "instance")


@dataclass(frozen=True, slots=True)
class Selection:
    """Any of the UIDs of each kind that is given, of one patient if there is a Patient ID."""

    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    patient_id: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether no UID is named."""
        return not (self.studies or self.series or self.instances)


def versions(archive: Archive, view: View, selection: Selection) -> list[int]:
    """Return all versions of what is named, shown or not, in a view of an archive.

    Raise NotFound where one of the UIDs finds nothing, UsageError for what is no UID.
    """
    named = (selection.studies, selection.series, selection.instances)
    for uid in (uid for uids in named for uid in uids):
        if not uid or set(uid) & set("*?\\"):
            raise UsageError(f"'{uid}' is no UID: name a whole one, without wildcards")
    missing = [set(uids) for uids in named]
    owners: dict[int, Owners] = {}
    found: list[int] = []
    for study, series, numbers in _candidates(view, selection):
        said = [str(view.study(study).attributes.get(_KINDS[0], ""))]
        said.append(str(view.series(series).attributes.get(_KINDS[1], "")))
        if any(uids and uid not in uids for uids, uid in zip(named, said, strict=False)):
            continue
        for ino in numbers:
            if not selection.patient_id or _is_of(archive, view, study, ino, selection.patient_id, owners):
                found.append(ino)
                for uids, uid in zip(missing, said, strict=False):
                    uids.discard(uid)
                if missing[2]:
                    missing[2].discard(str(view.attributes_of(series, ino)[_KINDS[2]]))
    for word, uids in zip(_WORDS, missing, strict=True):
        if uids:
            whose = " of this patient" if selection.patient_id else ""
            among = " among what else is named" if sum(map(bool, named)) > 1 else ""
            raise NotFound(f"the archive has no {word} {min(uids)}{whose}{among}")
    return sorted(found)


def _candidates(view: View, selection: Selection) -> Iterator[tuple[int, int, Iterable[int]]]:
    """Yield study, series and versions of what the narrowest UIDs name."""
    if selection.instances:
        for uid in dict.fromkeys(selection.instances):
            for ino in view.instances_where_uid(uid):
                series = view.instance_inode(ino).series
                yield view.series(series).study, series, (ino,)
        return
    if selection.series:
        for uid in dict.fromkeys(selection.series):
            for series in sorted(view.series_where_uid(uid)):
                yield view.series(series).study, series, view.numbers_from(series, 0)
        return
    for uid in dict.fromkeys(selection.studies):
        study = view.study_identified(uid)
        for series in () if study is None else view.all_series_of(study):
            yield study or 0, series, view.numbers_from(series, 0)


def studies(archive: Archive, view: View, selection: Selection) -> list[int]:
    """Return the studies that are named, and those of the patient where no UID is, shown or not."""
    if not selection.is_empty:
        found = {view.series(view.instance_inode(ino).series).study for ino in versions(archive, view, selection)}
    else:
        named = view.studies_where("PatientID", selection.patient_id)
        found = {key for key in named if any(_has_id(view, one, selection) for one in view.study(key).patients)}
        if not found:
            raise NotFound("the archive has no patient with this ID")
    return sorted(found)


def _has_id(view: View, patient: int, selection: Selection) -> bool:
    return str(view.patient(patient).attributes.get("PatientID", "")) == selection.patient_id


def _is_of(archive: Archive, view: View, study: int, ino: int, patient_id: str, owners: dict[int, Owners]) -> bool:
    """Say whether a version is of the patient with this ID."""
    parent = view.instance_inode(ino).parent
    if parent == tables.NOWHERE:  # its study may be another patient's by now
        return value_of(archive, ino, "PatientID") == patient_id
    if study not in owners:
        owners[study] = Owners(view, view.study(study))
    return str(owners[study].of(view, parent).get("PatientID", "")) == patient_id
