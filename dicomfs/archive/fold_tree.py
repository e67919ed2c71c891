"""Fold what commits say of directories: which there are, and what is in them.

A directory is in the one above it for as long as there is something in it. Its number and its name stay its own:
nobody else gets them, and it has them again when something is put into it.
"""

from dicomfs.archive import tables
from dicomfs.archive.tables import CHILD, DIRECTORY, PAIR, ROOT, ROOT_PROJECTS, U64
from dicomfs.store.index import Table, Transaction


class TreeFold:
    """The directories' part of one commit on its way into the catalog."""

    def __init__(self, txn: Transaction, held: dict[str, Table], time_ns: int) -> None:
        self._txn = txn
        self._inodes, self._children, self._names = held["inode"], held["child"], held["name"]
        self._time_ns = time_ns
        self._changed: dict[int, int] = {}
        self._emptied: set[int] = set()
        self.removed: list[tuple[int, str]] = []
        """Directories and names under which readers may know what is not there any more.

        What is below a name of these is not named again.
        """
        self._gone: set[int] = set()

    def directory(self, ino: int, parent: int, name: str) -> None:
        """Add a directory under the name that was claimed for it."""
        encoded = name.encode()
        value = tables.DIRECTORY_INODE.pack(DIRECTORY, parent, self._time_ns, 0) + encoded
        self._txn.put(U64.pack(ino), value, db=self._inodes)
        self.claim(parent, ino, encoded, CHILD.pack(DIRECTORY, 0, self._time_ns, 0))
        self.touch(ino)
        self.touch(parent, 1)

    def claim(self, parent: int, ino: int, name: bytes, child: bytes) -> None:
        """Put a node into a directory."""
        self._txn.put(PAIR.pack(parent, ino), child + name, db=self._children)
        self._txn.put(tables.name_key(parent, name), U64.pack(ino), db=self._names)

    def release(self, parent: int, ino: int, name: bytes, *, reserve: bool = False, is_known: bool = True) -> None:
        """Take a file out of a directory; `reserve` keeps its name for it, `is_known` says that readers may know it."""
        self._txn.delete(PAIR.pack(parent, ino), db=self._children)
        if not reserve:
            self.free(parent, ino, name)
        if is_known:
            self.removed.append((parent, name.decode()))
        self.touch(parent)
        self.empty(parent)

    def empty(self, ino: int) -> None:
        """Say that there may be nothing left in a directory."""
        self._emptied.add(ino)

    def free(self, parent: int, ino: int, name: bytes) -> None:
        """Let others have a name that is kept for a node."""
        key = tables.name_key(parent, name)
        if self._txn.get(key, db=self._names) == U64.pack(ino):
            self._txn.delete(key, db=self._names)

    def rename(self, ino: int, name: str) -> None:
        """Give a directory another name, where it is."""
        value = self._txn.get(U64.pack(ino), db=self._inodes)
        if value is None or value[0] != DIRECTORY:
            return  # it was lost with a pack
        fixed, old, new = value[: tables.DIRECTORY_INODE.size], value[tables.DIRECTORY_INODE.size :], name.encode()
        parent = tables.DIRECTORY_INODE.unpack(fixed)[1]
        self._txn.put(U64.pack(ino), fixed + new, db=self._inodes)
        self.free(parent, ino, old)
        self._txn.put(tables.name_key(parent, new), U64.pack(ino), db=self._names)
        child = self._txn.get(PAIR.pack(parent, ino), db=self._children)
        if child is not None:
            self._txn.put(PAIR.pack(parent, ino), child[: CHILD.size] + new, db=self._children)
            self.removed.append((parent, old.decode()))
        self.touch(parent)

    def touch(self, ino: int, subdirectories: int = 0) -> None:
        """Say that a directory has another entry, and how many directories more it has in it."""
        self._changed[ino] = self._changed.get(ino, 0) + subdirectories

    def finish(self) -> set[int]:
        """Give every directory with something new below it this commit's time; return them all."""
        self._settle()
        self.removed = [(parent, name) for parent, name in self.removed if parent not in self._gone]
        touched: set[int] = set()
        for ino, new in self._changed.items():
            self._touch(ino, new, touched)
        return touched

    def _settle(self) -> None:
        """Take out directories in which nothing is left, and put back those in which there is something again."""
        waiting = list(self._changed)
        while waiting:
            ino = waiting.pop()
            value = self._txn.get(U64.pack(ino), db=self._inodes)
            if value is None or value[0] != DIRECTORY:
                continue
            parent = tables.DIRECTORY_INODE.unpack_from(value)[1]
            if parent in (ROOT, ROOT_PROJECTS):
                continue
            key = PAIR.pack(parent, ino)
            is_shown = self._txn.get(key, db=self._children) is not None
            if is_shown is (ino not in self._emptied or self._has_entries(ino)):
                continue
            name = value[tables.DIRECTORY_INODE.size :]
            if is_shown:
                self._txn.delete(key, db=self._children)
                self.removed.append((parent, name.decode()))
                self.empty(parent)
                self._gone.add(ino)
            else:
                self._gone.discard(ino)
                self.claim(parent, ino, name, CHILD.pack(DIRECTORY, 0, self._time_ns, 0))
            self.touch(parent, -1 if is_shown else 1)
            waiting.append(parent)

    def _has_entries(self, ino: int) -> bool:
        cursor = self._txn.cursor(db=self._children)
        return bool(cursor.set_range(PAIR.pack(ino, 0))) and cursor.key()[: U64.size] == U64.pack(ino)

    def _touch(self, ino: int, new: int, touched: set[int]) -> None:
        txn, inodes = self._txn, self._inodes
        while ino not in touched or new:
            touched.add(ino)
            value = txn.get(U64.pack(ino), db=inodes)
            if value is None:  # the root of a tree
                value = tables.DIRECTORY_INODE.pack(DIRECTORY, ROOT, self._time_ns, 0)
            _, parent, _, subdirectories = tables.DIRECTORY_INODE.unpack_from(value)
            subdirectories += new
            name = value[tables.DIRECTORY_INODE.size :]
            fixed = tables.DIRECTORY_INODE.pack(DIRECTORY, parent, self._time_ns, subdirectories)
            txn.put(U64.pack(ino), fixed + name, db=inodes)
            if parent == ROOT:
                touched.add(parent)
                return
            key = PAIR.pack(parent, ino)
            if txn.get(key, db=self._children) is not None:
                txn.put(key, CHILD.pack(DIRECTORY, 0, self._time_ns, subdirectories) + name, db=self._children)
            ino, new = parent, 0
