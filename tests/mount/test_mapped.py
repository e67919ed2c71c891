"""What is mapped of the archive is given back: a walk or a read leaves nothing behind, and disturbs nobody."""

from __future__ import annotations

import hashlib
import mmap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.mount import mapped
from tests.mount.conftest import SCRIPT, TIMEOUT_S, Drive, end_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mount.conftest import Stocked


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of 16 MiB whose bytes say where they are."""
    path = tmp_path / "file"
    path.write_bytes(b"".join(number.to_bytes(4, "big") * 1024 for number in range(4096)))
    return path


def test_what_was_touched_is_given_back_and_is_still_there(file: Path) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        digest = hashlib.sha256(mapping).digest()
        before = mapped.mapped_kib()
        mapped.give_back()
        after = mapped.mapped_kib()
        assert before is not None
        assert after is not None
        assert before - after > 15 << 10
        assert hashlib.sha256(mapping).digest() == digest


def test_who_reads_meanwhile_reads_the_same(file: Path) -> None:
    digests: set[bytes] = set()
    over = threading.Event()

    def read(mapping: mmap.mmap) -> None:
        while not over.is_set():
            digests.add(hashlib.sha256(mapping).digest())  # without the interpreter's lock

    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        readers = [threading.Thread(target=read, args=(mapping,)) for _ in range(2)]
        for reader in readers:
            reader.start()
        for _ in range(200):
            mapped.give_back()
        over.set()
        for reader in readers:
            reader.join(TIMEOUT_S)
    assert digests == {hashlib.sha256(file.read_bytes()).digest()}


def test_what_is_written_to_a_shared_mapping_is_left_alone(file: Path) -> None:
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapping:
        mapping[:4] = b"mine"
        mapped.give_back()
        assert mapping[:4] == b"mine"
    assert file.read_bytes()[:4] == b"mine"


def test_reading_an_index_goes_on(stocked: Stocked) -> None:
    from dicomfs.archive.archive import Archive

    with Archive.open(stocked.archive) as archive, archive.view() as view:
        numbers = list(view.inodes())
        paths = [view.path(ino) for ino in numbers]
        walk = view.inodes()
        first = next(walk)
        mapped.give_back()
        assert [first, *walk] == numbers
        assert [view.path(ino) for ino in numbers] == paths
        assert len(set(paths)) > len(stocked.digests)


class Tight(Drive):
    """A drive that may have next to nothing mapped, and tells of every time that it gave back."""

    def script(self) -> str:
        """Return what the process runs."""
        return (
            "import os\n"
            "from dicomfs.mount import mapped\n"
            "plain = mapped.give_back\n"
            "mapped.give_back = lambda: (plain(), os.write(2, b'given back\\n'))\n"
            "mapped.keep_small.__defaults__ = (16 << 10,)\n"
        ) + SCRIPT


@pytest.fixture
def tight(stocked: Stocked, tmp_path: Path) -> Iterator[Tight]:
    """Mount the same archive once more."""
    drive = Tight(stocked.archive, tmp_path / "tight", "", tmp_path / "log")
    yield drive
    end_all([drive])


@pytest.mark.mounted
def test_a_drive_gives_back_and_reads_right(tight: Tight, stocked: Stocked) -> None:
    found = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in tight.files().values())
    assert found == stocked.digests
    tight.process.terminate()
    assert "given back" in tight.process.communicate(timeout=TIMEOUT_S)[1]
