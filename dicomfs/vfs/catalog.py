"""The claimed trees: directories and files as the catalog has them, whatever the layout or project."""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dicomfs.archive.names import possible
from dicomfs.errors import NotFound
from dicomfs.vfs import omidb as omidbs
from dicomfs.vfs import omidb_numbers, xattrs
from dicomfs.vfs.archive_index import NAME as INDEX
from dicomfs.vfs.archive_index import ArchiveIndex
from dicomfs.vfs.node import FIRST_CLAIMED, NOTHING, ROOT, Attributes, Changes, Entry, INode, OpenFile
from dicomfs.vfs.places import QUARANTINE, Places, Standing
from dicomfs.vfs.project_files import ProjectFiles

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import Node, View

log = logging.getLogger(__name__)


class Catalog:
    """Provider of every tree that was claimed at commit; each instance has one inode number in all of them."""

    def __init__(
        self,
        archive: "Archive",
        places: Places,
        index: ArchiveIndex,
        omidb: omidbs.Omidb,
        files: ProjectFiles,
        created_ns: int,
    ) -> None:
        """Show of an archive what `places` lets be seen; `index`, `omidb` and `files` add what is computed."""
        self._archive = archive
        self._places = places
        self.index = index
        self.omidb = omidb
        self._files = files
        self.links = 1
        """How many of the views shown may hold an instance. Which of the projects do, nobody counts for each: a number
        that is too large costs `tar` and `rsync -H` some memory, one that is too small would make them copy twice."""
        self._created_ns = created_ns
        self._told = False
        self._replaced = False
        with archive.view() as view:
            self.seq = view.seq
            """The commit of which `changes` told last."""

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of a directory or file."""
        with self._archive.view() as view:
            node = view.node(ino)
            if node is not None:
                return self._attributes(view, node)
        # The root of a tree is there before the first import makes it one of the catalog's directories.
        return Attributes(ino, True, 0, self._created_ns, 2) if ino < FIRST_CLAIMED else None

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the node of exactly this name in a directory."""
        if not possible(name):
            return None
        if name == INDEX and parent in self.index.roots:
            return self.index.of(parent)
        if name == omidb_numbers.NAME and parent in self.omidb.roots:
            return self.omidb.of(parent)
        with self._archive.view() as view:
            if self._is_out(view, parent):
                return None
            node = view.child(parent, name)
            return self._files.named(view, parent, name) if node is None else self._attributes(view, node)

    def _attributes(self, view: "View", node: "Node") -> Attributes | None:
        standing = self._places.of_node(view, node) if self._places.matter else Standing.OPEN
        if standing is Standing.OUT:
            return None
        ino, is_directory, size, mtime_ns, subdirectories, _, is_derived = node
        if is_directory:
            nlink = 2 + subdirectories + (ino in self.omidb.roots)
            if self._places.leaves_out(ino, QUARANTINE) and view.child(ino, QUARANTINE) is not None:
                nlink -= 1
        else:
            nlink = 1 if is_derived else self.links
        return Attributes(ino, is_directory, size, mtime_ns, nlink, standing is Standing.PRIVATE)

    def entries(self, ino: INode, after: INode) -> Iterator[Entry]:
        """Yield the entries of a directory by inode number, which is the cookie; one scan."""
        if ino in self.index.roots:
            return self._entries(ino, after, [self.index.entry(ino)])
        if ino in self.omidb.roots:
            data = self.omidb.entry(ino)
            return self._entries(ino, after, [] if data is None else [data])
        return self._entries(ino, after, self._files.tables_of(ino))

    def _entries(self, ino: INode, after: INode, last: Sequence[Entry]) -> Iterator[Entry]:
        places = self._places
        with self._archive.view() as view:
            if self._is_out(view, ino):
                return
            found = view.children(ino, after, self.links, self._leave_out)
            if places.leaves_out(ino, QUARANTINE):
                found = (entry for entry in found if entry[0] != QUARANTINE)
            yield from found
            if places.is_private(view, ino):
                yield from self._files.reasons_in(view, ino, after)
        for entry in last:
            if entry[-1] > after:
                yield entry

    def has_private(self, ino: INode) -> bool:
        """Say whether there may be private nodes in a directory."""
        if not self._places.matter:
            return False
        with self._archive.view() as view:
            return self._places.has_private(view, ino)

    def _leave_out(self, ino: INode) -> None:
        """Tell once of a name that no file can have: the kernel would give up the whole directory for it."""
        if not self._told:
            self._told = True
            log.warning("inode %d is not shown: its name is none that a file can have; run 'dicomfs check'", ino)

    def parent(self, ino: INode) -> INode | None:
        """Return the directory of a node."""
        with self._archive.view() as view:
            node = view.node(ino)
            if node is None or self._attributes(view, node) is None:
                return None
            if self._is_out(view, node.parent) and not self._places.is_root(ino):
                return None  # an instance that is shown elsewhere
        return node.parent or ROOT

    def _is_out(self, view: "View", directory: INode) -> bool:
        return self._places.matter and self._places.of_directory(view, directory) is Standing.OUT

    def open(self, ino: INode) -> OpenFile:
        """Open a file."""
        if not self._is_there(ino):
            raise NotFound(f"there is no file with inode number {ino}")
        return self._archive.open_instance(ino)

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Open a file if its header is in memory."""
        return self._archive.open_instance_ready(ino) if self._is_there(ino) else self.open(ino)

    def _is_there(self, ino: INode) -> bool:
        if not self._places.fenced:
            return True
        with self._archive.view() as view:
            node = view.node(ino)
            return node is not None and self._places.of_node(view, node) is not Standing.OUT

    def xattr_names(self, ino: INode) -> list[bytes]:
        """Return the names of the few attributes that copies should carry."""
        return xattrs.names(self._archive, ino) if self._is_there(ino) else []

    def xattr(self, ino: INode, name: bytes) -> bytes | None:
        """Return one of them, or any attribute of the stored header."""
        return xattrs.value(self._archive, ino, name) if self._is_there(ino) else None

    def xattr_is_quick(self, ino: INode, name: bytes) -> bool:
        """Say whether an attribute is answered without touching a pack."""
        return xattrs.is_quick(self._archive, ino, name)

    def changes(self) -> Changes:
        """Return what was committed since the last call."""
        self._replaced |= self._archive.refresh()
        with self._archive.view() as view:
            if view.seq == self.seq and not self._replaced:
                return NOTHING
            found = view.changes(self.seq)
            removed = [*found.removed, *self._files.reasons_gone(view, found.removed)]
        # A rebuilt index may lack what was lost with a pack, whatever its number of commits.
        complete = found.complete and not self._replaced
        if not complete:
            self.index.forget()
            self._files.forget()
            self.omidb.forget()
        self.seq, self._replaced = found.seq, False
        return Changes(found.directories, removed, complete)
