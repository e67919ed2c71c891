"""Fold what is left of versions that were forgotten.

The parts of a commit's JSON that only archives in which something was forgotten have:

    {"forgotten": [a row of "instances", of a version that is forgotten: without its header (base, offset and lengths
                   are zero), with a name that no file can have, and with the attributes that its study goes by],
     "forgotten_derived": [the same of a row of "derived"],
     "forgot": time in ns since 1970, "swept": [ino]}

Rows of the first two fold as those that they stand for, in the order of their numbers, so that everything else is as it
was. The commit of a `gc` has the last two: of what was replaced or deleted before that time not all is kept any more,
and the catalog is to know nothing of these numbers from now on. Of one that was deleted it knows that it was.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from dicomfs.archive import fold_versions, tables
from dicomfs.archive.fold_tree import TreeFold
from dicomfs.archive.tables import DERIVED as DERIVED_KIND
from dicomfs.archive.tables import PAIR, U64, InstanceInode
from dicomfs.store.index import Table, Transaction

INSTANCES: Final = "forgotten"
DERIVED: Final = "forgotten_derived"
KEYS: Final = (INSTANCES, DERIVED, "swept")
DIFFERED: Final = "Forgotten"
"""In the attributes of a stub: it said other things than its study."""
FORGOT: Final = b"forgot"
"""In the meta table: the latest time (decimal, in ns since 1970) up to which something was forgotten."""


def with_stubs(records: dict[str, Any]) -> None:
    """Put what stands for forgotten rows back among the others, in the order of their numbers."""
    for rows, stubs in (("instances", INSTANCES), ("derived", DERIVED)):
        if records[stubs]:
            records[rows] = sorted([*records[rows], *records[stubs]], key=lambda row: int(row[0]))


class Sweep:
    """Takes forgotten versions out of the catalog. `count` is told of each instance: its series and size."""

    def __init__(
        self, txn: Transaction, held: dict[str, Table], tree: TreeFold, count: Callable[[int, int], None]
    ) -> None:
        self._txn = txn
        self._tables = held
        self._tree = tree
        self._count = count

    def forgot(self, meta: Table, time_ns: int) -> None:
        """Take note of the time up to which something was forgotten."""
        before = int(self._txn.get(FORGOT, db=meta) or b"0")
        self._txn.put(FORGOT, str(max(before, time_ns)).encode(), db=meta)

    def sweep(self, numbers: list[int]) -> None:
        """Take versions out of the catalog that are shown no more."""
        gone = set(numbers)
        successors = {ino: self._take(ino, gone) for ino in numbers}
        cursor = self._txn.cursor(db=self._tables["past"])
        changed = []
        for key, value in cursor.iternext() if cursor.first() else ():
            past = fold_versions.decode(value)
            if past.by in gone:
                own = U64.unpack(key)[0]
                by = past.by
                while by in gone:
                    by = successors[by]
                # Its own number: in favour of one that was deleted then, so that nothing is in its place.
                changed.append((key, past._replace(by=by or own)))
        for key, past in changed:
            self._txn.put(key, fold_versions.encode(past._asdict()), db=self._tables["past"])

    def _take(self, ino: int, gone: set[int]) -> int:
        """Take out one version; return the one in whose favour it was replaced, 0 where it was deleted."""
        key = U64.pack(ino)
        value = self._txn.get(key, db=self._tables["inode"])
        told = self._txn.get(key, db=self._tables["past"])
        if value is None or told is None:
            return 0  # it was lost with a pack
        inode, name, past = InstanceInode.parse(value), value[tables.INSTANCE_INODE.size :], fold_versions.decode(told)
        for table in ("inode", "past"):
            self._txn.delete(key, db=self._tables[table])
        self._tree.free(past.parent, ino, name)
        for _, parent, link in past.links:
            self._tree.free(parent, ino, link.encode())
        for other in past.others:
            for _, parent, link in other.links if other.ino in gone else ():
                self._tree.free(parent, other.ino, link.encode())
        if inode.kind == DERIVED_KIND:
            self._txn.delete(key, db=self._tables["source"])
        else:
            self._take_instance(ino, inode, is_deleted=not past.by)
        return past.by if past.by != ino else 0

    def _take_instance(self, ino: int, inode: InstanceInode, *, is_deleted: bool) -> None:
        key, place = U64.pack(ino), PAIR.pack(inode.series, ino)
        attributes = json.loads(self._txn.get(place, db=self._tables["instance"]) or b"{}")
        self._txn.delete(place, db=self._tables["instance"])
        if self._txn.get(inode.sha256, db=self._tables["file"]) == key:
            self._txn.delete(inode.sha256, db=self._tables["file"])
        sop = tables.sop_key(str(attributes.get("SOPInstanceUID", "")))
        versions = self._txn.get(sop, db=self._tables["sop"]) or b""
        others = b"".join(U64.pack(one) for (one,) in U64.iter_unpack(versions) if one != ino)
        if others:
            self._txn.put(sop, others, db=self._tables["sop"])
        else:
            self._txn.delete(sop, db=self._tables["sop"])
        if is_deleted:
            known = self._txn.get(sop, db=self._tables["tombstone"]) or b""
            self._txn.put(sop, known + inode.sha256, db=self._tables["tombstone"])
        self._count(inode.series, inode.size)
