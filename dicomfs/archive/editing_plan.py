"""What an edit is to change in each instance, from what was asked: other patients, studies, series and UIDs.

An instance that is put into an existing patient, study or series takes over what that is said to be, so that the
catalog says one thing of it. What names the patient that it was of, and the target does not have, goes.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive.editing_selection import Member, Selection, other_versions, select
from dicomfs.archive.values import values_of
from dicomfs.dicom.attributes import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from dicomfs.dicom.dictionary import keyword_tag
from dicomfs.dicom.edit import Changes
from dicomfs.dicom.edit_settings import is_uid, parse_setting
from dicomfs.errors import NotFound, Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View

NEW: Final = "new"
"""In the place of a UID: one that is made (PS3.5 B.2)."""
_IDENTITY: Final = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)
_UNDECODED: Final = re.compile("[\ufffd\ud800-\udfff]")

# Attributes that identify and describe; of each level those of type 2 first, which are emptied where the target has
# none, and then those of type 3, which are removed (PS3.3 C.7.1.1, C.7.2.1, C.7.3.1).
_PATIENT: Final = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_PATIENT_MORE: Final = (
    "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthTime", "OtherPatientIDs", "OtherPatientNames",
    "PatientBirthName", "PatientMotherBirthName", "MedicalRecordLocator", "EthnicGroup", "PatientAddress",
    "PatientTelephoneNumbers", "CountryOfResidence", "RegionOfResidence", "MilitaryRank", "BranchOfService",
    "PatientReligiousPreference", "PatientComments",
)  # fmt: skip
_PATIENT_SEQUENCES: Final = (
    "ReferencedPatientSequence",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
)
"""Those of another patient go, and are not taken over."""
_STUDY: Final = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
_STUDY_MORE: Final = ("StudyDescription",)
_SERIES: Final = ("SeriesNumber",)
_SERIES_MORE: Final = (
    "SeriesDescription", "SeriesDate", "SeriesTime", "ProtocolName", "BodyPartExamined",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
)  # fmt: skip
_PATIENT_ID: Final = 0x00100020
_NEEDED: Final = ("PatientName", "PatientBirthDate", "PatientSex")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be done with what is chosen; a UID may be NEW, None is nothing."""

    set: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    empty: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    to_patient: str | None = None
    to_issuer: str | None = None
    new_study: str | None = None
    new_series: str | None = None
    new_sop: str | None = None
    into_study: str | None = None
    into_series: str | None = None
    reason_code: str = "CORRECT"

    def require(self) -> None:
        """Raise UsageError where nothing is asked, or what contradicts itself."""
        if not (self.set or self.empty or self.remove or self._moves or self.changes_uids):
            raise UsageError(
                "nothing is to be done: use --set KEYWORD=VALUE, --empty, --remove, --move-to-patient, --new-study-uid,"
                " --new-series-uid, --new-sop-uids, --into-study, --into-series or --replace-with"
            )
        for one, other, what in (
            (self.new_study, self.into_study, "--new-study-uid and --into-study"),
            (self.new_series, self.into_series, "--new-series-uid and --into-series"),
        ):
            if one is not None and other is not None:
                raise UsageError(f"{what} both say which UID it gets; use one of them")
        if self.to_issuer is not None and self.to_patient is None:
            raise UsageError("--to-issuer goes with --move-to-patient")
        if any(tag in self.set for tag in _IDENTITY):
            raise UsageError(
                "UIDs that make an instance are changed by --new-study-uid, --new-series-uid, --new-sop-uids,"
                " --into-study and --into-series, so that what refers to them follows"
            )

    @property
    def changes_uids(self) -> bool:
        """Whether studies, series or instances get other UIDs."""
        return any((self.new_study, self.new_series, self.new_sop, self.into_study, self.into_series))

    @property
    def _moves(self) -> bool:
        return self.to_patient is not None


class Plan(NamedTuple):
    """What an edit does: `changes` to the members; others of these patients may refer to UIDs that it changes."""

    changes: Changes
    members: list[Member]
    patients: frozenset[int]
    warning: str
    """What the user should know of it, or empty."""


def plan(archive: Archive, members: list[Member], asked: Asked) -> Plan:
    """Say what is to be changed; raise UsageError, NotFound or Refused where it cannot be."""
    asked.require()
    with archive.view() as view:
        return _Planning(archive, view, members, asked).plan()


class _Planning:
    def __init__(self, archive: Archive, view: View, members: list[Member], asked: Asked) -> None:
        self._archive, self._view, self._asked = archive, view, asked
        # An instance has one SOP Instance UID in all of its versions.
        self._members = [*members, *other_versions(view, members)] if asked.new_sop else members
        self._set: dict[int, tuple[str, ...]] = {}
        self._empty: set[int] = set()
        self._remove: set[int] = set()
        self._uids: dict[str, str] = {}
        self._explicit = frozenset((*asked.set, *asked.empty, *asked.remove))
        self._patients = {patient for key in {one.study for one in members} for patient in view.study(key).patients}
        counts = Counter(one.study for one in self._members)
        self._studies = {key: count == view.study(key).instances for key, count in counts.items()}
        """Whether all of a study is chosen."""
        counts = Counter(one.series for one in self._members)
        self._series = {key: count == view.series(key).instances for key, count in counts.items()}

    def plan(self) -> Plan:
        asked = self._asked
        into_existing = self._into()
        if asked.to_patient is not None:
            if into_existing:
                raise UsageError("--move-to-patient does not go with a study or series that exists: that has a patient")
            if not all(self._studies.values()) and not asked.into_study:
                raise UsageError(
                    "whole studies are moved to another patient; a part of one has to become a study of its own:"
                    " add --into-study new"
                )
            self._to_patient(asked.to_patient)
        self._rename()
        try:
            changes = Changes(
                time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                set=self._set | dict(asked.set),
                empty=tuple(sorted({*self._empty, *asked.empty})),
                remove=tuple(sorted({*self._remove, *asked.remove})),
                uids=self._uids,
                reason=asked.reason_code,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        return Plan(changes, self._members, frozenset(self._patients if self._uids else ()), self._left())

    def _left(self) -> str:
        """Tell of instances of the same patients that will say something else of them."""
        becomes_another = _PATIENT_ID in self._explicit or _PATIENT_ID in self._set
        if becomes_another or self._explicit.isdisjoint(map(keyword_tag, _NEEDED)):
            return ""
        studies = {study.key: study.instances for patient in self._patients for study in self._view.studies_of(patient)}
        left = sum(studies.values()) - len(self._members)
        if left <= 0:
            return ""
        return (
            f"{left:,} more of the same patient {'is' if left == 1 else 'are'} not chosen, and may say something else"
            " of that patient: --patient-id chooses all"
        )

    # Patients -------------------------------------------------------------------------------------

    def _to_patient(self, patient_id: str) -> None:
        issuer = self._asked.to_issuer
        ids = [patient_id] if issuer is None else [patient_id, issuer]
        known = {
            str(said.get("IssuerOfPatientID", "")): number
            for study in self._view.studies_where("PatientID", _to_the_letter(patient_id))
            for number in self._view.study(study).patients
            if str((said := self._view.patient(number).attributes).get("PatientID", "")) == patient_id
        }
        if issuer is not None:
            known = {one: number for one, number in known.items() if one == issuer}
        if len(known) > 1:
            raise UsageError("several issuers have given this patient ID: say with --to-issuer which is meant")
        if not known:
            self._to_unknown(ids)
            return
        (told, number), *_ = known.items()
        selection = Selection(where=(("PatientID", _to_the_letter(patient_id)),))
        first = next(
            one for one in select(self._archive, selection) if self._is_of(one.ino, patient_id, told)
        )  # fmt: skip
        self._take_over(first.ino, _PATIENT, _PATIENT_MORE)
        self._join({number})

    def _join(self, patients: Iterable[int]) -> None:
        """Take note of the patients that what is chosen is to be of."""
        if not self._patients.issuperset(patients):
            self._remove |= {tag for tag in map(keyword_tag, _PATIENT_SEQUENCES) if tag not in self._explicit}
        self._patients.update(patients)

    def _is_of(self, ino: int, patient_id: str, issuer: str) -> bool:
        return [one or "" for one in values_of(self._archive, ino, ("PatientID", "IssuerOfPatientID"))] == [
            patient_id, issuer,
        ]  # fmt: skip

    def _to_unknown(self, ids: Sequence[str]) -> None:
        """Make a patient whom the archive does not know of what is told of them."""
        missing = [keyword for keyword in _NEEDED if keyword_tag(keyword) not in self._explicit]
        if missing:
            raise NotFound(
                "the archive knows no such patient; to make one, say the rest with --set (or --empty): "
                + ", ".join(missing)
            )
        self._set |= dict(
            parse_setting(f"{keyword}={value}")
            for keyword, value in zip(("PatientID", "IssuerOfPatientID"), ids, strict=False)
        )
        others = {*map(keyword_tag, (*_PATIENT_MORE, *_PATIENT_SEQUENCES))} - self._explicit - self._set.keys()
        self._remove |= others

    # Studies and series ---------------------------------------------------------------------------

    def _into(self) -> bool:
        """Plan to put what is chosen into another study or series; say whether that exists."""
        asked = self._asked
        if asked.into_series is not None:
            return self._into_series(asked.into_series)
        if asked.into_study is None:
            return False
        if not all(self._series.values()):
            raise UsageError("a part of a series is chosen: add --into-series new, as no series lies in two studies")
        return self._into_study(asked.into_study)

    def _into_series(self, wanted: str) -> bool:
        view, asked = self._view, self._asked
        known = [key for key in self._series_of_uid(wanted) if view.series(key).instances]
        if len(known) > 1:
            raise Refused(f"several studies have a series {wanted}: give one of them a new UID first")
        uid = _made(wanted)
        self._put(SERIES_INSTANCE_UID, uid, "SeriesInstanceUID", self._series, lambda key: view.series(key).attributes)
        if not known:
            if asked.into_study is not None:
                return self._into_study(asked.into_study)
            if len(self._studies) > 1:
                raise UsageError("what is chosen is of several studies: say with --into-study where the series goes")
            return False
        target = view.series(known[0])
        if {str(view.series(key).attributes.get("Modality", "")) for key in self._series} != {
            str(target.attributes.get("Modality", ""))
        }:
            raise Refused("a series has one modality, and what is chosen has another than the series it is to go into")
        study_uid = str(view.study(target.study).attributes.get("StudyInstanceUID", ""))
        if asked.into_study not in (None, study_uid):
            raise Refused(f"series {wanted} is in another study than {asked.into_study}")
        self._take_over(self._first(target.key), _SERIES, _SERIES_MORE)
        return self._into_study(study_uid)

    def _into_study(self, wanted: str) -> bool:
        view = self._view
        target = None if wanted == NEW else view.study_with_uid(wanted)
        uid = _made(wanted)
        if target is None and len(self._patients) > 1 and self._asked.to_patient is None:
            raise Refused("what is chosen is of several patients: a new study has one, add --move-to-patient")
        self._put(STUDY_INSTANCE_UID, uid, "StudyInstanceUID", self._studies, lambda key: view.study(key).attributes)
        if target is None:
            return False
        first = next(iter(view.series_of(target)))
        self._take_over(self._first(first.key), (*_PATIENT, *_STUDY), (*_PATIENT_MORE, *_STUDY_MORE))
        self._join(view.study(target).patients)
        return True

    def _put(
        self, tag: int, uid: str, keyword: str, whole: Mapping[int, bool], said: Callable[[int], Mapping[str, object]]
    ) -> None:
        """Give all members a UID; it stands for the one before everywhere if nothing is left of that."""
        self._set[tag] = (uid,)
        for key, is_whole in whole.items():
            before = str(said(key).get(keyword, ""))
            shared = tag == SERIES_INSTANCE_UID and self._is_elsewhere(before)
            if is_whole and before and before != uid and not shared:
                self._uids[before] = uid

    def _take_over(self, ino: int, emptied: Sequence[str], removed: Sequence[str]) -> None:
        keywords = (*emptied, *removed)
        for keyword, value in zip(keywords, values_of(self._archive, ino, keywords), strict=True):
            tag = keyword_tag(keyword)
            if tag in self._explicit:
                continue
            if value:
                self._set[tag] = _taken(keyword, value)
            elif keyword in emptied:
                self._empty.add(tag)
            else:
                self._remove.add(tag)

    # UIDs -----------------------------------------------------------------------------------------

    def _rename(self) -> None:
        view, asked = self._view, self._asked
        if asked.new_study is not None:
            if not all(self._studies.values()):
                raise UsageError("whole studies get a new UID; --into-study takes a part out of one")
            before = {str(view.study(key).attributes["StudyInstanceUID"]): None for key in self._studies}
            self._renew(asked.new_study, before, "study", lambda uid: view.study_with_uid(uid) is not None)
        if asked.new_series is not None:
            if not all(self._series.values()):
                raise UsageError("whole series get a new UID; --into-series takes a part out of one")
            before = {str(view.series(key).attributes["SeriesInstanceUID"]): None for key in self._series}
            self._renew(asked.new_series, before, "series", lambda uid: bool(self._series_of_uid(uid)))
            self._keep_elsewhere(before)
        if asked.new_sop is not None:
            before = {one.sop_instance_uid: None for one in self._members}
            self._renew(asked.new_sop, before, "instance", self._is_instance)

    def _renew(self, wanted: str, before: Iterable[str], what: str, exists: Callable[[str], bool]) -> None:
        uids = list(before)
        if wanted != NEW and len(uids) > 1:
            raise UsageError(f"one UID is given for {len(uids):,} UIDs; without it, each gets a new one")
        for uid in uids:
            new = _made(wanted)
            if new == uid:
                continue
            if exists(new):
                into = f"; --into-{what} {new} puts what is chosen into it" if what != "instance" else ""
                raise Refused(f"the archive has a {what} with the UID {new} already{into}")
            self._uids[uid] = new

    def _keep_elsewhere(self, before: Mapping[str, object]) -> None:
        """Give chosen series alone their new UID where series that are not chosen, in other studies, have the same."""
        shared = [uid for uid in before if uid in self._uids and self._is_elsewhere(uid)]
        if shared and len(before) > 1:
            raise Refused(
                f"series that are not chosen, in other studies, have the UID {shared[0]} too: choose them, or the one"
                " of this UID alone"
            )
        for uid in shared:
            self._set[SERIES_INSTANCE_UID] = (self._uids.pop(uid),)

    def _is_elsewhere(self, uid: str) -> bool:
        """Say whether a series of this UID, maybe of another study, has something that is not chosen."""
        found = self._series_of_uid(uid)
        return any(not self._series.get(key) and self._view.series(key).instances for key in found)

    def _is_instance(self, uid: str) -> bool:
        return self._view.is_shown(uid) or self._view.is_deleted(uid)

    def _series_of_uid(self, uid: str) -> list[int]:
        return [] if uid == NEW else sorted(self._view.series_where_uid(uid))

    def _first(self, series: int) -> int:
        return next(self._view.shown_instances(series)).ino


def _made(wanted: str) -> str:
    if wanted == NEW:
        return f"2.25.{uuid.uuid4().int}"
    if not is_uid(wanted):
        raise UsageError(f"{wanted!r} is no UID: give one of up to 64 digits and dots, or 'new'")
    return wanted


def _taken(keyword: str, value: str) -> tuple[str, ...]:
    try:
        if _UNDECODED.search(value):
            raise UsageError("it is not cleanly in its character set")
        return parse_setting(f"{keyword}={value}")[1]
    except UsageError as error:
        raise Refused(
            f"{keyword} of the target cannot be taken over as it is: say with --set what it is to be"
        ) from error


def _to_the_letter(text: str) -> str:
    if set(text) & set("*?"):
        raise UsageError("a patient ID with * or ? cannot be moved to; change it with --set PatientID=…")
    return text
