"""The one writer: what it commits is there, what it drops leaves nothing, and packs are sealed in time."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from isal.isal_zlib import crc32

from dicomfs.errors import ArchiveMissing, Damaged, Locked, StorageFull
from dicomfs.store import pack as packfile
from dicomfs.store.index import Index
from dicomfs.store.lock import WriterLock
from dicomfs.store.store import Store
from dicomfs.store.writer import Writer
from tests.store import shelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened, _ = shelf.open_healed(shelf.make(tmp_path / "store"))
    yield opened
    opened.close()


def noise(number: int, length: int = 5_000) -> shelf.Coded:
    return shelf.coded(random.Random(number).randbytes(length))


def test_a_blob_is_stored_again(store: Store, tmp_path: Path) -> None:
    """The later copy is the one that is read, before and after a rebuild."""
    writer = Writer(store)
    one = noise(1)
    shelf.commit(store, writer, [one], b"first")
    first = shelf.locations(store, [one])[one.blob]
    assert writer.add_blob(one.blob, one.codec, one.length, one.stored, crc32(one.stored), one.checks, again=True)
    shelf.commit(store, writer, [], b"second")
    writer.close()
    later = shelf.locations(store, [one])[one.blob]
    assert (later.pack, later.stored) == (first.pack, first.stored)
    assert later.offset > first.offset
    with shelf.pack_path(store.root).open("r+b") as file:
        file.seek(first.offset)
        file.write(b"hurt")
    assert shelf.read_all(store, {one.blob: later}) == {one.blob: one.stored}
    again = shelf.make(tmp_path / "again")
    (again / "packs" / "00000001.zip").write_bytes(shelf.pack_path(store.root).read_bytes())
    healed, _ = shelf.open_healed(again)
    assert shelf.locations(healed, [one])[one.blob] == later
    healed.close()


def test_a_blob_is_stored_once(store: Store) -> None:
    writer = Writer(store)
    one = noise(1)
    shelf.commit(store, writer, [one, one], b"first")
    before = writer.pending_bytes
    assert writer.has_blob(one.blob)
    assert not writer.add_blob(one.blob, one.codec, one.length, one.stored, 0, one.checks)
    assert writer.pending_bytes == before
    shelf.commit(store, writer, [one], b"second")
    writer.close()
    with zipfile.ZipFile(store.packs.path(1)) as archive:
        assert [name[0] for name in archive.namelist()] == ["o", "c", "c"]


def test_bodies_are_found_by_offset(store: Store) -> None:
    writer = Writer(store)
    bodies = [random.Random(n).randbytes(n * 100) for n in range(5)]
    offsets = [writer.add_body(body) for body in bodies]
    seq = shelf.commit(store, writer, [noise(1)], b"meta")
    with store.index.reading() as txn:
        place = store.commit_place(txn, seq)
    assert store.read_meta(place) == b"meta"
    for offset, body in zip(offsets, bodies, strict=True):
        assert store.read_body(place, offset, len(body)) == body
        assert bytes(store.body_ready(place, offset, len(body)) or b"") == body
    end = sum(map(len, bodies))
    for read in (store.read_body, store.body_ready):
        with pytest.raises(Damaged, match="outside"):
            read(place, end - 1, 2)
    writer.close()


def test_closing_drops_what_was_not_committed(store: Store) -> None:
    writer = Writer(store)
    shelf.commit(store, writer, [noise(1)], b"kept")
    committed = store.packs.path(1).stat().st_size
    one = noise(2)
    writer.add_blob(one.blob, one.codec, one.length, one.stored, 0, one.checks)
    writer.close()
    with store.index.reading() as txn:
        assert store.pack_states(txn)[1].committed == committed
        with pytest.raises(Damaged):
            store.locate(txn, one.blob)
    with zipfile.ZipFile(store.packs.path(1)) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 2


@pytest.mark.parametrize("end", ["close", "abort"])
def test_nothing_committed_leaves_no_pack(store: Store, end: str) -> None:
    writer = Writer(store)
    one = noise(1)
    writer.add_blob(one.blob, one.codec, one.length, one.stored, 0, one.checks)
    writer.flush()
    assert store.packs.numbers() == [1]
    getattr(writer, end)()
    assert store.packs.numbers() == []
    assert shelf.dump(store)["blob"] == {}


def test_a_pack_is_sealed_when_it_has_enough_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packfile, "SEAL_BYTES", 40_000)
    writer = Writer(store)
    for number in range(12):
        shelf.commit(store, writer, [noise(number)], b"")
    writer.close()
    assert store.packs.numbers() == [1, 2]
    assert all(40_000 <= store.packs.path(number).stat().st_size < 60_000 for number in (1,))
    blobs = [noise(number) for number in range(12)]
    places = shelf.locations(store, blobs)
    assert {at.pack for at in places.values()} == {1, 2}
    assert set(shelf.read_all(store, places).values()) == {one.stored for one in blobs}


def test_a_pack_is_sealed_when_it_has_enough_entries(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packfile, "SEAL_ENTRIES", 4)
    writer = Writer(store)
    for number in range(4):
        shelf.commit(store, writer, [noise(number), noise(100 + number)], b"")
    writer.close()
    assert [len(zipfile.ZipFile(store.packs.path(number)).namelist()) for number in store.packs.numbers()] == [6, 6]


def test_a_writer_starts_a_pack_of_its_own(store: Store) -> None:
    """A sealed pack is never changed after."""
    for number in range(3):
        writer = Writer(store)
        shelf.commit(store, writer, [noise(number)], b"")
        writer.close()
    assert store.packs.numbers() == [1, 2, 3]


def test_time_and_number_of_commits(store: Store) -> None:
    writer = Writer(store)
    assert [shelf.commit(store, writer, [], b"m%d" % n, b"x") for n in range(3)] == [1, 2, 3]
    writer.close()
    with store.index.reading() as txn:
        assert store.seq(txn) == 3
        assert [store.commit_place(txn, seq).time_ns % 10 for seq in (1, 2, 3)] == [1, 2, 3]
        with pytest.raises(Damaged):
            store.commit_place(txn, 4)


WRITE = """
import resource, signal, sys
from pathlib import Path
from tests.store import shelf
from tests.store.test_writer import noise
from dicomfs.errors import StorageFull
from dicomfs.store.writer import Writer

store, _ = shelf.open_healed(Path(sys.argv[1]))
writer = Writer(store)
shelf.commit(store, writer, [noise(1)], b"kept")
print("committed")
# Files may not grow past this: write() then gives EFBIG, as an example of any error of the disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    shelf.commit(store, writer, [noise(2, 90_000)], b"too much")
except StorageFull as error:
    print(error)
writer.abort()
store.close()
"""


def test_an_error_of_the_disk(tmp_path: Path) -> None:
    """What was committed stays, the rest is gone, and the message says so."""
    root = shelf.make(tmp_path / "store")
    told = subprocess.run([sys.executable, "-c", WRITE, str(root)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0] == "committed"
    assert "what was committed is safe" in told.stdout
    store, _ = shelf.open_healed(root)
    assert list(shelf.dump(store)["note"]) == [(1).to_bytes(8, "big")]
    assert set(shelf.read_all(store, shelf.locations(store, [noise(1)])).values()) == {noise(1).stored}
    with zipfile.ZipFile(store.packs.path(1)) as archive:
        assert archive.testzip() is None
    store.close()


def test_readers_see_commits_and_nothing_else(store: Store, tmp_path: Path) -> None:
    """Another process reads while this one writes."""
    read = (
        "import sys; from pathlib import Path; from tests.store import shelf; from dicomfs.store.store import Store;"
        "store = Store(Path(sys.argv[1]), shelf.TABLES); print(shelf.dump(store)['note'].values()); store.close()"
    )

    def seen() -> int:
        told = subprocess.run([sys.executable, "-c", read, str(store.root)], capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        return told.stdout.count("note")

    writer = Writer(store)
    shelf.commit(store, writer, [noise(1)], b"note")
    one = noise(2)
    writer.add_blob(one.blob, one.codec, one.length, one.stored, 0, one.checks)
    writer.flush()
    assert seen() == 1
    shelf.commit(store, writer, [], b"note")
    assert seen() == 2
    writer.close()


def test_lock_names_its_holder(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock", "a test")
    with pytest.raises(Locked, match=rf"a test, process {os.getpid()} on "):
        WriterLock(tmp_path / "lock", "another")
    lock.release()
    WriterLock(tmp_path / "lock", "another").release()


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    take = "import sys; from pathlib import Path; from dicomfs.store.lock import WriterLock; "
    take += "lock = WriterLock(Path(sys.argv[1]), 'child'); print('taken', flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", take, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"taken\n"
    with pytest.raises(Locked, match="child"):
        WriterLock(tmp_path / "lock", "parent")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    WriterLock(tmp_path / "lock", "parent").release()


def test_lock_waits(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock", "first")
    wait = "import sys; from pathlib import Path; from dicomfs.store.lock import WriterLock; "
    wait += "print('began', flush=True); WriterLock(Path(sys.argv[1]), 'second', wait_s=60); print('taken')"
    child = subprocess.Popen([sys.executable, "-c", wait, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"began\n"
    lock.release()
    assert child.communicate(timeout=60)[0] == b"taken\n"
    assert child.returncode == 0


def test_lock_without_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="may not be written"):
        WriterLock(tmp_path / "missing" / "lock", "a test")


def test_an_index_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ArchiveMissing, match="reindex"):
        Index(tmp_path, ("one",), writable=False)


def test_an_index_that_lacks_a_table(tmp_path: Path) -> None:
    Index(tmp_path, ("one",), writable=True).close()
    with pytest.raises(Damaged, match="reindex"):
        Index(tmp_path, ("one", "two"), writable=False)
    # Nothing stays open after the error.
    Index(tmp_path, ("one",), writable=False).close()


@pytest.mark.parametrize("content", [b"", b"not lmdb" * 2000, bytes(16_384)], ids=["empty", "text", "zeros"])
def test_an_index_of_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(Damaged, match="reindex"):
        Index(tmp_path, ("one",), writable=False)


def test_an_index_that_was_replaced(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        Index(tmp_path / name, ("one",), writable=True).close()
    index = Index(tmp_path / "old", ("one",), writable=False)
    assert not index.replaced()
    shutil.rmtree(tmp_path / "old")
    assert not index.replaced()  # in between there is none: not yet
    (tmp_path / "new").rename(tmp_path / "old")
    assert index.replaced()
    index.close()


def test_an_index_takes_no_room_before_it_is_filled(tmp_path: Path) -> None:
    """The map is 1 TiB, the file is not."""
    index = Index(tmp_path, ("one",), writable=True)
    assert index.size() < 100_000
    index.close()


def test_more_packs_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomfs.store import packs

    monkeypatch.setattr(packs, "OPEN_PACKS", 3)
    root = shelf.make(tmp_path / "store")
    for number in range(6):
        shelf.fill(root, [(b"", [noise(number)])])
    store = Store(root, shelf.TABLES)
    places = shelf.locations(store, [noise(number) for number in range(6)])
    before = len(os.listdir("/proc/self/fd"))
    held = store.packs.open(1)
    for _ in range(3):
        assert len(shelf.read_all(store, places)) == 6
        assert len(os.listdir("/proc/self/fd")) <= before + 4
    # One that was put out is still readable for who holds it.
    assert held.read(0, 4) == b"PK\3\4"
    store.close()
