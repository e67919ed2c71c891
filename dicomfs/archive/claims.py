"""Claim names and numbers for what an import brings: decided once, written in the commit, kept for ever.

First come keeps the plain name, a clash gets a `~hash` suffix; nothing is renamed because later
data arrived. `vfs` only shows what was claimed here.
"""

from typing import Final, NamedTuple

from dicomfs.archive import tables
from dicomfs.archive.catalog import View
from dicomfs.archive.fold import Fold
from dicomfs.archive.layout import PATIENTS
from dicomfs.archive.layout_values import patient_identity
from dicomfs.archive.placing import Placing, free_name
from dicomfs.archive.records import InstanceRow, Records
from dicomfs.archive.splitting import Levels, Row
from dicomfs.archive.tables import PAIR, ROOT_PATIENTS, U64
from dicomfs.store.index import Transaction
from dicomfs.store.store import Store

_KEPT: Final = 4096


class _SeriesPlace(NamedTuple):
    study: int
    series: int
    directory: int
    attributes: dict[str, str | int]
    """What the catalog says of patient, study and series."""


class _Before(NamedTuple):
    """What the instance before said of patient, study and series, and what followed from it."""

    patient: dict[str, str | int]
    study_attributes: dict[str, str | int]
    series_attributes: dict[str, str | int]
    study: int
    series: int
    directory: int
    said: dict[str, str | int]
    differences: dict[str, str | int]


class Claims:
    """Places the instances of one import, commit after commit. Belongs to one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables = store.index.tables
        self._known: dict[bytes, int] = {}
        self._pairs: set[tuple[int, int]] = set()
        self.stale: set[int] = set()
        """Series of this commit that may be said to be what they are no more, as their studies and patients may."""
        self._new_studies: set[int] = set()
        self._series_places: dict[tuple[str, str, str], _SeriesPlace] = {}
        self._before: _Before | None = None
        self._placing = Placing(store)

    def begin(self, txn: Transaction, fold: Fold, records: Records) -> None:
        """Go on with the next commit."""
        self._txn, self._fold, self._records = txn, fold, records
        self._placing.begin(txn, fold, records)
        if len(self._known) > _KEPT or self.stale:
            self._known.clear()
            self._pairs.clear()
            self._series_places.clear()
            self._before = None
        self.stale.clear()
        self._new_studies.clear()

    def place(
        self,
        row: Row,
        body_offset: int,
        new_bulk: int,
        new_stored: int,
        new_base: int,
        *,
        conflict: bool,
        replaces: int,
        keep_name: bool = True,
        linked: bool = True,
    ) -> InstanceRow:
        """Give an instance its place in the catalog and in the readable tree.

        `conflict`: another file of its SOP Instance UID is there; `replaces`: it takes that one's place, and in the
        same directory its name, unless it shall not `keep_name`. One that is not `linked` has no place in layouts.
        """
        own = row.attributes.instance
        place = self._place_of(row.attributes)
        parent = place.directory
        if replaces:
            before = self._txn.get(U64.pack(replaces), db=self._tables["inode"]) or b""
            self.stale |= {tables.InstanceInode.parse(before).series, place.series}
        sha256 = row.sha256.hex()
        identity = sha256 if conflict else str(own["SOPInstanceUID"])
        said = place.said | own
        rendered = PATIENTS.render_level(3, said, identity)
        plain = not conflict or bool(replaces)
        name = (replaces and keep_name and self._replaced_name(replaces, parent)) or free_name(
            self._txn, self._tables["name"], parent, rendered, identity, plain=plain
        )
        # They are gone once the instance is folded.
        places = self._placing.places(replaces) if replaces else {}
        placed = InstanceRow(
            self._fold.next, place.series, place.study, parent, name, row.size, sha256, row.base.hex(), body_offset,
            len(row.body), row.literal_length, new_bulk, new_stored, new_base, replaces,
            own | place.differences if place.differences else own,
        )  # fmt: skip
        self._records.add(placed, self._fold.instance(placed))
        for root, layout in self._placing.at_once(places) if linked else ():
            self._placing.place(placed.ino, root, layout, said, identity, plain=plain, before=places)
        return placed

    def _place_of(self, attributes: Levels) -> _Before:
        """Return where an instance belongs: most come after another that says the same, in the same dictionaries."""
        before = self._before
        patient, study, series, own = attributes
        if (
            before is not None
            and patient is before.patient
            and study is before.study_attributes
            and series is before.series_attributes
        ):
            return before
        said = patient | study | series
        place = self._series_place(attributes, said | own)
        found = differences(said, place.attributes)
        self._before = _Before(patient, study, series, place.study, place.series, place.directory, said, found)
        return self._before

    def _series_place(self, attributes: Levels, merged: dict[str, str | int]) -> _SeriesPlace:
        """Return study, series and directory of an instance."""
        study_uid = str(attributes.study["StudyInstanceUID"])
        series_uid = str(attributes.series["SeriesInstanceUID"])
        patient_text = patient_identity(attributes.patient, study_uid)
        known = self._series_places.get((patient_text, study_uid, series_uid))
        if known is not None:
            return known
        patient = self._patient(patient_text, attributes.patient)
        study = self._study(study_uid, patient, attributes.study)
        self._study_patient(study, patient)
        series = self._series(series_uid, study, attributes.series)
        view = View(self._store, self._txn)
        if study not in self._new_studies and not view.study(study).instances:
            self.stale.add(series)  # nothing of the study was shown any more
        parent = ROOT_PATIENTS
        for level, text in enumerate((patient_text, study_uid, series_uid)):
            parent = self._directory(parent, level, text, merged)
        above = view.patient(patient).attributes | view.study(study).attributes | view.series(series).attributes
        place = _SeriesPlace(study, series, parent, above)
        self._series_places[patient_text, study_uid, series_uid] = place
        return place

    def _number(self, key: bytes) -> int | None:
        known = self._known.get(key)
        if known is None:
            value = self._txn.get(key, db=self._tables["identity"])
            if value is None:
                return None
            known = self._known[key] = U64.unpack(value)[0]
        return known

    def _new(self, key: bytes) -> int:
        number = self._known[key] = self._fold.next
        return number

    def _patient(self, text: str, attributes: dict[str, str | int]) -> int:
        key = tables.identity_key("patient", 0, text)
        number = self._number(key)
        if number is None:
            number = self._new(key)
            self._records.patients.append((number, key.hex(), attributes))
            self._fold.patient(number, key.hex(), attributes)
        return number

    def _study(self, uid: str, patient: int, attributes: dict[str, str | int]) -> int:
        key = tables.identity_key("study", 0, uid)
        number = self._number(key)
        if number is None:
            number = self._new(key)
            self._new_studies.add(number)
            self._records.studies.append((number, key.hex(), patient, attributes))
            self._fold.study(number, key.hex(), patient, attributes)
        return number

    def _study_patient(self, study: int, patient: int) -> None:
        if (study, patient) in self._pairs:
            return
        self._pairs.add((study, patient))
        if self._txn.get(PAIR.pack(patient, study), db=self._tables["under"]) is None:
            self._records.study_patients.append((study, patient))
            self._fold.study_patient(study, patient)

    def _series(self, uid: str, study: int, attributes: dict[str, str | int]) -> int:
        key = tables.identity_key("series", study, uid)
        number = self._number(key)
        if number is None:
            number = self._new(key)
            self._records.series.append((number, key.hex(), study, attributes))
            self._fold.series(number, key.hex(), study, attributes)
        return number

    def _directory(self, parent: int, level: int, text: str, attributes: dict[str, str | int]) -> int:
        key = tables.identity_key("directory", parent, text)
        number = self._number(key)
        if number is None:
            name = free_name(
                self._txn, self._tables["name"], parent, PATIENTS.render_level(level, attributes, text), text
            )
            number = self._new(key)
            self._records.directories.append((number, key.hex(), parent, name))
            self._fold.directory(number, key.hex(), parent, name)
        return number

    def _replaced_name(self, replaces: int, parent: int) -> str:
        """Return the name of the instance that is replaced if the new one belongs into the same directory, or ''."""
        value = self._txn.get(U64.pack(replaces), db=self._tables["inode"]) or b""
        old = tables.InstanceInode.parse(value)
        return value[tables.INSTANCE_INODE.size :].decode() if old.parent == parent else ""


def differences(said: dict[str, str | int], above: dict[str, str | int]) -> dict[str, str | int]:
    """Return in what an instance differs from its patient, study and series; '' where it says nothing."""
    if said == above:
        return {}
    return {key: said.get(key, "") for key in sorted(said.keys() | above.keys()) if said.get(key) != above.get(key)}
