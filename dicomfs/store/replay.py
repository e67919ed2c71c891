"""Find every commit that the packs hold, and put all of them into a new index, in order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import commit as commits
from dicomfs.store import pack as packfile
from dicomfs.store.index import Transaction
from dicomfs.store.pack import Entry
from dicomfs.store.recovery import FoundCommit, fold_commit, read_commit, read_commits, stranded
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
        sealed = _sealed(store, number, found)
        found.entries += _scanned(store, number, found) if sealed is None else sealed
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


def _sealed(store: Store, number: int, found: Found) -> list[CommitEntry] | None:
    """Return the commits that the central directory names, if it is whole and no commit is left out."""
    pack = store.packs.open(number)
    try:
        entries = [entry for entry in packfile.directory(pack.fd) if entry.name.startswith(b"c/")]
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


def _scanned(store: Store, number: int, found: Found) -> list[CommitEntry]:
    """Return the commits of a pack that was never sealed, or whose central directory cannot be trusted."""
    taken = list(read_commits(store, number, 0, verify=True))
    end = taken[-1].end if taken else 0
    pack = store.packs.open(number)
    sealed_at = packfile.directory_start(pack.fd)
    beyond = stranded(store, number, end)
    if beyond and next(read_commits(store, number, end, verify=True), None) is not None:
        return _scanned(store, number, found)  # a writer went on in the meantime
    if sealed_at not in (None, end) or any(start > end for _, start in beyond):
        # No crash does this, so nothing is cut: see recovery.py.
        found.problems.append(f"pack {number:08d} is damaged at {end}; it holds {len(beyond)} commits past that")
        taken += [commit for commit, _ in beyond]
        if sealed_at is not None:
            found.sealed[number] = pack.size()
    else:
        found.torn[number] = end
    return [_commit_entry(number, commit) for commit in taken]


def _commit_entry(number: int, commit: FoundCommit) -> CommitEntry:
    offset = commit.place.offset
    return CommitEntry(commit.seq, number, Entry(commits.name(commit.seq), offset, commit.end - offset, 0))


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
