"""What lies in a project beside its files: tables and run.txt, and a reason beside each file that is withheld.

    projects/<directory>/<table>              made by another process when somebody looks, and kept in the cache
    projects/<directory>/quarantine/…/N.txt   why N.dcm is withheld

An inode number is made of the project's place in the order of all projects and, of a table, of its kind and of what
the project held when it was made, so that a table which was made anew is another file; of a reason, of the instance.
A static project is the same for ever, so its tables are made once. A table that cannot be made is there, empty, and
says so to whoever opens it.
"""

import logging
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import project_tables
from dicomfs.errors import Damaged, DicomfsError, NotFound
from dicomfs.vfs.node import (
    COMPUTED_PROJECTS,
    COMPUTED_SHIFT,
    LAST_CLAIMED,
    NOTHING,
    Attributes,
    Changes,
    Entry,
    FilesAlone,
    INode,
    NotReady,
    OpenFile,
    Stale,
)
from dicomfs.vfs.places import Places
from dicomfs.vfs.plain import DiskFile, TextFile
from dicomfs.vfs.shelf import Shelf

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.by_project import ProjectState
    from dicomfs.archive.catalog import View
    from dicomfs.archive.project_tables import TableFile

log = logging.getLogger(__name__)

_BASE: Final = COMPUTED_PROJECTS << COMPUTED_SHIFT
_REASON: Final = 1 << 55
_PLACE_SHIFT: Final = 40
_PLACES: Final = 1 << 15
_KIND_SHIFT: Final = 36
_VERSIONS: Final = 1 << _KIND_SHIFT
_FAILED: Final = _VERSIONS - 1
"""The version of a table that could not be made."""
_SOURCES: Final = 1 << _PLACE_SHIFT

_FILE: Final = b".dcm"
_TEXT: Final = b".txt"
_AGAIN_S: Final = 60.0
"""After how long a table that could not be made is tried again."""


class _Held(NamedTuple):
    """A table that was made, or why it was not."""

    changed: int
    path: str
    size: int
    mtime_ns: int
    failed: DicomfsError | None
    since_s: float

    @property
    def expired(self) -> bool:
        """Whether it is worth trying to make it again."""
        return self.failed is not None and monotonic() - self.since_s > _AGAIN_S


class ProjectFiles(FilesAlone):
    """Provider of the files that projects have beside those of the catalog."""

    def __init__(self, archive: "Archive", shelf: Shelf, places: Places, *, private: bool) -> None:
        """Show them of an archive; what is private only if that is said."""
        self._archive = archive
        self._shelf = shelf
        self._places = places
        self._private = private
        self._shown: frozenset[INode] = frozenset()
        self._order: Sequence[INode] = ()
        self._places_of: dict[INode, int] = {}
        self._held: dict[tuple[INode, int], _Held] = {}
        self._told: dict[tuple[INode, TableFile], _Held] = {}
        """The tables that somebody was told of last."""
        self._seq = -1
        self._changed: dict[INode, int] = {}
        """When projects last changed, as of that commit."""

    def show(self, shown: Sequence[INode], order: Sequence[INode]) -> None:
        """Show what lies in projects with these roots; `order` are those of all that ever were."""
        self._shown = frozenset(shown)
        self._order = order
        self._places_of = {root: place for place, root in enumerate(order)}

    # Tables

    def tables_of(self, directory: INode) -> list[Entry]:
        """Return the tables of a project as the last entries of its directory; raise NotReady."""
        if directory not in self._shown:
            return []
        with self._archive.view() as view:
            state = view.project(directory)
        tables = self._tables(state)
        missing = [table for table in tables if self._of(state, table) is None]
        if missing:
            raise NotReady(lambda: self._make(state.root, missing))
        entries = []
        for table in tables:
            if (held := self._of(state, table)) is not None:
                found = self._table(state, table, held)
                entries.append(found.entry(table.name.encode(), LAST_CLAIMED + 1 + table.kind))
        return entries

    def _tables(self, state: "ProjectState") -> list["TableFile"]:
        """Return the tables of a project that this drive shows, in the order of their kinds."""
        tables = [table for table in project_tables.files_of(state) if self._private or not table.private]
        return sorted(tables, key=lambda table: table.kind)

    def _of(self, state: "ProjectState", table: "TableFile") -> _Held | None:
        held = self._held.get((state.root, table.kind))
        return None if held is None or held.changed != state.changed or held.expired else held

    def _table(self, state: "ProjectState", table: "TableFile", held: _Held) -> Attributes:
        self._told[state.root, table] = held
        version = held.changed % _FAILED if held.failed is None else _FAILED
        ino = self._number(state.root) | table.kind << _KIND_SHIFT | version
        return Attributes(ino, False, held.size, held.mtime_ns, 1, table.private)

    def _make(self, root: INode, tables: Sequence["TableFile"]) -> None:
        """Have tables made and take them up; wait as long as it takes."""
        cache, makers = self._shelf.ready()
        jobs = [makers.submit(("project_table", (root, table.kind))) for table in tables]
        for table, job in zip(tables, jobs, strict=True):
            with self._archive.view() as view:
                state, node = view.project(root), view.node(root)
            mtime_ns = 0 if node is None else node.mtime_ns
            held = _Held(state.changed, "", 0, mtime_ns, None, monotonic())
            try:
                job.result()
                path = project_tables.made(cache, state, table.kind)
                if path is None:
                    continue  # it was made for another state of the project than this one: who asked will ask again
                held = held._replace(path=str(path), size=path.stat().st_size)
            except FileNotFoundError:
                continue
            except DicomfsError as error:
                log.error("%s of project %d cannot be made: %s", table.name, root, error)
                held = held._replace(failed=error)
            self._held[root, table.kind] = held

    # Reasons

    def named(self, view: "View", directory: INode, name: bytes) -> Attributes | None:
        """Return the file of this name in a directory of the catalog; raise NotReady."""
        if directory in self._shown:
            state = view.project(directory)
            table = next((table for table in self._tables(state) if table.name.encode() == name), None)
            return None if table is None else self._table_ready(state, table)
        if name.endswith(_TEXT) and self._places.is_private(view, directory):
            node = view.child(directory, name.removesuffix(_TEXT) + _FILE)
            return None if node is None else self._reason(view, directory, node.ino, node.mtime_ns)
        return None

    def _table_ready(self, state: "ProjectState", table: "TableFile") -> Attributes:
        held = self._of(state, table)
        if held is None:
            raise NotReady(lambda: self._make(state.root, [table]))
        return self._table(state, table, held)

    def reasons_in(self, view: "View", directory: INode, after: INode) -> Iterator[Entry]:
        """Yield the reasons that lie in a private directory, with cookies past those of what the catalog has in it."""
        start = max(0, after - LAST_CLAIMED - 1)
        for name, source, is_directory, _, mtime_ns, _, _ in view.children(directory, start, 1, lambda _: None):
            found = None if is_directory else self._reason(view, directory, source, mtime_ns)
            if found is not None:
                yield found.entry(name.removesuffix(_FILE) + _TEXT, LAST_CLAIMED + 1 + source)

    def reasons_gone(self, view: "View", removed: Sequence[tuple[INode, bytes]]) -> Iterator[tuple[INode, bytes]]:
        """Yield the names of reasons that are gone with what lay beside them."""
        for directory, name in removed:
            if self._places.is_private(view, directory):
                yield directory, name.removesuffix(_FILE) + _TEXT

    def _reason(self, view: "View", directory: INode, source: INode, mtime_ns: int) -> Attributes | None:
        for root, parent, _ in view.links(source):
            if parent == directory and (text := _text(view, root, source)):
                ino = self._number(root) | _REASON | source % _SOURCES
                return Attributes(ino, False, len(text), mtime_ns, 1, private=True)
        return None

    # Both

    def _number(self, root: INode) -> INode:
        return _BASE | self._places_of[root] % _PLACES << _PLACE_SHIFT

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of a table or reason, None for one that is out of date; raise NotReady."""
        with self._archive.view() as view:
            state = self._state(view, ino)
            if state is None:
                return None
            if ino & _REASON:
                return self._find_reason(view, state.root, ino % _SOURCES)
            kind, version = divmod(ino % _SOURCES, _VERSIONS)
            table = next((table for table in self._tables(state) if table.kind == kind), None)
            if table is None or version not in (state.changed % _FAILED, _FAILED):
                return None
            found = self._table_ready(state, table)
            return found if found.ino == ino else None

    def _state(self, view: "View", ino: INode) -> "ProjectState | None":
        place = ino >> _PLACE_SHIFT & (_PLACES - 1)
        root = self._order[place] if place < len(self._order) else 0
        return view.project(root) if root in self._shown else None

    def _find_reason(self, view: "View", root: INode, source: INode) -> Attributes | None:
        node = view.node(source)
        directory = _quarantined(view, root, source)
        if node is None or directory is None or not self._places.is_private(view, directory):
            return None
        return self._reason(view, directory, source, node.mtime_ns)

    def parent(self, ino: INode) -> INode | None:
        """Return the project of a table, the directory of a reason."""
        with self._archive.view() as view:
            state = self._state(view, ino)
            if state is None:
                return None
            if not ino & _REASON:
                kind = ino % _SOURCES // _VERSIONS
                return state.root if any(table.kind == kind for table in self._tables(state)) else None
            directory = _quarantined(view, state.root, ino % _SOURCES)
            return None if directory is None or not self._places.is_private(view, directory) else directory

    def open(self, ino: INode) -> OpenFile:
        """Open a table, which stays what it is however long it is open, or a reason."""
        if self.attributes(ino) is None:
            raise Stale("that table was made anew")
        with self._archive.view() as view:
            state = self._state(view, ino)
            if state is None:
                raise NotFound("that project was removed")
            if ino & _REASON:
                return TextFile(_text(view, state.root, ino % _SOURCES))
        key = state.root, ino % _SOURCES // _VERSIONS
        held = self._held.get(key)
        if held is None:
            raise Stale("that table was made anew")
        if held.failed is not None:
            raise Damaged(f"a table of a project cannot be made: {held.failed}")
        try:
            return DiskFile(held.path)
        except FileNotFoundError:
            self._held.pop(key, None)
            raise Stale("that table is gone from the cache") from None

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Open one that was made."""
        return self.open(ino)

    def changes(self) -> Changes:
        """Say which tables that somebody was told of are out of date."""
        if not self._told:
            return NOTHING
        with self._archive.view() as view:
            if view.seq != self._seq:
                self._seq = view.seq
                self._changed = {state.root: state.changed for state in view.projects()}
        told = list(self._told.items())
        gone = [key for key, held in told if held.expired or held.changed != self._changed.get(key[0])]
        for key in gone:
            self._told.pop(key, None)
        return Changes({root for root, _ in gone}, [(root, table.name.encode()) for root, table in gone], complete=True)

    def forget(self) -> None:
        """Drop what is known, as the archive's catalog may be another one."""
        self._held.clear()
        self._told.clear()
        self._seq = -1


def _text(view: "View", root: INode, source: INode) -> bytes:
    """Return why a project withholds an instance; nothing where it does not."""
    member = view.member(root, source)
    return f"{member.reason}\n".encode("utf-8", "replace") if member is not None and member.reason else b""


def _quarantined(view: "View", root: INode, source: INode) -> INode | None:
    """Return the directory in which a project shows an instance itself."""
    return next((directory for of, directory, _ in view.links(source) if of == root), None)
