"""A disk that is full or may not be written: a clear message, nothing committed lost, and it goes on after."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.scene import assert_reads_back, assert_sound, catalog, dicomfs, digests, disk, drive, sha256_of_tree

if TYPE_CHECKING:
    from tests.faults.conftest import Source


pytestmark = pytest.mark.root


def fill(place: Path, *, leave_kilobytes: int) -> Path:
    """Leave this much room on a disk; removing the returned file gives the rest back."""
    filler = place / "filler"
    status = os.statvfs(place)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - (leave_kilobytes << 10))
    return filler


def move(directory: Path, to: Path) -> None:
    """Move between disks; holes stay holes."""
    subprocess.run(["cp", "-a", "--sparse=always", directory, to], check=True)
    shutil.rmtree(directory)


@pytest.mark.parametrize("leave_kilobytes", [200, 700, 1500])
def test_disk_full(source: Source, small_source: Source, leave_kilobytes: int) -> None:
    with disk(24) as place:
        archive = place / "archive"
        dicomfs("init", archive)
        dicomfs("import", small_source.path, "-a", archive)
        before = assert_sound(archive)
        filler = fill(place, leave_kilobytes=leave_kilobytes)

        failed = dicomfs("import", source.path, "-a", archive, status=1)

        assert "the disk is full" in failed.stderr
        kept = assert_sound(archive)
        assert before.items() <= kept.items()
        dicomfs("check", "--verify-files", "-a", archive)

        filler.unlink()
        dicomfs("import", source.path, "-a", archive)
        completed = assert_sound(archive)
        assert kept.items() <= completed.items()
        assert digests(completed) == sorted(source.digests + small_source.digests)


def test_disk_full_to_the_last_byte(source: Source, small_source: Source) -> None:
    with disk(16) as place:
        archive = place / "archive"
        dicomfs("init", archive)
        dicomfs("import", small_source.path, "-a", archive)
        filler = fill(place, leave_kilobytes=64)
        subprocess.run(["dd", "if=/dev/zero", f"of={place / 'rest'}", "bs=512"], capture_output=True)

        failed = dicomfs("import", source.path, "-a", archive, status=1)

        assert "the disk is full" in failed.stderr
        assert digests(assert_sound(archive)) == small_source.digests
        filler.unlink()
        dicomfs("import", source.path, "-a", archive)
        assert digests(assert_sound(archive)) == sorted(source.digests + small_source.digests)


def test_disk_of_the_index_full(source: Source, small_source: Source, archive_path: Path) -> None:
    with disk(4) as place:
        dicomfs("import", small_source.path, "-a", archive_path)
        index = archive_path / "index"
        move(index, place / "index")
        index.symlink_to(place / "index")
        before = assert_sound(archive_path)
        filler = fill(place, leave_kilobytes=40)

        failed = dicomfs("import", source.path, "-a", archive_path, status=1)

        assert "the disk is full" in failed.stderr
        kept = assert_sound(archive_path)
        assert before.items() <= kept.items()
        filler.unlink()
        dicomfs("import", source.path, "-a", archive_path)
        assert digests(assert_sound(archive_path)) == sorted(source.digests + small_source.digests)
        # The fixture checks the archive once more, without this disk.
        index.unlink()
        move(place / "index", index)


def test_init_on_a_full_disk() -> None:
    with disk(2) as place:
        filler = fill(place, leave_kilobytes=0)
        subprocess.run(["dd", "if=/dev/zero", f"of={place / 'rest'}", "bs=512"], capture_output=True)

        failed = dicomfs("init", place / "archive", status=1)

        assert "No space left on device" in failed.stderr or "disk is full" in failed.stderr
        filler.unlink()
        dicomfs("init", "--force", place / "archive")
        assert catalog(place / "archive") == {}


@pytest.mark.mounted
def test_disk_that_may_not_be_written(source: Source, small_source: Source, tmp_path: Path) -> None:
    with disk(24) as place:
        archive = place / "archive"
        dicomfs("init", archive)
        dicomfs("import", small_source.path, "-a", archive)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)

        for arguments in (["list"], ["query", "--modality", "CT"], ["stats"], ["check"], ["check", "--verify-files"]):
            dicomfs(*arguments, "-a", archive)
        with drive(archive) as mounted:
            shown = sha256_of_tree(mounted / "patients")
            assert sorted(shown.values()) == small_source.digests
        assert digests(assert_reads_back(archive)) == small_source.digests

        for arguments in (["import", source.path], ["reindex"]):
            failed = dicomfs(*arguments, "-a", archive, status=1)
            assert "may not be written" in failed.stderr
            assert "Read-only file system" in failed.stderr

        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        dicomfs("import", source.path, "-a", archive)
        assert digests(assert_sound(archive)) == sorted(source.digests + small_source.digests)


def test_no_room_for_a_second_index(source: Source, archive_path: Path) -> None:
    """A rebuild leaves what was there, and a check says where it wants the room."""
    dicomfs("import", source.path, "-a", archive_path)
    before = assert_sound(archive_path)
    packs = archive_path / "packs"
    with disk(24) as place:
        archive = place / "archive"
        subprocess.run(["cp", "-a", "--sparse=always", archive_path, archive], check=True)
        shutil.rmtree(archive / "packs")
        (archive / "packs").symlink_to(packs)
        filler = fill(place, leave_kilobytes=64)

        failed = dicomfs("reindex", "-a", archive, status=1)

        assert "the disk is full" in failed.stderr
        rest = place / "rest"
        subprocess.run(["dd", "if=/dev/zero", f"of={rest}", "bs=512"], capture_output=True)
        os.truncate(rest, rest.stat().st_size - 3072)  # enough for a directory, and not for what LMDB maps
        failed = dicomfs("reindex", "-a", archive, status=1)
        assert "the disk is full" in failed.stderr
        assert sorted(path.name for path in archive.iterdir() if "index" in path.name) == ["index"]
        assert catalog(archive) == before
        rest.unlink()
        failed = dicomfs("check", "-a", archive, status=1, TMPDIR=str(place))
        assert "TMPDIR" in failed.stderr
        filler.unlink()
        dicomfs("check", "-a", archive, TMPDIR=str(place))
        dicomfs("reindex", "-a", archive)
        assert catalog(archive) == before
