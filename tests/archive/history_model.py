"""A simple model of an archive's history: versions in plain lists, and what each command makes of them.

    SOP Instance UID -> [version, version, ...]     the current one first, if any is shown

A version knows what pydicom reads of it (as DICOM JSON, without pixel data and OriginalAttributesSequence), the hash of
its pixels and, once it was seen, of its bytes. The model knows nothing of packs, folds, names or recipes.
"""

from __future__ import annotations

import copy
import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.datadict import tag_for_keyword

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Said = dict[str, dict[str, Any]]
"""A data set as DICOM JSON: by tag."""

_ORIGINAL_ATTRIBUTES = "04000561"
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_PATIENT_MORE = ("PatientComments",)
_STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
_STUDY_MORE = ("StudyDescription",)
_SERIES = ("SeriesNumber",)
_SERIES_MORE = ("SeriesDescription", "SeriesDate", "SeriesTime", "ProtocolName", "BodyPartExamined")
MAKING = 1 << 60
"""Stands for a commit whose number is not known yet; the one after it is that in which an import brings back."""
DELETED, IMPORTED, PRESENT, CONFLICT = "deleted", "imported", "present", "conflict"


class Unlike(AssertionError):
    """The archive is not what the model says."""


def tag(keyword: str) -> str:
    """Return the key of an attribute in DICOM JSON."""
    number = tag_for_keyword(keyword)
    assert number is not None
    return f"{number:08X}"


def seen(data: bytes) -> tuple[Said, str]:
    """Return what pydicom sees in a file: all that it says, and the SHA-256 of its pixels."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    pixels = hashlib.sha256(dataset.PixelData).hexdigest() if "PixelData" in dataset else ""
    for keyword in ("PixelData", "OriginalAttributesSequence"):
        if keyword in dataset:
            del dataset[keyword]
    if dataset.file_meta.MediaStorageSOPInstanceUID != dataset.SOPInstanceUID:
        raise Unlike("the meta information names another instance")
    return dataset.to_json_dict(), pixels


def text(said: Said, keyword: str) -> str:
    """Return the value of an attribute, '' where it has none."""
    values = said.get(tag(keyword), {}).get("Value")
    if not values:
        return ""
    return str(values[0]["Alphabetic"] if isinstance(values[0], dict) else values[0])


def element(keyword: str, value: str) -> dict[str, Any]:
    """Return an element as DICOM JSON has it; no value is ''."""
    dataset = pydicom.Dataset()
    setattr(dataset, keyword, value or None)
    return dict(dataset.to_json_dict()[tag(keyword)])


@dataclass(eq=False, slots=True)
class Version:
    """One version of an instance. What it may say is known before it was seen, its bytes are not always."""

    says: list[Said]
    """All that it may say: several only where a target that it takes values over from contradicts itself."""
    pixels: str
    sha256: str = ""
    ino: int = 0
    shown: bool = True
    since: int = 0
    """The commit that showed it last."""
    out: int = 0
    """The commit that took it out."""
    by: Version | None = None
    """What has its place; None where it was deleted."""
    was_current: bool = False
    forgotten: bool = False

    @property
    def said(self) -> Said:
        """What it says."""
        return self.says[0]

    @property
    def sop(self) -> str:
        """Its SOP Instance UID."""
        return text(self.said, "SOPInstanceUID")

    @property
    def study(self) -> str:
        """Its Study Instance UID."""
        return text(self.said, "StudyInstanceUID")

    @property
    def series(self) -> str:
        """Its Series Instance UID."""
        return text(self.said, "SeriesInstanceUID")

    @property
    def patient(self) -> str:
        """Its Patient ID."""
        return text(self.said, "PatientID")


@dataclass(slots=True)
class Model:
    """An archive."""

    sops: dict[str, list[Version]] = field(default_factory=dict)
    seq: int = MAKING
    """Stands for the commit in the making, until it is known."""

    # What there is --------------------------------------------------------------------------------

    def versions(self) -> Iterator[Version]:
        """Walk all that is known."""
        return (one for held in self.sops.values() for one in held if not one.forgotten)

    def shown(self) -> list[Version]:
        """Return all that is shown, in an order that does not depend on anything."""
        return sorted((one for one in self.versions() if one.shown), key=lambda one: (one.sop, one.ino))

    def current(self, sop: str) -> Version | None:
        """Return the current version of a SOP Instance UID, if any is shown."""
        held = self.sops.get(sop, [])
        return held[0] if held and held[0].shown else None

    def is_deleted(self, sop: str) -> bool:
        """Say whether it was deleted, and nothing of it is shown."""
        held = self.sops.get(sop, [])
        return self.current(sop) is None and any(not one.shown and one.by is None for one in held)

    def studies(self) -> dict[str, list[Version]]:
        """Return what is shown by study."""
        return grouped(self.shown(), lambda one: one.study)

    def series(self) -> dict[str, list[Version]]:
        """Return what is shown by series."""
        return grouped(self.shown(), lambda one: one.series)

    def of(self, sha256: str) -> Version | None:
        """Return the latest version that has these bytes."""
        held = [one for one in self.versions() if one.sha256 == sha256]
        return max(held, key=lambda one: one.ino, default=None)

    def clone(self) -> Model:
        """Return a model of a copy."""
        return copy.deepcopy(self)

    # Changes --------------------------------------------------------------------------------------

    def _add(self, one: Version, *, first: bool = False) -> None:
        held = self.sops.setdefault(one.sop, [])
        if one in held:
            held.remove(one)
        held.insert(0 if first else len(held), one)
        self._settle(one.sop)

    def _settle(self, sop: str) -> None:
        self.sops[sop].sort(key=lambda one: not one.shown)

    def _take_out(self, one: Version, by: Version | None) -> bool:
        """Take a version out; say whether it was the current one."""
        was_current = self.current(one.sop) is one
        one.shown, one.by, one.out, one.was_current = False, by, self.seq, was_current
        self._settle(one.sop)
        return was_current

    def _come(self, one: Version, replaces: Version | None = None) -> None:
        one.since = self.seq
        first = replaces is not None and self._take_out(replaces, one) and replaces.sop == one.sop
        self._add(one, first=first)

    def _back(self, one: Version, replaces: Version | None) -> None:
        if replaces is not None:
            self._take_out(replaces, one)
        one.shown, one.since, one.by = True, self.seq, None
        self._add(one, first=replaces is not None or one.was_current)

    def import_file(self, data: bytes, on_conflict: str, *, restore_deleted: bool) -> str:
        """Import a file; return what becomes of it."""
        said, pixels = seen(data)
        sha256 = hashlib.sha256(data).hexdigest()
        sop = text(said, "SOPInstanceUID")
        same, earlier = self.of(sha256), self.current(sop)
        if self.is_deleted(sop):
            if not restore_deleted:
                return DELETED
            if same is not None:
                if not same.shown:
                    self.seq += 1
                    self._back(same, self.successor(same))
                    self.seq -= 1
                return IMPORTED
        elif same is not None and (same.shown or on_conflict != "replace"):
            return PRESENT
        if earlier is not None and on_conflict in ("skip", "error"):
            return CONFLICT
        replaces = earlier if on_conflict == "replace" else None
        self._come(Version([said], pixels, sha256), replaces)
        return CONFLICT if earlier is not None else IMPORTED

    def replace(self, one: Version, data: bytes) -> None:
        """Put a file in the place of an instance."""
        said, pixels = seen(data)
        self._come(Version([said], pixels, hashlib.sha256(data).hexdigest()), one)

    def delete(self, chosen: Iterable[Version]) -> None:
        """Delete what is shown of these."""
        for one in list(chosen):
            if one.shown:
                self._take_out(one, None)

    def successor(self, one: Version) -> Version | None:
        """Return what is shown in the place of an earlier version."""
        seen: set[int] = set()
        while not one.shown:
            if one.by is None or id(one) in seen:
                return None
            seen.add(id(one))
            one = one.by
        return one

    def restorable(self, named: list[Version]) -> list[Version]:
        """Return the versions that come back where these are named: deleted last, with nothing shown in their stead."""
        gone = [one for one in named if not one.shown and one.by is None and self.current(one.sop) is None]
        last: dict[str, int] = {}
        for one in gone:
            last[one.sop] = max(last.get(one.sop, 0), one.out)
        return sorted((one for one in gone if one.out == last[one.sop]), key=lambda one: one.ino)

    def restore(self, back: Iterable[Version]) -> None:
        """Bring deleted ones back."""
        for one in back:
            self._back(one, self.successor(one))

    def restore_version(self, one: Version) -> None:
        """Bring back one version into the place of what is shown."""
        since = [] if one.by is not None else self._since(one.sop, one.out)
        self._back(one, self.successor(one) or (since[0] if since else None))

    def _since(self, sop: str, seq: int) -> list[Version]:
        return [one for one in self.sops[sop] if one.shown and one.since > seq]

    def undoable(self, taken_out: Iterable[Version], seq: int) -> list[Version]:
        """Return which of these, that a commit took out, come back when it is undone."""
        found = []
        for one in taken_out:
            if one.forgotten or one.shown or one.out != seq:
                continue
            if one.by is None:
                if not self._since(one.sop, seq):
                    found.append(one)
            elif one.by.shown and one.by.since == seq:
                found.append(one)
        return sorted(found, key=lambda one: one.ino)

    # Edits ----------------------------------------------------------------------------------------

    def edit(
        self,
        members: Iterable[Version],
        values: Mapping[str, str | None],
        uids: Mapping[str, str] | None = None,
        taken: list[dict[str, str | None]] | None = None,
        patients: Iterable[str] = (),
    ) -> tuple[int, int]:
        """Edit these: `values` by keyword, '' empties, None removes; `taken` are alternatives of what is taken over.

        Whatever else is shown in studies of `patients` names changed UIDs by their new values. Return how many were
        edited, and how many because they refer.
        """
        members = list(members)
        others = self._beside(members, set(patients)) if uids else []
        alternatives = [one | dict(values) for one in taken or [{}]]
        edited = sum(self._edit(one, alternatives, uids or {}) for one in members)
        return edited, sum(self._edit(one, [{}], uids or {}) for one in others)

    def _beside(self, members: list[Version], patients: set[str]) -> list[Version]:
        known = {id(one) for one in members}
        return [
            one for held in self.studies().values() if patients & {one.patient for one in held} for one in held
            if id(one) not in known
        ]  # fmt: skip

    def _edit(self, one: Version, alternatives: list[dict[str, str | None]], uids: Mapping[str, str]) -> bool:
        made: list[Said] = []
        for values in alternatives:
            said = renamed(one.said, uids, {tag(keyword) for keyword in values})
            for keyword, value in values.items():
                if value is None:
                    said.pop(tag(keyword), None)
                elif value or "Value" in said.get(tag(keyword), {"Value": 0}):
                    said[tag(keyword)] = element(keyword, value)
            if said not in made:
                made.append(said)
        if made == [one.said]:
            return False
        new = Version(made, one.pixels)
        self._come(new, one)
        return True

    def taken_from_patient(self, patient: str) -> list[dict[str, str | None]]:
        """Return what is taken over by what becomes a patient's: one of these."""
        held = [one for one in self.shown() if one.patient == patient]
        return taken(held, _PATIENT, _PATIENT_MORE)

    def taken_from_study(self, study: str) -> list[dict[str, str | None]]:
        """Return what is taken over by what becomes a part of a study: one of these."""
        return taken(self.studies()[study], (*_PATIENT, *_STUDY), (*_PATIENT_MORE, *_STUDY_MORE))

    def taken_from_series(self, series: str) -> list[dict[str, str | None]]:
        """Return what is taken over by what becomes a part of a series: one of these."""
        held = self.series()[series]
        own = taken(held, _SERIES, _SERIES_MORE)
        return [one | other for one in own for other in self.taken_from_study(held[0].study)]

    # What is forgotten, and what was seen ---------------------------------------------------------

    def forget(self, gone: Iterable[Version]) -> None:
        """Forget versions; that something was deleted is known for ever."""
        for one in gone:
            one.forgotten = True

    def settle(self, commits: Mapping[int, int], found: Mapping[int, tuple[str, bytes]]) -> None:
        """Compare with what is shown: hash and bytes by inode number; learn what new versions are, and their commits.

        Raise Unlike.
        """
        unknown = dict(found)
        for one in self.shown():
            if one.ino:
                sha256, _ = unknown.pop(one.ino, ("", b""))
                if not sha256:
                    raise Unlike(f"inode {one.ino} of {one.sop} is not shown")
                if sha256 != one.sha256:
                    raise Unlike(f"inode {one.ino} of {one.sop} has other bytes")
        new = {ino: (sha256, *seen(data)) for ino, (sha256, data) in sorted(unknown.items())}
        for one in sorted((one for one in self.versions() if not one.ino), key=lambda one: (one.sop, one.sha256)):
            ino = next(
                (
                    ino for ino, (sha256, said, pixels) in new.items()
                    if (sha256 == one.sha256 if one.sha256 else said in one.says and pixels == one.pixels)
                ),
                0,
            )  # fmt: skip
            if not ino:
                raise Unlike(self._lacking(one, new))
            sha256, said, _ = new.pop(ino)
            one.ino, one.sha256, one.says = ino, sha256, [said]
        if new:
            raise Unlike(f"inodes {sorted(new)} are shown, and should not be")
        for one in self.versions():
            one.since, one.out = commits.get(one.since, one.since), commits.get(one.out, one.out)
            if max(one.since, one.out) >= MAKING:
                raise Unlike(f"no commit says what became of inode {one.ino} of {one.sop}")

    def told(self) -> dict[str, list[tuple[object, ...]]]:
        """Return all of it, to be compared: by SOP Instance UID, the current version first."""
        found: dict[str, list[tuple[object, ...]]] = {}
        for sop, versions in sorted(self.sops.items()):
            held = [_told(one) for one in versions if not one.forgotten]
            if held:
                found[sop] = [held[0], *sorted(held[1:])] if self.current(sop) else sorted(held)
        return found

    def follow(self, other: Model) -> None:
        """Take over in which order versions are that are not current."""
        for sop, versions in self.sops.items():
            order = {one.ino: number for number, one in enumerate(other.sops.get(sop, ()))}
            versions.sort(key=lambda one: order.get(one.ino, len(order)))
            self._settle(sop)


def _told(one: Version) -> tuple[object, ...]:
    past = () if one.shown else (one.out, 0 if one.by is None else one.by.ino, one.was_current)
    return one.ino, one.sha256, one.shown, one.since if one.shown else 0, past


def grouped(versions: Iterable[Version], key: Callable[[Version], str]) -> dict[str, list[Version]]:
    """Return versions by a key."""
    found: dict[str, list[Version]] = {}
    for one in versions:
        found.setdefault(key(one), []).append(one)
    return dict(sorted(found.items()))


def taken(held: Iterable[Version], emptied: Iterable[str], removed: Iterable[str]) -> list[dict[str, str | None]]:
    """Return the different values that these versions have of attributes, as an edit that takes them over."""
    found: list[dict[str, str | None]] = []
    for one in held:
        values: dict[str, str | None] = {keyword: text(one.said, keyword) for keyword in emptied}
        values |= {keyword: text(one.said, keyword) or None for keyword in removed}
        if values not in found:
            found.append(values)
    return found


def renamed(said: Said, uids: Mapping[str, str], but: Iterable[str] = ()) -> Said:
    """Return a data set in which UIDs have other values wherever they are, but for these elements."""
    found: Said = {}
    for key, held in said.items():
        values = held.get("Value", [])
        if held["vr"] == "SQ":
            found[key] = {**held, "Value": [renamed(item, uids) for item in values]} if "Value" in held else held
        elif held["vr"] == "UI" and key not in but and values:
            found[key] = {**held, "Value": [uids.get(value, value) for value in values]}
        else:
            found[key] = held
    return found
