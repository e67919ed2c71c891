"""kill -9 at any moment loses nothing that was committed, and the import completes when it is run again.

DICOMFS_KILLS says how many random moments; `scripts/prove-crash N` runs only those.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from tests.faults.scene import (
    assert_sound,
    catalog,
    dicomfs,
    digests,
    import_until,
    kill,
    members,
    start_import,
)

if TYPE_CHECKING:
    from tests.faults.conftest import Source
    from tests.faults.scene import Instance

KILLS = int(os.environ.get("DICOMFS_KILLS", "12"))


def undisturbed(source: Path, archive: Path) -> tuple[float, list[str]]:
    """Import without a kill; return how long that takes and what the archive then holds."""
    dicomfs("init", archive)
    begun = time.monotonic()
    process = start_import(source, archive)
    output = process.communicate()
    assert process.returncode in (0, 1), output
    return time.monotonic() - begun, digests(assert_sound(archive))


def commits(archive: Path) -> int:
    with Archive.open(archive) as opened, opened.view() as view:
        return view.seq


def killed(
    process: subprocess.Popen[str], archive: Path, *, commit: int, delay_s: float
) -> tuple[bool, dict[str, Instance]]:
    """Kill an import a while after a commit; say whether it still ran, and what was committed just before."""
    while process.poll() is None and commits(archive) < commit:
        pass
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay_s)
    committed = catalog(archive)
    running = process.poll() is None
    kill(process)
    return running, committed


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * KILLS)
def test_importer_killed_at_random_moments(source: Source, tmp_path: Path) -> None:
    files = Path(os.environ.get("DICOMFS_KILL_SOURCE") or source.path)
    seed = int(os.environ.get("DICOMFS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"DICOMFS_SEED={seed}")
    moments = random.Random(seed)
    takes_s, everything = undisturbed(files, tmp_path / "undisturbed")
    assert files != source.path or everything == source.digests
    last_commit = commits(tmp_path / "undisturbed")
    archive, again = tmp_path / "archive", tmp_path / "again"
    left: list[int] = []
    while len(left) < KILLS:
        if not archive.exists():
            dicomfs("init", archive)
        # One in four as a user runs it; the others commit more often, so that there is more to hit.
        process = start_import(files, archive, often=moments.random() < 0.75)
        # One in three at any time of its life, from its start on; the others between two commits, while it writes.
        if moments.random() < 1 / 3:
            running, committed = killed(process, archive, commit=0, delay_s=moments.uniform(0, takes_s))
        else:
            commit, delay_s = moments.randrange(commits(archive), last_commit), moments.uniform(0, 0.02)
            running, committed = killed(process, archive, commit=commit, delay_s=delay_s)

        kept = assert_sound(archive)
        assert committed.items() <= kept.items()
        assert set(digests(kept)) <= set(everything)
        if running:
            left.append(len(kept))
        else:
            assert digests(kept) == everything

        shutil.copytree(archive, again)
        dicomfs("import", files, "-a", again, status=None)
        completed = assert_sound(again)
        assert kept.items() <= completed.items()
        assert digests(completed) == everything
        shutil.rmtree(again)
        # The next one goes on where this one was killed, or begins anew.
        if len(kept) == len(everything) or moments.random() < 0.5:
            shutil.rmtree(archive)
    print(f"{KILLS} kills in imports of {takes_s:.2f} s; instances committed by then: {sorted(left)}")
    assert len(set(left)) > 1, "every kill met the same state: the import commits too seldom for this test"


@pytest.mark.parametrize("commit", [1, 2, 5])
@pytest.mark.parametrize("step", ["before record", "written", "synced", "indexed"])
def test_importer_killed_at_each_step(source: Source, archive_path: Path, step: str, commit: int) -> None:
    import_until(step, commit, source.path, archive_path)
    kept = assert_sound(archive_path)
    # The index holds the commits before; the one that was cut short only once it is indexed.
    assert bool(kept) == (commit > 1 or step == "indexed")

    dicomfs("import", source.path, "-a", archive_path)

    completed = assert_sound(archive_path)
    assert kept.items() <= completed.items()
    assert digests(completed) == source.digests


def test_a_commit_that_only_reached_the_pack_is_kept(source: Source, archive_path: Path, tmp_path: Path) -> None:
    import_until("synced", 2, source.path, archive_path)
    before = catalog(archive_path)
    nothing = tmp_path / "nothing"
    nothing.mkdir()

    dicomfs("import", nothing, "-a", archive_path, status=None)

    assert len(catalog(archive_path)) > len(before)


def wait_for_workers(process: subprocess.Popen[str]) -> list[int]:
    while process.poll() is None:
        workers = [pid for pid in members(process.pid) if pid != process.pid]
        if workers:
            return workers
    raise AssertionError(f"the import ended too early: {process.communicate()}")


def test_worker_killed(source: Source, archive_path: Path) -> None:
    process = start_import(source.path, archive_path, "--jobs", "2")
    os.kill(wait_for_workers(process)[0], signal.SIGKILL)

    _, complaint = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "worker" in complaint
    assert "Traceback" not in complaint
    assert members(process.pid) == []
    kept = assert_sound(archive_path)
    dicomfs("import", source.path, "-a", archive_path)
    completed = catalog(archive_path)
    assert kept.items() <= completed.items()
    assert digests(completed) == source.digests


def test_workers_end_with_the_importer(source: Source, archive_path: Path) -> None:
    process = start_import(source.path, archive_path, "--jobs", "2")
    workers = wait_for_workers(process)
    ends = [os.pidfd_open(worker) for worker in workers]

    process.kill()
    process.wait()

    for end in ends:
        assert select.select([end], [], [], 30)[0], "a worker outlives its importer"
        os.close(end)
    process.communicate()
    dicomfs("import", source.path, "-a", archive_path)
    assert digests(catalog(archive_path)) == source.digests


def test_interrupted_from_the_keyboard(source: Source, archive_path: Path) -> None:
    process = start_import(source.path, archive_path, "--jobs", "2")
    wait_for_workers(process)
    os.killpg(process.pid, signal.SIGINT)

    _, complaint = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted" in complaint
    assert "Traceback" not in complaint
    assert members(process.pid) == []
    assert_sound(archive_path)
    dicomfs("import", source.path, "-a", archive_path)
    assert digests(catalog(archive_path)) == source.digests
