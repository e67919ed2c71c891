"""Fold commits into the catalog: the one place where its tables are filled.

An import folds each record as it is made, in the transaction of its commit; `reindex` and recovery
fold the same records read back from the packs. Both go through `Fold`, so both give the same tables.
"""

import json
import re
import struct
from collections.abc import Callable, Iterable
from typing import Final, TypedDict

from dicomfs.archive import fold_attachments, tables
from dicomfs.archive.fold_attachments import Attachment
from dicomfs.archive.fold_layouts import LayoutFold
from dicomfs.archive.fold_projects import DerivedRow, ProjectFold
from dicomfs.archive.records import LEFT_OUT, Attributes, InstanceRow, as_bytes, encode
from dicomfs.archive.tables import CHILD, DIRECTORY, INSTANCE, PAIR, TRIPLE, U64
from dicomfs.archive.totals import Totals
from dicomfs.dicom.attributes import INSTANCE_KEYWORDS
from dicomfs.errors import Damaged
from dicomfs.store.index import Table, Transaction
from dicomfs.store.store import Store


class _Study(TypedDict):
    attributes: Attributes
    modalities: list[str]
    mixed: bool


_DIFFERING: Final = ("PatientName", "AccessionNumber", "StudyDate", "Modality")
"""Attributes with an index in which an instance may differ from its patient, study or series."""
_PARTS: Final = re.compile(r"[\\=]")


class _Tally:
    __slots__ = ("instances", "series", "size")

    def __init__(self) -> None:
        self.instances = 0
        self.series = 0
        self.size = 0


class Fold:
    """One commit on its way into the catalog: any number of records, then `finish`."""

    def __init__(self, store: Store, txn: Transaction, seq: int, time_ns: int) -> None:
        self._store = store
        self._txn = txn
        self._seq = seq
        self._time_ns = time_ns
        self._tables: dict[str, Table] = store.index.tables
        self.totals = Totals.decode(txn.get(b"totals", db=store.meta_table))
        value = txn.get(b"next", db=store.meta_table)
        self.next = tables.FIRST_CLAIMED if value is None else int.from_bytes(value, "big")
        self._directories: dict[int, int] = {}
        self._series: dict[int, _Tally] = {}
        self._studies: dict[int, _Tally] = {}
        self._modalities: dict[int, str] = {}
        self._removed: list[tuple[int, str]] = []
        self.layouts = LayoutFold(txn, self._tables, time_ns, lambda ino: self._directories.setdefault(ino, 0))
        self._projects = ProjectFold(txn, self._tables, seq, time_ns, self._changed)
        self._displaced: list[int] = []

    def patient(self, number: int, identity: str, attributes: Attributes) -> None:
        """Add a patient."""
        self._txn.put(U64.pack(number), _json(attributes), db=self._tables["patient"])
        self._identify(identity, number)
        self.totals.patients += 1

    def study(self, number: int, identity: str, patient: int, attributes: Attributes) -> None:
        """Add a study below the patient of its first instance."""
        held = {"attributes": attributes, "modalities": [], "mixed": False}
        value = tables.STUDY.pack(patient, 0, 0, 0, self._time_ns) + _json(held)
        self._txn.put(U64.pack(number), value, db=self._tables["study"])
        self._identify(identity, number)
        self._find(number, attributes, ("StudyInstanceUID", "AccessionNumber", "StudyDate"))
        self._studies[number] = _Tally()
        self.totals.studies += 1

    def study_patient(self, study: int, patient: int) -> None:
        """Say that instances of the study name this patient; the first is the study's own."""
        self._txn.put(PAIR.pack(patient, study), b"", db=self._tables["under"])
        self._txn.put(PAIR.pack(study, patient), b"", db=self._tables["study_patient"])
        value = self._txn.get(U64.pack(patient), db=self._tables["patient"])
        self._find(study, json.loads(value or b"{}"), ("PatientID", "PatientName"))

    def series(self, number: int, identity: str, study: int, attributes: Attributes) -> None:
        """Add a series."""
        txn = self._txn
        modality = str(attributes.get("Modality", ""))
        txn.put(U64.pack(number), tables.SERIES.pack(study, 0, 0, 0) + _json(attributes), db=self._tables["series"])
        txn.put(PAIR.pack(study, number), b"", db=self._tables["under"])
        self._identify(identity, number)
        self._find(number, attributes, ("SeriesInstanceUID",))
        self._find(study, attributes, ("Modality",))
        self._note(study, modality, mixed=False)
        self._studies.setdefault(study, _Tally()).series += 1
        self._modalities[number] = modality
        self.totals.series += 1

    def directory(self, ino: int, identity: str, parent: int, name: str) -> None:
        """Add a directory under the name that was claimed for it."""
        encoded = name.encode()
        value = tables.DIRECTORY_INODE.pack(DIRECTORY, parent, self._time_ns, 0) + encoded
        self._txn.put(U64.pack(ino), value, db=self._tables["inode"])
        self._claim(parent, ino, encoded, CHILD.pack(DIRECTORY, 0, self._time_ns, 0))
        self._identify(identity, ino)
        self._directories.setdefault(ino, 0)
        self._changed(parent, 1)

    def folder(self, ino: int, identity: str, parent: int, name: str) -> None:
        """Add a directory of a layout."""
        self.layouts.give(parent)
        self.directory(ino, identity, parent, name)

    def layout(self, root: int, name: str, template: str) -> None:
        """Switch a layout on."""
        self.layouts.layout(root, name, template)
        self.next = max(self.next, root + 1)

    def link(self, ino: int, root: int, parent: int, name: str) -> None:
        """Give an instance its name in a layout or project."""
        if self.layouts.link(ino, root, parent, name):
            self._projects.linked(ino, root)

    def placed(self, root: int, through: int) -> None:
        """Say that a layout or project has all instances up to a number."""
        self.layouts.placed(root, through)
        self._projects.placed(root, through)

    def project(self, root: int, directory: str, definition: object) -> None:
        """Make a project, empty."""
        self._projects.project(root, directory, definition)
        self.next = max(self.next, root + 1)

    def project_off(self, root: int) -> None:
        """Remove a project."""
        self._removed += self._projects.project_off(root)

    def derived(self, row: DerivedRow) -> None:
        """Add a file that was made of an instance, under the name that was claimed for it."""
        self.layouts.give(row.parent)
        self._projects.derived(row)
        self.next = max(self.next, row.ino + 1)

    def withheld(self, source: int, root: int, reason: str) -> None:
        """Say why a project does not show what it would derive from an instance."""
        self._projects.withheld(source, root, reason)

    def attachment(self, number: int, patient: str, kind: str, name: str, blob: str, size: int) -> None:
        """Attach a document to a patient; an empty `blob` says that there is none any more."""
        found = Attachment(number, patient, kind, name, blob, size, self._time_ns)
        fold_attachments.attach(self._txn, self._tables, found)
        for folder in fold_attachments.clients(self._txn, self._tables, found):
            self._directories.setdefault(folder, 0)
        self.next = max(self.next, number + 1)

    def instance(self, row: InstanceRow) -> str:
        """Add an instance under the name that was claimed for it; return the JSON of its attributes."""
        held, put = self._tables, self._txn.put
        name = row.name.encode()
        sha256 = bytes.fromhex(row.sha256)
        if row.replaces:
            self._displace(row.replaces)
        value = tables.INSTANCE_INODE.pack(
            INSTANCE, row.parent, row.size, self._time_ns, row.series, self._seq,
            row.body_offset, row.body_length, bytes.fromhex(row.base), sha256,
        )  # fmt: skip
        ino = U64.pack(row.ino)
        put(ino, value + name, db=held["inode"])
        self._claim(row.parent, row.ino, name, CHILD.pack(INSTANCE, row.size, self._time_ns, 0))
        attributes = row.attributes
        text = encode(attributes)
        put(U64.pack(row.series) + ino, as_bytes(text), db=held["instance"])
        sop = tables.sop_key(str(attributes["SOPInstanceUID"]))
        if not put(sop, ino, overwrite=False, db=held["sop"]):
            others = self._txn.get(sop, db=held["sop"]) or b""
            put(sop, ino + others if row.replaces else others + ino, db=held["sop"])
            if any(self._is_shown(other, row) for (other,) in U64.iter_unpack(others)):
                put(TRIPLE.pack(row.study, row.series, row.ino), b"", db=held["hidden"])
        put(sha256, ino, db=held["file"])
        if not INSTANCE_KEYWORDS.issuperset(attributes):
            self._find(row.study, attributes, [field for field in _DIFFERING if field in attributes])
            self._note(row.study, str(attributes.get("Modality", "")), mixed=True)
        self._directories.setdefault(row.parent, 0)
        self._count(row.series, row.study, 1, row.size)
        self.totals.add(self._modality(row.series), row)
        self.next = max(self.next, row.ino + 1)
        return text

    def finish(self) -> None:
        """Bring counts, times and the journal of changes up to date."""
        self.layouts.finish()
        self._projects.finish()
        touched = self._touch_directories()
        for number, tally in self._series.items():
            self._update_series(number, tally)
        for number, tally in self._studies.items():
            self._update_study(number, tally)
        txn, meta = self._txn, self._store.meta_table
        txn.put(b"totals", self.totals.encode(), db=meta)
        txn.put(b"next", U64.pack(self.next), db=meta)
        journal = {
            "directories": sorted(touched),
            "removed": self._removed,
            "studies": sorted(self._studies),
            "series": sorted(self._series),
            "displaced": self._displaced,
        }
        txn.put(U64.pack(self._seq), _json(journal), db=self._tables["change"])
        if self._seq > tables.CHANGES_KEPT:
            txn.delete(U64.pack(self._seq - tables.CHANGES_KEPT), db=self._tables["change"])

    def _claim(self, parent: int, ino: int, name: bytes, child: bytes) -> None:
        self._txn.put(PAIR.pack(parent, ino), child + name, db=self._tables["child"])
        self._txn.put(tables.name_key(parent, name), U64.pack(ino), db=self._tables["name"])

    def _displace(self, ino: int) -> None:
        """Take an instance out of its directory; its bytes stay, as an earlier version below no directory (0)."""
        value = self._txn.get(U64.pack(ino), db=self._tables["inode"])
        if value is None:
            return
        old = tables.InstanceInode.parse(value)
        name = value[tables.INSTANCE_INODE.size :]
        self._txn.delete(PAIR.pack(old.parent, ino), db=self._tables["child"])
        self._txn.delete(tables.name_key(old.parent, name), db=self._tables["name"])
        hidden = tables.INSTANCE_INODE.pack(*old._replace(parent=tables.NOWHERE))
        self._txn.put(U64.pack(ino), hidden + name, db=self._tables["inode"])
        self._removed.append((old.parent, name.decode()))
        self._removed += self.layouts.unlink(ino, self._projects.keeps)
        self._removed += self._projects.displace(ino)
        self._displaced.append(ino)
        self._directories.setdefault(old.parent, 0)
        series = self._txn.get(U64.pack(old.series), db=self._tables["series"])
        if series is not None:
            self._count(old.series, tables.SERIES.unpack_from(series)[0], -1, -old.size)

    def _changed(self, directory: int, subdirectories: int) -> None:
        self._directories[directory] = self._directories.get(directory, 0) + subdirectories

    def _is_shown(self, other: int, row: InstanceRow) -> bool:
        """Say whether trees of UIDs show another instance in the place where they would show this one."""
        value = self._txn.get(U64.pack(other), db=self._tables["inode"])
        if value is None:
            return False
        inode = tables.InstanceInode.parse(value)
        if inode.series != row.series or inode.parent == tables.NOWHERE:
            return False
        return self._txn.get(TRIPLE.pack(row.study, row.series, other), db=self._tables["hidden"]) is None

    def _count(self, series: int, study: int, instances: int, size: int) -> None:
        for tallies, number in ((self._series, series), (self._studies, study)):
            tally = tallies.get(number)
            if tally is None:
                tally = tallies[number] = _Tally()
            tally.instances += instances
            tally.size += size

    def _identify(self, identity: str, number: int) -> None:
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

    def _modality(self, series: int) -> str:
        known = self._modalities.get(series)
        if known is None:
            value = self._txn.get(U64.pack(series), db=self._tables["series"]) or b""
            known = str(json.loads(value[tables.SERIES.size :] or b"{}").get("Modality", ""))
            self._modalities[series] = known
        return known

    def _read_study(self, number: int) -> tuple[tuple[int, ...], "_Study"]:
        value = self._txn.get(U64.pack(number), db=self._tables["study"]) or b""
        return tables.STUDY.unpack_from(value), json.loads(value[tables.STUDY.size :])

    def _touch_directories(self) -> set[int]:
        """Give every directory with something new below it this commit's time; return them all."""
        touched: set[int] = set()
        for ino, new in self._directories.items():
            self._touch(ino, new, touched)
        return touched

    def _touch(self, ino: int, new: int, touched: set[int]) -> None:
        txn, inodes = self._txn, self._tables["inode"]
        while ino not in touched or new:
            touched.add(ino)
            value = txn.get(U64.pack(ino), db=inodes)
            if value is None:  # the root of a tree
                value = tables.DIRECTORY_INODE.pack(DIRECTORY, tables.ROOT, self._time_ns, 0)
            _, parent, _, subdirectories = tables.DIRECTORY_INODE.unpack_from(value)
            subdirectories += new
            name = value[tables.DIRECTORY_INODE.size :]
            fixed = tables.DIRECTORY_INODE.pack(DIRECTORY, parent, self._time_ns, subdirectories)
            txn.put(U64.pack(ino), fixed + name, db=inodes)
            if parent == tables.ROOT:
                touched.add(parent)
                return
            child = CHILD.pack(DIRECTORY, 0, self._time_ns, subdirectories) + name
            txn.put(PAIR.pack(parent, ino), child, db=self._tables["child"])
            ino, new = parent, 0

    def _update_series(self, number: int, tally: _Tally) -> None:
        value = self._txn.get(U64.pack(number), db=self._tables["series"]) or b""
        study, instances, size, _ = tables.SERIES.unpack_from(value)
        fixed = tables.SERIES.pack(study, instances + tally.instances, size + tally.size, self._time_ns)
        self._txn.put(U64.pack(number), fixed + value[tables.SERIES.size :], db=self._tables["series"])

    def _update_study(self, number: int, tally: _Tally) -> None:
        value = self._txn.get(U64.pack(number), db=self._tables["study"]) or b""
        patient, series, instances, size, _ = tables.STUDY.unpack_from(value)
        fixed = tables.STUDY.pack(
            patient, series + tally.series, instances + tally.instances, size + tally.size, self._time_ns
        )
        self._txn.put(U64.pack(number), fixed + value[tables.STUDY.size :], db=self._tables["study"])


def fold_meta(store: Store, txn: Transaction, seq: int, time_ns: int, meta: bytes) -> None:
    """Fold a commit read back from a pack, mended where earlier ones are lost; raise Damaged where it is not ours."""
    try:
        _fold_meta(store, txn, seq, time_ns, meta)
    except _NOT_OURS as error:
        raise Damaged(f"the JSON of commit {seq} is not as dicomfs writes it ({type(error).__name__})") from error


_NOT_OURS: Final = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, RecursionError, AssertionError
)  # fmt: skip
"""What folding records ends in that we would not have written."""


def _fold_meta(store: Store, txn: Transaction, seq: int, time_ns: int, meta: bytes) -> None:
    from dicomfs.archive import floors, mending

    records = json.loads(meta)
    fold = Fold(store, txn, seq, time_ns)
    if "floors" in records:
        told = floors.decode(records["floors"])
        fold.next = max(fold.next, told.next)
        floors.put(store, txn, told)
    for key in LEFT_OUT:
        records.setdefault(key, [])
    for layout in records["layouts"]:
        fold.layout(*layout)
    mending.rename_projects(txn, store.index.tables, records)
    for project in records["projects"]:
        fold.project(*project)
    mending.mend(fold, txn, store.index.tables, records)
    steps: tuple[tuple[str, Callable[..., object]], ...] = (
        ("patients", fold.patient),
        ("studies", fold.study),
        ("study_patients", fold.study_patient),
        ("series", fold.series),
        ("directories", fold.directory),
        ("instances", lambda *row: fold.instance(InstanceRow(*row))),
        ("folders", fold.folder),
        ("links", fold.link),
        ("derived", lambda *row: fold.derived(DerivedRow(*row))),
        ("withheld", fold.withheld),
        ("layouts_off", fold.layouts.layout_off),
        ("placed", fold.placed),
        ("projects_off", fold.project_off),
        ("attachments", fold.attachment),
    )
    for name, take in steps:
        for row in records[name]:
            take(*(row if isinstance(row, list) else (row,)))
    fold.finish()


def _json(value: object) -> bytes:
    return as_bytes(encode(value))
