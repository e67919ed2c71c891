"""What is read from a drive is what was imported, whoever reads it and however."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import tarfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders import make_instance
from tests.mount.conftest import import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mount.conftest import Drive, Stocked

pytestmark = pytest.mark.mounted


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_below(directory: Path) -> list[str]:
    return sorted(digest(path) for path in directory.rglob("*") if path.is_file())


def test_every_file_reads_back_bit_for_bit(stocked: Stocked) -> None:
    assert sorted(map(digest, stocked.files().values())) == stocked.digests


@pytest.mark.parametrize(
    "copy",
    [("cp", "-a"), ("cp", "-r"), ("rsync", "-a"), ("rsync", "-aHX")],
    ids=["cp_a", "cp_r", "rsync_a", "rsync_aHX"],
)
def test_copies_are_identical(stocked: Stocked, tmp_path: Path, copy: tuple[str, ...]) -> None:
    run(*copy, f"{stocked.patients}/", f"{tmp_path}/copy")
    assert digests_below(tmp_path / "copy") == stocked.digests


def test_a_copy_keeps_sizes_and_times_to_the_nanosecond(stocked: Stocked, tmp_path: Path) -> None:
    run("cp", "-a", stocked.patients, tmp_path)
    for name, path in stocked.files().items():
        copied = os.stat(tmp_path / "patients" / name)
        shown = os.stat(path)
        assert (copied.st_size, copied.st_mtime_ns) == (shown.st_size, shown.st_mtime_ns)
    again = run("rsync", "-ai", f"{stocked.patients}/", f"{tmp_path}/patients/")
    assert [line for line in again.stdout.splitlines() if line.startswith(">f")] == []


def test_a_tar_of_the_drive_holds_every_file(stocked: Stocked, tmp_path: Path) -> None:
    run("tar", "-cf", tmp_path / "drive.tar", "-C", stocked.path, ".")
    with tarfile.open(tmp_path / "drive.tar") as archive:
        held = [
            hashlib.sha256(archive.extractfile(member).read()).hexdigest()
            for member in archive
            if member.isfile() and member.name.startswith("./patients/")
        ]
    assert sorted(held) == stocked.digests


def test_any_slice_is_the_slice_of_the_whole(stocked: Stocked) -> None:
    rng = random.Random(7)
    for path in rng.sample(sorted(stocked.files().values()), 12):
        whole = path.read_bytes()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            for _ in range(30):
                start, length = rng.randrange(len(whole) + 100), rng.randrange(1, 70_000)
                assert os.pread(descriptor, length, start) == whole[start : start + length]
        finally:
            os.close(descriptor)


@pytest.mark.root
def test_eight_readers_at_once_get_every_byte(stocked: Stocked) -> None:
    Path("/proc/sys/vm/drop_caches").write_text("1\n")
    paths = list(stocked.files().values())
    with ProcessPoolExecutor(8) as readers:
        found = list(readers.map(_digests, [(paths, number) for number in range(8)]))
    assert all(sorted(digests) == stocked.digests for digests in found)


def _digests(task: tuple[list[Path], int]) -> list[str]:
    paths, seed = task
    shuffled = random.Random(seed).sample(paths, len(paths))
    return [digest(path) for path in shuffled]


def test_a_file_stays_readable_while_it_is_open_many_times(stocked: Stocked) -> None:
    path = next(iter(stocked.files().values()))
    whole = path.read_bytes()
    opened = [os.open(path, os.O_RDONLY) for _ in range(50)]
    for descriptor in opened[::2]:
        os.close(descriptor)
    for descriptor in opened[1::2]:
        assert os.pread(descriptor, len(whole) + 1, 0) == whole
        os.close(descriptor)


@pytest.mark.corpus
def test_the_corpus_reads_back_bit_for_bit(
    archive_path: Path, corpus: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    import_into(archive_path, corpus)
    drive = mount_drive(archive_path)
    shown = Counter(map(digest, drive.files().values()))
    sources = {digest(path) for path in corpus.rglob("*") if path.is_file()}
    assert len(shown) > 500
    assert shown.keys() <= sources
    assert shown.most_common(1)[0][1] == 1
    run("cp", "-a", drive.patients, tmp_path / "cp")
    run("rsync", "-a", f"{drive.patients}/", tmp_path / "rsync/")
    assert digests_below(tmp_path / "cp") == digests_below(tmp_path / "rsync") == sorted(shown)


def outcome(path: Path) -> str:
    """Return a file's SHA-256, or why it cannot be read."""
    try:
        return digest(path)
    except OSError as error:
        return error.strerror


@pytest.mark.damaged
def test_a_damaged_byte_is_an_input_output_error_and_never_wrong_bytes(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    for number in range(1, 7):
        (tmp_path / f"{number}.dcm").write_bytes(make_instance(number=number, rows=256, columns=256))
    import_into(archive_path, *(tmp_path / f"{number}.dcm" for number in range(1, 7)))
    (pack,) = (archive_path / "packs").iterdir()
    whole = bytearray(pack.read_bytes())
    for at in range(len(whole) // 4, len(whole), len(whole) // 4):
        whole[at] ^= 0x10
    pack.write_bytes(whole)
    good = {digest(tmp_path / f"{number}.dcm") for number in range(1, 7)}
    drive = mount_drive(archive_path)
    outcomes = [outcome(path) for path in drive.files().values()]
    failed = outcomes.count(os.strerror(errno.EIO))
    assert 1 <= failed <= 3
    assert good.issuperset(found for found in outcomes if found != os.strerror(errno.EIO))
    drive.end()
    log = drive.log.read_text()
    assert log.count("cannot be read") == failed
    assert "DFS-1" not in log
    assert "Doe" not in log
