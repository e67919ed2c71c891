"""An archive open for reading."""

import json
import os
import struct
import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import zstandard

from dicomfs.archive import settings as settings_file
from dicomfs.archive import tables
from dicomfs.archive.catalog import View
from dicomfs.archive.settings import Settings
from dicomfs.errors import ArchiveMissing, Damaged, StorageFull, UsageError
from dicomfs.store import location as locations
from dicomfs.store.assembled import AssembledFile
from dicomfs.store.location import Location
from dicomfs.store.recipe import BlobId, Recipe
from dicomfs.store.store import CommitPlace, Store

NO_BASE: Final = bytes(32)
MAX_HEADER: Final = 1 << 28
"""No header (recipe and literal bytes) is longer than this; a declared length beyond it is damage."""
_BASES_BYTES: Final = 64 << 20

InstanceFile = AssembledFile


class Archive:
    """One archive, read only. May be shared by threads; one in a process for each archive."""

    def __init__(self, path: Path, settings: Settings, store: Store) -> None:
        self.path = path
        self.settings = settings
        self._store = store
        self._lock = threading.Lock()
        self._bases: OrderedDict[bytes, tuple[int, zstandard.ZstdDecompressor]] = OrderedDict()
        self._bases_bytes = 0

    @staticmethod
    def init(path: Path, *, codec: str = "fast", force: bool = False) -> None:
        """Make an empty archive; in a directory that is not empty only with `force`, which removes nothing."""
        settings_file.require_codec(codec)
        if (path / settings_file.FILE).exists():
            raise UsageError(f"{path}: is a dicomfs archive already")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: is not a directory")
        if path.exists() and not force and any(path.iterdir()):
            raise UsageError(f"{path}: is not empty; name another directory, or use --force to make the archive there")
        try:
            for name in ("packs", "index", "cache", "quarantine", "runs"):
                (path / name).mkdir(parents=True, exist_ok=True)
            os.chmod(path / "quarantine", 0o700)
            os.chmod(path / "runs", 0o700)
            Store(path, tables.TABLES, writable=True).close()
            settings_file.write(path, codec)
        except OSError as error:
            raise StorageFull(f"{path}: cannot make an archive there ({error.strerror})") from error

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Open an archive; raise ArchiveMissing where there is none, Damaged where its index is."""
        settings = settings_file.read(path)
        return cls(path, settings, Store(path, tables.TABLES))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def store(self) -> Store:
        """The store below: for those who check it."""
        return self._store

    def view(self) -> "Viewing":
        """Give one state of the catalog, for as long as the `with` block lasts; never across an await."""
        return Viewing(self._store)

    def open_instance(self, ino: int) -> InstanceFile:
        """Open an instance's file; raise NotFound, or Damaged where its header cannot be had."""
        inode, place = self._find_header(ino)
        body = self._store.read_body(place, inode.body_offset, inode.body_length)
        return self._assemble(body, inode.base)

    def open_instance_ready(self, ino: int) -> InstanceFile | None:
        """Open an instance's file if its header is in memory, else return None. For one thread only."""
        inode, place = self._find_header(ino)
        body = self._store.body_ready(place, inode.body_offset, inode.body_length)
        if body is None or not self._base_ready(inode.base):
            return None
        return self._assemble(body, inode.base)

    def _find_header(self, ino: int) -> tuple[tables.InstanceInode, CommitPlace]:
        store = self._store
        with store.index.reading() as txn:
            inode = View(store, txn).instance_inode(ino)
            return inode, store.commit_place(txn, inode.seq)

    def _base_ready(self, base: bytes) -> bool:
        if base == NO_BASE or base in self._bases:
            return True
        (location,) = self._locate([BlobId(base)])
        if location is None:
            return True  # which opening it will find out
        return self._store.packs.open(location.pack).resident(location.offset, location.stored) is not None

    def _assemble(self, body: bytes | memoryview, base: bytes) -> InstanceFile:
        """Return the file whose header (recipe and literal bytes, compressed) this is."""
        header = memoryview(self._decompress(body, base))
        if len(header) < 4:
            raise Damaged("a header is cut off")
        length = int.from_bytes(header[:4], "little")
        recipe = Recipe(header[4 : 4 + length])
        return AssembledFile(recipe, header[4 + length :], self._store.blobs, self._locate)

    def _decompress(self, body: bytes | memoryview, base: bytes) -> bytes:
        try:
            length = zstandard.frame_content_size(bytes(body[:18]))
            if not 0 <= length <= MAX_HEADER:
                raise Damaged("a header claims an impossible length")
            with self._lock:
                decompressor = self._base(base)
                header: bytes = decompressor.decompress(body, max_output_size=length)
        except zstandard.ZstdError as error:
            raise Damaged(f"a header does not decode: {error}") from error
        return header

    def _base(self, base: bytes) -> zstandard.ZstdDecompressor:
        found = self._bases.get(base)
        if found is not None:
            self._bases.move_to_end(base)
            return found[1]
        size = 0
        if base == NO_BASE:
            decompressor = zstandard.ZstdDecompressor()
        else:
            store = self._store
            with store.index.reading() as txn:
                location = store.locate(txn, BlobId(base))
            data = bytes(store.blobs.whole(location))
            size = len(data)
            dictionary = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
        self._bases[base] = (size, decompressor)
        self._bases_bytes += size
        while self._bases_bytes > _BASES_BYTES and len(self._bases) > 1:
            _, (old, _) = self._bases.popitem(last=False)
            self._bases_bytes -= old
        return decompressor

    def _locate(self, blobs: list[BlobId]) -> list[Location | None]:
        store = self._store
        with store.index.reading() as txn:
            values = [txn.get(blob, db=store.blob_table) for blob in blobs]
        return [None if value is None else locations.decode(value) for value in values]

    def refresh(self) -> bool:
        """Open the index anew if `reindex` put another one in its place; say whether it did.

        Files that are open stay so: the packs are the same.
        """
        if not self._store.index.replaced():
            return False
        # Threads that are in the middle of something go on with the old store, whose index closes with it.
        self._store = Store(self.path, tables.TABLES, like=self._store)
        return True

    def close(self) -> None:
        """Close the archive; files that are open become unusable."""
        self._store.close()


_MALFORMED: Final = (struct.error, json.JSONDecodeError, UnicodeDecodeError)
"""What reading a record of the catalog ends in when it is not as we wrote it."""


class Viewing:
    """A read transaction on the catalog as a context manager: made for every metadata request, so it is lean."""

    __slots__ = ("_reading", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> View:
        self._reading = self._store.index.reading()
        return View(self._store, self._reading.__enter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.__exit__(kind, error, trace)
        if isinstance(error, _MALFORMED):
            raise Damaged("the index has a damaged record; run 'dicomfs reindex'") from error


def require(path: Path) -> Settings:
    """Return the settings of the archive at `path`, or raise ArchiveMissing."""
    settings = settings_file.read(path)
    if not (path / "packs").is_dir():
        raise ArchiveMissing(f"{path}: packs/ is missing; bring it back from a copy of the archive")
    return settings
