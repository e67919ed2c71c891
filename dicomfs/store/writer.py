"""The one writer of an archive: it appends blobs and commits.

The order that makes a crash at any line harmless (`Writer.commit` names the steps):

    1. the blobs of the commit, then its record, are appended to the pack
    2. fdatasync of the pack
    3. the index's transaction is committed
    4. only now is anybody told

A crash before 2 leaves a tail that the next writer cuts off, a crash between 2 and 3 a whole
commit that the next writer folds into the index.
"""

import errno
import time
from collections.abc import Callable
from typing import Final

from dicomfs.errors import DicomfsError, StorageFull
from dicomfs.store import codec as codecs
from dicomfs.store import commit as commits
from dicomfs.store.codec import Checks
from dicomfs.store.index import Transaction
from dicomfs.store.location import Location
from dicomfs.store.pack import PackWriter
from dicomfs.store.recipe import BlobId
from dicomfs.store.store import KEY, CommitPlace, PackState, Store

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_REFUSED: Final = (errno.EROFS, errno.EACCES, errno.EPERM)

Faults = Callable[[str], None]
"""Called with the name of each step: a test's way to stop there."""


class Writer:
    """Appends to a store whose lock the caller holds, after `recover`. Belongs to one thread.

    `txn` is the open transaction of the commit in the making: the layer above reads and fills its
    own tables through it. After any error the writer is done for, and what was not committed is gone.
    """

    def __init__(self, store: Store, faults: Faults | None = None) -> None:
        self._store = store
        self._faults = faults or (lambda _step: None)
        self._pack: PackWriter | None = None
        self._number = 0
        self._committed = 0
        self._blobs: list[tuple[BlobId, Location]] = []
        self._bodies: list[bytes] = []
        self._body_length = 0
        self.bytes_committed = 0
        self.txn: Transaction = self._begin()
        self.seq = store.seq(self.txn) + 1

    def _begin(self) -> Transaction:
        with self._store.index.translated():
            return self._store.index.begin(write=True)

    @property
    def pending_bytes(self) -> int:
        """How many bytes the commit in the making holds."""
        appended = 0 if self._pack is None else self._pack.position - self._committed
        return appended + self._body_length

    def has_blob(self, blob: BlobId) -> bool:
        """Say whether the blob is stored, or about to be."""
        return self.txn.get(blob, db=self._store.blob_table) is not None

    def add_blob(
        self,
        blob: BlobId,
        codec: int,
        length: int,
        stored: bytes | memoryview,
        crc: int,
        checks: Checks,
        *,
        prefix: bytes = b"o/",
        again: bool = False,
    ) -> bool:
        """Append a blob unless it is stored already; say whether it was appended.

        `stored` must not change until `flush` or `commit` returns. With `again` the blob is appended though
        it is stored, and read from here from now on: for one whose stored bytes are damaged.
        """
        if not again and self.has_blob(blob):
            return False
        name = prefix + blob.hex().encode() + codecs.SUFFIXES[codec]
        try:
            offset = (self._pack or self._new_pack()).add(name, stored, crc)
        except OSError as error:
            raise self._failed(error) from error
        location = Location(self._number, offset, len(stored), length, codec, checks)
        self.txn.put(blob, location.encode(), db=self._store.blob_table)
        self._blobs.append((blob, location))
        return True

    def add_body(self, body: bytes) -> int:
        """Append to the body of the commit in the making; return the offset in it."""
        offset = self._body_length
        self._bodies.append(body)
        self._body_length += len(body)
        return offset

    def flush(self) -> None:
        """Hand what was appended to the kernel: its memory may be used again."""
        if self._pack is not None:
            self._writing(lambda pack: pack.flush())

    def commit(self, meta: bytes, time_ns: int | None = None) -> int:
        """Make everything since the last commit last; return the commit's number."""
        time_ns = time.time_ns() if time_ns is None else time_ns
        start = self._committed
        head, record = commits.encode(self.seq, start, time_ns, self._blobs, meta, self._bodies)
        self._faults("before record")
        offset = self._writing(lambda pack: pack.add(commits.name(self.seq), record))
        self.flush()
        self._faults("written")
        self._writing(lambda pack: pack.sync())
        self._faults("synced")
        store, txn = self._store, self.txn
        place = CommitPlace(self._number, offset, time_ns, *head[3:])
        end = offset + len(record)
        txn.put(KEY.pack(self.seq), place.encode(), db=store.commit_table)
        store.put_pack(txn, self._number, PackState(end, 0))
        txn.put(b"seq", KEY.pack(self.seq), db=store.meta_table)
        try:
            store.index.commit(txn)
        except DicomfsError:
            # Whether it reached the index is not known, so the pack keeps the commit for the next writer.
            if self._pack is not None:
                self._pack.close()
                self._pack = None
            raise
        self._faults("indexed")
        done, self.seq = self.seq, self.seq + 1
        self.bytes_committed += end - start
        self._committed = end
        self._blobs, self._bodies, self._body_length = [], [], 0
        self.txn = self._begin()
        if self._pack is not None and self._pack.full():
            self._seal()
        return done

    def _writing(self, step: Callable[[PackWriter], int | None]) -> int:
        try:
            return step(self._pack or self._new_pack()) or 0
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> DicomfsError:
        self.abort()
        return explain(error, self._store)

    def _new_pack(self) -> PackWriter:
        store = self._store
        self._number = max((store.pack_floor(self.txn), *store.packs.numbers(), *store.pack_states(self.txn))) + 1
        self._committed = 0
        self._pack = PackWriter(self._store.packs.create(self._number))
        return self._pack

    def _seal(self) -> None:
        pack = self._pack
        if pack is None:
            return
        try:
            size = pack.seal()
        except OSError as error:
            # Everything is committed; the next writer seals what this one could not.
            self.abort()
            raise explain(error, self._store) from error
        self._store.put_pack(self.txn, self._number, PackState(self._committed, size))
        self._store.index.commit(self.txn)
        pack.close()
        self._pack = None
        self._committed = 0
        self.txn = self._begin()

    def abort(self) -> None:
        """Drop everything since the last commit, as far as the disk lets us; the next writer does the rest."""
        try:
            self.txn.abort()
            if self._pack is not None:
                self._pack.cut_back(self._committed)
                self._pack.close()
                if not self._committed:
                    self._store.packs.remove(self._number)
        except OSError:
            pass
        finally:
            self._pack = None

    def close(self) -> None:
        """Seal the pack. What was not committed is dropped."""
        if self._pack is not None:
            if self._pack.position > self._committed:
                self._pack.flush()
                self._pack.cut_back(self._committed)
            if self._committed:
                self.txn.abort()
                self.txn = self._begin()
                self._seal()
            else:
                self._pack.close()
                self._store.packs.remove(self._number)
                self._pack = None
        self.txn.abort()


def explain(error: OSError, store: Store) -> DicomfsError:
    """Say what an error of the disk means for the archive."""
    if error.errno in _FULL:
        return StorageFull(
            f"{store.root}: the disk is full; what was committed is safe. Make room and run the command again"
        )
    if error.errno in _REFUSED:
        return StorageFull(f"{store.root}: the archive may not be written ({error.strerror})")
    return StorageFull(f"{store.root}: writing failed ({error.strerror}); what was committed is safe")
