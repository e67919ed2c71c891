"""The directory of projects: those that are shown, each a tree of the catalog."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dicomfs.errors import NotFound
from dicomfs.vfs.node import NOTHING, PROJECTS, ROOT, Attributes, Changes, Entry, INode, NoXattrs, OpenFile

if TYPE_CHECKING:
    from dicomfs.vfs.catalog import Catalog


class Projects(NoXattrs):
    """Provider of the one directory; its entries are the catalog's."""

    def __init__(self, catalog: "Catalog", created_ns: int) -> None:
        self._catalog = catalog
        self._created_ns = created_ns
        self.roots: Mapping[bytes, INode] = {}
        """The projects that are shown, by name."""

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of the directory: as new as what is shown, whatever else there may be."""
        if ino != PROJECTS:
            return None
        below = [self._catalog.attributes(root) for root in self.roots.values()]
        mtime_ns = max((found.mtime_ns for found in below if found is not None), default=self._created_ns)
        return Attributes(PROJECTS, True, 0, mtime_ns, 2 + len(self.roots))

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the project of this name."""
        root = self.roots.get(name) if parent == PROJECTS else None
        return None if root is None else self._catalog.attributes(root)

    def entries(self, ino: INode, after: INode) -> Iterator[Entry]:
        """Yield the projects by inode number, which is the cookie."""
        for name, root in sorted(self.roots.items(), key=lambda one: one[1]) if ino == PROJECTS else ():
            if root > after and (found := self._catalog.attributes(root)) is not None:
                yield found.entry(name, root)

    def parent(self, ino: INode) -> INode | None:
        """Return the root of the drive."""
        return ROOT if ino == PROJECTS else None

    def open(self, ino: INode) -> OpenFile:
        """Have no files."""
        raise NotFound(f"there is no file with inode number {ino}")

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Have no files."""
        return self.open(ino)

    def changes(self) -> Changes:
        """Say nothing: which projects are shown is the tree's to know."""
        return NOTHING
