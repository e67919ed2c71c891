"""What a rebuild of the index must not give out again: numbers of commits, packs, inodes.

Whoever had the archive open while a pack was lost still believes what was in it. So a rebuild that lost
something carries the numbers of the old index over, and makes a commit of its own to tell them, and the
commits that it gave up, to every later rebuild: the "floors" of docs/format.md.
"""

import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from dicomfs.archive import tables
from dicomfs.errors import Damaged
from dicomfs.store.index import Transaction
from dicomfs.store.store import Store

Range: TypeAlias = tuple[int, int]
"""First and last of some numbers of commits."""

_LOST: Final = b"lost"
_UNUSED: Final = b"unused"
_MOST: Final = 1 << 39
"""No counter of ours gets so far; one that says so is hurt."""
_COMMITS_PAST: Final = 1 << 20
_PACKS_PAST: Final = 1 << 10
_NUMBERS_PAST: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Before:
    """What an index knew before it was rebuilt."""

    instances: int
    seq: int
    next: int
    pack: int
    committed: dict[int, int]
    """The length of each pack up to which it knew of commits."""


class Floors(NamedTuple):
    """What a rebuild tells those after it."""

    next: int
    """The next number for an inode, patient, study or series."""
    pack: int
    """The highest number that a pack may have had."""
    lost: list[Range]
    """Commits that were given up."""
    unused: list[Range]
    """Commits of which nobody knows that they ever were."""

    def meta(self) -> bytes:
        """Return the JSON of the commit that tells it."""
        records = ("patients", "studies", "series", "study_patients", "directories", "instances")
        by = f"{os.getuid()}@{socket.gethostname()}"
        told = {"op": "reindex", "by": by, **{name: [] for name in records}, "floors": self._asdict()}
        return json.dumps(told, separators=(",", ":")).encode()


def decode(told: object) -> Floors:
    """Read the floors of a commit; raise ValueError where they are none."""
    if not isinstance(told, dict):
        raise ValueError("floors are an object")
    next_number, pack = told["next"], told["pack"]
    if not (isinstance(next_number, int) and isinstance(pack, int) and 0 <= next_number < _MOST and 0 <= pack < _MOST):
        raise ValueError("floors are numbers")
    return Floors(next_number, pack, _ranges(told["lost"]), _ranges(told["unused"]))


def _ranges(told: object) -> list[Range]:
    if not isinstance(told, list):
        raise ValueError("ranges are a list")
    ranges = [(int(first), int(last)) for first, last in told]
    if any(not 0 < first <= last < _MOST for first, last in ranges):
        raise ValueError("a range is none")
    return ranges


def put(store: Store, txn: Transaction, floors: Floors) -> None:
    """Put the floors of a commit into the index, but for `next`, which is the fold's."""
    store.put_floors(txn, pack=floors.pack)
    for name, ranges in ((_LOST, floors.lost), (_UNUSED, floors.unused)):
        held = _held(store, txn, name)
        txn.put(name, json.dumps(sorted({*held, *ranges})).encode(), db=store.meta_table)


def _held(store: Store, txn: Transaction, name: bytes) -> list[Range]:
    try:
        return _ranges(json.loads(txn.get(name, db=store.meta_table) or b"[]"))
    except (ValueError, TypeError) as error:
        raise Damaged("the index has a damaged record of lost commits; run 'dicomfs reindex'") from error


def told(store: Store, txn: Transaction) -> bool:
    """Say whether an earlier rebuild told of a loss."""
    return bool(_held(store, txn, _LOST) or _held(store, txn, _UNUSED))


class Gaps(NamedTuple):
    """Numbers of commits that the index does not know."""

    told: list[Range]
    """Given up by an earlier rebuild."""
    new: list[Range]
    """In no pack, and given up by nobody."""


def gaps(store: Store, txn: Transaction, last: int) -> Gaps:
    """Return the commits up to `last` that the index does not know."""
    missing: list[Range] = []
    expected = 1
    for seq in store.commits(txn):
        if seq > last:
            break
        if seq > expected:
            missing.append((expected, seq - 1))
        expected = seq + 1
    if expected <= last:
        missing.append((expected, last))
    lost, unused = _held(store, txn, _LOST), _held(store, txn, _UNUSED)
    return Gaps(_common(missing, lost), _without(missing, sorted({*lost, *unused})))


def _common(some: Iterable[Range], others: list[Range]) -> list[Range]:
    pairs = ((max(a, first), min(b, last)) for a, b in some for first, last in others)
    return sorted({pair for pair in pairs if pair[0] <= pair[1]})


def _without(some: Iterable[Range], others: list[Range]) -> list[Range]:
    left: list[Range] = []
    for first, last in some:
        expected = first
        for begin, end in others:
            if begin <= last and expected <= end:
                if expected < begin:
                    left.append((expected, begin - 1))
                expected = end + 1
        if expected <= last:
            left.append((expected, last))
    return left


def before(store: Store) -> Before | None:
    """Return what an old index knows, None where its records are hurt."""
    with store.index.translated(), store.index.reading() as txn:
        states = store.pack_states(txn)
        found = Before(
            txn.stat(store.index.tables["instance"])["entries"],
            store.seq(txn),
            _next(store, txn),
            max((store.pack_floor(txn), *states)),
            {number: state.committed for number, state in states.items()},
        )
    return found if max(found.seq, found.next, found.pack) < _MOST else None


def _next(store: Store, txn: Transaction) -> int:
    value = txn.get(b"next", db=store.meta_table) or tables.U64.pack(tables.FIRST_CLAIMED)
    return int.from_bytes(value, "big")


def settle(store: Store, old: Before | None, *, doubt: bool, hurt: list[int]) -> list[Range]:
    """Commit what later rebuilds must know, if there is anything; return the commits that are given up.

    `store` was rebuilt, and its pack files have been dealt with. `hurt` are commits that are in a pack but
    cannot be folded. Where there is no old index to ask, and `doubt` that the packs are all there were,
    numbers go on so far past those known that none can have been given out.
    """
    from dicomfs.archive.committing import FARTHEST_NS
    from dicomfs.archive.fold import fold_meta
    from dicomfs.store.earlier import known
    from dicomfs.store.writer import Writer

    with store.index.reading() as txn:
        seq, pack = store.seq(txn), max((store.pack_floor(txn), *store.packs.numbers()))
        next_number = _next(store, txn)
        last = max((seq, *hurt, 0 if old is None else old.seq))
        lost = gaps(store, txn, last).new
    unused: list[Range] = []
    if old is not None:
        floors = Floors(max(next_number, old.next), max(pack, old.pack), lost, unused)
    elif doubt or lost:
        unused.append((last + 1, last + _COMMITS_PAST))
        last += _COMMITS_PAST
        floors = Floors(next_number + _NUMBERS_PAST, pack + _PACKS_PAST, lost, unused)
    else:
        return lost
    if not lost and (floors.next, floors.pack, last) == (next_number, pack, seq):
        return lost
    commits = known(store.index)
    txn = store.index.begin(write=True)
    store.put_floors(txn, seq=last, pack=floors.pack)
    store.index.commit(txn)
    writer = Writer(store)
    try:
        # Each commit is later than the one before, whatever the clock says.
        time_ns = max(time.time_ns(), min(commits[-1].place.time_ns, FARTHEST_NS) + 1 if commits else 0)
        fold_meta(store, writer.txn, writer.seq, time_ns, floors.meta())
        writer.commit(floors.meta(), time_ns)
    finally:
        writer.close()
    return lost
