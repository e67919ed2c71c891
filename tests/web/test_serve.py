"""`dicomfs serve` from its start to its end: it serves, says what is missing, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.cli import main, nginx
from tests.builders import write_study
from tests.web.conftest import Serving, dicomfs, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.mounted


@pytest.fixture
def filled(archive_path: Path, tmp_path: Path) -> Path:
    write_study(tmp_path / "study", series=2, instances=3)
    dicomfs("import", "-a", archive_path, tmp_path / "study")
    return archive_path


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where `serve` has its directory; see that neither it nor a drive in it is there after a test."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield path
    until(lambda: not list(path.iterdir()), "what serve made to be gone")


@pytest.fixture
def start(temporary: Path) -> Iterator[Callable[..., Serving]]:
    """Return a function that starts `dicomfs serve`; none outlives the test."""
    started: list[Serving] = []

    def start(*arguments: object) -> Serving:
        started.append(Serving(*arguments))
        return started[-1]

    yield start
    for serving in started:
        serving.kill()


def studies(serving: Serving) -> int:
    return len(json.loads(serving.get("dicomweb/studies").body))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_serves_until_told_to_end(start: Callable[..., Serving], filled: Path, number: int) -> None:
    serving = start("-a", filled)
    assert studies(serving) == 1
    started = serving.descendants()
    assert len(started) > 2  # a drive, nginx and its workers
    status, said = serving.end(number)
    assert (status, said) == (0, "Ctrl-C ends it\n")
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


def test_killed(start: Callable[..., Serving], filled: Path, temporary: Path) -> None:
    serving = start("-a", filled)
    started = serving.descendants()
    [directory] = temporary.iterdir()
    assert os.path.ismount(directory / "drive")
    serving.end(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "what it started to end")
    assert not os.path.ismount(directory / "drive")
    subprocess.run(["rm", "-r", "--one-file-system", directory], check=True, timeout=30)


def test_nobody_else_gets_in(filled: Path, temporary: Path) -> None:
    with Serving("-a", filled):
        [directory] = temporary.iterdir()
        assert os.stat(directory).st_mode & 0o777 == 0o700
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        [line] = [line for line in mounts if f" {directory}/drive " in line]
        assert "allow_other" not in line
        assert {path.name for path in (directory / "drive").iterdir()} == {"README.txt", "dicomweb"}


def test_a_tree_that_is_there(filled: Path, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    dicomfs("mount", filled, drive)
    try:
        with Serving("-a", filled, "--tree", drive / "dicomweb") as serving:
            assert studies(serving) == 1
        assert os.path.ismount(drive)
    finally:
        dicomfs("umount", drive)


def test_the_drive_is_unmounted(start: Callable[..., Serving], filled: Path, temporary: Path) -> None:
    serving = start("-a", filled)
    [directory] = temporary.iterdir()
    dicomfs("umount", directory / "drive")
    assert serving.process.wait(30) == 1
    assert "the drive was unmounted" in serving.process.communicate()[1]


def test_nginx_ends(start: Callable[..., Serving], filled: Path) -> None:
    serving = start("-a", filled)
    masters = [pid for pid in serving.descendants() if "nginx: master" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(masters[0], signal.SIGTERM)
    assert serving.process.wait(30) == 1
    assert "nginx ended" in serving.process.communicate()[1]


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = main([str(argument) for argument in arguments])
    return status, capsys.readouterr().err


def test_no_nginx(filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "_SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    status, err = said(capsys, "serve", "-a", filled)
    assert status == 1
    assert "install the package 'nginx-light'" in err


def test_an_nginx_that_does_not_start(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nginx").write_text("#!/bin/sh\necho 'nginx: unknown directive \"gzip_static\"' >&2\nexit 1\n")
    (tmp_path / "nginx").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    status, err = said(capsys, "serve", "-a", filled, "--port", 0)
    assert status == 1
    assert err == 'dicomfs: nginx does not start: nginx: unknown directive "gzip_static"\n'


def test_a_port_in_use(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, err = said(capsys, "serve", "-a", filled, "--port", port)
    assert status == 1
    assert f"port {port} is in use" in err


def test_a_drive_that_cannot_be(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (filled / "index").rename(filled / "elsewhere")
    status, err = said(capsys, "serve", "-a", filled, "--port", 0)
    (filled / "elsewhere").rename(filled / "index")
    assert status == 1
    assert err.startswith("dicomfs: ")
    assert "index" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tree", "."], "holds no studies/"),
        (["--ohif", "."], "holds no index.html"),
        (["--allow-origin", "https://x.example; evil on"], "is not an origin"),
        (["--port", "70000"], "70000"),
    ],
)
def test_wrong_requests(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    options: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, err = said(capsys, "serve", "-a", filled, "--port", 0, *options)
    assert status == 2
    assert message in err


def test_a_path_that_nginx_cannot_name(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a$b", 'a"b', "a\\b", "a\nb"):
        (tmp_path / name / "studies").mkdir(parents=True)
        for command in (["serve", "-a", filled, "--port", 0, "--tree"], ["nginx-conf", "-a", filled]):
            status, err = said(capsys, *command, tmp_path / name)
            assert status == 2
            assert "name a symbolic link" in err
