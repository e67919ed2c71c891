"""The directory that an export as static DICOMweb goes to: files appear whole, and those that are right stay.

    .dicomfs-export.json      which studies of which archive are there; nobody else's are touched
    .<name>.dicomfs-part      a file on its way

A document is written beside the one that is there, and takes its place if it differs. Of frames and values the time
and the length tell whether they are right; of gzip members the length of what they hold, which is at their end.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from dicomfs.archive import documents_gzip
from dicomfs.errors import Locked, UsageError
from dicomfs.export import FileResult, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dicomfs.archive.documents_gzip import Piece

STATE: Final = ".dicomfs-export.json"
_PART: Final = ".dicomfs-part"
_PIECE: Final = 1 << 20
_CHUNK: Final = 1 << 20
_STATE_AT_MOST: Final = 1 << 30
_LONGEST: Final = 1 << 28
"""No object of a list is longer."""
_END: Final = re.compile(r"[\s,\]]*")


class Expected(NamedTuple):
    """What tells that a file is there already; None where it is not looked at."""

    mtime_ns: int | None
    size: int | None = None
    unpacked: int | None = None
    """How many bytes its gzip member holds."""


class Target:
    """The directory. May be shared by threads that write different files; `opened` holds its lock."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, below: str) -> str:
        """Return the real path of what lies below the directory."""
        return os.path.join(self.root, below)

    def file(
        self, below: str, mtime_ns: int, expected: Expected, pieces: Callable[[], Iterable[bytes | memoryview]]
    ) -> FileResult:
        """Write a file unless it is there already, as `expected` tells; raise OSError."""
        size = self._there(below, expected)
        if size is not None:
            return FileResult(below, Outcome.PRESENT, "", size)
        part, size = self._part(below, pieces())
        self._appear(part, below, mtime_ns)
        return FileResult(below, Outcome.WRITTEN, "", size)

    def document(self, below: str, mtime_ns: int | None, pieces: Iterable[bytes | memoryview]) -> FileResult:
        """Write a document unless it is there byte for byte; raise OSError. Without a time it gets that of now."""
        part, size = self._part(below, pieces)
        try:
            same = _are_same(part, self.path(below))
        except BaseException:
            os.unlink(part)
            raise
        if same:
            os.unlink(part)
            return FileResult(below, Outcome.PRESENT, "", size)
        self._appear(part, below, mtime_ns)
        return FileResult(below, Outcome.WRITTEN, "", size)

    def _there(self, below: str, expected: Expected) -> int | None:
        """Return the size of a file that is as expected, None where there is none."""
        path = self.path(below)
        with suppress(FileNotFoundError):
            there = os.lstat(path)
            right = expected.mtime_ns in (None, there.st_mtime_ns) and expected.size in (None, there.st_size)
            if right and (expected.unpacked is None or _unpacked(path) == expected.unpacked & 0xFFFFFFFF):
                return there.st_size
        return None

    def _part(self, below: str, pieces: Iterable[bytes | memoryview]) -> tuple[str, int]:
        directory, name = os.path.split(self.path(below))
        os.makedirs(directory, exist_ok=True)
        part = os.path.join(directory, f".{name}{_PART}")
        size = 0
        try:
            with open(part, "wb", opener=_opener) as file:
                for piece in pieces:
                    size += file.write(piece)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise
        return part, size

    def _appear(self, part: str, below: str, mtime_ns: int | None) -> None:
        try:
            if mtime_ns is not None:
                os.utime(part, ns=(mtime_ns, mtime_ns))
            os.replace(part, self.path(below))
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise

    def names(self, below: str) -> list[str]:
        """Return the names in a directory, none where there is none."""
        try:
            return sorted(os.listdir(self.path(below)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def is_directory(self, below: str) -> bool:
        """Say whether something is a directory, and no link to one."""
        path = self.path(below)
        return os.path.isdir(path) and not os.path.islink(path)

    def remove(self, below: str) -> FileResult:
        """Remove a file, or a directory with all that is in it; raise OSError."""
        path = self.path(below)
        try:
            os.unlink(path)
        except IsADirectoryError:
            shutil.rmtree(path)
        return FileResult(below, Outcome.REMOVED, "", 0)

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """Make the directory and keep other exports out of it; raise Locked, or OSError."""
        os.makedirs(self.root, exist_ok=True)
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Locked(f"{self.root}: another export is writing there; run this one when it is done") from None
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
            yield self
        finally:
            os.close(fd)


class Claims:
    """Which studies of which archive are in a target. Belongs to one thread."""

    def __init__(self, target: Target, archive_id: str) -> None:
        """Read them; raise UsageError where the file that tells is no longer what it was."""
        self._target = target
        path = target.path(STATE)
        held: object = {}
        try:
            with open(path, encoding="utf-8") as file:
                held = json.loads(file.read(_STATE_AT_MOST))
        except FileNotFoundError:
            pass
        except ValueError:
            held = None
        if not isinstance(held, dict) or not all(isinstance(names, list) for names in held.values()):
            raise UsageError(f"{path}: is not what an export writes there; export to an empty directory")
        self._others = {str(name) for archive, names in held.items() if archive != archive_id for name in names}
        self._held = held
        self._archive_id = archive_id
        self.own = {str(name) for name in held.get(archive_id, [])}
        """Names of the directories of this archive's studies."""

    def claim(self, name: str) -> bool:
        """Say whether a study's directory is this archive's: because it was, or because there is none yet."""
        if name not in self.own:
            if name in self._others or os.path.lexists(self._target.path(f"studies/{name}")):
                return False
            self.own.add(name)
        return True

    def write(self) -> None:
        """Bring them to the disk."""
        held = {**self._held, self._archive_id: sorted(self.own)}
        self._target.document(STATE, None, [json.dumps(held, indent=0).encode()])


class Texts:
    """Texts of a JSON array in an unnamed file, deflated piece by piece. Belongs to one thread."""

    def __init__(self, directory: str, *, continued: bool = False) -> None:
        """Begin with no texts; `continued` says that others come before them in their array."""
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - `close` closes it
        self._extents: list[tuple[int, int, int]] = []
        self._waiting: list[str] = []
        self._length = 0
        self._continued = continued

    def add(self, text: str) -> None:
        """Add a text."""
        self._waiting.append(f",{text}" if self._continued else text)
        self._continued = True
        self._length += len(text)
        if self._length > _PIECE:
            self.flush()

    def flush(self) -> None:
        """Put down what waits: after that several threads may read."""
        if self._waiting:
            data, crc32, length = documents_gzip.piece("".join(self._waiting))
            self._file.write(data)
            self._extents.append((len(data), crc32, length))
            self._waiting.clear()
            self._length = 0
        self._file.flush()

    def pieces(self) -> Iterator[Piece]:
        """Yield all that was put down."""
        at = 0
        for size, crc32, length in self._extents:
            yield documents_gzip.Piece(read_at(self._file.fileno(), at, size), crc32, length)
            at += size

    def close(self) -> None:
        """Be done with them."""
        self._file.close()


def array(*texts: Texts, head: str = "") -> Iterator[bytes | memoryview]:
    """Yield the gzip member of the JSON array that begins with the text `head` and goes on with others."""

    def pieces() -> Iterator[Piece]:
        yield documents_gzip.piece(f"[{head}")
        for some in texts:
            yield from some.pieces()
        yield documents_gzip.piece("]", last=True)

    return documents_gzip.joined(pieces())


def objects(path: str) -> Iterator[str]:
    """Yield the texts of a gzipped JSON array's objects, one in memory at a time; raise ValueError, or OSError."""
    decode = json.JSONDecoder().raw_decode
    # EOFError and zlib.error say that a member is cut off or changed.
    with gzip.open(path, "rt", encoding="utf-8") as file:
        text = file.read(_CHUNK).lstrip()
        if not text.startswith("["):
            raise ValueError("no list")
        at, more = 1, True
        while True:
            end = _END.match(text, at)
            at = end.end() if end else at
            try:
                found, stop = decode(text, at)
            except ValueError:
                read = file.read(_CHUNK) if more else ""
                more = bool(read)
                text, at = text[at:] + read, 0
                if more and len(text) < _LONGEST:
                    continue
                if text:
                    raise
                return
            if not isinstance(found, dict):
                raise ValueError("no list of objects")
            yield text[at:stop]
            at = stop


def read_at(fd: int, at: int, size: int) -> bytes:
    """Return bytes of a file, fewer only where it ends."""
    data = os.pread(fd, size, at)
    while len(data) < size and (more := os.pread(fd, size - len(data), at + len(data))):
        data += more
    return data


def _unpacked(path: str) -> int | None:
    """Return what the end of a gzip member says how long its data is (RFC 1952 2.3.1)."""
    with open(path, "rb") as file, suppress(OSError):
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")
    return None


def _are_same(one: str, other: str) -> bool:
    try:
        if os.lstat(one).st_size != os.lstat(other).st_size:
            return False
        with open(one, "rb") as first, open(other, "rb") as second:
            while data := first.read(_CHUNK):
                if second.read(_CHUNK) != data:
                    return False
    except FileNotFoundError:
        return False
    return True


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
