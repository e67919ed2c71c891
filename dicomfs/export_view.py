"""Export of a whole view of the drive: its directories and files as they are there, written to a real directory.

Documents of a view change when the archive does, so a file whose size or time differs is written anew, and one
that has both is left alone, as rsync does. A file appears under its name when it is written; a power cut may leave
it short, which the next export mends.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.errors import DicomfsError, UsageError
from dicomfs.export import ExportReport, FileResult, Outcome, failure, refuse_files, refuse_inside, tally
from dicomfs.vfs.node import ROOT, waited
from dicomfs.vfs.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.vfs.node import Entry, INode

_CHUNK: Final = 4 << 20
_WORKERS: Final = 4
_AHEAD: Final = 64


class _Found(NamedTuple):
    """A file or directory of the view; directories come after all that is in them."""

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
    on_result: Callable[[FileResult], None] | None = None,
) -> ExportReport:
    """Write what the drive has below `view` to `output`, until nothing more can be written there.

    `only` are names of directories of the second level (the studies of `dicomweb`); others, and files beside them,
    are left out.
    """
    refuse_inside(archive.path, output)
    refuse_files(output)
    tree = Tree(archive, [view])
    try:
        root = waited(lambda: tree.lookup(ROOT, view.encode()))
        if root is None:
            raise UsageError(f"the drive has no view {view!r}")
        os.makedirs(output, exist_ok=True)
        return tally(_written(tree, os.fspath(output), _walk(tree, root.ino, "", only)), on_result)
    finally:
        tree.close()


def write_study_list(output: Path, studies: Collection[str]) -> None:
    """Write the list of those studies of a DICOMweb tree that were exported, where they are not all there are."""
    found: list[object] = []
    for name in sorted(studies):
        with suppress(FileNotFoundError), gzip.open(output / "studies" / name / "index.json.gz") as file:
            found += json.load(file)
    path = output / "studies" / "index.json.gz"
    part = path.with_name(".index.dicomfs-part")
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(gzip.compress(text, mtime=0))
    part.replace(path)


def _walk(tree: Tree, ino: INode, path: str, only: Collection[str] | None) -> Iterator[_Found]:
    for name, child, is_directory, size, mtime_ns, _, _ in _entries(tree, ino):
        below = os.path.join(path, os.fsdecode(name))
        if path and "/" not in path and only is not None and os.fsdecode(name) not in only:
            continue
        if is_directory:
            yield from _walk(tree, child, below, only)
        yield _Found(below, child, is_directory, size, mtime_ns)


def _entries(tree: Tree, ino: INode) -> list[Entry]:
    return waited(lambda: list(tree.entries(ino)))


def _written(tree: Tree, output: str, found: Iterator[_Found]) -> Iterator[FileResult]:
    """Write files on several threads, for what they are made of may have to be waited for; results in order."""
    with ThreadPoolExecutor(_WORKERS, "export") as pool:
        waiting: deque[tuple[_Found, Future[FileResult] | None]] = deque()

        def settle() -> Iterator[FileResult]:
            one, future = waiting.popleft()
            if future is not None:
                yield future.result()
                return
            with suppress(OSError):  # all that was to be in it failed
                os.utime(os.path.join(output, one.path), ns=(one.mtime_ns, one.mtime_ns))

        try:
            for one in found:
                waiting.append((one, None if one.is_directory else pool.submit(_write, tree, output, one)))
                while len(waiting) > _AHEAD:
                    yield from settle()
            while waiting:
                yield from settle()
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()


def _write(tree: Tree, output: str, one: _Found) -> FileResult:
    path = os.path.join(output, one.path)
    try:
        with suppress(FileNotFoundError):
            there = os.lstat(path)
            if (there.st_size, there.st_mtime_ns) == (one.size, one.mtime_ns):
                return FileResult(one.path, Outcome.PRESENT, "", one.size)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _copy(tree, one, path)
    except (DicomfsError, OSError) as error:
        return failure(one.path, one.size, error)
    return FileResult(one.path, Outcome.WRITTEN, "", one.size)


def _copy(tree: Tree, one: _Found, path: str) -> None:
    directory, name = os.path.split(path)
    part = os.path.join(directory, f".{name}.dicomfs-part")  # two names of one document are written at once
    source = tree.open(one.ino)
    try:
        if source.size != one.size:
            raise DicomfsError("it changed while it was written; export again")
        with open(part, "wb", opener=_private_opener) as file:
            offset = 0
            while offset < source.size:
                data = source.read(offset, _CHUNK)
                if not data:
                    raise DicomfsError("it is shorter than the drive says; run dicomfs check")
                file.write(data)
                offset += len(data)
        os.utime(part, ns=(one.mtime_ns, one.mtime_ns))
        os.replace(part, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(part)
        raise
    finally:
        source.close()


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
