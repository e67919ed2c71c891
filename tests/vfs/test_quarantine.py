"""The quarantine as files: what lies there is what is shown, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from dicomfs.errors import NotFound
from dicomfs.vfs.node import NOTHING, QUARANTINE, ROOT
from dicomfs.vfs.quarantine import Quarantine

if TYPE_CHECKING:
    from pathlib import Path

FIRST = "0" * 63 + "1"
LAST = "f" * 64


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "quarantine"
    path.mkdir()
    for digits in (LAST, FIRST):
        (path / f"{digits}.dcm").write_bytes(b"DICM" * 2000)
        (path / f"{digits}.txt").write_text("it is cut off\n")
    return path


def test_files_and_their_reasons_are_listed_in_one_order(directory: Path) -> None:
    shown = Quarantine(directory)
    names = [entry[0].decode() for entry in shown.entries(QUARANTINE, 0)]
    assert names == [f"{digits}{suffix}" for digits in (FIRST, LAST) for suffix in (".dcm", ".txt")]
    assert [entry[:2] for entry in Quarantine(directory).entries(QUARANTINE, 0)] == [
        entry[:2] for entry in shown.entries(QUARANTINE, 0)
    ]


def test_what_does_not_belong_there_is_not_shown(directory: Path) -> None:
    (directory / "notes.txt").touch()
    (directory / f"{'0' * 64}.tmp").touch()
    (directory / f"{'a' * 64}.dcm").symlink_to("/etc/passwd")
    (directory / f"{'b' * 64}.dcm").mkdir()
    shown = Quarantine(directory)
    assert len(list(shown.entries(QUARANTINE, 0))) == 4
    assert shown.lookup(QUARANTINE, b"notes.txt") is None
    assert shown.lookup(QUARANTINE, b"a" * 64 + b".dcm") is None
    assert shown.lookup(QUARANTINE, b"../dicomfs.toml") is None
    assert shown.lookup(QUARANTINE, b"0" * 12 + b"/" * 40 + b"/etc/passwd.dcm") is None
    assert shown.lookup(QUARANTINE, b"\xff") is None


def test_files_read_at_any_offset(directory: Path) -> None:
    shown = Quarantine(directory)
    found = shown.lookup(QUARANTINE, f"{FIRST}.dcm".encode())
    assert found is not None
    file = shown.open(found.ino)
    whole = b"DICM" * 2000
    for offset, size in ((0, 8000), (1, 3), (7999, 10), (8000, 1), (9000, 1)):
        assert file.read(offset, size) == whole[offset : offset + size]
        assert file.read_ready(offset, size) in (whole[offset : offset + size], None)
    file.close()


def test_a_new_file_is_found_at_once_and_a_gone_one_no_more(directory: Path) -> None:
    shown = Quarantine(directory, relist_s=0)
    before = list(shown.entries(QUARANTINE, 0))
    assert shown.changes() == NOTHING
    (directory / f"{'5' * 64}.dcm").touch()
    assert shown.lookup(QUARANTINE, b"5" * 64 + b".dcm") is not None
    assert len(list(shown.entries(QUARANTINE, 0))) == 5
    os.unlink(directory / f"{FIRST}.dcm")
    assert shown.lookup(QUARANTINE, f"{FIRST}.dcm".encode()) is None
    with pytest.raises(NotFound):
        shown.open(before[0][1])
    found = shown.changes()
    assert QUARANTINE in found.directories
    # Which files went is looked for when no more change.
    assert shown.changes() == (frozenset(), [(QUARANTINE, f"{FIRST}.dcm".encode())], True)
    assert shown.changes() == NOTHING


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the directories that were listed, as long as this grows."""
    listed: list[Path] = []
    real = os.listdir

    def listdir(path: Path) -> list[str]:
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    return listed


def test_an_import_that_quarantines_costs_no_listings(directory: Path, listings: list[Path]) -> None:
    """The directory changes with every file then, and may hold very many."""
    shown = Quarantine(directory, relist_s=1e9)
    for number in range(20):
        name = f"{number:064x}.dcm"
        (directory / name).write_bytes(b"DICM")
        found = shown.lookup(QUARANTINE, name.encode())
        assert found is not None
        assert shown.attributes(found.ino) == found
        assert shown.parent(found.ino) == QUARANTINE
        shown.open(found.ino).close()
        assert shown.lookup(QUARANTINE, b"e" * 64 + b".txt") is None
        os.utime(directory, ns=(number, number))
        assert shown.changes().directories == {QUARANTINE, ROOT}
    assert listings == []
    first = list(shown.entries(QUARANTINE, 0))
    (directory / f"{'7' * 64}.txt").touch()
    assert [entry for cookie in (0, first[3][-1], 0) for entry in shown.entries(QUARANTINE, cookie)] == [
        *first, *first[4:], *first,
    ]  # fmt: skip
    assert shown.attributes(found.ino + (1 << 20)) is None
    assert len(listings) == 1


def test_no_directory_is_an_empty_one(tmp_path: Path) -> None:
    shown = Quarantine(tmp_path / "none")
    assert list(shown.entries(QUARANTINE, 0)) == []
    assert shown.changes() == NOTHING
    found = shown.attributes(QUARANTINE)
    assert found is not None
    assert found.is_directory
