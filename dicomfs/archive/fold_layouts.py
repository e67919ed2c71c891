"""Fold what commits say of layouts: which are on, their directories, and the names of instances in them.

The parts of a commit's JSON that only archives with layouts have:

    {"layouts": [[root, name, template]], "layouts_off": [root], "folders": [[ino, identity, parent, name]],
     "links": [[ino of the instance, root, parent, name]], "placed": [[root, ino]]}
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from dicomfs.archive import by_layout, tables
from dicomfs.archive.by_layout import LayoutState
from dicomfs.archive.fold_tree import TreeFold
from dicomfs.archive.tables import CHILD, DIRECTORY, INSTANCE, PAIR, U64
from dicomfs.store.index import Table, Transaction

Link: TypeAlias = tuple[int, int, str]
"""(root, directory, name) of an instance in a layout or project."""

KEYS: Final = ("layouts", "layouts_off", "folders", "links", "placed")


class LayoutFold:
    """The layouts' part of one commit on its way into the catalog.

    An instance that is replaced in the commit that brought it never had a place that anybody saw: so it is to
    leave no trace but the number that its name took, whether it was linked before it was replaced, as by an import,
    or is known to be replaced before it is linked, as by a replay.
    """

    def __init__(self, txn: Transaction, held: dict[str, Table], time_ns: int, tree: TreeFold) -> None:
        self._txn = txn
        self._tables = held
        self._time_ns = time_ns
        self._tree = tree
        self._linked: set[int] = set()
        self._given: dict[int, int] = {}

    def layout(self, root: int, name: str, template: str) -> None:
        """Switch a layout on, the first time or again."""
        if root < tables.FIRST_CLAIMED:
            raise ValueError("a layout's root has a number of its own")
        key = U64.pack(root)
        known = self._txn.get(key, db=self._tables["layout"]) is not None
        # What came while it was off has no place in it yet.
        state = LayoutState(root, name, template, on=True, through=0)
        self._txn.put(key, by_layout.encode(state), db=self._tables["layout"])
        if not known:
            inode = tables.DIRECTORY_INODE.pack(DIRECTORY, tables.ROOT, self._time_ns, 0) + name.encode()
            self._txn.put(key, inode, db=self._tables["inode"])
        self._tree.touch(root)

    def layout_off(self, root: int) -> None:
        """Switch a layout off; its names stay known, so that they are the same if it comes back."""
        self._update(root, on=False)
        self._tree.touch(root)

    def placed(self, root: int, through: int) -> None:
        """Say that every instance up to a number has its name in a layout."""
        self._update(root, through=through)

    def _update(self, root: int, **changes: int) -> None:
        value = self._txn.get(U64.pack(root), db=self._tables["layout"])
        if value is not None:
            state = by_layout.decode(root, value)._replace(**changes)  # type: ignore[arg-type]  # `on` or `through`
            self._txn.put(U64.pack(root), by_layout.encode(state), db=self._tables["layout"])

    def give(self, parent: int) -> None:
        """Count a name that a directory gives out."""
        self._given[parent] = self.given(parent) + 1

    def given(self, parent: int) -> int:
        """Return how many names a directory gave out so far."""
        known = self._given.get(parent)
        if known is None:
            value = self._txn.get(U64.pack(parent), db=self._tables["given"])
            known = self._given[parent] = 0 if value is None else int(U64.unpack(value)[0])
        return known

    def link(self, ino: int, root: int, parent: int, name: str) -> bool:
        """Give an instance its name in a layout or project; say whether it got one."""
        self.give(parent)
        self._tree.touch(parent)
        value = self._txn.get(U64.pack(ino), db=self._tables["inode"])
        if value is None or value[0] != INSTANCE:
            return False  # it was lost with a pack
        inode = tables.InstanceInode.parse(value)
        if inode.parent == tables.NOWHERE:
            self._tree.empty(parent)
            return False
        self._put(ino, inode, root, parent, name.encode())
        self._linked.add(ino)
        return True

    def _put(self, ino: int, inode: tables.InstanceInode, root: int, parent: int, name: bytes) -> None:
        self._tree.claim(parent, ino, name, CHILD.pack(INSTANCE, inode.size, inode.mtime_ns, 0))
        self._txn.put(PAIR.pack(ino, root), U64.pack(parent) + name, db=self._tables["link"])

    def unlink(self, ino: int, keeps: Callable[[int], bool], *, reserve: bool) -> list[Link]:
        """Take an instance out of every layout or project but those that keep it; return where readers may know it.

        `reserve` keeps the names for it.
        """
        found: list[Link] = []
        cursor = self._txn.cursor(db=self._tables["link"])
        if cursor.set_range(PAIR.pack(ino, 0)):
            for key, value in cursor.iternext():
                instance, root = PAIR.unpack(key)
                if instance != ino:
                    break
                if not keeps(root):
                    found.append((root, U64.unpack_from(value)[0], value[U64.size :].decode()))
        is_known = ino not in self._linked
        for root, parent, name in found:
            self._txn.delete(PAIR.pack(ino, root), db=self._tables["link"])
            self._tree.release(parent, ino, name.encode(), reserve=reserve, is_known=is_known)
        return found if is_known else []

    def relink(self, ino: int, links: list[Link]) -> None:
        """Put an instance back where it was when it was deleted: its names are its own."""
        inode = tables.InstanceInode.parse(self._txn.get(U64.pack(ino), db=self._tables["inode"]) or b"")
        for root, parent, name in links:
            self._put(ino, inode, root, parent, name.encode())
            self._tree.touch(parent)

    def finish(self) -> None:
        """Write down the counts."""
        for parent, given in self._given.items():
            self._txn.put(U64.pack(parent), U64.pack(given), db=self._tables["given"])
