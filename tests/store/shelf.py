"""A store of its own for the tests of this layer: blobs, commits, and one table above that notes the commits."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, NamedTuple

from isal.isal_zlib import crc32

from dicomfs.store import codec as codecs
from dicomfs.store.location import Location
from dicomfs.store.recipe import BlobId
from dicomfs.store.recovery import Recovered, recover
from dicomfs.store.store import KEY, Store
from dicomfs.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from dicomfs.store.index import Transaction

TABLES = ("note",)
"""The layer above, in these tests: commit number -> its metadata and its time."""

Dump = dict[str, dict[bytes, bytes]]


class Coded(NamedTuple):
    """A blob as a worker hands it over."""

    blob: BlobId
    codec: int
    length: int
    stored: bytes
    checks: codecs.Checks


def coded(data: bytes, width: int | None = None) -> Coded:
    """Return a blob: plain for no width, else compressed as samples of this many bytes."""
    codec, stored, checks = codecs.plain(data) if width is None else codecs.encode(data, width)
    return Coded(BlobId(hashlib.sha256(data).digest()), codec, len(data), bytes(stored), checks)


def make(root: Path) -> Path:
    """Make an empty store."""
    (root / "packs").mkdir(parents=True)
    (root / "index").mkdir()
    Store(root, TABLES, writable=True).close()
    return root


def note(store: Store, txn: Transaction, seq: int, time_ns: int, meta: bytes) -> None:
    """Do what the layer above does with a commit."""
    txn.put(KEY.pack(seq), KEY.pack(time_ns) + meta, db=store.index.tables["note"])


def open_healed(root: Path) -> tuple[Store, Recovered]:
    """Open a store for writing, as an import does."""
    store = Store(root, TABLES, writable=True)
    try:
        return store, recover(store, lambda *commit: note(store, *commit))
    except BaseException:
        store.close()
        raise


def commit(store: Store, writer: Writer, blobs: Iterable[Coded], meta: bytes, body: bytes = b"") -> int:
    """Make one commit."""
    for blob, codec, length, stored, checks in blobs:
        writer.add_blob(blob, codec, length, stored, crc32(stored), checks)
    if body:
        writer.add_body(body)
    time_ns = 1_700_000_000_000_000_000 + writer.seq
    note(store, writer.txn, writer.seq, time_ns, meta)
    return writer.commit(meta, time_ns)


def fill(root: Path, commits: Iterable[tuple[bytes, Iterable[Coded]]]) -> None:
    """Make commits and seal the pack."""
    store, _ = open_healed(root)
    writer = Writer(store)
    for meta, blobs in commits:
        commit(store, writer, blobs, meta, meta)
    writer.close()
    store.close()


def dump(store: Store) -> Dump:
    """Return every table, but for what the index knows of packs."""
    found: Dump = {}
    with store.index.reading() as txn:
        for name, table in store.index.tables.items():
            cursor = txn.cursor(db=table)
            found[name] = dict(cursor.iternext()) if cursor.first() and name != "pack" else {}
    return found


def locations(store: Store, blobs: Iterable[Coded]) -> dict[BlobId, Location]:
    """Return where blobs lie."""
    with store.index.reading() as txn:
        return {one.blob: store.locate(txn, one.blob) for one in blobs}


def read_all(store: Store, blobs: Mapping[BlobId, Location]) -> dict[BlobId, bytes]:
    """Return the bytes of blobs."""
    return {blob: bytes(store.blobs.whole(at)) for blob, at in blobs.items()}


def pack_path(root: Path, number: int = 1) -> Path:
    """Return the place of a pack."""
    return root / "packs" / f"{number:08d}.zip"


def copy(root: Path, to: Path) -> Path:
    """Copy a store, whatever state it is in."""
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(root, to)
