"""The store: packs plus the index that says where their blobs lie.

Tables of the index that belong to the store (integers big endian in keys, little endian in values):

    blob     SHA-256                 a Location
    pack     u64 number              u64 committed length, u64 sealed size (0: not sealed)
    commit   u64 seq                 u32 pack, u64 offset of the record, u64 time_ns, u32 blobs, u32 meta, u64 body
    meta     name                    u64 big endian: b"seq" is the number of the last commit, b"pack_floor" the
                                     highest number that a pack may have had before a rebuild, if there was one

The layer above adds its own tables and fills them in the same transactions.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from struct import Struct, error
from typing import Final, NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import commit as commits
from dicomfs.store import location as locations
from dicomfs.store.blobs import BlobReader
from dicomfs.store.index import Index, Table, Transaction
from dicomfs.store.location import Location
from dicomfs.store.packs import PackDirectory
from dicomfs.store.recipe import BlobId

TABLES: Final = ("blob", "pack", "commit", "meta")

KEY = Struct(">Q")
_PACK = Struct("<QQ")
_COMMIT = Struct("<IQQIIQ")
_PLACES: Final = 4096
"""How many commits' places are remembered: those of a million instances, at 256 a commit."""


class CommitPlace(NamedTuple):
    """Where a commit record lies, and what it is made of."""

    pack: int
    offset: int
    time_ns: int
    blobs_length: int
    meta_length: int
    body_length: int

    @property
    def head(self) -> commits.CommitHead:
        """The record's fixed part, as far as its layout goes."""
        return commits.CommitHead(0, 0, self.time_ns, self.blobs_length, self.meta_length, self.body_length)

    @property
    def body_offset(self) -> int:
        """Where in the pack the body begins: asked for at every opening, so without `head`."""
        return self.offset + commits.HEAD_LENGTH + self.blobs_length + self.meta_length

    def encode(self) -> bytes:
        """Return the value of the commit table."""
        return _COMMIT.pack(*self)

    @classmethod
    def decode(cls, seq: int, value: bytes) -> "CommitPlace":
        """Read a value of the commit table; raise Damaged where it is none."""
        if len(value) != _COMMIT.size:
            raise _damaged(f"of commit {seq}")
        return cls(*_COMMIT.unpack(value))


class PackState(NamedTuple):
    """What the index knows of a pack."""

    committed: int
    sealed: int


class Store:
    """Reads blobs and commit records. May be shared by threads; one in a process for each archive."""

    def __init__(
        self,
        root: Path,
        tables: Sequence[str],
        *,
        writable: bool = False,
        index: Path | None = None,
        new_index: Path | None = None,
        earlier: Path | Index | None = None,
        live: Index | None = None,
    ) -> None:
        """Open the store below `root`; `tables` are those of the layer above.

        `index` is where its index lies if not in its place. `new_index` is where one is to be made from the packs, that
        is not durable until `index.sync`. `earlier` is that of an earlier state (earlier.py), or where it lies: it says
        what there was, and the index of now, which is `live` if this process has it open, where that lies.
        """
        self.root = root
        self.packs: PackDirectory = PackDirectory(root / "packs")
        self.blobs: BlobReader = BlobReader(self.packs)
        names = (*TABLES, *tables)
        self._above = tables
        if isinstance(earlier, Index):
            self.index = earlier
        elif earlier is not None:
            self.index = Index(earlier, names, writable=False, fixed=True)
        elif new_index is None:
            self.index = Index(index or root / "index", names, writable=writable)
        else:
            self.index = Index(new_index, names, writable=True, durable=False)
        if earlier is None:
            live = self.index
        self.live: Index = live or Index(root / "index", names, writable=False)
        """The index that says where blobs and headers lie: what was moved, or written again because it was hurt, is
        found."""
        self.blob_table: Table = self.index.tables["blob"]
        self.pack_table: Table = self.index.tables["pack"]
        self.commit_table: Table = self.index.tables["commit"]
        self.meta_table: Table = self.index.tables["meta"]
        self._places: dict[int, CommitPlace] = {}

    def seq(self, txn: Transaction) -> int:
        """Return the number of the last commit."""
        return self._number(txn, b"seq")

    def pack_floor(self, txn: Transaction) -> int:
        """Return the number that packs to be made are past, whichever packs there are."""
        return self._number(txn, b"pack_floor")

    def put_floors(self, txn: Transaction, *, seq: int = 0, pack: int = 0) -> None:
        """See to it that commits and packs to be made have higher numbers than these."""
        for name, number in ((b"seq", seq), (b"pack_floor", pack)):
            if number > self._number(txn, name):
                txn.put(name, KEY.pack(number), db=self.meta_table)

    def _number(self, txn: Transaction, name: bytes) -> int:
        value = txn.get(name, db=self.meta_table)
        if value is not None and len(value) != KEY.size:
            raise _damaged(f"of {name.decode()}")
        return 0 if value is None else int.from_bytes(value, "big")

    def locate(self, txn: Transaction, blob: BlobId) -> Location:
        """Return where a blob lies; raise Damaged where the index does not know it."""
        value = txn.get(blob, db=self.blob_table)
        if value is None:
            raise _unknown(blob)
        return locations.decode(value)

    def find(self, blobs: Sequence[BlobId]) -> list[Location | None]:
        """Return where blobs lie now, in a transaction of its own; None for each that the index does not know."""
        live = self.live
        with live.reading() as txn:
            values = [txn.get(blob, db=live.tables["blob"]) for blob in blobs]
        return [None if value is None else locations.decode(value) for value in values]

    def find_one(self, blob: BlobId) -> Location:
        """Return where a blob lies now; raise Damaged where the index does not know it."""
        (location,) = self.find([blob])
        if location is None:
            raise _unknown(blob)
        return location

    def commit_place(self, txn: Transaction, seq: int) -> CommitPlace:
        """Return where a commit record lies; raise Damaged where the index does not know it."""
        return _place(txn, self.commit_table, seq)

    def place_now(self, txn: Transaction, seq: int) -> CommitPlace:
        """Return where a commit record lies by the index of now, which `txn` is of; from memory if it was asked before.

        It moves only with the index.
        """
        found = self._places.get(seq)
        if found is None:
            if len(self._places) >= _PLACES:
                self._places.clear()
            found = self._places[seq] = _place(txn, self.live.tables["commit"], seq)
        return found

    def has_commit(self, txn: Transaction, seq: int) -> bool:
        """Say whether the index knows a commit."""
        return txn.get(KEY.pack(seq), db=self.commit_table) is not None

    def next_seq(self, txn: Transaction, after: int) -> int:
        """Return the number of the first commit past `after` that the index knows, 0 where there is none."""
        cursor = txn.cursor(db=self.commit_table)
        return KEY.unpack(cursor.key())[0] if cursor.set_range(KEY.pack(after + 1)) else 0

    def commits(self, txn: Transaction) -> Iterator[int]:
        """Walk the numbers of the commits that the index knows."""
        cursor = txn.cursor(db=self.commit_table)
        if cursor.first():
            for key, _ in cursor.iternext():
                yield KEY.unpack(key)[0]

    def read_body(self, place: CommitPlace, offset: int, length: int) -> bytes:
        """Read part of a commit's body."""
        if offset + length > place.body_length:
            raise Damaged(f"pack {place.pack:08d}: a header lies outside its commit")
        return self.packs.open(place.pack).read(place.body_offset + offset, length)

    def body_ready(self, place: CommitPlace, offset: int, length: int) -> memoryview | None:
        """Return part of a commit's body if it is in the page cache, else None. For one thread only."""
        if offset + length > place.body_length:
            raise Damaged(f"pack {place.pack:08d}: a header lies outside its commit")
        return self.packs.open(place.pack).resident(place.body_offset + offset, length)

    def read_meta(self, place: CommitPlace) -> bytes:
        """Read a commit's JSON."""
        packed = self.packs.open(place.pack).read(place.offset + place.head.meta_at, place.meta_length)
        return commits.read_meta(packed)

    def pack_states(self, txn: Transaction) -> dict[int, PackState]:
        """Return what the index knows of every pack."""
        cursor = txn.cursor(db=self.pack_table)
        if not cursor.first():
            return {}
        try:
            return {KEY.unpack(key)[0]: PackState(*_PACK.unpack(value)) for key, value in cursor.iternext()}
        except error as cause:
            raise _damaged("of a pack") from cause

    def put_pack(self, txn: Transaction, number: int, state: PackState) -> None:
        """Record what a pack holds."""
        txn.put(KEY.pack(number), _PACK.pack(*state), db=self.pack_table)

    def size(self) -> int:
        """Return the bytes that packs and index take."""
        packs = 0
        for number in self.packs.numbers():
            with suppress(FileNotFoundError):  # it was replaced just now
                packs += os.stat(self.packs.path(number)).st_size
        return packs + self.index.size()

    def refresh(self) -> None:
        """Notice packs that were put in the place of others since; cheap where there are none."""
        if self.packs.drop_replaced():
            self.blobs.forget()

    def followed(self) -> "Store | None":
        """Return the same with the index of now, if another one lies in its place; of an earlier state its own stays.

        Whoever is in the middle of something goes on with this one, which closes with the last of them.
        """
        if not self.live.replaced():
            self.refresh()
            return None
        return Store(self.root, self._above, earlier=None if self.live is self.index else self.index)

    def close(self) -> None:
        """Close everything."""
        self.blobs.close()
        self.index.close()
        if self.live is not self.index:
            self.live.close()
        self.packs.close()


def _place(txn: Transaction, table: Table, seq: int) -> CommitPlace:
    value = txn.get(KEY.pack(seq), db=table)
    if value is None:
        raise Damaged(f"the index does not know commit {seq}; run 'dicomfs reindex'")
    return CommitPlace.decode(seq, value)


def _unknown(blob: BlobId) -> Damaged:
    return Damaged(f"the index does not know blob {blob.hex()}; run 'dicomfs check'")


def _damaged(what: str) -> Damaged:
    return Damaged(f"the index has a damaged record {what}; run 'dicomfs reindex'")
