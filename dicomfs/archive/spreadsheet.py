"""Tables as files that a spreadsheet program opens: .xlsx and CSV in which every cell is text, as it is.

What DICOM files say is hostile, and a spreadsheet program runs what looks like a formula. So a cell is never a
formula, a number, a date or a link: in .xlsx because it is stored as a string, and formatted as text so that it stays
one when somebody edits it; in CSV, which cannot say so, because of an apostrophe (`csv_cell`).

    U+FFFD                        stands for what XML cannot hold, and for other control characters
    a line feed                   stands for every line end
    … [cut off: 40000 characters] ends a text that is longer than a cell may be
    a blank                       is before a text that starts with <r> and ends with </r>, which the library that
                                  writes .xlsx takes for markup of its own

The same rows give the same bytes, whenever and by whomever they are written. Memory is bounded by one row.
"""

from __future__ import annotations

import csv
import re
from datetime import datetime
from typing import IO, TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

LONGEST_CELL: Final = 32_767
"""So many UTF-16 code units are in a cell (Excel's specifications and limits)."""
ROWS: Final = 1_048_576
"""So many rows are in a sheet, the header among them."""
_CREATED: Final = datetime(1980, 1, 1)
_NARROWEST: Final = 8
_WIDEST: Final = 60
_MEASURED: Final = 200
"""So many rows decide how wide columns are."""

_LINE_END: Final = re.compile(r"\r\n?|[\x85\u2028\u2029]")
# Control characters but tab and line feed, halves of characters beyond U+FFFF, what is no character (XML 1.0 2.2).
_UNSAFE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT: Final = "\ufffd"
# OWASP, CSV Injection; the last four are what a Japanese keyboard writes.
_LIKE_FORMULA: Final = tuple("=+-@\t\n\uff1d\uff0b\uff0d\uff20")
_APOSTROPHE: Final = "'"


def cell(text: str) -> str:
    """Return a text as a cell of an .xlsx file shows it."""
    text = _safe(text)
    if len(text) > LONGEST_CELL // 2:
        text = _cut(text)
    return f" {text}" if text.startswith("<r>") and text.endswith("</r>") else text


def csv_cell(text: str) -> str:
    """Return a text as a cell of a CSV file, with an apostrophe before what looks like a formula."""
    text = _safe(text)
    return _APOSTROPHE + text if text.startswith(_LIKE_FORMULA) else text


def from_csv_cell(text: str) -> str:
    """Return what `csv_cell` was given, as far as it is to be told."""
    bare = text.removeprefix(_APOSTROPHE)
    return bare if bare.startswith(_LIKE_FORMULA) else text


def _safe(text: str) -> str:
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_REPLACEMENT, _LINE_END.sub("\n", text))


def _cut(text: str) -> str:
    encoded = text.encode("utf-16-le")
    if len(encoded) <= LONGEST_CELL * 2:
        return text
    mark = f"… [cut off: {len(text)} characters]"
    # Half a character at the end is dropped.
    return encoded[: (LONGEST_CELL - len(mark)) * 2].decode("utf-16-le", "ignore") + mark


class Workbook:
    """An .xlsx file in the making; a context manager, and the file is there when it ends well.

    Rows wait in files beside the one to be written, so its directory should be the owner's alone, and gone afterwards.
    """

    def __init__(self, path: Path) -> None:
        import xlsxwriter

        options = {"constant_memory": True, "tmpdir": str(path.parent), "use_zip64": True}
        self._book = xlsxwriter.Workbook(str(path), options)
        self._book.set_properties({"created": _CREATED})
        self._text = self._book.add_format({"num_format": "@"})
        self._bold = self._book.add_format({"num_format": "@", "bold": True})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        from xlsxwriter.exceptions import FileCreateError

        try:
            # After an error, too: it closes the files where rows wait.
            self._book.close()
        except FileCreateError as error:
            if kind is None:
                raise error.args[0] from None  # an OSError

    def sheet(self, name: str, header: Sequence[str]) -> Sheet:
        """Add a sheet; several may be written to in turns."""
        return Sheet(self, name, header)

    def _add(self, name: str, header: Sequence[str]) -> _Part:
        part = self._book.add_worksheet(name)
        part.freeze_panes(1, 0)
        part.ignore_errors({"number_stored_as_text": f"A1:XFD{ROWS}"})
        return _Part(part, header, self._bold, self._text)


class Sheet:
    """One table of a workbook; what is more than a sheet holds goes on in another, with the same header."""

    def __init__(self, book: Workbook, name: str, header: Sequence[str]) -> None:
        self._book = book
        self._name = name
        self._header = header
        self._parts = 1
        self._part = book._add(name, header)  # noqa: SLF001 - the other half of this class

    def add(self, row: Sequence[str]) -> None:
        """Write a row below the last one."""
        if self._part.rows == ROWS:
            self._parts += 1
            self._part = self._book._add(f"{self._name} ({self._parts})", self._header)  # noqa: SLF001
        self._part.add(row)


class _Part:
    def __init__(self, part: Worksheet, header: Sequence[str], bold: Format, text: Format) -> None:
        self._part = part
        self._text = text
        self._widths = [_NARROWEST] * len(header)
        self.rows = 0
        self._write(header, bold)

    def add(self, row: Sequence[str]) -> None:
        self._write(row, self._text)

    def _write(self, row: Sequence[str], form: Format) -> None:
        cells = [cell(text) for text in row]
        for column, text in enumerate(cells):
            if text:
                self._part.write_string(self.rows, column, text, form)
        if self.rows <= _MEASURED:
            self._fit(cells)
        self.rows += 1

    def _fit(self, cells: list[str]) -> None:
        for column, text in enumerate(cells):
            width = min(len(text) + 2, _WIDEST)
            if width > self._widths[column] or not self.rows:
                self._widths[column] = max(width, self._widths[column])
                self._part.set_column(column, column, self._widths[column], self._text)


def write_csv(file: IO[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows as RFC 4180 has it, to a file that was opened with newline=''.

    It begins with a byte order mark, without which Excel takes UTF-8 for the system's own encoding.
    """
    file.write("\ufeff")
    csv.writer(file, lineterminator="\r\n").writerows([csv_cell(text) for text in row] for row in rows)
