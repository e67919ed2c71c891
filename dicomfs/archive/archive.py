"""An archive open for reading."""

import json
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar
from weakref import WeakValueDictionary

import zstandard

from dicomfs.archive import settings as settings_file
from dicomfs.archive import tables
from dicomfs.archive.catalog import View
from dicomfs.archive.outcome import OnProgress
from dicomfs.archive.reading import file_inode
from dicomfs.archive.settings import Settings
from dicomfs.errors import ArchiveMissing, Damaged, NotFound, StorageFull, UsageError
from dicomfs.store.assembled import AssembledFile, Locate
from dicomfs.store.blobs import BlobReader
from dicomfs.store.packs import PackGone
from dicomfs.store.recipe import BlobId, Recipe
from dicomfs.store.store import CommitPlace, Store

if TYPE_CHECKING:
    from dicomfs.archive.as_of import AsOf
    from dicomfs.archive.earlier import Earlier

NO_BASE: Final = bytes(32)
MAX_HEADER: Final = 1 << 28
"""No header (recipe and literal bytes) is longer than this; a declared length beyond it is damage."""
MAX_READY: Final = 1 << 18
"""A header or base of up to this length is read and decoded where it is asked for, in less than a millisecond."""
_BASES_BYTES: Final = 64 << 20
_DECOMPRESSOR: Final = 20 << 10
"""What zstd keeps for each base besides it, measured: more than most bases are long."""

InstanceFile = AssembledFile
_Read = TypeVar("_Read")


class _Base(NamedTuple):
    """What the headers of a series are compressed against; both parts are None for those that stand alone."""

    size: int
    """How much memory it takes."""
    dictionary: zstandard.ZstdCompressionDict | None
    decompressor: zstandard.ZstdDecompressor
    """For short headers, under the lock; a long one is not waited for, so it gets one of its own."""


class Archive:
    """One archive, read only. May be shared by threads; one in a process for each archive."""

    def __init__(self, path: Path, settings: Settings, store: Store, earlier: "Earlier | None" = None) -> None:
        """Read what a store holds; `earlier` is the earlier state that its index is of, if it is of one."""
        self.path = path
        self.settings = settings
        self._store = store
        self._earlier = earlier
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._untold = False
        """Whether somebody who lacked a pack opened another index, of which `refresh` did not tell yet."""
        self._bases: OrderedDict[bytes, _Base] = OrderedDict()
        self._bases_bytes = 0
        # A large recipe is in memory once, however many have the file open.
        self._open: WeakValueDictionary[bytes, InstanceFile] = WeakValueDictionary()

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
            # Patients' data are nobody else's business; a directory that is there stays as open as it is.
            if not path.exists():
                path.mkdir(parents=True)
                path.chmod(0o700)
            for name in ("packs", "index", "cache", "quarantine", "runs"):
                (path / name).mkdir(exist_ok=True)
                (path / name).chmod(0o700)
            Store(path, tables.TABLES, writable=True).close()
            settings_file.write(path, codec)
        except OSError as error:
            raise StorageFull(f"{path}: cannot make an archive there ({error.strerror})") from error

    @classmethod
    def open(cls, path: Path, as_of: "AsOf | None" = None, on_progress: OnProgress | None = None) -> "Archive":
        """Open an archive; raise ArchiveMissing where there is none, Damaged where its index is.

        With `as_of` it is as it was at that moment, and stays so whatever is committed. That state may have to be
        made first, of which `on_progress` is told; raises Refused where the moment was forgotten, and StorageFull.
        """
        settings = settings_file.read(path)
        if as_of is None:
            return cls(path, settings, Store(path, tables.TABLES))
        from dicomfs.archive.earlier import Earlier

        earlier, store = Earlier.open(path, as_of, on_progress)
        return cls(path, settings, store, earlier)

    @classmethod
    def open_state(cls, path: Path, state: Path) -> "Archive":
        """Open an archive in the state in a directory (`state`) that another process, which uses it, sees to."""
        from dicomfs.archive.earlier import Earlier

        earlier, store = Earlier.given(path, state)
        return cls(path, settings_file.read(path), store, earlier)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def store(self) -> Store:
        """The store below: for those who check it."""
        return self._store

    @property
    def as_of(self) -> "AsOf | None":
        """The moment of the state that is open; None: it is that of now, which changes."""
        return None if self._earlier is None else self._earlier.as_of

    @property
    def state(self) -> Path | None:
        """Where an earlier state lies, for processes that work for this one (`open_state`); `refresh` may move it."""
        return None if self._earlier is None else self._earlier.state.directory

    @property
    def cache(self) -> Path:
        """Where documents and pictures of this state are kept."""
        return self.path / "cache" if self._earlier is None else self._earlier.state.cache

    def view(self) -> "Viewing":
        """Give one state of the catalog, for as long as the `with` block lasts; never across an await."""
        return Viewing(self._store)

    def reading(self, read: Callable[[Store], _Read]) -> _Read:
        """Read something of the packs; once more where `gc` put others in the place of those that the index knew.

        What asks the index of `view` has no need of this: names and numbers stay the same.
        """
        while True:
            store = self._store
            try:
                return read(store)
            except PackGone:
                if self._renewed(store.blobs) is None:
                    raise

    def open_instance(self, ino: int) -> InstanceFile:
        """Open the file of an instance, or one derived from it; raise NotFound, or Damaged where its header is."""
        return self.reading(partial(self._open_instance, ino))

    def _open_instance(self, ino: int, store: Store) -> InstanceFile:
        inode, place = _find_header(store, ino)
        found = self._open.get(_open_key(inode))
        if found is None:
            body = store.read_body(place, inode.body_offset, inode.body_length)
            found = self._open.setdefault(_open_key(inode), self._assemble(store, body, inode.base))
        return found

    def open_instance_ready(self, ino: int) -> InstanceFile | None:
        """Open an instance's file if its header is in memory and short, else return None. For one thread only."""
        store = self._store
        inode, place = _find_header(store, ino)
        found = self._open.get(_open_key(inode))
        if found is not None:
            return found
        if inode.body_length > MAX_READY:
            return None
        try:
            body = store.body_ready(place, inode.body_offset, inode.body_length)
            if body is None or _header_length(body) > MAX_READY or not self._base_ready(store, inode.base):
                return None
            return self._open.setdefault(_open_key(inode), self._assemble(store, body, inode.base))
        except PackGone:
            return None  # which `open_instance` goes on from

    def read_header(self, ino: int) -> bytes:
        """Return the header of an instance or derived file: the recipe's length, the recipe, the literal bytes."""
        return self.reading(partial(self._read_header, ino))

    def _read_header(self, ino: int, store: Store) -> bytes:
        inode, place = _find_header(store, ino)
        body = store.read_body(place, inode.body_offset, inode.body_length)
        return self._decompress(store, body, inode.base)

    def _base_ready(self, store: Store, base: bytes) -> bool:
        if base == NO_BASE or base in self._bases:
            return True
        (location,) = store.find([BlobId(base)])
        if location is None:
            return True  # which opening it will find out
        if location.length > MAX_READY:
            return False
        return store.packs.open(location.pack).resident(location.offset, location.stored) is not None

    def _assemble(self, store: Store, body: bytes | memoryview, base: bytes) -> InstanceFile:
        """Return the file whose header (recipe and literal bytes, compressed) this is."""
        header = memoryview(self._decompress(store, body, base))
        if len(header) < 4:
            raise Damaged("a header is cut off")
        length = int.from_bytes(header[:4], "little")
        recipe = Recipe(header[4 : 4 + length])
        return AssembledFile(recipe, header[4 + length :], store.blobs, store.find, self._renewed)

    def _decompress(self, store: Store, body: bytes | memoryview, base: bytes) -> bytes:
        length = _header_length(body)
        held = self._base(store, base)
        try:
            if length > MAX_READY:
                decompressor = zstandard.ZstdDecompressor(dict_data=held.dictionary)
                header: bytes = decompressor.decompress(body, max_output_size=length)
            else:
                with self._lock:
                    header = held.decompressor.decompress(body, max_output_size=length)
        except zstandard.ZstdError as error:
            raise Damaged(f"a header does not decode: {error}") from error
        return header

    def _base(self, store: Store, base: bytes) -> _Base:
        with self._lock:
            found = self._bases.get(base)
            if found is not None:
                self._bases.move_to_end(base)
                return found
        # Read without the lock: others go on with the bases they have while this one waits for its disk.
        found = _load_base(store, base)
        with self._lock:
            if base not in self._bases:
                self._bases[base] = found
                self._bases_bytes += found.size
            while self._bases_bytes > _BASES_BYTES and len(self._bases) > 1:
                _, old = self._bases.popitem(last=False)
                self._bases_bytes -= old.size
        return found

    def refresh(self) -> bool:
        """Open the index anew if `reindex` or `gc` put another one in its place; say whether it did.

        That of an earlier state is made anew by a thread, if that is necessary, and the old one is used meanwhile.
        Files that are open stay so, though their packs be replaced.
        """
        with self._refreshing:
            told = self._follow() or self._untold
            self._untold = False
            if self._earlier is None:
                return told
            # What an earlier state shows does not depend on where blobs and headers lie now.
            store = self._earlier.refresh(self._store)
            if store is not None:
                self._take(store)
            return store is not None

    def _follow(self) -> bool:
        """Read by the index of now if that is another one; say whether it is."""
        store = self._store.followed()
        if store is not None:
            self._take(store)
        return store is not None

    def _take(self, store: Store) -> None:
        # Files that are open and threads in the middle of something go on with the old store, which closes
        # with the last of them.
        with self._lock:
            self._store = store
            self._bases.clear()
            self._bases_bytes = 0
            self._open.clear()

    def _renewed(self, blobs: BlobReader) -> tuple[BlobReader, Locate] | None:
        """Return what reads blobs in the place of a reader that lacks a pack; None where that is the latest."""
        with self._refreshing:
            if self._store.blobs is blobs:
                if not self._follow():
                    return None
                self._untold = True
            store = self._store
        return store.blobs, store.find

    def release(self) -> None:
        """Let an earlier state be removed; files that are open stay so."""
        if self._earlier is not None:
            self._earlier.release()

    def close(self) -> None:
        """Close the archive; files that are open become unusable."""
        self.release()
        self._store.close()


def _find_header(store: Store, ino: int) -> tuple[tables.InstanceInode, CommitPlace]:
    """Return where a header lies now: `gc` moves those of earlier states, too, and may compress them anew."""
    live = store.live
    if live is not store.index:
        with store.index.reading() as txn:
            View(store, txn).file_inode(ino)
    with live.reading() as txn:
        try:
            inode = file_inode(txn, live.tables["inode"], ino)
        except NotFound:
            if live is store.index:
                raise
            raise Damaged(f"inode {ino}: it is not in the archive any more; it was forgotten, or lost") from None
        return inode, store.place_now(txn, inode.seq)


def _open_key(inode: tables.InstanceInode) -> bytes:
    """Return what two files that are open share if they are the same: of derived ones the header's hash is known."""
    return inode.sha256 if inode.kind == tables.INSTANCE else b"derived " + inode.sha256


def _load_base(store: Store, base: bytes) -> _Base:
    if base == NO_BASE:
        return _Base(0, None, zstandard.ZstdDecompressor())
    data = bytes(store.blobs.whole(store.find_one(BlobId(base))))
    dictionary = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return _Base(len(data) + _DECOMPRESSOR, dictionary, zstandard.ZstdDecompressor(dict_data=dictionary))


def _header_length(body: bytes | memoryview) -> int:
    """Return how long a compressed header (recipe and literal bytes) will be."""
    try:
        length: int = zstandard.frame_content_size(bytes(body[:18]))
    except zstandard.ZstdError as error:
        raise Damaged(f"a header does not decode: {error}") from error
    if not 0 <= length <= MAX_HEADER:
        raise Damaged("a header claims an impossible length")
    return length


_MALFORMED: Final = (struct.error, json.JSONDecodeError, UnicodeDecodeError)
"""What reading a record of the catalog ends in when it is not as we wrote it."""


class Viewing(View):
    """A view that lasts as long as a `with` block: made for every metadata request, so it is lean."""

    __slots__ = ()

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables = store.index.tables

    def __enter__(self) -> View:
        self._txn = self._store.index.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._txn.abort()
        if error is not None and isinstance(error, _MALFORMED):
            raise Damaged("the index has a damaged record; run 'dicomfs reindex'") from error


def require(path: Path) -> Settings:
    """Return the settings of the archive at `path`, or raise ArchiveMissing."""
    settings = settings_file.read(path)
    if not (path / "packs").is_dir():
        raise ArchiveMissing(f"{path}: packs/ is missing; bring it back from a copy of the archive")
    return settings
