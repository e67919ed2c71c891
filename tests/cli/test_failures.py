"""However a command ends, it ends with one line and a status, never with a traceback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.errors import Damaged, Locked
from dicomfs.store.lock import WriterLock
from tests.builders import make_instance
from tests.cli.conftest import spawn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Filled, Run

SECRET = "Doe^Jane"


def failing(error: BaseException) -> object:
    def fail(_: Path) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (Damaged("x: is hurt"), 3, r"dicomfs: x: is hurt"),
        (Locked("x: busy"), 1, r"dicomfs: x: busy"),
        (Damaged("x\n\x1b[2Jy"), 3, r"dicomfs: x\\n\\x1b\[2Jy"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, r"dicomfs: /x/y: Permission denied"),
        (OSError(28, "No space left on device"), 1, r"dicomfs: No space left on device"),
        (KeyError(SECRET), 1, r"dicomfs: internal error: KeyError at \S+:\d+ in \w+ \(dicomfs .*DICOMFS_DEBUG=1.*"),
        (KeyboardInterrupt(), 130, r"\n?dicomfs: interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors(run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str) -> None:
    monkeypatch.setattr(Archive, "open", failing(error))
    ended = run("stats", "--archive", "x")
    assert ended.status == status
    assert ended.out == ""
    assert re.fullmatch(line, ended.err.removesuffix("\n"))
    assert SECRET not in ended.err


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(Archive, "open", failing(KeyError(SECRET)))
    if how == "environment":
        monkeypatch.setenv("DICOMFS_DEBUG", "1")
    ended = run(*(["--debug"] if how == "option" else []), "stats", "--archive", "x")
    assert ended.status == 1
    assert "Traceback" in ended.err
    assert SECRET in ended.err


def test_nobody_reads_stdout(filled: Filled) -> None:
    process = spawn("query", "-a", filled.path, "--level", "instance", "--json")
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()


def test_nobody_reads_stderr() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([sys.executable, "-m", "dicomfs.cli", "query", "-a", "/nonexistent"], stderr=write)
    os.close(write)
    assert ended.returncode == 3


def test_a_terminal_that_lacks_characters(filled: Filled) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dicomfs.cli", "list", "-a", str(filled.path)],
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert ended.returncode == 0
    assert b"\\u251c" in ended.stdout


def test_interrupted_import(archive_path: Path, tmp_path: Path) -> None:
    lock = WriterLock(archive_path / "lock", "a test")
    process = spawn("import", "-a", archive_path, "--wait", "600", tmp_path)
    opened = f"{archive_path}/lock"
    deadline = time.monotonic() + 60
    while opened not in _open_files(process.pid):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    lock.release()
    assert process.returncode == 130
    assert out == ""
    assert err.strip() == "dicomfs: interrupted; what was committed is safe; run the same command again to go on"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_import_interrupted_among_files(
    run: Run, archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    (tmp_path / "0").write_text("not DICOM, which is told at once")
    for name in range(1, 200):
        (tmp_path / f"{name}").write_bytes(make_instance(number=name, rows=8, columns=8))
    said: list[str] = []

    def interrupting(text: str) -> None:
        if not said:
            os.kill(os.getpid(), number)
        said.append(text)

    monkeypatch.setattr("dicomfs.cli.importing.note", interrupting)
    files = [tmp_path / str(name) for name in range(200)]
    ended = run("import", "-a", archive_path, "-j", "1", *files)
    assert ended.status == status
    assert said[1:] == ["interrupted; run the same command again to go on"]
    assert ended.out.startswith("200 files: ")
    run("import", "-a", archive_path, *files)
    assert run("stats", "-a", archive_path).out.startswith("1 patient, 1 study, 1 series, 199 instances\n")


def test_a_second_writer_says_who_holds_the_lock(run: Run, archive_path: Path, tmp_path: Path) -> None:
    lock = WriterLock(archive_path / "lock", "a test")
    ended = run("import", "-a", archive_path, "--wait", "0.2", tmp_path)
    lock.release()
    assert ended.status == 1
    assert f"being written by a test, process {os.getpid()}" in ended.err


def _open_files(pid: int) -> list[str]:
    directory = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(directory):
        try:
            found.append(os.readlink(os.path.join(directory, name)))
        except FileNotFoundError:
            continue
    return found


def test_suggested_commands_are_complete(run: Run, archive_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "a copy"
    shutil.copytree(archive_path, path)
    shutil.rmtree(path / "index")
    ended = run("stats", "-a", path)
    assert ended.status == 3
    assert f"run dicomfs reindex -a '{path}'" in ended.err
