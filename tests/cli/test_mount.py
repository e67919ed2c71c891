"""`dicomfs mount` and `dicomfs umount` from the command line, as people and mount(8) call them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import spawn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Filled, Run

pytestmark = pytest.mark.mounted


def dicomfs(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomfs.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "drive"
    path.mkdir()
    yield path
    if os.path.ismount(path):
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("words", [["mount"], []], ids=["mount", "as mount.fuse3 calls it"])
def test_mount_and_umount(filled: Filled, mountpoint: Path, words: list[str]) -> None:
    ended = dicomfs(*words, filled.path, mountpoint, "-o", "ro,nodev,nosuid")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert os.path.ismount(mountpoint)
    assert min(path.name for path in (mountpoint / "patients").iterdir()) == "DFS-1_Doe_Jane"
    ended = dicomfs("umount", mountpoint)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not os.path.ismount(mountpoint)


def test_mount_8_may_say_rw(filled: Filled, mountpoint: Path) -> None:
    assert dicomfs("mount", filled.path, mountpoint, "-o", "rw").returncode == 2
    assert dicomfs(filled.path, mountpoint, "-o", "rw,dev,suid").returncode == 0
    assert dicomfs("umount", mountpoint).returncode == 0


def test_views(filled: Filled, mountpoint: Path) -> None:
    assert dicomfs("mount", "--views", "patients", filled.path, mountpoint).returncode == 0
    assert {path.name for path in mountpoint.iterdir()} == {"README.txt", "patients"}
    assert dicomfs("umount", mountpoint).returncode == 0


def test_foreground_ends_with_the_drive(filled: Filled, mountpoint: Path) -> None:
    process = spawn("mount", filled.path, mountpoint, "--foreground")
    while not os.path.ismount(mountpoint):
        assert process.poll() is None
    assert dicomfs("umount", mountpoint).returncode == 0
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_an_export_is_the_drive(run: Run, filled: Filled, mountpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run("export", "-a", filled.path, "--all", "-o", output)
    assert dicomfs("mount", filled.path, mountpoint).returncode == 0
    subprocess.run(["diff", "-r", mountpoint / "patients", output], check=True)
    for shown in (mountpoint / "patients").rglob("*"):
        exported = output / shown.relative_to(mountpoint / "patients")
        assert exported.stat().st_mtime_ns == shown.stat().st_mtime_ns
    assert dicomfs("umount", mountpoint).returncode == 0


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["-o", "frobnicate"], 2, "unknown mount option 'frobnicate'"),
        (["--views", "nonsense"], 2, "nonsense"),
    ],
)
def test_wrong_options(
    run: Run, filled: Filled, mountpoint: Path, options: list[str], status: int, message: str
) -> None:
    ended = run("mount", filled.path, mountpoint, *options)
    assert (ended.status, ended.out) == (status, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_no_archive(run: Run, mountpoint: Path, tmp_path: Path) -> None:
    assert run("mount", tmp_path / "missing", mountpoint).status == 3
    assert run(tmp_path / "missing", mountpoint).status == 3


def test_nothing_mounted(run: Run, mountpoint: Path) -> None:
    ended = run("umount", mountpoint)
    assert ended.status == 1
    assert ended.err.startswith(f"dicomfs: {mountpoint}: ")
