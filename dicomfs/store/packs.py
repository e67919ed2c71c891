"""Where packs lie: the small interface through which the store reaches their bytes.

A pack is an immutable object with a number: list them, create one, read a range. Nothing above
this module knows that they are files of one directory.
"""

import ctypes
import errno
import mmap
import os
import threading
from pathlib import Path
from typing import Final

from dicomfs.errors import Damaged, Refused
from dicomfs.store import intent
from dicomfs.store.intent import Replacement

OPEN_PACKS: Final = 256
"""How many packs are kept open: file descriptors are scarce (1,024 by default)."""
_PAGE: Final = mmap.PAGESIZE
_REFUSALS: Final = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What says nothing of the pack itself."""


class PackGone(Damaged):
    """A pack is not there: replaced by others, which the index then knows, or lost."""


class PackFile:
    """One pack open for reading, until the last reference is gone. May be shared by threads; `resident` by one."""

    def __init__(self, path: Path, number: int) -> None:
        self.number = number
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise PackGone(f"{path}: the pack is missing; bring it back from a copy of the archive") from error
        except OSError as error:
            if error.errno in _REFUSALS:
                raise Refused(f"{path}: the pack cannot be opened ({error.strerror})") from error
            raise Damaged(f"{path}: the pack cannot be read ({error.strerror})") from error
        self.path = path
        self._mincore_tells = _mincore_tells(self.fd, path)
        self._map: mmap.mmap | None = None
        self._view = memoryview(b"")
        self._address = 0
        self._mapped = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly these bytes; wait for the disk. Raise Damaged where they are not there."""
        try:
            data = os.pread(self.fd, length, offset)
            while len(data) < length:
                more = os.pread(self.fd, length - len(data), offset + len(data))
                if not more:
                    raise Damaged(f"{self.path.name}: the pack ends at {offset + len(data)}: it was cut off")
                data += more
        except OSError as error:
            raise Damaged(f"{self.path.name}: cannot read at {offset} ({error.strerror})") from error
        return data

    def resident(self, offset: int, length: int) -> memoryview | None:
        """Return these bytes if they are in the page cache, else None: where possible without a copy. Never waits.

        Pages past the end of a pack that got shorter than its mapping are not in memory, so they are never
        touched, which would be SIGBUS.
        """
        if not self._mincore_tells:
            return self._copied(offset, length)
        end = offset + length
        if end > self._mapped and not self._remap(end):
            return None
        first = offset // _PAGE
        pages = (end - 1) // _PAGE - first + 1
        if pages > _RESIDENCY_PAGES or _mincore(self._address + first * _PAGE, pages * _PAGE, _residency):
            return None
        if _residency_bytes.find(b"\0", 0, pages) >= 0:
            return None
        return self._view[offset:end]

    def _copied(self, offset: int, length: int) -> memoryview | None:
        buffer = memoryview(bytearray(length))
        try:
            got = os.preadv(self.fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: a filesystem that cannot tell
            return None
        return buffer if got == length else None

    def _remap(self, end: int) -> bool:
        size = os.fstat(self.fd).st_size
        if end > size:
            return False
        self._map = mmap.mmap(self.fd, size, prot=mmap.PROT_READ)
        self._map.madvise(mmap.MADV_RANDOM)
        self._view = memoryview(self._map)
        self._address = _address_of(self._map)
        self._mapped = size
        return True

    def replaced(self) -> bool:
        """Say whether another file lies in this one's place."""
        try:
            return not os.path.samestat(os.fstat(self.fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def size(self) -> int:
        """Return the length of the file."""
        return os.fstat(self.fd).st_size

    def __del__(self) -> None:
        # Views of the mapping that were handed out stay valid.
        if hasattr(self, "fd"):
            os.close(self.fd)


class PackDirectory:
    """The packs of one archive. May be shared by threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: dict[int, PackFile] = {}  # at most OPEN_PACKS, the one opened first in front
        self._lock = threading.Lock()
        self._changed_ns = 0
        self.left_out: frozenset[int] | None = None
        """Packs that are taken for not there; None: what is said of packs that replace others counts."""
        self._coming: frozenset[int] = frozenset()

    def path(self, number: int) -> Path:
        """Return the place of a pack."""
        return self.coming_path(number) if number in self._coming else self.directory / f"{number:08d}.zip"

    def coming_path(self, number: int) -> Path:
        """Return the place of a pack while it is being made to replace others."""
        return self.directory / f"{number:08d}.zip{intent.COMING}"

    def numbers(self) -> list[int]:
        """Return the numbers of all packs that exist, ascending; of packs that replace others either these or those."""
        names = os.listdir(self.directory)
        found = {int(name[:-4]) for name in names if name.endswith(".zip") and name[:-4].isdigit()}
        left_out = self.left_out
        if left_out is None:
            told = intent.read(self.directory) if intent.NAME in names else None
            left_out = frozenset() if told is None else frozenset(told.go if found.issuperset(told.come) else told.come)
        return sorted(found - left_out | self._coming)

    def look_ahead(self, replacement: Replacement) -> None:
        """Take packs for replaced that are going to be: those that come lie under the names that they have now."""
        self.left_out, self._coming = frozenset(replacement.go), frozenset(replacement.come)

    def open(self, number: int) -> PackFile:
        """Return the pack open for reading; raise Damaged where it is missing."""
        found = self._open.get(number)
        if found is not None:
            return found
        with self._lock:
            found = self._open.get(number)
            if found is None:
                found = self._open[number] = PackFile(self.path(number), number)
                if len(self._open) > OPEN_PACKS:
                    # Whoever is reading from it holds it open until the read is over.
                    self._open.pop(next(iter(self._open)))
            return found

    def drop_replaced(self) -> bool:
        """Close packs that have another file in their place now; say whether there were any. One stat mostly."""
        changed_ns = os.stat(self.directory).st_mtime_ns
        if changed_ns == self._changed_ns:
            return False
        self._changed_ns = changed_ns
        with self._lock:
            replaced = [number for number, pack in self._open.items() if pack.replaced()]
            for number in replaced:
                del self._open[number]
        return bool(replaced)

    def create(self, number: int, *, coming: bool = False) -> int:
        """Make an empty pack whose name survives a crash, for whoever may enter packs/; return it open for writing.

        One that is `coming` has a name that is no pack's yet.
        """
        path = self.coming_path(number) if coming else self.path(number)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600 | os.stat(self.directory).st_mode & 0o666)
        self.sync_names()
        return fd

    def reopen(self, number: int) -> int:
        """Return an unsealed pack open for writing."""
        return os.open(self.path(number), os.O_RDWR | os.O_CLOEXEC)

    def remove(self, number: int) -> None:
        """Remove a pack that holds nothing."""
        with self._lock:
            self._open.pop(number, None)
        os.unlink(self.path(number))

    def sync_names(self) -> None:
        """Bring the directory itself to the disk."""
        intent.sync_directory(self.directory)

    def close(self) -> None:
        """Close every pack that nobody is reading from; the others close when they are done."""
        with self._lock:
            self._open.clear()


class _PyBuffer(ctypes.Structure):
    """Py_buffer of Python's stable ABI (https://docs.python.org/3/c-api/buffer.html)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _address_of(mapping: mmap.mmap) -> int:
    """Return where a read-only mapping lies: ctypes itself only tells that of writable ones."""
    buffer = _PyBuffer()
    api = ctypes.pythonapi
    api.PyObject_GetBuffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
    api.PyBuffer_Release.argtypes = (ctypes.POINTER(_PyBuffer),)
    api.PyObject_GetBuffer(mapping, ctypes.byref(buffer), 0)
    address: int = buffer.buf
    api.PyBuffer_Release(ctypes.byref(buffer))
    return address


def _mincore_tells(fd: int, path: Path) -> bool:
    """Say whether mincore(2) tells us what is in memory: those who neither own a file nor may write it hear 1 of all.

    Linux does so since 5.2, lest they spy on what others read.
    """
    return os.fstat(fd).st_uid == os.geteuid() or os.access(path, os.W_OK, effective_ids=True)


_libc = ctypes.CDLL(None, use_errno=True)
_mincore = _libc.mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_RESIDENCY_PAGES: Final = 8192
_residency_bytes = bytearray(_RESIDENCY_PAGES)
_residency = ctypes.addressof((ctypes.c_char * _RESIDENCY_PAGES).from_buffer(_residency_bytes))
