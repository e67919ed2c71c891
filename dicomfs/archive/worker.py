"""A worker process of an import: reads, splits, hashes and compresses; writes nothing to the archive.

Started by `workers.py` as main([CONNECTION, MEMORY, FIRST_SLOT, ARCHIVE, CODEC, DRY]) of a new interpreter,
with a socket and a piece of shared memory inherited by number. Stored bytes travel through slots of
the shared memory, so that nothing large is copied through a pipe; everything else is small and pickled.

    to the worker     ("files", [path, …])          one batch; answered in order
                      ("free", slot)                 the slot may be used again
                      ("end",)
    from the worker   (slot or None, [item, …], last)   `last` ends a batch

An item is one of the records below: the calls of splitting.Sink, with the place in the slot instead of bytes.
"""

import mmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.splitting import Held, Row, Splitter
from dicomfs.archive.tables import U64
from dicomfs.errors import Damaged
from dicomfs.store import location as locations
from dicomfs.store.codec import Checks
from dicomfs.store.recipe import BlobId

SLOT_BYTES: Final = 32 << 20
SLOTS: Final = 2
"""Slots of each worker: one is written while the other is read."""
_CHUNK_ITEMS: Final = 4096
_WHOLE_KEPT: Final = 100_000


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
    """A blob whose `size` stored bytes lie in the shared memory at `at`."""

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
Chunk: TypeAlias = tuple[int | None, list[Item], bool]


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


class SlotSink:
    """Puts blobs into shared memory and sends everything else beside them."""

    def __init__(self, connection: Connection, memory: memoryview, first_slot: int) -> None:
        self._connection = connection
        self._memory = memory
        self._free = list(range(first_slot, first_slot + SLOTS))
        self._slot: int | None = None
        self._used = 0
        self._items: list[Item] = []
        self.batches: list[list[str]] = []
        self.ended = False

    def begin(self, sha256: bytes, sop_instance_uid: str) -> None:
        """Announce a file."""
        self._items.append(Begin(sha256, sop_instance_uid))

    def base(self, blob: BlobId, codec: int, length: int, stored: bytes) -> None:
        """Give a base: small, so it travels in the message."""
        self._items.append(Base(blob, codec, length, stored))

    def blob(
        self,
        blob: BlobId,
        codec: int,
        length: int,
        stored: bytes | memoryview,
        crc: int,
        checks: Checks,
        *,
        again: bool = False,
    ) -> None:
        """Copy a blob into the slot."""
        size = len(stored)
        if self._slot is not None and self._used + size > SLOT_BYTES:
            self.send(last=False)
        if self._slot is None:
            while not self._free:
                self.receive()
            self._slot, self._used = self._free.pop(0), 0
        at = self._slot * SLOT_BYTES + self._used
        self._memory[at : at + size] = stored
        self._used += size
        self._items.append(StoredBlob(blob, codec, length, at, size, crc, checks, again))

    def row(self, row: Row) -> None:
        """End a file that was split."""
        self._items.append(row)
        if len(self._items) >= _CHUNK_ITEMS:
            self.send(last=False)

    def risk(self) -> None:
        """Tell everything before a file that may end this process."""
        self.send(last=False)

    def outcome(self, outcome: Outcome, reason: str, size: int, sha256: bytes, sop_instance_uid: str) -> None:
        """End a file that was not."""
        self._items.append(Ended(outcome, reason, size, sha256, sop_instance_uid))

    def send(self, *, last: bool) -> None:
        """Send what was gathered; the slot belongs to the other side until it says otherwise."""
        self._connection.send((self._slot, self._items, last))
        self._slot, self._items = None, []

    def receive(self) -> None:
        """Take one message of the other side."""
        message = self._connection.recv()
        if message[0] == "files":
            self.batches.append(message[1])
        elif message[0] == "free":
            self._free.append(message[1])
        else:
            self.ended = True


def main(arguments: list[str]) -> None:
    """Work until told to end, or until the other side is gone."""
    connection_fd, memory_fd, first_slot, archive, codec, dry = arguments
    connection = Connection(int(connection_fd))
    with mmap.mmap(int(memory_fd), 0) as memory:
        view = memoryview(memory)
        opened = Archive.open(Path(archive))
        sink = SlotSink(connection, view, int(first_slot))
        splitter = Splitter(KnownInIndex(opened), sink, codec=codec, describe_only=dry == "1")
        try:
            while not sink.ended:
                if not sink.batches:
                    sink.receive()
                    continue
                for path in sink.batches.pop(0):
                    splitter.process(path)
                sink.send(last=True)
        except (EOFError, ConnectionError):
            pass
        finally:
            view.release()
            opened.close()
