"""Trees of the archive in process: no mount."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.vfs.node import waited
from dicomfs.vfs.tree import Tree
from tests.builders import make_instance, write_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from dicomfs.archive.archive import Archive
    from dicomfs.vfs.node import Attributes, Entry

    Plant: TypeAlias = Callable[..., "PatientTree"]


CHECKOUT = Path(__file__).resolve().parents[2]
IMPORT = """
import sys
from pathlib import Path
from dicomfs.archive.ingest import ImportOptions, import_paths
import_paths(Path(sys.argv[1]), [Path(path) for path in sys.argv[3:]], ImportOptions(on_conflict=sys.argv[2], jobs=1))
"""


class Stock(NamedTuple):
    """An archive open for reading, and what was imported: path and SHA-256."""

    archive: Archive
    written: dict[Path, str]


@pytest.fixture
def stock(archive_path: Path, tmp_path: Path) -> Iterator[Stock]:
    from dicomfs.archive.archive import Archive

    written = write_study(tmp_path / "ct", series=2, instances=5, rows=96, columns=96)
    written |= write_study(tmp_path / "mr", modality="MR", instances=3, patient="DFS-2")
    (tmp_path / "ct" / "cut").write_bytes(make_instance(number=99)[:-700])
    add(archive_path, tmp_path / "ct", tmp_path / "mr")
    with Archive.open(archive_path) as archive:
        yield Stock(archive, written)


def add(archive_path: Path, *paths: Path, on_conflict: str = "keep") -> None:
    """Import files in a process of its own: an index is open once in a process."""
    words = [sys.executable, "-c", IMPORT, str(archive_path), on_conflict, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr


class PatientTree(Tree):
    """A tree whose answers are waited for."""

    def attributes(self, ino: int) -> Attributes | None:
        return waited(lambda: Tree.attributes(self, ino))

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        return waited(lambda: Tree.lookup(self, parent, name))

    def entries(self, ino: int, cookie: int = 0) -> Iterator[Entry]:
        return waited(lambda: Tree.entries(self, ino, cookie))


@pytest.fixture
def plant() -> Iterator[Plant]:
    """Make trees that leave no processes behind."""
    planted: list[Tree] = []

    def make(archive: Archive, views: Sequence[str] | None = None) -> PatientTree:
        tree = PatientTree(archive, views)
        planted.append(tree)
        return tree

    yield make
    for tree in planted:
        tree.close()
