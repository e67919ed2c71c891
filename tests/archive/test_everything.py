"""Random sequences of all that changes an archive: what it shows and what it was is as a simple model says.

DICOMFS_WALKS says how many sequences, DICOMFS_SEED from which seed on, DICOMFS_WALK_STEPS how long each is, and
DICOMFS_STEPS repeats one. `scripts/prove-history` is the long form.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests import quick
from tests.archive.history_model import Unlike
from tests.archive.history_walk import Walk, first_difference, steps_of
from tests.archive.test_as_of import Shown, State
from tests.mount.conftest import mount_drive as mount_drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.mount.conftest import Drive

WALKS = int(os.environ.get("DICOMFS_WALKS", "6"))
MOUNTED = -(-WALKS // 6)
STEPS = int(os.environ.get("DICOMFS_WALK_STEPS", "12"))
FIRST = int(os.environ.get("DICOMFS_SEED", "0"))
PROJECTS = ("", "own", "", "own", "deid")


@pytest.fixture(autouse=True)
def forks() -> Iterator[None]:
    """Start processes quickly."""
    with quick.processes():
        yield


@pytest.fixture(autouse=True, scope="module")
def nursery() -> Iterator[None]:
    """End what starts them."""
    yield
    quick.end()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + WALKS))
def test_everything_in_any_order(tmp_path: Path, seed: int) -> None:
    walk = Walk(tmp_path / "archive", project=PROJECTS[seed % len(PROJECTS)])
    walk.begin()
    go(walk, seed)


@pytest.mark.slow
@pytest.mark.mounted
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(FIRST + 1000, FIRST + 1000 + MOUNTED))
def test_everything_in_any_order_on_a_drive(tmp_path: Path, mount_drive: Callable[..., Drive], seed: int) -> None:
    """The drive stays mounted all the time, and shows each state within seconds of its commit."""
    walk = Walk(tmp_path / "archive", project=PROJECTS[seed % len(PROJECTS)])
    walk.begin()
    drive = mount_drive(walk.path)

    def agrees(state: State) -> None:
        drive.watch()
        deadline = time.monotonic() + 30
        while (found := on(drive.path, state)) != state.files and time.monotonic() < deadline:
            time.sleep(0.02)
        if found != state.files:
            raise Unlike(f"the drive shows something else: {first_difference(state.files, found)}")
        files = os.statvfs(drive.path).f_files
        if files != len(walk.model.shown()):
            raise Unlike(f"the drive says that it has {files} files, not {len(walk.model.shown())}")

    walk.drive_agrees = agrees
    go(walk, seed)


def go(walk: Walk, seed: int) -> None:
    """Take the steps of a walk."""
    steps = os.environ.get("DICOMFS_STEPS", "").split() or steps_of(seed, STEPS)
    done: list[str] = []
    try:
        for step in steps:
            done.append(step)
            walk.step(step)
        walk.end()
    except BaseException as error:
        error.add_note(f"to repeat: DICOMFS_SEED={seed} DICOMFS_STEPS='{' '.join(done)}'")
        raise
    print(dict(sorted(walk.done.items())))


def on(place: Path, state: State) -> dict[str, Shown]:
    """Return what a drive has in the views of a state; what is removed while one looks is not there."""
    found: dict[str, Shown] = {}
    for view in {path.split("/")[0] for path in state.files}:
        _look(place / view, view, found)
    return found


def _look(path: Path, name: str, found: dict[str, Shown]) -> None:
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        if path.is_dir():
            for entry in os.listdir(path):
                _look(path / entry, f"{name}/{entry}", found)
        digest = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = Shown(status.st_ino, status.st_nlink, status.st_size, status.st_mtime_ns, digest)
