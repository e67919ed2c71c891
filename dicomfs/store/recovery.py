"""Bring the index and the packs together again after whatever happened to the last writer.

The packs are the truth. A commit that lies past what the index knows is accepted only if every one
of its entries is whole (the CRC of each is computed, since a power cut may have written pages in
any order); it is then folded into the index. What follows the last whole commit is cut off.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import commit as commits
from dicomfs.store import pack as packfile
from dicomfs.store.index import Transaction
from dicomfs.store.location import Location
from dicomfs.store.pack import Entry, PackWriter
from dicomfs.store.recipe import BlobId
from dicomfs.store.store import KEY, CommitPlace, PackState, Store

_RECORD_NAME: Final = rb"c/[0-9a-f]{16}\.cat"
_COMPARED: Final = 1 << 22


class FoundCommit(NamedTuple):
    """A commit read from a pack."""

    seq: int
    place: CommitPlace
    blobs: list[tuple[BlobId, Location]]
    meta: bytes
    end: int
    """The length of the pack up to and with this commit."""


Fold = Callable[[Transaction, int, int, bytes], None]
"""Put a commit into the tables of the layer above: (transaction, seq, time_ns, meta)."""


@dataclass
class Recovered:
    """What was done."""

    commits: int = 0
    cut_bytes: int = 0
    sealed: int = 0


def recover(store: Store, fold: Fold) -> Recovered:
    """Heal what can be healed; raise Damaged for what only a person can. The caller holds the writer's lock."""
    done = Recovered()
    with store.index.reading() as txn:
        states = store.pack_states(txn)
        last = store.seq(txn)
    numbers = store.packs.numbers()
    _refuse_missing(store, states, numbers)
    found: list[FoundCommit] = []
    ends: dict[int, int] = {}
    for number in numbers:
        state = states.get(number, PackState(0, 0))
        size = os.stat(store.packs.path(number)).st_size
        if state.sealed and size == state.sealed:
            continue
        if size < state.committed:
            raise Damaged(
                f"pack {number:08d} is shorter ({size} bytes) than what was committed to it ({state.committed}); "
                "bring it back from a copy of the archive, or run 'dicomfs reindex' to go on with what is left"
            )
        new, ends[number] = _new_commits(store, number, state.committed)
        found += new
    found.sort(key=lambda commit: commit.seq)
    for commit in found:
        if commit.seq <= last:
            raise Damaged(_known_already(store, commit))
        if commit.seq != last + 1:
            raise Damaged(
                f"commit {last + 1} is in no pack, but commit {commit.seq} is; "
                "bring its pack back, or run 'dicomfs reindex' to go on with what is left"
            )
        last = commit.seq
    if found:
        apply(store, found, fold)
        done.commits = len(found)
    for number, end in ends.items():
        done.cut_bytes += seal_leftover(store, number, end)
        done.sealed += 1
    return done


def _refuse_missing(store: Store, states: dict[int, PackState], numbers: list[int]) -> None:
    missing = sorted(set(states) - set(numbers))
    if missing:
        names = ", ".join(store.packs.path(number).name for number in missing)
        raise Damaged(
            f"{store.root}: missing from packs/: {names}; bring them back from a copy of the archive, "
            "or run 'dicomfs reindex' to go on with what is left"
        )


def _known_already(store: Store, commit: FoundCommit) -> str:
    """Say what is to be done with a pack whose commit's number is none that comes next."""
    name = store.packs.path(commit.place.pack).name
    with store.index.reading() as txn:
        if not store.has_commit(txn, commit.seq):
            return f"{name} holds commit {commit.seq}, which was lost; run 'dicomfs reindex' to take it in again"
        known = store.commit_place(txn, commit.seq)
    if same_record(store, known, commit.place):
        return f"{name} holds commit {commit.seq}, which another pack holds too; move the copy out of packs/"
    other = store.packs.path(known.pack).name
    return f"{name} holds another commit {commit.seq} than {other}; move one of the two out of packs/"


def same_record(store: Store, one: CommitPlace, other: CommitPlace) -> bool:
    """Say whether the bytes of two commit records are the same."""
    if one.head != other.head:
        return False
    first, second = store.packs.open(one.pack), store.packs.open(other.pack)
    steps = ((at, min(_COMPARED, one.head.length - at)) for at in range(0, one.head.length, _COMPARED))
    return all(first.read(one.offset + at, size) == second.read(other.offset + at, size) for at, size in steps)


def _new_commits(store: Store, number: int, committed: int) -> tuple[list[FoundCommit], int]:
    """Return the commits past what the index knows, and where the pack's last commit ends.

    Only what a crash leaves is to be cut: the end of an unsealed pack, torn in its last commit. A pack
    was brought to the disk before its central directory was written, and each commit before the next
    was begun; so damage before either is no crash's doing, and nothing is cut.
    """
    fd = store.packs.open(number).fd
    entries = trusted_directory(fd)
    if entries is None:
        new = list(read_commits(store, number, committed, verify=True))
        end = new[-1].end if new else committed
        if tail(store, number, end).keep:
            raise Damaged(
                f"pack {number:08d} is damaged at {end}, before its last commit; bring it back from a copy of the "
                "archive, or run 'dicomfs reindex' to go on with what is left"
            )
        return new, end
    new = []
    for entry in entries:
        if entry.offset >= committed and entry.name.startswith(b"c/"):
            commit = read_commit(store, number, entry)
            if commit is None:
                raise Damaged(
                    f"pack {number:08d}: the commit at {entry.offset} contradicts itself; run 'dicomfs check'"
                )
            new.append(commit[0])
    return new, entries[-1].end


def trusted_directory(fd: int) -> list[Entry] | None:
    """Return what the central directory names, if it is what the local headers, from the first on, lead to.

    The last bytes of a pack that was never sealed may be those of a file that was being imported.
    """
    entries = _directory(fd)
    if not entries:
        return None
    walked = packfile.walk(fd, 0).entries
    same = [entry[1:3] for entry in entries] == [entry[1:3] for entry in walked]
    return entries if same else None


def _directory(fd: int) -> list[Entry] | None:
    try:
        return packfile.directory(fd)
    except Damaged:
        return None


class Tail(NamedTuple):
    """What a pack holds past its last whole commit."""

    commits: list[FoundCommit]
    """Commits whose records are whole, but not all that is before them."""
    keep: bool
    """Whether it is more than a crash leaves, so that it must not be cut off."""
    lost: bool
    """Whether there may be commits that nothing leads to."""


def tail(store: Store, number: int, end: int) -> Tail:
    """Look at what follows `end`, where the last whole commit ends.

    A crash leaves one torn commit, whose record starts at `end` if it is there. Records count only where the
    headers lead to them: what lies within other entries was made by whoever made the imported files.
    """
    fd = store.packs.open(number).fd
    walked = packfile.walk(fd, end)
    whole = (
        read_whole(store, number, entry)
        for entry in walked.entries
        if entry.name.startswith(b"c/") and packfile.range_crc(fd, entry.offset, entry.length) == entry.crc
    )
    found = [commit for commit in whole if commit is not None and commit[1] >= end]
    keep = any(start > end for _, start in found)
    if walked.end != "cut":
        keep = keep or packfile.directory_start(fd) not in (None, end)
    if walked.end == "lost" and not keep:
        keep = any(_raises_doubt(store, number, entry, end) for entry in packfile.search(fd, walked.at, _RECORD_NAME))
    return Tail([commit for commit, _ in found], keep, walked.end == "lost")


def _raises_doubt(store: Store, number: int, entry: Entry | None, end: int) -> bool:
    if entry is None:
        return True
    found = read_whole(store, number, entry)
    return found is not None and end < found[1] <= entry.offset


def read_whole(store: Store, number: int, entry: Entry) -> tuple[FoundCommit, int] | None:
    """Read a commit record and its start; None where it is hurt or inconsistent."""
    try:
        return read_commit(store, number, entry)
    except Damaged:
        return None


def read_commits(store: Store, number: int, start: int, *, verify: bool) -> Iterator[FoundCommit]:
    """Walk the whole commits of a pack from `start`; stop at the first that is not whole."""
    pack = store.packs.open(number)
    begin = start
    for entry in packfile.scan(pack.fd, start, verify=verify):
        if not entry.name.startswith(b"c/"):
            continue
        commit = read_whole(store, number, entry)
        if commit is None or commit[1] != begin:
            return
        yield commit[0]
        begin = entry.end


def read_commit(store: Store, number: int, entry: Entry) -> tuple[FoundCommit, int] | None:
    """Read a commit record and where it says that its commit starts; None where it is inconsistent."""
    pack = store.packs.open(number)
    head = commits.read_head(pack.read(entry.offset, min(commits.HEAD_LENGTH, entry.length)))
    if head.length != entry.length or commits.name(head.seq) != entry.name:
        return None
    record = pack.read(entry.offset, head.body_at)
    blobs = list(commits.read_blobs(record[head.blobs_at : head.meta_at], number))
    meta = commits.read_meta(record[head.meta_at : head.body_at])
    place = CommitPlace(number, entry.offset, head.time_ns, head.blobs_length, head.meta_length, head.body_length)
    return FoundCommit(head.seq, place, blobs, meta, entry.end), head.start


def apply(store: Store, found: list[FoundCommit], fold: Fold) -> None:
    """Put commits, in order, into the index: one transaction for all."""
    with store.index.translated():
        txn = store.index.begin(write=True)
        try:
            for commit in found:
                fold_commit(store, txn, commit, fold)
        except BaseException:
            txn.abort()
            raise
        store.index.commit(txn)


def fold_commit(store: Store, txn: Transaction, commit: FoundCommit, fold: Fold) -> None:
    """Put one commit into the index."""
    for blob, location in sorted(commit.blobs):
        # A blob that a later commit has again replaces one that was hurt.
        txn.put(blob, location.encode(), db=store.blob_table)
    txn.put(KEY.pack(commit.seq), commit.place.encode(), db=store.commit_table)
    store.put_pack(txn, commit.place.pack, PackState(commit.end, 0))
    txn.put(b"seq", KEY.pack(commit.seq), db=store.meta_table)
    fold(txn, commit.seq, commit.place.time_ns, commit.meta)


def seal_leftover(store: Store, number: int, end: int) -> int:
    """Cut a pack after its last whole commit and seal it, unless it is torn before; return how many bytes were cut."""
    fd = store.packs.reopen(number)
    writer = PackWriter(fd)
    try:
        size = writer.position
        if end == 0:
            store.packs.remove(number)
            store.packs.sync_names()
            return size
        sealed = packfile.directory_start(fd) == end and _directory(fd) is not None
        if not sealed:
            entries = [entry for entry in packfile.scan(fd, 0, verify=False) if entry.end <= end]
            if not entries or entries[-1].end != end:
                return 0  # rot: `check` names it; what can be read stays readable, and nothing is appended here
            writer.cut_back(end)
            writer.entries = entries
            writer.seal()
        sealed_size = os.fstat(fd).st_size
    finally:
        writer.close()
    with store.index.translated():
        txn = store.index.begin(write=True)
        store.put_pack(txn, number, PackState(end, sealed_size))
        store.index.commit(txn)
    return 0 if sealed else max(0, size - end)
