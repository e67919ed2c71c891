"""Patches of a file: ranges that are replaced, and the lengths that follow from them."""

from collections.abc import Iterable, Sequence
from struct import pack
from typing import Final, NamedTuple

from dicomfs.dicom.edit_places import UNDEFINED_LENGTH, UNKNOWN_LENGTH, Enclosure
from dicomfs.dicom.pieces import Piece, Range, joined, length
from dicomfs.dicom.refusal import Refused

_LONGEST: Final = 0xFFFFFFFE


class _Patch(NamedTuple):
    start: int
    end: int
    order: int
    """Of what is put in at the same place."""
    pieces: Sequence[Piece]


class Patches:
    """What is replaced in one file of `size` bytes, in any order; ranges may not overlap."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._patches: list[_Patch] = []

    def __bool__(self) -> bool:
        return bool(self._patches)

    def replace(self, start: int, end: int, pieces: Sequence[Piece], within: Enclosure | None, order: int = 0) -> None:
        """Put pieces in the place of a range, which may be empty; `within` is the innermost enclosure of the range."""
        self._patches.append(_Patch(start, end, order, pieces))
        if within is not None:
            within.delta += length(pieces) - (end - start)

    def lengths(self, enclosures: Iterable[Enclosure]) -> None:
        """Correct the lengths of what encloses patches; each enclosure comes before those within it."""
        for enclosure in reversed(list(enclosures)):
            delta = enclosure.delta
            if not delta or enclosure.gone:
                continue
            if enclosure.parent is not None:
                enclosure.parent.delta += delta
            if enclosure.field == UNKNOWN_LENGTH:
                raise Refused("what is to be changed lies in a sequence whose length is written in no known way")
            if enclosure.field != UNDEFINED_LENGTH:
                new = enclosure.length + delta
                if not 0 <= new <= _LONGEST:
                    raise Refused("a sequence or a group in it would be too long, or has a wrong length")
                field = pack(">I" if enclosure.big else "<I", new)
                self._patches.append(_Patch(enclosure.field, enclosure.field + 4, 0, (field,)))

    def pieces(self, start: int, end: int) -> list[Piece]:
        """Return what becomes of the range [start, end) of the data."""
        found: list[Piece] = []
        at = start
        for patch in sorted(self._patches, key=lambda patch: patch[:3]):
            if not start <= patch.start < end + (end == self._size):
                continue
            if patch.start < at or patch.end > end:
                raise Refused("elements that are to be changed overlap")
            found.append(Range(at, patch.start))
            found += patch.pieces
            at = patch.end
        return joined([*found, Range(at, end)])
