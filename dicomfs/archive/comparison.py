"""Compare the index with what the packs say it should be: a fold of every commit, from the first."""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.fold import fold_meta
from dicomfs.store.index import Table, Transaction
from dicomfs.store.replay import OnCommit, find, replay
from dicomfs.store.store import TABLES, Store

_COMPARED = tuple(name for name in (*TABLES, *tables.TABLES) if name != "pack")


def compare_fold(
    archive: Archive, last: int, scratch: Path, on_commit: OnCommit, differs: Callable[[str], None]
) -> int:
    """Fold the commits up to `last` into an index in `scratch` and report every difference; return their number."""
    store = archive.store
    folded = Store(store.root, tables.TABLES, new_index=scratch)
    try:
        found = find(folded)
        for seq in found.missing:
            if seq <= last:
                differs(f"commit {seq} is in no pack")
        replay(
            folded,
            found,
            lambda txn, seq, time_ns, meta: fold_meta(folded, txn, seq, time_ns, meta, mend=bool(found.missing)),
            on_commit,
            last=last,
        )
        for problem in found.problems:
            differs(problem)
        if not found.missing and not found.problems:
            with store.index.reading() as txn, folded.index.reading() as folded_txn:
                if store.seq(txn) == last:
                    _compare(store, txn, folded, folded_txn, differs)
        return len(found.entries)
    finally:
        folded.close()


def _compare(
    store: Store, txn: Transaction, folded: Store, folded_txn: Transaction, differs: Callable[[str], None]
) -> None:
    known, expected = store.pack_states(txn), folded.pack_states(folded_txn)
    if {number: state.committed for number, state in known.items()} != {
        number: state.committed for number, state in expected.items()
    }:
        differs("table 'pack' is not what the packs say; run 'dicomfs reindex'")
    for name in _COMPARED:
        count = 0
        ours = _items(txn, store.index.tables[name])
        theirs = _items(folded_txn, folded.index.tables[name])
        for one, other in zip_longest(ours, theirs):
            count += one != other
        if count:
            differs(f"table '{name}' is not what the packs say ({count} entries differ); run 'dicomfs reindex'")


def _items(txn: Transaction, table: Table) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor(db=table)
    return cursor.iternext() if cursor.first() else iter(())
