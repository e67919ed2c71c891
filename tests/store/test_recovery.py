"""Whatever a crash leaves, the store is as it was after some commit, and no commit that was told of is missing."""

from __future__ import annotations

import random
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from dicomfs.errors import Damaged
from dicomfs.store.store import Store
from dicomfs.store.writer import Writer
from tests.store import shelf

COMMITS = 6


class Stop(Exception):
    """The power goes."""


class Scene(NamedTuple):
    """A store with an unsealed pack, and what it was after each commit."""

    root: Path
    states: list[shelf.Dump]
    lengths: list[int]
    """How long the pack was after each commit."""
    indexes: list[Path]
    """The index after each commit."""


def blobs_of(number: int) -> list[shelf.Coded]:
    generator = random.Random(number)
    return [
        shelf.coded(generator.randbytes(generator.choice([300, 9_000]))),
        shelf.coded(bytes(generator.choices(b"abc", k=20_000)), 2),
        shelf.coded(b"shared by all commits" * 30),
    ]


def meta_of(number: int) -> bytes:
    return b'{"commit":%d}' % number


def commit(store: Store, writer: Writer, number: int) -> None:
    shelf.commit(store, writer, blobs_of(number), meta_of(number), meta_of(number) * 40)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    place = tmp_path_factory.mktemp("recovery")
    root = shelf.make(place / "store")
    store, _ = shelf.open_healed(root)
    writer = Writer(store)
    states, lengths, indexes = [shelf.dump(store)], [0], [place / "index0"]
    shutil.copytree(root / "index", indexes[0])
    for number in range(1, COMMITS + 1):
        commit(store, writer, number)
        states.append(shelf.dump(store))
        lengths.append(shelf.pack_path(root).stat().st_size)
        indexes.append(place / f"index{number}")
        shutil.copytree(root / "index", indexes[-1])
    # No close: the pack stays as a killed writer leaves it.
    writer.txn.abort()
    store.close()
    return Scene(root, states, lengths, indexes)


def crashed(scene: Scene, place: Path, pack: bytes, index: int) -> Path:
    """Return a store as a crash left it: these bytes of a pack, and the index as after one of the commits."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "packs").mkdir(parents=True)
    shelf.pack_path(place).write_bytes(pack)
    shutil.copytree(scene.indexes[index], place / "index")
    return place


def assert_is_after(root: Path, scene: Scene, number: int, *, go_on: bool = False) -> None:
    """Compare a store with what it was after a commit: every table, and every byte of every blob."""
    store, _ = shelf.open_healed(root)
    assert shelf.dump(store) == scene.states[number]
    blobs = [one for count in range(1, number + 1) for one in blobs_of(count)]
    for blob, content in shelf.read_all(store, shelf.locations(store, blobs)).items():
        assert any(one.blob == blob and len(content) == one.length for one in blobs)
    if go_on:
        writer = Writer(store)
        for count in range(number + 1, COMMITS + 1):
            commit(store, writer, count)
        writer.close()
        assert shelf.dump(store)["note"] == scene.states[-1]["note"]
        wanted = [one for count in range(1, COMMITS + 1) for one in blobs_of(count)]
        assert len(shelf.read_all(store, shelf.locations(store, wanted))) == 2 * COMMITS + 1
    with store.index.reading() as txn:
        states = store.pack_states(txn)
    assert sorted(states) == store.packs.numbers()
    for pack, state in states.items():
        path = store.packs.path(pack)
        assert path.stat().st_size == state.sealed
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    store.close()


def test_cut_at_any_byte_past_the_index(scene: Scene, tmp_path: Path) -> None:
    """Every commit that is whole is taken up, whatever follows it."""
    pack = shelf.pack_path(scene.root).read_bytes()
    first, second = scene.lengths[4:6]
    # All around the ends of commits; between them every length does the same.
    lengths = {*range(first, first + 32, 5), *range(second - 6, second + 34, 3), *range(first, second, 1709)}
    for length in sorted(lengths):
        whole = 5 if length >= second else 4
        root = crashed(scene, tmp_path / "store", pack[:length], 4)
        assert_is_after(root, scene, whole)


MODES = ("cut", "zeroed", "garbage", "hole")


def tear(pack: bytes, synced: int, generator: random.Random) -> tuple[bytes, str]:
    """Return what a power cut may leave of a pack beyond what was known to be on the disk."""
    cut = generator.randint(synced, len(pack))
    left = bytearray(pack[:cut])
    mode = generator.choice(MODES)
    if mode != "cut" and cut > synced:
        at = generator.randint(synced, cut - 1)
        end = min(cut, at + 4096) if mode == "hole" else cut
        left[at:end] = generator.randbytes(end - at) if mode == "garbage" else bytes(end - at)
    return bytes(left), f"{mode}, {cut - synced} of {len(pack) - synced} bytes"


@pytest.mark.parametrize("behind", [0, 1])
def test_power_cut(scene: Scene, tmp_path: Path, behind: int) -> None:
    """The index may be one commit behind what was synced; what came after was torn in any way."""
    generator = random.Random(behind)
    pack = shelf.pack_path(scene.root).read_bytes()
    for trial in range(25):
        synced = generator.randrange(behind, COMMITS)
        # The writer is in its next commit: nothing after that one was begun.
        left, how = tear(pack[: scene.lengths[synced + 1]], scene.lengths[synced], generator)
        root = crashed(scene, tmp_path / "store", left, synced - behind)
        whole = synced + (left == pack[: scene.lengths[synced + 1]])
        try:
            assert_is_after(root, scene, whole, go_on=trial % 8 == 0)
        except AssertionError as error:
            raise AssertionError(f"trial {trial}: {how}") from error


@pytest.mark.parametrize("step", ["before record", "written", "synced", "indexed"])
@pytest.mark.parametrize("number", [1, 3])
def test_stop_at_each_step(scene: Scene, tmp_path: Path, step: str, number: int) -> None:
    root = shelf.make(tmp_path / "store")
    store, _ = shelf.open_healed(root)

    def faults(reached: str) -> None:
        if reached == step and writer.seq == number:
            raise Stop

    writer = Writer(store, faults)
    for count in range(1, number):
        commit(store, writer, count)
    with pytest.raises(Stop):
        commit(store, writer, number)
    # The process is gone: what is in its buffers is lost, what it wrote stays.
    writer.txn.abort()
    store.close()
    committed = step == "indexed"
    whole = number if step in ("written", "synced", "indexed") else number - 1
    reader = Store(root, shelf.TABLES)
    assert shelf.dump(reader) == scene.states[number if committed else number - 1]
    reader.close()
    assert_is_after(root, scene, whole, go_on=True)


def test_healing_is_done_once(scene: Scene, tmp_path: Path) -> None:
    pack = shelf.pack_path(scene.root).read_bytes()
    root = crashed(scene, tmp_path / "store", pack[:-5], 3)
    store, done = shelf.open_healed(root)
    store.close()
    assert (done.commits, done.sealed) == (2, 1)
    assert done.cut_bytes == scene.lengths[6] - 5 - scene.lengths[5]
    store, done = shelf.open_healed(root)
    store.close()
    assert (done.commits, done.sealed, done.cut_bytes) == (0, 0, 0)


def test_stopped_while_healing(scene: Scene, tmp_path: Path) -> None:
    """The pack was sealed, but the index does not know yet."""
    pack = shelf.pack_path(scene.root).read_bytes()
    root = crashed(scene, tmp_path / "store", pack, 6)
    store, _ = shelf.open_healed(root)
    store.close()
    shutil.rmtree(root / "index")
    shutil.copytree(scene.indexes[6], root / "index")
    assert_is_after(root, scene, 6)


def test_a_half_written_directory_is_written_again(scene: Scene, tmp_path: Path) -> None:
    root = crashed(scene, tmp_path / "store", shelf.pack_path(scene.root).read_bytes(), 6)
    store, _ = shelf.open_healed(root)
    store.close()
    sealed = shelf.pack_path(root).read_bytes()
    for length in range(scene.lengths[6], len(sealed), 97):
        assert_is_after(crashed(scene, tmp_path / "again", sealed[:length], 6), scene, 6)
    assert shelf.pack_path(tmp_path / "again").read_bytes() == sealed


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x20]))


# Where the byte lies, from the start of commit 3: in a header, a name, a blob.
ROT = {"header": 20, "name": 40, "blob": 200}


@pytest.mark.parametrize("place", ROT)
@pytest.mark.parametrize("known", [0, 1])
def test_rot_before_a_whole_commit_is_not_cut_off(scene: Scene, tmp_path: Path, place: str, known: int) -> None:
    """Only the last commit can be torn; bytes that changed before it are no reason to drop it."""
    content = shelf.pack_path(scene.root).read_bytes()
    root = crashed(scene, tmp_path / "store", content, known)
    path = shelf.pack_path(root)
    flip(path, scene.lengths[2] + ROT[place])
    if place == "name":
        # The name of a blob's entry says nothing that the commit record does not.
        assert_is_after(root, scene, COMMITS)
        return
    for _ in range(2):
        with pytest.raises(Damaged, match="00000001"):
            shelf.open_healed(root)
        assert path.stat().st_size == len(content)


@pytest.mark.parametrize("place", ROT)
def test_rot_in_what_the_index_knows(scene: Scene, tmp_path: Path, place: str) -> None:
    """Writing goes on, in another pack, and nothing that can be read is lost."""
    content = shelf.pack_path(scene.root).read_bytes()
    root = crashed(scene, tmp_path / "store", content + b"a torn tail", 6)
    path = shelf.pack_path(root)
    flip(path, scene.lengths[2] + ROT[place])

    store, _ = shelf.open_healed(root)
    assert shelf.dump(store) == scene.states[6]
    writer = Writer(store)
    commit(store, writer, 7)
    writer.close()
    for number in (1, 2, 4, 5, 6, 7):
        assert shelf.read_all(store, shelf.locations(store, blobs_of(number)))
    store.close()
    assert path.read_bytes()[: scene.lengths[2]] == content[: scene.lengths[2]]
    assert path.stat().st_size >= len(content)


def test_an_index_that_is_ahead(scene: Scene, tmp_path: Path) -> None:
    """A pack shorter than what was committed to it is never taken for a crash's doing."""
    content = shelf.pack_path(scene.root).read_bytes()
    for length in (scene.lengths[6] - 1, scene.lengths[5], 10, 0):
        root = crashed(scene, tmp_path / "store", content[:length], 6)
        with pytest.raises(Damaged, match="shorter"):
            shelf.open_healed(root)
        assert shelf.pack_path(root).stat().st_size == length


def test_a_pack_that_is_missing(scene: Scene, tmp_path: Path) -> None:
    root = crashed(scene, tmp_path / "store", b"", 6)
    shelf.pack_path(root).unlink()
    with pytest.raises(Damaged, match="missing"):
        shelf.open_healed(root)


def test_a_commit_that_is_in_no_pack(scene: Scene, tmp_path: Path) -> None:
    """The index knows commit 1, a pack of its own has commit 3 to 6."""
    root = crashed(scene, tmp_path / "store", shelf.pack_path(scene.root).read_bytes(), 6)
    store, _ = shelf.open_healed(root)
    writer = Writer(store)
    commit(store, writer, 7)
    writer.close()
    store.close()
    second = shelf.pack_path(root, 2).read_bytes()
    again = crashed(scene, tmp_path / "again", shelf.pack_path(scene.root).read_bytes()[: scene.lengths[2]], 2)
    shelf.pack_path(again, 2).write_bytes(second)
    with pytest.raises(Damaged, match="commit 3 is in no pack, but commit 7 is"):
        shelf.open_healed(again)
    assert shelf.pack_path(again, 2).read_bytes() == second


def test_an_empty_pack_is_removed(scene: Scene, tmp_path: Path) -> None:
    """It was made, and nothing reached it."""
    root = shelf.copy(scene.root, tmp_path / "store")
    shelf.pack_path(root, 2).write_bytes(b"")
    store, _ = shelf.open_healed(root)
    assert store.packs.numbers() == [1]
    store.close()
