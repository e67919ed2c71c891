"""The whole drive: a root with README.txt and the views, every other node answered by its provider.

    /
    ├── README.txt
    ├── patients/      Catalog
    ├── dicomweb/      DicomWeb
    ├── quarantine/    Quarantine
    ├── projects/      Projects, and below it Catalog with ProjectFiles
    └── <layout>/      Catalog: one for each layout that is on, with ArchiveIndex or Omidb for what is computed

A call finds its provider by the inode number alone (see `node.py`), so no table of nodes is kept and
memory does not grow with what is walked. A drive that shows a part of an archive answers for nothing else (places.py).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import omidb
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.names import possible
from dicomfs.errors import NotFound
from dicomfs.vfs import places, readme
from dicomfs.vfs.archive_index import ArchiveIndex
from dicomfs.vfs.catalog import Catalog
from dicomfs.vfs.dicomweb import DicomWeb
from dicomfs.vfs.node import (
    COMPUTED_INDEX,
    COMPUTED_OMIDB,
    COMPUTED_PROJECTS,
    COMPUTED_QUARANTINE,
    COMPUTED_SHIFT,
    DICOMWEB,
    DICOMWEB_STUDIES,
    FIRST_CLAIMED,
    LAST_CLAIMED,
    PATIENTS,
    PROJECTS,
    QUARANTINE,
    README,
    ROOT,
    Attributes,
    Changes,
    Entry,
    INode,
    NotReady,
    OpenFile,
    Provider,
)
from dicomfs.vfs.omidb import Omidb
from dicomfs.vfs.places import Places
from dicomfs.vfs.plain import TextFile
from dicomfs.vfs.project_files import ProjectFiles
from dicomfs.vfs.projects import Projects
from dicomfs.vfs.quarantine import Quarantine
from dicomfs.vfs.shelf import Shelf
from dicomfs.vfs.views import ONE_PROJECT, VIEWS, chosen, is_projects
from dicomfs.vfs.web_numbers import is_web
from dicomfs.vfs.xattrs import QUICK

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View

NAME_MAX: Final = 255


class Statistics(NamedTuple):
    """What `statfs` tells."""

    files: int
    size: int


class _Found(NamedTuple):
    """What of an archive a drive may show beside its fixed views: names that a file can have, and their roots."""

    layouts: dict[str, INode]
    indexed: frozenset[INode]
    """Layouts with an index."""
    with_data: frozenset[INode]
    """Layouts that show headers as JSON, as OMI-DB does."""
    projects: dict[str, INode]
    withholding: frozenset[INode]
    """Projects that are de-identified, whose `quarantine` is private."""
    withheld: frozenset[INode]
    """Those that have one."""
    order: list[INode]
    """All projects that ever were."""

    @classmethod
    def of(cls, view: "View") -> "_Found":
        """Look at the catalog. A project is there when it was made to the end."""
        layouts = [
            state for state in view.layouts()
            if state.on and possible(state.name.encode()) and state.name not in VIEWS and state.name != "README.txt"
        ]  # fmt: skip
        states = view.projects()
        projects = [state for state in states if state.on and state.through and possible(state.directory.encode())]
        withholding = frozenset(state.root for state in projects if state.definition.deid)
        return cls(
            {state.name: state.root for state in layouts},
            frozenset(state.root for state in layouts if state.template == built_in()["archive"]),
            frozenset(state.root for state in layouts if omidb.shows_data(state.template)),
            {state.directory: state.root for state in projects},
            withholding,
            frozenset(root for root in withholding if view.child(root, places.QUARANTINE) is not None),
            [state.root for state in states],
        )


class Tree:
    """An archive as files. Called by one thread; `open`, `xattr` and open files by any.

    What a provider may raise NotReady for, raises it here.
    """

    def __init__(
        self,
        archive: "Archive",
        views: Sequence[str] | None = None,
        *,
        private: bool = True,
        private_tables: bool = False,
    ) -> None:
        """Show these views of an archive, or the default ones; raise UsageError for an unknown one.

        An archive that is open in an earlier state has no quarantine, of which only that of now is known.

        `private` says that nobody but the owner can look into it, `private_tables` that what is private in projects
        is shown in any case.
        """
        self._archive = archive
        self._views = tuple(views or ())
        self._private_tables = private or private_tables
        found = self._look()
        past = archive.as_of is not None
        names = chosen(self._views, list(found.layouts), list(found.projects), private=private, past=past)
        self._created_ns = int(datetime.fromisoformat(archive.settings.created).timestamp()) * 10**9
        self._readme = TextFile(readme.text(names, default=not self._views, state=self._state()))
        self._fixed_roots = {name.encode(): VIEWS[name].root for name in names if name in VIEWS and name != "projects"}
        self._fixed_links = sum(VIEWS[name].links_instances for name in names if name in VIEWS)
        self._has_all = any(name != "quarantine" and not is_projects(name) for name in names)
        self._shelf = Shelf(archive)
        # Who sees every original, and is the only one who looks, need not be kept from anything.
        partial = bool(self._views) and not (private and "patients" in names)
        self._places = Places(partial=partial, private=self._private_tables)
        index = ArchiveIndex(archive, self._shelf, self._created_ns)
        self._files = ProjectFiles(archive, self._shelf, self._places, private=self._private_tables)
        data = Omidb(archive, self._shelf)
        self._catalog = Catalog(archive, self._places, index, data, self._files, self._created_ns)
        self._projects = Projects(self._catalog, self._created_ns)
        self._fixed: dict[INode, Provider] = {}
        self._computed: dict[int, Provider] = {
            COMPUTED_INDEX: index,
            COMPUTED_OMIDB: data,
            COMPUTED_PROJECTS: self._files,
        }
        self._providers: list[Provider] = [self._catalog, index, data, self._files]
        self._roots = self._fixed_roots
        if PATIENTS in self._roots.values():
            self._fixed[PATIENTS] = self._catalog
        self._show(found)
        self._shown_seq = -1
        """The commit that is shown at least; what came while this was made is found by the first `changes`."""
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

    def _state(self) -> readme.State | None:
        """Return which earlier state is shown, None where it is that of now."""
        if self._archive.as_of is None:
            return None
        with self._archive.view() as view:
            return readme.State(self._archive.as_of.time_ns, view.seq, view.commit_time_ns)

    def _look(self) -> "_Found":
        """Return the layouts that are on and the projects that were made, if they may be shown."""
        with self._archive.view() as view:
            return _Found.of(view)

    def _show(self, found: "_Found") -> None:
        named = self._views or found.layouts
        layouts = {name.encode(): root for name, root in found.layouts.items() if name in named}
        projects = {name: root for name, root in found.projects.items() if self._is_chosen(name)}
        self._roots = {**self._fixed_roots, **layouts}
        if projects or any(is_projects(name) for name in self._views):
            self._roots[b"projects"] = PROJECTS
        withheld = found.withheld if self._private_tables else frozenset()
        linking = sum(root in withheld or root not in found.withholding for root in projects.values())
        self._catalog.links = self._fixed_links + len(layouts) + linking or 1
        self._catalog.index.roots = found.indexed.intersection(layouts.values())
        self._catalog.omidb.roots = found.with_data.intersection(layouts.values())
        self._projects.roots = {name.encode(): root for name, root in projects.items()}
        self._files.show(list(projects.values()), found.order)
        patients = [PATIENTS] if PATIENTS in self._fixed_roots.values() else []
        self._places.show(
            [*patients, *layouts.values(), *projects.values()],
            found.withholding.intersection(projects.values()),
            others=bool(found.order),
        )

    def _is_chosen(self, project: str) -> bool:
        return not self._views or "projects" in self._views or f"{ONE_PROJECT}{project}" in self._views

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

    def xattr_is_quick(self, ino: INode, name: bytes) -> bool:
        """Say whether an extended attribute is answered without waiting for anything."""
        return name in QUICK and (not FIRST_CLAIMED <= ino <= LAST_CLAIMED or self._catalog.xattr_is_quick(ino, name))

    def xattr(self, ino: INode, name: bytes) -> bytes | None:
        """Return an extended attribute, None where the node has none of that name."""
        provider = self._provider(ino)
        return None if provider is None else provider.xattr(ino, name)

    def statistics(self) -> Statistics:
        """Return how many files there are, and how large they are as shown: of what is shown alone; raise NotReady."""
        if self._statistics is None:
            if not self._has_all:
                raise NotReady(self._count)
            with self._archive.view() as view:
                totals = view.totals()
            self._statistics = Statistics(totals.shown, totals.shown_bytes)
        return self._statistics

    def _count(self) -> None:
        """Count what projects have, which nobody keeps: linear in the number of their files."""
        files = size = 0
        with self._archive.view() as view:
            for root in self._projects.roots.values():
                for member in view.members(root):
                    node = view.node(member.shown)
                    if node is not None and not (member.reason and not self._private_tables):
                        files, size = files + 1, size + node.size
        self._statistics = Statistics(files, size)

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
        roots, projects, links = self._roots, self._projects.roots, self._catalog.links
        if self._catalog.seq != self._shown_seq or not complete:
            seq = self._catalog.seq
            self._show(self._look())
            self._shown_seq = seq
        if not complete or (self._roots, self._projects.roots, self._catalog.links) != (roots, projects, links):
            # Dropping the views' own names makes the kernel forget all that lies below them: where a layout or project
            # came or went, the number of links of every instance.
            roots = {**roots, **self._roots}
            projects = {**projects, **self._projects.roots}
            directories |= {ROOT, PROJECTS, *roots.values(), *projects.values()}
            removed += [(PROJECTS, name) for name in projects]
            removed += [(ROOT, name) for name in roots]
        if directories or removed:
            self._statistics = None
            directories.add(ROOT)
        return Changes(directories, removed, complete)

    def close(self) -> None:
        """End what works for the tree; the archive stays open."""
        self._shelf.close()
        if self._web is not None:
            self._web.close()

    def has_private(self, ino: INode) -> bool:
        """Say whether a directory may have private nodes, of which its entries do not say that they are."""
        return FIRST_CLAIMED <= ino <= LAST_CLAIMED and self._catalog.has_private(ino)

    def _provider(self, ino: INode) -> Provider | None:
        if FIRST_CLAIMED <= ino <= LAST_CLAIMED:
            return self._catalog
        if is_web(ino):
            return self._web
        if ino == PROJECTS and PROJECTS in self._roots.values():
            return self._projects
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
                yield found.entry(names[ino], ino)
