"""Export to one ZIP file: the files and names that an export to a directory has, and at the end their manifest.

Entries are stored, not deflated: pixels that are compressed gain nothing by it, and others would take several times
as long. What an import made known is demanded: other bytes than were imported never become an entry.

Threads read, decode and hash ahead of the one that writes; a file that is large is read a piece ahead. What is in
memory does not grow with the number of files or their sizes. The file is `.<name>.<letters>.dicomfs-part` until it is
whole and on the disk, and never takes the place of another; what was begun goes away, unless by a kill or a power cut.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive.names import possible
from dicomfs.errors import Damaged, DicomfsError, StorageFull, UsageError
from dicomfs.export import (
    OTHER_BYTES,
    STOPS,
    ExportReport,
    FileResult,
    Outcome,
    appear,
    failure,
    named,
    refuse_inside,
    tally,
)
from dicomfs.export_view import STUDY_LIST, imported_sha256, opened, pieces, study_list, walk
from dicomfs.manifest import NAME, is_taken, line
from dicomfs.vfs.plain import TextFile
from dicomfs.zip_file import ZipWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.query import Query
    from dicomfs.vfs.node import INode, OpenFile

_WORKERS: Final = 4
_WHOLE: Final = 4 << 20
"""Files up to this size are read as a whole, ahead."""
_AHEAD: Final = 16
_LINES: Final = 4 << 20
"""Of the manifest, in memory; more lie on the disk until the end."""
_FOREIGN: Final = re.compile(rb"[\\:\0-\x1f]").search
"""What no name of ours has, and some programs take for a directory, a drive or an end of the name."""
_LONGEST: Final = 0xFFFF


class _Source(NamedTuple):
    """A file for the ZIP; its hash must be that of the instance with this inode number, where there is one."""

    path: str
    ino: INode
    size: int
    mtime_ns: int
    open: Callable[[], OpenFile]


class _Unreadable(Exception):
    """The bytes of a file cannot be had; the cause says why."""


def zip_files(
    archive: Archive,
    target: Path,
    query: Query,
    *,
    flatten: bool = False,
    on_result: Callable[[FileResult], None] | None = None,
) -> ExportReport:
    """Write the files that the query finds to a new ZIP file, named as `export` names them."""

    def sources() -> Iterator[_Source]:
        for match, path in named(archive, query, flatten=flatten):
            found = match.instance
            assert found is not None
            yield _Source(path, found.ino, found.size, found.mtime_ns, partial(archive.open_instance, found.ino))

    return _zip(archive, target, sources(), on_result)


def zip_view(
    archive: Archive,
    target: Path,
    view: str,
    *,
    only: Collection[str] | None = None,
    on_result: Callable[[FileResult], None] | None = None,
) -> ExportReport:
    """Write what the drive has below `view` to a new ZIP file; `only` as for `export_view`."""
    with opened(archive, view) as (tree, root):

        def sources() -> Iterator[_Source]:
            newest_ns = 0
            for path, ino, is_directory, size, mtime_ns in walk(tree, root, only=only):
                newest_ns = max(newest_ns, mtime_ns)
                if not is_directory:
                    yield _Source(path, ino, size, mtime_ns, partial(tree.open, ino))
            if only is not None:
                listed = study_list(tree, root, only)
                yield _Source(STUDY_LIST, 0, len(listed), newest_ns, partial(TextFile, listed))

        return _zip(archive, target, sources(), on_result)


def _zip(
    archive: Archive, target: Path, sources: Iterator[_Source], on_result: Callable[[FileResult], None] | None
) -> ExportReport:
    refuse_inside(archive.path, target)
    directory = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(directory):
        raise UsageError(f"{directory}: is no directory; make it first")
    if os.path.lexists(target):
        raise UsageError(f"{target}: is already there; remove it, or name another file")
    with (
        _whole_or_nothing(target),
        _part(target) as (fd, finish),
        closing(ZipWriter(fd, directory)) as writer,
        tempfile.SpooledTemporaryFile(_LINES, dir=directory) as lines,
    ):
        report = tally(_Zipping(archive, writer, lines).results(sources), on_result)
        if report.stopped:
            raise StorageFull(f"{report.stopped}; no ZIP file was written")
        if report.written:
            writer.finish()
            finish()
        return report


@contextmanager
def _whole_or_nothing(target: Path) -> Iterator[None]:
    """Say of an error of the system, which errors of reading have become none of, that there is no ZIP file."""
    try:
        yield
    except OSError as error:
        kind = StorageFull if error.errno in STOPS else DicomfsError
        raise kind(f"{target}: {error.strerror or type(error).__name__}; no ZIP file was written") from error


@contextmanager
def _part(target: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """Open what is to become the ZIP file, and give a function that makes it that; else it goes away."""
    # Room for what is put around it in the 255 bytes of a name.
    name = os.fsdecode(os.fsencode(target.name)[:200])
    part = os.path.join(os.path.dirname(os.path.abspath(target)), f".{name}.{secrets.token_hex(4)}.dicomfs-part")
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield fd, partial(_appear, part, os.path.abspath(target))
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(part)


def _appear(part: str, path: str) -> None:
    try:
        appear(part, path)
    except FileExistsError:
        raise UsageError(f"{path}: is there by now; remove it, or name another file") from None
    directory = os.open(os.path.dirname(part), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class _Zipping:
    """One ZIP file in the making. Belongs to one thread, and has others that read."""

    def __init__(self, archive: Archive, writer: ZipWriter, lines: IO[bytes]) -> None:
        self._archive = archive
        self._writer = writer
        self._lines = lines
        self._newest_ns = 0

    def results(self, sources: Iterator[_Source]) -> Iterator[FileResult]:
        """Write all files and the manifest; yield what became of each file, in order."""
        with ThreadPoolExecutor(_WORKERS, "export") as pool:
            waiting: deque[tuple[_Source, Future[tuple[bytes | memoryview, bytes]] | None]] = deque()
            try:
                for source in sources:
                    whole = source.size <= _WHOLE
                    waiting.append((source, pool.submit(self._whole, source) if whole else None))
                    if len(waiting) > _AHEAD:
                        yield self._settled(pool, *waiting.popleft())
                while waiting:
                    yield self._settled(pool, *waiting.popleft())
            finally:
                for _, future in waiting:
                    if future is not None:
                        future.cancel()
        self._end()

    def _settled(
        self, pool: ThreadPoolExecutor, source: _Source, coming: Future[tuple[bytes | memoryview, bytes]] | None
    ) -> FileResult:
        try:
            name = _entry_name(source.path)
            if coming is None:
                sha256 = self._add_long(pool, name, source)
            else:
                with _reading():
                    data, sha256 = coming.result()
                self._writer.add(name, source.mtime_ns, data)
        except _Unreadable as unreadable:
            error = unreadable.__cause__
            assert isinstance(error, DicomfsError | OSError)
            return failure(source.path, source.size, error)
        self._lines.write(line(source.path, sha256))
        self._newest_ns = max(self._newest_ns, source.mtime_ns)
        return FileResult(source.path, Outcome.WRITTEN, "", source.size, sha256)

    def _whole(self, source: _Source) -> tuple[bytes | memoryview, bytes]:
        file = source.open()
        try:
            data = b"".join(pieces(file, source.size))
        finally:
            file.close()
        return data, self._proved(source, hashlib.sha256(data).digest())

    def _add_long(self, pool: ThreadPoolExecutor, name: bytes, source: _Source) -> bytes:
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes | memoryview]:
            with _reading():
                file = source.open()
                try:
                    for piece in _ahead(pool, pieces(file, source.size)):
                        digest.update(piece)
                        yield piece
                finally:
                    file.close()
                self._proved(source, digest.digest())

        self._writer.add_long(name, source.mtime_ns, source.size, hashed())
        return digest.digest()

    def _proved(self, source: _Source, sha256: bytes) -> bytes:
        known = imported_sha256(self._archive, source.ino)
        if known not in (None, sha256):
            raise Damaged(OTHER_BYTES)
        return sha256

    def _end(self) -> None:
        size = self._lines.tell()
        self._lines.seek(0)
        self._writer.add_long(NAME.encode(), self._newest_ns, size, iter(partial(self._lines.read, _LINES), b""))


def _ahead(pool: ThreadPoolExecutor, found: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the same, each piece while the next one is made."""
    coming = pool.submit(next, found, None)
    try:
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, found, None)
            yield piece
    finally:
        if not coming.cancel():
            coming.exception()  # waits: what it reads from is closed next


@contextmanager
def _reading() -> Iterator[None]:
    """Tell errors of reading from those of writing, which end it all."""
    try:
        yield
    except (DicomfsError, OSError) as error:
        raise _Unreadable from error


def _entry_name(path: str) -> bytes:
    """Return a path as a name in a ZIP file; raise an error for one that could lead anywhere else, or nowhere."""
    with _reading():
        if is_taken(path):
            raise Damaged(f"{NAME} is the manifest's name in a ZIP file; export it to a directory")
        name = os.fsencode(path)
        if not all(map(possible, name.split(b"/"))) or _FOREIGN(name) or len(name) > _LONGEST or not _is_utf8(name):
            raise Damaged("its name in the archive is none that a file can have; run 'dicomfs check'")
        return name


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
