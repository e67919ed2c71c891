"""Processes that make files of the cache: what hurts one is over with it, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest

from dicomfs.archive import pictures
from dicomfs.archive.makers import Limits, Makers
from dicomfs.dicom.picture_file import thumbnail
from dicomfs.dicom.picture_label import labelled
from dicomfs.errors import ArchiveMissing, Damaged, NotFound, Refused
from tests.archive import hurtful
from tests.archive.importing import add, tree
from tests.builders import make_instance
from tests.dicom.images import image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HURTFUL = "tests.archive.hurtful"
SHORT = {"picture": Limits(3, 1 << 30), "series": Limits(3, 1 << 30)}
LONG = {"picture": Limits(60, 1 << 30), "series": Limits(60, 1 << 30)}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def ino(archive_path: Path) -> int:
    add(archive_path, make_instance())
    (shown,) = tree(archive_path).values()
    return shown.ino


@pytest.fixture
def start(archive_path: Path, cache: Path) -> Iterator[Callable[..., Makers]]:
    """Return what makes makers that are closed in the end, with no process left."""
    made: list[Makers] = []

    def start(processes: int = 1, **options: object) -> Makers:
        made.append(Makers(archive_path, cache, processes, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for makers in made:
        makers.close()
    assert not children()


def children() -> list[int]:
    """Return the processes that this one has and that still run or were not heard of."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
        except FileNotFoundError:
            continue
    return found


def until(true: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.005)


def picture(ino: int, frame: int = 1) -> tuple[str, tuple[int, ...]]:
    return "picture", (ino, frame, pictures.THUMBNAIL)


def made(cache: Path, ino: int, frame: int = 1) -> bytes:
    return pictures.path(cache, ino, frame, pictures.THUMBNAIL).read_bytes()


def in_words(reason: str) -> bytes:
    return thumbnail(labelled(256, 256, "CT\nCT Image", reason))


def test_a_picture_is_there_when_its_job_is_done(start: Callable[..., Makers], cache: Path, ino: int) -> None:
    makers = start()
    assert not children()  # nothing is started before there is something to do
    makers.make(picture(ino))
    assert len(made(cache, ino)) == pictures.THUMBNAIL_BYTES
    assert made(cache, ino) != in_words("")
    assert len(children()) == 1
    makers.submit(picture(ino, 2)).result()
    assert made(cache, ino, 2) == in_words("there is no such frame")
    assert len(children()) == 1


def test_new_commits_are_seen(start: Callable[..., Makers], archive_path: Path, cache: Path, ino: int) -> None:
    makers = start()
    makers.make(picture(ino))
    add(archive_path, make_instance(number=2))
    (other,) = {shown.ino for shown in tree(archive_path).values()} - {ino}
    makers.make(picture(other))
    assert made(cache, other) != made(cache, ino)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (hurtful.SLEEPS, "it takes too long"),
        (hurtful.HOLDS_THE_LOCK, "it takes too long"),
        (hurtful.ABORTS, "its decoder crashed"),
        (hurtful.FAULTS, "its decoder crashed"),
        (hurtful.EATS_IN_PYTHON, "it takes too much memory"),
        (hurtful.KILLED, "it takes too much memory"),
    ],
)
def test_what_hurts_its_process_has_a_picture_in_words(
    start: Callable[..., Makers], cache: Path, ino: int, harm: int, reason: str
) -> None:
    makers = start(module=HURTFUL, limits=SHORT)
    makers.make(picture(ino))
    before = children()
    makers.make(picture(ino, harm))
    assert made(cache, ino, harm) == in_words(reason)
    after = children()
    assert len(after) == 1
    assert after != before
    makers.make(picture(ino, 2))
    assert children() == after
    assert not list(cache.rglob("*.tmp"))


def test_a_process_that_does_not_even_hear_its_alarm(
    start: Callable[..., Makers], cache: Path, ino: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomfs.archive.makers._GRACE_S", 0.2)
    start(module=HURTFUL, limits=SHORT).make(picture(ino, hurtful.STOPS))
    assert made(cache, ino, hurtful.STOPS) == in_words("it takes too long")


def test_what_a_killed_process_began_is_removed(start: Callable[..., Makers], cache: Path, ino: int) -> None:
    makers = start(module=HURTFUL, limits=SHORT)
    makers.make(picture(ino, hurtful.LEAVES_A_REST))
    (left,) = [path for path in cache.rglob("*") if path.is_file()]
    assert left.read_bytes() == in_words("it takes too long")


def huge_jpeg() -> bytes:
    """Return an image of 64 rows whose codestream claims 65,500 rows of 65,500 columns."""
    pixels = np.zeros((64, 64), np.uint8)
    stream = bytearray(imagecodecs.jpeg8_encode(pixels))
    at = stream.index(b"\xff\xc0") + 5
    stream[at : at + 4] = (65_500).to_bytes(2, "big") * 2
    return image(pixels, syntax="1.2.840.10008.1.2.4.50", codestreams=[bytes(stream)])


def bomb() -> bytes:
    """Return an image of one megapixel that is deflated, and 512 MiB long inflated."""
    pixels = np.zeros((1024, 1024), np.uint8)
    deflate = zlib.compressobj(9, wbits=-15)
    zeros = bytes(1 << 24)
    stream = b"".join([*(deflate.compress(zeros) for _ in range(32)), deflate.flush()])
    return image(pixels, syntax="1.2.840.10008.1.2.8.1", codestreams=[stream + b"\0" * (len(stream) % 2)])


@pytest.mark.parametrize(("content", "reason"), [(huge_jpeg(), "it takes too much memory"), (bomb(), None)])
def test_memory_is_bounded(
    start: Callable[..., Makers], archive_path: Path, cache: Path, content: bytes, reason: str | None
) -> None:
    add(archive_path, content)
    (shown,) = tree(archive_path).values()
    start(limits={"picture": Limits(60, 400 << 20)}).make(picture(shown.ino))
    words = thumbnail(labelled(256, 256, "OT\nSecondary Capture Image", reason or ""))
    assert (made(cache, shown.ino) == words) == (reason is not None)


@pytest.mark.parametrize(("series", "reason"), [(0, "it takes too long"), (1, "it takes too much memory")])
def test_documents_that_hurt_their_process_are_told_of(
    start: Callable[..., Makers], ino: int, series: int, reason: str
) -> None:
    makers = start(module=HURTFUL, limits=SHORT)
    with pytest.raises(Damaged, match=reason):
        makers.make(("series", (series,)))
    makers.make(picture(ino))


def test_errors_keep_their_kind(start: Callable[..., Makers], ino: int) -> None:
    makers = start(module=HURTFUL, limits=LONG)
    with pytest.raises(NotFound):
        makers.make(picture(ino + 999))
    with pytest.raises(Damaged) as caught:
        makers.make(picture(ino, hurtful.RAISES))
    assert "ValueError" in str(caught.value)
    assert "Doe" not in str(caught.value)  # what an unforeseen error says may be about a patient
    assert len(children()) == 1


@pytest.mark.damaged
def test_no_archive_is_told_and_not_waited_for(tmp_path: Path) -> None:
    makers = Makers(tmp_path / "nothing", tmp_path, 1)
    for _ in range(2):
        with pytest.raises(ArchiveMissing):
            makers.make(picture(1))
    makers.close()
    assert not children()


def test_a_job_asked_for_twice_at_once_is_done_once(start: Callable[..., Makers], cache: Path, ino: int) -> None:
    makers = start(2, module=HURTFUL, limits=LONG)
    first = makers.submit(("series", (7,)))
    assert makers.submit(("series", (7,))) is first
    assert not first.cancel()
    (cache / "go").touch()
    first.result()
    assert len((cache / "ran").read_text().splitlines()) == 1
    makers.make(("series", (7,)))  # which is another time
    assert len((cache / "ran").read_text().splitlines()) == 2


def test_never_more_processes_than_asked(start: Callable[..., Makers], cache: Path, ino: int) -> None:
    makers = start(2, module=HURTFUL, limits=LONG)
    futures = [makers.submit(("series", (number,))) for number in range(2, 10)]
    until(lambda: (cache / "ran").exists() and len((cache / "ran").read_text().splitlines()) == 2)
    assert len(children()) == 2
    (cache / "go").touch()
    for future in futures:
        future.result()
    lines = (cache / "ran").read_text().splitlines()
    assert len(lines) == 8
    assert len({line.split()[0] for line in lines}) == 2


def test_many_threads_may_ask(start: Callable[..., Makers], archive_path: Path, cache: Path, ino: int) -> None:
    add(archive_path, *(make_instance(number=number) for number in range(2, 30)))
    numbers = [shown.ino for shown in tree(archive_path).values()]
    makers = start(2)
    threads = [threading.Thread(target=lambda: [makers.make(picture(number)) for number in numbers]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(made(cache, number)) == pictures.THUMBNAIL_BYTES for number in numbers)
    assert not list(cache.rglob("*.tmp"))


def test_processes_end_when_there_is_nothing_to_do(start: Callable[..., Makers], cache: Path, ino: int) -> None:
    makers = start(idle_s=0.1)
    makers.make(picture(ino))
    until(lambda: not children())
    makers.make(picture(ino, 2))
    assert made(cache, ino, 2)


def test_a_process_that_was_killed_while_idle_is_replaced(start: Callable[..., Makers], cache: Path, ino: int) -> None:
    makers = start()
    makers.make(picture(ino))
    (process,) = children()
    os.kill(process, signal.SIGKILL)
    until(lambda: process not in children() or b"Z" in status(process))
    makers.make(picture(ino, 2))
    assert made(cache, ino, 2) == in_words("there is no such frame")
    assert children() != [process]


def status(process: int) -> bytes:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0]
    except FileNotFoundError:
        return b"Z"


def test_close_ends_what_is_in_work(start: Callable[..., Makers], cache: Path, ino: int) -> None:
    makers = start(1, module=HURTFUL, limits=LONG)
    futures = [makers.submit(("series", (number,))) for number in (2, 3)]
    until((cache / "ran").exists)
    makers.close()
    for future in futures:
        with pytest.raises(Refused):
            future.result(10)
    assert not children()
    with pytest.raises(Refused):
        makers.make(picture(ino))
    makers.close()


PARENT = """
import sys
from pathlib import Path
from dicomfs.archive.makers import Limits, Makers
makers = Makers(Path(sys.argv[1]), Path(sys.argv[2]), 2, module="tests.archive.hurtful",
                limits={"series": Limits(600, 1 << 30)})
makers.submit(("series", (5,)))
makers.submit(("series", (6,)))
sys.stdin.read()
"""


def test_processes_end_with_the_one_that_they_work_for(archive_path: Path, cache: Path) -> None:
    """Killed, so that it can tell them nothing; and both are in the middle of a job."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = [sys.executable, "-c", PARENT, str(archive_path), str(cache)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root})
    with parent:
        until(lambda: (cache / "ran").exists() and len((cache / "ran").read_text().splitlines()) == 2)
        processes = [int(line.split()[0]) for line in (cache / "ran").read_text().splitlines()]
        assert all(status(process) in (b"S", b"R", b"D") for process in processes)
        parent.kill()
    until(lambda: all(status(process) == b"Z" for process in processes))
