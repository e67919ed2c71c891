"""Decide which packs are to be written anew, and say exactly what that will give and cost.

A pack is written anew where less than LIVE of its bytes are needed, where it holds what is to be forgotten, and where
it is small and fewer packs come of it. So each byte is copied a few times in its life, and a second run finds nothing.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from dicomfs.archive import gc_forgetting, gc_marking
from dicomfs.archive.archive import Archive
from dicomfs.archive.gc_forgetting import Forgetting, Left
from dicomfs.archive.gc_marking import Marks
from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store import commit as commits
from dicomfs.store import location as locations
from dicomfs.store import pack as packfile
from dicomfs.store import repack
from dicomfs.store.index import Transaction
from dicomfs.store.intent import Replacement
from dicomfs.store.location import Location
from dicomfs.store.recipe import BlobId
from dicomfs.store.repack import Again, NewPack
from dicomfs.store.store import PackState

LIVE: Final = 0.7
"""A pack of which less is needed is written anew."""
SMALL: Final = 0.7
"""A pack that is shorter than this part of a full one, in bytes and in entries, is merged with others."""
_BLOB_NAME: Final = 66
_ENTRY: Final = len(packfile.entry_header(b"", 0, 0))
_COMMIT_ENTRY: Final = len(packfile.entry_header(commits.name(0), 0, 0))


@dataclass
class _Use:
    """What of a pack is needed."""

    commits: list[int] = field(default_factory=list)
    bytes: int = 0
    entries: int = 0


@dataclass
class Plan:
    """What is to be done to the packs."""

    commits: list[int] = field(default_factory=list)
    """Those that are written once more, in order."""
    go: dict[int, int] = field(default_factory=dict)
    """The packs that go, and how long each is."""
    come: list[NewPack] = field(default_factory=list)
    blobs: int = 0
    """How many copies of blobs are not taken along."""
    packs: int = 0
    """How many packs there are now."""
    forgot_ns: int = 0
    """Up to which time, in ns since 1970, something is forgotten, which a commit ends that comes after them; or 0."""

    @property
    def replacement(self) -> Replacement:
        """The packs that come and go."""
        return Replacement(tuple(pack.number for pack in self.come), tuple(self.go), self.forgot_ns)

    @property
    def written(self) -> int:
        """How many bytes are written."""
        return sum(pack.size for pack in self.come)

    @property
    def freed(self) -> int:
        """How many bytes less the packs take."""
        return sum(self.go.values()) - self.written


class Planner:
    """Looks at the packs of an archive as its index and the marks say they are used. Belongs to one thread.

    `by` is who forgets what is to be forgotten, as the commit that says so tells.
    """

    def __init__(self, archive: Archive, marks: Marks, forgotten: Forgetting, by: str) -> None:
        self._archive = archive
        self._store = store = archive.store
        self._marks = marks
        self._forgotten = forgotten
        self._meta = commits.pack_meta(forgotten.meta(by)) if forgotten.count else b""
        with store.index.reading() as txn:
            self._states = {
                number: state for number, state in store.pack_states(txn).items() if state.sealed and state.committed
            }
            self._seq = store.seq(txn)
            last_ns = store.commit_place(txn, self._seq).time_ns if self._seq else 0
            self._time_ns = max(time.time_ns(), last_ns + 1)
            self._first = max((store.pack_floor(txn), 0, *store.packs.numbers(), *store.pack_states(txn))) + 1
            self._uses = self._look(txn)

    def _look(self, txn: Transaction) -> dict[int, _Use]:
        uses: defaultdict[int, _Use] = defaultdict(_Use)
        for seq in self._store.commits(txn):
            place = self._store.commit_place(txn, seq)
            use = uses[place.pack]
            use.commits.append(seq)
            use.bytes += _COMMIT_ENTRY + place.head.length
            use.entries += 1
        for _, at in self._marks.walk(self._store, txn):
            use = uses[at.pack]
            use.bytes += _ENTRY + _BLOB_NAME + len(codecs.SUFFIXES[at.codec]) + at.stored
            use.entries += 1
        return uses

    def plan(self) -> Plan:
        """Choose packs, and measure what comes of them."""
        sparse = {number for number, state in self._states.items() if self._must(number, state)}
        small = {number for number, state in self._states.items() if self._is_small(number, state)} - sparse
        alone, merged = self._planned(sparse), self._planned(sparse | small)
        return merged if len(merged.come) < len(alone.come) + len(small) else alone

    def require_whole(self, plan: Plan) -> None:
        """Raise Damaged where a pack that goes holds a commit that the index does not know, as it could not be read."""
        for number in plan.go:
            entries = packfile.directory(self._store.packs.open(number).fd)
            held = {entry.name for entry in entries if entry.name.startswith(b"c/")}
            if held != {commits.name(seq) for seq in self._uses[number].commits}:
                raise Damaged(
                    f"pack {number:08d} holds other commits than the index knows of it, so it is not replaced; "
                    "run 'dicomfs check', which says what to do"
                )

    def _must(self, number: int, state: PackState) -> bool:
        use = self._uses[number]
        return use.bytes < LIVE * state.committed or not self._forgotten.commits.isdisjoint(use.commits)

    def _is_small(self, number: int, state: PackState) -> bool:
        entries = self._uses[number].entries
        return state.committed < SMALL * packfile.SEAL_BYTES and entries < SMALL * packfile.SEAL_ENTRIES

    def _planned(self, numbers: set[int]) -> Plan:
        plan = Plan(packs=len(self._store.packs.numbers()), forgot_ns=self._forgotten.limit_ns)
        plan.commits = sorted(seq for number in numbers for seq in self._uses[number].commits)
        plan.go = {number: self._states[number].sealed for number in sorted(numbers)}
        plan.come = list(repack.measure(self._again(plan), self._first))
        return plan

    def _again(self, plan: Plan) -> Iterator[Again]:
        for seq in plan.commits:
            again, dropped = self.again(seq)
            plan.blobs += dropped
            yield again
        if plan.forgot_ns:
            yield self.end()

    def end(self) -> Again:
        """Return the commit that ends what is forgotten."""
        return Again(self._seq + 1, self._time_ns, (), self._meta, ())

    def again(self, seq: int, *, prove: bool = False) -> tuple[Again, int]:
        """Return a commit as it is to be written, and how many of its blobs are not taken along; raise Damaged."""
        record = repack.read_record(self._store, seq, prove=prove)
        with self._store.index.reading() as txn:
            blobs = [(blob, at) for blob, at in record.blobs if self._is_live(txn, blob, at)]
        again = Again(seq, record.place.time_ns, blobs, record.meta, [record.body])
        if seq in self._forgotten.commits:
            meta, body, fresh = gc_forgetting.reduce(record, self._forgotten, self._left)
            again = again._replace(meta=meta, body=body, fresh=fresh)
        return again, len(record.blobs) - len(blobs)

    def _left(self, ino: int) -> Left:
        """Say what stays of the blobs of a file that is forgotten, as others need them."""
        kept = [blob for blob in dict.fromkeys(gc_marking.needs(self._archive, ino)) if self._marks.needs(blob)]
        with self._store.index.reading() as txn:
            places = [self._store.locate(txn, blob) for blob in kept]
        with self._archive.view() as view:
            base = view.file_inode(ino).base
        return Left(sum(at.length for at in places), sum(at.stored for at in places), self._marks.needs(base))

    def _is_live(self, txn: Transaction, blob: BlobId, at: Location) -> bool:
        """Say whether a blob is needed, and this copy the one that counts."""
        if not self._marks.needs(blob):
            return False
        value = txn.get(blob, db=self._store.blob_table)
        return value is not None and locations.decode(value)[:2] == at[:2]
