"""Compare the index with what the packs say it should be: a fold of every commit, from the first."""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

from dicomfs.archive import floors, tables
from dicomfs.archive.fold import fold_meta
from dicomfs.store.index import Table, Transaction
from dicomfs.store.replay import OnCommit, find, replay
from dicomfs.store.store import TABLES, Store

_COMPARED = tuple(name for name in (*TABLES, *tables.TABLES) if name != "pack")


def compare_fold(
    store: Store,
    txn: Transaction,
    scratch: Path,
    on_commit: OnCommit,
    differs: Callable[[str], None],
    note: Callable[[str], None],
) -> int:
    """Fold the commits into an index in `scratch`; report how this state of the real one differs."""
    last = store.seq(txn)
    folded = Store(store.root, tables.TABLES, new_index=scratch)
    folded.packs.left_out = store.packs.left_out
    try:
        committed = {number: state.committed for number, state in store.pack_states(txn).items()}
        found = find(folded, committed)
        replay(
            folded,
            found,
            lambda folding, seq, time_ns, meta: fold_meta(folded, folding, seq, time_ns, meta),
            on_commit,
            last=last,
        )
        for problem in found.problems:
            differs(problem)
        with folded.index.reading() as folded_txn:
            gaps = floors.gaps(folded, folded_txn, last)
            for first, final in gaps.told:
                note(f"{_commits(first, final)} lost with a pack, as an earlier 'dicomfs reindex' told")
            for first, final in gaps.new:
                differs(f"{_commits(first, final)} in no pack")
            if not gaps.new and not found.problems:
                _compare(store, txn, folded, folded_txn, differs)
        return len(found.entries)
    finally:
        folded.close()


def _commits(first: int, last: int) -> str:
    return f"commit {first} is" if first == last else f"commits {first} to {last} are"


def _compare(
    store: Store, txn: Transaction, folded: Store, folded_txn: Transaction, differs: Callable[[str], None]
) -> None:
    known, expected = store.pack_states(txn), folded.pack_states(folded_txn)
    if {number: state.committed for number, state in known.items()} != {
        number: state.committed for number, state in expected.items()
    }:
        differs("table 'pack' is not what the packs say; run 'dicomfs reindex'")
    for name in _COMPARED:
        count = differing(store, txn, folded, folded_txn, name)
        if count:
            differs(f"table '{name}' is not what the packs say ({count} entries differ); run 'dicomfs reindex'")


def differing(store: Store, txn: Transaction, other: Store, other_txn: Transaction, table: str) -> int:
    """Return in how many entries a table of two indexes differs."""
    ours, theirs = _items(txn, store.index.tables[table]), _items(other_txn, other.index.tables[table])
    return sum(one != found for one, found in zip_longest(ours, theirs))


def _items(txn: Transaction, table: Table) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor(db=table)
    return cursor.iternext() if cursor.first() else iter(())
