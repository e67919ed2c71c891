"""A drive under fire: readers during imports, a server that is killed, pixels that rotted."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders import write_study
from tests.faults.scene import (
    assert_sound,
    catalog,
    dicomfs,
    digests,
    drive,
    server_of,
    sha256_of_tree,
    start_import,
)

if TYPE_CHECKING:
    from tests.faults.conftest import Source

pytestmark = pytest.mark.mounted

READERS = 8


@pytest.fixture
def filled(archive_path: Path, small_source: Source) -> Path:
    dicomfs("import", small_source.path, "-a", archive_path)
    return archive_path


def start_reader(paths: list[Path], seed: int) -> subprocess.Popen[str]:
    """Start sha256sum over the files, in an order of its own."""
    random.Random(seed).shuffle(paths)
    return subprocess.Popen(
        ["sha256sum", "--", *map(str, paths)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def sums(reader: subprocess.Popen[str]) -> dict[str, str]:
    output, errors = reader.communicate(timeout=120)
    assert (reader.returncode, errors) == (0, "")
    return {path: digest for digest, path in (line.split("  ", 1) for line in output.splitlines())}


def test_readers_while_an_import_runs(source: Source, small_source: Source, tmp_path: Path, archive_path: Path) -> None:
    more = tmp_path / "more"
    written = write_study(more, series=3, instances=30, rows=160, columns=160, study="later")
    dicomfs("import", source.path, "-a", archive_path)
    with drive(archive_path) as mounted:
        shown = sha256_of_tree(mounted / "patients")
        assert sorted(shown.values()) == source.digests
        expected = {str(mounted / "patients" / path): digest for path, digest in shown.items()}

        importing = start_import(more, archive_path, "--jobs", "2")
        rounds = 0
        while importing.poll() is None or rounds == 0:
            readers = [start_reader([Path(path) for path in expected], seed) for seed in range(READERS)]
            assert [sums(reader) for reader in readers] == [expected] * READERS
            rounds += 1
        assert importing.returncode == 0, importing.communicate()
        importing.communicate()

        # The new study is there without a remount; within a second says the design, so ask until then.
        after = wait_for_instances(mounted, len(source.digests) + len(written))
        assert sorted(after.values()) == sorted([*source.digests, *written.values()])
        assert shown.items() <= after.items()
    assert digests(assert_sound(archive_path)) == sorted(after.values())


def wait_for_instances(mounted: Path, number: int, *, tries: int = 200) -> dict[str, str]:
    """Walk the drive until it shows this many files; a drive that needs a remount never does."""
    for _ in range(tries):
        found = sum(len(files) for _, _, files in os.walk(mounted / "patients"))
        if found == number:
            return sha256_of_tree(mounted / "patients")
    raise AssertionError(f"the drive shows {found} files, not {number}")


def test_server_killed_while_it_is_read(filled: Path, small_source: Source, tmp_path: Path) -> None:
    mountpoint = tmp_path / "drive"
    mountpoint.mkdir()
    try:
        dicomfs("mount", filled, mountpoint)
        paths = [path for path in (mountpoint / "patients").rglob("*") if path.is_file()]
        readers = [start_reader(paths * 50, seed) for seed in range(2)]
        assert readers[0].stdout
        assert readers[0].stdout.readline()  # it reads
        os.kill(server_of(mountpoint), signal.SIGKILL)
        for reader in readers:
            reader.communicate(timeout=60)
            assert reader.returncode == 1  # told, and not left waiting
        with pytest.raises(OSError, check=lambda error: error.errno == errno.ENOTCONN):
            os.listdir(mountpoint)
        assert digests(assert_sound(filled)) == small_source.digests

        dicomfs("mount", filled, mountpoint)  # recovers the dead mount point
        assert sorted(sha256_of_tree(mountpoint / "patients").values()) == small_source.digests
        dicomfs("umount", mountpoint)
        assert os.listdir(mountpoint) == []
    finally:
        subprocess.run(["fusermount3", "-u", "-z", "-q", mountpoint])


@pytest.mark.damaged
def test_rotten_pixels_are_an_error(filled: Path) -> None:
    (pack,) = sorted((filled / "packs").glob("*.zip"))
    with pack.open("r+b") as file:
        middle = pack.stat().st_size // 2
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 1]))
    known = catalog(filled)
    with drive(filled) as mounted:
        errors = []
        for path, one in known.items():
            with (mounted / path).open("rb", buffering=0) as file:
                try:
                    content = b""
                    while piece := file.read(1 << 20):
                        content += piece
                except OSError as error:
                    errors.append(error.errno)
                    continue
            assert len(content) == one.size
        shell = subprocess.run(["sha256sum", *(mounted / path for path in known)], capture_output=True, text=True)
        good = {line.split()[0] for line in shell.stdout.splitlines()}
    assert errors == [errno.EIO]
    assert shell.returncode == 1
    assert good < {one.sha256 for one in known.values()}
    assert len(good) == len(known) - 1
