"""The catalog's tables read through one transaction: what every question to the catalog is made of."""

import json
from collections.abc import Iterator

from dicomfs.archive import tables
from dicomfs.archive.tables import PAIR, U64
from dicomfs.errors import Damaged, NotFound
from dicomfs.store.index import Table, Transaction
from dicomfs.store.store import Store


def file_inode(txn: Transaction, inodes: Table, ino: int) -> tables.InstanceInode:
    """Return where the header of an instance, or of a file derived from one, lies; raise NotFound."""
    value = txn.get(U64.pack(ino), db=inodes)
    if value is None or value[0] not in (tables.INSTANCE, tables.DERIVED):
        raise NotFound(f"no instance has inode number {ino}")
    if len(value) < tables.INSTANCE_INODE.size:
        raise Damaged(f"the index has a damaged record of inode {ino}; run 'dicomfs reindex'")
    return tables.InstanceInode.parse(value)


class Reading:
    """The tables at one commit. Belongs to one thread."""

    __slots__ = ("_store", "_tables", "_txn")

    def __init__(self, store: Store, txn: Transaction) -> None:
        self._store = store
        self._txn = txn
        self._tables: dict[str, Table] = store.index.tables

    @property
    def seq(self) -> int:
        """The number of the commit that this view shows."""
        return self._store.seq(self._txn)

    @property
    def commit_time_ns(self) -> int:
        """When the last commit was made; 0 before the first."""
        seq = self.seq
        return self._store.commit_place(self._txn, seq).time_ns if seq else 0

    def instance_inode(self, ino: int) -> tables.InstanceInode:
        """Return where an instance's header lies; raise NotFound where the number is not that of one."""
        inode = self.file_inode(ino)
        if inode.kind != tables.INSTANCE:
            raise NotFound(f"no instance has inode number {ino}")
        return inode

    def file_inode(self, ino: int) -> tables.InstanceInode:
        """Return where the header of an instance, or of a file derived from one, lies; raise NotFound."""
        return file_inode(self._txn, self._tables["inode"], ino)

    def not_replaced(self, after: int) -> Iterator[tuple[int, tables.InstanceInode]]:
        """Walk the instances past a number that no other took the place of."""
        cursor = self._txn.cursor(db=self._tables["inode"])
        if not cursor.set_range(U64.pack(after + 1)):
            return
        for key, value in cursor.iternext():
            if value[0] == tables.INSTANCE:
                inode = tables.InstanceInode.parse(value)
                if inode.parent != tables.NOWHERE:
                    yield U64.unpack(key)[0], inode

    def instances_where_uid(self, sop_instance_uid: str) -> list[int]:
        """Return the inode numbers of the files with this SOP Instance UID, the current one first."""
        value = self._txn.get(tables.sop_key(sop_instance_uid), db=self._tables["sop"]) or b""
        return [U64.unpack_from(value, at)[0] for at in range(0, len(value), 8)]

    def attributes_of(self, series: int, ino: int) -> dict[str, str | int]:
        """Return what the catalog holds of an instance alone: its own, and in what it differs from what it is in."""
        found: dict[str, str | int] = json.loads(self._get("instance", series, ino))
        return found

    def name_of(self, ino: int) -> str:
        """Return the name of a directory, or of a file in `patients/` or a project."""
        value = self._get("inode", ino)
        fixed = tables.DIRECTORY_INODE if value[0] == tables.DIRECTORY else tables.INSTANCE_INODE
        return value[fixed.size :].decode()

    def _get(self, table: str, *numbers: int) -> bytes:
        value = self._txn.get(b"".join(map(U64.pack, numbers)), db=self._tables[table])
        if value is None:
            raise NotFound(f"the catalog has no {table} {numbers[-1]}")
        return value

    def _numbers(self, table: str, after: int = 0) -> Iterator[int]:
        cursor = self._txn.cursor(db=self._tables[table])
        if cursor.set_range(U64.pack(after + 1)):
            for key, _ in cursor.iternext(values=True):
                yield U64.unpack(key)[0]

    def _below(self, table: str, number: int, after: int = 0) -> Iterator[int]:
        for key in self._keys(table, PAIR.pack(number, after + 1), U64.pack(number)):
            yield U64.unpack_from(key, 8)[0]

    def _keys(self, table: str, start: bytes, prefix: bytes) -> Iterator[bytes]:
        cursor = self._txn.cursor(db=self._tables[table])
        if not cursor.set_range(start):
            return
        for key, _ in cursor.iternext():
            if not key.startswith(prefix):
                return
            yield key
