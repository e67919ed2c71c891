"""What an attacker knows and looks for: the original values of everything that the Basic Profile takes away.

Independent of dicomfs: the values are pydicom's, and what the profile takes away is told by another program's table
of PS3.15 E.1-1 (dicom-anonymizer). What is no string of some length proves nothing, nor does what a file also says in
elements that stay.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import pydicom
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.errors import InvalidDicomError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

SHORTEST = 4
"""A shorter value is in any file by chance."""
CERTAIN = 8
"""A value of this length is looked for anywhere in the bytes; a shorter one, as a value or a word of one."""
TEXT = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
_RUNS = re.compile(rb"[ -~\x80-\xff]{6,}")
_WORDS = re.compile(rb"[^\\^=\s,;:/_()<>\"'&-]+")
_STANDARD = b"1.2.840.10008."


def _taken_away() -> tuple[frozenset[int], list[tuple[int, int, int, int]]]:
    exact, masked = set(), []
    for name in ("D", "Z", "X", "U", "Z_D", "X_Z", "X_D", "X_Z_D"):
        for tag in getattr(table, f"{name}_TAGS"):
            if len(tag) == 2:
                exact.add(tag[0] << 16 | tag[1])
            else:
                masked.append(tag)
    return frozenset(exact), masked


EXACT, MASKED = _taken_away()


CONSTANT: Final = frozenset({b"REMOVED", b"MODIFIED", b"UNMODIFIED", b"19000101", b"POINT"})
"""What results say themselves: how dates were treated, a date and a term of the Standard in the place of others."""


def is_taken_away(tag: int, spared: frozenset[int] = frozenset()) -> bool:
    """Say whether the Basic Profile keeps the value of an attribute from the result, but for what options spare."""
    group, element = tag >> 16, tag & 0xFFFF
    return tag not in spared and (
        tag in EXACT
        or bool(group & 1)
        or any(group & mask == at and element & mask2 == at2 for at, at2, mask, mask2 in MASKED)
    )


class Known(NamedTuple):
    """What a file says: what the profile takes away, and what stays."""

    secret: frozenset[bytes]
    kept: bytes


def known(path: Path, spared: frozenset[int] = frozenset(), vrs: frozenset[str] = frozenset()) -> Known:
    """Read what is to be found out about a file, but for attributes that options of the profile spare."""
    ds = pydicom.dcmread(path, force=True)
    secret: set[bytes] = set()
    kept: list[bytes] = []
    for data_set in (ds.file_meta, ds):
        for tag, vr, value, away in _values(data_set, spared, away=False):
            if tag >> 16 == 0x7FE0:
                continue
            if (away and vr not in vrs) or vr == "PN":
                secret.update(_needles(vr, value))
            else:
                kept.append(value)
    return Known(frozenset(secret), b"\n".join(kept))


def _values(ds: Dataset, spared: frozenset[int], *, away: bool) -> Iterator[tuple[int, str, bytes, bool]]:
    """Yield every value of a data set and of what is in it, as bytes, and whether it is taken away."""
    for tag in list(ds.keys()):
        element = ds.get_item(tag)
        gone = away or is_taken_away(int(tag), spared)
        if isinstance(element, RawDataElement):
            vr = element.VR or _usual(int(tag))
            if vr == "SQ" or (vr == "UN" and element.value and element.value[:4] == b"\xfe\xff\x00\xe0"):
                try:
                    element = ds[tag]
                except Exception:  # noqa: BLE001 - what pydicom cannot read is bytes to the attacker
                    yield int(tag), "UN", element.value or b"", gone
                    continue
            else:
                yield int(tag), vr, element.value or b"", gone
                continue
        assert isinstance(element, DataElement)
        if element.VR == "SQ":
            for item in element.value or []:
                yield from _values(item, spared, away=gone)
        else:
            value = element.value
            text = (
                value
                if isinstance(value, bytes)
                else "\\".join(map(str, value if isinstance(value, list) else [value]))
            )
            yield int(tag), element.VR, text if isinstance(text, bytes) else text.encode(), gone


def _usual(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _needles(vr: str, value: bytes) -> Iterator[bytes]:
    if vr in TEXT or vr == "UN" or vr == "OB":
        pieces = value.split(b"\\") if vr in TEXT else _RUNS.findall(value[:65536])
        for piece in pieces:
            stripped = piece.strip(b"\0 \t\r\n")
            yield from (one for one in (stripped, *(_words(stripped) if vr == "PN" else ())) if _tells(one))


def _words(value: bytes) -> list[bytes]:
    return _WORDS.findall(value)


def _tells(value: bytes) -> bool:
    return len(value) >= SHORTEST and len(set(value)) > 2 and not value.startswith(_STANDARD) and value not in CONSTANT


def leaks(secret: frozenset[bytes], kept: bytes, path: Path) -> set[bytes]:
    """Return what of the secret is in a file, outside of its pixels, and cannot be from what stays."""
    data = without_pixels(path)
    words = {word for part in re.split(rb"[\\\0]", data) for word in (part.strip(), *_words(part))}
    found = set()
    for value in secret:
        there = value in data if len(value) >= CERTAIN else value in words
        if there and value not in kept:
            found.add(value)
    return found


def without_pixels(path: Path) -> bytes:
    """Return the bytes of a file but for its pixels; all of them where it is none."""
    data = path.read_bytes()
    try:
        ds = pydicom.dcmread(path)
    except InvalidDicomError:
        return data
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        pixels = ds.get(keyword)
        if pixels:
            data = data.replace(bytes(pixels), b"")
    return data
