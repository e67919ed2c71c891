"""Compare what the catalog says before and after packs were written anew: only what was forgotten may be missing.

Tables that are not compared where something was forgotten hold nothing that is shown: journals, and values by which
studies were found.
"""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Final

from dicomfs.archive import fold_versions, tables
from dicomfs.archive.archive import NO_BASE
from dicomfs.archive.comparison import differing
from dicomfs.archive.gc_forgetting import Forgetting
from dicomfs.archive.tables import U64
from dicomfs.store.index import Table, Transaction
from dicomfs.store.store import Store

_NOT_COMPARED: Final = ("find", "log", "change", "tombstone")
_Left = Callable[[bytes, bytes, Forgetting], bytes]
"""Return what stays of the value of an entry, nothing where the entry goes."""


def changed(store: Store, txn: Transaction, other: Store, other_txn: Transaction, forgotten: Forgetting) -> str:
    """Return the name of a table that another index has other than it has to be, '' where there is none."""
    if not forgotten.count:
        every = ("meta", *tables.TABLES)
        return next((name for name in every if differing(store, txn, other, other_txn, name)), "")
    for name in tables.TABLES:
        if name in _NOT_COMPARED:
            continue
        before, now = _items(txn, store.index.tables[name]), _items(other_txn, other.index.tables[name])
        if name == "past":
            if len(list(now)) != len(list(before)) - forgotten.count:
                return name
            continue
        left = _names(store, txn, forgotten) if name == "name" else _LEFT.get(name)
        expected = before if left is None else _without(before, left, forgotten)
        if name == "inode":
            expected, now = map(_placeless, expected), map(_placeless, now)
        if any(one != found for one, found in zip_longest(expected, now)):
            return name
    return ""


def _items(txn: Transaction, table: Table) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor(db=table)
    return cursor.iternext() if cursor.first() else iter(())


def _placeless(item: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return an inode but for where its header lies, and against what that is compressed."""
    key, value = item
    if value[0] not in (tables.INSTANCE, tables.DERIVED):
        return item
    inode = tables.InstanceInode.parse(value)._replace(body_offset=0, body_length=0, base=NO_BASE)
    return key, tables.INSTANCE_INODE.pack(*inode) + value[tables.INSTANCE_INODE.size :]


def _without(items: Iterator[tuple[bytes, bytes]], left: _Left, forgotten: Forgetting) -> Iterator[tuple[bytes, bytes]]:
    for key, value in items:
        stays = left(key, value, forgotten)
        if stays:
            yield key, stays


def _unless(ino: bytes, value: bytes, forgotten: Forgetting) -> bytes:
    return b"" if U64.unpack(ino)[0] in forgotten else value


def _versions(_: bytes, value: bytes, forgotten: Forgetting) -> bytes:
    return b"".join(U64.pack(ino) for (ino,) in U64.iter_unpack(value) if ino not in forgotten)


def _names(store: Store, txn: Transaction, forgotten: Forgetting) -> _Left:
    """Names go that are those of forgotten versions, and those that came back with one alone."""
    free: dict[bytes, bytes] = {}
    for ino in forgotten.instances:
        told = txn.get(U64.pack(ino), db=store.index.tables["past"])
        for other in () if told is None else fold_versions.decode(told).others:
            for _, parent, link in other.links:
                free[tables.name_key(parent, link.encode())] = U64.pack(other.ino)

    def left(key: bytes, value: bytes, forgotten: Forgetting) -> bytes:
        return b"" if free.get(key) == value else _unless(value, value, forgotten)

    return left


_LEFT: Final[dict[str, _Left]] = {
    "inode": _unless,
    "source": _unless,
    "instance": lambda key, value, forgotten: _unless(key[U64.size :], value, forgotten),
    "file": lambda _, value, forgotten: _unless(value, value, forgotten),
    "sop": _versions,
}
