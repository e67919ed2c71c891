"""Write commits once more, into packs that are to take the place of those that they lie in now.

    old pack   blob blob(dead) blob record | blob(dead) record | …
    new pack   blob blob record | record | …                          the same commits, in the order of `seq`

A commit stays what it is: its number, time and JSON, and of its blobs those that somebody needs. Stored bytes are
copied as they are, after they were proved: by the CRC-32 of the entry and of each chunk, and by the SHA-256 of the
plain bytes. Nothing that is hurt is ever copied.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from isal.isal_zlib import crc32

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store import commit as commits
from dicomfs.store import pack as packfile
from dicomfs.store.location import Location
from dicomfs.store.pack import PackMeasure, PackWriter
from dicomfs.store.recipe import BlobId
from dicomfs.store.store import CommitPlace, Store

_PREFIXES: Final = (b"o/", b"h/")
_BATCH_BYTES: Final = 4 << 20
_BATCH_BLOBS: Final = 256
_THREADS: Final = 2
_AHEAD: Final = 4
"""How many batches are read and proved before the one that is written."""

OnBytes = Callable[[int], None]
"""Called with how many more bytes were written."""


class Range(NamedTuple):
    """Bytes of a pack that is there."""

    pack: int
    offset: int
    length: int


class Fresh(NamedTuple):
    """The base of headers that no pack has yet: one zstd frame."""

    blob: BlobId
    codec: int
    length: int
    stored: bytes
    crc: int

    @property
    def location(self) -> Location:
        """What its record says of it, but for the place."""
        return Location(0, 0, len(self.stored), self.length, self.codec, (self.crc,))

    @property
    def name(self) -> bytes:
        """The name of its entry."""
        return _name(_PREFIXES[1], self.blob, self.location)


class Again(NamedTuple):
    """A commit that is to be written once more."""

    seq: int
    time_ns: int
    blobs: Sequence[tuple[BlobId, Location]]
    """Those that stay, where they lie now."""
    meta: bytes
    """The JSON as its record holds it: one zstd frame."""
    body: Sequence[Range | bytes]
    """What is left of the body, in order, and what is new."""
    fresh: Sequence[Fresh] = ()

    @property
    def record_length(self) -> int:
        """How long its record is going to be."""
        blobs = [*self.blobs, *((one.blob, one.location) for one in self.fresh)]
        body = sum(one.length if isinstance(one, Range) else len(one) for one in self.body)
        return commits.record_length(blobs, len(self.meta), body)


class NewPack(NamedTuple):
    """A pack that was written, or would be."""

    number: int
    size: int


class Record(NamedTuple):
    """What a commit's record holds beside its body."""

    place: CommitPlace
    blobs: list[tuple[BlobId, Location]]
    meta: bytes
    """As it is stored."""

    @property
    def body(self) -> Range:
        """Where its body lies."""
        return Range(self.place.pack, self.place.body_offset, self.place.body_length)


def read_record(store: Store, seq: int, *, prove: bool = False) -> Record:
    """Read the record of a commit that the index knows, but for its body; `prove` looks at that too. Raise Damaged."""
    with store.index.reading() as txn:
        place = store.commit_place(txn, seq)
    head, pack = place.head, store.packs.open(place.pack)
    record = pack.read(place.offset, head.body_at)
    found = commits.read_head(record)
    good = found.seq == seq and found[2:] == head[2:]
    if prove and good:
        crc = packfile.range_crc(pack.fd, place.offset, head.length)
        header = packfile.entry_header(commits.name(seq), crc, head.length)
        good = place.offset >= len(header) and pack.read(place.offset - len(header), len(header)) == header
    if not good:
        raise Damaged(f"pack {place.pack:08d}: commit {seq} is damaged; run 'dicomfs check', which says what to do")
    blobs = list(commits.read_blobs(record[head.blobs_at : head.meta_at], place.pack))
    return Record(place, blobs, record[head.meta_at : head.body_at])


def measure(again: Iterable[Again], first: int) -> Iterator[NewPack]:
    """Yield the packs, numbered from `first`, that writing these commits would give."""
    pack = PackMeasure()
    for commit in again:
        for _, at in commit.blobs:
            pack.add(_name(_PREFIXES[0], BlobId(bytes(32)), at), at.stored)
        for fresh in commit.fresh:
            pack.add(fresh.name, len(fresh.stored))
        pack.add(commits.name(commit.seq), commit.record_length)
        if pack.full():
            yield NewPack(first, pack.sealed())
            first += 1
            pack = PackMeasure()
    if pack.entries:
        yield NewPack(first, pack.sealed())


def write(store: Store, again: Iterable[Again], first: int, on_bytes: OnBytes) -> list[NewPack]:
    """Write these commits into packs numbered from `first`, which do not count yet; return them when they are lasting.

    Raises Damaged where what is to be copied is hurt, and OSError.
    """
    done: list[NewPack] = []
    writer: PackWriter | None = None
    start = 0
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for commit in again:
                if writer is None:
                    writer, start = PackWriter(store.packs.create(first + len(done), coming=True)), 0
                _write_commit(store, pool, writer, start, commit, on_bytes)
                start = writer.position
                if writer.full():
                    done.append(NewPack(first + len(done), writer.seal()))
                    writer.close()
                    writer = None
        if writer is not None:
            done.append(NewPack(first + len(done), writer.seal()))
    finally:
        if writer is not None:
            writer.close()
    store.packs.sync_names()
    return done


def _write_commit(
    store: Store, pool: ThreadPoolExecutor, writer: PackWriter, start: int, commit: Again, on_bytes: OnBytes
) -> None:
    places: list[tuple[BlobId, Location]] = []
    batches = _batches(commit.blobs)
    for proved in _in_order(pool, lambda batch: [_proved(store, blob, at) for blob, at in batch], batches):
        for blob, at, name, data, crc in proved:
            places.append((blob, at._replace(offset=writer.add(name, data, crc))))
            on_bytes(at.stored)
    for fresh in commit.fresh:
        offset = writer.add(fresh.name, fresh.stored, fresh.crc)
        places.append((fresh.blob, fresh.location._replace(offset=offset)))
    body = [one if isinstance(one, bytes) else store.packs.open(one.pack).read(*one[1:]) for one in commit.body]
    _, record = commits.encode_packed(commit.seq, start, commit.time_ns, places, commit.meta, body)
    writer.add(commits.name(commit.seq), record)
    on_bytes(len(record))


class _Proved(NamedTuple):
    blob: BlobId
    at: Location
    name: bytes
    data: memoryview
    crc: int


def _proved(store: Store, blob: BlobId, at: Location) -> _Proved:
    """Read the entry of a blob; raise Damaged unless every check of it holds."""
    before = len(packfile.entry_header(_name(_PREFIXES[0], blob, at), 0, 0))
    if at.offset < before:
        raise _damaged(at)
    raw = memoryview(store.packs.open(at.pack).read(at.offset - before, before + at.stored))
    header, data = raw[:before], raw[before:]
    crc = crc32(data)
    names = (_name(prefix, blob, at) for prefix in _PREFIXES)
    name = next((one for one in names if packfile.entry_header(one, crc, at.stored) == header), None)
    if name is None or (at.codec == codecs.PLAIN and codecs.plain(data).checks != at.checks):
        raise _damaged(at)
    try:
        plain = codecs.decode(at.codec, data, at.length, at.checks)
    except Damaged as error:
        raise _damaged(at) from error
    if hashlib.sha256(plain).digest() != blob:
        raise _damaged(at)
    return _Proved(blob, at, name, data, crc)


def _name(prefix: bytes, blob: BlobId, at: Location) -> bytes:
    return prefix + blob.hex().encode() + codecs.SUFFIXES[at.codec]


def _damaged(at: Location) -> Damaged:
    return Damaged(
        f"pack {at.pack:08d}: the blob at {at.offset} is damaged, and nothing damaged is copied; "
        "run 'dicomfs check --verify-files', which says what to do"
    )


def _batches(blobs: Sequence[tuple[BlobId, Location]]) -> Iterator[list[tuple[BlobId, Location]]]:
    batch: list[tuple[BlobId, Location]] = []
    size = 0
    for blob, at in blobs:
        batch.append((blob, at))
        size += at.stored
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_BLOBS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


_Batch = list[tuple[BlobId, Location]]


def _in_order(
    pool: ThreadPoolExecutor, prove: Callable[[_Batch], list[_Proved]], batches: Iterator[_Batch]
) -> Iterator[list[_Proved]]:
    """Prove batches by threads, a few ahead of the one that is wanted."""
    coming: deque[Future[list[_Proved]]] = deque()
    for batch in batches:
        coming.append(pool.submit(prove, batch))
        if len(coming) > _AHEAD:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()
