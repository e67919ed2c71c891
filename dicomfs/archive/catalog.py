"""Read the catalog: one state of the archive, seen through one short read transaction."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from typing import NamedTuple, TypeAlias

from dicomfs.archive import names, tables
from dicomfs.archive.by_project import ByProject
from dicomfs.archive.records import Attributes
from dicomfs.archive.tables import CHILD, DERIVED, DIRECTORY, PAIR, U64
from dicomfs.archive.totals import Totals
from dicomfs.errors import Damaged, NotFound

Child: TypeAlias = tuple[bytes, int, bool, int, int, int, int]
"""(name, inode, is a directory, size, mtime in ns, links, inode again: the place from which a listing goes on)"""

MAX_DEPTH = 64
"""No directory lies deeper; a damaged one may be its own ancestor."""

_KNOWN_NAMES = 4096
_known_names: set[bytes] = set()
"""Names found possible lately: most series call their files alike, and this is asked for every file of a walk."""

_DATE_RANGE = re.compile(r"(\d{8})?-(\d{8})?").fullmatch


class Node(NamedTuple):
    """A directory or a file, an instance or derived from one, as a filesystem sees it."""

    ino: int
    is_directory: bool
    size: int
    mtime_ns: int
    subdirectories: int
    parent: int
    is_derived: bool = False
    """Whether it was made of an instance for a project, whose only name it then has."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient: all that share PatientID and its issuer, or one study where there is no PatientID."""

    key: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Study:
    """A study; `patients` are all that its instances name, `patient` is the first of them."""

    key: int
    patient: int
    patients: tuple[int, ...]
    attributes: Attributes
    modalities: tuple[str, ...]
    series: int
    instances: int
    size: int
    mtime_ns: int
    mixed: bool = False
    """Whether instances differ from it (or from its patient or series) in attributes of the catalog."""


@dataclass(frozen=True, slots=True)
class Series:
    """A series of one study."""

    key: int
    study: int
    attributes: Attributes
    instances: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One imported file; `current` is False where another file of its SOP Instance UID came first."""

    ino: int
    series: int
    attributes: Attributes
    size: int
    sha256: bytes
    mtime_ns: int
    current: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since a commit: `complete` is False where that is too long ago to tell."""

    seq: int
    directories: frozenset[int]
    removed: tuple[tuple[int, bytes], ...]
    studies: frozenset[int]
    series: frozenset[int]
    displaced: tuple[int, ...]
    """Instances in whose places others are now."""
    complete: bool


class View(ByProject):
    """The catalog at one commit. Belongs to one thread; never held across an await."""

    __slots__ = ()

    def node(self, ino: int) -> Node | None:
        """Return a directory or a file by inode number."""
        value = self._txn.get(U64.pack(ino), db=self._tables["inode"])
        if value is None:
            return None
        if value[0] == DIRECTORY:
            _, parent, mtime_ns, subdirectories = tables.DIRECTORY_INODE.unpack_from(value)
            return Node(ino, True, 0, mtime_ns, subdirectories, parent)
        kind, parent, size, mtime_ns, *_ = tables.INSTANCE_INODE.unpack_from(value)
        return Node(ino, False, size, mtime_ns, 0, parent, kind == DERIVED)

    def child(self, parent: int, name: bytes) -> Node | None:
        """Return the entry of a directory that has exactly this name."""
        ino = self._txn.get(tables.name_key(parent, name), db=self._tables["name"])
        if ino is None:
            return None
        value = self._txn.get(U64.pack(parent) + ino, db=self._tables["child"])
        if value is None or value[CHILD.size :] != name:
            return None
        kind, size, mtime_ns, subdirectories = CHILD.unpack_from(value)
        number = U64.unpack(ino)[0]
        return Node(number, kind == DIRECTORY, size, mtime_ns, subdirectories, parent, kind == DERIVED)

    def children(self, parent: int, after: int, links: int, leave_out: Callable[[int], None]) -> Iterator[Child]:
        """Walk a directory in the order of inode numbers, past the one given: one cursor scan.

        `links` is what instances have, while derived files have one; `leave_out` is told of each entry whose name no
        file can have.
        """
        cursor = self._txn.cursor(db=self._tables["child"])
        if not cursor.set_range(PAIR.pack(parent, after + 1)):
            return
        # Local names: this runs once for each file of a walk.
        unpack, fixed, pair, directory, derived = CHILD.unpack_from, CHILD.size, PAIR.unpack, DIRECTORY, DERIVED
        known, possible = _known_names, names.possible
        for key, value in cursor.iternext():
            above, ino = pair(key)
            if above != parent:
                return
            kind, size, mtime_ns, subdirectories = unpack(value)
            name = value[fixed:]
            if name not in known:
                if not possible(name):
                    leave_out(ino)
                    continue
                if len(known) >= _KNOWN_NAMES:
                    known.clear()
                known.add(name)
            if kind == directory:
                yield name, ino, True, 0, mtime_ns, 2 + subdirectories, ino
            else:
                yield name, ino, False, size, mtime_ns, links if kind != derived else 1, ino

    def path(self, ino: int) -> str:
        """Return the path of a directory or a file below the mount point; '' for an earlier version."""
        parts: list[str] = []
        while ino not in (tables.ROOT, tables.ROOT_PATIENTS, tables.ROOT_PROJECTS):
            if ino == tables.NOWHERE:
                return ""
            value = self._txn.get(U64.pack(ino), db=self._tables["inode"])
            if value is None:
                raise NotFound(f"no file or directory has inode number {ino}")
            _, parent = tables.DIRECTORY_INODE.unpack_from(value)[:2]
            if parent == tables.NOWHERE:
                return ""  # what was forgotten since has no name that a file can have
            fixed = tables.DIRECTORY_INODE.size if value[0] == DIRECTORY else tables.INSTANCE_INODE.size
            name = value[fixed:]
            # Paths are joined to real directories, and the archive may be somebody else's work.
            if not names.possible(name) or len(parts) == MAX_DEPTH:
                raise Damaged(f"inode {ino} has a place in the tree that no file can have; run 'dicomfs check'")
            parts.append(name.decode())
            ino = parent
        if ino != tables.ROOT:
            parts.append("patients" if ino == tables.ROOT_PATIENTS else "projects")
        return "/".join(reversed(parts))

    def patient(self, key: int) -> Patient:
        """Return a patient."""
        return Patient(key, json.loads(self._get("patient", key)))

    def study(self, key: int) -> Study:
        """Return a study."""
        value = self._get("study", key)
        patient, series, instances, size, mtime_ns = tables.STUDY.unpack_from(value)
        held = json.loads(value[tables.STUDY.size :])
        patients = tuple(self._below("study_patient", key))
        return Study(
            key, patient, patients, held["attributes"], tuple(held["modalities"]), series, instances, size, mtime_ns,
            held["mixed"],
        )  # fmt: skip

    def series(self, key: int) -> Series:
        """Return a series."""
        value = self._get("series", key)
        study, instances, size, mtime_ns = tables.SERIES.unpack_from(value)
        return Series(key, study, json.loads(value[tables.SERIES.size :]), instances, size, mtime_ns)

    def instance(self, ino: int) -> Instance:
        """Return an instance; raise NotFound where the number is not that of one."""
        inode = self.instance_inode(ino)
        attributes = json.loads(self._get("instance", inode.series, ino))
        first = self._txn.get(tables.sop_key(str(attributes["SOPInstanceUID"])), db=self._tables["sop"]) or b""
        current = first[:8] == U64.pack(ino)
        return Instance(ino, inode.series, attributes, inode.size, inode.sha256, inode.mtime_ns, current)

    def patients(self) -> Iterator[Patient]:
        """Walk all patients of whom something is shown."""
        numbers, emptied = self._numbers("patient"), self._tables["emptied"]
        return (self.patient(one) for one in numbers if self._txn.get(U64.pack(one), db=emptied) is None)

    def studies(self, after: int = 0) -> Iterator[Study]:
        """Walk all studies of which something is shown, past the one given."""
        return (study for study in map(self.study, self._numbers("study", after)) if study.instances)

    def studies_of(self, patient: int) -> Iterator[Study]:
        """Walk the studies with instances of a patient."""
        return (study for study in map(self.study, self._below("under", patient)) if study.instances)

    def series_of(self, study: int, after: int = 0) -> Iterator[Series]:
        """Walk the series of a study of which something is shown, past the one given."""
        return (series for series in map(self.series, self._below("under", study, after)) if series.instances)

    def instances_of(self, series: int) -> Iterator[Instance]:
        """Walk the instances of a series, earlier versions included."""
        return map(self.instance, self._below("instance", series))

    def numbers_from(self, series: int, after: int) -> Iterator[int]:
        """Walk the numbers of a series' instances past the one given, earlier versions included."""
        return self._below("instance", series, after)

    def shown_instances(self, series: int, after: int = 0) -> Iterator[Instance]:
        """Walk the instances that trees of UIDs show, past the one given: one of each SOP Instance UID."""
        study = tables.SERIES.unpack_from(self._get("series", series))[0]
        hidden = {U64.unpack_from(key, 16)[0] for key in self._hidden(study, series)}
        for ino in self._below("instance", series, after):
            if ino not in hidden and self.instance_inode(ino).parent != tables.NOWHERE:
                yield self.instance(ino)

    def inodes(self, after: int = 0) -> Iterator[int]:
        """Walk the inode numbers of all directories and files, past the one given."""
        return self._numbers("inode", after)

    def studies_where(self, field: str, pattern: str) -> set[int]:
        """Return the studies with a value like this: `*` and `?` match, case does not count.

        Fields are PatientID, PatientName, StudyInstanceUID, AccessionNumber, Modality and
        StudyDate, which also takes a range YYYYMMDD-YYYYMMDD with either end left open.
        """
        dates = _DATE_RANGE(pattern) if field == "StudyDate" else None
        if dates is not None and pattern != "-":
            return self._between(field, dates[1] or "", dates[2] or "99999999")
        return self._like(field, pattern)

    def series_where_uid(self, pattern: str) -> set[int]:
        """Return the series with a SeriesInstanceUID like this."""
        return self._like("SeriesInstanceUID", pattern)

    def ino_of_file(self, sha256: bytes) -> int | None:
        """Return the instance whose file has this SHA-256."""
        value = self._txn.get(sha256, db=self._tables["file"])
        return None if value is None else int(U64.unpack(value)[0])

    def totals(self) -> Totals:
        """Return the sums over the archive."""
        return Totals.decode(self._txn.get(b"totals", db=self._store.meta_table))

    def changes(self, since: int) -> Changes:
        """Return what changed after commit `since`, so that a mounted drive can forget what it knew."""
        now = self.seq
        if now < since:  # which only another index than the one of `since` can say
            return _unknown(now)
        directories: set[int] = set()
        removed: list[tuple[int, bytes]] = []
        studies: set[int] = set()
        series: set[int] = set()
        displaced: list[int] = []
        for seq in range(since + 1, now + 1):
            value = self._txn.get(U64.pack(seq), db=self._tables["change"])
            if value is None:
                return _unknown(now)
            journal = json.loads(value)
            if "series" not in journal:  # an earlier version of dicomfs wrote it
                return _unknown(now)
            directories.update(journal["directories"])
            studies.update(journal["studies"])
            series.update(journal["series"])
            displaced += journal["displaced"]
            removed += ((parent, name.encode()) for parent, name in journal["removed"])
        return Changes(
            now,
            frozenset(directories),
            tuple(removed),
            frozenset(studies),
            frozenset(series),
            tuple(displaced),
            complete=True,
        )

    def _like(self, field: str, pattern: str) -> set[int]:
        """Scan only the values that begin as the pattern does before its first wildcard."""
        start = re.split(r"[*?]", pattern, maxsplit=1)[0]
        wanted = tables.folded_whole(pattern).decode("utf-8", "surrogateescape")
        matches = re.compile(translate(wanted.replace("[", "[[]"))).fullmatch
        prefix = tables.find_prefix(field, start)
        exact = start == pattern
        found: set[int] = set()
        for key in self._keys("find", prefix + b"\0" if exact else prefix, prefix + b"\0" if exact else prefix):
            number = U64.unpack_from(key, len(key) - 8)[0]
            values = [key[1:-9]]
            if len(values[0]) >= tables.MAX_VALUE_KEY:
                values = [tables.folded_whole(value) for value in self._values(field, number)]
            if any(matches(value.decode("utf-8", "surrogateescape")) for value in values):
                found.add(number)
        return found

    def _values(self, field: str, number: int) -> Iterator[str]:
        """Walk the values by which the `find` table leads to a study or series."""
        if field == "SeriesInstanceUID":
            held = [self.series(number).attributes]
        elif field == "Modality":
            held = [series.attributes for series in self.series_of(number)]
        elif field in ("PatientID", "PatientName"):
            held = [self.patient(patient).attributes for patient in self.study(number).patients]
        else:
            held = [self.study(number).attributes]
        return (str(attributes.get(field, "")) for attributes in held)

    def _between(self, field: str, first: str, last: str) -> set[int]:
        field_key = tables.find_prefix(field, "")
        found: set[int] = set()
        for key in self._keys("find", field_key + first.encode(), field_key):
            value = key[1:-9]
            if value > last.encode() and not value.startswith(last.encode()):
                break
            if value:
                found.add(U64.unpack_from(key, len(key) - 8)[0])
        return found


def _unknown(seq: int) -> Changes:
    return Changes(seq, frozenset(), (), frozenset(), frozenset(), (), complete=False)
