"""The whole drive: a root with README.txt and the views, every other node answered by its provider.

    /
    ├── README.txt
    ├── patients/      Catalog
    ├── dicomweb/      DicomWeb
    ├── quarantine/    Quarantine
    └── <layout>/      Catalog: one for each layout that is on; Omidb: what is computed in that of OMI-DB

A call finds its provider by the inode number alone (see `node.py`), so no table of nodes is kept and
memory does not grow with what is walked.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import omidb
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.names import possible
from dicomfs.errors import NotFound
from dicomfs.vfs import readme
from dicomfs.vfs.catalog import Catalog
from dicomfs.vfs.dicomweb import DicomWeb
from dicomfs.vfs.node import (
    COMPUTED_INDEX,
    COMPUTED_OMIDB,
    COMPUTED_QUARANTINE,
    COMPUTED_SHIFT,
    DICOMWEB,
    DICOMWEB_STUDIES,
    FIRST_CLAIMED,
    LAST_CLAIMED,
    PATIENTS,
    QUARANTINE,
    README,
    ROOT,
    Attributes,
    Changes,
    Entry,
    INode,
    OpenFile,
    Provider,
)
from dicomfs.vfs.plain import TextFile
from dicomfs.vfs.quarantine import Quarantine
from dicomfs.vfs.views import VIEWS, chosen
from dicomfs.vfs.web_numbers import is_web

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive

NAME_MAX: Final = 255


class Statistics(NamedTuple):
    """What `statfs` tells."""

    files: int
    size: int


class Tree:
    """An archive as files. Called by one thread; `open`, `xattr` and open files by any.

    What a provider may raise NotReady for, raises it here.
    """

    def __init__(self, archive: "Archive", views: Sequence[str] | None = None, *, private: bool = True) -> None:
        """Show these views of an archive, or the default ones; raise UsageError for an unknown one.

        `private` says that nobody but the owner can look into it.
        """
        self._archive = archive
        self._views = tuple(views or ())
        self._indexed: frozenset[INode] = frozenset()
        self._with_data: frozenset[INode] = frozenset()
        layouts = self._layouts_on()
        names = chosen(self._views, list(layouts), private=private)
        shown = [(name, VIEWS[name]) for name in names if name in VIEWS]
        self._roots = {name.encode(): known.root for name, known in shown}
        others = len(names) > len(shown) or not self._views
        self._readme = TextFile(readme.text([(name, known.line) for name, known in shown], others=others))
        self._created_ns = int(datetime.fromisoformat(archive.settings.created).timestamp()) * 10**9
        self._fixed_roots = dict(self._roots)
        self._fixed_links = sum(known.links_instances for _, known in shown)
        self._catalog = Catalog(archive, 1, self._created_ns)
        self._show(layouts)
        self._fixed: dict[INode, Provider] = {PATIENTS: self._catalog}
        self._computed: dict[int, Provider] = {
            COMPUTED_INDEX: self._catalog.index,
            COMPUTED_OMIDB: self._catalog.omidb,
        }
        self._providers: list[Provider] = [self._catalog, self._catalog.index, self._catalog.omidb]
        self._web: DicomWeb | None = None
        if DICOMWEB in self._roots.values():
            self._web = DicomWeb(archive, self._created_ns)
            self._fixed[DICOMWEB] = self._fixed[DICOMWEB_STUDIES] = self._web
            self._providers.append(self._web)
        if QUARANTINE in self._roots.values():
            quarantine = Quarantine(archive.path / "quarantine")
            self._fixed[QUARANTINE] = self._computed[COMPUTED_QUARANTINE] = quarantine
            self._providers.append(quarantine)
        self._statistics: Statistics | None = None

    def _layouts_on(self) -> dict[str, INode]:
        """Return the roots of the layouts that are on and may be shown."""
        with self._archive.view() as view:
            states = view.layouts()
        self._indexed = frozenset(state.root for state in states if state.template == built_in()["archive"])
        self._with_data = frozenset(state.root for state in states if omidb.shows_data(state.template))
        return {
            state.name: state.root
            for state in states
            if state.on and possible(state.name.encode()) and state.name not in VIEWS and state.name != "README.txt"
        }

    def _show(self, layouts: dict[str, INode]) -> None:
        shown = {name.encode(): root for name, root in layouts.items() if not self._views or name in self._views}
        self._roots = {**self._fixed_roots, **shown}
        self._catalog.links = self._fixed_links + len(shown) or 1
        self._catalog.index.roots = self._indexed.intersection(shown.values())
        self._catalog.omidb.roots = self._with_data.intersection(shown.values())

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of a node, None where there is none."""
        if ino == ROOT:
            return self._root()
        if ino == README:
            return self._readme_attributes()
        provider = self._provider(ino)
        return None if provider is None else provider.attributes(ino)

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the node of this name in a directory; `.` and `..` too, for any node (NFS handles)."""
        if name == b".":
            return self.attributes(parent)
        if name == b"..":
            above = self.parent(parent)
            return None if above is None else self.attributes(above)
        if parent == ROOT:
            ino = README if name == readme.NAME else self._roots.get(name)
            return None if ino is None else self.attributes(ino)
        provider = self._provider(parent)
        return None if provider is None else provider.lookup(parent, name)

    def entries(self, ino: INode, cookie: int = 0) -> Iterator[Entry]:
        """Yield a directory's entries past the one with this cookie; 0 is before the first.

        Cookies ascend and stay right when entries come and go. The iterator holds a read transaction:
        exhaust it, or close it, before anything else is waited for.
        """
        if ino == ROOT:
            return self._root_entries(cookie)
        provider = self._provider(ino)
        return iter(()) if provider is None else provider.entries(ino, cookie)

    def parent(self, ino: INode) -> INode | None:
        """Return the directory of a node; the root's is the root."""
        if ino in (ROOT, README) or ino in self._roots.values():
            return ROOT
        provider = self._provider(ino)
        return None if provider is None else provider.parent(ino)

    def open(self, ino: INode) -> OpenFile:
        """Open a file; raise NotFound where there is none, Damaged where it cannot be read."""
        if ino == README:
            return self._readme
        provider = self._provider(ino)
        if provider is None:
            raise NotFound(f"there is no file with inode number {ino}")
        return provider.open(ino)

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Return the same if nothing has to be waited for, else None."""
        provider = self._provider(ino)
        return self.open(ino) if provider is None else provider.open_ready(ino)

    def xattr_names(self, ino: INode) -> list[bytes]:
        """Return the names of the extended attributes that are worth copying."""
        provider = self._provider(ino)
        return [] if provider is None else provider.xattr_names(ino)

    def xattr(self, ino: INode, name: bytes) -> bytes | None:
        """Return an extended attribute, None where the node has none of that name."""
        provider = self._provider(ino)
        return None if provider is None else provider.xattr(ino, name)

    def statistics(self) -> Statistics:
        """Return how many files the archive has, and how large they are as shown."""
        if self._statistics is None:
            with self._archive.view() as view:
                totals = view.totals()
            self._statistics = Statistics(totals.instances, totals.bytes_in)
        return self._statistics

    def changes(self) -> Changes:
        """Return what became different since the last call, by other processes' commits."""
        directories: set[INode] = set()
        removed: list[tuple[INode, bytes]] = []
        complete = True
        for provider in self._providers:
            found = provider.changes()
            directories |= found.directories
            removed += found.removed
            complete = complete and found.complete
        before = self._roots
        if directories or not complete:
            self._show(self._layouts_on())
        if not complete or self._roots != before:
            # Dropping the views' own names makes the kernel forget all that lies below them: where a layout came or
            # went, the number of links of every instance.
            roots = {**before, **self._roots}
            directories |= {ROOT, *roots.values()}
            removed += [(ROOT, name) for name in roots]
        if directories or removed:
            self._statistics = None
            directories.add(ROOT)
        return Changes(directories, removed, complete)

    def close(self) -> None:
        """End what works for the tree; the archive stays open."""
        self._catalog.index.close()
        self._catalog.omidb.close()
        if self._web is not None:
            self._web.close()

    def _provider(self, ino: INode) -> Provider | None:
        if FIRST_CLAIMED <= ino <= LAST_CLAIMED:
            return self._catalog
        if is_web(ino):
            return self._web
        return self._fixed.get(ino) or self._computed.get(ino >> COMPUTED_SHIFT)

    def _root(self) -> Attributes:
        below = [self.attributes(ino) for ino in self._roots.values()]
        mtime_ns = max((found.mtime_ns for found in below if found is not None), default=0)
        return Attributes(ROOT, True, 0, mtime_ns, 2 + len(self._roots))

    def _readme_attributes(self) -> Attributes:
        return Attributes(README, False, self._readme.size, self._created_ns, 1)

    def _root_entries(self, cookie: int) -> Iterator[Entry]:
        names = {**{ino: name for name, ino in self._roots.items()}, README: readme.NAME}
        for ino in sorted(names):
            if ino > cookie and (found := self.attributes(ino)) is not None:
                yield names[ino], ino, found.is_directory, found.size, found.mtime_ns, found.nlink, ino
