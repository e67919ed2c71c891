"""Lists of what a project is made of: read as people write them, found in the catalog, refused where in doubt."""

from __future__ import annotations

import io
import warnings
import zipfile
from contextlib import suppress
from datetime import date, datetime
from typing import TYPE_CHECKING

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.archive import spreadsheet_rows
from dicomfs.archive.archive import Archive
from dicomfs.archive.project_lists import (
    ANY,
    Failed,
    ListQuery,
    Resolved,
    from_stored,
    from_stored_failed,
    read_queries,
    resolve,
    stored,
    stored_failed,
)
from dicomfs.archive.spreadsheet_rows import column_letters
from dicomfs.errors import UsageError
from tests.archive.importing import add
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

NONE = ("", "", "", "")


def listed(path: Path, content: str | bytes, **options: int) -> list[tuple[str, str, str, str]]:
    """Return what is asked for by a list of this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [tuple(one[1:5]) for one in read_queries(path, **options)]  # type: ignore[misc]


def workbook(path: Path, *rows: list[object], formats: dict[str, str] | None = None) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    for where, form in (formats or {}).items():
        book.worksheets[0][where].number_format = form
    book.save(path)
    return path


@pytest.mark.parametrize(
    "header",
    [
        *("AccessionNumber", "accession number", "Accession", "acc_no", "ACC. NO", "Acc#Number", "Accession_Num"),
        *("(0008,0050)", " AccessionNumber ", '"Accession\nNumber"'),
    ],
)
def test_accession_numbers_by_any_name(tmp_path: Path, header: str) -> None:
    assert listed(tmp_path / "list.csv", f"{header}\nA1\n 007 \n") == [("A1", "", "", ""), ("007", "", "", "")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_of_all_kinds(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    lines = [
        ["Name", "MRN", "Study Date"],
        ["Müller", "4711", "2024-01-31"],
        ["", "", ""],
        ['"a, b; c"', "5", "20240201"],
    ]
    text = end.join(separator.join(line) for line in lines) + end
    expected = [("", "4711", "20240131", "20240131"), ("", "5", "20240201", "20240201")]
    assert listed(tmp_path / "list.csv", text.encode(encoding)) == expected


def test_what_excel_says_of_its_separator_counts(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    assert listed(path, "sep=;\r\nAccession;Comment\r\nA,1;x\r\n") == [("A,1", "", "", "")]
    assert [one.row for one in read_queries(path)] == [3]


def test_rows_have_the_numbers_that_a_spreadsheet_program_shows(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    listed(path, '\nAccession,Comment\nA1,"two\nlines"\n\n,\nA2,\n')
    assert [(one.row, one.accession) for one in read_queries(path)] == [(3, "A1"), (6, "A2")]


def test_the_apostrophe_of_failed_queries_is_taken_off(tmp_path: Path) -> None:
    assert listed(tmp_path / "list.csv", "Accession\n'-12\n'quoted\n") == [("-12", *NONE[1:]), ("'quoted", *NONE[1:])]


DAYS = {
    "2024-01-31": "20240131",
    "20240131": "20240131",
    "2024/1/31": "20240131",
    "2024.01.31": "20240131",
    "31.1.2024": "20240131",
    "31/01/2024": "20240131",
    "01/31/2024": "20240131",
    "5-5-2024": "20240505",
    "31-Jan-2024": "20240131",
    "1 September 2024": "20240901",
    "2024-01-31 00:00:00": "20240131",
    "2024-01-31T10:15:00.5": "20240131",
    "0099-01-01": "00990101",
}


@pytest.mark.parametrize("text", DAYS)
def test_days_as_people_write_them(tmp_path: Path, text: str) -> None:
    assert listed(tmp_path / "list.csv", f"PatientID,Date\n1,{text}\n") == [("", "1", DAYS[text], DAYS[text])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("05/06/2024", "either the day or the month comes first; write it as 2024-01-31"),
        ("5-6-2024", "either the day or the month"),
        *(
            (text, "no date; write it as")
            for text in ("31/13/2024", "2024-02-30", "31.01.24", "2023", "202401", "45322")
        ),
        *(
            (text, "no date; write it as")
            for text in ("yesterday", "31-Foo-2024", "2024-01/31", "1/2", "\uff12\uff10\uff12\uff14-01-31")
        ),
        ("20240201-20240131", "a last date before the first"),
    ],
)
def test_days_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"list.csv: row 3, column C: {message}") as refused:
        listed(tmp_path / "list.csv", f"x,PatientID,Date\n,1,2024-01-01\n,SECRET,{text}\n")
    assert "SECRET" not in str(refused.value)
    assert text not in str(refused.value)


def test_ranges_and_windows(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    assert listed(path, "PatientID,StudyDate\n1,20240101-20240630\n") == [("", "1", "20240101", "20240630")]
    between = "PatientID,From,To\n1,2024-01-01,2024-06-30\n2,2024-01-01,\n3,,2024-06-30\n"
    days = [one[2:] for one in listed(path, between)]
    assert days == [("20240101", "20240630"), ("20240101", "99991231"), ("00010101", "20240630")]
    days = [one[2:] for one in listed(path, between, window_days=3)]
    assert days == [("20231229", "20240703"), ("20231229", "99991231"), ("00010101", "20240703")]
    for days_of_window in (-1, 367):
        with pytest.raises(UsageError, match="a date window is 0 to 366 days"):
            read_queries(path, window_days=days_of_window)
    with pytest.raises(UsageError, match="row 2, column C: a last date before the first"):
        listed(path, "PatientID,From,To\n1,2024-01-02,2024-01-01\n")


def test_workbooks(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "list.xlsx",
        ["Patient", "Accession No.", "Date of Exam", "Notes"],
        [4711, None, datetime(2024, 1, 31, 10, 15), "=1+1"],
        ["0815", None, "2024-02-01", None],
        [None, None, None, None],
        [None, 123456789012345, None, None],
        [5.0, None, 20240301, None],
        [None, " A-1 ", date(2024, 1, 1), None],
        [None, "=A1", None, None],
    )
    found = [tuple(one[:5]) for one in read_queries(path)]
    assert found == [
        (2, "", "4711", "20240131", "20240131"),
        (3, "", "0815", "20240201", "20240201"),
        (5, "123456789012345", "", "", ""),
        (6, "", "5", "20240301", "20240301"),
        (7, "A-1", "", "", ""),
    ]


@pytest.mark.parametrize(
    ("cell", "form", "message"),
    [
        (1234567890123456, "General", "a number of more than 15 digits"),
        (datetime(2024, 1, 1), "yyyy-mm-dd", "a date or a fraction"),
        (1.5, "General", "a date or a fraction"),
    ],
)
def test_numbers_that_are_no_identifiers(tmp_path: Path, cell: object, form: str, message: str) -> None:
    path = workbook(tmp_path / "list.xlsx", ["Accession"], ["A"], [cell], formats={"A3": form})
    with pytest.raises(UsageError, match=f"row 3, column A: {message}"):
        read_queries(path)


def test_a_day_that_is_none_in_a_workbook(tmp_path: Path) -> None:
    path = workbook(tmp_path / "list.xlsx", ["MRN", "Date"], [1, 99999999], formats={"B2": "yyyy-mm-dd"})
    with pytest.raises(UsageError, match="row 2, column B: no date"):
        read_queries(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Doe^Jane,4711", "the first row names no column AccessionNumber"),
        ("StudyDate", "the first row names no column"),
        ("PatientID", "has patient IDs but no dates"),
        ("Accession,Acc No", "columns A and B are both called accession number"),
        ("MRN,Date,From", "a column of dates and columns From or To as well"),
        ("", "the first row names no column"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        listed(tmp_path / "list.csv", f"{header}\n4711\n")
    assert "Doe" not in str(refused.value)
    assert "4711" not in str(refused.value)


def test_rows_that_say_too_little_fail_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("Accession,MRN,Date,Comment\nA1,,,\n,4711,,\n,,2024-01-01,\n,,,who?\n")
    assert [(one.row, one.problem) for one in read_queries(path)] == [
        (2, ""),
        (3, "no accession number, and no date for the patient ID"),
        (4, "neither an accession number nor a patient ID"),
        (5, "neither an accession number nor a patient ID"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first row names no column"),
        (b"Accession\n", "has no rows below its first one"),
        (b"Accession\n\n\n", "has no rows below its first one"),
        (b'Accession\nA1\n"never closed\nA2\n', "row 3: is no CSV"),
        (b"Accession\n" + b"x" * 200_000, "row 2: is no CSV"),
        (b"Accession\n\0", "is neither CSV nor .xlsx"),
        (b"\xef\xbb\xbfAccession\n\xff", "byte 10: is not in the encoding"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(512), "is an old or a protected spreadsheet"),
        (b"PK\x03\x04" + bytes(100), "cannot be read as a spreadsheet"),
    ],
)
def test_files_that_are_no_lists(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=rf"list\.csv: {message}"):
        listed(tmp_path / "list.csv", content)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_queries(tmp_path / "missing.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        read_queries(tmp_path)


def changed(path: Path, part: str, content: bytes) -> bytes:
    """Return a workbook with another part."""
    target = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, content if name == part else old.read(name))
    return target.getvalue()


SHEET = "xl/worksheets/sheet1.xml"
START = b'<?xml version="1.0"?>'
LAUGHS = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]>'
MAIN = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def sheet(rows: bytes) -> bytes:
    return START + b'<worksheet xmlns="' + MAIN + b'"><sheetData>' + rows + b"</sheetData></worksheet>"


def row(number: int, text: bytes, column: bytes = b"A") -> bytes:
    where = column + str(number).encode()
    return b'<row r="%d"><c r="%b" t="inlineStr"><is><t>%b</t></is></c></row>' % (number, where, text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (START + LAUGHS + sheet(row(1, b"&c;"))[len(START) :], "declares what no workbook does"),
        (START.decode().encode("utf-16") + LAUGHS.decode().encode("utf-16")[2:], "declares what no workbook does"),
        (START + b" " * (1 << 17) + sheet(b"")[len(START) :], "declares what no workbook does"),
        (sheet(row(1, b"Accession") + b" " * (3 << 20) + row(2, b"A1")), "unpacks to more than 2 MiB"),
        (b"<worksheet>", "cannot be read as a spreadsheet"),
        (sheet(row(1, b"Accession") + row(2, b"A1") + row(1 << 20, b"A2")), "has more than 100000 rows"),
        (sheet(b'<row r="1"><c r="A1" t="s"><v>99</v></c></row>'), "cannot be read as a spreadsheet"),
    ],
    ids=["entities", "entities in UTF-16", "prolog", "bomb", "cut off", "far row", "no string"],
)
def test_hostile_workbooks(tmp_path: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet_rows, "MAX_INFLATED", 2 << 20)
    path = workbook(tmp_path / "list.xlsx", ["Accession"])
    path.write_bytes(changed(path, SHEET, content))
    with pytest.raises(UsageError, match=message):
        read_queries(path)


def test_workbooks_that_say_wrong_things_of_themselves(tmp_path: Path) -> None:
    path = workbook(tmp_path / "list.xlsx", ["Accession"])
    content = sheet(row(1, b"Accession") + row(2, b"A1") + row(3, b"far", b"XFD") + row(4, b"A2"))
    content = content.replace(b"<sheetData>", b'<dimension ref="A1"/><sheetData>')
    path.write_bytes(changed(path, SHEET, content))
    assert [one.accession for one in read_queries(path)] == ["A1", "A2"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "list"
    for start in (b"", b"Accession\n", b"PK\x03\x04"):
        path.write_bytes(start + content)
        with suppress(UsageError):
            assert all(one.accession or one.problem for one in read_queries(path))


def test_long_lists_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet_rows, "MAX_ROWS", 3)
    listed(tmp_path / "list.csv", "Accession\n1\n2\n")
    with pytest.raises(UsageError, match="has more than 3 rows"):
        listed(tmp_path / "list.csv", "Accession\n1\n2\n3\n")
    monkeypatch.setattr(spreadsheet_rows, "MAX_FILE", 1 << 20)
    with pytest.raises(UsageError, match="has more than 1 MiB"):
        listed(tmp_path / "list.csv", "\n" * ((1 << 20) + 1))


def test_columns_have_the_letters_of_a_spreadsheet() -> None:
    assert [column_letters(index) for index in (0, 25, 26, 27, 701, 702, 16383)] == [
        "A",
        "Z",
        "AA",
        "AB",
        "ZZ",
        "AAA",
        "XFD",
    ]


def found(archive: Path, *queries: ListQuery) -> Resolved:
    with Archive.open(archive) as opened:
        return resolve(opened, queries)


def accession(number: str, patient_id: str = "") -> ListQuery:
    return ListQuery(2, number, patient_id, "", "", (number, patient_id, ""))


def patient(patient_id: str, first: str, last: str = "") -> ListQuery:
    return ListQuery(3, "", patient_id, first, last or first, ("", patient_id, first))


def uids(archive: Path, resolved: Resolved) -> set[tuple[str, str]]:
    """Return StudyInstanceUIDs, each with PatientID."""
    with Archive.open(archive) as opened, opened.view() as view:
        return {
            (
                str(view.study(study).attributes["StudyInstanceUID"]),
                "" if one == ANY else str(view.patient(one).attributes.get("PatientID", "")),
            )
            for study, one in resolved.studies
        }


@pytest.fixture
def filled(archive_path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        add(
            archive_path,
            make_instance(study=1),
            make_instance(study=2, attributes={"AccessionNumber": "A1", "StudyDate": "20240201"}),
            make_instance(study=3, attributes={"AccessionNumber": "a*", "StudyDate": "20240301"}),
            make_instance(patient="dfs-1", study=4, attributes={"StudyDate": "1993.04.30"}),
            make_instance(patient="P5", study=5, attributes={"StudyDate": "", "AccessionNumber": ""}),
            # Two patients in one study, and a study whose files disagree.
            make_instance(patient="P6", study=6),
            make_instance(patient="P6", study=6, number=2, attributes={"PatientID": "P7"}),
            make_instance(patient="P8", study=8),
            make_instance(
                patient="P8", study=8, number=2, attributes={"AccessionNumber": "OTHER", "StudyDate": "20250101"}
            ),
        )
    return archive_path


ONE, TWO, THREE = (uid("DFS-1", study) for study in (1, 2, 3))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (accession("A1"), {(ONE, ""), (TWO, "")}),
        (accession("A1", "DFS-1"), {(ONE, "DFS-1"), (TWO, "DFS-1")}),
        (accession("a*"), {(THREE, "")}),
        (accession("A6", "P7"), {(uid("P6", 6), "P7")}),
        (accession("A6"), {(uid("P6", 6), "")}),
        (accession("OTHER"), {(uid("P8", 8), "")}),
        (patient("DFS-1", "20240131"), {(ONE, "DFS-1")}),
        (patient("DFS-1", "20240131", "20240201"), {(ONE, "DFS-1"), (TWO, "DFS-1")}),
        (patient("dfs-1", "19930430"), {(uid("dfs-1", 4), "dfs-1")}),
        (patient("P7", "20240131"), {(uid("P6", 6), "P7")}),
        (patient("P8", "20250101"), {(uid("P8", 8), "P8")}),
    ],
)
def test_what_is_there_is_found(filled: Path, query: ListQuery, expected: set[tuple[str, str]]) -> None:
    resolved = found(filled, query)
    assert uids(filled, resolved) == expected
    assert resolved.failed == ()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        *((accession(text), "no study with this accession number") for text in ("*", "A?", "a1", "A", "A11", "[A]1")),
        (accession("A1", "P6"), "the study with this accession number is another patient's"),
        *((patient(text, "20240131"), "no patient with this ID") for text in ("*", "DFS-2", "Dfs-1", "DFS-?")),
        (patient("DFS-1", "20240202"), "no study of this patient on this date"),
        (patient("P5", "20240131"), "no study of this patient on this date"),
        (patient("DFS-1", "20200101", "20231231"), "no study of this patient between these dates"),
        (ListQuery(4, "A1", "", "", "", problem="nothing"), "nothing"),
    ],
)
def test_what_is_not_there_fails(filled: Path, query: ListQuery, reason: str) -> None:
    resolved = found(filled, query)
    assert resolved.studies == frozenset()
    assert resolved.failed == ((query.row, query.given, reason),)


def test_many_rows(filled: Path) -> None:
    queries = [accession("A1"), *(accession(f"X{number}") for number in range(600)), patient("P8", "20240131")]
    resolved = found(filled, *queries)
    assert len(resolved.failed) == 600
    assert uids(filled, resolved) == {(ONE, ""), (TWO, ""), (uid("P8", 8), "P8")}


def test_what_a_project_keeps_finds_the_same(filled: Path) -> None:
    queries = [accession("A1"), patient("P8", "20240131", "20250101"), ListQuery(4, "", "", "", "", problem="nothing")]
    kept = from_stored(stored(queries))
    assert found(filled, *kept).studies == found(filled, *queries).studies
    assert found(filled, *kept).failed == ()
    failed = (Failed(7, ("A\t1", "", "2024-01-31"), "no date"), Failed(8, ("", "", ""), "nothing"))
    assert from_stored_failed(stored_failed(failed)) == [failed[0]._replace(given=("A 1", "", "2024-01-31")), failed[1]]
    # And what another version may have kept.
    assert from_stored_failed([(7, "A1", "no date")]) == [Failed(7, ("A1", "", ""), "no date")]
