"""The manifest is what sha256sum makes and takes, of all that lies there."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from dicomfs.errors import UsageError
from dicomfs.manifest import NAME, Manifest, line
from tests.builders import uid
from tests.cli.test_export import files
from tests.cli.test_zip import checked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Filled, Run

HOSTILE = [
    "plain.dcm", "two  blanks", " blank", "back\\slash", "new\nline", "\\n", "carriage\rreturn", "\r", "ü.dcm",
    "\udcff", "-", "-c", "*star", "#", "a/-", "\\", "deep/er/x", "64" * 32,
]  # fmt: skip


def filled_with(directory: Path, names: list[str]) -> None:
    manifest = Manifest(str(directory))
    for number, name in enumerate(names):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
        manifest.add(name, hashlib.sha256(path.read_bytes()).digest())
    manifest.finish()
    manifest.close()


def test_any_name(tmp_path: Path) -> None:
    filled_with(tmp_path, HOSTILE)
    assert checked(tmp_path) == len(HOSTILE)
    filled_with(tmp_path, HOSTILE[:2])
    assert checked(tmp_path) == len(HOSTILE)
    for name in HOSTILE:
        if name != "-":  # which sha256sum reads as its input
            done = subprocess.run(
                [b"sha256sum", b"--", os.fsencode(name)], cwd=tmp_path, capture_output=True, check=True
            )
            assert line(name, hashlib.sha256((tmp_path / name).read_bytes()).digest()) == done.stdout


def test_one_changed_bit_is_found(tmp_path: Path) -> None:
    filled_with(tmp_path, ["a", "b"])
    (tmp_path / "b").write_bytes(b"0")
    assert subprocess.run(["sha256sum", "-c", NAME], cwd=tmp_path, capture_output=True).returncode == 1


def test_what_earlier_exports_wrote_stays_while_it_is_there(run: Run, filled: Filled, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ("export", "-a", filled.path, "-o", output, "--manifest")
    assert run(*command, "--study-uid", uid("P-2", 1)).status == 0
    assert checked(output) == 2
    assert run(*command, "--patient-id", "DFS-1").status == 0
    assert checked(output) == 9
    before = (output / NAME).read_bytes()
    assert run(*command, "--all").status == 0
    assert checked(output) == 9
    assert sorted((output / NAME).read_bytes().splitlines()) == sorted(before.splitlines())
    gone = min(set(files(output)) - {NAME})
    (output / gone).unlink()
    assert run(*command, "--study-uid", uid("P-2", 1)).status == 0
    assert checked(output) == 8


def test_without_the_option_there_is_none(run: Run, filled: Filled, tmp_path: Path) -> None:
    run("export", "-a", filled.path, "-o", tmp_path, "--all", "--layout", "patients")
    assert NAME not in files(tmp_path)


def text(path: Path) -> None:
    path.write_text("my list\n")


def half_a_line(path: Path) -> None:
    path.write_text(f"{'0' * 64}  name")


def no_line_ends(path: Path) -> None:
    path.write_bytes(b"0" * 100_000)


def link(path: Path) -> None:
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("make", [text, half_a_line, no_line_ends, link, os.mkdir, os.mkfifo])
def test_somebodys_file_is_not_replaced(run: Run, filled: Filled, tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / NAME)
    before = os.lstat(tmp_path / NAME)
    ended = run("export", "-a", filled.path, "-o", tmp_path, "--all", "--manifest")
    assert (ended.status, ended.out) == (2, "")
    assert "move it away" in ended.err
    assert os.lstat(tmp_path / NAME) == before
    assert os.listdir(tmp_path) == [NAME]


def test_a_document_that_changed_on_the_disk_is_written_anew(run: Run, filled: Filled, tmp_path: Path) -> None:
    command = (
        "export",
        "-a",
        filled.path,
        "-o",
        tmp_path,
        "--all",
        "--layout",
        "patients/DFS-1_Doe_Jane",
        "--manifest",
    )
    assert run(*command).status == 0
    before = files(tmp_path)
    path = tmp_path / min(set(before) - {NAME})
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    ended = run(*command)
    assert ended.out.startswith("7 files: 1 written")
    assert files(tmp_path) == before


def test_a_file_under_the_manifests_name(tmp_path: Path) -> None:
    manifest = Manifest(str(tmp_path))
    with pytest.raises(UsageError):
        manifest.add("Manifest.SHA256/00001.dcm", bytes(32))
    manifest.add("a", bytes(32))
    manifest.close()
    assert os.listdir(tmp_path) == []
