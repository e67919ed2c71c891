"""`dicomfs merge`, killed: the archive is sound, the other one untouched, and merging again completes it."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from tests.archive.importing import snapshot, tree
from tests.archive.merging import State, edit, state
from tests.archive.versions import delete, holds
from tests.faults.scene import STOPPING, dicomfs, kill, start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Source

SMALL_COMMITS = "from dicomfs.archive import merging; merging.COMMIT_FILES = 8\n"
RUNNING = "import sys; from dicomfs.cli import main; sys.exit(main())"
SEX, NAME = 0x00100040, 0x00100010


class Scene(NamedTuple):
    """Two archives that were changed apart, and what one shows after a merge."""

    archive: Path
    other: Path
    merged: State


@pytest.fixture(scope="module")
def scene(source: Source, small_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    base = tmp_path_factory.mktemp("scene")
    archive, other, joined = base / "archive", base / "other", base / "joined"
    dicomfs("init", archive)
    dicomfs("import", small_source.path, "-a", archive)
    shutil.copytree(archive, other)
    dicomfs("import", source.path / "MR", "-a", other)
    uids = sorted(state(archive).shown)
    edit(archive, uids[:8], set={NAME: ("Roe^Jane",)})
    edit(other, uids[4:10], set={SEX: ("F",)})
    edit(other, uids[:2], set={NAME: ("Poe^Jane",)})
    path = next(path for path, file in sorted(tree(archive).items()) if file.sha256 in state(archive).shown[uids[11]])
    delete(archive, path)
    shutil.copytree(archive, joined)
    dicomfs("merge", other, "-a", joined, status=1)
    return Scene(archive, other, state(joined))


def seq(archive: Path) -> int:
    """Return the number of the last commit."""
    with Archive.open(archive) as opened, opened.view() as view:
        return view.seq


@pytest.mark.parametrize("step", ["before record", "written", "synced", "indexed"])
@pytest.mark.parametrize("commit", [1, 3])
def test_killed_at_each_step(scene: Scene, tmp_path: Path, step: str, commit: int) -> None:
    archive = shutil.copytree(scene.archive, tmp_path / "archive")
    before = snapshot(scene.other, but=["lock.mdb"])
    stopping = (sys.executable, "-c", SMALL_COMMITS + STOPPING, step, str(seq(archive) + commit))
    process = start("merge", scene.other, "-a", archive, command=stopping)
    output = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    dicomfs("merge", scene.other, "-a", archive, status=1)
    assert check(archive, verify_files=True).problems == []
    assert state(archive) == scene.merged
    assert snapshot(scene.other, but=["lock.mdb"]) == before


def test_killed_at_random_moments(scene: Scene, tmp_path: Path) -> None:
    archive = shutil.copytree(scene.archive, tmp_path / "archive")
    chance = random.Random(5)
    command = (sys.executable, "-c", SMALL_COMMITS + RUNNING)
    for _ in range(6):
        process = start("merge", scene.other, "-a", archive, command=command)
        try:
            process.wait(chance.uniform(0.3, 1.2))
        except subprocess.TimeoutExpired:
            kill(process)
        else:
            process.communicate()
        assert check(archive, verify_files=True).problems == []
    dicomfs("merge", scene.other, "-a", archive, status=1)
    assert state(archive) == scene.merged
    holds(archive)
