"""The LMDB environment that serves as index: the only door to lmdb.

Everything in it can be rebuilt from the packs. Keys hold integers big endian, so that they sort.
Read transactions are short, nested in one function, and never held across an await; the map is
1 TiB from the start (sparse: it costs no disk), so that no process ever has to enlarge it.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Final, NewType, Protocol, cast

from dicomfs.errors import ArchiveMissing, Damaged, DicomfsError, Refused, StorageFull

if TYPE_CHECKING:
    import lmdb

MAP_SIZE: Final = 1 << 40
_READERS: Final = 512
_LOCK_BYTES: Final = 192 + 64 * (_READERS - 1)
"""What LMDB 0.9 makes lock.mdb: its head with one reader, and the others (mdb.c: MDB_txninfo, MDB_reader)."""
ENGINE: Final = 0
"""The 0.9 engine of py-lmdb 3: data format 1."""


Table = NewType("Table", object)
"""A named table of the index; opaque."""

_FULL_BYTES: Final = 1 << 20
"""A disk with less room than this is taken for full: an LMDB commit writes many pages."""


class Cursor(Protocol):
    """A position in one table."""

    def set_range(self, key: bytes) -> bool: ...
    def first(self) -> bool: ...
    def last(self) -> bool: ...
    def next(self) -> bool: ...
    def key(self) -> bytes: ...
    def value(self) -> bytes: ...
    def item(self) -> tuple[bytes, bytes]: ...
    def iternext(self, keys: bool = True, values: bool = True) -> Iterator[tuple[bytes, bytes]]: ...


class Transaction(Protocol):
    """What a transaction of the index offers: py-lmdb's own object, called without a wrapper."""

    def get(self, key: bytes, default: None = None, db: Table | None = None) -> bytes | None: ...
    def put(
        self,
        key: bytes,
        value: bytes,
        dupdata: bool = True,
        overwrite: bool = True,
        append: bool = False,
        db: Table | None = None,
    ) -> bool: ...
    def delete(self, key: bytes, value: bytes = b"", db: Table | None = None) -> bool: ...
    def cursor(self, db: Table | None = None) -> Cursor: ...
    def stat(self, db: Table) -> Mapping[str, int]: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...


class Index:
    """One open environment: many readers in many processes, one writer. May be shared by threads."""

    def __init__(
        self, directory: Path, tables: Sequence[str], *, writable: bool, durable: bool = True, fixed: bool = False
    ) -> None:
        """Open the index; a writable one is made where there is none, with all its tables.

        One that is not `durable` is on the disk only after `sync`; one that is `fixed` is never written to again, by
        anybody, so that its readers need not announce themselves.
        """
        import lmdb

        if not writable and not (directory / "data.mdb").exists():
            raise ArchiveMissing(
                f"{directory}: the index is missing; run 'dicomfs reindex' to rebuild it from the packs"
            )
        self.directory = directory
        fresh = not (directory / "data.mdb").exists()
        _refuse_cut(directory / "data.mdb")
        try:
            self._env = self._open(directory, len(tables), writable=writable, durable=durable, fixed=fixed)
            self._page_bytes: int = self._env.stat()["psize"]
            self.tables: dict[str, Table] = {
                name: Table(self._env.open_db(name.encode(), create=writable)) for name in tables
            }
        except lmdb.NotFoundError as error:
            self._env.close()
            raise Damaged(f"{directory}: the index lacks a table; run 'dicomfs reindex'") from error
        except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError) as error:
            raise Damaged(f"{directory}: the index is damaged ({error}); run 'dicomfs reindex'") from error
        except lmdb.Error as error:
            raise _explain(error, directory) from error
        if fresh:
            _share_as(directory)
        self.file_number = _number(os.stat(directory / "data.mdb"))
        self.reading = cast(Callable[[], AbstractContextManager[Transaction]], self._env.begin)
        """Give a read transaction: one state of the index, for as long as the `with` block lasts."""
        if writable:
            self._env.reader_check()

    @staticmethod
    def _open(directory: Path, tables: int, *, writable: bool, durable: bool, fixed: bool) -> "lmdb.Environment":
        import lmdb

        def environment(*, lock: bool) -> lmdb.Environment:
            return lmdb.open(
                str(directory),
                map_size=MAP_SIZE,
                max_dbs=tables + 8,
                max_readers=_READERS,
                readonly=not writable,
                metasync=False,
                sync=durable,
                readahead=False,
                lock=lock,
                mode=0o600,
                lib_version=ENGINE,
            )

        if fixed:
            return environment(lock=False)
        _reserve_lock(directory)
        try:
            return environment(lock=True)
        except lmdb.Error as error:
            if writable:
                raise
            code = _errno(error)
            if code in (errno.EACCES, errno.EPERM):
                # Without its lock a reader could be given pages that a writer is using again.
                raise Refused(
                    f"{directory}: reading needs write access to lock.mdb, in which readers announce themselves; "
                    "ask the archive's owner for it"
                ) from error
            if code != errno.EROFS:
                raise
            # On a read-only disk there is no writer either, so nothing has to be locked.
            return environment(lock=False)

    def begin(self, *, write: bool = False) -> Transaction:
        """Begin a transaction; the caller commits or aborts it."""
        return cast("Transaction", self._env.begin(write=write))

    def commit(self, txn: Transaction) -> None:
        """Commit a transaction, and make the file as long as it then says it is.

        LMDB does not write a page at the end that it took and gave back in one transaction; with the file
        longer than that, one that is shorter was cut off.
        """
        with self.translated():
            txn.commit()
            length = (self._env.info()["last_pgno"] + 1) * self._page_bytes
        path = self.directory / "data.mdb"
        if os.stat(path).st_size < length:
            os.truncate(path, length)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn lmdb's errors inside the block into ours."""
        import lmdb

        try:
            yield
        except lmdb.Error as error:
            raise _explain(error, self.directory) from error

    def replaced(self) -> bool:
        """Say whether another environment now lies at this one's place (after a reindex)."""
        try:
            return _number(os.stat(self.directory / "data.mdb")) != self.file_number
        except FileNotFoundError:
            return False

    def size(self) -> int:
        """Return the bytes that the index takes on disk."""
        return os.stat(self.directory / "data.mdb").st_blocks * 512

    def sync(self) -> None:
        """Bring everything to the disk."""
        with self.translated():
            self._env.sync(True)

    def close(self) -> None:
        """Close the environment; no transaction may be open."""
        self._env.close()


_META = Struct("<16xII16xI92xQQ")
"""A meta page of LMDB 0.9 (lmdb.h, mdb.c): magic, version, size of a page, last page, number of the transaction."""
_MAGIC: Final = 0xBEEFC0DE


def _refuse_cut(path: Path) -> None:
    """Raise Damaged for an environment that was cut off: touching what is not there would end the process."""
    try:
        with path.open("rb") as file:
            first = file.read(_META.size).ljust(_META.size, b"\0")
            page = _META.unpack(first)[2]
            file.seek(page)
            second = file.read(_META.size).ljust(_META.size, b"\0")
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return  # which opening it will tell
    metas = [meta for meta in (_META.unpack(first), _META.unpack(second)) if meta[0] == _MAGIC]
    if metas and size < (max(metas, key=lambda meta: meta[4])[3] + 1) * page:
        raise Damaged(f"{path.parent}: the index is cut off; run 'dicomfs reindex'")


def _reserve_lock(directory: Path) -> None:
    """Make lock.mdb with all its blocks; LMDB writes to it by a map, where a full disk would end the process.

    Only one that is not there: whoever closes one that this process uses would let go of LMDB's locks on it.
    """
    try:
        fd = os.open(directory / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # it is there, or opening it will tell
    try:
        os.posix_fallocate(fd, 0, _LOCK_BYTES)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"{directory}: the disk is full; make room and run the command again") from error
    finally:
        os.close(fd)


def _share_as(directory: Path) -> None:
    """Let those use a new environment who may enter its directory: readers announce themselves in lock.mdb."""
    mode = 0o600 | os.stat(directory).st_mode & 0o666
    for name in ("data.mdb", "lock.mdb"):
        os.chmod(directory / name, mode)


def _number(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


_CODES: Final = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EIO,
    errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN,
)  # fmt: skip


def _errno(error: Exception) -> int:
    text = str(error)
    return next((code for code in _CODES if os.strerror(code) in text), 0)


def _is_full(directory: Path) -> bool:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize < _FULL_BYTES


def _explain(error: Exception, directory: Path) -> DicomfsError:
    import lmdb

    code = _errno(error)
    # LMDB tells a write that was cut short by a full disk as an input/output error.
    if code in (errno.ENOSPC, errno.EDQUOT) or (code == errno.EIO and _is_full(directory)):
        return StorageFull(f"{directory}: the disk is full; make room and run the command again")
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageFull(f"{directory}: the index may not be written ({os.strerror(code)})")
    if code in (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN):
        return Refused(f"{directory}: the system lacks the means to use the index ({os.strerror(code)})")
    if isinstance(error, lmdb.ReadersFullError):
        return Refused(f"{directory}: too many processes read the index at once; end some of them")
    if "already open" in str(error):
        return Refused(f"{directory}: this process has the index open already")
    if isinstance(error, lmdb.BadValsizeError):
        return Damaged("it holds a value that no index can hold")
    return Damaged(f"{directory}: the index cannot be used ({error}); run 'dicomfs reindex'")
