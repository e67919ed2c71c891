"""Earlier states while `gc` runs: who uses one goes on, what it shows is not forgotten, and what nobody uses goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import states
from dicomfs.archive.archive import Archive
from dicomfs.archive.as_of import AsOf
from dicomfs.archive.check import check
from dicomfs.archive.earlier import prepare
from dicomfs.archive.gc import collect
from dicomfs.archive.moments import time_text
from dicomfs.errors import Refused
from tests.archive.importing import add, packs
from tests.archive.test_as_of import now, other_process, planted, renewed, shown, then
from tests.builders import make_instance, make_series

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.archive.test_as_of import State

DAY_S = 24 * 3600
VIEW = "patients"
GC = "from dicomfs.archive.gc import collect; assert collect(path, forget_before_ns={}).packs_written\n"
PREPARE = "from dicomfs.archive.earlier import prepare; prepare(path, {})\n"
HOLD = (
    "import sys; from pathlib import Path\n"
    "from dicomfs.archive.archive import Archive\n"
    "from dicomfs.archive.as_of import AsOf\n"
    "with Archive.open(Path(sys.argv[1]), AsOf(int(sys.argv[2]))):\n"
    "    print('open', flush=True); sys.stdin.read()\n"
)


@pytest.fixture
def history(archive_path: Path) -> list[State]:
    """Return three states: the first file of a series was replaced in the second, which is what all are based on."""
    add(archive_path, make_instance(number=1, rows=64, columns=64, seed="first"))
    found = [now(archive_path, VIEW)]
    others = make_series(4, rows=16, columns=16)[1:]
    add(archive_path, make_instance(number=1, rows=8, columns=8, seed="second"), *others, on_conflict="replace")
    found.append(now(archive_path, VIEW))
    add(archive_path, make_instance(number=1, study="later", rows=8, columns=8))
    found.append(now(archive_path, VIEW))
    return found


@contextmanager
def held(path: Path, time_ns: int) -> Iterator[None]:
    """Have another process use the state of a time."""
    command = [sys.executable, "-c", HOLD, path, str(time_ns)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.communicate(timeout=60)
    assert process.returncode == 0


def kept(path: Path) -> dict[int, bool]:
    """Return the states in the cache, and which are in use."""
    return {one.seq: one.in_use for one in states.states(path)}


def test_a_state_is_the_same_whatever_is_merged(archive_path: Path, history: list[State]) -> None:
    for more, before in enumerate(history[:2]):
        with Archive.open(archive_path, AsOf(before.time_ns)) as archive, planted(archive, VIEW) as tree:
            state = archive.state
            for number in (10, 11):
                assert shown(tree) == before.files
                other_process(archive_path, f"numbered(path, {number + 2 * more})\n" + GC.format(None))
            assert shown(tree) == before.files
            # What it shows did not change, so it is not made anew.
            assert not archive.refresh()
            assert archive.state == state
            assert shown(tree) == before.files
    assert check(archive_path, verify_files=True).problems == []


def test_a_state_since_the_limit_is_made_anew_and_the_same(archive_path: Path, history: list[State]) -> None:
    first, second, _ = history
    with Archive.open(archive_path, AsOf(second.time_ns)) as archive, planted(archive, VIEW) as tree:
        files = [archive.open_instance(ino) for ino in instances(archive)]
        contents = [bytes(file.read(0, file.size)) for file in files]
        state = archive.state
        assert state is not None
        other_process(archive_path, PREPARE.format(first.time_ns))
        assert kept(archive_path) == {1: False, 2: True}
        other_process(archive_path, GC.format(second.time_ns))
        assert kept(archive_path) == {2: True}
        # Headers and blobs lie elsewhere, and some headers are compressed against another base.
        assert shown(tree) == second.files
        assert [bytes(file.read(0, file.size)) for file in files] == contents
        assert renewed(archive)
        assert archive.state != state
        assert not state.exists()
        assert shown(tree) == second.files
        assert [bytes(file.read(0, file.size)) for file in files] == contents
        assert kept(archive_path) == {2: True}
    the_same_files(archive_path, history[1:])
    with pytest.raises(Refused, match=f"{time_text(second.time_ns)} was forgotten"):
        prepare(archive_path, second.time_ns - 1)
    assert check(archive_path, verify_files=True).problems == []


def instances(archive: Archive) -> list[int]:
    """Return the instances that a state shows."""
    with archive.view() as view:
        return [ino for ino, _ in view.not_replaced(0)]


def the_same_files(path: Path, history: list[State]) -> None:
    for before in history:
        assert then(path, before.time_ns, VIEW).files == before.files


def test_what_a_state_in_use_shows_is_not_forgotten(archive_path: Path, history: list[State]) -> None:
    first, second, third = history
    before = {pack: pack.read_bytes() for pack in packs(archive_path)}
    told = rf"before {time_text(second.time_ns)} is in use.*nothing was changed"
    with held(archive_path, first.time_ns):
        for limit_ns in (second.time_ns, third.time_ns):
            for dry_run in (True, False):
                with pytest.raises(Refused, match=told):
                    collect(archive_path, forget_before_ns=limit_ns, dry_run=dry_run)
        assert {pack: pack.read_bytes() for pack in packs(archive_path)} == before
        # Nothing was replaced by then, so nothing is forgotten.
        assert collect(archive_path, forget_before_ns=second.time_ns - 1).versions == 0
    with held(archive_path, second.time_ns):
        assert collect(archive_path, forget_before_ns=second.time_ns).versions == 1
    assert check(archive_path, verify_files=True).problems == []


def test_who_comes_in_the_meantime_is_minded(archive_path: Path, history: list[State]) -> None:
    """Somebody begins to use a state when packs are written already; or it is too late for him."""
    first, second, _ = history
    before = {pack: pack.read_bytes() for pack in packs(archive_path)}
    users = []

    def come(step: str) -> None:
        if step == "index":
            users.append(held(archive_path, first.time_ns))
            users[0].__enter__()

    with pytest.raises(Refused, match="in use"):
        collect(archive_path, forget_before_ns=second.time_ns, faults=come)
    assert {pack: pack.read_bytes() for pack in packs(archive_path)} == before
    assert not (archive_path / "index.new").exists()
    users[0].__exit__(None, None, None)

    class Killed(Exception):
        pass

    def stop(step: str) -> None:
        if step == "intent":
            raise Killed

    with pytest.raises(Killed):
        collect(archive_path, forget_before_ns=second.time_ns, faults=stop)
    # The next who writes forgets it, so nobody is let in.
    with pytest.raises(Refused, match="forgotten"):
        prepare(archive_path, first.time_ns)
    prepare(archive_path, second.time_ns)
    collect(archive_path)
    with pytest.raises(Refused, match="forgotten"):
        prepare(archive_path, first.time_ns)
    the_same_files(archive_path, history[1:])
    assert check(archive_path, verify_files=True).problems == []


def test_states_that_nobody_uses_go(archive_path: Path, history: list[State]) -> None:
    for before in history:
        prepare(archive_path, before.time_ns)
    old_ns = time.time_ns() - (DAY_S + 60) * 10**9
    for one in states.states(archive_path)[:2]:
        os.utime(one.directory / "lock", ns=(old_ns, old_ns))
    with held(archive_path, history[0].time_ns):
        for one in states.states(archive_path)[:1]:
            os.utime(one.directory / "lock", ns=(old_ns, old_ns))
        found = collect(archive_path, dry_run=True)
        assert (found.cache_files, found.cache_bytes > 4096) == (1, True)
        assert kept(archive_path) == {1: True, 2: False, 3: False}
        assert collect(archive_path).cache_files == 1
        assert kept(archive_path) == {1: True, 3: False}
    assert collect(archive_path, forget_before_ns=history[1].time_ns).versions == 1
    assert kept(archive_path) == {}
    assert check(archive_path, verify_files=True).problems == []
