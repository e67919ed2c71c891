"""What tests of versions share: changes by archive-level calls, and what must hold after each."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from dicomfs.archive.changing import Changing
from dicomfs.archive.check import check
from dicomfs.archive.committing import writing
from dicomfs.archive.rebuild import reindex
from tests.archive.importing import tables, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def change(archive: Path, op: str, do: Callable[[Changing], object], reason: str = "") -> int:
    """Make one commit; return its number."""
    warned: list[str] = []
    with writing(archive, "a test", 0.0) as opened:
        changing = Changing(archive, opened, op, reason)
        do(changing)
        seq = changing.done(warned.append)
    assert warned == []
    return seq


def delete(archive: Path, *paths: str) -> int:
    """Delete files by their paths below `patients/`."""
    files = tree(archive)
    numbers = [files[path].ino for path in paths]
    return change(archive, "delete", lambda changing: [changing.delete(ino) for ino in numbers], "wrong patient")


def restore(archive: Path, *numbers: int) -> int:
    """Bring instances back."""
    return change(archive, "restore", lambda changing: [changing.restore(ino) for ino in numbers])


def holds(archive: Path) -> None:
    """The archive is whole, and its index is what the packs give."""
    report = check(archive, verify_files=True)
    assert report.problems == []
    index = tables(archive)
    shutil.rmtree(archive / "index")
    assert reindex(archive).complete
    assert tables(archive) == index
