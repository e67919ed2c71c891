"""What trees of UIDs show: studies, series and instances, each found by its UID, one instance for each.

Two files of one SOP Instance UID in one series are both kept, but only the first has a place in such a tree, until
it is replaced. In another series the same UID is another place.
"""

from collections.abc import Iterator

from dicomfs.archive import tables
from dicomfs.archive.by_version import ByVersion
from dicomfs.archive.tables import PAIR, TRIPLE, U64


class ByUid(ByVersion):
    """The catalog at one commit, by UIDs."""

    __slots__ = ()

    def mtime_ns_of_study(self, key: int) -> int:
        """Return when a study was last added to."""
        return int(tables.STUDY.unpack_from(self._get("study", key))[4])

    def mtime_ns_of_series(self, key: int) -> int:
        """Return when a series was last added to."""
        return int(tables.SERIES.unpack_from(self._get("series", key))[3])

    def shown(self, study: int, series: int = 0) -> int:
        """Return how many instances trees of UIDs show of a study, or of one of its series."""
        table, number = ("series", series) if series else ("study", study)
        fixed = tables.SERIES if series else tables.STUDY
        instances = fixed.unpack_from(self._get(table, number))[1 if series else 2]
        return int(instances) - sum(1 for _ in self._hidden(study, series))

    def _hidden(self, study: int, series: int) -> Iterator[bytes]:
        prefix = PAIR.pack(study, series) if series else U64.pack(study)
        return self._keys("hidden", prefix, prefix)

    def study_identified(self, study_instance_uid: str) -> int | None:
        """Return the number of the study with this StudyInstanceUID, whether anything is shown of it or not."""
        return self._identified("study", 0, study_instance_uid)

    def all_series_of(self, study: int) -> Iterator[int]:
        """Walk the numbers of a study's series, those too of which nothing is shown."""
        return self._below("under", study)

    def all_studies_of(self, patient: int) -> Iterator[int]:
        """Walk the numbers of a patient's studies, those too of which nothing is shown."""
        return self._below("under", patient)

    def study_with_uid(self, study_instance_uid: str) -> int | None:
        """Return the number of the study with this StudyInstanceUID, None where nothing is shown of it."""
        found = self.study_identified(study_instance_uid)
        return found if found is not None and self._has_instances("study", found) else None

    def series_with_uid(self, study: int, series_instance_uid: str) -> int | None:
        """Return the number of a study's series with this SeriesInstanceUID, None where nothing is shown of it."""
        found = self._identified("series", study, series_instance_uid)
        return found if found is not None and self._has_instances("series", found) else None

    def _has_instances(self, table: str, number: int) -> bool:
        """Say whether a study or series has anything to show."""
        fixed, at = (tables.STUDY, 2) if table == "study" else (tables.SERIES, 1)
        return bool(fixed.unpack_from(self._get(table, number))[at])

    def patient_identified(self, text: str) -> int | None:
        """Return the number of the patient that this text stands for (`layout_values.patient_identity`)."""
        return self._identified("patient", 0, text)

    def directory_identified(self, parent: int, text: str) -> int:
        """Return the directory for which this text stands in another one, 0 where there is none."""
        return self._identified("directory", parent, text) or 0

    def _identified(self, kind: str, parent: int, text: str) -> int | None:
        value = self._txn.get(tables.identity_key(kind, parent, text), db=self._tables["identity"])
        return None if value is None else int(U64.unpack(value)[0])

    def shown_with_uid(self, series: int, sop_instance_uid: str) -> int | None:
        """Return the instance of a series that trees of UIDs show under this SOP Instance UID."""
        study = tables.SERIES.unpack_from(self._get("series", series))[0]
        for ino in self.instances_where_uid(sop_instance_uid):
            inode = self.instance_inode(ino)
            if inode.series != series or inode.parent == tables.NOWHERE:
                continue
            if self._txn.get(TRIPLE.pack(study, series, ino), db=self._tables["hidden"]) is None:
                return ino
        return None
