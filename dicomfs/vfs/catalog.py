"""The claimed trees: directories and instances as the catalog has them, whatever the layout."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dicomfs.archive.names import possible
from dicomfs.vfs import omidb as omidbs
from dicomfs.vfs import xattrs
from dicomfs.vfs.archive_index import NAME as INDEX
from dicomfs.vfs.archive_index import ArchiveIndex
from dicomfs.vfs.node import FIRST_CLAIMED, NOTHING, ROOT, Attributes, Changes, Entry, INode, OpenFile

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import Node

log = logging.getLogger(__name__)


class Catalog:
    """Provider of every tree that was claimed at commit; each instance has one inode number in all of them."""

    def __init__(self, archive: "Archive", links: int, created_ns: int) -> None:
        """Show an archive; `links` is how many of the views shown hold each instance."""
        self._archive = archive
        self.links = links
        self.index = ArchiveIndex(archive)
        self.omidb = omidbs.Omidb(archive)
        self._created_ns = created_ns
        self._told = False
        self._replaced = False
        with archive.view() as view:
            self._seq = view.seq

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of a directory or instance."""
        with self._archive.view() as view:
            node = view.node(ino)
        if node is None:
            # The root of a tree is there before the first import makes it one of the catalog's directories.
            return Attributes(ino, True, 0, self._created_ns, 2) if ino < FIRST_CLAIMED else None
        return self._attributes(node)

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the node of exactly this name in a directory."""
        if not possible(name):
            return None
        if name == INDEX and parent in self.index.roots:
            return self.index.of(parent)
        if name == omidbs.NAME and parent in self.omidb.roots:
            return self.omidb.of(parent)
        with self._archive.view() as view:
            node = view.child(parent, name)
        return None if node is None else self._attributes(node)

    def _attributes(self, node: "Node") -> Attributes:
        ino, is_directory, size, mtime_ns, subdirectories, _ = node
        subdirectories += ino in self.omidb.roots
        return Attributes(ino, is_directory, size, mtime_ns, 2 + subdirectories if is_directory else self.links)

    def entries(self, ino: INode, after: INode) -> Iterator[Entry]:
        """Yield the entries of a directory by inode number, which is the cookie; one scan."""
        if ino in self.index.roots:
            return self._entries(ino, after, self.index.entry(ino))
        if ino in self.omidb.roots:
            return self._entries(ino, after, self.omidb.entry(ino))
        return self._entries(ino, after)

    def _entries(self, ino: INode, after: INode, last: Entry | None = None) -> Iterator[Entry]:
        with self._archive.view() as view:
            yield from view.children(ino, after, self.links, self._leave_out)
        if last is not None and last[-1] > after:
            yield last

    def _leave_out(self, ino: INode) -> None:
        """Tell once of a name that no file can have: the kernel would give up the whole directory for it."""
        if not self._told:
            self._told = True
            log.warning("inode %d is not shown: its name is none that a file can have; run 'dicomfs check'", ino)

    def parent(self, ino: INode) -> INode | None:
        """Return the directory of a node."""
        with self._archive.view() as view:
            node = view.node(ino)
        return None if node is None else node.parent or ROOT

    def open(self, ino: INode) -> OpenFile:
        """Open an instance."""
        return self._archive.open_instance(ino)

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Open an instance if its header is in memory."""
        return self._archive.open_instance_ready(ino)

    def xattr_names(self, ino: INode) -> list[bytes]:
        """Return the names of the few attributes that copies should carry."""
        return xattrs.names(self._archive, ino)

    def xattr(self, ino: INode, name: bytes) -> bytes | None:
        """Return one of them, or any attribute of the stored header."""
        return xattrs.value(self._archive, ino, name)

    def changes(self) -> Changes:
        """Return what was committed since the last call."""
        self._replaced |= self._archive.refresh()
        with self._archive.view() as view:
            if view.seq == self._seq and not self._replaced:
                return NOTHING
            found = view.changes(self._seq)
        # A rebuilt index may lack what was lost with a pack, whatever its number of commits.
        complete = found.complete and not self._replaced
        if not complete:
            self.index.forget()
            self.omidb.forget()
        self._seq, self._replaced = found.seq, False
        return Changes(found.directories, found.removed, complete)
