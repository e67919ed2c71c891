"""Several edits of one instance, one after another, as pieces of the file that the first of them is made of.

    data    ----------------------------
    first   --[new]---------------------     edit(data, first changes)
    second  --[new]--------[new]--------     edit(that, second changes), told by ranges of `data` again

What lies between is in no file: only its header is put together, with zeros where the data has them.
"""

import mmap
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from dicomfs.dicom import part10 as part10s
from dicomfs.dicom.edit import Read, edit
from dicomfs.dicom.edit_changes import Changes
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.pieces import Piece, Range, joined, length
from dicomfs.dicom.refusal import Refused

_STEP: Final = 1 << 16
_ZEROS: Final = bytes(_STEP)


def edit_in_turn(data: Data, part10: Part10, read: Read, changes: Sequence[Changes]) -> list[Piece] | None:
    """Return what `edit` makes of the data with the first changes, of that with the next, and so on.

    Raise Refused where any of them cannot be made. None if none changes anything.
    """
    made: list[Piece] | None = None
    for one in changes:
        pieces = edit(data, part10, read, one) if made is None else _again(data, read, made, one)
        if pieces is not None:
            made = pieces if made is None else _composed(made, pieces)
    return made


def _again(data: Data, read: Read, made: Sequence[Piece], changes: Changes) -> list[Piece] | None:
    between = _skeleton(data, made)
    located = part10s.locate(between)
    if located is None:
        raise Refused("what an earlier edit makes of it is no DICOM file")
    return edit(between, located, _reader(read, made), changes)


def _starts(made: Sequence[Piece]) -> list[int]:
    return list(accumulate((length((piece,)) for piece in made), initial=0))


def _within(made: Sequence[Piece], starts: Sequence[int], start: int, end: int) -> list[Piece]:
    """Return the pieces of a range of what pieces make."""
    found: list[Piece] = []
    number = bisect_right(starts, start) - 1
    while start < end:
        piece, at = made[number], starts[number]
        stop = min(end, starts[number + 1])
        if isinstance(piece, Range):
            found.append(Range(piece.start + start - at, piece.start + stop - at))
        else:
            found.append(piece[start - at : stop - at])
        start = stop
        number += 1
    return found


def _composed(made: Sequence[Piece], pieces: Sequence[Piece]) -> list[Piece]:
    """Return pieces whose ranges are of what `made` makes, with ranges of the data instead."""
    starts = _starts(made)
    return joined(
        part
        for piece in pieces
        for part in (_within(made, starts, piece.start, piece.end) if isinstance(piece, Range) else (piece,))
    )


def _reader(read: Read, made: Sequence[Piece]) -> Callable[[int, int], bytes]:
    starts = _starts(made)

    def again(start: int, end: int) -> bytes:
        parts = _within(made, starts, start, min(end, starts[-1]))
        return b"".join(bytes(read(part.start, part.end)) if isinstance(part, Range) else part for part in parts)

    return again


def _skeleton(data: Data, made: Sequence[Piece]) -> Data:
    """Return what pieces make; where the data has zeros no memory is taken."""
    between = mmap.mmap(-1, max(length(made), 1))
    at = 0
    for piece in made:
        if not isinstance(piece, Range):
            between[at : at + len(piece)] = piece
            at += len(piece)
            continue
        for start in range(piece.start, piece.end, _STEP):
            part = bytes(data[start : min(start + _STEP, piece.end)])
            if part != _ZEROS[: len(part)]:
                between[at : at + len(part)] = part
            at += len(part)
    return between
