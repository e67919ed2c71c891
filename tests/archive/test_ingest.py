"""Import: every input gets its one result, and what was imported reads back bit for bit."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import inputs
from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.archive.check import check
from dicomfs.archive.ingest import ImportOptions, import_paths
from dicomfs.archive.outcome import FileResult, Outcome, Progress
from dicomfs.errors import ArchiveMissing, UsageError
from dicomfs.store.lock import WriterLock
from tests.archive.importing import Done, add, children, contents, packs, run, sha256, snapshot, tables, tree, write
from tests.builders import make_instance, make_series, uid
from tests.dicom.build import EXPLICIT, part10

if TYPE_CHECKING:
    from collections.abc import Callable

IMPORTED, PRESENT, CONFLICT = Outcome.IMPORTED, Outcome.PRESENT, Outcome.CONFLICT
QUARANTINED, SKIPPED, FAILED = Outcome.QUARANTINED, Outcome.SKIPPED, Outcome.FAILED

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT = "1.2.840.10008.1.2"
JPEG = "1.2.840.10008.1.2.4.50"
LARGE = random.Random(1).randbytes(3 << 20)
DIRECTORY = part10(EXPLICIT.sequence(0x00041220, []) + EXPLICIT.identity())


def without_meta(content: bytes) -> bytes:
    """Cut preamble and meta information off."""
    return content[content.index(b"\x08\0\x05\0CS") :]


# What a file is, and what becomes of it.
KINDS: dict[str, tuple[Callable[[], bytes], Outcome]] = {
    "CT": (make_instance, IMPORTED),
    "no pixels": (lambda: make_instance("SR"), IMPORTED),
    "frames": (lambda: make_instance("MR", frames=4), IMPORTED),
    "small frames": (lambda: make_instance("SC", frames=9, rows=9, columns=9), IMPORTED),
    "odd length": (lambda: make_instance("SC", rows=33, columns=37), IMPORTED),
    "implicit": (lambda: make_instance(transfer_syntax=IMPLICIT), IMPORTED),
    "big endian": (lambda: make_instance(transfer_syntax=BIG_ENDIAN), IMPORTED),
    "deflated": (lambda: make_instance(transfer_syntax=DEFLATED), IMPORTED),
    "fragments": (lambda: make_instance("US", frames=3, transfer_syntax=JPEG), IMPORTED),
    "trailing bytes": (lambda: make_instance(trailing=b"after the end" * 30), IMPORTED),
    "large value": (lambda: make_instance(attributes={"ICCProfile": LARGE}), IMPORTED),
    "without Part 10": (lambda: without_meta(make_instance()), IMPORTED),
    "preamble of something else": (lambda: b"II*\0" + bytes(124) + make_instance()[128:], IMPORTED),
    "cut off": (lambda: make_instance()[:-700], QUARANTINED),
    "cut off in the header": (lambda: make_instance()[:600], QUARANTINED),
    "no Study UID": (lambda: make_instance(attributes={"StudyInstanceUID": None}), QUARANTINED),
    "no Series UID": (lambda: make_instance(attributes={"SeriesInstanceUID": ""}), QUARANTINED),
    "no SOP UID": (lambda: make_instance(attributes={"SOPInstanceUID": None}), QUARANTINED),
    "DICOMDIR": (lambda: DIRECTORY, SKIPPED),
    "empty": (lambda: b"", SKIPPED),
    "text": (lambda: b"this is no DICOM file\n" * 50, SKIPPED),
    "noise": (lambda: random.Random(2).randbytes(5000), SKIPPED),
    "only a preamble": (lambda: bytes(128) + b"DICM", QUARANTINED),
}  # fmt: skip


@pytest.mark.parametrize("codec", ["fast", "none"])
def test_each_kind_of_file(tmp_path: Path, codec: str) -> None:
    """One archive with all of them, each of an instance of its own."""
    path = tmp_path / "archive"
    Archive.init(path, codec=codec)
    files = {name: make() for name, (make, _) in KINDS.items()}
    done = run(path, write(tmp_path / "source", files), on_conflict="keep")

    results = {Path(result.source).name: result for result in done.results}
    assert set(results) == set(files)
    for name, result in results.items():
        # Several claim to be the same instance, and are kept beside the first.
        outcome = IMPORTED if result.outcome is CONFLICT else result.outcome
        assert outcome is KINDS[name][1], name
        assert (result.size, result.sha256) == (len(files[name]), sha256(files[name])), name
        assert bool(result.reason) == (result.outcome is not IMPORTED), name
        assert not result.explicit
    imported = sorted(content for name, content in files.items() if KINDS[name][1] is IMPORTED)
    assert sorted(contents(path).values()) == imported
    assert sorted(shown.sha256 for shown in tree(path).values()) == sorted(map(sha256, imported))
    quarantined = {sha256(files[name]): results[name] for name in files if KINDS[name][1] is QUARANTINED}
    for kept in (path / "quarantine").glob("*.dcm"):
        result = quarantined.pop(kept.stem)
        assert kept.read_bytes() == files[Path(result.source).name]
        assert kept.with_suffix(".txt").read_text() == f"{result.reason}\n"
    assert quarantined == {}
    assert not done.report.complete
    assert check(path, verify_files=True).problems == []


@pytest.mark.parametrize("kind", ["CT", "cut off", "text"])
def test_each_kind_alone(archive_path: Path, tmp_path: Path, kind: str) -> None:
    make, expected = KINDS[kind]
    content = make()
    file = write(tmp_path / "source", {"file": content}) / "file"

    done = run(archive_path, file)

    (result,) = done.results
    assert result.outcome is expected
    assert (result.source, result.size, result.sha256) == (str(file), len(content), sha256(content))
    assert bool(result.reason) == (expected is not IMPORTED)
    assert result.explicit
    assert done.report.outcomes == {expected: 1}
    assert done.report.complete == (expected is IMPORTED)
    assert done.report.stopped == ""
    if expected is IMPORTED:
        ((path, shown),) = tree(archive_path).items()
        assert (shown.size, shown.sha256) == (len(content), sha256(content))
        assert path.endswith(".dcm")
        assert list(contents(archive_path).values()) == [content]
        assert done.report.bytes_in == len(content)
        assert done.report.bytes_stored == packs(archive_path)[0].stat().st_size - directory_bytes(archive_path)
    else:
        assert tree(archive_path) == {}
        assert packs(archive_path) == []
    quarantined = sorted((archive_path / "quarantine").iterdir())
    if expected is QUARANTINED:
        kept, reason = quarantined
        assert kept.name == f"{sha256(content)}.dcm"
        assert kept.read_bytes() == content
        assert reason.read_text() == f"{result.reason}\n"
    else:
        assert quarantined == []


def directory_bytes(archive: Path) -> int:
    """Return what the central directory of the one pack takes."""
    with Archive.open(archive) as opened, opened.store.index.reading() as txn:
        ((_, state),) = opened.store.pack_states(txn).items()
    return state.sealed - state.committed


def test_second_import_brings_nothing(archive_path: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {name: make() for name, (make, _) in KINDS.items()})
    first = run(archive_path, source)
    before = tables(archive_path), snapshot(archive_path / "packs"), snapshot(archive_path / "quarantine")

    again = run(archive_path, source, jobs=2)

    assert {PRESENT if was in (IMPORTED, CONFLICT) else was for was in first.outcomes} == set(again.outcomes)
    assert again.report.outcomes[PRESENT] == first.report.outcomes[IMPORTED] + first.report.outcomes[CONFLICT]
    assert (again.report.bytes_in, again.report.bytes_stored) == (0, 0)
    assert (tables(archive_path), snapshot(archive_path / "packs"), snapshot(archive_path / "quarantine")) == before


def many(tmp_path: Path) -> Path:
    """Return files enough for several batches of both workers, with repetitions and conflicts across them."""
    source = tmp_path / "many"
    for study in range(3):
        files = make_series(70, rows=8, columns=8, study=study, patient=f"P{study % 2}")
        write(source / f"s{study}", {f"{n:03d}": content for n, content in enumerate(files)})
    write(
        source / "t", {f"{n:03d}": c for n, c in enumerate(make_series(70, rows=8, columns=8, study=0, patient="P0"))}
    )
    conflicts = make_series(40, rows=8, columns=8, study=1, patient="P1", seed="other")
    write(source / "u", {f"{n:03d}": content for n, content in enumerate(conflicts)})
    return source


@pytest.mark.parametrize("on_conflict", ["keep", "replace"])
def test_any_number_of_workers_gives_the_same(tmp_path: Path, on_conflict: str) -> None:
    source = many(tmp_path)
    seen = []
    for jobs in (1, 3):
        path = tmp_path / f"archive{jobs}"
        Archive.init(path)
        done = run(path, source, jobs=jobs, on_conflict=on_conflict)
        assert check(path, verify_files=True).problems == []
        seen.append((done.outcomes, [result.source for result in done.results], tree(path), contents(path)))
    assert seen[0] == seen[1]
    outcomes = seen[0][0]
    assert outcomes == [IMPORTED] * 210 + [PRESENT] * 70 + [CONFLICT] * 40


def test_order_of_results_is_that_of_the_inputs(archive_path: Path, tmp_path: Path) -> None:
    files = {f"{n:03d}": make_instance(number=n, rows=8, columns=8) if n % 3 else b"text" for n in range(140)}
    done = run(archive_path, write(tmp_path / "source", files), jobs=2)
    assert [Path(result.source).name for result in done.results] == sorted(files)


def test_same_file_twice_in_one_run(archive_path: Path) -> None:
    one, two = make_instance(number=1), make_instance(number=2)
    done = add(archive_path, one, two, one, one)
    assert done.outcomes == [IMPORTED, IMPORTED, PRESENT, PRESENT]
    assert len(tree(archive_path)) == 2


def test_same_path_twice(archive_path: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "source", {"file": make_instance()}) / "file"
    assert run(archive_path, file, file, file.parent).outcomes == [IMPORTED, PRESENT, PRESENT]


def test_small_commits_give_the_same_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomfs.archive import ingest

    source = many(tmp_path)
    shown = []
    for number, limit in enumerate((ingest.COMMIT_BYTES, 5_000)):
        monkeypatch.setattr(ingest, "COMMIT_BYTES", limit)
        monkeypatch.setattr(inputs, "BATCH_FILES", 64 if number == 0 else 7)
        path = tmp_path / f"archive{number}"
        Archive.init(path)
        run(path, source)
        assert check(path, verify_files=True).problems == []
        shown.append(tree(path))
        with Archive.open(path) as opened, opened.view() as view:
            commits = view.seq
    assert commits > 5
    assert shown[0] == shown[1]


def test_a_giant_file_is_committed_in_pieces(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomfs.archive import ingest

    monkeypatch.setattr(ingest, "_GIANT_BYTES", 100_000)
    giant = make_instance("MR", frames=40, rows=96, columns=96)
    other = make_instance("MR", number=2, frames=2)
    done = add(archive_path, giant, other)
    assert done.outcomes == [IMPORTED, IMPORTED]
    assert sorted(contents(archive_path).values()) == sorted([giant, other])
    with Archive.open(archive_path) as opened, opened.view() as view:
        assert view.seq > 2
        assert view.totals().bulk_unique == 40 * 96 * 96 * 2 + 2 * 64 * 64 * 2


def test_a_giant_file_whose_last_piece_is_missing(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of a file whose record never came belong to nobody: a note, no damage; the next import uses them."""
    from dicomfs.archive import ingest
    from dicomfs.errors import StorageFull
    from dicomfs.store.writer import Writer

    monkeypatch.setattr(ingest, "_GIANT_BYTES", 100_000)
    giant = make_instance("MR", frames=40, rows=96, columns=96)
    add_body = Writer.add_body

    def full(self: Writer, body: bytes) -> int:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(Writer, "add_body", full)
    done = add(archive_path, giant)
    assert done.outcomes == [FAILED] or done.outcomes == []
    assert done.report.stopped == "the disk is full"
    report = check(archive_path, verify_files=True)
    assert report.problems == []
    assert any("belong to no file" in note for note in report.notes)
    assert tree(archive_path) == {}

    monkeypatch.setattr(Writer, "add_body", add_body)
    stored = sum(path.stat().st_size for path in packs(archive_path))
    assert add(archive_path, giant).outcomes == [IMPORTED]
    assert sum(path.stat().st_size for path in packs(archive_path)) < stored * 1.2
    assert list(contents(archive_path).values()) == [giant]


def test_frames_longer_than_a_blob(archive_path: Path) -> None:
    """A frame of 40 MiB is cut at 16 MiB; a file of more than 64 MiB is mapped, not read."""
    profile = random.Random(1).randbytes(30 << 20)
    frame = make_instance(rows=4096, columns=5120)
    files = [frame, make_instance(rows=4096, columns=5120, number=2, attributes={"ICCProfile": profile})]
    assert len(files[0]) > 40 << 20
    assert len(files[1]) > 64 << 20
    assert add(archive_path, *files).outcomes == [IMPORTED, IMPORTED]
    with Archive.open(archive_path) as opened:
        for ino, content in zip(tree_of(opened).values(), files, strict=True):
            file = opened.open_instance(ino)
            assert max(len(file.read(offset, 1 << 25)) for offset in (0, 1 << 24)) == 1 << 25
            for offset in (0, (16 << 20) - 5, 40 << 20, len(content) - 10):
                assert bytes(file.read(offset, 100)) == content[offset : offset + 100]


def tree_of(opened: Archive) -> dict[str, int]:
    from tests.archive.importing import walk

    with opened.view() as view:
        return {path: shown.ino for path, shown in walk(view).items()}


# What directories and names of inputs may look like.


def test_names_that_are_no_text(archive_path: Path, tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"tab\tname", b"line\nname", b"back\\slash", "Größe 山".encode(), b"-rf", b" "]
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(make_instance(number=number + 1))
    done = run(archive_path, source)
    assert done.outcomes == [IMPORTED] * len(names)
    assert {os.fsencode(result.source).rpartition(b"/")[2] for result in done.results} == set(names)


def test_links(archive_path: Path, tmp_path: Path) -> None:
    """Links to files are followed, links to directories are not, and broken ones are told."""
    source = write(tmp_path / "source", {"file": make_instance(number=1)})
    elsewhere = write(tmp_path / "elsewhere", {"one": make_instance(number=2), "two": make_instance(number=3)})
    (source / "link").symlink_to(elsewhere / "one")
    (source / "directory").symlink_to(elsewhere)
    (source / "loop").symlink_to(source)
    (source / "broken").symlink_to(tmp_path / "nowhere")
    (source / "itself").symlink_to("itself")
    done = run(archive_path, source)
    told = done.by_name()
    assert told.pop("file") is told.pop("link") is IMPORTED
    assert set(told) == {"directory", "loop", "broken", "itself"}
    assert told == {"directory": SKIPPED, "loop": SKIPPED, "broken": FAILED, "itself": FAILED}
    reasons = {Path(result.source).name: result.reason for result in done.results}
    assert "directory" in reasons["directory"]
    assert "link" in reasons["directory"]
    # A directory that is named itself is entered, link or not.
    assert run(archive_path, source / "directory").outcomes == [PRESENT, IMPORTED]


def test_what_is_no_file(archive_path: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"file": make_instance()})
    os.mkfifo(source / "fifo")
    with socket.socket(socket.AF_UNIX) as listening, tempfile.TemporaryDirectory() as short:
        place = Path(short, "socket")
        listening.bind(str(place))
        place.rename(source / "socket")
        done = run(archive_path, source, source / "fifo", Path("/dev/null"), tmp_path / "missing")
    told = [(Path(result.source).name, result.outcome) for result in done.results]
    assert sorted(told) == sorted(
        [
            ("file", IMPORTED),
            ("fifo", SKIPPED),
            ("socket", SKIPPED),
            ("fifo", FAILED),
            ("null", FAILED),
            ("missing", FAILED),
        ]
    )
    assert all(result.reason for result in done.results if result.outcome is FAILED)
    assert not done.report.complete


def test_a_file_that_cannot_be_read(archive_path: Path, tmp_path: Path) -> None:
    """Even root gets an input/output error from this one; the run goes on."""
    source = write(tmp_path / "source", {"a": make_instance(number=1), "c": make_instance(number=2)})
    (source / "b").symlink_to("/proc/self/mem")
    done = run(archive_path, source)
    assert done.by_name() == {"a": IMPORTED, "b": FAILED, "c": IMPORTED}
    (failed,) = (result for result in done.results if result.outcome is FAILED)
    assert failed.reason.startswith("cannot be read: ")


def test_a_directory_without_permission(archive_path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = write(Path(place, "source"), {"a": b"x", "closed/b": b"x", "z": b"x"})
        source.parent.chmod(0o755)
        (source / "closed").chmod(0o000)
        refused: list[tuple[str, Outcome, str]] = []
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            found = [
                Path(one.path).name
                for one in inputs.find([source], archive_path, lambda *told: refused.append(told), recursive=True)
            ]
        finally:
            os.seteuid(user)
            (source / "closed").chmod(0o755)
    assert found == ["a", "z"]
    assert refused == [(str(source / "closed"), FAILED, "cannot be read: Permission denied")]


def test_a_source_that_vanishes_before_it_is_quarantined(archive_path: Path, tmp_path: Path) -> None:
    """The worker has read it; the copy is made later. The run goes on."""
    cut = make_instance()[:-700]
    source = write(tmp_path / "source", {"a": cut, "b": cut + b"x", "c": make_instance(number=3)})

    results: list[Outcome] = []

    def on_result(result: FileResult) -> None:
        (source / "b").unlink(missing_ok=True)
        results.append(result.outcome)

    report = import_paths(archive_path, [source], ImportOptions(jobs=1), on_result=on_result)
    assert results == [QUARANTINED, FAILED, IMPORTED]
    assert report.stopped == ""


def test_not_recursive(archive_path: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": make_instance(number=1), "below/b": make_instance(number=2)})
    assert run(archive_path, source, recursive=False).by_name() == {"a": IMPORTED}
    assert run(archive_path, source).by_name() == {"a": PRESENT, "b": IMPORTED}


@pytest.mark.parametrize("inside", ["", "packs", "quarantine/../packs"])
@pytest.mark.parametrize("position", [0, 1])
def test_the_archive_itself_is_refused(archive_path: Path, tmp_path: Path, inside: str, position: int) -> None:
    paths = [write(tmp_path / "source", {"a": make_instance()})]
    paths.insert(position, archive_path / inside)
    before = snapshot(archive_path)
    with pytest.raises(UsageError, match="inside the archive"):
        run(archive_path, *paths)
    assert snapshot(archive_path) == before


def test_the_archive_inside_a_source_is_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": make_instance()})
    archive = source / "archive"
    Archive.init(archive)
    assert run(archive, source).by_name() == {"a": IMPORTED}
    assert run(archive, source).by_name() == {"a": PRESENT}


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveMissing):
        run(tmp_path / "nowhere", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_import(archive_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(archive_path, tmp_path / "empty")
    assert done.results == []
    assert done.report.complete
    assert run(archive_path).results == []


def test_progress_ends_at_its_total(archive_path: Path, tmp_path: Path) -> None:
    source = many(tmp_path)
    seen: list[Progress] = []
    import_paths(archive_path, [source], ImportOptions(jobs=2), progress=seen.append)
    total = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    assert [one.files_done for one in seen] == list(range(1, 321))
    assert {(one.files_total, one.bytes_total) for one in seen} == {(320, total)}
    assert seen[-1].bytes_done == total


def test_a_commit_that_fails_takes_its_results_back(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told of as imported, or as present, that is not in the archive."""
    from dicomfs.errors import StorageFull
    from dicomfs.store.writer import Writer

    def full(self: Writer, *_: object) -> int:
        raise StorageFull("the disk is full")

    stored = make_instance(number=9)
    add(archive_path, stored)
    monkeypatch.setattr(Writer, "commit", full)
    one = make_instance(number=1)
    done = add(archive_path, one, b"text", one, stored, make_instance(number=1, seed="other"))
    assert done.report.stopped == "the disk is full"
    assert done.outcomes == [FAILED, SKIPPED, FAILED, PRESENT, FAILED]
    assert done.report.bytes_in == 0
    assert len(tree(archive_path)) == 1


def test_who_waits_for_the_lock(archive_path: Path, tmp_path: Path) -> None:
    from dicomfs.errors import Locked

    lock = WriterLock(archive_path / "lock", "a test")
    with pytest.raises(Locked, match="a test"):
        run(archive_path, tmp_path)
    # A dry run writes nothing, so it need not wait.
    assert add(archive_path, make_instance(), dry_run=True).outcomes == [IMPORTED]
    lock.release()


@pytest.mark.parametrize("on_conflict", ["keep", "skip", "error"])
def test_a_dry_run_foretells_the_import(archive_path: Path, tmp_path: Path, on_conflict: str) -> None:
    stored = make_instance(number=1)
    add(archive_path, stored, make_instance(number=2))
    other = make_instance(number=2, seed="other")
    files = [stored, other, other, make_instance(number=3), make_instance(number=3), make_instance(number=3, seed="x")]
    files += [make() for make, _ in KINDS.values()]
    source = write(tmp_path / "source", {f"{number:03d}": content for number, content in enumerate(files)})
    (source / "fifo").unlink(missing_ok=True)
    os.mkfifo(source / "fifo")
    before = snapshot(archive_path, but=("lock.mdb",))

    foretold = run(archive_path, source, dry_run=True, jobs=2, on_conflict=on_conflict)

    assert snapshot(archive_path, but=("lock.mdb",)) == before
    assert foretold.report.run_directory is None
    done = run(archive_path, source, jobs=2, on_conflict=on_conflict)
    assert by_source(foretold) == by_source(done)
    assert foretold.report.outcomes == done.report.outcomes
    assert foretold.report.bytes_in == done.report.bytes_in
    assert foretold.report.complete == done.report.complete


def by_source(done: Done) -> dict[str, tuple[Outcome, str, str]]:
    return {result.source: (result.outcome, result.reason, result.sha256) for result in done.results}


# What the catalog makes of real life.


def only_view(archive: Path, read: Callable[[View], object]) -> object:
    with Archive.open(archive) as opened, opened.view() as view:
        return read(view)


def test_missing_patient_id(archive_path: Path) -> None:
    """Then the study is the patient: two such studies are not mixed up."""
    add(
        archive_path,
        make_instance(study=1, attributes={"PatientID": None}),
        make_instance(study=1, number=2, attributes={"PatientID": ""}),
        make_instance(study=2, attributes={"PatientID": None}),
    )
    paths = list(tree(archive_path))
    assert len({path.partition("/")[0] for path in paths}) == 2
    assert all(path.startswith("NO-ID") for path in paths)
    assert only_view(archive_path, lambda view: view.totals().patients) == 2


def test_issuer_tells_patients_apart(archive_path: Path) -> None:
    for issuer in ("A", "B"):
        add(archive_path, make_instance(study=issuer, attributes={"IssuerOfPatientID": issuer}))
    assert only_view(archive_path, lambda view: view.totals().patients) == 2
    assert len({path.partition("/")[0] for path in tree(archive_path)}) == 2


def test_a_study_whose_files_disagree_on_patient_id(archive_path: Path) -> None:
    study = {"StudyInstanceUID": uid("one study")}
    add(
        archive_path,
        make_instance(patient="P1", attributes=study),
        make_instance(patient="P2", attributes=study),
        make_instance(patient="P1", number=2, attributes=study),
    )
    with Archive.open(archive_path) as opened, opened.view() as view:
        (found,) = view.studies()
        assert [view.patient(key).attributes["PatientID"] for key in found.patients] == ["P1", "P2"]
        assert found.patient == found.patients[0]
        for key in found.patients:
            assert [one.key for one in view.studies_of(key)] == [found.key]
        assert view.studies_where("PatientID", "P2") == {found.key}
        assert found.instances == 3
    assert len({path.partition("/")[0] for path in tree(archive_path)}) == 2


def test_instance_numbers_that_repeat(archive_path: Path) -> None:
    sops = [uid("repeat", number) for number in range(4)]
    add(archive_path, *(make_instance(attributes={"SOPInstanceUID": sop}) for sop in sops))
    names = [path.rpartition("/")[2] for path in tree(archive_path)]
    assert names[0] == "00001.dcm"
    assert all(name.startswith("00001~") and name.endswith(".dcm") for name in names[1:])
    assert len(set(names)) == 4


def test_a_series_with_two_transfer_syntaxes(archive_path: Path) -> None:
    files = [make_instance(number=1), make_instance(number=2, transfer_syntax=JPEG)]
    files.append(make_instance(number=3, transfer_syntax=BIG_ENDIAN))
    add(archive_path, *files)
    with Archive.open(archive_path) as opened, opened.view() as view:
        (series,) = (series for study in view.studies() for series in view.series_of(study.key))
        syntaxes = {view_instance.attributes["TransferSyntaxUID"] for view_instance in view.instances_of(series.key)}
    assert len(syntaxes) == 3
    assert sorted(contents(archive_path).values()) == sorted(files)


HOSTILE = {
    "up": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "control": "a\x01\x02\x1fb\x7f",
    "newline": "a\nb\rc\td",
    "dots": "..",
    "nothing but spaces": "     ",
    "device": "CON",
    "long": "x" * 5000,
    "long outside ASCII": "山" * 900,
    "wildcards": "a*b?c[d]",
    "bidi": "\u202egpj.exe",
    "zero width": "a\u200bb",
    "backslash": "a\\b\\..\\c",
    "percent": "%s%n{PatientID}",
    "colon": "a:b:$DATA",
    "emoji": "👩‍⚕️",
}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_hostile_values_are_only_characters(archive_path: Path) -> None:
    keywords = ("PatientID", "PatientName", "StudyDescription", "SeriesDescription", "StudyID")
    files = [make_instance(attributes=dict.fromkeys(keywords, value), patient=kind) for kind, value in HOSTILE.items()]
    assert add(archive_path, *files).outcomes == [IMPORTED] * len(files)
    shown = tree(archive_path)
    with Archive.open(archive_path) as opened, opened.view() as view:
        for path, file in shown.items():
            assert view.path(file.ino) == f"patients/{path}"
    for path in shown:
        parts = path.split("/")
        assert len(parts) == 4
        for part in parts:
            assert part not in ("", ".", "..")
            assert len(part.encode()) <= 120
            assert part.isprintable()
            assert not set(part) & set('\\:*?"<>|')
    assert sorted(file.sha256 for file in shown.values()) == sorted(map(sha256, files))
    assert_unique_names(archive_path)


def test_names_that_differ_in_case_alone(archive_path: Path) -> None:
    for patient, name in (("doe", "X"), ("DOE", "X"), ("Doe", "X")):
        add(archive_path, make_instance(patient=patient, patient_name=name))
    assert_unique_names(archive_path)
    assert len({path.partition("/")[0] for path in tree(archive_path)}) == 3


def test_names_that_differ_in_composition_alone(archive_path: Path) -> None:
    """Müller composed and decomposed are one name to macOS, and two PatientIDs to DICOM."""
    for patient in ("M\u00fcller", "Mu\u0308ller", "M\u00dcLLER"):
        add(archive_path, make_instance(patient=patient, patient_name="X"))
    assert_unique_names(archive_path)
    assert len({path.partition("/")[0] for path in tree(archive_path)}) == 3


def assert_unique_names(archive: Path) -> None:
    from dicomfs.archive.names import fold

    with Archive.open(archive) as opened, opened.view() as view:
        for ino in (2, *view.inodes(1023)):
            names = [fold(child[5].decode()) for child in children(view, ino)]
            assert len(names) == len(set(names))


@pytest.mark.parametrize("tag", [0x00100020, 0x00100010, 0x00081030, 0x0020000D, 0x00080018])
def test_a_value_that_is_all_nuls(archive_path: Path, tag: int) -> None:
    identity = EXPLICIT.identity()
    vr = {0x00100020: "LO", 0x00100010: "PN", 0x00081030: "LO"}.get(tag, "UI")
    nuls = EXPLICIT.element(tag, vr, bytes(8))
    if vr == "UI":
        content = part10(b"".join(part for part in _elements(identity) if part[:4] != nuls[:4]) + nuls)
        assert add(archive_path, content).outcomes == [QUARANTINED]
    else:
        content = part10(nuls + identity)
        assert add(archive_path, content).outcomes == [IMPORTED]
        assert list(contents(archive_path).values()) == [content]


def _elements(data: bytes) -> list[bytes]:
    """Cut explicit little endian elements of short lengths apart."""
    found = []
    while data:
        length = 8 + int.from_bytes(data[6:8], "little")
        found.append(data[:length])
        data = data[length:]
    return found


@pytest.mark.parametrize("length", [64, 65, 300, 5000])
def test_uids_that_are_too_long(archive_path: Path, length: int) -> None:
    long = ("1.2." + "3" * length)[:length]
    files = []
    for last in "45":
        sop = long[:-1] + last
        files.append(part10(EXPLICIT.identity(study=long, series=long, sop=sop)))
    assert add(archive_path, *files).outcomes == [IMPORTED, IMPORTED]
    assert len(tree(archive_path)) == 2
    with Archive.open(archive_path) as opened, opened.view() as view:
        for last in "45":
            assert len(view.instances_where_uid(long[:-1] + last)) == 1


def test_uids_that_are_no_uids(archive_path: Path) -> None:
    """Any text identifies, whatever bytes it is made of."""
    odd = ["../../x", "a b", "\xff\xfe\x80", "1.2.3\x01"]
    files = [part10(EXPLICIT.identity(sop=sop, series=sop, study=sop)) for sop in odd]
    done = add(archive_path, *files)
    assert set(done.outcomes) == {IMPORTED}
    assert sorted(contents(archive_path).values()) == sorted(files)
