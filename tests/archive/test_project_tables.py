"""The tables of projects: what they say, who may see it, and that they are made once and whole."""

from __future__ import annotations

import csv
import json
import os
import warnings
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

import openpyxl
import pytest

from dicomfs.archive import project_rows, projects
from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.makers import Makers
from dicomfs.archive.project_definition import Definition
from dicomfs.archive.project_lists import read_queries, stored
from dicomfs.archive.project_tables import (
    DEID_METADATA,
    FAILED_QUERIES,
    HEADER_EXTRACTION,
    LINKER,
    METADATA,
    RUN,
    files_of,
    forget,
    made,
    make,
)
from dicomfs.archive.projects import Wanted
from dicomfs.archive.values import values_of
from dicomfs.errors import NotFound, StorageFull
from tests.archive.importing import add, run, tree
from tests.archive.projecting import commit
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

HEADERS = ("PatientID", "StudyDescription", "Rows", "0008,0060", "SOPInstanceUID", "WindowCenter")
PHI = Definition(
    "own", "2024-05-01T10:00:00Z", "20240501-100000", (("PatientID", "DFS-*"),), live=True, headers=HEADERS
)
DEID = PHI._replace(
    live=False,
    deid="basic",
    source="Doe list.csv",
    queries=(("A1", "", "", ""), ("SECRET-7", "", "", "")),
    failed=((3, "SECRET-7\t\t", "no study with this accession number"), (4, "\t=4711\t2024-01-31", "no date")),
)
IDENTIFIED = ("DFS-1", "DFS-2", "Doe^Jane", "Roe^Anna", "20240131", "19700101", "Study 1", "SECRET", "4711", "Doe list")


class Made(NamedTuple):
    """A project in an archive, and a cache beside it."""

    archive: Path
    cache: Path
    root: int

    def path(self, kind: int) -> Path:
        """Make a file, if it is not made."""
        with Archive.open(self.archive) as opened:
            make(opened, self.cache, (self.root, kind))
            with opened.view() as view:
                path = made(self.cache, view.project(self.root), kind)
        assert path is not None
        return path

    def rows(self, kind: int, sheet: str) -> list[dict[str, str]]:
        """Return the rows of a sheet by its columns; every cell is text."""
        header, *rows = openpyxl.load_workbook(self.path(kind))[sheet].iter_rows(values_only=True)
        assert all(value is None or isinstance(value, str) for row in rows for value in row)
        return [{str(key): str(value or "") for key, value in zip(header, row, strict=True)} for row in rows]

    def project(self) -> list[tuple[str, str]]:
        """Return what metadata.xlsx says of the project."""
        return [(row["Attribute"], row["Value"]) for row in self.rows(METADATA, "Project")]


def numbers(archive: Path) -> list[int]:
    return sorted(file.ino for file in tree(archive).values())


def anonymous(patient: int, study: int, series: int, number: int) -> bytes:
    """Return what a file of this kind becomes: three days earlier, another patient, other UIDs."""
    attributes = {
        "StudyDate": "20240128", "PatientBirthDate": "", "StudyDescription": "", "AccessionNumber": f"X{study}",
        "StudyID": "", "SeriesInstanceUID": uid("new", patient, study, series),
    }  # fmt: skip
    return make_instance(
        patient=f"ANON-{9 - patient}", patient_name="Anonymous", study=study, series=series, number=number,
        attributes=attributes,
    )  # fmt: skip


@pytest.fixture
def filled(archive_path: Path, tmp_path: Path) -> Made:
    """Two patients, three series of four instances in all."""
    add(
        archive_path,
        make_instance(number=2),
        make_instance(number=1),
        make_instance(series=2, frames=2),
        make_instance(patient="DFS-2", patient_name="Roe^Anna"),
    )
    cache = tmp_path / "cache"
    cache.mkdir()
    return Made(archive_path, cache, 0)


@pytest.fixture
def phi(filled: Made) -> Made:
    return filled._replace(root=commit(filled.archive, PHI, dict.fromkeys(numbers(filled.archive))))


@pytest.fixture
def deid(filled: Made) -> Made:
    """The same, of which one instance of the first series is withheld."""
    first, second, third, fourth = numbers(filled.archive)
    members = {
        first: "it may show burned-in text",
        second: anonymous(1, 1, 1, 1),
        third: anonymous(1, 1, 2, 1),
        fourth: anonymous(2, 1, 1, 1),
    }
    return filled._replace(root=commit(filled.archive, DEID, members))


def names(made: Made) -> dict[str, bool]:
    """Return the files of a project, and whether each is private."""
    with Archive.open(made.archive) as opened, opened.view() as view:
        return {file.name: file.private for file in files_of(view.project(made.root))}


def test_which_files_there_are_and_whose(phi: Made) -> None:
    assert names(phi) == {"header_extraction.xlsx": False, "metadata.xlsx": False, "run.txt": False}
    deid = phi._replace(root=commit(phi.archive, DEID, {}))
    assert names(deid) == {
        "deid_metadata.xlsx": False,
        "failed_queries.csv": True,
        "header_extraction.xlsx": False,
        "linker.xlsx": True,
        "metadata.xlsx": True,
        "run.txt": False,
    }
    plain = phi._replace(root=commit(phi.archive, PHI._replace(headers=(), timestamp="later"), {}))
    assert list(names(plain)) == ["metadata.xlsx", "run.txt"]
    begun = phi._replace(root=commit(phi.archive, PHI._replace(timestamp="begun"), {}, placed=False))
    assert names(begun) == {}


def test_metadata_has_a_row_for_each_series(phi: Made) -> None:
    rows = phi.rows(METADATA, "Series")
    assert [(row["PatientID"], row["SeriesNumber"], row["Instances"]) for row in rows] == [
        ("DFS-1", "1", "2"), ("DFS-1", "2", "1"), ("DFS-2", "1", "1")
    ]  # fmt: skip
    first = rows[0]
    assert first["PatientName"] == "Doe^Jane"
    assert first["StudyDate"] == "20240131"
    assert first["StudyInstanceUID"] == uid("DFS-1", 1)
    assert first["SeriesDescription"] == "Series 1"
    assert first["Rows"] == "64"
    assert first["ManufacturerModelName"] == ""
    assert int(first["Bytes"]) == sum(len(make_instance(number=number)) for number in (1, 2))
    assert "Withheld" not in first
    assert ("condition", "PatientID=DFS-*") in phi.project()
    assert ("goes on", "with each import") in phi.project()


def test_metadata_before_and_after(deid: Made) -> None:
    before, after = deid.rows(METADATA, "Series"), deid.rows(DEID_METADATA, "Series")
    assert [(row["PatientID"], row["SeriesNumber"], row["Instances"], row["Withheld"]) for row in before] == [
        ("DFS-1", "1", "1", "1"), ("DFS-1", "2", "1", "0"), ("DFS-2", "1", "1", "0")
    ]  # fmt: skip
    assert [column for column in before[0] if column != "Withheld"] == list(after[0])
    # In the order of what it says itself.
    assert [(row["PatientID"], row["SeriesNumber"], row["Instances"]) for row in after] == [
        ("ANON-7", "1", "1"), ("ANON-8", "1", "1"), ("ANON-8", "2", "1")
    ]  # fmt: skip
    assert {row["PatientName"] for row in after} == {"Anonymous"}
    assert deid.project()[5:11] == [
        ("profile", "basic"), ("condition", "PatientID=DFS-*"), ("list", "Doe list.csv"), ("rows of the list", "2"),
        ("found nothing", "2"), ("header", "PatientID"),
    ]  # fmt: skip


def test_the_linker_says_what_became_what(deid: Made) -> None:
    patients = deid.rows(LINKER, "Patients")
    columns = ("PatientID", "PatientName", "New-PatientID", "New-PatientName")
    assert [tuple(row[column] for column in columns) for row in patients] == [
        ("DFS-1", "Doe^Jane", "ANON-8", "Anonymous"), ("DFS-2", "Roe^Anna", "ANON-7", "Anonymous")
    ]  # fmt: skip
    studies = deid.rows(LINKER, "Studies")
    assert [(row["StudyInstanceUID"], row["New-StudyInstanceUID"]) for row in studies] == [
        (uid("DFS-1", 1), uid("ANON-8", 1)), (uid("DFS-2", 1), uid("ANON-7", 1))
    ]  # fmt: skip
    assert {(row["StudyDate"], row["New-StudyDate"], row["StudyDateShiftDays"]) for row in studies} == {
        ("20240131", "20240128", "-3")
    }
    assert [(row["AccessionNumber"], row["New-AccessionNumber"]) for row in studies] == [("A1", "X1")] * 2
    series = deid.rows(LINKER, "Series")
    assert [(row["SeriesInstanceUID"], row["New-SeriesInstanceUID"]) for row in series] == [
        (uid("DFS-1", 1, 1), uid("new", 1, 1, 1)),
        (uid("DFS-1", 1, 2), uid("new", 1, 1, 2)),
        (uid("DFS-2", 1, 1), uid("new", 2, 1, 1)),
    ]
    instances = deid.rows(LINKER, "Instances")
    expected = [
        (uid("DFS-1", 1, 1, 2), "", "quarantine/1.dcm", "it may show burned-in text"),
        (uid("DFS-1", 1, 1, 1), uid("ANON-8", 1, 1, 1), "images/2.dcm", ""),
        (uid("DFS-1", 1, 2, 1), uid("ANON-8", 1, 2, 1), "images/3.dcm", ""),
        (uid("DFS-2", 1, 1, 1), uid("ANON-7", 1, 1, 1), "images/4.dcm", ""),
    ]
    columns = ("SOPInstanceUID", "New-SOPInstanceUID", "Path", "Withheld")
    assert [tuple(row[column] for column in columns) for row in instances] == expected


def test_of_what_is_withheld_nothing_became_anything(filled: Made) -> None:
    members = dict.fromkeys(numbers(filled.archive), "no")
    deid = filled._replace(root=commit(filled.archive, DEID, members))
    assert {row["New-PatientID"] for row in deid.rows(LINKER, "Patients")} == {""}
    assert {row["StudyDateShiftDays"] for row in deid.rows(LINKER, "Studies")} == {""}
    assert len(deid.rows(LINKER, "Instances")) == 4
    assert deid.rows(DEID_METADATA, "Series") == []
    assert [row["Withheld"] for row in deid.rows(METADATA, "Series")] == ["2", "1", "1"]
    assert deid.rows(HEADER_EXTRACTION, "Instances") == deid.rows(HEADER_EXTRACTION, "Studies") == []


def test_header_extraction_of_instances_and_studies(phi: Made) -> None:
    instances = phi.rows(HEADER_EXTRACTION, "Instances")
    assert list(instances[0]) == [
        "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "StudyDescription", "Rows", "0008,0060",
        "WindowCenter", "Path",
    ]  # fmt: skip
    assert [(row["SOPInstanceUID"], row["0008,0060"], row["Path"]) for row in instances][1:3] == [
        (uid("DFS-1", 1, 1, 1), "CT", "images/2.dcm"), (uid("DFS-1", 1, 2, 1), "CT", "images/3.dcm")
    ]  # fmt: skip
    studies = phi.rows(HEADER_EXTRACTION, "Studies")
    assert [(row["StudyInstanceUID"], row["PatientID"], row["WindowCenter"]) for row in studies] == [
        (uid("DFS-1", 1), "DFS-1", ""), (uid("DFS-2", 1), "DFS-2", "")
    ]  # fmt: skip


def test_different_values_of_a_study_are_a_list(filled: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_rows, "MOST_VALUES", 2)
    add(filled.archive, *(make_instance(number=number, attributes={"KVP": number}) for number in range(3, 8)))
    definition = PHI._replace(headers=("InstanceNumber", "SeriesDescription", "KVP"))
    phi = filled._replace(root=commit(filled.archive, definition, dict.fromkeys(numbers(filled.archive))))
    first, second = phi.rows(HEADER_EXTRACTION, "Studies")
    assert json.loads(first["SeriesDescription"]) == ["Series 1", "Series 2"]
    assert json.loads(first["KVP"]) == ["3.0", "4.0", "…"]
    assert (second["InstanceNumber"], second["KVP"]) == ("1", "")


def test_failed_queries(deid: Made) -> None:
    with deid.path(FAILED_QUERIES).open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file)) == [
            ["Row", "Accession Number", "MRN", "Date", "Failure Reason"],
            ["3", "SECRET-7", "", "", "no study with this accession number"],
            ["4", "", "'=4711", "2024-01-31", "no date"],
        ]


def test_the_rows_of_a_live_list_that_failed_are_those_of_its_beginning(filled: Made) -> None:
    live = DEID._replace(live=True, deid="", failed=((9, "", "neither an accession number nor a patient ID"),))
    made = filled._replace(root=commit(filled.archive, live, {}))
    found = [pair for pair in made.project() if pair[0] in ("rows of the list", "found nothing")]
    assert found == [("rows of the list", "3"), ("found nothing", "1 when the project was made")]


def test_run_txt_of_identified_instances(phi: Made) -> None:
    lines = phi.path(RUN).read_text().splitlines()
    size = sum(file.size for file in tree(phi.archive).values())
    assert [line.split(None, 1) for line in lines if not line.startswith("header ")] == [
        ["project", "PHI_own_20240501-100000"], ["name", "own"], ["timestamp", "20240501-100000"],
        ["created", "2024-05-01T10:00:00Z"], ["goes", "on              with each import"],
        ["profile", "none: identified"], ["condition", "PatientID=DFS-*"], ["dicomfs", "0.1.0"], ["patients", "2"],
        ["studies", "2"], ["series", "3"], ["instances", "4"], ["bytes", f"{size}"],
        ["file", "header_extraction.xlsx"], ["file", "metadata.xlsx"], ["file", "run.txt"],
    ]  # fmt: skip


def test_what_everybody_may_see_of_a_de_identified_project_tells_of_nobody(deid: Made) -> None:
    lines = deid.path(RUN).read_text().splitlines()
    assert "condition            PatientID" in lines
    assert "list                 yes" in lines
    assert "instances            3" in lines
    assert "withheld             1" in lines
    assert "                     1 it may show burned-in text" in lines
    assert "file                 linker.xlsx (private)" in lines
    public_tell_of_nobody(deid)


def public_tell_of_nobody(made: Made) -> None:
    """The files that are not private hold nothing that the instances said."""
    with Archive.open(made.archive) as opened, opened.view() as view:
        public = [file for file in files_of(view.project(made.root)) if not file.private]
    assert len(public) == 3
    for file in public:
        path = made.path(file.kind)
        told = text_of_workbook(path) if file.name.endswith(".xlsx") else path.read_text()
        found = {value for value in (*IDENTIFIED, uid("DFS-1", 1), uid("DFS-1", 1, 1, 1), "A1") if value in told}
        assert found == set(), file.name


def text_of_workbook(path: Path) -> str:
    book = openpyxl.load_workbook(path)
    return "\n".join(str(value) for sheet in book for row in sheet.iter_rows(values_only=True) for value in row)


def test_files_are_made_once_whole_and_for_their_owner(deid: Made) -> None:
    for kind in (METADATA, DEID_METADATA, LINKER, HEADER_EXTRACTION, FAILED_QUERIES, RUN):
        path = deid.path(kind)
        assert path.stat().st_mode & 0o777 == 0o600
        content, status = path.read_bytes(), path.stat()
        assert deid.path(kind).stat().st_ino == status.st_ino
        path.unlink()
        assert deid.path(kind).read_bytes() == content
    assert (deid.cache / "projects").stat().st_mode & 0o777 == 0o700
    assert len(list((deid.cache / "projects").iterdir())) == 6
    forget(deid.cache, deid.root // 10)
    assert len(list((deid.cache / "projects").iterdir())) == 6
    forget(deid.cache, deid.root)
    assert list((deid.cache / "projects").iterdir()) == []


def test_a_project_that_goes_on_gets_new_files(phi: Made) -> None:
    old = {kind: phi.path(kind) for kind in (METADATA, RUN)}
    with Archive.open(phi.archive) as opened, opened.view() as view:
        state = view.project(phi.root)
    later = state._replace(changed=state.changed + 7)
    assert made(phi.cache, state, METADATA) == old[METADATA]
    assert made(phi.cache, later, METADATA) is None
    stale = old[METADATA].rename(old[METADATA].with_name(old[METADATA].name.replace(f"-{state.changed}-", "-1024-")))
    new = phi.path(METADATA)
    assert new == old[METADATA]
    assert not stale.exists()
    assert old[RUN].exists()


def test_what_is_asked_for_in_vain(phi: Made) -> None:
    with Archive.open(phi.archive) as opened:
        for args in ((phi.root, LINKER), (phi.root, 99), (phi.root + 1, METADATA)):
            with pytest.raises(NotFound):
                make(opened, phi.cache, args)
    assert not list(phi.cache.rglob("*"))


def test_what_was_left_by_who_was_killed_is_removed(phi: Made) -> None:
    directory = phi.cache / "projects"
    for name in (".old", ".new"):
        (directory / name).mkdir(parents=True)
        (directory / name / "rows").write_text("Doe^Jane")
    os.utime(directory / ".old", (0, 0))
    phi.path(METADATA)
    assert sorted(path.name for path in directory.iterdir() if path.is_dir()) == [".new"]


def test_a_full_disk_is_told_and_nothing_is_left(phi: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(project_rows, "series_by_source", full)
    with Archive.open(phi.archive) as opened, pytest.raises(StorageFull, match="No space left on device"):
        make(opened, phi.cache, (phi.root, METADATA))
    assert list((phi.cache / "projects").iterdir()) == []


def test_processes_make_them(deid: Made) -> None:
    makers = Makers(deid.archive, deid.cache, 1)
    try:
        makers.make(("project_table", (deid.root, LINKER)))
        with pytest.raises(NotFound):
            makers.make(("project_table", (deid.root, 99)))
    finally:
        makers.close()
    (path,) = (deid.cache / "projects").iterdir()
    content = path.read_bytes()
    path.unlink()
    assert deid.path(LINKER).read_bytes() == content


HOSTILE = ["=1+1", "<r><t>x</t></r>", "a\x1b[2J", "x" * 10_000, "山^=太郎", "\\", "@x", "Doe^\u202eJane"]


def test_hostile_values_are_text(filled: Made) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says what is wrong with them
        for number, value in enumerate(HOSTILE):
            told = dict.fromkeys(("PatientID", "PatientName", "StudyDescription", "SeriesDescription"), value)
            add(filled.archive, make_instance(number=number, study=number, series=number, attributes=told))
    definition = PHI._replace(headers=("StudyDescription", "PatientName"), where=(("PatientID", "=1\r\n2"),))
    phi = filled._replace(root=commit(filled.archive, definition, dict.fromkeys(numbers(filled.archive))))
    rows = phi.rows(METADATA, "Series")
    assert len(rows) == 3 + len(HOSTILE)
    assert {row["SeriesDescription"] for row in rows} > {"=1+1", " <r><t>x</t></r>", "x" * 10_000, "@x"}
    assert len(phi.rows(HEADER_EXTRACTION, "Instances")) == 4 + len(HOSTILE)
    assert "condition            PatientID==1\\r\\n2\n" in phi.path(RUN).read_text()


def test_a_series_of_two_patients_is_two(filled: Made) -> None:
    add(filled.archive, *(make_instance(number=number, attributes={"PatientID": "B"}) for number in (8, 9)))
    phi = filled._replace(root=commit(filled.archive, PHI._replace(live=False), dict.fromkeys(numbers(filled.archive))))
    expected = [("B", "1", "2"), ("DFS-1", "1", "2"), ("DFS-1", "2", "1"), ("DFS-2", "1", "1")]
    for number in (8, 1):
        rows = phi.rows(METADATA, "Series")
        assert [(row["PatientID"], row["SeriesNumber"], row["Instances"]) for row in rows] == expected
        assert len(phi.rows(HEADER_EXTRACTION, "Instances")) == 6
        # What is replaced elsewhere stays in a project that is frozen.
        told = {"PatientID": "B"} if number == 8 else {}
        add(filled.archive, make_instance(number=number, seed="new", attributes=told), on_conflict="replace")
        forget(phi.cache, phi.root)


REAL = "basic,modified-dates"


@pytest.fixture
def real(filled: Made) -> Made:
    """A project as users make one, of a list."""
    path = filled.archive.parent / "list.csv"
    path.write_text("Accession;MRN;Date\nA1;;\n;DFS-2;2024-01-31\nSECRET-7;;\n")
    asked = read_queries(path)
    wanted = Wanted(name="own", deid=REAL, headers=HEADERS, where=PHI.where, source=path.name, queries=stored(asked))
    return filled._replace(root=projects.create(filled.archive, wanted, listed=asked, jobs=1).state.root)


def test_tables_of_a_project_that_was_made_of_a_list(real: Made) -> None:
    assert [row["Instances"] for row in real.rows(METADATA, "Series")] == ["2", "1", "1"]
    patients = real.rows(LINKER, "Patients")
    assert [row["PatientID"] for row in patients] == ["DFS-1", "DFS-2"]
    shown = {row["PatientID"] for row in real.rows(DEID_METADATA, "Series")}
    assert shown == {row["New-PatientID"] for row in patients}
    assert all(patient.startswith("ANON-") for patient in shown)
    for row in real.rows(LINKER, "Studies"):
        moved = date.fromisoformat(row["StudyDate"]) + timedelta(days=int(row["StudyDateShiftDays"]))
        assert f"{moved:%Y%m%d}" == row["New-StudyDate"]
    instances = real.rows(LINKER, "Instances")
    assert len(instances) == 4
    with Archive.open(real.archive) as opened, opened.view() as view:
        for row in instances:
            ino = real.root
            for name in row["Path"].split("/"):
                node = view.child(ino, name.encode())
                assert node is not None
                ino = node.ino
            assert values_of(opened, ino, ("SOPInstanceUID",)) == [row["New-SOPInstanceUID"]]
    with real.path(FAILED_QUERIES).open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file))[1:] == [["4", "SECRET-7", "", "", "no study with this accession number"]]
    public_tell_of_nobody(real)


def test_what_an_import_brings_is_in_the_tables_of_a_live_project(filled: Made) -> None:
    wanted = Wanted(name="own", where=PHI.where, live=True, headers=HEADERS)
    live = Made(filled.archive, filled.archive / "cache", projects.create(filled.archive, wanted, jobs=1).state.root)
    first = live.path(METADATA)
    assert [row["Instances"] for row in live.rows(METADATA, "Series")] == ["2", "1", "1"]
    add(filled.archive, make_instance(number=7), make_instance(series=3), make_instance(patient="OTHER"))
    assert [row["Instances"] for row in live.rows(METADATA, "Series")] == ["3", "1", "1", "1"]
    assert len(live.rows(HEADER_EXTRACTION, "Instances")) == 6
    assert not first.exists()
    assert len(list((live.cache / "projects").iterdir())) == 2
    projects.remove(filled.archive, "own")
    assert list((live.cache / "projects").iterdir()) == []
    assert names(live) == {}
    with Archive.open(live.archive) as opened, pytest.raises(NotFound):
        make(opened, live.cache, (live.root, METADATA))


@pytest.fixture(scope="module")
def of_corpus(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The whole corpus, in an archive with a cache; a project is made of it by who needs one."""
    root = tmp_path_factory.mktemp("corpus")
    Archive.init(root / "archive")
    run(root / "archive", corpus, jobs=2)
    (root / "cache").mkdir()
    yield Made(root / "archive", root / "cache", 0)
    assert check(root / "archive").problems == []


EVERYTHING = (("Modality", "*"),)


def test_a_study_whose_files_disagree_is_one(filled: Made) -> None:
    for number, day in enumerate(("20240203", "20240131", "20240203"), start=4):
        add(filled.archive, make_instance(series=number, attributes={"StudyDate": day}))
    add(filled.archive, make_instance(study=2, attributes={"StudyDate": "20240201"}))
    deid = filled._replace(root=commit(filled.archive, DEID, dict.fromkeys(numbers(filled.archive), "no")))
    studies = [row["StudyInstanceUID"] for row in deid.rows(LINKER, "Studies")]
    assert studies == [uid("DFS-1", 1), uid("DFS-1", 2), uid("DFS-2", 1)]
    assert [row["SeriesNumber"] for row in deid.rows(METADATA, "Series")] == ["1", "2", "4", "5", "6", "1", "1"]


@pytest.mark.corpus
@pytest.mark.slow
def test_tables_of_the_corpus(of_corpus: Made) -> None:
    members = numbers(of_corpus.archive)
    done = projects.create(of_corpus.archive, Wanted(name="all", where=EVERYTHING, headers=HEADERS), jobs=2)
    phi = of_corpus._replace(root=done.state.root)
    rows = phi.rows(METADATA, "Series")
    assert sum(int(row["Instances"]) for row in rows) == len(members)
    instances = phi.rows(HEADER_EXTRACTION, "Instances")
    assert len({row["Path"] for row in instances}) == len(members)
    assert {row["SOPInstanceUID"] for row in instances} == {said["SOPInstanceUID"] for said in originals(phi, members)}
    assert f"instances            {len(members)}\n" in phi.path(RUN).read_text()


IDENTIFYING = (
    "PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyInstanceUID", "StudyDate", "StudyID",
    "StudyDescription", "SeriesInstanceUID", "SOPInstanceUID", "InstitutionName", "ReferringPhysicianName",
    "StationName", "OperatorsName", "StudyComments",
)  # fmt: skip


def originals(made: Made, members: Iterable[int]) -> list[dict[str, str]]:
    """Return what the imported instances say."""
    with Archive.open(made.archive) as opened:
        found = [[value or "" for value in values_of(opened, ino, IDENTIFYING)] for ino in members]
    return [dict(zip(IDENTIFYING, values, strict=True)) for values in found]


@pytest.mark.corpus
@pytest.mark.slow
def test_public_tables_of_the_corpus_tell_of_nobody(of_corpus: Made) -> None:
    members = numbers(of_corpus.archive)
    wanted = Wanted(name="all", where=EVERYTHING, deid=REAL, headers=IDENTIFYING)
    done = projects.create(of_corpus.archive, wanted, jobs=2)
    deid = of_corpus._replace(root=done.state.root)
    assert done.added > 300
    assert done.withheld > 0
    said = originals(deid, members)
    # By column: what was a station's name may be a model's. A day that was moved may be one that was there before.
    private = {key: {one[key] for one in said} - {""} for key in IDENTIFYING if "Date" not in key}
    for rows in (deid.rows(DEID_METADATA, "Series"), deid.rows(HEADER_EXTRACTION, "Instances")):
        told = {key: {row.get(key, "") for row in rows} & values for key, values in private.items()}
        assert {key: values for key, values in told.items() if values} == {}
    text = deid.path(RUN).read_text()
    long = {value for values in private.values() for value in values if len(value) > 7}
    assert {value for value in long if value in text} <= set(IDENTIFYING)  # which is what some descriptions say
    assert f"instances            {done.added}\n" in text
    assert f"withheld             {done.withheld}\n" in text
    instances = deid.rows(LINKER, "Instances")
    assert len(instances) == len(members)
    assert {row["SOPInstanceUID"] for row in instances} == {one["SOPInstanceUID"] for one in said}
    extracted = {row["SOPInstanceUID"] for row in deid.rows(HEADER_EXTRACTION, "Instances")}
    assert {row["New-SOPInstanceUID"] for row in instances if not row["Withheld"]} == extracted
    shifts = {row["PatientID"]: set[str]() for row in deid.rows(LINKER, "Patients")}
    for row in deid.rows(LINKER, "Studies"):
        shifts[row["PatientID"]] |= {row["StudyDateShiftDays"]} - {""}
    assert all(len(days) < 2 for patient, days in shifts.items() if patient)
    assert sum(map(len, shifts.values())) > 10
