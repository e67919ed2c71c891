"""What commits change below data/ of the layout `omidb`: what they change in images/.

An attachment changes the directory of its client there (archive/fold_attachments.py).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dicomfs.errors import Damaged, NotFound
from dicomfs.vfs import omidb_numbers as numbers
from dicomfs.vfs.node import NOTHING, Changes, INode
from dicomfs.vfs.omidb_numbers import CLIENT, DATA, STUDY

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View
    from dicomfs.vfs.shelf import Shelf


class Journal:
    """What a mounted drive has to be told. Belongs to one thread."""

    def __init__(self, archive: "Archive", shelf: "Shelf") -> None:
        self._archive = archive
        self._shelf = shelf
        self.lacking: set[int] = set()
        """Studies' directories that were listed without what had just come."""
        with archive.view() as view:
            self._seq = view.seq

    def skip(self) -> None:
        """Pass by what was committed since the last call, as no layout of ours is shown."""
        with self._archive.view() as view:
            self._seq = view.seq

    def news(self, roots: Iterable[INode]) -> Changes:
        """Return what was committed since the last call, and what was told though it was out of date already."""
        with self._archive.view() as view:
            outdated = self._shelf.outdated()
            if view.seq == self._seq and not outdated and not self.lacking:
                return NOTHING
            found = view.changes(self._seq)
            clients = {number for kind, number in outdated if kind == "client"}
            studies, self.lacking = self.lacking, set()
            self._seq = found.seq
            if not found.complete:
                return Changes(frozenset(), (), complete=False)
            directories: set[INode] = set()
            for directory in found.directories:
                depth, root = _depth(view, directory, roots)
                if depth in (0, 1):
                    directories.add(numbers.inode(DATA, root))
                elif depth == 2:
                    clients.add(directory)
                elif depth == 3:
                    studies.add(directory)
            removed = [gone for parent, name in found.removed if (gone := _gone(view, parent, name, roots)) is not None]
            for client in clients:
                try:
                    name = view.path(client).rpartition("/")[2]
                except (NotFound, Damaged):  # which whoever looks there is told
                    continue
                removed += (
                    (numbers.inode(CLIENT, client), f"{one}_{name}.json".encode()) for one in ("imagedb", "nbss")
                )
        directories |= {numbers.inode(CLIENT, client) for client in clients}
        directories |= {numbers.inode(STUDY, study) for study in studies}
        return Changes(directories, removed, complete=True)


def _gone(view: "View", parent: int, name: bytes, roots: Iterable[INode]) -> tuple[INode, bytes] | None:
    """Return the name in data/, or its own, that is to be forgotten with one in images/, or with that itself."""
    depth, root = _depth(view, parent, roots)
    if depth == 0:
        return root, numbers.NAME
    if depth == 1:
        return numbers.inode(DATA, root), name
    if depth == 2:
        return numbers.inode(CLIENT, parent), name
    return (numbers.inode(STUDY, parent), name.removesuffix(b".dcm") + b".json") if depth == 3 else None


def _depth(view: "View", directory: int, roots: Iterable[INode]) -> tuple[int, INode]:
    """Return how far below the root of a layout of ours a directory is, and that root; -1 for others."""
    at = directory
    for depth in range(4):
        if at in roots:
            return depth, at
        node = view.node(at)
        if node is None:
            break
        at = node.parent
    return -1, 0
