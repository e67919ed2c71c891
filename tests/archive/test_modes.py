"""An archive is its owner's, and a group's where its owner says so."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.rebuild import reindex
from tests.archive.importing import add, packs
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path


def modes(path: Path) -> dict[str, int]:
    return {str(one.relative_to(path)): stat.S_IMODE(one.stat().st_mode) for one in (path, *path.rglob("*"))}


def test_an_archive_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    Archive.init(path)
    add(path, make_instance())
    add(path, make_instance(number=2))
    reindex(path)
    found = modes(path)
    assert len(packs(path)) == 2
    kept = {name: mode for name, mode in found.items() if not name.startswith(("runs/", "quarantine/"))}
    assert {name: mode for name, mode in kept.items() if mode not in (0o700, 0o600)} == {}


def test_a_directory_that_is_there_stays_as_open_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.mkdir()
    path.chmod(0o755)
    Archive.init(path)
    assert modes(path)["."] == 0o755
    assert modes(path)["packs"] == modes(path)["index"] == 0o700


def test_an_archive_of_a_group(tmp_path: Path) -> None:
    """What is made later is open to those to whom the owner gave the directories."""
    path = tmp_path / "archive"
    Archive.init(path)
    for one in (path, path / "packs", path / "index"):
        one.chmod(0o2770)
    add(path, make_instance())
    reindex(path)
    found = modes(path)
    assert found["packs/00000001.zip"] == found["index/lock.mdb"] == found["index/data.mdb"] == 0o660
    assert found["index"] == 0o2770
    assert check(path, verify_files=True).problems == []
