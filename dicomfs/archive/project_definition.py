"""What a project is made of, as its commit says it: conditions, profile, the list it came from.

The JSON object in a commit, and in the table `project`:

    {"name", "created", "timestamp", "where": [[keyword, pattern]], "live", "deid", "headers": [keyword], "source",
     "queries": [[accession, patient id, date from, date to]], "failed": [[row, as given, reason]], "version": 1}

Keys of later versions are kept in the commit, and passed by here.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

VERSION: Final = 1

Condition: TypeAlias = tuple[str, str]
"""A keyword and the pattern that its value is to match."""
Asked: TypeAlias = tuple[str, str, str, str]
"""Accession number, patient ID, first and last study date of a row of a list; '' where the row does not say."""
Failed: TypeAlias = tuple[int, str, str]
"""The number of a row of a list, what it says, and why nothing came of it."""


class Definition(NamedTuple):
    """What was asked for when a project was made."""

    name: str
    created: str
    """RFC 3339, UTC."""
    timestamp: str
    """As in the directory's name."""
    where: tuple[Condition, ...] = ()
    live: bool = False
    deid: str = ""
    """The text of a profile of de-identification; '' in a project of identified instances."""
    headers: tuple[str, ...] = ()
    """Keywords whose values are to be listed."""
    source: str = ""
    """The file name of the list that it was made from."""
    queries: tuple[Asked, ...] = ()
    failed: tuple[Failed, ...] = ()
    key: str = ""
    """By which the key of its pseudonyms is known again (`project_keys.mark`); '' in a project that has none."""
    version: int = VERSION


def to_json(definition: Definition) -> dict[str, object]:
    """Return the JSON object."""
    return definition._asdict()


def from_json(held: object) -> Definition:
    """Read the JSON object; raise ValueError, KeyError or TypeError where it is none."""
    if not isinstance(held, Mapping):
        raise TypeError("a definition is an object")
    return Definition(
        _text(held["name"]),
        _text(held["created"]),
        _text(held["timestamp"]),
        tuple((_text(keyword), _text(pattern)) for keyword, pattern in held["where"]),
        bool(held["live"]),
        _text(held["deid"]),
        tuple(_text(keyword) for keyword in held["headers"]),
        _text(held["source"]),
        tuple((_text(a), _text(b), _text(c), _text(d)) for a, b, c, d in held["queries"]),
        tuple((_number(row), _text(given), _text(reason)) for row, given, reason in held["failed"]),
        _text(held.get("key", "")),
        _number(held["version"]),
    )


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("a number is expected")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text is expected")
    return value
