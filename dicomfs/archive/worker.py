"""A worker process of an import: reads, splits, hashes and compresses; writes nothing to the archive.

Started by `workers.py` as main([SOCKET, MEMORY, START, ARCHIVE, CODEC, DRY]) of a new interpreter,
with a socket and a piece of shared memory inherited by number. Stored bytes travel through a ring of
RING_BYTES from START of the shared memory, so that nothing large is copied through a pipe; everything else
is small.

    to the worker     ("files", [path, …])          one batch; answered in order
                      ("free",)                      the bytes of the oldest chunk that has some may be overwritten
                      ("end",)
    from the worker   (bytes, [item, …], last)      whether the chunk has bytes in the ring; `last` ends a batch

An item is one of the records below: the calls of splitting.Sink, with the place in the memory instead of bytes.
On their way they are plain tuples that begin with their kind.
"""

import gc
import mmap
from collections import deque
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.channel import Channel
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.splitting import Held, Levels, Row, Splitter
from dicomfs.archive.tables import U64
from dicomfs.errors import Damaged
from dicomfs.store import location as locations
from dicomfs.store.codec import Checks
from dicomfs.store.recipe import BlobId

RING_BYTES: Final = 64 << 20
"""How far a worker may be ahead of the writer, who stops at times to wait for the disk; twice MAX_BLOB at least."""
_CHUNK_BYTES: Final = 8 << 20
_CHUNK_ITEMS: Final = 4096
_WHOLE_KEPT: Final = 100_000
_GARBAGE: Final = 20_000


class Begin(NamedTuple):
    """A file begins whose blobs follow, then its Row."""

    sha256: bytes
    sop_instance_uid: str


class Base(NamedTuple):
    """The base that later rows refer to."""

    blob: BlobId
    codec: int
    length: int
    stored: bytes


class StoredBlob(NamedTuple):
    """A blob whose `size` stored bytes lie at `at` of the worker's ring."""

    blob: BlobId
    codec: int
    length: int
    at: int
    size: int
    crc: int
    checks: Checks
    again: bool
    """Whether it is stored, but damaged there."""


class Ended(NamedTuple):
    """What became of a file that was not split."""

    outcome: Outcome
    reason: str
    size: int
    sha256: bytes
    sop_instance_uid: str


Item: TypeAlias = Begin | Base | StoredBlob | Row | Ended
Sent: TypeAlias = tuple[object, ...]
Chunk: TypeAlias = tuple[bool, list[Sent], bool]
Message: TypeAlias = tuple[Literal["files"], list[str]] | tuple[Literal["free", "end"]]

_BEGIN, _BASE, _BLOB, _ROW, _ENDED = range(5)


def _row(
    size: int, sha256: bytes, base: bytes, body: bytes, literal: int, levels: tuple[dict[str, str | int], ...]
) -> Row:
    return Row(size, sha256, base, body, literal, Levels(*levels))


def _ended(outcome: str, reason: str, size: int, sha256: bytes, uid: str) -> Ended:
    return Ended(Outcome(outcome), reason, size, sha256, uid)


_RECORDS: Final[dict[object, Callable[..., Item]]] = {
    _BEGIN: Begin, _BASE: Base, _BLOB: StoredBlob, _ROW: _row, _ENDED: _ended
}  # fmt: skip


def received(sent: list[Sent]) -> list[Item]:
    """Make records of the items of a chunk."""
    return [_RECORDS[kind](*fields) for kind, *fields in sent]


def files_told(sent: list[Sent]) -> int:
    """Return how many files the items of a chunk end."""
    return sum(item[0] in (_ROW, _ENDED) for item in sent)


class KnownInIndex:
    """What the archive holds, as far as it is committed, and whether its stored bytes are good.

    What is said to be there is what a user may delete elsewhere, so the stored bytes are read and compared
    with their CRC, once a run.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._store = archive.store
        self._whole: set[BlobId] = set()

    def file(self, sha256: bytes) -> Held:
        """Say whether a file with this SHA-256 is in the archive, and not only as an earlier version."""
        held = self._store.index.tables
        with self._store.index.reading() as txn:
            ino = txn.get(sha256, db=held["file"])
            inode = None if ino is None else txn.get(ino, db=held["inode"])
        if ino is None or inode is None or tables.InstanceInode.parse(inode).parent == tables.NOWHERE:
            return Held.NOT
        try:
            file = self._archive.open_instance(U64.unpack(ino)[0])
        except Damaged:
            return Held.HEADER_HURT
        whole = all(state is Held.WHOLE for state in self.blobs(file.blob_ids()))
        return Held.WHOLE if whole else Held.HURT

    def blobs(self, blobs: list[BlobId]) -> list[Held]:
        """Say of each blob whether it is stored."""
        return [self._blob(blob) for blob in blobs]

    def _blob(self, blob: BlobId) -> Held:
        if blob in self._whole:
            return Held.WHOLE
        with self._store.index.reading() as txn:
            value = txn.get(blob, db=self._store.blob_table)
        if value is None:
            return Held.NOT
        try:
            self._store.blobs.verify(locations.decode(value))
        except Damaged:
            return Held.HURT
        if len(self._whole) >= _WHOLE_KEPT:
            self._whole.clear()
        self._whole.add(blob)
        return Held.WHOLE

    def base_of(self, study_instance_uid: str, series_instance_uid: str) -> tuple[bytes, bytes] | None:
        """Return the base that the series' first instance uses, and its bytes."""
        held = self._store.index.tables
        with self._store.index.reading() as txn:
            study = txn.get(tables.identity_key("study", 0, study_instance_uid), db=held["identity"])
            if study is None:
                return None
            key = tables.identity_key("series", U64.unpack(study)[0], series_instance_uid)
            series = txn.get(key, db=held["identity"])
            cursor = txn.cursor(db=held["instance"])
            if series is None or not cursor.set_range(series) or cursor.key()[:8] != series:
                return None
            inode = txn.get(cursor.key()[8:], db=held["inode"])
            if inode is None:
                return None
            base = tables.InstanceInode.parse(inode).base
            if base == bytes(32):
                return None
            location = self._store.locate(txn, BlobId(base))
        return base, bytes(self._store.blobs.whole(location))


class RingSink:
    """Puts blobs into shared memory and sends everything else beside them."""

    def __init__(self, channel: Channel, memory: memoryview) -> None:
        """`memory` is this worker's part of the shared memory."""
        self._channel = channel
        self._memory = memory
        self._starts: deque[int] = deque()
        """Where the chunks begin that are in the memory, the one in the making last."""
        self._at = 0
        self._has_bytes = False
        self._used = 0
        self._items: list[Sent] = []
        self.batches: deque[list[str]] = deque()
        self.ended = False

    def begin(self, sha256: bytes, sop_instance_uid: str) -> None:
        """Announce a file."""
        self._items.append((_BEGIN, sha256, sop_instance_uid))

    def base(self, blob: BlobId, codec: int, length: int, stored: bytes) -> None:
        """Give a base: small, so it travels in the message."""
        self._items.append((_BASE, blob, codec, length, stored))

    def blob(
        self,
        blob: BlobId,
        codec: int,
        length: int,
        stored: bytes | memoryview,
        crc: int,
        crcs: tuple[int, ...],
        *,
        again: bool = False,
    ) -> None:
        """Copy a blob into the ring."""
        size = len(stored)
        if self._used >= _CHUNK_BYTES:
            self.send(last=False)
        while (at := self._room(size)) < 0:
            if self._has_bytes:
                self.send(last=False)
            self.receive()
        self._memory[at : at + size] = stored
        if not self._has_bytes:
            self._has_bytes = True
            self._starts.append(at)
        self._at = at + size
        self._used += size
        self._items.append((_BLOB, blob, codec, length, at, size, crc, crcs, again))

    def _room(self, size: int) -> int:
        """Return where the next `size` bytes go, -1 where there is no room before a chunk is freed."""
        if not self._starts:
            return 0  # always the same memory, as long as the writer keeps up
        oldest = self._starts[0]
        if self._at > oldest:
            if self._at + size <= len(self._memory):
                return self._at
            return 0 if size < oldest else -1
        return self._at if self._at + size < oldest else -1

    def row(self, row: Row) -> None:
        """End a file that was split."""
        self._items.append((_ROW, *row[:5], tuple(row.attributes)))
        if len(self._items) >= _CHUNK_ITEMS:
            self.send(last=False)

    def risk(self) -> None:
        """Tell everything before a file that may end this process."""
        self.send(last=False)

    def outcome(self, outcome: Outcome, reason: str, size: int, sha256: bytes, sop_instance_uid: str) -> None:
        """End a file that was not."""
        self._items.append((_ENDED, outcome.value, reason, size, sha256, sop_instance_uid))

    def send(self, *, last: bool) -> None:
        """Send what was gathered; its bytes belong to the other side until it says otherwise."""
        self._channel.send((self._has_bytes, self._items, last))
        self._has_bytes, self._used, self._items = False, 0, []

    def receive(self) -> None:
        """Take one message of the other side."""
        message = cast(Message, self._channel.receive())
        if message[0] == "files":
            self.batches.append(message[1])
        elif message[0] == "free":
            self._starts.popleft()
        else:
            self.ended = True


def main(arguments: list[str]) -> None:
    """Work until told to end, or until the other side is gone."""
    channel_fd, memory_fd, start, archive, codec, dry = arguments
    channel = Channel(socket(fileno=int(channel_fd)))
    # Nothing here makes cycles but what fails, so looking for them among all that was imported is rarely worth it.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    with mmap.mmap(int(memory_fd), RING_BYTES, offset=int(start)) as memory:
        view = memoryview(memory)
        opened = Archive.open(Path(archive))
        sink = RingSink(channel, view)
        splitter = Splitter(KnownInIndex(opened), sink, codec=codec, describe_only=dry == "1")
        try:
            while not sink.ended:
                if not sink.batches:
                    sink.receive()
                    continue
                for path in sink.batches.popleft():
                    splitter.process(path)
                sink.send(last=True)
        except (EOFError, ConnectionError):
            pass
        finally:
            view.release()
            opened.close()
