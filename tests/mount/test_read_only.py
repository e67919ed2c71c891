"""Every attempt to write is refused with EROFS, by the kernel and by the drive itself."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.conftest import TIMEOUT_S, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "create": lambda file: os.open(file.parent / "new", os.O_WRONLY | os.O_CREAT),
    "write": lambda file: os.open(file, os.O_RDWR),
    "append": lambda file: os.open(file, os.O_WRONLY | os.O_APPEND),
    "truncate": lambda file: os.truncate(file, 0),
    "open_truncating": lambda file: os.open(file, os.O_RDONLY | os.O_TRUNC),
    "unlink": os.unlink,
    "rename": lambda file: os.rename(file, file.with_name("other")),
    "link": lambda file: os.link(file, file.with_name("other")),
    "symlink": lambda file: os.symlink("x", file.with_name("other")),
    "mkdir": lambda file: os.mkdir(file.parent / "new"),
    "rmdir": lambda file: os.rmdir(file.parent),
    "mkfifo": lambda file: os.mkfifo(file.parent / "new"),
    "chmod": lambda file: os.chmod(file, 0o600),
    "chown": lambda file: os.chown(file, 1, 1),
    "utime": lambda file: os.utime(file, (0, 0)),
    "setxattr": lambda file: os.setxattr(file, "user.dicom.PatientID", b"x"),
    "removexattr": lambda file: os.removexattr(file, "user.dicom.PatientID"),
}


@pytest.fixture(params=["mounted_ro", "remounted_rw"])
def file(request: pytest.FixtureRequest, imported: tuple[Path, object], mount_drive: Callable[..., Drive]) -> Path:
    drive = mount_drive(imported[0])
    if request.param == "remounted_rw":  # so that every attempt comes through to the drive
        run("mount", "-i", "-o", "remount,rw", drive.path)
    return next(iter(drive.files().values()))


@pytest.mark.root
def test_every_attempt_to_write_is_refused(file: Path) -> None:
    before = (file.read_bytes(), sorted(os.listdir(file.parent)))
    refused = {}
    for name, attempt in ATTEMPTS.items():
        with pytest.raises(OSError, match="Read-only file system") as caught:
            attempt(file)
        refused[name] = caught.value.errno
    assert refused == dict.fromkeys(ATTEMPTS, errno.EROFS)
    assert (file.read_bytes(), sorted(os.listdir(file.parent))) == before


@pytest.mark.parametrize(
    "command",
    [
        ["touch", "new"],
        ["touch", "FILE"],
        ["rm", "-f", "FILE"],
        ["mkdir", "new"],
        ["mv", "FILE", "new"],
        ["ln", "FILE", "new"],
        ["ln", "-s", "FILE", "new"],
        ["truncate", "-s0", "FILE"],
        ["chmod", "600", "FILE"],
        ["setfattr", "-n", "user.x", "-v", "y", "FILE"],
        ["cp", "/etc/hostname", "new"],
    ],
    ids=lambda words: "_".join(words[:2]),
)
def test_programs_are_told_that_the_drive_is_read_only(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive], command: list[str]
) -> None:
    drive = mount_drive(imported[0])
    file = next(iter(drive.files().values()))
    words = [word if word != "FILE" else file.name for word in command]
    done = subprocess.run(words, cwd=file.parent, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
