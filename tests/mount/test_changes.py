"""What other processes do to the archive shows on a mounted drive within a second."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.builders import make_instance, write_study
from tests.mount.conftest import TIMEOUT_S, environment, import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted

VISIBLE_S = 1.0
LATE_S = 5.0
"""What a busy machine may add before a test gives up."""


REINDEX = """
import sys
from pathlib import Path
from dicomfs.archive.rebuild import reindex
reindex(Path(sys.argv[1]))
"""


def seconds_until(holds: Callable[[], bool]) -> float:
    """Return how long it took until something held."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < VISIBLE_S + LATE_S
    return time.monotonic() - begin


def test_new_imports_appear_within_a_second(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    drive = mount_drive(imported[0])
    new = drive.patients / "DFS-2_Doe_Jane"
    study = drive.patients / "DFS-1_Doe_Jane/20240131_1015_Study 1"
    before = (os.stat(drive.patients), os.stat(study), os.statvfs(drive.path).f_blocks)
    assert len(drive.files()) == 12
    assert not new.exists()
    write_study(tmp_path / "other", patient="DFS-2", instances=3)
    write_study(tmp_path / "more", series=3, instances=2, study=1)
    import_into(imported[0], tmp_path / "other", tmp_path / "more")
    assert "DFS-2_Doe_Jane" in os.listdir(drive.patients)
    assert seconds_until(new.exists) < VISIBLE_S
    assert seconds_until((study / "0003_CT_Series 3/00001.dcm").exists) < VISIBLE_S
    assert seconds_until(lambda: os.stat(drive.patients).st_nlink == before[0].st_nlink + 1) < VISIBLE_S
    assert seconds_until(lambda: os.stat(study).st_nlink == before[1].st_nlink + 1) < VISIBLE_S
    assert os.stat(study).st_mtime_ns > before[1].st_mtime_ns
    assert os.stat(drive.path).st_mtime_ns > before[0].st_mtime_ns
    assert os.statvfs(drive.path).f_blocks > before[2]
    for path in drive.files().values():
        assert len(path.read_bytes()) == os.stat(path).st_size


def test_a_name_that_was_missed_just_before_appears_within_a_second(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    drive = mount_drive(archive_path)
    file = drive.patients / "DFS-1_Doe_Jane/20240131_1015_Study 1/0001_CT_Series 1/00001.dcm"
    content = make_instance()
    (tmp_path / "one.dcm").write_bytes(content)
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            file.exists()

    looker = threading.Thread(target=look)
    looker.start()
    import_into(archive_path, tmp_path / "one.dcm")
    ended.set()
    looker.join()
    assert seconds_until(file.exists) < VISIBLE_S
    assert file.read_bytes() == content


def test_a_replaced_file_shows_its_new_bytes_and_an_open_one_its_old(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    old, new = make_instance(seed="old"), make_instance(seed="new", trailing=b"\0\0")
    (tmp_path / "old.dcm").write_bytes(old)
    (tmp_path / "new.dcm").write_bytes(new)
    import_into(archive_path, tmp_path / "old.dcm")
    drive = mount_drive(archive_path)
    (shown,) = drive.files().values()
    assert shown.read_bytes() == old
    with open(shown, "rb") as file:
        import_into(archive_path, tmp_path / "new.dcm", on_conflict="replace")
        assert seconds_until(lambda: shown.read_bytes() == new) < VISIBLE_S
        assert os.stat(shown).st_size == len(new)
        assert file.read() == old
    assert len(drive.files()) == 1


def test_a_conflicting_file_appears_beside_the_first(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    first, second = make_instance(seed="a"), make_instance(seed="b")
    (tmp_path / "first.dcm").write_bytes(first)
    (tmp_path / "second.dcm").write_bytes(second)
    import_into(archive_path, tmp_path / "first.dcm")
    drive = mount_drive(archive_path)
    assert len(drive.files()) == 1
    import_into(archive_path, tmp_path / "second.dcm")
    assert sorted(path.read_bytes() for path in drive.files().values()) == sorted((first, second))


def test_quarantined_files_appear_and_go(archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    drive = mount_drive(archive_path)
    quarantine = drive.path / "quarantine"
    assert os.listdir(quarantine) == []
    (tmp_path / "cut.dcm").write_bytes(make_instance()[:-600])
    import_into(archive_path, tmp_path / "cut.dcm")
    assert seconds_until(lambda: len(os.listdir(quarantine)) == 2) < VISIBLE_S
    shown = sorted(quarantine.iterdir())
    assert shown[0].read_bytes() == make_instance()[:-600]
    for name in os.listdir(archive_path / "quarantine"):
        os.unlink(archive_path / "quarantine" / name)
    assert seconds_until(lambda: not shown[0].exists()) < VISIBLE_S


def test_a_reindex_below_a_mounted_drive_changes_nothing(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    archive, written = imported
    drive = mount_drive(archive)
    before = {name: os.stat(path).st_ino for name, path in drive.files().items()}
    path = next(iter(drive.files().values()))
    with open(path, "rb") as file:
        begun = file.read(4096)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        run(sys.executable, "-c", REINDEX, archive)
        write_study(tmp_path / "other", patient="DFS-2", instances=3)
        import_into(archive, tmp_path / "other")
        assert seconds_until((drive.patients / "DFS-2_Doe_Jane").exists) < VISIBLE_S
        rest = file.read()
    assert hashlib.sha256(begun + rest).hexdigest() in written.values()
    after = {name: os.stat(path).st_ino for name, path in drive.files().items()}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 3
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in drive.files().values()}
    assert set(written.values()) <= digests


@pytest.mark.slow
def test_eight_readers_see_no_error_while_an_import_runs(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    archive, written = imported
    drive = mount_drive(archive)
    for study in range(2, 8):
        write_study(tmp_path / "new" / str(study), series=2, instances=10, study=study, patient=f"DFS-{study}")
    digests = set(written.values()) | {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "new").rglob("IM*")
    }
    loop = 'while :; do find . -type f -exec sha256sum {} + || exit 1; [ -e "$1" ] && exit 0; done'
    done = tmp_path / "done"
    readers = [
        subprocess.Popen(
            ["sh", "-c", loop, "sh", str(done)],
            cwd=drive.patients,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for _ in range(8)
    ]
    for study in range(2, 8):
        import_into(archive, tmp_path / "new" / str(study))
    assert seconds_until((drive.patients / "DFS-7_Doe_Jane").exists) < VISIBLE_S
    done.touch()
    for reader in readers:
        output, errors = reader.communicate(timeout=TIMEOUT_S)
        assert errors == ""
        assert reader.returncode == 0
        assert {line.split()[0] for line in output.splitlines()} <= digests
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in drive.files().values()} == digests
