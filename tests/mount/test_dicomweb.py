"""The DICOMweb tree of a real mount: copies, changes while it is mounted, and names that are not listed."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders import make_instance, uid, write_study
from tests.mount.conftest import environment, import_into

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.mount.conftest import Drive

DEADLINE_S = 20.0
PATIENCE_S = 280.0
STUDY, SERIES = uid("DFS-1", 1), uid("DFS-1", 1, 1)
PLACE = f"studies/{STUDY}/series/{SERIES}"


def states(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode number, size and time of all files below a directory."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            stat = os.stat(path)
            found[os.path.relpath(path, root)] = stat.st_ino, stat.st_size, stat.st_mtime_ns
    return found


def instances(path: Path) -> list[Mapping[str, dict[str, list[object]]]]:
    found = json.loads(gzip.decompress(path.read_bytes()))
    assert isinstance(found, list)
    return found


def patiently(*command: object) -> str:
    """Run a program that has every picture made."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def web(mount_drive: Callable[..., Drive], archive_path: Path, tmp_path: Path) -> Path:
    write_study(tmp_path / "one", series=2, instances=3)
    write_study(tmp_path / "two", instances=2, patient="DFS-2")
    import_into(archive_path, tmp_path / "one", tmp_path / "two")
    return mount_drive(archive_path).path / "dicomweb"


@pytest.mark.corpus
@pytest.mark.slow
def test_the_whole_tree_of_the_corpus_is_copied(
    corpus: Path, mount_drive: Callable[..., Drive], archive_path: Path, tmp_path: Path
) -> None:
    import_into(archive_path, corpus)
    tree = mount_drive(archive_path).path / "dicomweb"
    copy, exported = tmp_path / "copy", tmp_path / "exported"
    patiently("rsync", "-a", f"{tree}/", copy)
    assert patiently("rsync", "-ai", f"{tree}/", copy) == ""
    assert len(states(copy)) > 6000
    dicomfs = (sys.executable, "-m", "dicomfs.cli", "export", "--archive", archive_path, "--all")
    patiently(*dicomfs, "--layout", "dicomweb", "--output", exported)
    assert patiently("diff", "-r", copy, exported) == ""
    assert " 0 written" in patiently(*dicomfs, "--layout", "dicomweb", "--output", exported)


def test_one_more_instance_changes_its_series_and_nothing_else(web: Path, archive_path: Path, tmp_path: Path) -> None:
    before = states(web)
    assert len(instances(web / PLACE / "metadata.gz")) == 3
    (tmp_path / "more.dcm").write_bytes(make_instance(number=4))
    import_into(archive_path, tmp_path / "more.dcm")
    deadline = time.monotonic() + DEADLINE_S
    while len(instances(web / PLACE / "metadata.gz")) == 3:
        assert time.monotonic() < deadline, "the drive does not show what was imported"
        time.sleep(0.05)
    after = states(web)
    new = f"{PLACE}/instances/{uid('DFS-1', 1, 1, 4)}"
    assert {path for path in after if path not in before and not path.startswith(new)} == {
        path for path in after if path not in before and "deduplicated" in path
    }
    assert {path for path in before if path not in after} == {
        path for path in before if path not in after and "deduplicated" in path
    }
    changed = {path for path in before if path in after and after[path] != before[path]}
    assert {"studies/index.json.gz", f"{PLACE}/metadata.gz", f"{PLACE}/instances.gz"} <= changed
    allowed = (f"studies/{STUDY}/", "studies/index.json.gz")
    assert all(path.startswith(allowed) for path in changed)
    other = f"studies/{STUDY}/series/{uid('DFS-1', 1, 2)}"
    assert not any(path.startswith(other) for path in changed)
    assert instances(web / "studies/index.json.gz")[0]["00201208"]["Value"] == [7]


def test_who_has_a_document_open_reads_it_to_its_end(web: Path, archive_path: Path, tmp_path: Path) -> None:
    path = web / PLACE / "metadata.gz"
    with path.open("rb") as file:
        start = file.read(20)
        (tmp_path / "more.dcm").write_bytes(make_instance(number=4))
        import_into(archive_path, tmp_path / "more.dcm")
        deadline = time.monotonic() + DEADLINE_S
        while os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
            assert time.monotonic() < deadline, "the drive does not show what was imported"
            time.sleep(0.05)
        assert len(json.loads(gzip.decompress(start + file.read()))) == 3
    assert len(instances(path)) == 4


def test_an_instance_that_takes_a_place_is_shown_there(web: Path, archive_path: Path, tmp_path: Path) -> None:
    place = web / PLACE / "instances" / uid("DFS-1", 1, 1, 2)
    before = (place / "frames/1").read_bytes(), os.stat(place).st_ino
    (tmp_path / "other.dcm").write_bytes(make_instance(number=2, seed="other"))
    import_into(archive_path, tmp_path / "other.dcm", on_conflict="replace")
    deadline = time.monotonic() + DEADLINE_S
    while os.stat(place).st_ino == before[1]:
        assert time.monotonic() < deadline, "the drive does not show what was imported"
        time.sleep(0.05)
    assert (place / "frames/1").read_bytes() != before[0]
    assert len(instances(web / PLACE / "metadata.gz")) == 3


def test_names_that_are_not_listed(web: Path) -> None:
    for folder, _, names in os.walk(web):
        for name in names:
            path = Path(folder, name)
            if name.endswith(".gz") and "bulkdata" not in path.parts:
                plain = path.with_suffix("")
                if plain.is_file():
                    assert plain.read_bytes() == gzip.decompress(path.read_bytes())
                    assert plain.name not in os.listdir(folder)
    instance = web / PLACE / "instances" / uid("DFS-1", 1, 1, 1)
    frame = (instance / "frames/1").read_bytes()
    assert (instance / "frames/1.mht").read_bytes() == frame
    assert gzip.decompress((instance / "frames/1.gz").read_bytes()) == frame
    assert (instance / "frames/1.gz").stat().st_size == len((instance / "frames/1.gz").read_bytes())
    whole = (instance / "index.mht").read_bytes()
    boundary = whole.split(b"\r\n", 1)[0]
    assert whole.endswith(boundary + b"--\r\n")
    assert make_instance(number=1) in whole
    for name in ("frames/0", "frames/2", "frames/01", "frames/1.x", "frames/1.", "rendered/2", "bulkdata/x", "x"):
        assert not (instance / name).exists()


def test_a_drive_on_an_archive_that_nobody_may_write_to(
    mount_drive: Callable[..., Drive], archive_path: Path, tmp_path: Path
) -> None:
    write_study(tmp_path / "one", instances=2)
    import_into(archive_path, tmp_path / "one")
    (archive_path / "cache").rmdir()
    (archive_path / "cache").write_text("no directory")
    tree = mount_drive(archive_path).path / "dicomweb"
    assert len(instances(tree / PLACE / "metadata.gz")) == 2
    assert (archive_path / "cache").read_text() == "no directory"
    (archive_path / "cache").unlink()


def makers_of(drive: Drive) -> list[int]:
    """Return the processes that make documents for a drive."""
    children = Path(f"/proc/{drive.process.pid}/task").glob("*/children")
    found = [int(pid) for listed in children for pid in listed.read_text().split()]
    return [pid for pid in found if b"dicomfs.archive.maker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_document_in_the_making_keeps_nobody_from_hearing_of_changes(
    archive_path: Path, tmp_path: Path, mount_drive: Callable[..., Drive]
) -> None:
    def add(name: str, *contents: bytes) -> None:
        folder = tmp_path / name
        folder.mkdir()
        for number, content in enumerate(contents):
            (folder / f"{number}").write_bytes(content)
        import_into(archive_path, folder)

    add("first", *(make_instance("SR", patient=patient) for patient in "ABC"))
    drive = mount_drive(archive_path)
    one, other, third = (drive.path / "dicomweb/studies" / uid(patient, 1) for patient in "ABC")
    assert (third / "metadata.gz").stat().st_size
    before = (other / "series").stat().st_mtime_ns
    (maker,) = makers_of(drive)
    os.kill(maker, signal.SIGSTOP)
    asked = threading.Thread(target=os.stat, args=(one / "metadata.gz",))
    try:
        asked.start()
        in_progress = Path(f"/proc/{os.getpid()}/task/{asked.native_id}/wchan")
        deadline = time.monotonic() + DEADLINE_S
        while "fuse" not in in_progress.read_text() and "request" not in in_progress.read_text():
            assert time.monotonic() < deadline, in_progress.read_text()
            time.sleep(0.01)
        add("second", make_instance("SR", patient="A", number=2))
        add("third", make_instance("SR", patient="B", number=2))
        deadline = time.monotonic() + DEADLINE_S
        while (other / "series").stat().st_mtime_ns == before:
            assert time.monotonic() < deadline, "the drive does not show what was imported"
            time.sleep(0.05)
        assert asked.is_alive()
    finally:
        os.kill(maker, signal.SIGCONT)
        asked.join()
    assert len(instances(one / "metadata.gz")) == len(instances(other / "metadata.gz")) == 2


def test_a_drive_ends_though_the_kernel_waits_for_it(
    archive_path: Path, tmp_path: Path, mount_drive: Callable[..., Drive]
) -> None:
    """A name is to be forgotten in a directory in which a look-up waits for a document that is never made."""
    for number, patient in enumerate("AB"):
        (tmp_path / f"{number}").write_bytes(make_instance("SR", patient=patient))
    import_into(archive_path, tmp_path / "0", tmp_path / "1")
    drive = mount_drive(archive_path)
    one, other = (drive.path / "dicomweb/studies" / uid(patient, 1) for patient in "AB")
    assert (other / "metadata.gz").stat().st_size
    (maker,) = makers_of(drive)
    os.kill(maker, signal.SIGSTOP)
    asked = subprocess.Popen(["stat", one / "metadata.gz"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not is_waiting(asked.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (tmp_path / "2").write_bytes(make_instance("SR", patient="A", number=2))
        import_into(archive_path, tmp_path / "2")
        deadline = time.monotonic() + DEADLINE_S
        while not any("inval" in waits for waits in waits_of(drive.process.pid)):
            assert time.monotonic() < deadline, waits_of(drive.process.pid)
            time.sleep(0.01)
        drive.end()
        assert asked.wait(DEADLINE_S) != 0
    finally:
        asked.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(maker, signal.SIGKILL)


def is_waiting(process: int) -> bool:
    return any("fuse" in waits or "request" in waits for waits in waits_of(process))


def waits_of(process: int) -> list[str]:
    """Return what in the kernel the threads of a process wait for."""
    return [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/wchan")]
