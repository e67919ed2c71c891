"""Projects in an archive: what is in them, whatever is imported, replaced, stopped or rebuilt meanwhile."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import time
import warnings
from typing import TYPE_CHECKING

import pydicom
import pytest

from dicomfs.archive import derivers, project_keys, project_making, projects
from dicomfs.archive import tables as catalog_tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.check import check
from dicomfs.archive.layouts import switch_on
from dicomfs.archive.names import component, digest
from dicomfs.archive.query import Level, Query, matches
from dicomfs.archive.rebuild import reindex
from dicomfs.archive.tables import DERIVED, ROOT_PROJECTS
from dicomfs.errors import NotFound, UsageError
from dicomfs.store.index import Index
from dicomfs.store.store import TABLES
from tests.archive import hurtful_deriver as hurtful
from tests.archive.importing import add, packs, run, tables, tree
from tests.archive.project_scenes import CT, DEID, below, create, numbered, read, reasons
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

ORIGINAL = (b"DFS-1", b"Doe", b"Jane", b"20240131", b"Study 1", b"Series 1", uid("DFS-1", 1).encode())
PLACE = "DATE-20240131--CT--PID-DFS-1/SER-1"


def same_from_packs(archive: Path) -> None:
    """The index that the packs give is the one that is there."""
    index = tables(archive)
    shutil.rmtree(archive / "index")
    assert reindex(archive).complete
    assert tables(archive) == index


def instance_numbers(archive: Path, files: dict[str, int]) -> dict[str, int]:
    """Return the InstanceNumber of each file."""
    return {path: int(pydicom.dcmread(io.BytesIO(read(archive, ino))).InstanceNumber) for path, ino in files.items()}


def test_identified_members_are_the_instances_themselves(archive_path: Path) -> None:
    numbered(archive_path, 9, 3, 7)
    numbered(archive_path, 1, modality="MR", study=2)
    done = create(archive_path)
    assert (done.added, done.withheld) == (3, 0)
    state = done.state
    assert state.directory == f"PHI_own_{state.definition.timestamp}"
    assert len(state.definition.timestamp) == 14
    files = below(archive_path, state.root)
    assert files.keys() == {f"images/{PLACE}/{number}.dcm" for number in (1, 2, 3)}
    assert set(files.values()) < {file.ino for file in tree(archive_path).values()}
    assert list(instance_numbers(archive_path, dict(sorted(files.items()))).values()) == [3, 7, 9]
    assert not (archive_path / "projects").exists()
    same_from_packs(archive_path)


@pytest.mark.parametrize("codec", ["fast", "none"])
def test_derived_members_say_nothing_and_cost_their_headers(tmp_path: Path, codec: str) -> None:
    archive = tmp_path / "archive"
    Archive.init(archive, codec=codec)
    sources = [make_instance(number=number, rows=128, columns=128) for number in (3, 1, 2)]
    add(archive, *sources)
    before = sum(pack.stat().st_size for pack in packs(archive))
    done = create(archive, deid=DEID)
    assert (done.added, done.withheld) == (3, 0)
    files = below(archive, done.state.root)
    assert [path.rpartition("/")[2] for path in sorted(files)] == ["1.dcm", "2.dcm", "3.dcm"]
    for path, ino in files.items():
        content = read(archive, ino)
        for value in ORIGINAL:
            assert value not in content
            assert value.decode() not in f"{done.state.directory}/{path}"
        dataset = pydicom.dcmread(io.BytesIO(content))
        original = next(
            one
            for one in map(pydicom.dcmread, map(io.BytesIO, sources))
            if one.InstanceNumber == dataset.InstanceNumber
        )
        assert dataset.PixelData == original.PixelData
        with Archive.open(archive) as opened, opened.view() as view:
            inode = view.file_inode(ino)
            assert (inode.kind, inode.size) == (DERIVED, len(content))
            assert inode.body_length < 1000
            source = view.source_of(ino)
            assert source is not None
            assert opened.open_instance(source[0]).blob_ids() == opened.open_instance(ino).blob_ids()
    assert list(instance_numbers(archive, dict(sorted(files.items()))).values()) == [1, 2, 3]
    assert sum(pack.stat().st_size for pack in packs(archive)) - before < 16_000
    report = check(archive, verify_files=True)
    assert (report.problems, report.notes, report.instances, report.derived) == ([], [], 3, 3)
    same_from_packs(archive)


def test_nobody_else_meets_what_was_derived(archive_path: Path) -> None:
    numbered(archive_path, 1, 2)
    with Archive.open(archive_path) as opened, opened.view() as view:
        totals = view.totals()
    before = tables(archive_path)
    root = create(archive_path, deid=DEID).state.root
    after = tables(archive_path)
    for table in ("sop", "file", "find", "instance", "series", "study", "patient", "under", "hidden", "study_patient"):
        assert after[table] == before[table]
    with Archive.open(archive_path) as opened:
        assert len(list(matches(opened, Query(Level.INSTANCE)))) == 2
        with opened.view() as view:
            assert view.totals() == totals
            for member in view.members(root):
                with pytest.raises(NotFound):
                    view.instance(member.shown)
    numbered(archive_path, 1, 2)  # which are there already
    assert len(tree(archive_path)) == 2


@pytest.mark.parametrize("deid", ["", DEID])
def test_a_static_project_is_frozen_and_a_live_one_is_not(archive_path: Path, deid: str) -> None:
    numbered(archive_path, 1, 2)
    static = create(archive_path, "static", deid=deid).state.root
    live = create(archive_path, "live", deid=deid, live=True).state.root
    before = {root: below(archive_path, root) for root in (static, live)}
    contents = {ino: read(archive_path, ino) for files in before.values() for ino in files.values()}
    numbered(archive_path, 5, 4)
    numbered(archive_path, 1, modality="MR", study=2)
    assert below(archive_path, static) == before[static]
    now = below(archive_path, live)
    assert {path: now[path] for path in before[live]} == before[live]
    assert sorted(instance_numbers(archive_path, now).values()) == [1, 2, 4, 5]
    add(archive_path, make_instance(number=1, seed="new"), on_conflict="replace")
    assert below(archive_path, static) == before[static]
    now = below(archive_path, live)
    assert sorted(instance_numbers(archive_path, now).values()) == [1, 2, 4, 5]
    assert len(set(before[live].values()) - set(now.values())) == 1
    for ino, content in contents.items():
        assert read(archive_path, ino) == content
    same_from_packs(archive_path)
    # An earlier version that comes back is new to the live one, and nothing to the other.
    add(archive_path, make_instance(number=1), on_conflict="replace")
    assert below(archive_path, static) == before[static]
    assert sorted(instance_numbers(archive_path, below(archive_path, live)).values()) == [1, 2, 4, 5]
    same_from_packs(archive_path)


def test_suffixes_tell_nothing_of_what_was(archive_path: Path) -> None:
    """Whoever guesses a UID must not be able to see in a name whether he is right."""
    numbered(archive_path, 1, study=1)
    numbered(archive_path, 1, study=2)
    state = create(archive_path, deid=DEID).state
    first, second = sorted(path.split("/")[0] for path in below(archive_path, state.root))
    assert second.startswith(f"{first}~")
    layout = project_making.layout_of(state.definition)
    original, shown = [], []
    for ino in below(archive_path, state.root).values():
        dataset = pydicom.dcmread(io.BytesIO(read(archive_path, ino)))
        said = {
            key: str(getattr(dataset, key, "")) for key in ("StudyDate", "Modality", "PatientID", "StudyInstanceUID")
        }
        shown.append(digest(layout.identity(0, said)))
    for study in (1, 2):
        for value in ({"StudyDate": "20240131", "PatientID": "DFS-1"}, {}):
            said = {"Modality": "CT", "StudyInstanceUID": uid("DFS-1", study), **value}
            original += [digest(layout.identity(0, said)), digest(said["StudyInstanceUID"])]
    assert second.removeprefix(f"{first}~") in shown
    assert second.removeprefix(f"{first}~") not in original


def test_the_order_of_patients_is_not_that_of_their_names(archive_path: Path) -> None:
    for letter in "ABCDEFGHIJ":
        numbered(archive_path, 1, 2, patient=f"P-{letter}", patient_name=f"{letter}^X")
    root = create(archive_path, deid=DEID).state.root
    with Archive.open(archive_path) as opened, opened.view() as view:
        shown = {member.shown: member.source for member in view.members(root)}
    order = [shown[ino] for ino in sorted(shown)]
    assert order != sorted(order)
    # But the slices of a series lie together, and in order.
    assert [second - first for first, second in zip(order[::2], order[1::2], strict=True)] == [1] * 10


def test_what_is_withheld_is_in_quarantine(archive_path: Path) -> None:
    numbered(archive_path, 1, 2)
    add(archive_path, make_instance(number=3, attributes={"BurnedInAnnotation": "YES"}))
    add(archive_path, make_instance("SR", series=2, number=4, patient_name="Roe^Richard"))
    done = create(archive_path, where=(("PatientID", "DFS-1"),), deid=DEID)
    assert (done.added, done.withheld) == (2, 2)
    files = below(archive_path, done.state.root)
    kept = {path: ino for path, ino in files.items() if path.startswith("quarantine/")}
    assert kept.keys() == {"quarantine/1.dcm", "quarantine/2.dcm"}
    told = reasons(archive_path, done.state.root)
    assert told.keys() == set(kept.values())
    assert any("burned" in reason for reason in told.values())
    for reason in told.values():
        assert not any(value.decode() in reason for value in (*ORIGINAL, b"Roe"))
    with Archive.open(archive_path) as opened:
        assert [(one.instances, one.withheld) for one in projects.listed(opened)] == [(2, 2)]
    same_from_packs(archive_path)


def compressed(source: bytes) -> bytes:
    """Return the same instance with its frames as RLE."""
    dataset = pydicom.dcmread(io.BytesIO(source))
    dataset.compress("1.2.840.10008.1.2.5", encoding_plugin="pydicom", generate_instance_uid=False)
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


KINDS = {
    "deflated": {"transfer_syntax": "1.2.840.10008.1.2.1.99", "rows": 300, "columns": 301},
    "encapsulated": {"frames": 3},
    "implicit": {"transfer_syntax": "1.2.840.10008.1.2"},
    "big endian": {"transfer_syntax": "1.2.840.10008.1.2.2"},
    "frames": {"modality": "MR", "frames": 5, "rows": 200, "columns": 200},
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_the_same_in_every_encoding(archive_path: Path, kind: str) -> None:
    source = make_instance(**KINDS[kind])  # type: ignore[arg-type]
    if kind == "encapsulated":
        source = compressed(source)
    add(archive_path, source)
    done = create(archive_path, where=(("PatientID", "DFS-1"),), deid=DEID)
    if not done.added:
        pytest.fail(str(reasons(archive_path, done.state.root)))
    (ino,) = below(archive_path, done.state.root).values()
    made, original = pydicom.dcmread(io.BytesIO(read(archive_path, ino))), pydicom.dcmread(io.BytesIO(source))
    assert made.PatientName != original.PatientName
    if original.file_meta.TransferSyntaxUID.is_encapsulated:
        frames = [list(pydicom.encaps.generate_frames(one.PixelData, number_of_frames=3)) for one in (made, original)]
        assert frames[0] == frames[1]
    elif kind != "big endian":
        assert made.PixelData == original.PixelData
    same_from_packs(archive_path)


def test_what_an_import_kept_whole_is_derived_with_blobs_of_its_own(archive_path: Path) -> None:
    """Its parts are not those of the file it came from; they are kept once all the same."""
    source = make_instance(rows=400, columns=400, transfer_syntax="1.2.840.10008.1.2.1.99")
    add(archive_path, source)
    root = create(archive_path, deid=DEID).state.root
    (ino,) = below(archive_path, root).values()
    with Archive.open(archive_path) as opened:
        assert len(opened.open_instance(ino).blob_ids()) == 1
        assert opened.open_instance(ino).literal_length < 5000
    size = sum(pack.stat().st_size for pack in packs(archive_path))
    create(archive_path, "again", deid=DEID)
    assert sum(pack.stat().st_size for pack in packs(archive_path)) - size < 10_000


@pytest.mark.parametrize("deid", ["", DEID])
def test_it_goes_on_where_it_was_stopped(tmp_path: Path, deid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And names are those of one that was left alone."""
    monkeypatch.setattr(project_making, "COMMIT_LINKS", 3)
    monkeypatch.setattr(project_making, "BATCH", 2)
    whole, archive = tmp_path / "whole", tmp_path / "archive"
    Archive.init(whole)
    for series in (1, 2, 3):
        numbered(whole, 4, 1, 3, 2, series=series)
    numbered(whole, 9, attributes={"BurnedInAnnotation": "YES"})
    shutil.copytree(whole, archive)
    placed = 0

    def stopping(self: project_making._Adding, _done: object = project_making._Adding._done) -> None:
        nonlocal placed
        placed += 1
        if placed == 8:
            raise KeyboardInterrupt
        _done(self)  # type: ignore[operator]

    with monkeypatch.context() as context:
        context.setattr(project_making._Adding, "_done", stopping)
        with pytest.raises(KeyboardInterrupt):
            create(archive, deid=deid, jobs=2)
    with Archive.open(archive) as opened:
        (one,) = projects.listed(opened)
        assert one.state.through == 0
        assert 0 < one.instances + one.withheld < 13
    part = below(archive, one.state.root)
    assert [note for note in check(archive).notes if "project resume" in note] != []
    # An import does not finish it; the same command does.
    numbered(archive, 5, series=4)
    numbered(whole, 5, series=4)
    assert below(archive, one.state.root) == part
    done = create(archive, deid=deid)
    assert done.state.root == one.state.root
    assert done.added + done.withheld == 14 - len(part)
    files = below(archive, one.state.root)
    assert {path: files[path] for path in part} == part
    with Archive.open(archive) as opened:
        assert len(projects.listed(opened)) == 1
    assert check(archive, verify_files=True).notes == []
    assert check(archive, verify_files=True).problems == []
    same_from_packs(archive)
    expected = below(whole, create(whole, deid=deid).state.root)
    names = [path.rpartition("/")[2] for path in sorted(files)]
    assert names == [path.rpartition("/")[2] for path in sorted(expected)]
    if not deid:
        assert files.keys() == expected.keys()


def test_the_key_is_outside_the_packs_and_its_owners_alone(archive_path: Path) -> None:
    numbered(archive_path, 1)
    root = create(archive_path, deid=DEID).state.root
    where = project_keys.path(archive_path, root)
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    assert stat.S_IMODE(where.parent.stat().st_mode) == 0o700
    key = where.read_bytes()
    assert len(key) == 32
    assert not any(key in pack.read_bytes() for pack in packs(archive_path))
    other = create(archive_path, "other", deid=DEID).state.root
    assert project_keys.read(archive_path, other, "") != key
    assert sorted(os.listdir(where.parent)) == sorted(f"{one}.key" for one in (root, other))
    # A key that nobody knows of is put aside, and not lost.
    assert project_keys.make(archive_path, root) != key
    (old,) = where.parent.glob(".*.old")
    assert old.read_bytes() == key
    old.rename(where)


def test_without_its_key_a_live_project_waits(archive_path: Path) -> None:
    numbered(archive_path, 1)
    state = create(archive_path, deid=DEID, live=True).state
    where = project_keys.path(archive_path, state.root)
    key = where.read_bytes()
    where.unlink()
    files = below(archive_path, state.root)
    report = add(archive_path, make_instance(number=2)).report
    assert report.complete
    assert len(report.warnings) == 1
    assert "bring it back" in report.warnings[0]
    assert f"project resume {state.directory}" in report.warnings[0]
    assert below(archive_path, state.root) == files
    assert len(read(archive_path, next(iter(files.values())))) > 1000
    with pytest.raises(project_keys.KeyMissing, match="bring it back"):
        projects.resume(archive_path, state.directory)
    where.write_bytes(key)
    assert projects.resume(archive_path, "own", jobs=1).added == 1
    where.write_bytes(b"short")
    assert len(add(archive_path, make_instance(number=3)).report.warnings) == 1
    where.write_bytes(bytes(32))  # of which other pseudonyms and dates would follow
    with pytest.raises(project_keys.KeyMissing, match="is not the key"):
        projects.resume(archive_path, state.directory)
    assert len(add(archive_path, make_instance(number=4)).report.warnings) == 1


def test_pseudonyms_are_those_of_the_project(archive_path: Path) -> None:
    """The same in what comes later, others in another project."""
    numbered(archive_path, 1)
    live = create(archive_path, deid=DEID, live=True).state.root
    numbered(archive_path, 2, study=2)
    ids = [pydicom.dcmread(io.BytesIO(read(archive_path, ino))).PatientID for ino in below(archive_path, live).values()]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    other = create(archive_path, "other", deid=DEID).state.root
    (one, _) = below(archive_path, other).values()
    assert pydicom.dcmread(io.BytesIO(read(archive_path, one))).PatientID not in ids


def test_what_hurts_its_process_is_withheld(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        project_making, "Setting", lambda *given: derivers.Setting(*given, time_s=4.0, memory=256 << 20)
    )
    hurts = {
        hurtful.SLEEPS: "too long", hurtful.HOLDS_THE_LOCK: "too long", hurtful.ABORTS: "ends the process",
        hurtful.EATS: "too much memory", hurtful.RAISES: "unexpected ValueError", hurtful.LIES: "no DICOM file",
    }  # fmt: skip
    numbered(archive_path, 1, *hurts, 1000)
    done = create(archive_path, deid=DEID, module="tests.archive.hurtful_deriver")
    assert (done.added, done.withheld) == (2, len(hurts))
    told = list(reasons(archive_path, done.state.root).values())
    assert len(told) == len(hurts)
    for reason, expected in zip(told, hurts.values(), strict=True):
        assert expected in reason
        assert "Doe" not in reason
    same_from_packs(archive_path)


def test_two_of_one_second_have_a_directory_each(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(archive_path, 1)
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    first, second = create(archive_path).state, create(archive_path).state
    assert second.directory.startswith(f"{first.directory}~")
    with pytest.raises(UsageError, match="2 projects 'own'"):
        projects.remove(archive_path, "own")
    projects.remove(archive_path, second.directory.lower())
    assert {path.split("/")[0] for path in below(archive_path, ROOT_PROJECTS)} == {first.directory}
    assert projects.remove(archive_path, "OWN") == first
    assert below(archive_path, ROOT_PROJECTS) == {}
    with pytest.raises(UsageError, match="there is no project 'own'"):
        projects.remove(archive_path, "own")
    same_from_packs(archive_path)


def test_a_key_is_kept_unless_it_is_to_be_forgotten(archive_path: Path) -> None:
    numbered(archive_path, 1)
    first, second = (create(archive_path, name, deid=DEID).state for name in ("a", "b"))
    projects.remove(archive_path, "a")
    projects.remove(archive_path, "b", forget_key=True)
    assert project_keys.path(archive_path, first.root).exists()
    assert not project_keys.path(archive_path, second.root).exists()
    assert numbered(archive_path, 2) is None
    same_from_packs(archive_path)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "ü", "-a", "x" * 65, "a\n", "=1"])
def test_names_that_no_project_has(archive_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a project"):
        create(archive_path, name)


def test_mistakes_change_nothing(archive_path: Path) -> None:
    numbered(archive_path, 1)
    index = tables(archive_path)
    with pytest.raises(UsageError, match="begins with 'basic'"):
        create(archive_path, deid="nonsense")
    with pytest.raises(UsageError, match="DICOM keyword"):
        create(archive_path, where=(("Nonsense", "x"),))
    with pytest.raises(UsageError, match="give one"):
        create(archive_path, where=())
    assert tables(archive_path) == index
    assert not (archive_path / "projects").exists()


@pytest.mark.damaged
def test_a_derived_file_that_is_not_what_was_made_is_found(archive_path: Path) -> None:
    numbered(archive_path, 1)
    root = create(archive_path, deid=DEID).state.root
    (ino,) = below(archive_path, root).values()
    index = Index(archive_path / "index", (*TABLES, *catalog_tables.TABLES), writable=True)
    txn = index.begin(write=True)
    key = catalog_tables.U64.pack(ino)
    value = txn.get(key, db=index.tables["inode"])
    assert value is not None
    inode = catalog_tables.InstanceInode.parse(value)._replace(sha256=bytes(32))
    name = value[catalog_tables.INSTANCE_INODE.size :]
    txn.put(key, catalog_tables.INSTANCE_INODE.pack(*inode) + name, db=index.tables["inode"])
    txn.commit()
    index.close()
    for verify_files in (False, True):
        report = check(archive_path, verify_files=verify_files)
        (problem,) = (one for one in report.problems if one.kind == "derived")
        assert problem.what == "its header is not the one that was made (SHA-256)"
        assert problem.where == f"file derived from instance {uid('DFS-1', 1, 1, 1)} (inode {ino})"
    reindex(archive_path)
    assert check(archive_path, verify_files=True).problems == []


def test_of_two_of_one_name_the_unfinished_is_gone_on_with(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(archive_path, 1, 2)
    create(archive_path)
    with monkeypatch.context() as context:
        context.setattr(project_making.Making, "go_on", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            create(archive_path)
    assert projects.resume(archive_path, "own").added == 2
    with pytest.raises(UsageError, match="2 projects"):
        projects.resume(archive_path, "own")


def test_a_preview_is_what_comes(archive_path: Path) -> None:
    numbered(archive_path, 1, 2)
    numbered(archive_path, 1, study=2)
    index = tables(archive_path)
    with Archive.open(archive_path) as opened:
        found = projects.preview(opened, projects.Wanted(name="own", where=CT))
    assert (found.instances, found.studies, len(found.series)) == (3, 2, 2)
    assert tables(archive_path) == index
    assert create(archive_path).added == 3


def test_a_project_says_when_it_last_changed(archive_path: Path) -> None:
    """Its tables are made anew only then, which takes minutes for a large one."""
    numbered(archive_path, 1)

    def stamp(root: int) -> tuple[int, int]:
        with Archive.open(archive_path) as opened, opened.view() as view:
            state = view.project(root)
        return state.through, state.changed

    root = create(archive_path, where=(("Modality", "CT"),), live=True).state.root
    made = stamp(root)
    numbered(archive_path, 1, modality="MR", study=2)
    through, changed = stamp(root)
    assert through > made[0]
    assert changed == made[1]
    numbered(archive_path, 2)
    assert stamp(root)[1] > changed
    changed = stamp(root)[1]
    add(archive_path, make_instance(number=1, seed="new"), on_conflict="replace")
    assert stamp(root)[1] > changed
    same_from_packs(archive_path)


def test_conditions_on_headers_are_asked_of_what_is_new(archive_path: Path) -> None:
    numbered(archive_path, 1, attributes={"KVP": "120"})
    numbered(archive_path, 2, attributes={"KVP": "80"})
    root = create(archive_path, where=(("KVP", "120"),), live=True).state.root
    assert len(below(archive_path, root)) == 1
    numbered(archive_path, 3, attributes={"KVP": "120"})
    numbered(archive_path, 4, attributes={"KVP": "80"})
    assert sorted(instance_numbers(archive_path, below(archive_path, root)).values()) == [1, 3]


@pytest.mark.damaged
@pytest.mark.parametrize("deid", ["", DEID])
@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_what_a_lost_pack_took_is_gone_and_the_rest_is_there(archive_path: Path, lost: int, deid: str) -> None:
    numbered(archive_path, 1, 2)
    live = create(archive_path, deid=deid, live=True).state.root
    numbered(archive_path, 3, 4)
    numbered(archive_path, 5, series=2)
    assert len(packs(archive_path)) == 4
    packs(archive_path)[lost].unlink()
    reindex(archive_path)
    numbered(archive_path, 7)
    left = below(archive_path, live) if lost != 1 else {}
    assert len(left) == {0: 4, 1: 0, 2: 4, 3: 5}[lost]
    index = tables(archive_path)
    shutil.rmtree(archive_path / "index")
    reindex(archive_path)
    assert {name: tables(archive_path)[name] for name in ("member", "source", "project", "link")} == {
        name: index[name] for name in ("member", "source", "project", "link")
    }
    known = ("instance", "derived", "pack")
    assert [problem for problem in check(archive_path).problems if problem.kind not in known] == []


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_packs_give_the_same_index(
    archive_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_making, "COMMIT_LINKS", 3)
    chance = random.Random(seed)
    switch_on(archive_path, "icore", built_in()["icore"])
    frozen: dict[int, dict[str, int]] = {}

    def bring(on_conflict: str) -> None:
        versions = [
            make_instance(
                chance.choice(["CT", "MR"]), number=chance.randrange(5), series=chance.randrange(2),
                study=chance.randrange(2), seed=str(chance.random()),
                attributes=chance.choice([None, {"BurnedInAnnotation": "YES"}]),
            )
            for _ in range(4)
        ]  # fmt: skip
        add(archive_path, *versions, on_conflict=on_conflict)

    for number in range(9):
        what = chance.choice(["keep", "replace", "static", "live", "remove", "reindex"]) if number else "keep"
        if what in ("keep", "replace"):
            bring(what)
        elif what == "remove" and frozen:
            root = chance.choice(list(frozen))
            with Archive.open(archive_path) as opened, opened.view() as view:
                directory = view.project(root).directory
            projects.remove(archive_path, directory)
            del frozen[root]
        elif what == "reindex":
            same_from_packs(archive_path)
        elif what in ("static", "live"):
            made = create(archive_path, f"p{number}", deid=chance.choice(["", DEID]), live=what == "live")
            if what == "static":
                frozen[made.state.root] = below(archive_path, made.state.root)
        for root, files in frozen.items():
            assert below(archive_path, root) == files
    same_from_packs(archive_path)


HOSTILE = ["../../etc", "..", "a/b\\c", "CON", "=cmd|'/c calc'!A1", "\x1b[2J", "a\u202eb", "x" * 10_000, "{n}", "%s"]


@pytest.mark.parametrize("deid", ["", "basic,clean-descriptors,retain-patient-characteristics"])
def test_hostile_values_make_legal_names(archive_path: Path, deid: str) -> None:
    for number, value in enumerate(HOSTILE):
        told = {"PatientID": value, "PatientName": value, "StudyDescription": value, "SeriesDescription": value}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom says what is wrong with them
            add(archive_path, make_instance(number=number, study=number, attributes=told))
    files = below(archive_path, create(archive_path, deid=deid).state.root)
    assert len(files) == len(HOSTILE)
    for path in files:
        for part in path.split("/"):
            assert component(part) == part
            assert len(part.encode()) <= 120
    same_from_packs(archive_path)


@pytest.mark.corpus
def test_the_corpus_in_two_projects(archive_path: Path, corpus: Path) -> None:
    run(archive_path, corpus, jobs=2)
    everything = (("SOPInstanceUID", "*"),)
    identified = create(archive_path, "all", everything)
    size = sum(pack.stat().st_size for pack in packs(archive_path))
    derived = create(archive_path, "all", everything, deid=DEID, jobs=2)
    expected = {file.ino for file in tree(archive_path).values()}
    assert set(below(archive_path, identified.state.root).values()) == expected
    with Archive.open(archive_path) as opened, opened.view() as view:
        assert {member.source for member in view.members(derived.state.root)} == expected
    assert derived.added > 400
    # Most series here have one file, which has nothing to be compressed against.
    assert sum(pack.stat().st_size for pack in packs(archive_path)) - size < 2000 * derived.added
    same_from_packs(archive_path)
