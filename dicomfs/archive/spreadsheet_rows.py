"""The rows of a table that somebody made: .xlsx or CSV, as a spreadsheet program or a script writes them.

What a file is says its beginning, not its name. CSV may be separated by comma, semicolon or tab and be UTF-8, UTF-16
with a byte order mark, or what Western Windows writes. Of a workbook the first sheet counts.

The file may be hostile: how long it is, what it inflates to, how many rows and columns it has and how long its cells
are is bounded, and XML that declares entities is refused unread.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
from contextlib import closing
from datetime import date, datetime
from typing import IO, TYPE_CHECKING, Final, TypeAlias
from xml.parsers import expat

from dicomfs.archive.spreadsheet import from_csv_cell
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Cell: TypeAlias = "str | int | float | date | None"
Row: TypeAlias = "tuple[Cell, ...]"

MAX_FILE: Final = 64 << 20
MAX_INFLATED: Final = 256 << 20
MAX_PARTS: Final = 4096
MAX_ROWS: Final = 100_000
MAX_COLUMNS: Final = 256
MAX_CELL: Final = 1024
"""Nothing that a list is about is longer; the rest of a cell is not looked at."""
_MAX_PROLOG: Final = 1 << 16
_PIECE: Final = 1 << 12

_ZIP: Final = b"PK\x03\x04"
_OLE: Final = bytes.fromhex("d0cf11e0a1b11ae1")
_BYTE_ORDER_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SEPARATORS: Final = ",;\t"
_SAYS_SEPARATOR: Final = re.compile(r"sep=([,;\t])\r?\n", re.IGNORECASE).match


def rows(path: Path, is_header: Callable[[Row], int]) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a table with their numbers, as a spreadsheet program counts them; empty ones are left out.

    `is_header` says how much of a first row is understood: CSV is separated by what makes most of it. Raise UsageError
    for what cannot be read, in the words of the path and the row's number.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_FILE:
        raise UsageError(f"{path}: has more than {MAX_FILE >> 20} MiB; lists are shorter")
    if data.startswith(_OLE):
        raise UsageError(
            f"{path}: is an old or a protected spreadsheet; save it as .xlsx without a password, or as CSV"
        )
    found = _of_workbook(path, data) if data.startswith(_ZIP) else _of_csv(path, data, is_header)
    for number, row in found:
        if number > MAX_ROWS:
            raise UsageError(f"{path}: has more than {MAX_ROWS} rows; make several lists of it")
        bounded = tuple(cell[:MAX_CELL] if isinstance(cell, str) else cell for cell in row[:MAX_COLUMNS])
        if any(cell not in (None, "") for cell in bounded):
            yield number, bounded


def _of_csv(path: Path, data: bytes, is_header: Callable[[Row], int]) -> Iterator[tuple[int, Row]]:
    text = _decoded(path, data)
    first = 1
    if said := _SAYS_SEPARATOR(text):
        separator, text, first = said[1], text[said.end() :], 2
    else:
        separator = max(_SEPARATORS, key=lambda one: is_header(_first(text, one)))
    return ((number + first - 1, row) for number, row in _separated(path, text, separator))


def _first(text: str, separator: str) -> Row:
    """Return the first row that is not empty, if it can be had so."""
    try:
        return next((tuple(row) for row in _reader(text, separator) if any(row)), ())
    except csv.Error:
        return ()


def _separated(path: Path, text: str, separator: str) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        for number, row in enumerate(_reader(text, separator), start=1):
            yield number, tuple(from_csv_cell(cell.strip()) for cell in row[:MAX_COLUMNS])
    except csv.Error as error:
        raise UsageError(f"{path}: row {number + 1}: is no CSV ({error})") from error


def _reader(text: str, separator: str) -> Iterator[list[str]]:
    # Strict, since a quotation mark that is never closed would swallow the rows after it.
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)


def _decoded(path: Path, data: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise UsageError(f"{path}: byte {error.start}: is not in the encoding that the file says") from error
    if b"\0" in data:
        raise UsageError(f"{path}: is neither CSV nor .xlsx")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _of_workbook(path: Path, data: bytes) -> Iterator[tuple[int, Row]]:
    import openpyxl

    try:
        _require_harmless(path, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else is in a workbook
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        with closing(book):
            # Given both, what the sheet says of its own size, which may be wrong, is not asked for.
            found = book.worksheets[0].iter_rows(max_row=MAX_ROWS + 1, max_col=MAX_COLUMNS, values_only=True)
            yield from enumerate(_quietly(found), start=1)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # a library's, which may be any, and whose text may hold what it was about
        raise UsageError(
            f"{path}: cannot be read as a spreadsheet ({type(error).__name__}); save it as CSV and try that"
        ) from error


def _quietly(found: Iterator[tuple[object, ...]]) -> Iterator[Row]:
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dates that are none, with their cells
            row = next(found, None)
        if row is None:
            return
        # The rows between two far from each other are here as well, each as wide as a row may be.
        yield tuple(map(_cell, row)) if row.count(None) < len(row) else ()


def _cell(value: object) -> Cell:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, bool) or not isinstance(value, (str, int, float, date)):
        return None if value is None else str(value)
    return value.strip() if isinstance(value, str) else value


def _require_harmless(path: Path, data: bytes) -> None:
    """Raise UsageError for a workbook that may take much more memory than it has bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        parts = file.infolist()
        # No more of a part is inflated than it says.
        if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_INFLATED:
            raise UsageError(f"{path}: unpacks to more than {MAX_INFLATED >> 20} MiB; lists are shorter")
        for part in parts:
            with file.open(part) as content:
                if _has_declarations(content):
                    raise UsageError(f"{path}: declares what no workbook does; save it as CSV and use that")


def _has_declarations(content: IO[bytes]) -> bool:
    """Say whether XML has a document type declaration, which no part may have (ECMA-376-2 6.5), or hides its begin."""
    found: list[bool] = []
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = lambda *_: found.append(True)
    parser.StartElementHandler = lambda *_: found.append(False)
    try:
        while not found and content.tell() < _MAX_PROLOG and (piece := content.read(_PIECE)):
            parser.Parse(piece)
    except expat.ExpatError:
        pass  # what is no XML is none to whoever reads it, too
    return found[0] if found else content.tell() >= _MAX_PROLOG


def column_letters(index: int) -> str:
    """Return what a spreadsheet program calls a column; the first is 0."""
    letters = ""
    while index >= 0:
        letters = chr(ord("A") + index % 26) + letters
        index = index // 26 - 1
    return letters
