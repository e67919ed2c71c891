"""`dicomfs edit`: what is said, asked and refused, and how it ends."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from tests.archive.editing_files import differs, files
from tests.archive.importing import add, tree
from tests.archive.test_changing import shown
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

STUDY = uid("DFS-1", 1)
SOP = uid("DFS-1", 1, 1, 1)


@pytest.fixture
def archive(archive_path: Path) -> Path:
    add(archive_path, *make_series(3), *make_series(2, study=2, modality="MR"))
    add(archive_path, *make_series(1, patient="DFS-2", patient_name="Roe^Mary"))
    return archive_path


def test_a_dry_run_shows_a_table_and_changes_nothing(archive: Path, run: Run) -> None:
    before = shown(archive)
    done = run("edit", "-a", archive, "--study-uid", STUDY, "--set", "PatientName=DOE^JOHN", "--dry-run")
    assert done.status == 0
    assert done.err.startswith("2 more of the same patient are not chosen")
    (row,) = [line for line in done.out.splitlines() if "PatientName" in line]
    assert row.split() == ["PatientName", "Doe^Jane", "DOE^JOHN", "3"]
    assert done.out.endswith("3 instances (nothing was changed)\n")
    assert shown(archive) == before


def test_what_was_done_is_told(archive: Path, run: Run) -> None:
    words = ("edit", "-a", archive, "--study-uid", STUDY, "--set", "StudyID=7", "--reason", "misspelt")
    done = run(*words)
    assert (done.status, done.err) == (0, "")
    seq = int(done.out.rpartition(" ")[2])
    told, undo = done.out.splitlines()
    assert told == f"3 instances: done, in commit {seq}"
    assert undo.endswith(f"dicomfs restore -a {archive} --undo {seq}")
    with Archive.open(archive) as opened, opened.view() as view:
        assert (view.event(seq).op, view.event(seq).reason) == ("edit", "misspelt")
    again = run(*words)
    assert (again.status, again.out) == (0, "nothing to change\n")
    told = json.loads(run(*words[:-2], "--empty", "AccessionNumber", "--json").out)
    assert (told["commit"], told["edited"], told["unchanged"], told["refused"]) == (seq + 1, 3, 0, [])
    told = json.loads(run("edit", "-a", archive, "--sop-uid", SOP, "--new-sop-uids", "--dry-run", "--json").out)
    assert [(line["attribute"], line["before"]) for line in told["changes"]] == [("SOPInstanceUID", SOP)]
    assert told["uids"][SOP] == told["changes"][0]["after"]


def test_every_operation(archive: Path, run: Run) -> None:
    """Each is one line for a person, and leaves what it does not name as it was."""
    series = uid("DFS-1", 1, 1)
    operations = [
        (("--sop-uid", SOP, "--empty", "ContentTime", "--remove", "SeriesDescription"), [0x00080033, 0x0008103E]),
        (("--where", "Modality=MR", "--set", "0010,0040=F"), [0x00100040]),
        (("--sop-uid", SOP, "--new-sop-uids", "2.25.1"), [0x00080018]),
        (("--series-uid", series, "--new-series-uid", "2.25.2"), [0x0020000E]),
        (("--study-uid", STUDY, "--new-study-uid=2.25.3"), [0x0020000D]),
        (("--sop-uid", "2.25.1", "--into-series", "2.25.4"), [0x0020000E]),
        (("--series-uid", "2.25.4", "--into-study", "2.25.5"), [0x0020000D]),
        (
            ("--study-uid", "2.25.5", "--move-to-patient", "DFS-2"),
            [0x00100020, 0x00100010],
        ),
        (("--patient-id", "DFS-1", "--move-to-patient", "DFS-2"), [0x00100020, 0x00100010, 0x00100040]),
        (("--series-uid", "2.25.4", "--into-series", "2.25.2"), [0x0020000D, 0x0020000E, 0x0008103E, 0x00080090]),
    ]
    for options, tags in operations:
        before = files(archive)
        done = run("edit", "-a", archive, *options)
        assert done.status == 0, done.err
        assert "done, in commit" in done.out
        edited = [file for ino, file in files(archive).items() if ino not in before]
        assert edited
        for file in edited:
            assert differs(before[file.replaced].data, file.data, tags) == set(), options
    assert {path.partition("/")[0] for path in tree(archive)} == {"DFS-2_Roe_Mary"}


def test_what_cannot_be_done_is_said(archive: Path, run: Run) -> None:
    cases = [
        (("--set", "PatientSex=F"), 2, "nothing is chosen"),
        (("--study-uid", STUDY), 2, "nothing is to be done"),
        (("--study-uid", STUDY, "--set", "PatientSexx=F"), 2, "PatientSexx"),
        (("--study-uid", STUDY, "--set", "PatientBirthDate=31.1.2026"), 2, "a date such as"),
        (("--study-uid", STUDY, "--set", "PatientSex=F", "--set", "PatientSex=M"), 2, "set twice"),
        (("--study-uid", STUDY, "--set", "PatientSex=F", "--empty", "PatientSex"), 2, "in two ways"),
        (("--study-uid", STUDY, "--set", "Rows=5"), 2, "pixel data"),
        (("--study-uid", STUDY, "--set", "SOPInstanceUID=1.2"), 2, "--new-sop-uids"),
        (("--study-uid", "1.2.3", "--set", "PatientSex=F"), 1, "nothing in the archive is what was chosen"),
        (("--study-uid", STUDY, "--move-to-patient", "NOBODY"), 1, "PatientBirthDate"),
        (("--study-uid", STUDY, "--new-study-uid", uid("DFS-1", 2)), 1, "--into-study"),
        (("--study-uid", STUDY, "--replace-with", "x.dcm", "--set", "PatientSex=F"), 2, "done alone"),
        (("--study-uid", STUDY, "--replace-with", "x.dcm"), 1, "cannot be read"),
        (("--study-uid", STUDY, "--replace-with", __file__), 2, "replaces one instance"),
        (("--study-uid", STUDY, "--set", "PatientSex=F", "--set-uids"), 2, "--replace-with"),
    ]  # fmt: skip
    before = shown(archive)
    for options, status, message in cases:
        done = run("edit", "-a", archive, *options)
        assert (done.status, message in done.err) == (status, True), (options, done.err)
        assert "Doe" not in done.err
        assert "NOBODY" not in done.err
    assert shown(archive) == before


def test_what_is_refused_is_listed(archive_path: Path, run: Run) -> None:
    bad = make_instance(number=2, attributes={"SpecificCharacterSet": "ISO_IR 100"})
    bad = bad.replace(b"ISO_IR 100", b"ISO_IR 6  ", 1).replace(b"dicomfs tests", b"dicomfs \xa5\xa5sts", 1)
    add(archive_path, make_instance(), bad)
    words = ("edit", "-a", archive_path, "--study-uid", STUDY, "--set", "PatientName=Дое^Джейн")
    done = run(*words)
    assert done.status == 1
    assert done.err.startswith(f"refused: {uid('DFS-1', 1, 1, 2)}: ")
    assert "nothing was changed; --skip-refused" in done.out
    done = run(*words, "--skip-refused")
    assert (done.status, done.out[:24]) == (1, "1 instance, 1 refused: d")
    assert run(*words, "--skip-refused").out == "nothing to change (1 as they are, 1 refused)\n"


def test_a_file_takes_the_place_of_an_instance(archive: Path, run: Run, tmp_path: Path) -> None:
    path = next(path for path, file in tree(archive).items() if path.endswith("00001.dcm") and "_CT_" in path)
    before = files(archive)
    repaired, other = tmp_path / "repaired.dcm", tmp_path / "other.dcm"
    repaired.write_bytes(make_instance(seed="repaired"))
    other.write_bytes(make_instance(patient="X", seed="other", frames=2, attributes={"PatientID": "DFS-1"}))
    words = ("edit", "-a", archive, "--sop-uid", SOP, "--reason", "blurred", "--replace-with")
    done = run(*words, repaired)
    assert (done.status, done.err) == (0, "")
    (new,) = [file for ino, file in files(archive).items() if ino not in before]
    assert new.data == repaired.read_bytes()
    assert new.path == path
    assert run(*words, repaired).out == "nothing to change\n"
    done = run(*words, other)
    assert done.status == 1
    assert "--set-uids" in done.err
    done = run(*words, other, "--set-uids")
    assert (done.status, done.err) == (0, "")
    (last,) = [file for file in files(archive).values() if file.replaced == new.ino]
    assert differs(other.read_bytes(), last.data, [0x00080018, 0x0020000D, 0x0020000E]) == set()
    assert last.data_set.SOPInstanceUID == SOP
    (tmp_path / "cut.dcm").write_bytes(repaired.read_bytes()[:-900])
    (tmp_path / "no.dcm").write_bytes(b"no DICOM at all")
    os.mkfifo(tmp_path / "pipe.dcm")
    for name in ("cut.dcm", "no.dcm", "none.dcm", "pipe.dcm"):
        for more in ((), ("--set-uids",)):
            done = run(*words, tmp_path / name, *more)
            assert done.status == 1
            assert name in done.err
    with Archive.open(archive) as opened, opened.view() as view:
        assert [event.op for event in view.events()][-2:] == ["edit", "edit"]


def test_a_file_of_another_patient_is_told_of(archive: Path, run: Run, tmp_path: Path) -> None:
    words = ("edit", "-a", archive, "--sop-uid", SOP, "--set-uids", "--replace-with")
    stranger = tmp_path / "stranger.dcm"
    stranger.write_bytes(make_instance(seed="stranger", attributes={"PatientID": "DFS-9"}))
    done = run(*words, stranger)
    assert done.status == 0
    assert done.err == f"{stranger}: is of another patient than the study, by its PatientID, and goes there\n"
    assert run("restore", "-a", archive, "--undo", done.out.rpartition(" ")[2].strip()).status == 0
    assert not check(archive, verify_files=True).problems
