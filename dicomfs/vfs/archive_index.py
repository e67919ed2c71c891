"""archive_index.json at the top of the layout `archive`: made anew when the archive has changed and somebody looks.

An inode number is made of the layout's root and the number of the commit for which the index was made, whose time it
has: a new index is another file, as one is that was written anew and renamed. While an import commits all the time, an
index is good enough for a while after it was made: as long as making it took, and half a second at least.
"""

from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import archive_index
from dicomfs.errors import Damaged
from dicomfs.vfs.node import (
    COMPUTED_INDEX,
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
from dicomfs.vfs.plain import DiskFile
from dicomfs.vfs.shelf import GRACE_S, Shelf

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive

NAME: Final = archive_index.NAME.encode()
_COOKIE: Final = LAST_CLAIMED + 1
_ROOT_SHIFT: Final = 32
_ROOTS: Final = 1 << (COMPUTED_SHIFT - _ROOT_SHIFT)


class _Held(NamedTuple):
    """An index that was made."""

    seq: int
    path: str
    size: int
    mtime_ns: int
    good_until_s: float


class ArchiveIndex(FilesAlone):
    """Provider of the indexes of those layouts that have one."""

    def __init__(self, archive: "Archive", shelf: Shelf, created_ns: int) -> None:
        self._archive = archive
        self._created_ns = created_ns
        self._shelf = shelf
        self._held: dict[INode, _Held] = {}
        self._told: dict[INode, int] = {}
        """For which commit the index was that was told of last, by root."""
        self.roots: frozenset[INode] = frozenset()

    def of(self, root: INode) -> Attributes:
        """Return the index of a layout as of now; raise NotReady."""
        with self._archive.view() as view:
            seq = view.seq
        held = self._held.get(root)
        if held is None or (held.seq != seq and monotonic() > held.good_until_s):
            raise NotReady(lambda: self._make(root))
        self._told[root] = held.seq
        return _attributes(root, held)

    def _make(self, root: INode) -> None:
        began_s = monotonic()
        cache, makers = self._shelf.ready()
        makers.make(("archive_index", (root,)))
        found = archive_index.made(cache, root)
        if found is None:
            raise Damaged("the index of a layout that was made is not in the cache")
        now_s = monotonic()
        good_until_s = now_s + max(GRACE_S, now_s - began_s)
        size = found.path.stat().st_size
        self._held[root] = _Held(found.seq, str(found.path), size, found.time_ns or self._created_ns, good_until_s)

    def entry(self, root: INode) -> Entry:
        """Return the index as an entry of its directory, the last one; raise NotReady."""
        return self.of(root).entry(NAME, _COOKIE)

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of an index, None for one that is out of date."""
        found = self._find(ino)
        return None if found is None else _attributes(*found)

    def _find(self, ino: INode) -> tuple[INode, _Held] | None:
        return next(((root, held) for root, held in self._held.items() if _ino(root, held.seq) == ino), None)

    def parent(self, ino: INode) -> INode | None:
        """Return the root of the layout."""
        found = self._find(ino)
        return None if found is None else found[0]

    def open(self, ino: INode) -> OpenFile:
        """Open an index; it stays what it is, however long it is open."""
        found = self._find(ino)
        if found is not None:
            try:
                return DiskFile(found[1].path)
            except FileNotFoundError:
                self._held.pop(found[0], None)
        raise Stale("that index was made anew")

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Open an index: its directory is in memory."""
        return self.open(ino)

    def changes(self) -> Changes:
        """Say which indexes that somebody was told of are out of date."""
        if not self._told:
            return NOTHING
        with self._archive.view() as view:
            seq = view.seq
        now_s = monotonic()
        gone = [
            root
            for root, told in self._told.items()
            if told != seq and ((held := self._held.get(root)) is None or now_s > held.good_until_s)
        ]
        for root in gone:
            del self._told[root]
        return Changes(frozenset(gone), [(root, NAME) for root in gone], complete=True)

    def forget(self) -> None:
        """Drop what is known, as the archive's catalog may be another one."""
        self._held.clear()
        self._told.clear()


def _ino(root: INode, seq: int) -> INode:
    return COMPUTED_INDEX << COMPUTED_SHIFT | (root % _ROOTS) << _ROOT_SHIFT | seq % (1 << _ROOT_SHIFT)


def _attributes(root: INode, held: _Held) -> Attributes:
    return Attributes(_ino(root, held.seq), False, held.size, held.mtime_ns, 1)
