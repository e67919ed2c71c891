"""The files of tables that a project has beside its images: which there are, whether they are made, who makes them.

    cache/projects/<root>-<changed>-<VERSION>-<name>

What a project says of itself changes with the files that it shows, and then `changed` does; a file is whole when it
has its name. It is made in a directory of its own that is gone afterwards, since tables wait for their rows in files.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.errors import NotFound, StorageFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.by_project import ProjectState
    from dicomfs.archive.outcome import OnProgress

METADATA, DEID_METADATA, LINKER, HEADER_EXTRACTION, FAILED_QUERIES, RUN = range(6)
"""Kinds of files: numbers of inodes are made of them, so they stay."""
VERSION: Final = 1
"""Rises when files of the same project change."""
_ABANDONED_S: Final = 24 * 3600.0
"""Nobody works on a table for so long."""


class TableFile(NamedTuple):
    """A file of a project."""

    name: str
    kind: int
    private: bool
    """Whether it tells who the patients of a de-identified project are."""


def files_of(state: ProjectState) -> tuple[TableFile, ...]:
    """Return the files that a project has, by name; none while it is not made to the end, or was removed."""
    if not state.on or not state.through:
        return ()
    definition = state.definition
    deid = bool(definition.deid)
    found = [TableFile("metadata.xlsx", METADATA, deid), TableFile("run.txt", RUN, private=False)]
    if deid:
        found.append(TableFile("deid_metadata.xlsx", DEID_METADATA, private=False))
        found.append(TableFile("linker.xlsx", LINKER, private=True))
    if definition.headers:
        # Of what the project shows, which everybody who sees it can read there.
        found.append(TableFile("header_extraction.xlsx", HEADER_EXTRACTION, private=False))
    if definition.source:
        found.append(TableFile("failed_queries.csv", FAILED_QUERIES, deid))
    return tuple(sorted(found))


def made(cache: Path, state: ProjectState, kind: int) -> Path | None:
    """Return a file of a project as it is now, None if it is not made yet."""
    for file in files_of(state):
        if file.kind == kind and (path := _path(cache, state, file)).exists():
            return path
    return None


def paths(cache: Path, state: ProjectState) -> list[Path]:
    """Return where the files of a project are as it is now, if they are made."""
    return [_path(cache, state, file) for file in files_of(state)]


def make(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make a file of a project, if it is not there: args are the project's root and the kind of file.

    Raise NotFound where there is no such project or it has no such file, Damaged, and StorageFull.
    """
    root, kind = args
    with archive.view() as view:
        state = view.project(root)
    file = next((one for one in files_of(state) if one.kind == kind), None)
    if file is None:
        raise NotFound(f"project {root} has no file of kind {kind}")
    target = _path(cache, state, file)
    if target.exists():
        return
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        _sweep(target.parent)
        with TemporaryDirectory(prefix=".", dir=target.parent) as directory:
            path = Path(directory, file.name)
            _write(archive, state, kind, path)
            _make_last(path)
            path.rename(target)
    except OSError as error:
        raise StorageFull(f"{target.parent}: a table of a project cannot be written ({error.strerror})") from error
    for old in _all(cache, root):
        if old != target and old.name.endswith(f"-{file.name}"):
            old.unlink(missing_ok=True)


def make_all(archive_path: Path, state: ProjectState, progress: OnProgress | None = None) -> None:
    """Have all files of a project made, by processes; raise as `make` does."""
    from dicomfs.archive.makers import Makers
    from dicomfs.archive.outcome import Progress

    files = files_of(state)
    makers = Makers(archive_path, archive_path / "cache")
    try:
        jobs = [makers.submit(("project_table", (state.root, file.kind))) for file in files]
        for done, job in enumerate(jobs):
            if progress is not None:
                progress(Progress(done, len(files), 0, 0))
            job.result()
    finally:
        makers.close()


def forget(cache: Path, root: int) -> None:
    """Remove all files that were made for a project: it is no more."""
    for old in _all(cache, root):
        with suppress(OSError):
            old.unlink()


def _write(archive: Archive, state: ProjectState, kind: int, path: Path) -> None:
    from dicomfs.archive import project_rows

    writers: Mapping[int, Callable[[Archive, ProjectState, Path], None]] = {
        METADATA: project_rows.metadata,
        DEID_METADATA: project_rows.deid_metadata,
        LINKER: project_rows.linker,
        HEADER_EXTRACTION: project_rows.header_extraction,
        FAILED_QUERIES: project_rows.failed_queries,
        RUN: partial(project_rows.run, files=[(one.name, one.private) for one in files_of(state)]),
    }
    writers[kind](archive, state, path)


def _sweep(directory: Path) -> None:
    """Remove what processes left that were ended in the middle: it holds rows of tables."""
    for left in directory.glob(".*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)


def _make_last(path: Path) -> None:
    """Bring a file to the disk, as its owner's alone."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.fsync(fd)
    finally:
        os.close(fd)


def _path(cache: Path, state: ProjectState, file: TableFile) -> Path:
    return cache / "projects" / f"{state.root}-{state.changed}-{VERSION}-{file.name}"


def _all(cache: Path, root: int) -> Iterator[Path]:
    return (cache / "projects").glob(f"{root}-*")
