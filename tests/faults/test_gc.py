"""kill -9 in the middle of `gc`, at every step and at random, and full disks: the archive is as before, or as after.

DICOMFS_KILLS says how many random moments.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from tests.archive.test_gc import orphans
from tests.builders import write_study
from tests.faults.scene import (
    dicomfs,
    disk,
    drive,
    kill,
    sha256_of_tree,
    start,
)
from tests.faults.test_disk import fill

if TYPE_CHECKING:
    from tests.faults.conftest import Source

KILLS = int(os.environ.get("DICOMFS_KILLS", "12"))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "format.md"

# `dicomfs gc` with an end of itself at one step, in small steps.
STOPPING = """
import os, signal, sys
step = sys.argv.pop(1)
from dicomfs.archive import gc
collect = gc.collect
def stopping(*arguments, **options):
    def at(name):
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)
    return collect(*arguments, faults=at, **options)
gc.collect = stopping
from dicomfs.cli import main
sys.exit(main())
"""
HEALERS = ("gc", "import", "reindex")
STEPS = ("packs", "index", "intent", "named 7", "named", "swapped", "removed 1", "removed 5", "done")


@pytest.fixture(scope="module")
def scattered(small_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive of six packs: one is of an import that was stopped, and left blobs that belong to nothing."""
    archive = tmp_path_factory.mktemp("scattered") / "archive"
    dicomfs("init", archive)
    dicomfs("import", small_source.path, "-a", archive)
    for number in (1, 2, 3):
        part = archive.parent / f"part{number}"
        write_study(part, series=2, instances=6, rows=96, columns=96, study=number)
        dicomfs("import", part, "-a", archive)
    orphans(archive, 20)
    again = archive.parent / "again"
    write_study(again, series=1, instances=6, rows=128, columns=128, study=7, seed="again")
    dicomfs("import", again, "-a", archive, "--on-conflict=replace")
    assert len(list((archive / "packs").iterdir())) == 6
    return archive


@pytest.fixture
def archive(scattered: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "archive"
    shutil.copytree(scattered, copied)
    return copied


def everything(archive: Path) -> dict[int, tuple[str, str]]:
    """Return place and SHA-256 of every file by its number, earlier versions too, as read back."""
    found = {}
    with Archive.open(archive) as opened:
        with opened.view() as view:
            files = [(ino, view.path(ino)) for ino in view.inodes() if not view.node(ino).is_directory]
        for ino, place in files:
            file = opened.open_instance(ino)
            found[ino] = place, hashlib.sha256(file.read(0, file.size)).hexdigest()
    return found


def assert_same(archive: Path, before: dict[int, tuple[str, str]]) -> None:
    assert check(archive, verify_files=True).problems == []
    assert everything(archive) == before


def by_hand(archive: Path, output: Path) -> dict[int, str]:
    """Return the SHA-256 of what the program of docs/format.md gets back, by number."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    output.mkdir()
    subprocess.run([sys.executable, "-c", program, archive, output], check=True)
    found = {int(path.stem): hashlib.sha256(path.read_bytes()).hexdigest() for path in output.iterdir()}
    shutil.rmtree(output)
    return found


def leftovers(archive: Path) -> list[str]:
    """Return what a replacement that is over has no more of."""
    names = [path.name for path in (*(archive / "packs").iterdir(), *archive.iterdir())]
    return [name for name in names if name.endswith((".new", ".old")) or name == "gc.json"]


def gc_until(step: str, archive: Path, *options: str) -> None:
    """Collect, and die at this step."""
    process = start("gc", "-a", archive, *options, command=(sys.executable, "-c", STOPPING, step))
    output = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output


@pytest.mark.parametrize(("step", "healer"), [*zip(STEPS, cycle(HEALERS)), *zip(STEPS, cycle(HEALERS[1:]))])
def test_killed_at_each_step(archive: Path, tmp_path: Path, step: str, healer: str) -> None:
    before = everything(archive)
    gc_until(step, archive)
    # Nobody has written since: readers, a check and the program of the page find everything.
    assert everything(archive) == before
    found = check(archive, verify_files=True)
    assert found.problems == []
    assert by_hand(archive, tmp_path / "out") == {ino: sha256 for ino, (_, sha256) in before.items()}
    nothing = tmp_path / "nothing"
    nothing.mkdir()

    dicomfs(*{"gc": ["gc"], "import": ["import", nothing], "reindex": ["reindex"]}[healer], "-a", archive, status=None)

    assert leftovers(archive) == []
    assert_same(archive, before)
    merged = len(list((archive / "packs").iterdir())) == 1
    assert merged == (healer == "gc" or step not in ("packs", "index"))
    dicomfs("gc", "-a", archive)
    again = json.loads(dicomfs("gc", "-a", archive, "--json").stdout)
    assert (again["packs_written"], again["bytes_freed"]) == (0, 0)
    assert everything(archive) == before
    assert by_hand(archive, tmp_path / "out") == {ino: sha256 for ino, (_, sha256) in before.items()}


@pytest.mark.parametrize(
    ("step", "healer"), [*zip(("packs", "index", "intent", "named", "swapped", "removed 1"), cycle(HEALERS))]
)
def test_killed_while_it_forgets(archive: Path, tmp_path: Path, step: str, healer: str) -> None:
    """What is shown can be read at any time; what is forgotten is there as a whole, or gone as a whole."""
    before = everything(archive)
    shown = {ino: held for ino, held in before.items() if held[0]}
    assert len(shown) == len(before) - 6
    gc_until(step, archive, "--forget-older-than", "0h")
    assert everything(archive) == (shown if step in ("swapped", "removed 1") else before)
    assert check(archive, verify_files=True).problems == []
    found = by_hand(archive, tmp_path / "out")
    assert found in [{ino: sha256 for ino, (_, sha256) in held.items()} for held in (before, shown)]
    nothing = tmp_path / "nothing"
    nothing.mkdir()

    dicomfs(*{"gc": ["gc"], "import": ["import", nothing], "reindex": ["reindex"]}[healer], "-a", archive, status=None)

    assert leftovers(archive) == []
    assert_same(archive, before if step in ("packs", "index") else shown)
    dicomfs("gc", "-a", archive, "--forget-older-than", "0h")
    assert_same(archive, shown)
    assert by_hand(archive, tmp_path / "out") == {ino: sha256 for ino, (_, sha256) in shown.items()}


@pytest.mark.parametrize("lost", ["index.new", "index", "both"])
def test_an_index_that_is_lost_in_between_is_made_again(archive: Path, lost: str) -> None:
    before = everything(archive)
    gc_until("intent", archive)
    for name in ("index.new", "index") if lost == "both" else (lost,):
        shutil.rmtree(archive / name)
    dicomfs("gc", "-a", archive)
    assert leftovers(archive) == []
    assert_same(archive, before)


def test_an_intent_that_is_hurt_is_told_of(archive: Path) -> None:
    before = everything(archive)
    gc_until("intent", archive)
    (archive / "packs" / "gc.json").write_text("{")
    for command in ("gc", "reindex"):
        failed = dicomfs(command, "-a", archive, status=3)
        assert "gc.json: is damaged" in failed.stderr
    assert everything(archive) == before


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * KILLS)
def test_killed_at_random_moments(scattered: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("DICOMFS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"DICOMFS_SEED={seed}")
    moments = random.Random(seed)
    before = everything(scattered)
    archive = tmp_path / "archive"
    shutil.copytree(scattered, archive)
    begun = time.monotonic()
    dicomfs("gc", "-a", archive)
    takes_s = time.monotonic() - begun
    shutil.rmtree(archive)
    for _ in range(KILLS):
        if not archive.exists():
            shutil.copytree(scattered, archive)
        process = start("gc", "-a", archive)
        try:
            process.wait(moments.uniform(takes_s / 4, takes_s))
        except subprocess.TimeoutExpired:
            kill(process)
        else:
            process.communicate()
        assert everything(archive) == before
        assert check(archive).problems == []
        if moments.random() < 0.5:
            dicomfs("gc", "-a", archive)
            assert leftovers(archive) == []
            assert_same(archive, before)
            shutil.rmtree(archive)


@pytest.mark.root
@pytest.mark.parametrize("leave_kilobytes", [50, 300, 500])
def test_disk_full(scattered: Path, leave_kilobytes: int) -> None:
    """Whether it is seen beforehand or met in the middle, the archive is as it was."""
    with disk(64) as place:
        archive = place / "archive"
        subprocess.run(["cp", "-a", "--sparse=always", scattered, archive], check=True)
        before, names = everything(archive), sorted(os.listdir(archive / "packs"))
        filler = fill(place, leave_kilobytes=leave_kilobytes)
        failed = dicomfs("gc", "-a", archive, status=1)
        assert "Nothing was changed" in failed.stderr
        # Somebody else takes the room after it was looked for.
        program = (
            "import sys; from dicomfs.archive import gc; gc._SPARE = -(1 << 40)\n"
            "from dicomfs.cli import main; sys.exit(main())"
        )
        process = start("gc", "-a", archive, command=(sys.executable, "-c", program))
        _, told = process.communicate()
        assert (process.returncode, "Traceback" in told) == (1, False)
        assert "full" in told or "No space left" in told
        assert sorted(os.listdir(archive / "packs")) == names
        assert leftovers(archive) == []
        assert everything(archive) == before
        filler.unlink()
        dicomfs("gc", "-a", archive)
        assert_same(archive, before)


@pytest.mark.mounted
def test_a_drive_goes_on_whatever_becomes_of_gc(archive: Path) -> None:
    before = everything(archive)
    with drive(archive) as place:
        shown = sha256_of_tree(place / "patients")
        assert len(shown) < len(before)
        for number, step in enumerate(("removed 1", "intent", "named", "swapped")):
            gc_until(step, archive)
            subprocess.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"], capture_output=True)
            assert sha256_of_tree(place / "patients") == shown
            dicomfs("gc", "-a", archive)
            assert sha256_of_tree(place / "patients") == shown
            more = archive.parent / f"more{number}"
            write_study(more, instances=2, study=100 + number, patient=f"DFS-{number}")
            dicomfs("import", more, "-a", archive)
            while len(after := sha256_of_tree(place / "patients")) != len(shown) + 2:
                time.sleep(0.05)
            assert shown.items() <= after.items()
            shown = after
    assert check(archive, verify_files=True).problems == []
