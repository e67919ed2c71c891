"""The commands of README.md, typed one after another as they stand: they work, and print what is said there."""

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
# What depends on the machine, on how well things are compressed, on the time, and on a project's key.
VARYING = re.compile(
    r"(?<= )\d[\d.,]* (?:[KM]?B(?:/s)?|s|%)(?= |;|,|\)|$)|(?<= B )\d+(?=\n| )|-+"
    r"|(?<=version )\d+|(?<=total )\d+|\d{14}|DATE-\d{8}(?=--MR)|ANON-[A-Z2-7]{12}|~[a-z2-7]{6}"
    r"|\d+ \w+ \w+ \d+ \w{3} \d+ \d\d:\d\d"
)
PROJECT = re.compile(r"projects/((?:PHI|DeID)_[a-z]+)_\d{14}")
SHOWN = {
    "dicomfs layout add omidb": "[ -e drive/omidb/data/demd0000001 ]",
    "dicomfs attach ": "grep -q EpisodeType drive/omidb/data/demd0000001/nbss_*",
    "dicomfs project create heads ": "compgen -G 'drive/projects/PHI_heads_*'",
    "dicomfs project create spines ": "compgen -G 'drive/projects/DeID_spines_*'",
}
"""What a drive shows within a second of commands: it is waited for."""
SECTIONS = ("Five minutes", "Names", "Projects", "De-identified views", "Copies")


def walk_through() -> list[tuple[str, str]]:
    """Return each command of the walk-through, and of what goes on with it, with what README.md says that it prints."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    section = "".join(text.split(f"\n## {name}\n")[1].split("\n## ")[0] for name in SECTIONS)
    found = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    blocks = "".join(block for block in found if block.startswith("$ "))
    # A command ends with its line, or where the quotation that it begins ends.
    found = re.split(r"^\$ ((?:[^'\n]|'[^']*')*)\n", blocks, flags=re.MULTILINE)
    assert found[0] == ""
    return list(zip(found[1::2], found[2::2], strict=True))


def typed(command: str) -> str:
    """Return a command as it is for this machine and this time."""
    command = command.replace(CD, str(Path(pydicom.__file__).parent))
    command = PROJECT.sub(r"projects/$(basename drive/projects/\1_*)", command)
    if os.geteuid() != 0:
        command = command.replace("-o allow_other ", "")
    return command


def printed(commands: list[str], directory: Path) -> list[str]:
    """Type commands into one shell; return what each printed on stdout and stderr."""
    python = f"PYTHONPATH={CHECKOUT} {sys.executable}"
    lines = [f'dicomfs() {{ {python} -m dicomfs.cli "$@"; }}', f'python() {{ {sys.executable} "$@"; }}', "exec 2>&1"]
    for command in commands:
        lines += [f"printf {MARK}", typed(command)]
        for beginning in filter(command.startswith, SHOWN):
            lines.append(f"until {SHOWN[beginning]} >/dev/null; do sleep 0.02; done")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DICOMFS_DEBUG": "0"}
    environment.pop("DICOMFS_ARCHIVE", None)
    try:
        ended = subprocess.run(
            ["bash", "-e"],
            input="\n".join(lines), cwd=directory, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    finally:
        for name in ("drive", "shared"):
            if os.path.ismount(directory / name):
                subprocess.run(["umount", "-l", directory / name], check=True)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout.replace(str(directory), "/srv/demo").split(MARK)[1:]


def comparable(text: str) -> str:
    """Return what must be the same everywhere; `ls` and tables are as wide as they need."""
    return VARYING.sub("#", " ".join(text.split()))


def test_the_walk_through(tmp_path: Path) -> None:
    if shutil.which("getfattr") is None:
        pytest.skip("needs getfattr, of the package attr")
    pytest.importorskip("omidb", reason="needs the package omidb")
    said = walk_through()
    found = printed([command for command, _ in said], tmp_path)
    assert len(found) == len(said) > 40
    for (command, expected), text in zip(said, found, strict=True):
        assert comparable(text) == comparable(expected), command
