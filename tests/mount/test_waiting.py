"""How the drive waits: nobody is forgotten, nobody starves, and it ends when it is told to."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dicomfs.mount.mountpoint import mounted_at
from dicomfs.mount.waiting import PASS_S, THREADS, Lock, Waiting
from tests.builders import make_instance
from tests.mount.conftest import SCRIPT, TIMEOUT_S, Drive, end_all, environment, import_into, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


def within(seconds: float, function: Callable[[], Awaitable[None]]) -> None:
    """Run a trio program that must end in time."""

    async def main() -> None:
        with trio.fail_after(seconds):
            await function()

    trio.run(main)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a descriptor that becomes readable, and one that makes it so."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


# The lock


def test_a_free_lock_is_taken_and_given_back_without_the_scheduler() -> None:
    lock = Lock()
    for step in (lock.__aenter__, lock.__aexit__):
        with pytest.raises(StopIteration):
            step().send(None)


def test_a_lock_is_held_by_one_and_reached_by_all_even_if_some_give_up() -> None:
    rng = random.Random(3)
    lock = Lock()
    held = 0
    passed: list[int] = []

    async def worker(number: int) -> None:
        nonlocal held
        for _ in range(40):
            with trio.CancelScope() as scope:
                if rng.random() < 0.2:
                    scope.deadline = trio.current_time() + rng.random() / 1000
                async with lock:
                    held += 1
                    assert held == 1
                    try:
                        for _ in range(rng.randrange(3)):
                            await trio.lowlevel.checkpoint()
                    finally:
                        held -= 1
            if rng.random() < 0.5:
                await trio.lowlevel.checkpoint()
        passed.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(worker, number)

    within(TIMEOUT_S, main)
    assert sorted(passed) == list(range(12))


def test_who_waits_gets_the_lock_as_soon_as_its_holder_waits_for_something_else() -> None:
    async def main() -> None:
        lock, order = Lock(), []
        done = trio.Event()

        async def second() -> None:
            async with lock:
                order.append("second")
            done.set()

        async with trio.open_nursery() as nursery:
            async with lock:
                nursery.start_soon(second)
                await wait_all_tasks_blocked()
            async with lock:  # nobody was let in between
                order.append("first again")
            await done.wait()
        assert order == ["first again", "second"]

    within(TIMEOUT_S, main)


# The wait


def test_a_wait_ends_when_there_is_something_to_read(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def main() -> None:
        low = Waiting().lowlevel
        os.write(writer, b"1")
        await low.wait_readable(reader)
        os.read(reader, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(low.wait_readable, reader)
            await wait_all_tasks_blocked(0.01)
            os.write(writer, b"1")

    within(TIMEOUT_S, main)


def test_a_wait_ends_when_the_other_side_is_gone() -> None:
    reader, writer = os.pipe()

    async def main() -> None:
        os.close(writer)
        await Waiting().lowlevel.wait_readable(reader)

    within(TIMEOUT_S, main)
    os.close(reader)


def test_closing_ends_the_wait_and_all_that_come(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def main() -> None:
        low = Waiting().lowlevel

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await low.wait_readable(reader)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.01)
            low.notify_closing(reader)
        os.write(writer, b"1")
        await wait()

    within(TIMEOUT_S, main)


@pytest.mark.parametrize("company", [False, True], ids=["alone", "with_threads"])
def test_a_storm_of_requests_starves_neither_tasks_nor_threads_nor_cancellation(
    pipe: tuple[int, int], company: bool
) -> None:
    reader, writer = pipe
    os.write(writer, b"1")  # readable for ever, as nobody reads it

    async def main() -> None:
        waiting = Waiting()
        late: list[float] = []

        async def storm() -> None:
            end_s = time.monotonic() + TIMEOUT_S / 2  # trio's own clock may never be looked at
            while True:
                assert time.monotonic() < end_s, "nothing else is running"
                await waiting.lowlevel.wait_readable(reader)

        async def others() -> None:
            for _ in range(20):
                due = trio.current_time() + PASS_S
                await trio.sleep_until(due)
                late.append(trio.current_time() - due)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(storm)
            await others()
            if company:
                for number in range(50):
                    assert await waiting.in_thread(abs, -number) == number
            nursery.cancel_scope.cancel()
        assert sorted(late)[len(late) // 2] < 10 * PASS_S

    within(TIMEOUT_S, main)


def test_results_of_threads_are_awaited_as_ever(pipe: tuple[int, int]) -> None:
    def fail() -> None:
        raise ValueError("told")

    async def main() -> None:
        waiting = Waiting()
        with pytest.raises(ValueError, match="told"):
            await waiting.in_thread(fail)
        assert waiting.lowlevel.threads == 0
        gate = threading.Event()
        with trio.move_on_after(0.01):  # a disk that hangs
            await waiting.in_thread(gate.wait)
        assert waiting.lowlevel.threads == 0
        gate.set()

    within(TIMEOUT_S, main)


def test_who_waits_for_what_is_made_takes_no_thread_from_readers() -> None:
    async def main() -> None:
        waiting = Waiting()
        gate = threading.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(2 * THREADS):
                nursery.start_soon(waiting.made, gate.wait)
            await wait_all_tasks_blocked()
            assert waiting.lowlevel.threads == 2 * THREADS
            assert await waiting.in_thread(abs, -1) == 1
            gate.set()
        assert waiting.lowlevel.threads == 0

    within(TIMEOUT_S, main)


# In the place of trio


def test_pyfuse3_waits_by_it_until_it_is_given_back() -> None:
    async def main() -> None:
        waiting = Waiting()
        assert pyfuse3.trio is trio
        assert waiting.take_over()
        try:
            assert pyfuse3.trio is waiting
            assert isinstance(waiting.Lock(), Lock)
            assert waiting.ClosedResourceError is trio.ClosedResourceError
            assert waiting.lowlevel.current_task is trio.lowlevel.current_task
        finally:
            waiting.give_back()
        assert pyfuse3.trio is trio

    within(TIMEOUT_S, main)


def test_a_pyfuse3_that_waits_by_something_else_is_left_alone_and_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(pyfuse3, "trio")
    assert not Waiting().take_over()
    assert not hasattr(pyfuse3, "trio")
    assert "the drive is slower" in caplog.text


# Mounted

pytestmark = pytest.mark.mounted

COUNTED: Final = """
import atexit, os, sys
from dicomfs.mount import waiting
waits = 0
plain = waiting._LowLevel.wait_readable
async def counted(self, fd):
    global waits
    waits += 1
    await plain(self, fd)
waiting._LowLevel.wait_readable = counted
atexit.register(lambda: os.write(2, b"waited %d times" % waits))
"""
PLAIN: Final = """
from dicomfs.mount.waiting import Waiting
Waiting.take_over = lambda self: False
"""
SLOW: Final = """
import pathlib, sys
from dicomfs.store.assembled import AssembledFile
read, gate = AssembledFile.read, pathlib.Path(sys.argv[4]).with_name("gate")
AssembledFile.read_ready = lambda *_: None
def slow(self, *where):
    gate.with_name("slow").touch()
    gate.open("rb").close()  # a FIFO, which nobody writes to yet
    return read(self, *where)
AssembledFile.read = slow
"""


class Changed(Drive):
    """A drive whose process begins with some code of a test."""

    def __init__(self, prelude: str, archive: Path, path: Path, log: Path) -> None:
        self._prelude = prelude
        super().__init__(archive, path, "", log)

    def script(self) -> str:
        """Return what the process runs."""
        return self._prelude + SCRIPT


@pytest.fixture
def changed(imported: tuple[Path, object], tmp_path: Path) -> Iterator[Callable[[str], Changed]]:
    """Return a function that mounts the archive by a process that begins with this code."""
    with ExitStack() as stack:

        def mount(prelude: str) -> Changed:
            drive = Changed(prelude, imported[0], tmp_path / "drive", tmp_path / "log")
            stack.callback(end_all, [drive])
            return drive

        yield mount


def test_a_mounted_drive_waits_by_it(changed: Callable[[str], Changed]) -> None:
    drive = changed(COUNTED)
    assert len(drive.files()) == 12
    drive.process.send_signal(signal.SIGTERM)
    said = drive.process.communicate(timeout=TIMEOUT_S)[1]
    assert int(said.partition("waited ")[2].split()[0]) > 12, said


def test_a_drive_that_waits_by_trio_itself_works_as_well(
    changed: Callable[[str], Changed], imported: tuple[Path, dict[Path, str]]
) -> None:
    drive = changed(PLAIN)
    done = run("find", drive.patients, "-type", "f", "-exec", "sha256sum", "{}", "+")
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == sorted(imported[1].values())
    assert drive.end() == 0


def test_slow_reads_hold_up_neither_each_other_nor_anything_else(
    changed: Callable[[str], Changed], imported: tuple[Path, dict[Path, str]], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    drive = changed(SLOW)
    paths = list(drive.files().values())
    readers = [
        subprocess.Popen(["sha256sum", path], stdout=subprocess.PIPE, text=True, env=environment()) for path in paths
    ]
    try:
        while not (tmp_path / "slow").exists():
            assert all(reader.poll() is None for reader in readers)
        for _ in range(3):
            assert b"read-only" in (drive.path / "README.txt").read_bytes()
            with suppress(OSError):  # only root can
                Path("/proc/sys/vm/drop_caches").write_text("2\n")
            assert len(drive.files()) == 12
            assert [os.stat(path).st_nlink for path in paths] == [1] * 12
        gate = os.open(tmp_path / "gate", os.O_RDWR)  # whoever waits at it, or comes to it, is let through
        digests = [reader.communicate(timeout=TIMEOUT_S)[0].split()[0] for reader in readers]
        os.close(gate)
        assert sorted(digests) == sorted(imported[1].values())
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


class Storm:
    """Processes that walk, look up and read a drive from nothing, again and again, until it is gone."""

    COMMANDS: Final = (
        "while find . >/dev/null; do :; done",
        "while ls -lR . >/dev/null; do :; done",
        "while cat patients/*/*/*/* >/dev/null; do :; done",
        "while cat patients/*/*/*/*1.dcm >/dev/null; do :; done",
    )

    def __init__(self, drive: Drive) -> None:
        self._processes = [
            subprocess.Popen(["sh", "-c", command], cwd=drive.path, stderr=subprocess.DEVNULL, env=environment())
            for command in self.COMMANDS
        ]
        self._over = threading.Event()
        self._dropper = threading.Thread(target=self._drop)
        self._dropper.start()

    def _drop(self) -> None:
        while not self._over.wait(0.01):
            with suppress(OSError):  # only root can; others walk what the kernel remembers
                Path("/proc/sys/vm/drop_caches").write_text("3\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._dropper.join()
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_in_a_storm_of_requests_ends_the_drive(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive], number: signal.Signals
) -> None:
    drive = mount_drive(imported[0])
    with Storm(drive):
        assert len(drive.files()) == 12
        assert drive.end(number) == 0
        assert mounted_at(drive.path) is None


def test_a_drive_taken_away_in_a_storm_of_requests_ends_with_the_last_who_uses_it(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive]
) -> None:
    drive = mount_drive(imported[0])
    with Storm(drive):
        assert len(drive.files()) == 12
        run("umount", "-l", drive.path)
    assert drive.process.wait(TIMEOUT_S) == 0


def test_imports_appear_in_a_storm_of_requests(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    drive = mount_drive(imported[0])
    (tmp_path / "new").write_bytes(make_instance(number=77, patient="DFS-9"))
    with Storm(drive):
        assert len(os.listdir(drive.patients)) == 1
        import_into(imported[0], tmp_path / "new")
        deadline = time.monotonic() + 10
        while len(os.listdir(drive.patients)) == 1:
            assert time.monotonic() < deadline
