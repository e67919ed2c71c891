"""Change what an archive shows: delete instances, bring earlier versions back, put others in the place of instances.

All that one command does is one commit, so that it is done or not done, whenever it is stopped. What patients,
studies and series are said to be follows from what is shown then (restating.py).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from dicomfs.archive import layouts, settings, tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.archive.claims import Claims, differences
from dicomfs.archive.committing import Committing, Opened
from dicomfs.archive.fold import Fold
from dicomfs.archive.fold_versions import Past, RestoredRow
from dicomfs.archive.layout_values import patient_identity
from dicomfs.archive.levels import levels_of
from dicomfs.archive.placing import free_name
from dicomfs.archive.records import InstanceRow, Records
from dicomfs.archive.restating import restated
from dicomfs.archive.splitting import Levels, Row
from dicomfs.errors import Damaged, Refused, UsageError
from dicomfs.store.index import Transaction
from dicomfs.store.store import Store

LONGEST_REASON: Final = 1000


def require_reason(reason: str) -> None:
    """Raise UsageError for what cannot be kept as the reason of a commit."""
    if len(reason) > LONGEST_REASON:
        raise UsageError(f"a reason has up to {LONGEST_REASON} characters")
    if any("\ud800" <= character <= "\udfff" for character in reason):
        raise UsageError("a reason is text in UTF-8")


class Changing(Committing):
    """One commit that changes what is shown. `edit` is what was asked, where that is to be told later."""

    def __init__(self, archive_path: Path, opened: Opened, op: str, reason: str = "", edit: object = None) -> None:
        require_reason(reason)
        super().__init__(opened, op)
        self.archive = Archive(archive_path, settings.read(archive_path), opened.store)
        """The same archive, for reading what was committed."""
        self._path = archive_path
        self._opened = opened
        self._series: set[int] = set()
        self._claims = Claims(opened.store)
        self._claims.begin(self.writer.txn, self.fold, self.records)
        self.records.reason, self.records.edit = reason, edit

    def delete(self, ino: int) -> None:
        """Take an instance out of everything that shows it."""
        self._series.add(self.view.instance_inode(ino).series)
        self.records.deleted.append(ino)
        self.fold.deleted(ino)

    def replace(
        self,
        ino: int,
        row: Row,
        new_bulk: int = 0,
        new_stored: int = 0,
        new_base: int = 0,
        *,
        conflict: bool = False,
        keep_name: bool = True,
    ) -> InstanceRow:
        """Put a file in the place of an instance; its blobs and its base are in the archive already.

        The numbers are bytes of its blobs that are new, what they take, and what a new base takes. `conflict`: another
        file of its SOP Instance UID is shown, besides that instance.
        """
        self._series.add(self.view.instance_inode(ino).series)
        offset = self.writer.add_body(row.body)
        placed = self._claims.place(
            row, offset, new_bulk, new_stored, new_base, conflict=conflict, replaces=ino, keep_name=keep_name
        )
        self._series.add(placed.series)
        return placed

    def add(self, row: Row, new_bulk: int = 0, new_stored: int = 0, new_base: int = 0, *, earlier: bool) -> InstanceRow:
        """Add a file whose blobs and base are in the archive already, beside what is shown of its SOP Instance UID.

        An `earlier` version gets no place in layouts: the same commit takes it out again.
        """
        offset = self.writer.add_body(row.body)
        conflict = earlier or self.view.is_shown(str(row.attributes.instance["SOPInstanceUID"]))
        placed = self._claims.place(
            row, offset, new_bulk, new_stored, new_base, conflict=conflict, replaces=0, linked=not earlier
        )
        self._series.add(placed.series)
        return placed

    def supersede(self, ino: int, by: int) -> None:
        """Take a version out in favour of another one, or say so of one that is shown no more."""
        self._series.add(self.view.instance_inode(ino).series)
        self.records.superseded.append((ino, by))
        self.fold.superseded(ino, by)

    def make_current(self, ino: int) -> None:
        """Make an instance that is shown the current one of its SOP Instance UID."""
        self._series.add(self.view.instance_inode(ino).series)
        self.records.current.append(ino)
        self.fold.current(ino)

    def restore(self, ino: int, replaces: int | None = None) -> None:
        """Bring an earlier version back, in the place of what it was replaced by, if that is shown.

        `replaces` says whose place it takes instead, 0 for nobody's. Raise Refused for one that is shown.
        """
        view = self.view
        past = view.past(ino)
        if past is None:
            raise Refused(f"instance {ino} is shown already")
        replaces = self._successor(ino) if replaces is None else replaces
        inode = view.instance_inode(ino)
        levels = levels_of(self.archive, ino)
        said = levels.patient | levels.study | levels.series
        study = view.series(inode.series).study
        patient = self._patient(levels)
        if patient not in view.study(study).patients:
            self.records.study_patients.append((study, patient))
            self.fold.study_patient(study, patient)
        above = view.patient(patient).attributes | view.study(study).attributes | view.series(inode.series).attributes
        name = self._own_name(ino, past, replaces)
        own = levels.instance | differences(said, above)
        row = RestoredRow(ino, past.parent, name, replaces, own)
        before = {root: (parent, link) for root, parent, link in past.links} if past.by else {}
        replaced = self.placing.places(replaces) if replaces else {}
        self._series |= {inode.series} | ({view.instance_inode(replaces).series} if replaces else set())
        self.records.restored.append(row)
        self.fold.restored(row)
        identity = str(levels.instance["SOPInstanceUID"])
        for root, layout in self.placing.all():
            if not self.view.is_linked(ino, root):
                places = {root: before[root]} if root in before and replaced.get(root) == before[root] else {}
                self.placing.place(ino, root, layout, said | levels.instance, identity, plain=True, before=places)

    def _successor(self, ino: int) -> int:
        """Return the version that is shown in the place of an earlier one, 0 where none is."""
        past = self.view.past(ino)
        seen = {ino}
        while past is not None:
            ino = past.by
            if not ino or ino in seen:
                return 0
            seen.add(ino)
            past = self.view.past(ino)
        return ino

    def _patient(self, levels: Levels) -> int:
        text = patient_identity(levels.patient, str(levels.study["StudyInstanceUID"]))
        number = self.view.patient_identified(text)
        if number is None:
            raise Damaged("the catalog does not know the patient of an earlier version; run 'dicomfs reindex'")
        return number

    def _own_name(self, ino: int, past: Past, replaces: int) -> str:
        """Return the name under which a version comes back: its own unless somebody else has that."""
        name = self.view.name_of(ino)
        taken = self.writer.txn.get(tables.name_key(past.parent, name.encode()), db=self.store.index.tables["name"])
        if taken is None or tables.U64.unpack(taken)[0] in (ino, replaces):
            return name
        return free_name(self.writer.txn, self.store.index.tables["name"], past.parent, name, str(ino))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not self._series

    def done(self, warn: Callable[[str], None]) -> int:
        """Commit, and let layouts and projects follow; return the commit's number, 0 where nothing was to be done.

        `warn` is told of what could not follow.
        """
        if self.is_empty:
            return 0
        self.restate()
        seq = self.writer.seq
        self.commit()
        self.follow(warn)
        return seq

    def follow(self, warn: Callable[[str], None]) -> None:
        """Let layouts and live projects follow what was committed."""
        layouts.catch_up(self._opened)
        if any(state.on and state.definition.live for state in self.view.projects()):
            from dicomfs.archive import projects  # which few archives need

            projects.catch_up(self._path, self._opened, warn, 0, lambda: False)

    def restate(self) -> None:
        """Record what patients, studies and series are now."""
        restate(self.store, self.writer.txn, self.records, self.fold, self._series)


def restate(store: Store, txn: Transaction, records: Records, fold: Fold, series: Iterable[int]) -> None:
    """Record in a commit what these series, their studies and patients are, which are something else after it."""
    found = restated(View(store, txn), series)
    for what, rows in (("series", found.series), ("studies", found.studies), ("patients", found.patients)):
        if rows:
            held: list[tuple[object, ...]] = [tuple(row) for row in rows]
            records.restated.append((what, held))
            fold.restate(what, held)
    for rename in found.renames:
        name = free_name(txn, store.index.tables["name"], rename.parent, rename.plain, rename.identity)
        records.renamed.append((rename.ino, name))
        fold.renamed(rename.ino, name)
