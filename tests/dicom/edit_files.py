"""Editing what a test has as bytes: the file joined again, and what of it is its own."""

from itertools import pairwise
from typing import NamedTuple

from dicomfs.dicom import part10 as part10s
from dicomfs.dicom.edit import Changes, Range, edit
from tests.dicom.deid_files import hollow

TIME = "2026-01-31T12:34:56.789Z"
UTF_8 = "ISO_IR 192"


class Edited(NamedTuple):
    data: bytes
    ranges: list[bytes]
    """What is taken over."""


def changes(settings: dict[int, tuple[str, ...]] | None = None, **others: object) -> Changes:
    return Changes(time=TIME, set=settings or {}, **others)  # type: ignore[arg-type]


def edited(file: bytes, asked: Changes) -> Edited | None:
    """Edit a file; None where nothing changes."""
    part10 = part10s.locate(file)
    assert part10 is not None
    if part10.deflated:
        file = bytes(part10s.inflated(file, part10.start))
        part10 = part10s.locate(file)
        assert part10 is not None
    pieces = edit(hollow(file, part10), part10, lambda start, end: file[start:end], asked)
    if pieces is None:
        return None
    ranges = [piece for piece in pieces if isinstance(piece, Range)]
    for before, after in pairwise(ranges):
        assert before.start < before.end
        assert before.end <= after.start or after.end <= before.start
    whole = b"".join(file[piece.start : piece.end] if isinstance(piece, Range) else piece for piece in pieces)
    return Edited(whole, [file[piece.start : piece.end] for piece in ranges])
