"""Export of a view of the drive: its directories and files as they are there, written to a real directory.

A view is a directory of the drive's root, or any directory below one: `patients/<name>`. Documents of a view change
when the archive does, so a file whose size or time differs is written anew, and one that has both is left alone, as
rsync does. A file appears under its name when it is written; a power cut may leave it short, which the next export
mends. With a manifest all files are hashed, and the hash of what was imported is demanded where it is known.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive.names import possible
from dicomfs.errors import Damaged, DicomfsError, NotFound, UsageError
from dicomfs.export import OTHER_BYTES, ExportReport, FileResult, Outcome, failure, refuse_files, refuse_inside, tally
from dicomfs.manifest import Manifest
from dicomfs.vfs.node import FIRST_CLAIMED, LAST_CLAIMED, ROOT, waited
from dicomfs.vfs.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.vfs.node import Entry, INode, OpenFile

_CHUNK: Final = 4 << 20
_WORKERS: Final = 4
_AHEAD: Final = 64


class Found(NamedTuple):
    """A file or directory of a view; directories come after all that is in them."""

    path: str
    ino: INode
    is_directory: bool
    size: int
    mtime_ns: int


def export_view(
    archive: Archive,
    output: Path,
    view: str,
    *,
    only: Collection[str] | None = None,
    manifest: bool = False,
    on_result: Callable[[FileResult], None] | None = None,
) -> ExportReport:
    """Write what the drive has below `view` to `output`, until nothing more can be written there.

    `only` are names of directories of the second level (the studies of `dicomweb`); others, and files beside them,
    are left out, and their list is made anew. `manifest` adds the list of all files' SHA-256.
    """
    refuse_inside(archive.path, output)
    refuse_files(output)
    with opened(archive, view) as (tree, root):
        os.makedirs(output, exist_ok=True)
        listed = Manifest(os.fspath(output)) if manifest else None
        hashes = archive if manifest else None

        def results() -> Iterator[FileResult]:
            yield from _written(tree, os.fspath(output), walk(tree, root, only=only), hashes)
            if only is not None:
                yield _write_study_list(output, study_list(tree, root, only))

        return tally(results(), on_result, listed)


@contextmanager
def opened(archive: Archive, view: str) -> Iterator[tuple[Tree, INode]]:
    """Open a directory of the drive; raise UsageError where there is none of this name.

    A view is looked up component by component, so that nothing leads out of it.
    """
    names = [os.fsencode(name) for name in view.rstrip("/").split("/")]
    tree = Tree(archive, [os.fsdecode(names[0])])
    try:
        ino = ROOT
        for name in names:
            found = waited(partial(tree.lookup, ino, name)) if possible(name) else None
            if found is None:
                raise UsageError(f"the drive has no directory '{view}'")
            if not found.is_directory:
                raise UsageError(f"'{view}' is a file of the drive; name a directory")
            ino = found.ino
        yield tree, ino
    finally:
        tree.close()


def walk(tree: Tree, ino: INode, path: str = "", *, only: Collection[str] | None = None) -> Iterator[Found]:
    """Yield what is below a directory, in the order in which it is listed; `only` as for `export_view`."""
    for name, child, is_directory, size, mtime_ns, _, _ in _entries(tree, ino):
        below = os.path.join(path, os.fsdecode(name))
        if path and "/" not in path and only is not None and os.fsdecode(name) not in only:
            continue
        if is_directory:
            yield from walk(tree, child, below, only=only)
        yield Found(below, child, is_directory, size, mtime_ns)


def imported_sha256(archive: Archive, ino: INode) -> bytes | None:
    """Return the SHA-256 of the file that was imported under this inode number, None where it is another node."""
    if FIRST_CLAIMED <= ino <= LAST_CLAIMED:
        with archive.view() as view, suppress(NotFound):
            return view.instance_inode(ino).sha256
    return None


STUDY_LIST: Final = "studies/index.json.gz"


def study_list(tree: Tree, root: INode, studies: Collection[str]) -> bytes:
    """Return the list of those studies of a DICOMweb tree that are exported, where they are not all there are."""
    found: list[object] = []
    for name in sorted(studies):
        ino = root
        for part in (b"studies", os.fsencode(name), b"index.json.gz"):
            node = waited(partial(tree.lookup, ino, part))
            if node is None:
                break
            ino = node.ino
        else:
            file = tree.open(ino)
            try:
                found += json.loads(gzip.decompress(file.read(0, file.size)))
            finally:
                file.close()
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
    return gzip.compress(text, mtime=0)


def _write_study_list(output: Path, data: bytes) -> FileResult:
    path = output / STUDY_LIST
    part = path.with_name(".index.dicomfs-part")
    outcome = Outcome.PRESENT
    try:
        if not path.is_file() or path.read_bytes() != data:
            outcome = Outcome.WRITTEN
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(path)
    except OSError as error:
        return failure(STUDY_LIST, len(data), error)
    return FileResult(STUDY_LIST, outcome, "", len(data), hashlib.sha256(data).digest())


def _entries(tree: Tree, ino: INode) -> list[Entry]:
    return waited(lambda: list(tree.entries(ino)))


def _written(tree: Tree, output: str, found: Iterator[Found], hashes: Archive | None) -> Iterator[FileResult]:
    """Write files on several threads, for what they are made of may have to be waited for; results in order.

    `hashes` is the archive if files are to be hashed.
    """
    with ThreadPoolExecutor(_WORKERS, "export") as pool:
        waiting: deque[tuple[Found, Future[FileResult] | None]] = deque()

        def settle() -> Iterator[FileResult]:
            one, future = waiting.popleft()
            if future is not None:
                yield future.result()
                return
            with suppress(OSError):  # all that was to be in it failed
                os.utime(os.path.join(output, one.path), ns=(one.mtime_ns, one.mtime_ns))

        try:
            for one in found:
                waiting.append((one, None if one.is_directory else pool.submit(_write, tree, output, one, hashes)))
                while len(waiting) > _AHEAD:
                    yield from settle()
            while waiting:
                yield from settle()
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()


def _write(tree: Tree, output: str, one: Found, hashes: Archive | None) -> FileResult:
    path = os.path.join(output, one.path)
    try:
        known = None if hashes is None else imported_sha256(hashes, one.ino)
        with suppress(FileNotFoundError):
            there = os.lstat(path)
            if (there.st_size, there.st_mtime_ns) == (one.size, one.mtime_ns):
                sha256 = None if hashes is None else _hashed(path)
                if known in (None, sha256):
                    return FileResult(one.path, Outcome.PRESENT, "", one.size, sha256)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        sha256 = _copy(tree, one, path, known, hashed=hashes is not None)
    except (DicomfsError, OSError) as error:
        return failure(one.path, one.size, error)
    return FileResult(one.path, Outcome.WRITTEN, "", one.size, sha256)


def _hashed(path: str) -> bytes:
    with open(path, "rb", opener=_private_opener) as file:
        return hashlib.file_digest(file, "sha256").digest()


def _copy(tree: Tree, one: Found, path: str, known: bytes | None, *, hashed: bool) -> bytes | None:
    """Write a file; return its SHA-256 if it is to be hashed."""
    directory, name = os.path.split(path)
    part = os.path.join(directory, f".{name}.dicomfs-part")  # two names of one document are written at once
    digest = hashlib.sha256() if hashed else None
    source = tree.open(one.ino)
    try:
        with open(part, "wb", opener=_private_opener) as file:
            for data in pieces(source, one.size):
                if digest is not None:
                    digest.update(data)
                file.write(data)
        sha256 = None if digest is None else digest.digest()
        if known not in (None, sha256):
            raise Damaged(OTHER_BYTES)
        os.utime(part, ns=(one.mtime_ns, one.mtime_ns))
        os.replace(part, path)
        return sha256
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(part)
        raise
    finally:
        source.close()


def pieces(file: OpenFile, size: int) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file that a listing told to be of this size; raise an error where it is not."""
    if file.size != size:
        raise DicomfsError("it changed while it was written; export again")
    offset = 0
    while offset < size:
        data = file.read(offset, _CHUNK)
        if not data:
            raise DicomfsError("it is shorter than the drive says; run dicomfs check")
        yield data
        offset += len(data)


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
