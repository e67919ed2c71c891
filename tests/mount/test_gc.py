"""A drive goes on while `gc` replaces the packs below it: no reader ever meets an error or a wrong byte."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders import write_study
from tests.mount.conftest import TIMEOUT_S, Drive, environment, import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
DICOMFS = "import sys; from dicomfs.cli import main; sys.exit(main())"
LOOP = 'while :; do find . -type f -exec sha256sum {} + || exit 1; [ -e "$1" ] && exit 0; done'
COPY = 'while :; do rm -rf "$2"; cp -r . "$2" || exit 1; [ -e "$1" ] && exit 0; done'


def gc(archive: Path) -> dict[str, int]:
    """Collect in a process of its own; return the report."""
    told: dict[str, int] = json.loads(run(sys.executable, "-c", DICOMFS, "gc", "-a", archive, "--json").stdout)
    return told


def piece(fd: int, offset: int, length: int) -> bytes:
    """Read past what the kernel has of a file."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(fd, length, offset)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["none", "fast"])
def test_readers_see_no_error_while_packs_are_replaced(
    tmp_path: Path, mount_drive: Callable[..., Drive], codec: str
) -> None:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.check import check

    archive = tmp_path / "archive"
    Archive.init(archive, codec=codec)
    written: dict[Path, str] = {}
    for number in range(1, 4):
        written |= write_study(tmp_path / f"study{number}", instances=4, rows=512, columns=512, study=number, frames=4)
        import_into(archive, tmp_path / f"study{number}")
    drive = mount_drive(archive, "views=patients:dicomweb")
    digests = set(written.values())
    files = drive.files()
    contents = {name: path.read_bytes() for name, path in files.items()}
    assert {hashlib.sha256(content).hexdigest() for content in contents.values()} == digests
    frames = sorted(path for path in (drive.path / "dicomweb").rglob("frames/*") if path.is_file())[:8]
    assert frames
    shown = {path: path.read_bytes() for path in frames}
    handles = {name: os.open(path, os.O_RDONLY) for name, path in files.items()}
    handles |= {str(path): os.open(path, os.O_RDONLY) for path in frames}
    contents |= {str(path): content for path, content in shown.items()}
    done = tmp_path / "done"
    readers = [
        subprocess.Popen(
            ["sh", "-c", script, "sh", str(done), str(tmp_path / f"copy{number}")],
            cwd=drive.patients,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for number, script in enumerate((LOOP, COPY))
    ]
    pick = random.Random(codec)
    for number in range(ROUNDS):
        more = write_study(tmp_path / f"more{number}", instances=2, rows=64, columns=64, study=100 + number)
        digests |= set(more.values())
        import_into(archive, tmp_path / f"more{number}")
        told = gc(archive)
        assert (told["packs_written"], told["packs_after"]) == (1, 1)
        for name, fd in handles.items():
            content = contents[name]
            for _ in range(4):
                offset, length = pick.randrange(len(content)), pick.choice((100, 5000, 300_000))
                assert piece(fd, offset, length) == content[offset : offset + length]
        for path in frames:
            assert path.read_bytes() == shown[path]
    done.touch()
    for reader in readers:
        output, errors = reader.communicate(timeout=TIMEOUT_S)
        assert (reader.returncode, errors) == (0, "")
        assert {line[:64] for line in output.splitlines()} <= digests
    copied = (tmp_path / "copy1").rglob("*.dcm")
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in copied} <= digests
    for fd in handles.values():
        os.close(fd)
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in drive.files().values()} == digests
    assert "damaged" not in drive.log.read_text()
    drive.end()
    assert check(archive, verify_files=True).problems == []
