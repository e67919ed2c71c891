"""Projects committed by hand, for tests of how they are shown: what is in them is given, and nothing is selected."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zstandard

from dicomfs.archive.archive import NO_BASE
from dicomfs.archive.catalog import View
from dicomfs.archive.fold import Fold
from dicomfs.archive.fold_projects import DerivedRow
from dicomfs.archive.ingest import open_for_writing
from dicomfs.archive.project_definition import Definition, to_json
from dicomfs.archive.records import Records
from dicomfs.store import recipe
from dicomfs.store.writer import Writer
from tests.archive.importing import tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIME_NS = 1_700_000_000 * 10**9


@dataclass
class Wanted:
    """What is to be in a project, by path below its directory."""

    linked: Mapping[str, int] = field(default_factory=dict)
    derived: Mapping[str, tuple[int, bytes]] = field(default_factory=dict)
    withheld: Mapping[str, tuple[int, str]] = field(default_factory=dict)


class Commit:
    """One commit of a project."""

    def __init__(self, archive: Path, root: int = 0) -> None:
        self._store = open_for_writing(archive)
        self._writer = Writer(self._store)
        self._records = Records()
        self._fold = Fold(self._store, self._writer.txn, self._writer.seq, TIME_NS + self._writer.seq * 10**9)
        self.root = root
        self._folders: dict[str, int] = {}

    def make(self, directory: str, *, deid: str = "", live: bool = False) -> None:
        """Make a project."""
        self.root = self._fold.next
        name = directory.split("_")[1]
        where = (("Modality", "CT"),)
        definition = to_json(Definition(name, "2024-01-01T00:00:00Z", "20240101-000000", where, live, deid))
        self._records.projects.append((self.root, directory, definition))
        self._fold.project(self.root, directory, definition)

    def fill(self, wanted: Wanted) -> None:
        """Put files into it."""
        for path, ino in wanted.linked.items():
            self._link(ino, path)
        for path, (source, content) in wanted.derived.items():
            self._derive(source, path, content)
        for path, (source, reason) in wanted.withheld.items():
            self._link(source, path)
            self._records.withheld.append((source, self.root, reason))
            self._fold.withheld(source, self.root, reason)

    def done(self, *, off: bool = False) -> int:
        """Commit; return the root."""
        if off:
            self._records.projects_off.append(self.root)
            self._fold.project_off(self.root)
        else:
            through = self._fold.next - 1
            self._records.placed.append((self.root, through))
            self._fold.placed(self.root, through)
        self._fold.finish("project", "somebody")
        self._writer.commit(self._records.encode("project", "somebody"), TIME_NS + self._writer.seq * 10**9)
        self._writer.close()
        self._store.close()
        return self.root

    def _place(self, path: str) -> tuple[int, str]:
        above, _, name = path.rpartition("/")
        if not above:
            return self.root, name
        if above not in self._folders:
            parent, last = self._place(above)
            known = View(self._store, self._writer.txn).child(parent, last.encode())
            if known is not None:
                self._folders[above] = known.ino
                return known.ino, name
            identity = hashlib.sha256(f"{self.root} {above}".encode()).hexdigest()[:32]
            folder = (self._fold.next, identity, parent, last)
            self._records.folders.append(folder)
            self._fold.folder(*folder)
            self._folders[above] = folder[0]
        return self._folders[above], name

    def _link(self, ino: int, path: str) -> None:
        parent, name = self._place(path)
        self._records.links.append((ino, self.root, parent, name))
        self._fold.link(ino, self.root, parent, name)

    def _derive(self, source: int, path: str, content: bytes) -> None:
        parent, name = self._place(path)
        words = recipe.encode([(len(content), None)])
        header = len(words).to_bytes(4, "little") + words + content
        body = zstandard.compress(header)
        row = DerivedRow(
            self._fold.next, self.root, source, parent, name, len(content), hashlib.sha256(header).hexdigest(),
            NO_BASE.hex(), self._writer.add_body(body), len(body), len(content), 0,
        )  # fmt: skip
        self._records.derived.append(row)
        self._fold.derived(row)


def instances(archive: Path) -> list[int]:
    """Return the inode numbers of the files in `patients`."""
    return sorted(file.ino for file in tree(archive).values())


def commit_project(archive: Path, directory: str, wanted: Wanted, *, deid: str = "", live: bool = False) -> int:
    """Make a project; return its root."""
    commit = Commit(archive)
    commit.make(directory, deid=deid, live=live)
    commit.fill(wanted)
    return commit.done()


def remove_project(archive: Path, root: int) -> None:
    """Remove a project."""
    Commit(archive, root).done(off=True)
