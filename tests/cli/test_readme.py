"""The walk-through of README.md, typed as it stands: it works, and prints what is said there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

pytestmark = pytest.mark.mounted

CHECKOUT = Path(__file__).resolve().parents[2]
CD = "/opt/dicomfs/lib/python3*/site-packages/pydicom"
MARK = "\x1e"
# What depends on the machine, and on how well things are compressed.
VARYING = re.compile(r"(?<= )\d[\d.,]* (?:[KM]?B(?:/s)?|s|%)(?= |;|,|\)|$)|(?<= B )\d+(?=\n| )|-+")


def walk_through() -> list[tuple[str, str]]:
    """Return each command of the walk-through with what README.md says that it prints."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Five minutes\n")[1].split("\n## ")[0]
    blocks = "".join(re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))
    found = re.split(r"^\$ (.*)\n", blocks, flags=re.MULTILINE)
    assert found[0] == ""
    return list(zip(found[1::2], found[2::2], strict=True))


def printed(commands: list[str], directory: Path) -> list[str]:
    """Type commands into one shell; return what each printed on stdout and stderr."""
    python = f"PYTHONPATH={CHECKOUT} {sys.executable}"
    lines = [f'dicomfs() {{ {python} -m dicomfs.cli "$@"; }}', "exec 2>&1"]
    for command in commands:
        lines += [f"printf {MARK}", command.replace(CD, str(Path(pydicom.__file__).parent))]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DICOMFS_DEBUG": "0"}
    environment.pop("DICOMFS_ARCHIVE", None)
    try:
        ended = subprocess.run(
            ["bash", "-e"],
            input="\n".join(lines), cwd=directory, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    finally:
        if os.path.ismount(directory / "drive"):
            subprocess.run(["umount", "-l", directory / "drive"], check=True)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout.replace(str(directory), "/srv/demo").split(MARK)[1:]


def comparable(text: str) -> str:
    """Return what must be the same everywhere; `ls` and tables are as wide as they need."""
    return VARYING.sub("#", " ".join(text.split()))


def test_the_walk_through(tmp_path: Path) -> None:
    if shutil.which("getfattr") is None:
        pytest.skip("needs getfattr, of the package attr")
    said = walk_through()
    found = printed([command for command, _ in said], tmp_path)
    assert len(found) == len(said) > 15
    for (command, expected), text in zip(said, found, strict=True):
        assert comparable(text) == comparable(expected), command
