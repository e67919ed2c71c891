"""One writer at a time: the second says who holds the archive, or waits for it; readers never care."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from dicomfs.store.lock import WriterLock
from tests.faults.scene import assert_sound, catalog, dicomfs, digests, start, start_import

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Source


@pytest.fixture
def lock(archive_path: Path) -> WriterLock:
    return WriterLock(archive_path / "lock", "a test")


def test_second_writer_is_told_who_writes(small_source: Source, archive_path: Path, lock: WriterLock) -> None:
    refused = dicomfs("import", small_source.path, "-a", archive_path, status=1)
    assert f"process {os.getpid()}" in refused.stderr
    assert "a test" in refused.stderr
    assert catalog(archive_path) == {}
    lock.release()
    dicomfs("import", small_source.path, "-a", archive_path)


def test_second_writer_waits(small_source: Source, archive_path: Path, lock: WriterLock) -> None:
    waiting = start("import", small_source.path, "-a", archive_path, "--wait", 120)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    lock.release()
    output = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, output
    assert digests(catalog(archive_path)) == small_source.digests


def test_second_writer_does_not_wait_for_ever(small_source: Source, archive_path: Path, lock: WriterLock) -> None:
    refused = dicomfs("import", small_source.path, "-a", archive_path, "--wait", 0.3, status=1)
    assert f"process {os.getpid()}" in refused.stderr
    lock.release()


def test_readers_need_no_lock(archive_path: Path, lock: WriterLock) -> None:
    for command in ("list", "stats", "check"):
        dicomfs(command, "-a", archive_path)
    lock.release()


def test_two_imports_at_once(source: Source, small_source: Source, archive_path: Path) -> None:
    both = [start_import(files, archive_path, "--wait", "120") for files in (source.path, small_source.path)]
    for process in both:
        output = process.communicate(timeout=120)
        assert process.returncode == 0, output
    assert digests(assert_sound(archive_path)) == sorted(source.digests + small_source.digests)
