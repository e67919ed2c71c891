"""Who copies a series finds the next file begun; who looks only at beginnings has nothing made for him."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.mount.upcoming import FILES, LONG, Upcoming
from dicomfs.vfs.tree import Tree
from tests.builders import write_study
from tests.mount.conftest import import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.mount.conftest import Drive

INSTANCES = 7


@pytest.fixture
def filled(archive_path: Path, tmp_path: Path) -> dict[str, Path]:
    written = write_study(tmp_path / "ct", instances=INSTANCES, rows=301, columns=303)
    import_into(archive_path, tmp_path / "ct")
    return {sha256: path for path, sha256 in written.items()}


@pytest.fixture
def tree(archive_path: Path, filled: dict[str, Path]) -> Iterator[Tree]:
    with Archive.open(archive_path) as archive:
        yield Tree(archive, ["patients"])


def instances(tree: Tree) -> list[int]:
    found: list[int] = []
    directories = [1]
    while directories:
        for _, ino, is_directory, size, *_ in tree.entries(directories.pop()):
            if is_directory:
                directories.append(ino)
            elif size > LONG:
                found.append(ino)
    return sorted(found)


def test_the_files_after_two_whole_ones_are_begun(tree: Tree, filled: dict[str, Path]) -> None:
    first, *rest = instances(tree)
    upcoming = Upcoming(tree.open_ready)
    for ino in (first, rest[0]):
        assert upcoming.take(ino) is None
        with_size = tree.open(ino).size
        upcoming.note(ino, 0, LONG, with_size)
        upcoming.note(ino, LONG, with_size, with_size)
    for ino in rest[1 : 1 + FILES]:
        file = upcoming.take(ino)
        assert file is not None
        assert file.coming(0, LONG) is not None
        assert hashlib.sha256(file.read(0, file.size)).hexdigest() in filled
        assert upcoming.take(ino) is None
        file.close()
    assert upcoming.take(rest[1 + FILES]) is None


def test_nothing_comes_after_beginnings_or_files_that_are_apart(tree: Tree) -> None:
    inodes = instances(tree)
    for read in (inodes[::2], inodes[::-1]):
        upcoming = Upcoming(tree.open_ready)
        for ino in read:
            upcoming.note(ino, 0, tree.open(ino).size, tree.open(ino).size)
        assert not any(upcoming.take(ino) for ino in inodes)
    upcoming = Upcoming(tree.open_ready)
    for ino in inodes:
        upcoming.note(ino, 0, LONG, tree.open(ino).size)
    assert not any(upcoming.take(ino) for ino in inodes)


def test_few_files_are_held(tree: Tree) -> None:
    inodes = instances(tree)
    upcoming = Upcoming(tree.open_ready)
    for ino in inodes:
        upcoming.note(ino, 0, LONG, LONG)
    # Past the last one there is nothing, which hurts nobody.
    assert sum(upcoming.take(ino) is not None for ino in range(inodes[0], inodes[-1] + 100)) <= FILES


def test_a_copy_of_a_series(
    mount_drive: Callable[..., Drive], archive_path: Path, filled: dict[str, Path], tmp_path: Path
) -> None:
    drive = mount_drive(archive_path)
    for number in range(2):
        copy = tmp_path / f"copy{number}"
        run("cp", "-r", drive.path / "patients", copy)
        found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in copy.rglob("*.dcm")}
        assert found == set(filled)
