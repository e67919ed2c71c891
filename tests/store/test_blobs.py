"""A byte that changed on the disk is never handed out: every one of them is covered by a checksum."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.blobs import BlobReader
from dicomfs.store.packs import PackDirectory, PackFile
from dicomfs.store.store import Store
from tests.store import shelf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicomfs.store.location import Location

PIECE = 1 << 16


def smooth(length: int) -> bytes:
    return b"".join((n // 5).to_bytes(2, "little") for n in range(length // 2 + 1))[:length]


BLOBS = {
    "plain, less than a piece": shelf.coded(random.Random(1).randbytes(1_000)),
    "plain, one piece": shelf.coded(random.Random(2).randbytes(PIECE)),
    "plain, four pieces": shelf.coded(random.Random(3).randbytes(3 * PIECE + 17)),
    "zstd": shelf.coded(smooth(70_000), 1),
    "planes": shelf.coded(smooth(20_001), 2),
    "planes, three chunks": shelf.coded(smooth(300_001), 2),
}


class Stored(NamedTuple):
    packs: Path
    at: Location
    data: bytes


@pytest.fixture(params=BLOBS)
def stored(tmp_path: Path, request: pytest.FixtureRequest) -> Stored:
    root = shelf.make(tmp_path / "store")
    shelf.fill(root, [(b"", BLOBS.values())])
    store = Store(root, shelf.TABLES)
    one = BLOBS[request.param]
    at = shelf.locations(store, [one])[one.blob]
    data = bytes(store.blobs.whole(at))
    store.close()
    return Stored(root / "packs", at, data)


def flip(stored: Stored, at: int) -> None:
    fd = os.open(stored.packs / f"{stored.at.pack:08d}.zip", os.O_RDWR)
    try:
        (byte,) = os.pread(fd, 1, stored.at.offset + at)
        os.pwrite(fd, bytes([byte ^ 0x40]), stored.at.offset + at)
    finally:
        os.close(fd)


def reader(stored: Stored) -> BlobReader:
    return BlobReader(PackDirectory(stored.packs))


def places(stored: Stored) -> list[int]:
    """Choose bytes of every piece, the edges of pieces among them."""
    edges = {0, 1, 2, 3, 4, 5, 8, 17, stored.at.stored - 1, stored.at.stored - 4, stored.at.stored // 2}
    edges |= {edge for piece in range(0, stored.at.stored, PIECE) for edge in (piece, piece - 1, piece + PIECE // 2)}
    return sorted(edge for edge in edges if 0 <= edge < stored.at.stored)


def plain_range(at: Location, place: int) -> tuple[int, int]:
    """Return what part of the blob cannot be had without this stored byte."""
    if not at.codec:
        return place // PIECE * PIECE, min(place // PIECE * PIECE + PIECE, at.length)
    spans = codecs.Spans(at.codec, at.length, at.stored, at.checks)
    return spans.plain(next(n for n in range(spans.count) if place < spans.stored(n)[1]))


def across_chunks(at: Location, start: int, stop: int) -> bool:
    return bool(at.codec) and len(at.checks) > 1 and start // codecs.CHUNK != (stop - 1) // codecs.CHUNK


def test_reads_give_what_was_stored(stored: Stored) -> None:
    blobs = reader(stored)
    assert bytes(blobs.whole(stored.at)) == stored.data
    generator = random.Random(4)
    for _ in range(50):
        start = generator.randrange(len(stored.data))
        end = generator.randint(start, len(stored.data))
        assert bytes(blobs.read(stored.at, start, end)) == stored.data[start:end]
        ready = blobs.ready(stored.at, start, end)
        if ready is None:  # no more than one chunk is decoded while others wait
            assert start // codecs.CHUNK != (end - 1) // codecs.CHUNK
        else:
            assert bytes(ready) == stored.data[start:end]
    blobs.close()


def test_a_changed_byte_is_never_handed_out(stored: Stored) -> None:
    for place in places(stored):
        flip(stored, place)
        blobs = reader(stored)
        with pytest.raises(Damaged):
            blobs.whole(stored.at)
        end = len(stored.data)
        first, last = plain_range(stored.at, place)
        for start in range(0, end, 20_000):
            stop = min(start + 20_000, end)
            for read in (blobs.read, blobs.ready):
                if (
                    start < last
                    and first < stop
                    and not (read == blobs.ready and across_chunks(stored.at, start, stop))
                ):
                    # Not that part, and nothing wrong stays in the cache.
                    with pytest.raises(Damaged):
                        read(stored.at, start, stop)
                else:
                    data = read(stored.at, start, stop)
                    assert data is None or bytes(data) == stored.data[start:stop]
        blobs.close()
        flip(stored, place)
    assert bytes(reader(stored).whole(stored.at)) == stored.data


def test_a_pack_that_was_cut_off(stored: Stored) -> None:
    os.truncate(stored.packs / f"{stored.at.pack:08d}.zip", stored.at.offset + stored.at.stored - 1)
    blobs = reader(stored)
    end = len(stored.data)
    for read in (lambda: blobs.whole(stored.at), lambda: blobs.read(stored.at, 0, end)):
        with pytest.raises(Damaged, match="cut off"):
            read()
    assert blobs.ready(stored.at, 0, end) is None
    blobs.close()


def test_a_pack_that_is_cut_while_it_is_read(stored: Stored) -> None:
    """The mapping still reaches past the new end; touching it there would kill the process."""
    blobs = reader(stored)
    end = len(stored.data)
    blobs.read(stored.at, 0, end)
    blobs.ready(stored.at, 0, end)
    os.truncate(stored.packs / f"{stored.at.pack:08d}.zip", 10)
    # Its first page is still there and ends in zeros; the pages after it are gone. What was decoded was checked.
    for read in (blobs.ready, blobs.read):
        with contextlib.suppress(Damaged):
            found = read(stored.at, 0, end)
            assert found is None or bytes(found) == stored.data
    with pytest.raises(Damaged):
        blobs.whole(stored.at)
    blobs.close()


def test_a_pack_that_is_missing(stored: Stored) -> None:
    os.unlink(stored.packs / f"{stored.at.pack:08d}.zip")
    blobs = reader(stored)
    with pytest.raises(Damaged, match="missing"):
        blobs.read(stored.at, 0, 1)
    blobs.close()


def test_a_pack_that_grows(tmp_path: Path) -> None:
    """A mount maps the pack that an import is still writing to."""
    path = tmp_path / "00000001.zip"
    first, second = random.Random(1).randbytes(10_000), random.Random(2).randbytes(90_000)
    path.write_bytes(first)
    pack = PackDirectory(tmp_path).open(1)
    held = pack.resident(100, 50)
    assert held == first[100:150]
    with path.open("ab") as file:
        file.write(second)
    assert pack.resident(9_990, 20_000) == (first + second)[9_990:29_990]
    assert held == first[100:150]
    assert pack.resident(99_999, 2) is None


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Act as a user who owns nothing, in the working directory."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.root
def test_a_pack_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux calls all of it in memory to those who may not write it (mincore(2)): what is not, is not waited for."""
    data = random.Random(1).randbytes(400_000)
    path = tmp_path / "00000001.zip"
    path.write_bytes(data)
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    forget(path)
    with as_nobody():
        pack = PackFile(Path("00000001.zip"), 1)
        assert pack.resident(100_001, 70_000) is None
        assert pack.read(100_001, 70_000) == data[100_001:170_001]
        assert pack.resident(100_001, 70_000) == data[100_001:170_001]
        assert pack.resident(399_000, 2_000) is None
    os.truncate(path, 200_000)
    with as_nobody():
        assert pack.resident(300_000, 70_000) is None
        assert pack.resident(190_000, 20_000) is None


def test_what_is_not_in_memory_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "00000001.zip"
    path.write_bytes(bytes(400_000))
    pack = PackFile(path, 1)
    forget(path)
    assert pack.resident(300_000, 10) is None
    pack.read(299_990, 100)
    assert pack.resident(300_000, 10) == bytes(10)


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    if PackFile(path, 1).resident(0, 1) is not None:
        pytest.skip("temporary files are in memory here")
