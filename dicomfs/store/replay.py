"""Find every commit that the packs hold, and put all of them into a new index, in order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import commit as commits
from dicomfs.store import pack as packfile
from dicomfs.store.index import Transaction
from dicomfs.store.pack import Entry
from dicomfs.store.recovery import FoundCommit, fold_commit, read_commit, read_commits
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
    """The size of each sealed pack."""
    torn: dict[int, int] = field(default_factory=dict)
    """The length up to which each unsealed pack is whole."""
    missing: list[int] = field(default_factory=list)
    """Numbers of commits that no pack holds although a later one is there."""
    problems: list[str] = field(default_factory=list)


Fold = Callable[[Transaction, int, int, bytes], None]
OnCommit = Callable[[int, int], None]
"""Called with how many commits are done, and how many there are."""


def find(store: Store) -> Found:
    """Look through all packs: by the central directory of a sealed one, entry by entry in another."""
    found = Found()
    for number in store.packs.numbers():
        found.entries += _sealed(store, number, found) or _unsealed(store, number, found)
    found.entries.sort()
    _drop_copies(found)
    expected = 1
    for commit in found.entries:
        found.missing += range(expected, commit.seq)
        expected = commit.seq + 1
    return found


def _drop_copies(found: Found) -> None:
    """Keep the first of commits that have one number: a pack was copied under another name."""
    kept: list[CommitEntry] = []
    for commit in found.entries:
        if kept and kept[-1].seq == commit.seq:
            found.problems.append(
                f"packs {kept[-1].pack:08d}.zip and {commit.pack:08d}.zip both hold commit {commit.seq}; "
                "move the copy out of packs/"
            )
        else:
            kept.append(commit)
    found.entries = kept


def _sealed(store: Store, number: int, found: Found) -> list[CommitEntry]:
    pack = store.packs.open(number)
    if packfile.directory_start(pack.fd) is None:
        return []
    entries = packfile.directory(pack.fd)
    found.sealed[number] = pack.size()
    return [_entry(number, entry) for entry in entries if entry.name.startswith(b"c/")]


def _unsealed(store: Store, number: int, found: Found) -> list[CommitEntry]:
    entries: list[CommitEntry] = []
    end = 0
    for commit in read_commits(store, number, 0, verify=True):
        length = commit.end - commit.place.offset
        entries.append(CommitEntry(commit.seq, number, Entry(commits.name(commit.seq), commit.place.offset, length, 0)))
        end = commit.end
    found.torn[number] = end
    return entries


def _entry(number: int, entry: Entry) -> CommitEntry:
    try:
        return CommitEntry(int(entry.name[2:18], 16), number, entry)
    except ValueError as error:
        raise Damaged(f"pack {number:08d}: entry {entry.name!r} is none of ours") from error


def read(store: Store, found: Found) -> Iterator[FoundCommit]:
    """Read the commits in order; one that cannot be read is left out and named in `problems`."""
    for seq, number, entry in found.entries:
        try:
            commit = read_commit(store, number, entry)
        except Damaged as error:
            found.problems.append(f"pack {number:08d}: commit {seq}: {error}")
            continue
        if commit is None:
            found.problems.append(f"pack {number:08d}: commit {seq} contradicts itself")
            continue
        yield commit[0]


def replay(
    store: Store, found: Found, fold: Fold, on_commit: OnCommit | None = None, *, last: int | None = None
) -> None:
    """Put the commits (up to number `last`) into the store's index, which is new."""
    txn: Transaction | None = None
    done = 0
    try:
        for commit in read(store, found):
            if last is not None and commit.seq > last:
                break
            if txn is None:
                txn = store.index.begin(write=True)
            fold_commit(store, txn, commit, fold)
            done += 1
            if on_commit is not None:
                on_commit(done, len(found.entries))
            if done % _PER_TRANSACTION == 0:
                txn.commit()
                txn = None
        if txn is None:
            txn = store.index.begin(write=True)
        states = store.pack_states(txn)
        for number, size in found.sealed.items():
            if number in states:
                store.put_pack(txn, number, PackState(states[number].committed, size))
        txn.commit()
    except BaseException:
        if txn is not None:
            txn.abort()
        raise
