"""The bar of long commands: on a terminal's stderr only, and out of the way of the data."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.builders import write_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def on_a_terminal(*arguments: object) -> tuple[int, str, str]:
    """Run `dicomfs` with a terminal as its stderr; return status, stdout and what the terminal got."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dicomfs.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LC_ALL": "C.UTF-8"},
    )
    os.close(slave)
    drawn = b""
    try:
        while part := os.read(master, 65536):
            drawn += part
    except OSError:  # EIO: the other end is closed
        pass
    os.close(master)
    out, _ = process.communicate()
    return process.returncode, out.decode(), drawn.decode()


def test_a_bar_on_a_terminal(archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source", series=2, instances=10)
    status, out, drawn = on_a_terminal("import", "-a", archive_path, tmp_path / "source")
    assert status == 0
    assert out.startswith("20 files: 20 imported; ")
    assert "importing" in drawn
    assert "20/20" in drawn
    for command in (
        ["check", "--verify-files"],
        ["reindex"],
        ["export", "--all", "-o", tmp_path / "out"],
        ["export", "--all", "--zip", tmp_path / "out.zip"],
        ["export", "--all", "--layout", "dicomweb", "--zip", tmp_path / "web.zip"],
    ):
        status, out, drawn = on_a_terminal(*command, "-a", archive_path)
        assert status == 0
        assert "\x1b" not in out
        assert "/s" in drawn


def test_messages_beside_the_bar(archive_path: Path, tmp_path: Path) -> None:
    (tmp_path / "[bold]x\x1b[2J").write_text("no DICOM")
    status, _, drawn = on_a_terminal("import", "-a", archive_path, tmp_path / "[bold]x\x1b[2J")
    assert status == 1
    assert "skipped: " in drawn
    assert "[bold]x\\x1b[2J" in drawn.replace("\r\n", "")
    assert "\x1b[2J" not in drawn


def test_no_bar_elsewhere(run: Run, archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source")
    assert run("import", "-a", archive_path, tmp_path / "source").err == ""
