"""Fold commits into the catalog: the one place where its tables are filled.

An import folds each record as it is made, in the transaction of its commit; `reindex` and recovery
fold the same records read back from the packs. Both go through `Fold`, so both give the same tables.
"""

import json
import struct
from collections.abc import Callable
from typing import Final

from dicomfs.archive import fold_attachments, fold_forgetting, tables
from dicomfs.archive.fold_attachments import Attachment
from dicomfs.archive.fold_forgetting import Sweep
from dicomfs.archive.fold_layouts import LayoutFold
from dicomfs.archive.fold_levels import LevelsFold
from dicomfs.archive.fold_projects import DerivedRow, ProjectFold
from dicomfs.archive.fold_sums import SumsFold
from dicomfs.archive.fold_tree import TreeFold
from dicomfs.archive.fold_versions import (
    DELETED,
    IMPORTED,
    LEFT,
    REPLACED,
    RESTORED,
    Other,
    Past,
    RestoredRow,
    VersionFold,
)
from dicomfs.archive.records import LEFT_OUT, InstanceRow, as_bytes, encode
from dicomfs.archive.tables import CHILD, INSTANCE, PAIR, U64
from dicomfs.archive.totals import Totals
from dicomfs.dicom.attributes import INSTANCE_KEYWORDS
from dicomfs.errors import Damaged
from dicomfs.store.index import Table, Transaction
from dicomfs.store.store import Store


class Fold(LevelsFold):
    """One commit on its way into the catalog: any number of records, then `finish`."""

    def __init__(self, store: Store, txn: Transaction, seq: int, time_ns: int) -> None:
        held: dict[str, Table] = store.index.tables
        self.totals = Totals.decode(txn.get(b"totals", db=store.meta_table))
        super().__init__(txn, held, time_ns, SumsFold(txn, held, time_ns, self.totals))
        self._store = store
        self._seq = seq
        self._tree = TreeFold(txn, held, time_ns)
        self._versions = VersionFold(txn, held, seq)
        value = txn.get(b"next", db=store.meta_table)
        self.next = tables.FIRST_CLAIMED if value is None else int.from_bytes(value, "big")
        self.layouts = LayoutFold(txn, held, time_ns, self._tree)
        self._projects = ProjectFold(txn, held, seq, time_ns, self._tree)
        self._displaced: list[int] = []

    def said(self, reason: str, edit: object, run: str, merged: object) -> None:
        """Take note of why the commit is made, what was asked, which import makes it, and what another archive knew."""
        self._versions.said(reason, edit, run, merged)

    def directory(self, ino: int, identity: str, parent: int, name: str) -> None:
        """Add a directory under the name that was claimed for it."""
        self._tree.directory(ino, parent, name)
        self.identify(identity, ino)

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
        self._projects.project_off(root)

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
            self._tree.touch(folder)
        self.next = max(self.next, number + 1)

    def instance(self, row: InstanceRow) -> str:
        """Add an instance under the name that was claimed for it; return the JSON of its attributes."""
        held, put = self._tables, self._txn.put
        name = row.name.encode()
        sha256 = bytes.fromhex(row.sha256)
        study_before, first = self._displace(row.replaces, row.ino) if row.replaces else (row.study, b"")
        value = tables.INSTANCE_INODE.pack(
            INSTANCE, row.parent, row.size, self._time_ns, row.series, self._seq,
            row.body_offset, row.body_length, bytes.fromhex(row.base), sha256,
        )  # fmt: skip
        ino = U64.pack(row.ino)
        put(ino, value + name, db=held["inode"])
        self._tree.claim(row.parent, row.ino, name, CHILD.pack(INSTANCE, row.size, self._time_ns, 0))
        attributes = row.attributes
        text = encode(attributes)
        put(U64.pack(row.series) + ino, as_bytes(text), db=held["instance"])
        put(sha256, ino, db=held["file"])
        sop = tables.sop_key(str(attributes["SOPInstanceUID"]))
        self._versions.add(row.ino, sop, first=first == sop)
        if not INSTANCE_KEYWORDS.issuperset(attributes):
            self.differs(row.study, attributes)
        self._tree.touch(row.parent)
        self._sums.count(row.series, row.study, 1, row.size)
        self._versions.count(row.study, REPLACED if row.replaces else IMPORTED)
        if study_before not in (row.study, 0):
            self._versions.count(study_before, LEFT)
        self.totals.add(self._sums.modality(row.series), row)
        self.next = max(self.next, row.ino + 1)
        return text

    def deleted(self, ino: int) -> None:
        """Take an instance out of everything that shows it; its names stay its own."""
        study, _ = self._displace(ino, 0)
        if study:
            self._versions.count(study, DELETED)

    def restored(self, row: RestoredRow) -> None:
        """Put an earlier version back: one that was deleted also where layouts and projects showed it."""
        value = self._txn.get(U64.pack(row.ino), db=self._tables["inode"])
        past = self._versions.take(row.ino)
        if value is None or past is None:
            return  # it was lost with a pack
        if row.replaces:
            self._displace(row.replaces, row.ino)
        old, name = tables.InstanceInode.parse(value), row.name.encode()
        back = tables.INSTANCE_INODE.pack(*old._replace(parent=row.parent, mtime_ns=self._time_ns))
        self._txn.put(U64.pack(row.ino), back + name, db=self._tables["inode"])
        self._tree.claim(row.parent, row.ino, name, CHILD.pack(INSTANCE, old.size, self._time_ns, 0))
        self._tree.touch(row.parent)
        self._txn.put(PAIR.pack(old.series, row.ino), _json(row.attributes), db=self._tables["instance"])
        if not past.by:
            self.layouts.relink(row.ino, past.links)
            self._projects.back(row.ino, past.members)
            for other in past.others:
                self.layouts.relink(other.ino, other.links)
                self._projects.back(other.ino, other.members)
        sop = tables.sop_key(str(row.attributes["SOPInstanceUID"]))
        self._versions.add(row.ino, sop, first=bool(row.replaces) or past.current)
        study = self.study_of(old.series)
        self._projects.again(study)
        if not INSTANCE_KEYWORDS.issuperset(row.attributes):
            self.differs(study, row.attributes)
        self._sums.count(old.series, study, 1, old.size)
        self._versions.count(study, RESTORED)
        self.totals.count_earlier(-1, -old.size)

    def forgot(self, time_ns: int, numbers: list[int]) -> None:
        """Take versions out of the catalog: not all is kept any more that was shown before this time."""
        sweep = Sweep(self._txn, self._tables, self._tree, self._forget)
        sweep.forgot(self._store.meta_table, time_ns)
        sweep.sweep(numbers)

    def _forget(self, series: int, size: int) -> None:
        self.totals.forget(self._sums.modality(series), size)

    def superseded(self, ino: int, by: int) -> None:
        """Take a version out in favour of another one, or say so of one that is shown no more."""
        study, _ = self._displace(ino, by)
        if study:
            self._versions.count(study, REPLACED)
        else:
            self._versions.favour(ino, by)

    def current(self, ino: int) -> None:
        """Make an instance that is shown the current one of its SOP Instance UID."""
        value = self._txn.get(U64.pack(ino), db=self._tables["inode"])
        if value is None:
            return  # it was lost with a pack
        series = tables.InstanceInode.parse(value).series
        held = json.loads(self._txn.get(PAIR.pack(series, ino), db=self._tables["instance"]) or b"{}")
        self._versions.add(ino, tables.sop_key(str(held.get("SOPInstanceUID", ""))), first=True)
        self._sums.count(series, self.study_of(series), 0, 0)

    def renamed(self, ino: int, name: str) -> None:
        """Give a directory another name."""
        self._tree.rename(ino, name)

    def finish(self, op: str, by: str) -> None:
        """Bring counts, times and the journal up to date; `op` and `by` are what was done, and who did it."""
        self.layouts.finish()
        self._projects.finish()
        touched = self._tree.finish()
        studies, series = self._sums.finish()
        self.note_filled()
        self._versions.finish(op, by)
        txn, meta = self._txn, self._store.meta_table
        txn.put(b"totals", self.totals.encode(), db=meta)
        txn.put(b"next", U64.pack(self.next), db=meta)
        journal = {
            "directories": sorted(touched),
            "removed": sorted(self._tree.removed),
            "studies": studies,
            "series": series,
            "displaced": sorted(self._displaced),
        }
        txn.put(U64.pack(self._seq), _json(journal), db=self._tables["change"])
        if self._seq > tables.CHANGES_KEPT:
            txn.delete(U64.pack(self._seq - tables.CHANGES_KEPT), db=self._tables["change"])

    def _displace(self, ino: int, by: int) -> tuple[int, bytes]:
        """Take an instance out of every tree in favour of another, or none (0).

        Return its study, 0 if it was in none, and its SOP Instance UID's key if it was the current one of that.
        Its bytes stay, as an earlier version below no directory.
        """
        value = self._txn.get(U64.pack(ino), db=self._tables["inode"])
        if value is None or value[0] != INSTANCE:
            return 0, b""
        old, name = tables.InstanceInode.parse(value), value[tables.INSTANCE_INODE.size :]
        if old.parent == tables.NOWHERE:
            return 0, b""
        self._tree.release(old.parent, ino, name, reserve=not by)
        hidden = tables.INSTANCE_INODE.pack(*old._replace(parent=tables.NOWHERE))
        self._txn.put(U64.pack(ino), hidden + name, db=self._tables["inode"])
        links = self.layouts.unlink(ino, self._projects.keeps if by else _keeps_none, reserve=not by)
        members = self._projects.displace(ino, deleted=not by)
        held = json.loads(self._txn.get(PAIR.pack(old.series, ino), db=self._tables["instance"]) or b"{}")
        sop = tables.sop_key(str(held.get("SOPInstanceUID", "")))
        current = self._versions.is_current(ino, sop)
        others = () if by else self._earlier(ino, sop)
        self._versions.put(ino, Past(old.parent, self._seq, by, current, links, members, others))
        self._versions.settle(sop)
        self._displaced.append(ino)
        self.totals.count_earlier(1, old.size)
        study = self.study_of(old.series)
        if study:
            self._sums.count(old.series, study, -1, -old.size)
        return study, sop if current else b""

    def _earlier(self, ino: int, sop: bytes) -> tuple[Other, ...]:
        """Take earlier versions of what is deleted out of frozen projects, which went on showing them."""
        found: list[Other] = []
        for other in self._versions.versions(sop):
            value = None if other == ino else self._txn.get(U64.pack(other), db=self._tables["inode"])
            if value is not None and tables.InstanceInode.parse(value).parent == tables.NOWHERE:
                links = self.layouts.unlink(other, _keeps_none, reserve=True)
                members = self._projects.displace(other, deleted=True)
                if links or members:
                    found.append(Other(other, links, members))
                    self._displaced.append(other)
        return tuple(found)


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
    fold_forgetting.with_stubs(records)
    fold.said(records["reason"] or "", records["edit"] or None, records["run"] or "", records["merged"] or None)
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
        ("restored", lambda *row: fold.restored(RestoredRow(*row))),
        ("superseded", fold.superseded),
        ("deleted", fold.deleted),
        ("current", fold.current),
        ("restated", fold.restate),
        ("renamed", fold.renamed),
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
    if "forgot" in records:
        fold.forgot(int(records["forgot"]), [int(ino) for ino in records["swept"]])
    fold.finish(records["op"], records["by"])


def _keeps_none(_root: int) -> bool:
    return False


def _json(value: object) -> bytes:
    return as_bytes(encode(value))
