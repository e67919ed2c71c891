"""Earlier states of the catalog: which commits they are made of, and their fold into an index of their own.

The index of now says which commits there are and where their records lie, so nothing is looked for in the packs, and
a record is read up to its JSON alone. Such an index knows no blobs: where these lie, and headers, the index of now says
(`Store.live`), as they may have been moved since, or written again because they were hurt.
"""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import commit as commits
from dicomfs.store.index import Index
from dicomfs.store.recovery import Fold
from dicomfs.store.store import KEY, CommitPlace, Store

_PER_TRANSACTION: Final = 64
_MARK_DIGITS: Final = 32
_MARKED: Final = Struct(">4Q")


class Known(NamedTuple):
    """A commit that the index knows."""

    seq: int
    place: CommitPlace


def known(live: Index) -> list[Known]:
    """Return the commits that the index of an archive knows, in order."""
    with live.translated(), live.reading() as txn:
        cursor = txn.cursor(db=live.tables["commit"])
        if not cursor.first():
            return []
        rows = [(KEY.unpack(key)[0], value) for key, value in cursor.iternext()]
    return [Known(seq, CommitPlace.decode(seq, value)) for seq, value in rows]


def meta_value(live: Index, name: bytes) -> bytes | None:
    """Return a value of the meta table, None where it has none of that name."""
    with live.translated(), live.reading() as txn:
        return txn.get(name, db=live.tables["meta"])


def marks(version: str, found: Iterable[Known], wanted: AbstractSet[int]) -> dict[int, str]:
    """Return for each wanted number (0, or that of a commit) a digest of the commits up to it.

    Of a commit it holds number, time and how long its JSON and body are. These change where `gc` takes something out of
    it, and nowhere else, so the same mark of the same `version` of whoever folds them means the same state.
    """
    digest = sha256(version.encode())
    marked = {0: digest.hexdigest()[:_MARK_DIGITS]} if 0 in wanted else {}
    for commit in found:
        place = commit.place
        digest.update(_MARKED.pack(commit.seq, place.time_ns, place.meta_length, place.body_length))
        if commit.seq in wanted:
            marked[commit.seq] = digest.hexdigest()[:_MARK_DIGITS]
    return marked


def fold_known(store: Store, found: Sequence[Known], fold: Fold, on_commit: Callable[[int], None]) -> None:
    """Put commits into the store's index, which is new or ends before the first of them.

    `on_commit` is told how many are done. Raise Damaged for one that cannot be read.
    """
    for first in range(0, len(found), _PER_TRANSACTION):
        txn = store.index.begin(write=True)
        try:
            for done, commit in enumerate(found[first : first + _PER_TRANSACTION], start=first + 1):
                meta = _read(store, commit)
                with store.index.translated():
                    txn.put(KEY.pack(commit.seq), commit.place.encode(), db=store.commit_table)
                    txn.put(b"seq", KEY.pack(commit.seq), db=store.meta_table)
                    fold(txn, commit.seq, commit.place.time_ns, meta)
                on_commit(done)
        except BaseException:
            txn.abort()
            raise
        store.index.commit(txn)


def _read(store: Store, commit: Known) -> bytes:
    seq, place = commit
    try:
        head = commits.read_head(store.packs.open(place.pack).read(place.offset, commits.HEAD_LENGTH))
        if head.seq != seq or head.time_ns != place.time_ns:
            raise Damaged(f"pack {place.pack:08d} holds something else at its place")
        return store.read_meta(place)
    except Damaged as error:
        raise Damaged(f"commit {seq} cannot be read ({error}); run 'dicomfs check'") from error
