"""What is printed: text that cannot harm a terminal, tables, JSON, sizes and durations.

Values in DICOM files are hostile input. A control character in a patient's name must not move a
cursor or break a line, so every text passes through `shown`; JSON escapes by itself.
"""

from __future__ import annotations

import json
import shlex
import sys
import unicodedata
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

Json: TypeAlias = "str | int | float | bool | Mapping[str, Json] | Sequence[Json] | None"

# Control, format (bidi overrides), surrogate, private use, unassigned, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SAMPLE = 1000


def shown(text: str) -> str:
    r"""Return `text` with everything that is not plainly visible written as \x1b or \u202e."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSAFE else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def write(text: str = "") -> None:
    """Print one line on stdout."""
    sys.stdout.write(shown(text) + "\n")


def note(text: str) -> None:
    """Print one line on stderr, where it does not mix with data."""
    sys.stderr.write(shown(text) + "\n")


def write_json(value: Json) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def write_json_array(values: Iterable[Json]) -> None:
    """Print a JSON array on stdout, one element at a time."""
    opening = "["
    for value in values:
        sys.stdout.write(f"{opening}\n  {json.dumps(value)}")
        opening = ","
    sys.stdout.write("[]\n" if opening == "[" else "\n]\n")


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Print a table on stdout; numbers are aligned to the right.

    Columns are as wide as the first thousand rows need: later rows stream, and may stick out.
    """
    pending = iter(rows)
    sample = [[_cell(value) for value in row] for row in islice(pending, _SAMPLE)]
    if not sample:
        return
    widths = [max(map(_width, column)) for column in zip(columns, *sample, strict=True)]
    _write_row(columns, widths)
    _write_row(["-" * width for width in widths], widths)
    rest = ([_cell(value) for value in row] for row in pending)
    for row in chain(sample, rest):
        _write_row(row, widths)


class Right(str):
    """A cell to be aligned to the right, as numbers are."""

    __slots__ = ()


def _cell(value: str | int) -> str:
    if isinstance(value, Right):
        return value
    return shown(value) if isinstance(value, str) else Right(value)


def _write_row(cells: Sequence[str], widths: Sequence[int]) -> None:
    line = "  ".join(_padded(cell, width) for cell, width in zip(cells, widths, strict=True))
    sys.stdout.write(line.rstrip() + "\n")


def _padded(cell: str, width: int) -> str:
    blanks = " " * (width - _width(cell))
    return blanks + cell if isinstance(cell, Right) else cell + blanks


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def quoted(path: Path) -> str:
    """Return a path as a shell takes it, for a command that a person may copy."""
    return shlex.quote(str(path))


def size_text(size: int) -> str:
    """Return a number of bytes for people: 512 B, 34.3 KB, 1.2 GB (powers of 1000)."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("KB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} PB"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: 1 file, 1,024 files."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def branches(depth_and_text: Iterable[tuple[int, str]]) -> Iterator[str]:
    """Yield the lines of a tree, given each node's depth and text in order of a walk.

    A line is written when the next is known, for only then is it known whether a node is its
    parent's last; what is kept is one subtree of the shallowest open node.
    """
    block: list[tuple[int, str]] = []
    for node in depth_and_text:
        if node[0] == 0 and block:
            yield from _drawn(block, last=False)
            block = []
        block.append(node)
    if block:
        yield from _drawn(block, last=True)


def _drawn(block: Sequence[tuple[int, str]], *, last: bool) -> Iterator[str]:
    # Walk backwards: a node is the last of its parent when no node of its depth follows before a shallower one.
    lines = []
    continued: set[int] = set() if last else {0}
    for depth, text in reversed(block):
        rails = "".join("│   " if level in continued else "    " for level in range(depth))
        lines.append(rails + ("├── " if depth in continued else "└── ") + text)
        continued = {level for level in continued if level < depth} | {depth}
    return reversed(lines)
