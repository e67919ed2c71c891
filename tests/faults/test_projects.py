"""`dicomfs project create`, killed, interrupted, without room: the archive is sound, and running it again goes on."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.rebuild import reindex
from dicomfs.archive.tables import ROOT_PROJECTS
from tests.archive.importing import tables
from tests.archive.project_scenes import below
from tests.faults.scene import STOPPING, assert_sound, dicomfs, disk, kill, members, start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Source

# Small commits and batches; and one key for all, so that names can be compared.
PREPARED = """
import secrets
secrets.token_bytes = bytes
from dicomfs.archive import project_making
project_making.COMMIT_LINKS, project_making.BATCH = 20, 8
"""
SLOW = """
import time
done = project_making._Adding._done
project_making._Adding._done = lambda self: (time.sleep(0.02), done(self))[1]
"""
RUNNING = "import sys; from dicomfs.cli import main; sys.exit(main())"
PREPARED_RUN = (sys.executable, "-c", PREPARED + RUNNING)
DEID = ("--deid", "basic")
WHERE = ("--where", "PatientID=*")


def create(archive: Path, *options: str) -> tuple[object, ...]:
    return ("project", "create", "own", *WHERE, *options, "-a", archive)


@pytest.fixture(scope="module")
def stocked(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive without projects."""
    archive = tmp_path_factory.mktemp("stocked") / "archive"
    dicomfs("init", archive)
    dicomfs("import", source.path, "-a", archive)
    return archive


@pytest.fixture(scope="module", params=[(), DEID], ids=["identified", "derived"])
def expected(request: pytest.FixtureRequest, stocked: Path, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """Return the options of a project, and what one that was left alone shows."""
    archive = shutil.copytree(stocked, tmp_path_factory.mktemp("alone") / "archive")
    process = start(*create(archive, *request.param), command=PREPARED_RUN)
    assert process.wait(120) == 0, process.communicate()
    process.communicate()
    return request.param, shown(archive)


Expected = tuple[tuple[str, ...], dict[str, bytes]]


def shown(archive: Path) -> dict[str, bytes]:
    """Return the bytes of every file of the one project, by its path in it."""
    found = {}
    files = below(archive, ROOT_PROJECTS)
    with Archive.open(archive) as opened:
        for path, ino in files.items():
            file = opened.open_instance(ino)
            found[path.partition("/")[2]] = bytes(file.read(0, file.size))
    return found


def seq(archive: Path) -> int:
    """Return the number of the last commit."""
    with Archive.open(archive) as opened, opened.view() as view:
        return view.seq


def same_from_packs(archive: Path) -> None:
    """The index that the packs give is the one that is there."""
    index = tables(archive)
    shutil.rmtree(archive / "index")
    assert reindex(archive).complete
    assert tables(archive) == index


@pytest.mark.parametrize("step", ["before record", "written", "synced", "indexed"])
@pytest.mark.parametrize("commit", [1, 2, 7])
def test_killed_at_each_step(stocked: Path, expected: Expected, tmp_path: Path, step: str, commit: int) -> None:
    options, alone = expected
    archive = shutil.copytree(stocked, tmp_path / "archive")
    stopping = (sys.executable, "-c", PREPARED + STOPPING, step, str(seq(archive) + commit))
    process = start(*create(archive, *options), command=stopping)
    output = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    part = shown(archive)
    again = start(*create(archive, *options), command=PREPARED_RUN)
    assert again.wait(120) == 0, again.communicate()
    again.communicate()
    whole = shown(archive)
    assert part.items() <= whole.items()
    assert whole == alone
    assert_sound(archive)
    same_from_packs(archive)


def test_killed_at_random_moments(stocked: Path, expected: Expected, tmp_path: Path) -> None:
    options, alone = expected
    archive = shutil.copytree(stocked, tmp_path / "archive")
    chance = random.Random(7)
    for _ in range(5):
        process = start(*create(archive, *options), command=PREPARED_RUN)
        try:
            process.wait(chance.uniform(0.3, 1.5))
        except subprocess.TimeoutExpired:
            kill(process)
        else:
            process.communicate()
            break  # another one would be another project
        assert_sound(archive)
    else:
        process = start(*create(archive, *options), command=PREPARED_RUN)
        assert process.wait(120) == 0, process.communicate()
        process.communicate()
    assert shown(archive) == alone
    assert_sound(archive)
    same_from_packs(archive)


def test_interrupted(stocked: Path, expected: Expected, tmp_path: Path) -> None:
    """By Ctrl-C, which is told in a line; no process is left."""
    options, alone = expected
    archive = shutil.copytree(stocked, tmp_path / "archive")
    before = seq(archive)
    process = start(*create(archive, *options), command=(sys.executable, "-c", PREPARED + SLOW + RUNNING))
    deadline = time.monotonic() + 60
    while seq(archive) < before + 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.strip().splitlines() == ["dicomfs: interrupted; run the same command again to go on"], (out, err)
    assert members(process.pid) == []
    assert 0 < len(shown(archive)) < len(alone)
    again = start("project", "resume", "own", "-a", archive, command=PREPARED_RUN)
    assert again.wait(120) == 0, again.communicate()
    again.communicate()
    assert shown(archive) == alone
    assert_sound(archive)


def test_without_room(source: Source, expected: Expected) -> None:
    """What was committed is safe, and the rest comes when there is room."""
    options, alone = expected
    with disk(24) as place:
        archive = place / "archive"
        dicomfs("init", archive)
        dicomfs("import", source.path, "-a", archive)
        filler = place / "filler"
        left = shutil.disk_usage(place).free
        with filler.open("wb") as file:
            file.write(bytes(max(left - (40 << 10), 0)))
        result = start(*create(archive, *options), command=PREPARED_RUN)
        out, err = result.communicate(timeout=120)
        assert result.returncode == 1, (out, err)
        assert "disk is full" in err or "No space left" in err
        assert "Traceback" not in err
        filler.unlink()
        again = start(*create(archive, *options), command=PREPARED_RUN)
        assert again.wait(120) == 0, again.communicate()
        again.communicate()
        assert shown(archive) == alone
        assert_sound(archive)
