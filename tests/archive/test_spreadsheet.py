"""Tables as files: whatever a cell holds, it is text there, and other programs read the same."""

from __future__ import annotations

import csv
import gc
import io
import zipfile
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import openpyxl
import pytest
import python_calamine
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.archive import spreadsheet
from dicomfs.archive.spreadsheet import LONGEST_CELL, Workbook, cell, csv_cell, from_csv_cell, write_csv

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HOSTILE = {
    "=cmd|'/c calc'!A1": None,
    "+1": None,
    "-1+1": None,
    "@SUM(A1)": None,
    "\t=1": None,
    "'=1": None,
    "http://example.com/": None,
    "mailto:a@b": None,
    "00123": None,
    "12345678901234567890": None,
    "1e5": None,
    "2024-01-31": None,
    "TRUE": None,
    "#REF!": None,
    " both ends ": None,
    "<b>&amp;</b><script>alert(1)</script>": None,
    "<r><t>markup</t></r>": " <r><t>markup</t></r>",
    "]]>": None,
    "Müller^山田 \U0001f600": None,
    "a\r\nb\rc\nd\u2028e\x85": "a\nb\nc\nd\ne\n",
    "\0\x1b[2J\x07\x9f": "\ufffd\ufffd[2J\ufffd\ufffd",
    "\ud83d\udc00 \ufffe\uffff": "\ufffd\ufffd \ufffd\ufffd",
    "x" * 10_000: None,
    "x" * LONGEST_CELL: None,
    "y" * 40_000: "y" * (LONGEST_CELL - 29) + "… [cut off: 40000 characters]",
    "\U0001f600" * 20_000: "\U0001f600" * ((LONGEST_CELL - 29) // 2) + "… [cut off: 20000 characters]",
}
"""Values, and how they are shown where that is not as they are."""


def written(path: Path, *columns: Sequence[str]) -> Path:
    """Write a workbook of one sheet."""
    with Workbook(path) as book:
        sheet = book.sheet("Values", [f"Column {number}" for number in range(len(columns))])
        for row in zip(*columns, strict=True):
            sheet.add(row)
    return path


def with_openpyxl(path: Path, sheet: int = 0) -> list[list[str]]:
    """Read all cells, which must be strings and nothing else."""
    book = openpyxl.load_workbook(path)
    cells = list(book.worksheets[sheet].iter_rows())
    assert {one.data_type for row in cells for one in row if one.value is not None} <= {"s"}
    assert all(one.hyperlink is None for row in cells for one in row)
    return [["" if one.value is None else one.value for one in row] for row in cells]


def with_calamine(path: Path) -> list[list[object]]:
    return python_calamine.load_workbook(path).get_sheet_by_index(0).to_python()


@pytest.mark.parametrize("read", [with_openpyxl, with_calamine])
def test_every_cell_is_text_and_reads_back_as_documented(tmp_path: Path, read: object) -> None:
    path = written(tmp_path / "values.xlsx", list(HOSTILE), ["beside"] * len(HOSTILE))
    header, *rows = read(path)  # type: ignore[operator]
    assert header == ["Column 0", "Column 1"]
    assert [row[0] for row in rows] == [value if shown is None else shown for value, shown in HOSTILE.items()]
    assert {row[1] for row in rows} == {"beside"}


def test_no_cell_is_longer_than_excel_takes() -> None:
    for value in HOSTILE:
        assert len(cell(value).encode("utf-16-le")) // 2 <= LONGEST_CELL


@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_any_text_reads_back(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    path = written(tmp_path_factory.mktemp("any") / "any.xlsx", values, ["."] * len(values))
    assert [row[0] for row in with_calamine(path)[1:]] == [cell(value) for value in values]


PIECES = st.sampled_from(["<r>", "</r>", "<t>", "&lt;", "_x0041_", "_x005F_", "=", "\r", " ", "a"])


@given(st.lists(PIECES, max_size=6).map("".join))
def test_markup_of_the_library_and_of_the_format_is_text(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = written(tmp_path_factory.mktemp("markup") / "any.xlsx", [value], ["."])
    assert with_calamine(path)[1][0] == cell(value)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(HOSTILE)
    first = written(tmp_path / "first.xlsx", values).read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert written(tmp_path / "second.xlsx", values).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.xlsx", "second.xlsx"]


def test_a_workbook_names_nobody(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path / "values.xlsx", ["1"])) as file:
        assert {info.date_time[:3] for info in file.infolist()} == {(1980, 1, 31)}
        core = ElementTree.fromstring(file.read("docProps/core.xml"))
        assert {element.text for element in core} == {None, "1980-01-01T00:00:00Z"}
        assert not any("printer" in name for name in file.namelist())


def test_more_rows_than_a_sheet_holds_go_on_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "ROWS", 4)
    path = written(tmp_path / "long.xlsx", [str(number) for number in range(7)])
    names = openpyxl.load_workbook(path).sheetnames
    assert names == ["Values", "Values (2)", "Values (3)"]
    found = [with_openpyxl(path, number) for number in range(3)]
    assert [rows[0] for rows in found] == [["Column 0"]] * 3
    assert [row[0] for rows in found for row in rows[1:]] == [str(number) for number in range(7)]


def test_the_header_is_bold_and_stays_in_sight(tmp_path: Path) -> None:
    sheet = openpyxl.load_workbook(written(tmp_path / "values.xlsx", ["x" * 30], ["y"])).worksheets[0]
    assert sheet.freeze_panes == "A2"
    assert [one.font.bold for one in sheet[1]] == [True, True]
    assert [one.number_format for row in sheet for one in row] == ["@"] * 4
    assert sheet.column_dimensions["A"].width > 30
    assert 8 <= sheet.column_dimensions["B"].width < 20


def test_an_error_midway_leaves_no_rows_behind(tmp_path: Path) -> None:
    def rows() -> Iterator[list[str]]:
        yield ["1"]
        raise ZeroDivisionError

    def write() -> None:
        with Workbook(tmp_path / "values.xlsx") as book:
            sheet = book.sheet("Values", ["One"])
            for row in rows():
                sheet.add(row)

    with pytest.raises(ZeroDivisionError):
        write()
    assert {path.name for path in tmp_path.iterdir()} <= {"values.xlsx"}


# The library leaves its files to the garbage collector then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "there.xlsx").mkdir()
    with pytest.raises(IsADirectoryError):
        written(tmp_path / "there.xlsx", ["1"])
    gc.collect()


CSV = {
    "=1": "'=1",
    "+1": "'+1",
    "-1": "'-1",
    "@x": "'@x",
    "\tx": "'\tx",
    "\rx": "'\nx",
    "\uff1d1": "'\uff1d1",
    "1-1": "1-1",
    "": "",
    "'quoted'": "'quoted'",
    'a,"b"\nc': 'a,"b"\nc',
    "Müller\0": "Müller\ufffd",
}


def test_csv_is_what_excel_reads_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, [list(CSV), ["second", *[""] * (len(CSV) - 1)]])
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf'=1,'+1,")
    assert data.count(b"\r\n") == 2
    with path.open(encoding="utf-8-sig", newline="") as file:
        first, second = csv.reader(file)
    assert first == list(CSV.values())
    assert second[0] == "second"


@given(st.text(max_size=20))
def test_csv_cells_read_back(text: str) -> None:
    shown = csv_cell(text)
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r"))
    if not text.startswith("'") and "\ufffd" not in shown and not set(text) & set("\r\x85\u2028\u2029"):
        assert from_csv_cell(shown) == text
    file = io.StringIO(newline="")
    write_csv(file, [[text, "."]])
    assert next(csv.reader(io.StringIO(file.getvalue().removeprefix("\ufeff"), newline=""))) == [shown, "."]
