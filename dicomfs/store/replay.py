"""Find every commit that the packs hold, and put all of them into a new index, in order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import commit as commits
from dicomfs.store import pack as packfile
from dicomfs.store.index import Transaction
from dicomfs.store.pack import Entry
from dicomfs.store.recovery import (
    FoundCommit,
    fold_commit,
    read_commit,
    read_commits,
    read_whole,
    same_record,
    tail,
    trusted_directory,
)
from dicomfs.store.store import PackState, Store

_PER_TRANSACTION = 64


class CommitEntry(NamedTuple):
    """Where a commit record was found."""

    seq: int
    pack: int
    entry: Entry


@dataclass
class Found:
    """All commits in order, and what is wrong with the packs."""

    entries: list[CommitEntry] = field(default_factory=list)
    sealed: dict[int, int] = field(default_factory=dict)
    """The size of each pack that nothing is to be cut off or appended to."""
    torn: dict[int, int] = field(default_factory=dict)
    """The length up to which each unsealed pack is whole."""
    missing: list[tuple[int, int]] = field(default_factory=list)
    """First and last number of commits that no pack holds although a later one is there."""
    problems: list[str] = field(default_factory=list)
    doubt: bool = False
    """Whether the packs may hold more commits than these."""


Fold = Callable[[Transaction, int, int, bytes], None]
OnCommit = Callable[[int, int], None]
"""Called with how many commits are done, and how many there are."""


def find(store: Store, committed: Mapping[int, int] | None = None) -> Found:
    """Look through all packs: by the central directory of a sealed one, entry by entry in another.

    `committed` is the length of each pack up to which an older index knows of commits: what is hurt there
    was whole once, so that no crash is to blame.
    """
    found = Found()
    numbers = store.packs.numbers()
    for number in numbers:
        # A pack is sealed before the next is begun, so only the last may end in bytes of an imported file.
        sealed = _sealed(store, number, found, distrust=number == numbers[-1])
        if sealed is None:
            sealed = _scanned(store, number, found, (committed or {}).get(number, 0))
        found.entries += sealed
    found.entries.sort()
    _drop_copies(store, found)
    expected = 1
    for commit in found.entries:
        if expected < commit.seq:
            found.missing.append((expected, commit.seq - 1))
        expected = commit.seq + 1
    return found


def _drop_copies(store: Store, found: Found) -> None:
    """Keep the first of commits that have one number."""
    kept: list[CommitEntry] = []
    for commit in found.entries:
        if not kept or kept[-1].seq != commit.seq:
            kept.append(commit)
            continue
        places = [read_whole(store, one.pack, one.entry) for one in (kept[-1], commit)]
        first, second = (None if place is None else place[0].place for place in places)
        copied = first is not None and second is not None and same_record(store, first, second)
        found.problems.append(
            f"packs {kept[-1].pack:08d}.zip and {commit.pack:08d}.zip both hold commit {commit.seq}; "
            + ("move the copy out of packs/" if copied else "they differ; move one of the two out of packs/")
        )
        if first is None and second is not None:
            kept[-1] = commit
    found.entries = kept


def _sealed(store: Store, number: int, found: Found, *, distrust: bool) -> list[CommitEntry] | None:
    """Return the commits that the central directory names, if it is whole and no commit is left out."""
    pack = store.packs.open(number)
    try:
        named = trusted_directory(pack.fd) if distrust else packfile.directory(pack.fd)
        entries = [entry for entry in named or () if entry.name.startswith(b"c/")]
        end = 0
        for entry in entries:
            head = commits.read_head(pack.read(entry.offset, min(commits.HEAD_LENGTH, entry.length)))
            if head.start != end or commits.name(head.seq) != entry.name:
                return None
            end = entry.end
    except Damaged:
        return None
    if end != packfile.directory_start(pack.fd):
        return None
    found.sealed[number] = pack.size()
    return [CommitEntry(int(entry.name[2:18], 16), number, entry) for entry in entries]


def _scanned(store: Store, number: int, found: Found, committed: int) -> list[CommitEntry]:
    """Return the commits of a pack that was never sealed, or whose central directory cannot be trusted."""
    taken = list(read_commits(store, number, 0, verify=True))
    end = taken[-1].end if taken else 0
    beyond = tail(store, number, end)
    if beyond.commits and next(read_commits(store, number, end, verify=True), None) is not None:
        return _scanned(store, number, found, committed)  # a writer went on in the meantime
    if beyond.keep or committed > end:
        # No crash does this, so nothing is cut: see recovery.py.
        found.doubt |= beyond.lost
        found.problems.append(
            f"pack {number:08d} is damaged at {end}; it holds {len(beyond.commits)} commits past that"
        )
        taken += beyond.commits
        found.sealed[number] = store.packs.open(number).size()
    else:
        found.torn[number] = end
    return [_commit_entry(number, commit) for commit in taken]


def _commit_entry(number: int, commit: FoundCommit) -> CommitEntry:
    offset = commit.place.offset
    return CommitEntry(commit.seq, number, Entry(commits.name(commit.seq), offset, commit.end - offset, 0))


def replay(
    store: Store, found: Found, fold: Fold, on_commit: OnCommit | None = None, *, last: int | None = None
) -> None:
    """Put the commits (up to number `last`) into the store's index, which is new.

    A commit that cannot be read or folded is left out and named in `problems`.
    """
    entries = [commit for commit in found.entries if last is None or commit.seq <= last]
    for first in range(0, len(entries), _PER_TRANSACTION):
        batch = entries[first : first + _PER_TRANSACTION]

        def done(count: int, before: int = first) -> None:
            if on_commit is not None:
                on_commit(before + count, len(found.entries))

        while (hurt := _replay_batch(store, found, batch, fold, done)) is not None:
            batch.remove(hurt)
    with store.index.translated():
        txn = store.index.begin(write=True)
        states = store.pack_states(txn)
        later = {commit.pack for commit in found.entries} - {commit.pack for commit in entries}
        for number, size in found.sealed.items():
            if number in later:
                continue
            store.put_pack(txn, number, PackState(states.get(number, PackState(0, 0)).committed, size))
        store.index.commit(txn)


def _replay_batch(
    store: Store, found: Found, batch: Sequence[CommitEntry], fold: Fold, done: Callable[[int], None]
) -> CommitEntry | None:
    """Put commits into the index in one transaction; do nothing and return the first that cannot be."""
    txn = store.index.begin(write=True)
    try:
        for count, commit in enumerate(batch, start=1):
            try:
                read = read_commit(store, commit.pack, commit.entry)
                if read is None:
                    raise Damaged("its record contradicts itself")
                with store.index.translated():
                    fold_commit(store, txn, read[0], fold)
            except Damaged as error:
                found.problems.append(f"pack {commit.pack:08d}: commit {commit.seq}: {error}")
                txn.abort()
                return commit
            done(count)
    except BaseException:
        txn.abort()
        raise
    store.index.commit(txn)
    return None
