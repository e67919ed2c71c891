"""Drives of an earlier state: what they show is what a live drive showed then, and they never change."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive.moments import time_text
from tests.builders import make_instance, write_study
from tests.mount.conftest import environment, import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted

HELPER = shutil.which("mount.fuse3", path="/sbin:/usr/sbin")


class Past(NamedTuple):
    """An archive in three steps, and what a live drive showed after each of the first two."""

    path: Path
    times: list[int]
    shown: list[dict[str, tuple[int, ...]]]
    digests: list[dict[str, str]]


def shown(root: Path) -> dict[str, tuple[int, ...]]:
    """Return what `stat` says of all that a drive has, but README.txt and quarantine."""
    found = {}
    for folder, directories, files in os.walk(root):
        for name in sorted(directories + files):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if relative == "README.txt" or relative.split(os.sep)[0] == "quarantine":
                continue
            status = os.lstat(path)
            # Numbers of documents tell how they were made, from an earlier one or from nothing.
            ino = 0 if name.endswith(".gz") else status.st_ino
            found[relative] = (ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns)
    return found


def digests(root: Path) -> dict[str, str]:
    files = [name for name, (_, mode, *_) in shown(root).items() if stat.S_ISREG(mode)]
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in files}


def dicomfs(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomfs.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(**variables))


@pytest.fixture
def past(archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> Past:
    found = Past(archive_path, [], [], [])
    drive = mount_drive(archive_path, "attr_timeout=0,entry_timeout=0")
    small = {"rows": 16, "columns": 16}
    for step in range(3):
        source = tmp_path / f"source{step}"
        write_study(source / "own", instances=2, study=step, **small)
        (source / "same").write_bytes(make_instance(number=1, study="same", seed=str(step), **small))
        (source / "cut").write_bytes(make_instance(number=step, study="cut", **small)[:-50])
        files = len(drive.files())
        import_into(archive_path, source, on_conflict="replace")
        deadline = time.monotonic() + 20
        while len(drive.files()) == files and time.monotonic() < deadline:
            time.sleep(0.05)
        if step < 2:
            time.sleep(1)  # the kernel forgets what there was
            found.shown.append(shown(drive.path))
            found.digests.append(digests(drive.path))
        done = dicomfs("query", "-a", archive_path, "--level", "instance", "--json")
        assert done.returncode == 0
        found.times.append(max(path.stat().st_mtime_ns for path in drive.files().values()))
    drive.end()
    return found


def test_a_drive_is_what_it_was(past: Past, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    live = mount_drive(past.path)
    drives = [mount_drive(past.path, f"as_of={time_text(one)}") for one in past.times[:2]]
    for drive, was, were in zip(drives, past.shown, past.digests, strict=True):
        assert shown(drive.path) == was
        assert digests(drive.path) == were
        assert not (drive.path / "quarantine").exists()
    assert (live.path / "quarantine").exists()
    assert len(live.files()) == len(drives[1].files()) + 2

    page = (drives[0].path / "README.txt").read_text()
    assert f"as of {time_text(past.times[0])}" in page
    assert "after commit 1," in page
    size = sum(size for _, mode, _, size, _ in past.shown[0].values() if stat.S_ISREG(mode) and size)
    room = os.statvfs(drives[0].path)
    assert 0 < room.f_blocks * room.f_frsize < size
    assert room.f_files == len(drives[0].files()) < os.statvfs(live.path).f_files
    name, file = next(iter(drives[0].files().items()))
    assert os.getxattr(file, "user.dicomfs.sha256").decode() == past.digests[0][f"patients/{name}"]

    frozen = mount_drive(past.path, "as_of=2999-12-31T23:59:59Z")
    before = shown(frozen.path)
    write_study(tmp_path / "later", study="later", instances=2, rows=16, columns=16)
    import_into(past.path, tmp_path / "later")
    deadline = time.monotonic() + 20
    while len(live.files()) < 9 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(live.files()) == 9
    assert shown(frozen.path) == before
    assert [shown(drive.path) for drive in drives] == past.shown


def test_a_reindex_below_a_drive(past: Past, mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(past.path, f"as_of={time_text(past.times[0])},views=patients:dicomweb")
    (used,) = [entry for entry in (past.path / "cache" / "as-of").iterdir() if entry.name.startswith("1-")]
    with next(iter(drive.files().values())).open("rb") as file:
        assert dicomfs("reindex", "-a", past.path).returncode == 0
        assert shown(drive.path) == past.shown[0]
        # Records that lie elsewhere now, as after `gc`: what they hold is found there.
        for number, pack in enumerate(sorted((past.path / "packs").iterdir()), start=7):
            pack.rename(pack.with_name(f"{number:08d}.zip"))
        assert dicomfs("reindex", "-a", past.path).returncode == 0
        assert digests(drive.path) == past.digests[0]
        assert shown(drive.path) == past.shown[0]
        assert hashlib.sha256(file.read()).hexdigest() in past.digests[0].values()
        assert used.exists()
    drive.end()
    assert "WARNING" not in drive.log.read_text()


@pytest.mark.root
@pytest.mark.skipif(HELPER is None, reason="mount.fuse3 is not installed")
def test_mount_8(past: Past, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "dicomfs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dicomfs.cli "$@"\n')
    program.chmod(0o755)
    place = tmp_path / "place"
    place.mkdir()
    when = time_text(past.times[0])
    variables = environment(PATH=f"{program.parent}:{os.environ['PATH']}")
    # As mount(8) calls it, which looks for dicomfs in the directories of the system alone.
    command = [HELPER, past.path, place, "-o", f"rw,dev,suid,as_of={when}", "-t", "fuse.dicomfs"]
    subprocess.run(command, check=True, env=variables, timeout=60)
    try:
        assert shown(place) == past.shown[0]
    finally:
        subprocess.run(["umount", place], check=True, timeout=60)


def test_the_command_line(past: Past, tmp_path: Path) -> None:
    first, second = (time_text(one) for one in past.times[:2])
    place = tmp_path / "place"
    place.mkdir()
    done = dicomfs("mount", "--as-of", second, past.path, place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    try:
        assert shown(place) == past.shown[1]
    finally:
        run("umount", place)

    for words in (["--all"], ["--all", "--layout", "dicomweb"]):
        output = tmp_path / words[-1]
        assert dicomfs("export", "-a", past.path, "--as-of", first, *words, "-o", output).returncode == 0
        view = "patients" if words == ["--all"] else "dicomweb"
        expected = {name: one for name, one in past.digests[0].items() if name.startswith(f"{view}/")}
        assert {f"{view}/{name}": one for name, one in digests(output).items()} == expected
    assert dicomfs("export", "-a", past.path, "--as-of", first, "--all", "--zip", tmp_path / "a.zip").returncode == 0

    listed = dicomfs("list", "-a", past.path, "--as-of", first, "--format", "table").stdout
    assert "Study same" in listed
    assert "Study 0" in listed
    assert "Study 1" not in listed
    found = dicomfs("query", "-a", past.path, "--as-of", second, "--level", "instance", "--json").stdout
    assert found.count('"sha256"') == 5
    assert dicomfs("stats", "-a", past.path, "--as-of", first).stdout.startswith("1 patient, 2 studies, 2 series, 3 ")
    assert dicomfs("stats", "-a", past.path, "--as-of", "1999-01-01").stdout.startswith("0 patients, ")

    # A time without an offset is that of the machine.
    after = time_text(past.times[0] // 10**9 * 10**9 + 10**9)
    local = f"{datetime.fromisoformat(after) + timedelta(hours=3):%Y-%m-%dT%H:%M:%S}"
    for zone, commits in (("XXX-3", 1), ("UTC0", 3)):
        assert f'"commits": {commits}' in dicomfs("stats", "-a", past.path, "--as-of", local, "--json", TZ=zone).stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--as-of", "yesterday"], "'yesterday' is not a time"),
        (["-o", "as_of="], "'' is not a time"),
        (["-o", "as_of"], "needs a value"),
        (["--as-of", "2026-01-01", "-o", "rw"], "read-only"),
        (["--as-of", "2026-01-01", "--views", "patients,quarantine"], "known as of now alone"),
        (["--as-of", "2026-01-01", "--views", "icore"], "no view 'icore'"),
    ],
)
def test_what_is_refused(archive_path: Path, tmp_path: Path, words: list[str], told: str) -> None:
    done = dicomfs("mount", *words, archive_path, tmp_path / "place")
    assert done.returncode in (1, 2)
    (tmp_path / "place").mkdir()
    done = dicomfs("mount", *words, archive_path, tmp_path / "place")
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert not os.path.ismount(tmp_path / "place")


def test_no_archive(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "none").mkdir()
    done = dicomfs("mount", "--as-of", "2026-01-01", tmp_path / "none", tmp_path / "place")
    assert done.returncode == 3
    assert "archive" in done.stderr
    assert "index" not in done.stderr
