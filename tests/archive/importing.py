"""Imports for tests: files in, results out, and what an archive then shows and holds."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dicomfs.archive.archive import Archive
from dicomfs.archive.ingest import ImportOptions, import_paths
from dicomfs.archive.outcome import FileResult, ImportReport, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dicomfs.archive.catalog import View

# Tables of the index, but for what it knows of packs, which says whether they are sealed.
Tables = dict[str, dict[bytes, bytes]]


class Done(NamedTuple):
    """An import and its results in the order in which they were told."""

    report: ImportReport
    results: list[FileResult]

    @property
    def outcomes(self) -> list[Outcome]:
        return [result.outcome for result in self.results]

    def by_name(self) -> dict[str, Outcome]:
        return {Path(result.source).name: result.outcome for result in self.results}


class Shown(NamedTuple):
    """A file of the readable tree."""

    ino: int
    size: int
    sha256: str


def run(archive: Path, *paths: Path, jobs: int = 1, **options: Any) -> Done:
    """Import paths."""
    results: list[FileResult] = []
    report = import_paths(archive, list(paths), ImportOptions(jobs=jobs, **options), on_result=results.append)
    return Done(report, results)


def write(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by name into a new directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


_numbers = itertools.count()


def add(archive: Path, *contents: bytes, **options: Any) -> Done:
    """Import files of these contents, in this order."""
    directory = archive.parent / f"source{next(_numbers)}"
    write(directory, {f"{number:04d}": content for number, content in enumerate(contents)})
    return run(archive, directory, **options)


def sha256(content: bytes) -> str:
    """Return the SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


class Entry(NamedTuple):
    """An entry of a directory."""

    ino: int
    is_directory: bool
    size: int
    mtime_ns: int
    subdirectories: int
    name: bytes


def children(view: View, ino: int, after: int = 0) -> Iterator[Entry]:
    """Walk a directory; its names must all be possible."""
    left_out: list[int] = []
    for name, child, is_directory, size, mtime_ns, links, cookie in view.children(ino, after, 1, left_out.append):
        assert cookie == child
        yield Entry(child, is_directory, size, mtime_ns, links - 2 if is_directory else links - 1, name)
    assert left_out == []


def walk(view: View, ino: int = 2, path: str = "") -> dict[str, Shown]:
    """Return the files below a directory, by their path in it."""
    found: dict[str, Shown] = {}
    for child, is_directory, size, _, _, name in children(view, ino):
        below = f"{path}/{name.decode()}" if path else name.decode()
        if is_directory:
            found |= walk(view, child, below)
        else:
            found[below] = Shown(child, size, view.instance(child).sha256.hex())
    return found


def tree(archive: Path) -> dict[str, Shown]:
    """Return the readable tree."""
    with Archive.open(archive) as opened, opened.view() as view:
        return walk(view)


def contents(archive: Path) -> dict[int, bytes]:
    """Return the bytes of every instance by inode number, earlier versions too."""
    found = {}
    with Archive.open(archive) as opened:
        with opened.view() as view:
            files = [ino for ino in view.inodes() if (node := view.node(ino)) is not None and not node.is_directory]
        for ino in files:
            file = opened.open_instance(ino)
            found[ino] = bytes(file.read(0, file.size))
    return found


def tables(archive: Path) -> Tables:
    """Return every record of the index, but for what it knows of packs."""
    found: Tables = {}
    with Archive.open(archive) as opened, opened.store.index.reading() as txn:
        for name, table in opened.store.index.tables.items():
            cursor = txn.cursor(db=table)
            found[name] = dict(cursor.iternext()) if name != "pack" and cursor.first() else {}
    return found


def packs(archive: Path) -> list[Path]:
    """Return the packs."""
    return sorted((archive / "packs").glob("*.zip"))


def snapshot(directory: Path, *, but: Sequence[str] = ()) -> dict[str, tuple[int, int, str]]:
    """Return mode, time of change and SHA-256 of everything below a directory."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.name not in but:
            status = path.lstat()
            content = sha256(path.read_bytes()) if path.is_file() else ""
            found[str(path.relative_to(directory))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def flip(path: Path, at: int, bits: int = 0x10) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ bits]))
