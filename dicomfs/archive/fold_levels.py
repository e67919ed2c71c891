"""Fold what commits say of patients, studies and series: which there are, what they say, and what finds them."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypedDict

from dicomfs.archive import tables
from dicomfs.archive.fold_sums import SumsFold
from dicomfs.archive.fold_versions import RestatedStudy
from dicomfs.archive.records import Attributes, as_bytes, encode
from dicomfs.archive.tables import PAIR, U64
from dicomfs.store.index import Table, Transaction


class _Study(TypedDict):
    attributes: Attributes
    modalities: list[str]
    mixed: bool


_DIFFERING: Final = ("PatientName", "AccessionNumber", "StudyDate", "Modality")
"""Attributes with an index in which an instance may differ from its patient, study or series."""
_PARTS: Final = re.compile(r"[\\=]")


class LevelsFold:
    """These levels' part of one commit on its way into the catalog. `next` is the next number to be given out."""

    next: int

    def __init__(self, txn: Transaction, held: dict[str, Table], time_ns: int, sums: SumsFold) -> None:
        self._txn = txn
        self._tables = held
        self._time_ns = time_ns
        self._sums = sums

    def patient(self, number: int, identity: str, attributes: Attributes) -> None:
        """Add a patient."""
        self._txn.put(U64.pack(number), _json(attributes), db=self._tables["patient"])
        self.identify(identity, number)
        self._sums.totals.patients += 1

    def study(self, number: int, identity: str, patient: int, attributes: Attributes) -> None:
        """Add a study below the patient of its first instance."""
        held = {"attributes": attributes, "modalities": [], "mixed": False}
        value = tables.STUDY.pack(patient, 0, 0, 0, self._time_ns) + _json(held)
        self._txn.put(U64.pack(number), value, db=self._tables["study"])
        self.identify(identity, number)
        self._find(number, attributes, ("StudyInstanceUID", "AccessionNumber", "StudyDate"))
        self._sums.touch_study(number)

    def study_patient(self, study: int, patient: int) -> None:
        """Say that instances of the study name this patient; the first is the study's own."""
        self._txn.put(PAIR.pack(patient, study), b"", db=self._tables["under"])
        self._txn.put(PAIR.pack(study, patient), b"", db=self._tables["study_patient"])
        self._sums.touch_patients((patient,))
        value = self._txn.get(U64.pack(patient), db=self._tables["patient"])
        self._find(study, json.loads(value or b"{}"), ("PatientID", "PatientName"))

    def series(self, number: int, identity: str, study: int, attributes: Attributes) -> None:
        """Add a series."""
        txn = self._txn
        modality = str(attributes.get("Modality", ""))
        txn.put(U64.pack(number), tables.SERIES.pack(study, 0, 0, 0) + _json(attributes), db=self._tables["series"])
        txn.put(PAIR.pack(study, number), b"", db=self._tables["under"])
        self.identify(identity, number)
        self._find(number, attributes, ("SeriesInstanceUID",))
        self._find(study, attributes, ("Modality",))
        self._note(study, modality, mixed=False)
        self._sums.touch_study(study)
        self._sums.modality(number, modality)

    def restate(self, what: str, rows: Iterable[Sequence[Any]]) -> None:
        """Say what patients, studies or series are now that their instances say something else."""
        for row in rows:
            if what == "studies":
                self._restate_study(RestatedStudy(*row))
                continue
            number, attributes = row
            key = U64.pack(number)
            if what == "patients":
                self._txn.put(key, _json(attributes), db=self._tables["patient"])
                for study in list(self._below("under", number)):
                    self._find(study, attributes, ("PatientID", "PatientName"))
                continue
            value = self._txn.get(key, db=self._tables["series"]) or bytes(tables.SERIES.size)
            fixed = value[: tables.SERIES.size]
            self._txn.put(key, fixed + _json(attributes), db=self._tables["series"])
            self._sums.modality(number, str(attributes.get("Modality", "")))
            self._find(tables.SERIES.unpack(fixed)[0], attributes, ("Modality",))

    def _restate_study(self, row: RestatedStudy) -> None:
        fixed, _ = self._read_study(row.number)
        held = _Study(attributes=row.attributes, modalities=row.modalities, mixed=row.mixed)
        value = tables.STUDY.pack(row.patient, *fixed[1:]) + _json(held)
        self._txn.put(U64.pack(row.number), value, db=self._tables["study"])
        self._find(row.number, row.attributes, ("AccessionNumber", "StudyDate"))
        before = list(self._below("study_patient", row.number))
        for patient in set(before) - set(row.patients):
            self._txn.delete(PAIR.pack(patient, row.number), db=self._tables["under"])
            self._txn.delete(PAIR.pack(row.number, patient), db=self._tables["study_patient"])
        for patient in sorted(set(row.patients) - set(before)):
            self.study_patient(row.number, patient)
        self._sums.touch_patients({*before, *row.patients})

    def study_of(self, series: int) -> int:
        """Return the study of a series, 0 where that is not known."""
        value = self._txn.get(U64.pack(series), db=self._tables["series"])
        return 0 if value is None else int(tables.SERIES.unpack_from(value)[0])

    def differs(self, study: int, attributes: Attributes) -> None:
        """Note of a study that an instance says other things than it does."""
        self._find(study, attributes, [field for field in _DIFFERING if field in attributes])
        self._note(study, str(attributes.get("Modality", "")), mixed=True)

    def note_filled(self) -> None:
        """Note the modalities of series that show something again, which studies may not have any more."""
        for study, modality in self._sums.filled:
            self._note(study, modality, mixed=False)

    def _below(self, table: str, number: int) -> Iterator[int]:
        cursor = self._txn.cursor(db=self._tables[table])
        if cursor.set_range(PAIR.pack(number, 0)):
            for key, _ in cursor.iternext():
                of, below = PAIR.unpack(key)
                if of != number:
                    return
                yield below

    def identify(self, identity: str, number: int) -> None:
        """Take note of what a directory, patient, study or series is found again by."""
        self._txn.put(bytes.fromhex(identity), U64.pack(number), db=self._tables["identity"])
        if number < tables.LAST_STANDING:
            self.next = max(self.next, number + 1)

    def _find(self, number: int, attributes: Attributes, fields: Iterable[str]) -> None:
        for field in fields:
            value = str(attributes.get(field, ""))
            # One of several values, or one group of a person's name, is enough (PS3.4 C.2.2.2.1).
            parts = _PARTS.split(value)
            for part in {value, *(part.strip() for part in parts if len(parts) > 1)}:
                self._txn.put(tables.find_key(field, part, number), b"", db=self._tables["find"])

    def _note(self, study: int, modality: str, *, mixed: bool) -> None:
        """Note a modality of a study, and that instances of it say other things than it does."""
        fixed, held = self._read_study(study)
        new = bool(modality) and modality not in held["modalities"]
        if new:
            # In order, since a replay sees the series of a commit before its instances.
            held["modalities"] = sorted([*held["modalities"], modality])
        if new or (mixed and not held["mixed"]):
            held["mixed"] = held["mixed"] or mixed
            self._txn.put(U64.pack(study), tables.STUDY.pack(*fixed) + _json(held), db=self._tables["study"])

    def _read_study(self, number: int) -> tuple[tuple[int, ...], "_Study"]:
        value = self._txn.get(U64.pack(number), db=self._tables["study"]) or b""
        return tables.STUDY.unpack_from(value), json.loads(value[tables.STUDY.size :])


def _json(value: object) -> bytes:
    return as_bytes(encode(value))
