"""Packs and index that were torn, lost, swapped or rotted: healed where they can be, and told where not.

Whatever happens to them, a read gives the bytes that were imported or an error, never other bytes.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import Damaged
from tests.faults.scene import Instance, assert_sound, catalog, dicomfs, digests, import_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.conftest import Source


@pytest.fixture
def filled(archive_path: Path, small_source: Source) -> Path:
    dicomfs("import", small_source.path, "-a", archive_path)
    return archive_path


def packs(archive: Path) -> list[Path]:
    return sorted((archive / "packs").glob("*.zip"))


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def readable(archive: Path, known: dict[str, Instance]) -> int:
    """Read every instance; return how many gave their bytes. All others must be errors."""
    good = 0
    with Archive.open(archive) as opened:
        for path, one in known.items():
            try:
                file = opened.open_instance(one.ino)
                content = bytes(file.read(0, one.size))
                file.close()
            except Damaged:
                continue
            assert hashlib.sha256(content).hexdigest() == one.sha256, path
            good += 1
    return good


# What a crash may leave behind the last commit of a pack, or as a pack of its own.
TAILS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "nothing": lambda _pack, _random: b"",
    "zeros": lambda _pack, _random: bytes(100_000),
    "garbage": lambda _pack, generator: generator.randbytes(100_000),
    "half a header": lambda pack, _random: pack[:20],
    "half a pack": lambda pack, _random: pack[: len(pack) // 2],
}


@pytest.mark.parametrize("tail", TAILS)
def test_leftover_pack(filled: Path, source: Source, small_source: Source, tail: str) -> None:
    before = catalog(filled)
    (whole,) = packs(filled)
    (filled / "packs" / "00000002.zip").write_bytes(TAILS[tail](whole.read_bytes(), random.Random(1)))

    assert assert_sound(filled) == before
    dicomfs("import", source.path, "-a", filled)
    completed = assert_sound(filled)
    assert before.items() <= completed.items()
    assert digests(completed) == sorted(source.digests + small_source.digests)


@pytest.mark.damaged
def test_copy_of_a_pack_among_the_packs(filled: Path, source: Source, small_source: Source) -> None:
    """A whole commit whose number is taken is no crash's doing: a person is told which pack it is in."""
    before = catalog(filled)
    (pack,) = packs(filled)
    copy = filled / "packs" / "00000002.zip"
    shutil.copy(pack, copy)
    assert readable(filled, before) == len(before)

    assert copy.name in dicomfs("check", "-a", filled, status=3).stdout
    assert copy.stem in dicomfs("import", source.path, "-a", filled, status=3).stderr

    copy.unlink()
    dicomfs("import", source.path, "-a", filled)
    assert digests(assert_sound(filled)) == sorted(source.digests + small_source.digests)


def torn(pack: bytes, committed: int, generator: random.Random) -> tuple[str, bytes]:
    """Return what a power cut may leave of a pack: anything past what was known to be on the disk."""
    cut = generator.randint(committed, len(pack))
    left = bytearray(pack[:cut])
    how = generator.choice(["cut", "zeroed", "garbage", "page lost"])
    if how != "cut" and cut > committed:
        at = generator.randint(committed, cut - 1)
        length = min(4096, cut - at) if how == "page lost" else cut - at
        left[at : at + length] = generator.randbytes(length) if how == "garbage" else bytes(length)
    return f"{how}, {cut - committed} of {len(pack) - committed} bytes", bytes(left)


@pytest.mark.parametrize("step", ["before record", "written", "synced"])
def test_power_cut(source: Source, archive_path: Path, tmp_path: Path, step: str) -> None:
    import_until(step, 4, source.path, archive_path)
    before = assert_sound(archive_path)
    assert before
    (pack,) = packs(archive_path)
    content = pack.read_bytes()
    with Archive.open(archive_path) as opened, opened.store.index.reading() as txn:
        committed = opened.store.pack_states(txn)[1].committed
    generator = random.Random(step)
    empty = tmp_path / "empty"
    empty.mkdir()
    for trial in range(6):
        copy = tmp_path / f"copy{trial}"
        shutil.copytree(archive_path, copy)
        how, left = torn(content, committed, generator)
        (copy / "packs" / pack.name).write_bytes(left)

        assert assert_sound(copy) == before, how
        dicomfs("import", empty, "-a", copy)
        healed = assert_sound(copy)
        assert before.items() <= healed.items(), how
        if trial == 0:
            dicomfs("import", source.path, "-a", copy)
            assert digests(assert_sound(copy)) == source.digests, how
        shutil.rmtree(copy)


@pytest.mark.damaged
def test_missing_pack(filled: Path, source: Source) -> None:
    known = catalog(filled)
    (pack,) = packs(filled)
    away = pack.rename(filled / "away")

    checked = dicomfs("check", "-a", filled, status=3)
    assert pack.name in checked.stdout + checked.stderr
    assert readable(filled, known) == 0
    refused = dicomfs("import", source.path, "-a", filled, status=3)
    assert pack.name in refused.stderr

    away.rename(pack)
    assert assert_sound(filled) == known


@pytest.mark.damaged
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_pack_shorter_than_the_index_says(filled: Path, source: Source, part: float) -> None:
    known = catalog(filled)
    (pack,) = packs(filled)
    content = pack.read_bytes()
    os.truncate(pack, int(len(content) * part))

    checked = dicomfs("check", "-a", filled, status=3)
    assert pack.stem in checked.stdout + checked.stderr
    assert readable(filled, known) < len(known)
    refused = dicomfs("import", source.path, "-a", filled, status=3)
    assert pack.stem in refused.stderr

    pack.write_bytes(content)
    assert assert_sound(filled) == known


def test_index_deleted(filled: Path, source: Source) -> None:
    dicomfs("import", source.path, "-a", filled)
    known = assert_sound(filled)
    shutil.rmtree(filled / "index")

    for command in ("list", "stats", "check"):
        refused = dicomfs(command, "-a", filled, status=3)
        assert "dicomfs reindex" in refused.stdout + refused.stderr

    dicomfs("reindex", "-a", filled)
    assert assert_sound(filled) == known


def test_import_without_an_index(filled: Path, source: Source, small_source: Source) -> None:
    """A writer that finds no index folds all packs into a new one before it goes on."""
    known = catalog(filled)
    shutil.rmtree(filled / "index")

    dicomfs("import", source.path, "-a", filled)

    completed = assert_sound(filled)
    assert known.items() <= completed.items()
    assert digests(completed) == sorted(source.digests + small_source.digests)


def test_index_older_than_its_packs(filled: Path, source: Source, tmp_path: Path) -> None:
    early = catalog(filled)
    shutil.copytree(filled / "index", tmp_path / "index")
    dicomfs("import", source.path, "-a", filled)
    known = assert_sound(filled)
    shutil.rmtree(filled / "index")
    shutil.copytree(tmp_path / "index", filled / "index")

    # What the old index knows stays readable; the next writer folds in what it does not.
    assert early.items() <= catalog(filled).items()
    dicomfs("import", source.path, "-a", filled)

    assert assert_sound(filled) == known


@pytest.mark.damaged
def test_index_of_garbage(filled: Path) -> None:
    known = catalog(filled)
    data = filled / "index" / "data.mdb"
    data.write_bytes(random.Random(0).randbytes(40_000))
    refused = dicomfs("list", "-a", filled, status=3)
    assert "dicomfs reindex" in refused.stderr
    dicomfs("reindex", "-a", filled)
    assert assert_sound(filled) == known


@pytest.mark.damaged
@pytest.mark.parametrize("seed", range(4))
def test_rotten_byte(filled: Path, seed: int) -> None:
    known = catalog(filled)
    (pack,) = packs(filled)
    size = pack.stat().st_size
    generator = random.Random(seed)
    for _ in range(25):
        at = generator.randrange(size)
        flip(pack, at)

        problems = check(filled, verify_files=True).problems
        good = readable(filled, known)

        assert problems, f"byte {at} of {size} changed, and the check finds nothing"
        assert good < len(known) or not any("instance" in problem.kind for problem in problems)
        flip(pack, at)
    assert assert_sound(filled) == known


@pytest.mark.damaged
def test_check_names_what_is_hurt(filled: Path) -> None:
    known = catalog(filled)
    (pack,) = packs(filled)
    # The middle of the pack lies in the pixels of one file.
    flip(pack, pack.stat().st_size // 2)
    hurt = [path for path, one in known.items() if not readable(filled, {path: one})]
    assert len(hurt) == 1

    told = dicomfs("check", "--verify-files", "-a", filled, status=3)

    # By UID and inode number: a path would put a patient's name into a log.
    assert f"inode {known[hurt[0]].ino}" in told.stdout
    assert "Doe" not in told.stdout + told.stderr


@pytest.mark.damaged
def test_rot_in_a_sealed_pack_that_the_index_does_not_know(
    filled: Path, source: Source, small_source: Source, tmp_path: Path
) -> None:
    """A sealed pack is never cut back, whatever is wrong in it: only crashes leave tails, and they are not sealed."""
    early = tmp_path / "index"
    shutil.copytree(filled / "index", early)
    dicomfs("import", source.path, "-a", filled)
    known = catalog(filled)
    _, second = packs(filled)
    size = second.stat().st_size
    flip(second, size // 3)
    shutil.rmtree(filled / "index")
    shutil.copytree(early, filled / "index")

    dicomfs("import", small_source.path, "-a", filled, status=None)

    assert second.stat().st_size == size
    flip(second, size // 3)
    reindex(filled)
    assert assert_sound(filled) == known


@pytest.mark.damaged
def test_reindex_over_rot(filled: Path) -> None:
    """A rebuild keeps every name although some pixels are hurt; the check then says which."""
    known = catalog(filled)
    (pack,) = packs(filled)
    flip(pack, pack.stat().st_size // 2)
    shutil.rmtree(filled / "index")

    dicomfs("reindex", "-a", filled, status=None)

    assert catalog(filled) == known
    assert readable(filled, known) == len(known) - 1
    dicomfs("check", "--verify-files", "-a", filled, status=3)
