"""JSON documents of a static DICOMweb tree: lists of objects, of which one at a time is in memory as objects.

A document of a study may have thousands of instances; its text is kept, and where each object lies in it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from dicomfs.archive.static_files import Tree, Unusable
from dicomfs.dicom.json_values import Json, Number, first_text

SOP_INSTANCE_UID: Final = "00080018"
SERIES_INSTANCE_UID: Final = "0020000E"

_decode: Final = json.JSONDecoder(parse_float=Number, parse_constant=Number).raw_decode
_BETWEEN: Final = re.compile(r"[ \t\r\n,]*")


class Place(NamedTuple):
    """Where an object lies: its document's text, and where it begins in it."""

    path: str
    text: str
    start: int

    def object(self) -> dict[str, Json]:
        """Parse the object again."""
        value, _ = _parsed(self.text, self.start, self.path)
        return value


def objects(tree: Tree, path: str, *, most: int = 0) -> Iterator[tuple[Place, dict[str, Json]]]:
    """Yield the objects of a document, a list of them or one alone; `most` of them unless it is 0. Raise Unusable."""
    text = tree.document(path)
    at = _after_blanks(text, 0)
    listed = text.startswith("[", at)
    at = _after_blanks(text, at + listed)
    found = 0
    while at < len(text) and text[at] != "]" and not (most and found >= most):
        value, after = _parsed(text, at, path)
        yield Place(path, text, at), value
        found += 1
        at = _after_blanks(text, after)
        if not listed:
            break
    if listed and not most and not text.startswith("]", at):
        raise Unusable(f"{path} is damaged: its JSON ends too early")


def uid_of(record: Mapping[str, Json], tag: str) -> str:
    """Return a UID of an object, "" where it has none."""
    element = record.get(tag)
    return first_text(element) if isinstance(element, dict) else ""


def _parsed(text: str, at: int, path: str) -> tuple[dict[str, Json], int]:
    try:
        value, after = _decode(text, at)
    except ValueError as error:
        raise Unusable(f"{path} is damaged: its JSON cannot be read") from error
    except RecursionError as error:
        raise Unusable(f"{path} is nested too deeply") from error
    if not isinstance(value, dict):
        raise Unusable(f"{path} has something else than objects in its list")
    return value, after


def _after_blanks(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at
