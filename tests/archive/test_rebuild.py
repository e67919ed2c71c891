"""Delete the index, rebuild it: the same tables, names, inode numbers and bytes; and what is lost is told."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.outcome import Outcome, Progress
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import ArchiveMissing, Damaged, Locked
from dicomfs.store.lock import WriterLock
from dicomfs.store.writer import Writer
from tests.archive.importing import add, contents, flip, packs, run, sha256, tables, tree, write
from tests.builders import make_instance, make_series

JPEG = "1.2.840.10008.1.2.4.50"


def life(path: Path, seed: int, rounds: int = 4) -> None:
    """Import as in real life: patients, conflicts, replacements, repetitions, refusals; several packs."""
    generator = random.Random(seed)
    known: list[dict[str, object]] = []
    for _ in range(rounds):
        files = []
        for _ in range(generator.randint(1, 12)):
            one: dict[str, object] = {
                "patient": generator.choice(["A", "a", "B"]),
                "study": generator.randint(1, 3),
                "series": generator.randint(1, 2),
                "number": generator.randint(1, 4),
                "rows": 24,
                "columns": 24,
                "seed": generator.choice(["x", "y", "z"]),
                "attributes": generator.choice(
                    [{}, {"PatientID": None}, {"StudyDescription": "Other"}, {"Modality": "PT"}]
                ),
            }
            known.append(one)
            files.append(make_instance(**generator.choice(known)))
        files.append(make_instance("US", patient="C", number=generator.randint(1, 3), transfer_syntax=JPEG))
        files.append(make_instance(patient="cut")[:-500])
        add(path, *files, on_conflict=generator.choice(["keep", "replace", "replace", "skip"]))


@pytest.mark.parametrize(("seed", "old"), [(0, "deleted"), (1, "deleted"), (2, "there")])
def test_everything_is_the_same(archive_path: Path, seed: int, old: str) -> None:
    life(archive_path, seed)
    before = tables(archive_path), tree(archive_path), contents(archive_path)
    bytes_before = [path.read_bytes() for path in packs(archive_path)]
    assert len(before[1]) > 5
    if old == "deleted":
        shutil.rmtree(archive_path / "index")
    report = reindex(archive_path)
    assert report.complete
    assert (report.commits, report.instances) == (len(before[0]["commit"]), len(before[2]))
    assert report.instances_before == (None if old == "deleted" else len(before[2]))
    assert (tables(archive_path), tree(archive_path), contents(archive_path)) == before
    assert [path.read_bytes() for path in packs(archive_path)] == bytes_before
    assert sorted(path.name for path in archive_path.iterdir() if "index" in path.name) == ["index"]


def test_imports_go_on_after_it(archive_path: Path) -> None:
    """The next numbers and names are those that would have come anyway."""
    twin = archive_path.parent / "twin"
    Archive.init(twin)
    for path in (archive_path, twin):
        life(path, 7, rounds=2)
    shutil.rmtree(archive_path / "index")
    reindex(archive_path)
    more = [make_instance(patient="A", study=1, number=9), make_instance(patient="New")]
    for path in (archive_path, twin):
        add(path, *more)
    assert tree(archive_path) == tree(twin)


def test_an_empty_archive(archive_path: Path) -> None:
    report = reindex(archive_path)
    assert report.complete
    assert (report.commits, report.instances) == (0, 0)
    assert add(archive_path, make_instance()).report.complete


def test_after_an_import_that_was_killed(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack without central directory is read entry by entry, its torn tail is cut, and it is sealed."""
    add(archive_path, *make_series(3, rows=16, columns=16))
    monkeypatch.setattr(Writer, "_seal", lambda self: None)
    add(archive_path, *make_series(3, rows=16, columns=16, series=2))
    monkeypatch.undo()
    before = tables(archive_path)
    with packs(archive_path)[1].open("ab") as file:
        file.write(b"PK\3\4 torn")
    shutil.rmtree(archive_path / "index")
    assert reindex(archive_path).complete
    assert tables(archive_path) == before
    assert check(archive_path).notes == []


@pytest.mark.damaged
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_pack_that_is_lost(tmp_path: Path, lost: int) -> None:
    """What is in the other packs stays readable, under a stand-in's name where its directory is lost."""
    path = tmp_path / "archive"
    Archive.init(path)
    parts = [
        make_series(3, rows=16, columns=16, patient="A"),
        # The same series goes on, beside another patient.
        [make_instance(patient="A", number=4, rows=16, columns=16), make_instance(patient="B")],
        [make_instance(patient="A", number=1, seed="other"), make_instance(patient="B", number=2, series=2)],
    ]
    for files in parts:
        add(path, *files, on_conflict="replace")
    before = tree(path)
    kept = [content for number, files in enumerate(parts, start=1) if number != lost for content in files]
    packs(path)[lost - 1].unlink()
    shutil.rmtree(path / "index")

    report = reindex(path)

    assert report.missing_commits == ([lost] if lost < 3 else [])
    assert report.complete == (lost == 3)  # nobody can know that there was a third
    found = {}
    with Archive.open(path) as opened:
        with opened.view() as view:
            files_left = [ino for ino in view.inodes() if not view.node(ino).is_directory]
        for ino in files_left:
            try:
                file = opened.open_instance(ino)
                found[ino] = bytes(file.read(0, file.size))
            except Damaged:
                continue  # its frames or its base were in the lost pack
    assert set(found.values()) <= set(kept)
    assert len(found) >= len(kept) - 1
    after = tree(path)
    assert {shown.sha256 for shown in after.values()} == {sha256(content) for content in kept} - (
        {sha256(parts[0][0])} if lost == 2 else set()
    )
    for place, shown in before.items():
        where = [other for other, file in after.items() if file.sha256 == shown.sha256]
        assert all(other == place or "LOST~" in other for other in where)
    assert any("LOST~" in place for place in after) == (lost < 3)
    # Numbers are those of before, and new ones do not clash with the stand-ins.
    numbers = {shown.sha256: shown.ino for shown in before.values()}
    assert all(numbers.get(shown.sha256, shown.ino) == shown.ino for shown in after.values())
    assert add(path, make_instance(patient="D"), make_instance(patient="A", study=9)).report.complete
    again = tree(path)
    assert len(again) == len(after) + 2
    shutil.rmtree(path / "index")
    reindex(path)
    assert tree(path) == again


@pytest.mark.damaged
def test_an_index_that_knew_more_is_told(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    Archive.init(path)
    for number in (1, 2):
        add(path, make_instance(number=number))
    packs(path)[1].unlink()
    report = reindex(path)
    assert (report.instances, report.instances_before) == (1, 2)
    assert not report.complete


@pytest.mark.damaged
@pytest.mark.parametrize("part", ["head", "meta"])
def test_a_commit_that_is_damaged(tmp_path: Path, part: str) -> None:
    path = tmp_path / "archive"
    Archive.init(path)
    for number in (1, 2, 3):
        add(path, make_instance(number=number, patient=f"P{number}"))
    with Archive.open(path) as opened, opened.store.index.reading() as txn:
        place = opened.store.commit_place(txn, 2)
    flip(packs(path)[1], place.offset + (2 if part == "head" else place.head.meta_at + 30))
    shutil.rmtree(path / "index")
    report = reindex(path)
    assert not report.complete
    assert any("00000002" in problem for problem in report.problems) or report.missing_commits == [2]
    assert len(tree(path)) == 2
    assert len(contents(path)) == 2
    # Restored, everything is back.
    flip(packs(path)[1], place.offset + (2 if part == "head" else place.head.meta_at + 30))
    assert reindex(path).complete
    assert len(tree(path)) == 3
    assert check(path, verify_files=True).problems == []


@pytest.mark.damaged
@pytest.mark.parametrize(
    ("part", "sealed"),
    [("blob", True), ("central directory", True), ("commit name in it", True), ("blob", False), ("header", False)],
)
def test_rot_loses_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, sealed: bool) -> None:
    """A pack of many commits with one changed byte early on: all of them are taken up, nothing is cut off."""
    from dicomfs.archive import ingest, inputs

    path = tmp_path / "archive"
    Archive.init(path)
    monkeypatch.setattr(ingest, "COMMIT_BYTES", 1)
    monkeypatch.setattr(inputs, "BATCH_FILES", 1)
    if not sealed:
        monkeypatch.setattr(Writer, "_seal", lambda self: None)
    add(path, *make_series(6, rows=40, columns=40))
    monkeypatch.undo()
    before = tables(path)
    (pack,) = packs(path)
    content = pack.read_bytes()
    with Archive.open(path) as opened, opened.store.index.reading() as txn:
        first = opened.store.commit_place(txn, 1)
    start = first.offset + first.head.length
    if part == "central directory":
        at = content.rindex(b"PK\1\2") + 1
    elif part == "commit name in it":
        at = content.rindex(b"c/0000000000000003.cat") + 10
    else:
        at = start + (500 if part == "blob" else 15)
    flip(pack, at)
    shutil.rmtree(path / "index")

    report = reindex(path)

    assert report.commits == 6
    assert len(tree(path)) == 6
    if part in ("blob", "header") and not sealed:
        assert any("00000001" in problem for problem in report.problems)
        assert not report.complete
    assert pack.stat().st_size >= len(content)
    flip(pack, at)
    assert pack.read_bytes()[: len(content)] == content or part not in ("blob", "header")
    reindex(path)
    assert tables(path) == before
    assert check(path, verify_files=True).problems == []


def test_one_writer_at_a_time(archive_path: Path) -> None:
    lock = WriterLock(archive_path / "lock", "an import")
    with pytest.raises(Locked, match="an import"):
        reindex(archive_path)
    lock.release()


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveMissing):
        reindex(tmp_path)


def test_a_reader_goes_on_with_the_new_index(archive_path: Path) -> None:
    """In a process of its own, as a mounted drive is: an index may be open once in a process."""
    import subprocess
    import sys

    add(archive_path, *make_series(3))
    rebuild = "import sys, pathlib; from dicomfs.archive import rebuild; rebuild.reindex(pathlib.Path(sys.argv[1]))"
    with Archive.open(archive_path) as opened:
        with opened.view() as view:
            inodes = [ino for ino in view.inodes() if not view.node(ino).is_directory]
        file = opened.open_instance(inodes[0])
        assert not opened.refresh()
        subprocess.run([sys.executable, "-c", rebuild, str(archive_path)], check=True)
        assert len(file.read(0, file.size)) == file.size
        assert opened.refresh()
        assert not opened.refresh()
        for ino in inodes:
            again = opened.open_instance(ino)
            assert len(again.read(0, again.size)) == again.size
        assert len(file.read(0, file.size)) == file.size


def test_progress(archive_path: Path) -> None:
    for number in (1, 2):
        add(archive_path, make_instance(number=number))
    seen: list[Progress] = []
    reindex(archive_path, seen.append)
    assert [(one.files_done, one.files_total) for one in seen] == [(1, 2), (2, 2)]


def test_a_rebuild_that_was_interrupted(archive_path: Path) -> None:
    """What an earlier one left is in nobody's way."""
    add(archive_path, make_instance())
    before = tables(archive_path)
    write(archive_path / "index.new", {"data.mdb": b"half"})
    write(archive_path / "index.old", {"data.mdb": b"old"})
    assert reindex(archive_path).complete
    assert tables(archive_path) == before
    assert not (archive_path / "index.new").exists()
    # Between the two renames: there is no index, and the message says what to do.
    (archive_path / "index").rename(archive_path / "index.old")
    with pytest.raises(ArchiveMissing, match="reindex"):
        Archive.open(archive_path)
    assert reindex(archive_path).complete
    assert tables(archive_path) == before


def test_names_are_not_claimed_anew(archive_path: Path, tmp_path: Path) -> None:
    """Which of two equal names came first is in the packs, not in the order of anything else."""
    one = write(tmp_path / "one", {"b": make_instance(attributes={"SOPInstanceUID": "1.2.9"})})
    two = write(tmp_path / "two", {"a": make_instance(attributes={"SOPInstanceUID": "1.2.1"})})
    assert run(archive_path, one, two).outcomes == [Outcome.IMPORTED] * 2
    before = tree(archive_path)
    assert next(path for path in before if path.endswith("/00001.dcm"))
    shutil.rmtree(archive_path / "index")
    reindex(archive_path)
    assert tree(archive_path) == before
