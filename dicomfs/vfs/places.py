"""Where in the drive a claimed node lies: open to all who may look, private, or out of reach.

A drive that shows a part of an archive, as one de-identified project does, must not lead anywhere else: neither by a
name nor by an inode number, which whoever has a network share can guess. So each claimed node is asked for its way to
the root. What is known of a directory is kept, as directories never move; files are asked for each time.

The quarantine of a project is private with all that is below it: it holds what could not be de-identified.
"""

from collections.abc import Collection
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from dicomfs.vfs.node import FIRST_CLAIMED, INode

if TYPE_CHECKING:
    from dicomfs.archive.catalog import Node, View

QUARANTINE: Final = b"quarantine"
"""The directory of a project with what is withheld."""
_KEPT: Final = 1 << 16
_MAX_DEPTH: Final = 64
"""No directory lies deeper; a damaged one may be its own ancestor."""


class Standing(IntEnum):
    """Who may come to a node: the larger of two counts where it has two places."""

    OUT = 0
    PRIVATE = 1
    OPEN = 2


class Places:
    """Where nodes lie in one drive. May be asked by several threads; told what is shown by one."""

    def __init__(self, *, partial: bool, private: bool) -> None:
        """`partial`: the drive shows what was named, and nothing else; `private`: what is private is shown, too."""
        self._partial = partial
        self._private = Standing.PRIVATE if private else Standing.OUT
        self._roots: frozenset[INode] = frozenset()
        self._withholding: frozenset[INode] = frozenset()
        self._known: dict[INode, Standing] = {}
        self.fenced = partial
        """Whether any node is out of reach."""
        self.matter = partial
        """Whether any node is not just open."""

    def show(self, roots: Collection[INode], withholding: Collection[INode], *, others: bool) -> None:
        """Show the trees with these roots; in those that are `withholding` the directory `quarantine` is private.

        `others` says that there are projects, or were: then not everything is for those who may see nothing private.
        """
        self._roots = frozenset(roots)
        self._withholding = frozenset(withholding)
        self._known = {}
        self.fenced = self._partial or (others and self._private is Standing.OUT)
        self.matter = self.fenced or bool(withholding)

    def is_root(self, ino: INode) -> bool:
        """Say whether this is the root of a tree that is shown."""
        return ino in self._roots

    def leaves_out(self, directory: INode, name: bytes) -> bool:
        """Say whether a directory that is shown has an entry of this name that is not."""
        return name == QUARANTINE and directory in self._withholding and not self._private

    def has_private(self, view: "View", directory: INode) -> bool:
        """Say whether there may be private nodes in a directory."""
        return directory in self._withholding or self.is_private(view, directory)

    def is_private(self, view: "View", directory: INode) -> bool:
        """Say whether a directory is private."""
        return self.matter and self.of_directory(view, directory) is Standing.PRIVATE

    def of_node(self, view: "View", node: "Node") -> Standing:
        """Return how a node stands."""
        if node.is_directory:
            return self.of_directory(view, node.ino)
        if not self.fenced:
            return Standing.OPEN
        found = self.of_directory(view, node.parent)
        if found is not Standing.OPEN:
            for _, directory, _ in view.links(node.ino):
                found = max(found, self.of_directory(view, directory))
        return found

    def of_directory(self, view: "View", ino: INode) -> Standing:
        """Return how a directory stands."""
        known = self._known
        found = known.get(ino)
        if found is None:
            found = self._find(view, ino)
            if len(known) >= _KEPT:
                known.clear()
            known[ino] = found
        return found

    def _find(self, view: "View", ino: INode) -> Standing:
        for _ in range(_MAX_DEPTH):
            if ino in self._roots:
                return Standing.OPEN
            node = view.node(ino) if ino >= FIRST_CLAIMED else None
            if node is None:
                break
            if node.parent in self._withholding and self._is_quarantine(view, node):
                return self._private
            ino = node.parent
        return Standing.OUT if self.fenced else Standing.OPEN

    @staticmethod
    def _is_quarantine(view: "View", node: "Node") -> bool:
        found = view.child(node.parent, QUARANTINE)
        return found is not None and found.ino == node.ino
