"""Days as people write them in lists: read in one way, or refused.

2024-01-31  20240131  2024/01/31  2024.01.31  31.01.2024  31-Jan-2024      a day, maybe with a time after it
31/01/2024  01/31/2024                                                     one of both numbers tells which is which
05/06/2024                                                                 refused: nobody can tell
20240101-20240131                                                          a range, as DICOM writes it
"""

import re
from datetime import date
from typing import Final

from dicomfs.archive.spreadsheet_rows import Cell

_TIME: Final = r"(?:[T ]+\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?)?"
_YEAR_FIRST: Final = re.compile(rf"(\d{{4}})([-/.]?)(\d\d?)\2(\d\d?){_TIME}", re.ASCII).fullmatch
_DAY_FIRST: Final = re.compile(rf"(\d\d?)\.(\d\d?)\.(\d{{4}}){_TIME}", re.ASCII).fullmatch
_EITHER: Final = re.compile(rf"(\d\d?)([-/])(\d\d?)\2(\d{{4}}){_TIME}", re.ASCII).fullmatch
_NAMED: Final = re.compile(rf"(\d\d?)[- ]([A-Za-z]{{3}})[A-Za-z]*[- ](\d{{4}}){_TIME}", re.ASCII).fullmatch
_RANGE: Final = re.compile(r"(\d{8}) *- *(\d{8})", re.ASCII).fullmatch
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS_OF_YEAR: Final = 12


class NoDay(ValueError):
    """What is wrong with what stands for a day, and how to write it; holds nothing of it."""


def period(cell: Cell) -> tuple[date, date]:
    """Return the first and the last day that a cell names; raise NoDay."""
    if isinstance(cell, date):
        return cell, cell
    text = plain(cell)
    begin, end = match.groups() if (match := _RANGE(text)) else (text, text)
    return _day(begin), _day(end)


def plain(cell: Cell) -> str:
    """Return a cell as text; a number without its fraction of zeros."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).strip()


def _day(text: str) -> date:
    try:
        if match := _YEAR_FIRST(text):
            year, between, month, day = match.groups()
            if between or len(month + day) == len("mmdd"):
                return date(int(year), int(month), int(day))
        if match := _DAY_FIRST(text):
            return date(int(match[3]), int(match[2]), int(match[1]))
        if match := _NAMED(text):
            return date(int(match[3]), _MONTHS.index(match[2].lower()) + 1, int(match[1]))
        if match := _EITHER(text):
            return _of_either(int(match[1]), int(match[3]), int(match[4]))
    except NoDay:
        raise
    except ValueError:
        pass
    raise NoDay("no date; write it as 2024-01-31")


def _of_either(one: int, other: int, year: int) -> date:
    if one > _MONTHS_OF_YEAR:
        return date(year, other, one)
    if other > _MONTHS_OF_YEAR or one == other:
        return date(year, one, other)
    raise NoDay("either the day or the month comes first; write it as 2024-01-31")
