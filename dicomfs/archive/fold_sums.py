"""Fold the sums of series, studies and patients: how many instances each shows, and which show none any more."""

import json
from collections.abc import Iterable, Iterator

from dicomfs.archive import tables
from dicomfs.archive.tables import PAIR, U64
from dicomfs.archive.totals import Totals
from dicomfs.store.index import Table, Transaction


class _Tally:
    __slots__ = ("instances", "size")

    def __init__(self) -> None:
        self.instances = 0
        self.size = 0


class SumsFold:
    """The sums' part of one commit on its way into the catalog. `totals` are those of the archive."""

    def __init__(self, txn: Transaction, held: dict[str, Table], time_ns: int, totals: Totals) -> None:
        self._txn = txn
        self._tables = held
        self._time_ns = time_ns
        self.totals = totals
        self._series: dict[int, _Tally] = {}
        self._studies: dict[int, _Tally] = {}
        self._patients: set[int] = set()
        self._modalities: dict[int, str] = {}
        self.filled: list[tuple[int, str]] = []
        """Study and modality of each series that shows something and did not before."""

    def count(self, series: int, study: int, instances: int, size: int) -> None:
        """Count instances, of `size` bytes, that a series shows more."""
        for tallies, number in ((self._series, series), (self._studies, study)):
            tally = tallies.get(number)
            if tally is None:
                tally = tallies[number] = _Tally()
            tally.instances += instances
            tally.size += size

    def touch_study(self, study: int) -> None:
        """Give a study this commit's time."""
        self._studies.setdefault(study, _Tally())

    def touch_patients(self, patients: Iterable[int]) -> None:
        """Say that patients may have another number of studies."""
        self._patients.update(patients)

    def modality(self, series: int, known: str | None = None) -> str:
        """Return what modality a series has, or take note of it."""
        found = known if known is not None else self._modalities.get(series)
        if found is None:
            value = self._txn.get(U64.pack(series), db=self._tables["series"]) or b""
            found = str(json.loads(value[tables.SERIES.size :] or b"{}").get("Modality", ""))
        self._modalities[series] = found
        return found

    def finish(self) -> tuple[list[int], list[int]]:
        """Bring the sums up to date; return the studies and the series that have a new time."""
        series_of: dict[int, int] = {}
        for number, tally in self._series.items():
            study, more = self._update_series(number, tally)
            series_of[study] = series_of.get(study, 0) + more
        for number in series_of:
            self._studies.setdefault(number, _Tally())
        for number, tally in self._studies.items():
            self._update_study(number, tally, series_of.get(number, 0))
        for patient in self._patients:
            self._update_patient(patient)
        return sorted(self._studies), sorted(self._series)

    def _update_series(self, number: int, tally: _Tally) -> tuple[int, int]:
        """Return the study, and how many series more it has that show something."""
        value = self._txn.get(U64.pack(number), db=self._tables["series"]) or b""
        study, instances, size, _ = tables.SERIES.unpack_from(value)
        now = instances + tally.instances
        fixed = tables.SERIES.pack(study, now, size + tally.size, self._time_ns)
        self._txn.put(U64.pack(number), fixed + value[tables.SERIES.size :], db=self._tables["series"])
        more = bool(now) - bool(instances)
        if more > 0:
            self.filled.append((study, self.modality(number)))
        self.totals.series += more
        return study, more

    def _update_study(self, number: int, tally: _Tally, more: int) -> None:
        value = self._txn.get(U64.pack(number), db=self._tables["study"]) or b""
        patient, series, instances, size, _ = tables.STUDY.unpack_from(value)
        now = instances + tally.instances
        fixed = tables.STUDY.pack(patient, series + more, now, size + tally.size, self._time_ns)
        self._txn.put(U64.pack(number), fixed + value[tables.STUDY.size :], db=self._tables["study"])
        if bool(now) is not bool(instances):
            self.totals.studies += 1 if now else -1
            self._patients.update(self._below("study_patient", number))

    def _update_patient(self, number: int) -> None:
        """Note of a patient whether there is something to show."""
        key, emptied = U64.pack(number), self._tables["emptied"]
        was_empty = self._txn.get(key, db=emptied) is not None
        is_empty = not any(self._has_instances(study) for study in self._below("under", number))
        if is_empty and not was_empty:
            self._txn.put(key, b"", db=emptied)
            self.totals.patients -= 1
        elif was_empty and not is_empty:
            self._txn.delete(key, db=emptied)
            self.totals.patients += 1

    def _has_instances(self, study: int) -> bool:
        value = self._txn.get(U64.pack(study), db=self._tables["study"])
        return value is not None and bool(tables.STUDY.unpack_from(value)[2])

    def _below(self, table: str, number: int) -> Iterator[int]:
        cursor = self._txn.cursor(db=self._tables[table])
        if cursor.set_range(PAIR.pack(number, 0)):
            for key, _ in cursor.iternext():
                of, below = PAIR.unpack(key)
                if of != number:
                    return
                yield below
