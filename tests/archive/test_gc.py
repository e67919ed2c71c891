"""Packs are merged, what belongs to nothing is dropped, the cache is tidied; every version stays, bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dicomfs.archive import documents, gc_planning, pictures
from dicomfs.archive.archive import Archive
from dicomfs.archive.gc import GcReport, collect
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import Damaged, Locked, StorageFull
from dicomfs.store import pack as packfile
from dicomfs.store.lock import WriterLock
from dicomfs.store.recipe import BlobId
from tests.archive.importing import Tables, add, contents, flip, packs, tables, tree
from tests.archive.test_rebuild import life
from tests.builders import make_instance, make_series

PLACES = ("blob", "commit")
"""Tables that say where things lie: all that may differ after packs were written anew."""


def said(path: Path) -> Tables:
    """Return what the index says, but for where it lies."""
    return {name: table for name, table in tables(path).items() if name not in PLACES}


def state(path: Path) -> object:
    """Return everything that has to stay."""
    return said(path), tree(path), contents(path), sorted(tables(path)["blob"]), sorted(tables(path)["commit"])


def figures(report: GcReport) -> tuple[object, ...]:
    """Return what a report says was freed."""
    return (
        report.packs_before, report.packs_after, report.packs_removed, report.packs_written, report.bytes_written,
        report.blobs, report.bytes_freed, report.cache_files, report.cache_bytes,
    )  # fmt: skip


def packs_size(path: Path) -> int:
    return sum(pack.stat().st_size for pack in packs(path))


def orphans(path: Path, count: int, *, length: int = 50_000) -> list[BlobId]:
    """Commit blobs that belong to nothing, as an import leaves them that is stopped in the middle of a giant file."""
    import hashlib

    from isal.isal_zlib import crc32

    from dicomfs.archive.committing import Committing, writing
    from dicomfs.store import codec as codecs

    made = []
    with writing(path, "a test", 0) as opened:
        for number in range(count):
            data = hashlib.sha256(str(number).encode()).digest() * (length // 32)
            codec, stored, checks = codecs.plain(data)
            blob = BlobId(hashlib.sha256(data).digest())
            opened.writer.add_blob(blob, codec, len(data), stored, crc32(data), checks)
            made.append(blob)
        Committing(opened, "import").commit()
    return made


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_packs_become_one_and_all_stays(archive_path: Path, seed: int) -> None:
    life(archive_path, seed)
    before, size = state(archive_path), packs_size(archive_path)
    many = len(packs(archive_path))
    assert many > 2
    told = collect(archive_path, dry_run=True)
    assert state(archive_path) == before
    assert len(packs(archive_path)) == many

    report = collect(archive_path)

    assert figures(report) == figures(told)
    assert (report.packs_before, report.packs_after) == (many, 1)
    assert [pack.name for pack in packs(archive_path)] == [f"{many + 1:08d}.zip"]
    assert size - packs_size(archive_path) == report.bytes_freed
    assert packs_size(archive_path) == report.bytes_written
    assert state(archive_path) == before
    assert sorted(path.name for path in archive_path.iterdir() if "index" in path.name) == ["index"]
    assert sorted(path.name for path in (archive_path / "packs").iterdir()) == [f"{many + 1:08d}.zip"]
    again = collect(archive_path)
    assert (again.packs_written, again.blobs, again.bytes_freed) == (0, 0, 0)
    every = tables(archive_path)
    shutil.rmtree(archive_path / "index")
    assert reindex(archive_path).complete
    assert tables(archive_path) == every


def test_an_import_goes_on_after_it(archive_path: Path) -> None:
    twin = archive_path.parent / "twin"
    Archive.init(twin)
    for path in (archive_path, twin):
        life(path, 7, rounds=2)
    collect(archive_path)
    more = [make_instance(patient="A", study=1, number=9), make_instance(patient="New")]
    for path in (archive_path, twin):
        add(path, *more, on_conflict="replace")
    assert tree(archive_path) == tree(twin)
    assert packs(archive_path)[-1].name > packs(archive_path)[0].name


def test_blobs_of_nothing_are_dropped(archive_path: Path) -> None:
    add(archive_path, *make_series(3, rows=16, columns=16))
    made = orphans(archive_path, 5)
    before = contents(archive_path)
    told = collect(archive_path, dry_run=True)
    report = collect(archive_path)
    assert report.blobs == 5
    assert report.bytes_freed > 250_000 - 4096
    assert figures(report) == figures(told)
    assert not set(made) & set(tables(archive_path)["blob"])
    assert contents(archive_path) == before
    raw = b"".join(path.read_bytes() for path in packs(archive_path))
    assert not any(blob.hex().encode() in raw for blob in made)


@pytest.mark.damaged
def test_a_copy_that_was_mended_takes_the_place_of_the_hurt_one(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    Archive.init(path)
    files = make_series(3, rows=64, columns=64)
    add(path, *files)
    with Archive.open(path) as archive, archive.store.index.reading() as txn:
        blobs = [blob for blob, _ in sorted(tables_blob(archive).items(), key=lambda item: -item[1][2])]
        at = archive.store.locate(txn, BlobId(blobs[0]))
    flip(path / "packs" / "00000001.zip", at.offset + 100)
    add(path, make_instance(patient="other"))
    with pytest.raises(Damaged, match="check --verify-files"):
        collect(path)
    assert not list((path / "packs").glob("*.new"))
    assert not (path / "index.new").exists()
    add(path, *files)
    report = collect(path)
    assert report.blobs == 1
    assert set(contents(path).values()) >= set(files)
    from dicomfs.archive.check import check

    found = check(path, verify_files=True)
    assert (found.problems, found.notes) == ([], [])


def tables_blob(archive: Archive) -> dict[bytes, tuple[int, ...]]:
    """Return pack, offset and stored length of every blob."""
    from dicomfs.store import location as locations

    with archive.store.index.reading() as txn:
        cursor = txn.cursor(db=archive.store.blob_table)
        cursor.first()
        return {key: locations.decode(value)[:3] for key, value in cursor.iternext()}


def test_a_pack_is_written_anew_when_little_of_it_is_needed(
    archive_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pack is small here: those that are mostly needed stay, and full packs come of the others."""
    monkeypatch.setattr(packfile, "SEAL_BYTES", 300_000)
    monkeypatch.setattr(gc_planning, "SMALL", 0)
    add(archive_path, *make_series(8, rows=128, columns=128, patient="A"))
    orphans(archive_path, 1)
    orphans(archive_path, 2)
    add(archive_path, *make_series(8, rows=128, columns=128, patient="B"))
    before = state(archive_path)[1:3]
    names = [path.name for path in packs(archive_path)]
    told = collect(archive_path, dry_run=True)
    report = collect(archive_path)
    assert figures(report) == figures(told)
    assert report.blobs == 2  # the first is needed again by the second's commit, which has a copy of neither
    kept = [path.name for path in packs(archive_path)]
    assert names[0] in kept
    assert names[-1] in kept
    assert state(archive_path)[1:3] == before


@pytest.mark.damaged
def test_a_pack_with_a_commit_that_could_not_be_read_stays(tmp_path: Path) -> None:
    """It may be mended by hand: `reindex` went on without it, and nobody throws it away."""
    path = tmp_path / "archive"
    Archive.init(path)
    for number in (1, 2, 3):
        add(path, make_instance(number=number, patient=str(number)))
    with Archive.open(path) as archive, archive.store.index.reading() as txn:
        place = archive.store.commit_place(txn, 2)
    flip(path / "packs" / "00000002.zip", place.offset + place.head.meta_at + 20)
    assert not reindex(path).complete
    names = sorted(os.listdir(path / "packs"))
    with pytest.raises(Damaged, match="pack 00000002"):
        collect(path)
    assert sorted(os.listdir(path / "packs")) == names


def test_it_takes_turns_with_other_writers(archive_path: Path) -> None:
    add(archive_path, make_instance())
    lock = WriterLock(archive_path / "lock", "a test")
    with pytest.raises(Locked, match="a test"):
        collect(archive_path)
    assert collect(archive_path, dry_run=True).packs_before == 1
    lock.release()


def test_an_empty_archive(archive_path: Path) -> None:
    assert figures(collect(archive_path)) == (0, 0, [], 0, 0, 0, 0, 0, 0)


def test_room_is_looked_for_first(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(archive_path, make_instance())
    add(archive_path, make_instance(patient="B"))
    monkeypatch.setattr("dicomfs.archive.gc._SPARE", 1 << 60)
    with pytest.raises(StorageFull, match="Nothing was changed"):
        collect(archive_path)
    assert len(packs(archive_path)) == 2


def test_readers_go_on(archive_path: Path) -> None:
    """An archive that is open, and files that are open in it, read on from the packs that came."""
    files = [make_instance(number=number, rows=256, columns=256, frames=2) for number in range(1, 5)]
    for file in files:
        add(archive_path, file)
    with Archive.open(archive_path) as reader:
        with reader.view() as view:
            inodes = [ino for ino in view.inodes() if not view.node(ino).is_directory]
        opened = [reader.open_instance(ino) for ino in inodes[:2]]
        assert [bytes(file.read(0, 1000)) for file in opened] == [file[:1000] for file in files[:2]]
        view = reader.view().__enter__()
        gc(archive_path)
        reader.store.packs.close()  # as if it had opened others since
        for opened_file in opened:
            opened_file._held.blobs._packs.close()
        assert [opened[0].read_ready(len(files[0]) - 500, 500)] == [None]
        assert [bytes(file.read(0, file.size)) for file in opened] == files[:2]
        assert bytes(opened[0].read_ready(len(files[0]) - 500, 500) or b"") == files[0][-500:]
        assert reader.refresh()
        assert not reader.refresh()
        assert [bytes(one.read(0, one.size)) for one in map(reader.open_instance, inodes)] == files
        assert [view.node(ino).size for ino in inodes] == [len(file) for file in files]
        view.__exit__(None, None, None)
        # And the packs that are gone are closed with the last who read from them.
        import_into(archive_path, make_instance(patient="B"))
        gc(archive_path)
        for ino in inodes:
            assert len(reader.read_header(ino)) > 100


PROGRAM = "import sys; from dicomfs.cli import main; sys.exit(main())"


def dicomfs(*arguments: object) -> None:
    """Run a command in a process of its own, as this one has the archive open."""
    subprocess.run([sys.executable, "-c", PROGRAM, *map(str, arguments)], check=True, capture_output=True)


def gc(path: Path) -> None:
    dicomfs("gc", "-a", path)


def import_into(path: Path, content: bytes) -> None:
    source = path.parent / "one.dcm"
    source.write_bytes(content)
    dicomfs("import", source, "-a", path)


def age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then), follow_symlinks=False)


def test_the_cache_keeps_what_is_used_and_what_is_young(archive_path: Path) -> None:
    cache = archive_path / "cache"
    add(archive_path, *make_series(2, rows=32, columns=32))
    with Archive.open(archive_path) as archive:
        documents.make_studies(archive, cache)
        with archive.view() as view:
            (study,) = [study.key for study in view.studies()]
            (series,) = [series.key for series in view.series_of(study)]
            first, second = view.numbers_from(series, 0)
        documents.make_study(archive, cache, (study,))
        for ino in (first, second):
            pictures.make(archive, cache, (ino, 1, pictures.THUMBNAIL))
    old = {path for path in cache.rglob("*") if path.is_file()}
    assert len(old) == 5
    superseded = [cache / "documents" / "4" / "1" / f"series-{series}-1.1.1", cache / "pictures/0/1/1030-1.jpg"]
    rest = [next(iter(old)).parent / ".series-5-1.1.abcdef", pictures.path(cache, 999_999, 1, 0)]
    unknown = cache / "somebody" / "else.txt"
    for path in (*superseded, *rest, unknown, cache / "documents" / "README"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    assert collect(archive_path).cache_files == 0  # all are young
    for path in cache.rglob("*"):
        age(path, 25)
    told = collect(archive_path, dry_run=True)
    report = collect(archive_path)
    assert (report.cache_files, report.cache_bytes) == (4, 40) == (told.cache_files, told.cache_bytes)
    assert not any(path.exists() for path in (*superseded, *rest))
    assert all(path.exists() for path in (*old, unknown, cache / "documents" / "README"))
    # Another file in the series, and an instance that is replaced: their documents are of the past.
    add(archive_path, make_instance(rows=32, columns=32, number=1, seed="other"), on_conflict="replace")
    for path in cache.rglob("*"):
        age(path, 25)
    report = collect(archive_path)
    left = {path for path in old if path.exists()}
    assert report.cache_files == 4
    assert left == {pictures.path(cache, second, 1, 0)}
    collect(archive_path)
