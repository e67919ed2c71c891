"""Find what nobody needs of cache/: documents, pictures, tables and indexes that the archive as it is does not show.

What is younger than a day stays whatever it is: somebody may be reading it, or writing it. What is in use stays for
ever. What is not known by its name is left alone. But where versions were forgotten, what tells of them goes at once.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.archive import archive_index, documents, omidb, pictures, project_tables, states, tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.errors import NotFound

LASTING_S: Final = 24 * 3600.0
"""So long lists stay, needed or not."""

_BUNDLE: Final = re.compile(r"([a-z]+)-(\d+)-([0-9a-f.]+)").fullmatch
_PICTURE: Final = re.compile(r"(\d+)-\d+\.(?:jpg|png)").fullmatch
_TABLE: Final = re.compile(r"\d+-\d+-\d+-[a-z_]+\.[a-z]+").fullmatch
_INDEX: Final = re.compile(r"(\d+)-\d+-[0-9a-f]+\.json").fullmatch
_REST: Final = re.compile(r"\..+|.+\.tmp|.+-again").fullmatch
"""What a process leaves that is ended in the middle, and bundles that were put aside."""


class Cached(NamedTuple):
    """A file of the cache, or an earlier state."""

    path: Path
    size: int


def superseded(archive: Archive, *, forgotten: bool = False) -> Iterator[Cached]:
    """Walk the files of the cache that are older than a day and of no use any more.

    Where versions were `forgotten`, documents and pictures that may tell of them need not be old: whoever has one open
    keeps it, and nobody else finds it.
    """
    cache = archive.path / "cache"
    before_s = time.time() - LASTING_S
    for name, in_use in _KINDS.items():
        for path in _files(cache / name):
            with suppress(FileNotFoundError):  # somebody made a newer one
                status = path.lstat()
                old = status.st_mtime < before_s or (forgotten and name in _TELLING and not _REST(path.name))
                if old and not _is_needed(archive, cache, path, in_use):
                    yield Cached(path, status.st_size)


def remove(found: Cached) -> bool:
    """Remove a file, and its directory if that is empty then, or a state; say whether it is gone."""
    if found.path.is_dir():
        return states.remove(found.path)
    try:
        found.path.unlink(missing_ok=True)
    except OSError:
        return False
    with suppress(OSError):
        found.path.parent.rmdir()
    return True


def _files(directory: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(directory):
        yield from (Path(folder, name) for name in sorted(names))


_InUse = Callable[[View, Path, Path], bool]


def _is_needed(archive: Archive, cache: Path, path: Path, in_use: _InUse) -> bool:
    if _REST(path.name):
        return False
    with archive.view() as view:
        try:
            return in_use(view, cache, path)
        except NotFound:
            return False


def _bundle(view: View, cache: Path, path: Path) -> bool:
    known = _BUNDLE(path.name)
    if known is None:
        return True
    stamp = _STAMPS.get(known[1])
    number = int(known[2])
    return stamp is not None and path == documents.path(cache, known[1], number, stamp(view, number))


def _client_stamp(view: View, folder: int) -> str:
    return omidb.client(view, folder, omidb.patient_of(view, folder)).stamp


_STAMPS: Final[dict[str, Callable[[View, int], str]]] = {
    "series": documents.series_stamp,
    "part": documents.series_stamp,
    "study": documents.study_stamp,
    "superseded": documents.study_stamp,
    "studies": lambda view, _: documents.studies_stamp(view),
    omidb.NAME: documents.study_stamp,
    "client": _client_stamp,
}


def _picture(view: View, cache: Path, path: Path) -> bool:
    known = _PICTURE(path.name)
    if known is None:
        return True
    if cache / "pictures" / str(pictures.VERSION) not in path.parents:
        return False
    return view.instance_inode(int(known[1])).parent != tables.NOWHERE


def _table(view: View, cache: Path, path: Path) -> bool:
    if _TABLE(path.name) is None:
        return True
    root = int(path.name.partition("-")[0])
    return path in project_tables.paths(cache, view.project(root))


def _index(view: View, cache: Path, path: Path) -> bool:
    known = _INDEX(path.name)
    if known is None:
        return True
    root = int(known[1])
    if not any(state.root == root and state.on for state in view.layouts()):
        return False
    latest = archive_index.made(cache, root)
    return latest is not None and latest.path == path


_KINDS: Final[dict[str, _InUse]] = {
    "documents": _bundle,
    "pictures": _picture,
    "projects": _table,
    "indexes": _index,
}
_TELLING: Final = ("documents", "pictures")
"""What is made of instances, and so tells what they were."""
