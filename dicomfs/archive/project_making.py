"""Put members into a project: links to instances, or files that processes derive from them (derivers.py).

A commit holds so many members, or bytes, or seconds of work. What is in the project is not chosen again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomfs.archive import derive_worker, project_keys, settings, tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.by_project import ProjectState
from dicomfs.archive.committing import Committing, Opened
from dicomfs.archive.derive_worker import Item
from dicomfs.archive.derivers import Derivers, Setting, Work
from dicomfs.archive.deriving import Derived, NewBlob
from dicomfs.archive.fold_projects import DerivedRow
from dicomfs.archive.lacking import Lacking
from dicomfs.archive.layout import Layout
from dicomfs.archive.layout_values import patient_identity
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.archive.placing import free_name
from dicomfs.archive.project_definition import Definition, Failed, to_json
from dicomfs.archive.project_lists import ListQuery, resolve, stored_failed
from dicomfs.archive.project_members import choose, shuffled, walk
from dicomfs.store.recipe import BlobId

COMMIT_LINKS: Final = 4096
COMMIT_BYTES: Final = 64 << 20
COMMIT_S: Final = 5.0
BATCH: Final = 256
"""So many instances are derived by one process; those of a series in it share a base."""
_NEARLY: Final = 4
"""A batch that is full to this part ends with a series."""
QUARANTINE: Final = "quarantine"
_WORK: Final = Work(
    "de-identify",
    derive_worker.DOING,
    derive_worker.received,
    lambda made: len(made.body) + sum(len(blob.stored) for blob in made.blobs),
)


@dataclass(frozen=True, slots=True)
class Done:
    """What making a project, or going on with one, did."""

    state: ProjectState
    added: int
    withheld: int


def layout_of(definition: Definition) -> Layout:
    """Return the layout of a project's tree."""
    icore = built_in()["icore"]
    return Layout.parse(icore if definition.deid else f"images/{icore}")


class Making(Committing):
    """Commits of members of projects."""

    def __init__(
        self,
        archive_path: Path,
        opened: Opened,
        jobs: int,
        module: str = "",
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(opened, "project")
        self._path = archive_path
        self._archive = Archive(archive_path, settings.read(archive_path), opened.store)
        self._jobs = jobs
        self._module = module
        self._stop = stop
        self._since = time.monotonic()

    @property
    def pending(self) -> bool:
        """Whether anything is recorded that is not committed."""
        return bool(self.records.links or self.records.derived or self.records.folders or self.writer.pending_bytes)

    def begin(self, definition: Definition) -> ProjectState:
        """Make a project, empty."""
        root = self.fold.next
        if definition.deid:
            definition = definition._replace(key=project_keys.mark(project_keys.make(self._path, root)))
        directory = f"{'DeID' if definition.deid else 'PHI'}_{definition.name}_{definition.timestamp}"
        taken = self.store.index.tables["name"]
        directory = free_name(self.writer.txn, taken, tables.ROOT_PROJECTS, directory, str(root))
        held = to_json(definition)
        self.records.projects.append((root, directory, held))
        self.fold.project(root, directory, held)
        self.commit()
        return self.view.project(root)

    def failed(self, listed: Sequence[ListQuery]) -> tuple[Failed, ...]:
        """Return the rows of a list that find nothing."""
        return stored_failed(resolve(self._archive, listed).failed)

    def go_on(self, state: ProjectState, progress: OnProgress | None = None) -> Done:
        """Add what belongs to a project and is not in it."""
        key = b""
        if state.definition.deid:
            key = project_keys.read(self._path, state.root, state.definition.key)
        through = self.fold.next - 1
        found = choose(self._archive, state.root, state.definition, state.through, state.again)
        if key:
            found = shuffled(self.view, found, key)
        members = walk(lambda: self.view, found, layout_of(state.definition))
        adding = _Adding(self, state, progress, found.instances)
        self._since = time.monotonic()
        if state.definition.deid:
            self._derive(state, members, key, adding)
        else:
            for one in members:
                if self._stop():
                    break
                adding.link(one)
        if self._stop():
            through = state.through
        placed = through != state.through or (bool(state.again) and not self._stop())
        if placed or self.pending:
            if placed:
                self.records.placed.append((state.root, through))
                self.fold.placed(state.root, through)
            self.commit()
        return Done(self.view.project(state.root), adding.added, adding.withheld)

    def _derive(self, state: ProjectState, members: Iterator[Lacking], key: bytes, adding: "_Adding") -> None:
        setting = Setting(self._path, (state.definition.deid, key), self._module or derive_worker.__name__, _WORK)
        with Derivers[Lacking, Derived](setting, self._jobs) as derivers:
            for one, made in derivers.run(_batches(members)):
                if self._stop():
                    return
                if isinstance(made, Derived):
                    adding.derived(one, made)
                else:
                    adding.withhold(one, made)

    def commit_if_due(self) -> None:
        """Commit what is recorded when it is enough."""
        records = self.records
        if (
            len(records.links) + len(records.derived) >= COMMIT_LINKS
            or self.writer.pending_bytes >= COMMIT_BYTES
            or time.monotonic() - self._since >= COMMIT_S
        ):
            self.commit()
            self._since = time.monotonic()


class _Adding:
    """Adds members to one project."""

    def __init__(self, making: Making, state: ProjectState, progress: OnProgress | None, total: int) -> None:
        self._making = making
        self._root = state.root
        self._layout = layout_of(state.definition)
        self._progress = progress
        self._total = total
        self.added = 0
        self.withheld = 0

    def link(self, one: Lacking) -> None:
        """Add an instance itself."""
        self._making.placing.place(
            one.instance.ino, self._root, self._layout, one.attributes, one.identity, plain=one.instance.current,
            before={},
        )  # fmt: skip
        self.added += 1
        self._done()

    def derived(self, one: Lacking, made: Derived) -> None:
        """Add a file that was made of an instance; its names are made of what it says, never of what that says."""
        making, writer = self._making, self._making.writer
        for blob in made.blobs:
            self._store(blob, b"o/")
        base_stored = 0 if made.new_base is None else self._store(made.new_base, b"h/")
        current = one.instance.current
        identity = str(made.attributes.get("SOPInstanceUID", "")) if current else made.sha256.hex()
        parent, name = making.placing.claim(
            self._root, self._layout, made.attributes, identity, plain=current, before={}
        )
        row = DerivedRow(
            making.fold.next, self._root, one.instance.ino, parent, name, made.size, made.sha256.hex(), made.base.hex(),
            writer.add_body(made.body), len(made.body), made.literal_length, base_stored,
        )  # fmt: skip
        making.records.derived.append(row)
        making.fold.derived(row)
        self.added += 1
        self._done()

    def withhold(self, one: Lacking, reason: str) -> None:
        """Put an instance of which nothing was made into quarantine, under a name that says nothing."""
        making, ino = self._making, one.instance.ino
        parent = making.placing.claim_folder(self._root, QUARANTINE)
        name = f"{making.fold.layouts.given(parent) + 1}.dcm"
        making.records.links.append((ino, self._root, parent, name))
        making.fold.link(ino, self._root, parent, name)
        making.records.withheld.append((ino, self._root, reason))
        making.fold.withheld(ino, self._root, reason)
        self.withheld += 1
        self._done()

    def _store(self, blob: NewBlob, prefix: bytes) -> int:
        """Store a blob; return how many bytes that took."""
        name, codec, length, stored, crc, checks = blob
        writer = self._making.writer
        added = writer.add_blob(BlobId(name), codec, length, stored, crc, checks, prefix=prefix)
        return len(stored) if added else 0

    def _done(self) -> None:
        self._making.commit_if_due()
        done = self.added + self.withheld
        if self._progress is not None and done % 64 == 0:
            self._progress(Progress(done, self._total, 0, 0))


def _batches(members: Iterator[Lacking]) -> Iterator[list[tuple[Lacking, Item]]]:
    """Cut the members in batches, where a series ends if there is one that ends in time."""
    batch: list[tuple[Lacking, Item]] = []
    for one in members:
        ends = bool(batch) and batch[-1][0].instance.series != one.instance.series
        if len(batch) >= (BATCH // _NEARLY if ends else BATCH):
            yield batch
            batch = []
        said = one.attributes
        identity = patient_identity(said, str(said.get("StudyInstanceUID", "")))
        batch.append((one, (one.instance.ino, identity, one.instance.series)))
    if batch:
        yield batch
