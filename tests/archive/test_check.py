"""A check names what is hurt, whatever it is; and finds nothing where nothing is."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive import attachments
from dicomfs.archive import tables as catalog_tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.check import CheckReport, check
from dicomfs.archive.gc import collect
from dicomfs.archive.layouts import switch_on
from dicomfs.archive.outcome import Progress
from dicomfs.errors import ArchiveMissing, Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.index import Index
from dicomfs.store.store import TABLES
from tests.archive.importing import add, contents, flip, packs, sha256, tables, tree
from tests.archive.project_scenes import create
from tests.archive.versions import delete as delete_files
from tests.builders import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicomfs.store.index import Transaction
    from dicomfs.store.location import Location

pytestmark = pytest.mark.damaged

JPEG = "1.2.840.10008.1.2.4.50"


class Whole(NamedTuple):
    """An archive of two packs with everything in it, where its parts lie, and what it holds."""

    path: Path
    places: dict[str, tuple[int, int]]
    """Part -> (offset, length) in the second pack."""
    contents: dict[int, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path = tmp_path_factory.mktemp("check") / "archive"
    Archive.init(path)
    add(path, make_instance("SR"), make_instance(number=2), make_instance("SR", attributes={"Manufacturer": "another"}))
    others = [make_instance(patient="DFS-2", number=number, rows=48, columns=48) for number in (1, 2)]
    plain = make_instance("US", patient="DFS-3", transfer_syntax=JPEG, rows=80, columns=80)
    add(
        path,
        *others,
        plain,
        plain[:-900],
        make_instance(patient="DFS-2", number=1, seed="other"),
        on_conflict="replace",
    )
    places: dict[str, tuple[int, int]] = {}
    with Archive.open(path) as opened:
        store = opened.store
        with store.index.reading() as txn, opened.view() as view:
            place = store.commit_place(txn, 2)
            inode = view.instance_inode(max(ino for ino in view.inodes() if not view.node(ino).is_directory))
            found = [store.locate(txn, blob) for blob in tables_of(path_tables(txn, store.blob_table))]
            base = store.locate(txn, inode.base)
        record = place.offset
        places["plain blob"] = first(found, lambda at: at.codec == codecs.PLAIN)
        places["coded blob"] = first(found, lambda at: at.codec != codecs.PLAIN and at.offset != base.offset)
        places["base"] = (base.offset, base.stored)
        places["record head"] = (record, 48)
        places["table of blobs"] = (record + place.head.blobs_at, place.blobs_length)
        places["meta"] = (record + place.head.meta_at, place.meta_length)
        places["body"] = (record + place.head.body_at, place.body_length)
        places["local header"] = (places["plain blob"][0] - 96, 30)
        places["name"] = (places["plain blob"][0] - 66, 66)
        end = record + place.head.length
        places["central directory"] = (end, packs(path)[1].stat().st_size - end)
    # And what makes the other tables hold something: an instance that trees of UIDs hide, a layout, a project,
    # attachments.
    add(path, make_instance(patient="DFS-2", number=2, rows=48, columns=48, seed="beside"))
    switch_on(path, "own", "{PatientID}/{n}.dcm")
    create(path, "own", (("Modality", "CT"),), deid="basic")
    for document in (b'{"1": {}}', b"{}"):
        attachments.attach(path, "DFS-2", document, "nbss.json")
    assert check(path, verify_files=True) == check(path, verify_files=True)
    assert check(path, verify_files=True).problems == []
    gone = [make_instance(patient="DFS-4", number=number) for number in (1, 2)]
    add(path, *gone)
    delete_files(path, *(name for name in tree(path) if name.startswith("DFS-4")))
    return Whole(path, places, contents(path))


def path_tables(txn: Transaction, table: object) -> dict[bytes, bytes]:
    cursor = txn.cursor(db=table)
    return dict(cursor.iternext()) if cursor.first() else {}


def tables_of(records: dict[bytes, bytes]) -> list[bytes]:
    return list(records)


def first(found: list[Location], wanted: Callable[[Location], bool]) -> tuple[int, int]:
    return min((at.offset, at.stored) for at in found if at.pack == 2 and wanted(at))


@pytest.fixture
def copy(whole: Whole, tmp_path: Path) -> Path:
    return shutil.copytree(whole.path, tmp_path / "copy")


def kinds(report: CheckReport) -> set[str]:
    return {problem.kind for problem in report.problems}


PARTS = {
    "plain blob": {"blob", "instance", "derived"},
    "coded blob": {"blob", "instance", "derived"},
    "base": {"blob", "instance"},
    "record head": {"commit", "index", "pack"},
    "table of blobs": {"commit", "index", "pack", "blob"},
    "meta": {"commit", "index", "pack"},
    "body": {"instance", "pack"},
    "local header": {"pack"},
    "name": {"pack"},
    "central directory": {"pack"},
}


@pytest.mark.parametrize("part", PARTS)
def test_any_changed_byte_is_found(whole: Whole, copy: Path, part: str) -> None:
    """And every instance still gives its own bytes or an error."""
    offset, length = whole.places[part]
    pack = packs(copy)[1]
    steps = sorted({0, 1, 4, 8, 17, length // 3, length // 2, length - 5, length - 1} & set(range(length)))
    for step in steps:
        flip(pack, offset + step)
        report = check(copy, verify_files=True)
        assert report.problems, f"byte {step} of {length}"
        assert kinds(report) <= PARTS[part], f"byte {step} of {length}: {report.problems}"
        assert_reads_back_or_fails(copy, whole)
        flip(pack, offset + step)
    assert check(copy, verify_files=True).problems == []


def assert_reads_back_or_fails(archive: Path, whole: Whole) -> int:
    good = 0
    with Archive.open(archive) as opened:
        for ino, content in whole.contents.items():
            try:
                file = opened.open_instance(ino)
                assert bytes(file.read(0, file.size)) == content
                good += 1
            except Damaged:
                continue
    return good


@pytest.mark.parametrize("part", ["plain blob", "coded blob", "body"])
def test_what_is_hurt_is_named(whole: Whole, copy: Path, part: str) -> None:
    """The instance by its UID and inode number, and never by a path, which may hold a patient's name."""
    offset, length = whole.places[part]
    flip(packs(copy)[1], offset + length - 3)
    report = check(copy, verify_files=True)
    hurt = [problem.where for problem in report.problems if problem.kind in ("instance", "derived")]
    named = set()
    with Archive.open(copy) as opened, opened.view() as view:
        for ino in whole.contents:
            source = view.source_of(ino)
            uid = view.instance(source[0] if source else ino).attributes["SOPInstanceUID"]
            named.add(f"{'file derived from ' if source else ''}instance {uid} (inode {ino})")
    assert len(hurt) >= 1
    assert set(hurt) <= named
    assert len(hurt) + assert_reads_back_or_fails(copy, whole) == len(whole.contents)
    assert "Doe" not in repr(report)


def test_the_fast_pass_reads_no_pixels(whole: Whole, copy: Path) -> None:
    offset, length = whole.places["plain blob"]
    flip(packs(copy)[1], offset + length // 2)
    assert check(copy).problems == []
    assert check(copy).bytes_verified == 0


@pytest.mark.parametrize("part", ["record head", "meta", "body", "table of blobs"])
def test_the_fast_pass_finds_a_hurt_commit(whole: Whole, copy: Path, part: str) -> None:
    offset, length = whole.places[part]
    flip(packs(copy)[1], offset + length // 2)
    assert check(copy).problems


@pytest.mark.parametrize("verify", [False, True])
def test_a_missing_pack(copy: Path, verify: bool) -> None:
    packs(copy)[1].unlink()
    report = check(copy, verify_files=verify)
    assert ("pack", "00000002.zip") in [(problem.kind, problem.where) for problem in report.problems]
    assert "instance" in kinds(report)


@pytest.mark.parametrize("left", [0.0, 0.5, 0.99, -1])
def test_a_pack_that_is_cut_off(copy: Path, left: float) -> None:
    pack = packs(copy)[1]
    size = pack.stat().st_size
    os.truncate(pack, size - 1 if left < 0 else int(size * left))
    report = check(copy)
    assert ("pack", "00000002.zip") in [(problem.kind, problem.where) for problem in report.problems]


def test_a_sealed_pack_that_grew(copy: Path) -> None:
    with packs(copy)[1].open("ab") as file:
        file.write(b"x")
    assert kinds(check(copy)) == {"pack"}


def hurt(archive: Path, table: str, change: Callable[[Transaction, object, bytes, bytes], None], number: int) -> bool:
    """Change one record of a table; say whether there was one."""
    index = Index(archive / "index", (*TABLES, *catalog_tables.TABLES), writable=True)
    txn = index.begin(write=True)
    records = list(path_tables(txn, index.tables[table]).items())
    there = bool(records)
    if there:
        change(txn, index.tables[table], *records[number % len(records)])
    txn.commit()
    index.close()
    return there


def delete(txn: Transaction, table: object, key: bytes, value: bytes) -> None:
    txn.delete(key, db=table)


def change(txn: Transaction, table: object, key: bytes, value: bytes) -> None:
    txn.put(key, bytes([value[0] ^ 1]) + value[1:] if value else b"x", db=table)


def change_last(txn: Transaction, table: object, key: bytes, value: bytes) -> None:
    txn.put(key, value[:-1] + bytes([value[-1] ^ 1]) if value else b"x", db=table)


def cut(txn: Transaction, table: object, key: bytes, value: bytes) -> None:
    txn.put(key, value[: len(value) // 2] if len(value) > 1 else b"xyz", db=table)


def lengthen(txn: Transaction, table: object, key: bytes, value: bytes) -> None:
    txn.put(key, value + b"\0\0\0\0\0", db=table)


def invent(txn: Transaction, table: object, key: bytes, value: bytes) -> None:
    txn.put(key[:-1] + bytes([key[-1] ^ 0x55]), value, db=table)


@pytest.mark.parametrize("how", [delete, change, change_last, cut, lengthen, invent], ids=lambda how: how.__name__)
@pytest.mark.parametrize("table", [*TABLES, *catalog_tables.TABLES])
def test_any_hurt_record_of_the_index_is_found(
    copy: Path, table: str, how: Callable[[Transaction, object, bytes, bytes], None]
) -> None:
    """With a message and without a traceback; only what the packs say about themselves may be a note."""
    if table == "tombstone":
        delete_files(copy, next(iter(tree(copy))))
        assert collect(copy, forget_before_ns=time.time_ns()).versions
    assert hurt(copy, table, how, 1)
    report = check(copy)
    assert report.problems, table
    assert all(problem.what for problem in report.problems)
    assert check(copy, verify_files=True).problems


@pytest.mark.parametrize("how", [delete, change, cut], ids=lambda how: how.__name__)
@pytest.mark.parametrize("table", ["inode", "blob", "commit", "instance", "meta", "name", "series", "study"])
def test_reads_with_a_hurt_index_are_errors_of_ours(
    whole: Whole, copy: Path, table: str, how: Callable[[Transaction, object, bytes, bytes], None]
) -> None:
    """Whoever walks and reads such an archive gets its bytes or an error that names a remedy."""
    from dicomfs.errors import DicomfsError

    for number in range(3):
        hurt(copy, table, how, number)
    with Archive.open(copy) as opened:
        for ino, content in whole.contents.items():
            try:
                file = opened.open_instance(ino)
                assert bytes(file.read(0, file.size)) in (content, *whole.contents.values())
                with opened.view() as view:
                    view.instance(ino)
                    view.path(ino)
            except DicomfsError:
                continue
        try:
            with opened.view() as view:
                for study in view.studies():
                    list(view.series_of(study.key))
                list(view.children(2, 0, 1, lambda _: None))
                view.totals()
        except DicomfsError:
            pass


def test_an_index_that_is_missing(copy: Path) -> None:
    shutil.rmtree(copy / "index")
    report = check(copy)
    assert [problem.kind for problem in report.problems] == ["index"]
    assert "reindex" in report.problems[0].what


def test_quarantine(copy: Path) -> None:
    (kept,) = (copy / "quarantine").glob("*.dcm")
    flip(kept, 100)
    assert check(copy).problems == []
    report = check(copy, verify_files=True)
    assert [(problem.kind, problem.where) for problem in report.problems] == [("quarantine", kept.name)]
    flip(kept, 100)
    kept.with_suffix(".txt").unlink()
    report = check(copy, verify_files=True)
    assert [(problem.kind, problem.where) for problem in report.problems] == [("quarantine", kept.name)]


def test_what_a_crash_leaves_is_a_note(archive_path: Path) -> None:
    """A torn tail, or a pack that the index does not know, is healed by the next import."""
    add(archive_path, make_instance(number=1))
    first_pack = packs(archive_path)[0].read_bytes()
    (archive_path / "packs" / "00000002.zip").write_bytes(first_pack[:100])
    report = check(archive_path, verify_files=True)
    assert report.problems == []
    assert [note.partition(":")[0] for note in report.notes] == ["00000002.zip"]
    assert add(archive_path, make_instance(number=2)).report.complete
    report = check(archive_path, verify_files=True)
    assert (report.problems, report.notes) == ([], [])


def test_counts_and_progress(whole: Whole) -> None:
    seen: list[Progress] = []
    report = check(whole.path, verify_files=True, progress=seen.append)
    assert (report.packs, report.commits) == (9, 12)
    assert (report.instances, report.derived) == (10, len(whole.contents) - 10)
    assert report.derived == 4
    assert report.bytes_verified == sum(map(len, whole.contents.values()))
    assert report.blobs == sum(len(pack_names(path)) for path in packs(whole.path))
    assert seen


def pack_names(path: Path) -> list[str]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if not name.startswith("c/")]


def test_a_check_changes_nothing(whole: Whole) -> None:
    before = tables(whole.path), [sha256(path.read_bytes()) for path in packs(whole.path)]
    check(whole.path, verify_files=True)
    assert (tables(whole.path), [sha256(path.read_bytes()) for path in packs(whole.path)]) == before


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveMissing):
        check(tmp_path)


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A check cleans up after itself."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    yield
    assert list(place.iterdir()) == []


def test_a_commit_meanwhile_hides_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is with one state of the index, whoever commits while it goes on."""
    import subprocess
    import sys

    from dicomfs.archive import check as checks

    index = Index(copy / "index", (*TABLES, *catalog_tables.TABLES), writable=True)
    txn = index.begin(write=True)
    txn.put(b"pBOGUS\0" + catalog_tables.U64.pack(1025), b"", db=index.tables["find"])
    index.commit(txn)
    index.close()
    (copy.parent / "new").write_bytes(make_instance(patient="new"))
    program = (
        "import sys, pathlib; from dicomfs.archive.ingest import ImportOptions, import_paths;"
        "import_paths(pathlib.Path(sys.argv[1]), [pathlib.Path(sys.argv[2])], ImportOptions(jobs=1))"
    )
    compare = checks.compare_fold

    def meanwhile(*arguments: object) -> int:
        subprocess.run([sys.executable, "-c", program, str(copy), str(copy.parent / "new")], check=True)
        return compare(*arguments)

    monkeypatch.setattr(checks, "compare_fold", meanwhile)
    problems = check(copy).problems
    assert [problem.what for problem in problems if "'find'" in problem.what]
    assert len(problems) == 1


def test_a_copy_that_was_replaced_is_only_noted(whole: Whole, copy: Path) -> None:
    from isal.isal_zlib import crc32

    from dicomfs.archive.floors import Floors
    from dicomfs.archive.fold import fold_meta
    from dicomfs.archive.ingest import open_for_writing
    from dicomfs.store.writer import Writer

    offset, length = whole.places["plain blob"]
    with Archive.open(copy) as opened, opened.store.index.reading() as txn:
        records = path_tables(txn, opened.store.blob_table)
        held = {blob: opened.store.locate(txn, blob) for blob in records}
    (blob,) = (one for one, at in held.items() if (at.pack, at.offset) == (2, offset))
    stored = packs(copy)[1].read_bytes()[offset : offset + length]
    store = open_for_writing(copy)
    writer = Writer(store)
    assert writer.add_blob(blob, codecs.PLAIN, length, stored, crc32(stored), codecs.plain(stored).checks, again=True)
    meta = Floors(0, 0, [], []).meta()
    fold_meta(store, writer.txn, writer.seq, 1, meta)
    writer.commit(meta, 1)
    writer.close()
    store.close()
    assert check(copy, verify_files=True).problems == []
    flip(packs(copy)[1], offset + 5)
    report = check(copy, verify_files=True)
    assert report.problems == []
    assert [note for note in report.notes if "a later copy has taken its place" in note]
    assert assert_reads_back_or_fails(copy, whole) == len(whole.contents)


@pytest.mark.root
def test_what_may_not_be_read_is_not_damage(copy: Path) -> None:
    """Nor is it told as damage: the check cannot be done."""
    import subprocess
    import sys

    program = (
        "import os, pathlib, sys\n"
        "from dicomfs.archive.check import check\n"
        "from dicomfs.errors import Refused\n"
        "import lmdb, isal.isal_zlib, zstandard\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    print(check(pathlib.Path(sys.argv[1])).problems)\n"
        "except Refused:\n"
        "    print('refused')\n"
    )
    # Everything but the announcement of readers may be read.
    reachable = Path("/tmp") / f"dicomfs-refused-{os.getpid()}"
    shutil.copytree(copy, reachable)
    try:
        for one in (reachable, *reachable.rglob("*")):
            one.chmod(0o755 if one.is_dir() else 0o644)
        told = subprocess.run([sys.executable, "-c", program, str(reachable)], capture_output=True, text=True)
    finally:
        shutil.rmtree(reachable)
    assert told.stdout == "refused\n", told.stderr
