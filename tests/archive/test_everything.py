"""Random sequences of all that changes an archive: what it shows, what it was and what it is made of is as a model says.

DICOMFS_WALKS says how many sequences, DICOMFS_SEED from which seed on, DICOMFS_WALK_STEPS how long each is, and
DICOMFS_STEPS repeats one. `scripts/prove-history` is the long form.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests import quick
from tests.archive.history_walk import Walk, steps_of, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WALKS = int(os.environ.get("DICOMFS_WALKS", "6"))
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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + WALKS))
def test_everything_in_any_order(tmp_path: Path, seed: int) -> None:
    steps = os.environ.get("DICOMFS_STEPS", "").split() or steps_of(seed, STEPS)
    walk = Walk(tmp_path / "archive", project=PROJECTS[seed % len(PROJECTS)])
    done: list[str] = []
    try:
        walk.begin()
        for step in steps:
            done.append(step)
            walk.step(step)
        walk.end()
    except BaseException as error:
        error.add_note(f"to repeat: DICOMFS_WALKS=1 DICOMFS_SEED={seed} {told(done)}")
        raise
    print(dict(sorted(walk.done.items())))
