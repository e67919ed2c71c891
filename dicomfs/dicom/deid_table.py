"""The Standard's tables for de-identification: what becomes of an attribute, and which private ones are safe.

They are kept as text beside this module, one attribute a line; see there for the editions.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

_TABLE: Final = "confidentiality.tsv"
_SAFE: Final = "safe_private.tsv"


class Row(NamedTuple):
    """A line of Table E.1-1: the action of the Basic Profile, and those of options by name."""

    basic: str
    options: Mapping[str, str]


@cache
def confidentiality() -> Mapping[int, Row]:
    """Return Table E.1-1 by tag, without the groups 50xx and 60xx: these are removed whole."""
    rows = {}
    for tag, basic, *options in _lines(_TABLE):
        if "x" not in tag:
            pairs = (option.split("=") for option in " ".join(options).split())
            rows[int(tag, 16)] = Row(basic, dict(pairs))
    return rows


@cache
def safe_private() -> frozenset[tuple[str, int, int]]:
    """Return Table E.3.10-1 as (creator, group, element within its block)."""
    return frozenset(
        (creator, int(group, 16), int(element, 16))
        for creator, group, elements in _lines(_SAFE)
        for element in elements.split()
    )


def _lines(name: str) -> list[list[str]]:
    text = files("dicomfs.dicom").joinpath(name).read_text("utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
