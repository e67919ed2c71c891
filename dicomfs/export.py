"""Export: the files of the readable tree, written to a real directory, each proved while it is written.

    OUTPUT/<patient>/<study>/<series>/00001.dcm     the names of the mount's patients/
    OUTPUT/<SOP Instance UID>.dcm                   flattened; a second file of one UID gets ~hash
    OUTPUT/manifest.sha256                          their hashes, where they are asked for

A file appears under its name only when all its bytes are on the disk and have the SHA-256 of what was
imported; until then it is `.<inode>.dicomfs-part`. So not even a power cut leaves a name without its
bytes. A file that is already there is left alone: with the same bytes it counts as present, with
others as failed. So an export that was interrupted is completed by running it again.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Final

from dicomfs.archive.names import candidates, component, cut, possible
from dicomfs.archive.query import Level, Match, Query, matches
from dicomfs.errors import Damaged, DicomfsError, StorageFull, UsageError
from dicomfs.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from dicomfs.archive.archive import Archive

_CHUNK = 4 << 20
_WORKERS = min(4, os.cpu_count() or 1)
STOPS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""After these nothing more can be written."""

OTHER_BYTES: Final = "the archive gave other bytes than were imported; run dicomfs check --verify-files"


class Outcome(StrEnum):
    """What became of one file."""

    WRITTEN = "written"
    PRESENT = "present"
    FAILED = "failed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class FileResult:
    """One file of the export; `path` is below the output directory."""

    path: str
    outcome: Outcome
    reason: str
    size: int
    sha256: bytes | None = None
    """Of the bytes that are there now, where they were hashed."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did."""

    written: int
    present: int
    failed: int
    bytes_written: int
    stopped: str = ""
    """Why nothing more could be written, or empty."""
    removed: int = 0
    """Files and directories of earlier exports that are gone, as what they showed is."""

    @property
    def files(self) -> int:
        """How many files were asked for."""
        return self.written + self.present + self.failed


def export(
    archive: Archive,
    output: Path,
    query: Query,
    *,
    flatten: bool = False,
    manifest: bool = False,
    on_result: Callable[[FileResult], None] | None = None,
) -> ExportReport:
    """Write the files that the query finds below `output`, until nothing more can be written there.

    `manifest` adds the list of their SHA-256, unless the export ended early.
    """
    refuse_inside(archive.path, output)
    refuse_files(output)
    directories = _Directories(output)
    results = _in_threads(archive, directories, named(archive, query, flatten=flatten))
    report = tally(results, on_result, Manifest(os.fspath(output)) if manifest else None)
    directories.finish(archive)
    return report


def named(archive: Archive, query: Query, *, flatten: bool) -> Iterator[tuple[Match, str]]:
    """Return the instances that the query finds, each with its path in an export."""
    instances = matches(archive, Query(Level.INSTANCE, query.where))
    return _flat(instances) if flatten else ((match, _below_patients(match.path)) for match in instances)


def tally(
    results: Iterable[FileResult], on_result: Callable[[FileResult], None] | None, manifest: Manifest | None = None
) -> ExportReport:
    """Have files written and hear of each, until nothing more can be written; return what was done.

    The manifest lists them, and appears when there are no more.
    """
    counts: Counter[Outcome] = Counter()
    bytes_written = 0
    stopped = ""
    try:
        for result in results:
            counts[result.outcome] += 1
            bytes_written += result.size if result.outcome is Outcome.WRITTEN else 0
            if manifest and result.sha256:
                with stopping(manifest.path):
                    manifest.add(result.path, result.sha256)
            if on_result:
                on_result(result)
        if manifest:
            with stopping(manifest.path):
                manifest.finish()
    except StorageFull as error:
        stopped = str(error)
    finally:
        if manifest:
            manifest.close()
    written, present, failed, removed = (counts[outcome] for outcome in Outcome)
    return ExportReport(written, present, failed, bytes_written, stopped, removed)


def failure(path: str, size: int, error: DicomfsError | OSError) -> FileResult:
    """Return what became of a file that could not be written; raise StorageFull where no other can be either."""
    if isinstance(error, DicomfsError):
        return FileResult(path, Outcome.FAILED, str(error), size)
    if error.errno in STOPS:
        raise StorageFull(f"{error.filename or path}: {error.strerror}") from error
    return FileResult(path, Outcome.FAILED, error.strerror or type(error).__name__, size)


@contextmanager
def stopping(path: str) -> Iterator[None]:
    """Raise StorageFull for an error of the system after which nothing more can be written."""
    try:
        yield
    except OSError as error:
        if error.errno in STOPS:
            raise StorageFull(f"{path}: {error.strerror}") from error
        raise


def refuse_inside(archive: Path, output: Path) -> None:
    """Raise UsageError for an output inside the archive."""
    if output.resolve().is_relative_to(archive.resolve()):
        raise UsageError(f"{output}: lies inside the archive; choose a directory outside it")


def refuse_files(output: Path) -> None:
    """Raise UsageError for an output that is there and is no directory."""
    if os.path.lexists(output) and not output.is_dir():
        raise UsageError(f"{output}: is not a directory; name one to write to")


def _below_patients(path: str) -> str:
    return path.partition("/")[2]


def _flat(instances: Iterable[Match]) -> Iterator[tuple[Match, str]]:
    for match in instances:
        instance = match.instance
        assert instance is not None
        uid = str(instance.attributes["SOPInstanceUID"])
        # The hash is of the bytes: what tells two files of one UID apart, in every export alike.
        identity = instance.sha256.hex()
        name = cut(component(uid) + ".dcm", identity)
        yield match, name if instance.current else next(islice(candidates(name, identity), 1, None))


def _in_threads(
    archive: Archive, directories: _Directories, files: Iterator[tuple[Match, str]]
) -> Iterator[FileResult]:
    """Write files on several threads, for hashing and decoding leave the interpreter; results in order."""
    with ThreadPoolExecutor(_WORKERS, "export") as pool:
        waiting: deque[Future[FileResult]] = deque()
        started = False
        try:
            for match, path in files:
                if not started:
                    directories.make_root()
                    started = True
                waiting.append(pool.submit(_export_file, archive, directories, match, path))
                if len(waiting) > 2 * _WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except StorageFull:
            # What the other threads have in work may well be written.
            for future in waiting:
                future.cancel()
            for future in waiting:
                if not future.cancelled():
                    with suppress(StorageFull):
                        yield future.result()
            raise
        finally:
            for future in waiting:
                future.cancel()


class _Directories:
    """The directories below the output that exist by now; may be shared by threads."""

    def __init__(self, output: Path) -> None:
        self._output = os.fspath(output)
        self._made: dict[str, int] = {}

    def make_root(self) -> None:
        """Make the output directory, so that an error of its own is told once and not for every file."""
        os.makedirs(self._output, exist_ok=True)

    def path(self, below: str, ino: int) -> str:
        """Return the real path of the file with this inode number, its directory made; never one outside."""
        if not all(map(possible, os.fsencode(below).split(b"/"))):
            raise Damaged("its name in the archive is none that a file can have; run 'dicomfs check'")
        path = os.path.join(self._output, below)
        directory = os.path.dirname(below)
        if directory not in self._made:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._made[directory] = ino
        return path

    def finish(self, archive: Archive) -> None:
        """Give the directories their times, which writing into them has changed, and bring all names to the disk.

        The output itself keeps its time.
        """
        done = self._set_times(archive)
        # All are changed by now, so that a journal takes them at once: the first waits for it, the others hardly.
        for below in (*done, "") if self._made else ():
            fd = os.open(os.path.join(self._output, below), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _sync(fd)
            finally:
                os.close(fd)

    def _set_times(self, archive: Archive) -> set[str]:
        done: set[str] = set()
        for directory, ino in self._made.items():
            with archive.view() as view:
                node = view.node(ino)
                below = directory
                while below and below not in done and node is not None:
                    done.add(below)
                    node = view.node(node.parent)
                    if node is not None:
                        path = os.path.join(self._output, below)
                        os.utime(path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
                    below = os.path.dirname(below)
        return done


def _export_file(archive: Archive, directories: _Directories, match: Match, below: str) -> FileResult:
    instance = match.instance
    assert instance is not None
    try:
        path = directories.path(below, instance.ino)
        reason = _present(path, instance.size, instance.sha256)
        if reason is None:
            _write(archive, path, instance.ino, instance.sha256, instance.mtime_ns)
    except (DicomfsError, OSError) as error:
        return failure(below, instance.size, error)
    if reason:
        return FileResult(below, Outcome.FAILED, reason, instance.size)
    outcome = Outcome.WRITTEN if reason is None else Outcome.PRESENT
    return FileResult(below, outcome, "", instance.size, instance.sha256)


def _present(path: str, size: int, sha256: bytes) -> str | None:
    """Return None if nothing is at `path`, '' if exactly this file is, else why it may not be written."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"something else is already there ({error.strerror})"
    with open(fd, "rb") as file:
        if os.fstat(fd).st_size != size or hashlib.file_digest(file, "sha256").digest() != sha256:
            return "another file is already there"
    return ""


def _write(archive: Archive, path: str, ino: int, sha256: bytes, mtime_ns: int) -> None:
    directory, _ = os.path.split(path)
    part = os.path.join(directory, f".{ino}.dicomfs-part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(part, flags, 0o666)
    try:
        try:
            _copy(archive, ino, fd, sha256)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
            _sync(fd)
        finally:
            os.close(fd)
        appear(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _copy(archive: Archive, ino: int, fd: int, sha256: bytes) -> None:
    source = archive.open_instance(ino)
    try:
        digest = hashlib.sha256()
        offset = 0
        while offset < source.size:
            data = source.read(offset, _CHUNK)
            digest.update(data)
            _write_all(fd, data)
            offset += len(data)
    finally:
        source.close()
    if digest.digest() != sha256:
        raise DicomfsError(OTHER_BYTES)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync(fd: int) -> None:
    """Bring a file or directory to the disk, where its filesystem has such a thing."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.EOPNOTSUPP):
            raise


def appear(part: str, path: str) -> None:
    """Give the finished file its name, never in the place of another file."""
    try:
        os.link(part, path)
    except OSError as error:
        # FAT, exFAT and some network shares have no hard links.
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        os.rename(part, path)
    else:
        os.unlink(part)
