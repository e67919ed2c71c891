"""`dicomfs layout add`, killed: the archive is sound, and running it again gives the names of one left alone."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from tests.archive.importing import walk
from tests.faults.scene import STOPPING, assert_sound, dicomfs, kill, start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Source

SMALL_COMMITS = "from dicomfs.archive import layouts; layouts.COMMIT_LINKS = 20\n"
RUNNING = "import sys; from dicomfs.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def stocked(source: Source, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return an archive, and the names that each file of a copy of it got, by its SHA-256."""
    base = tmp_path_factory.mktemp("stocked")
    dicomfs("init", base / "archive")
    dicomfs("import", source.path, "-a", base / "archive")
    shutil.copytree(base / "archive", base / "copy")
    dicomfs("layout", "add", "icore", "-a", base / "copy")
    return base / "archive", names(base / "copy")


def names(archive: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of the layout by its path."""
    with Archive.open(archive) as opened, opened.view() as view:
        return {path: file.sha256 for state in view.layouts() for path, file in walk(view, state.root).items()}


def seq(archive: Path) -> int:
    """Return the number of the last commit."""
    with Archive.open(archive) as opened, opened.view() as view:
        return view.seq


@pytest.mark.parametrize("step", ["before record", "written", "synced", "indexed"])
@pytest.mark.parametrize("commit", [1, 2, 7, 13])
def test_killed_at_each_step(stocked: tuple[Path, dict[str, str]], tmp_path: Path, step: str, commit: int) -> None:
    archive = shutil.copytree(stocked[0], tmp_path / "archive")
    stopping = (sys.executable, "-c", SMALL_COMMITS + STOPPING, step, str(seq(archive) + commit))
    process = start("layout", "add", "icore", "-a", archive, command=stopping)
    output = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    part = names(archive)
    dicomfs("layout", "add", "icore", "-a", archive)
    assert_sound(archive)
    assert part.items() <= names(archive).items()
    assert names(archive) == stocked[1]


def test_killed_at_random_moments(stocked: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive = shutil.copytree(stocked[0], tmp_path / "archive")
    chance = random.Random(5)
    for _ in range(6):
        process = start(
            "layout", "add", "icore", "-a", archive, command=(sys.executable, "-c", SMALL_COMMITS + RUNNING)
        )
        try:
            process.wait(chance.uniform(0.15, 0.6))
        except subprocess.TimeoutExpired:
            kill(process)
        else:
            process.communicate()
        assert_sound(archive)
    dicomfs("layout", "add", "icore", "-a", archive)
    assert_sound(archive)
    assert names(archive) == stocked[1]
