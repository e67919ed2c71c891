"""The pieces that a file made of another is put together from: bytes of its own, and ranges of the data taken over."""

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from dicomfs.dicom.encoding import ITEM, LONG_VRS, SEQUENCE_DELIMITER, UNDEFINED, Encoding

_LONG: Final = frozenset(LONG_VRS)
_SHORT_AT_MOST: Final = 0xFFFE
_NUL: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UI", "UN"))


class Range(NamedTuple):
    """Bytes [start, end) of the data, taken over as they are."""

    start: int
    end: int


Piece: TypeAlias = bytes | Range


def length(pieces: Iterable[Piece]) -> int:
    """Return how many bytes pieces are."""
    return sum(piece.end - piece.start if isinstance(piece, Range) else len(piece) for piece in pieces)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Return the same with one piece of bytes between ranges, and no empty ones."""
    found: list[Piece] = []
    own: list[bytes] = []
    for piece in pieces:
        if not isinstance(piece, Range):
            own.append(piece)
            continue
        if own:
            found.append(b"".join(own))
            own = []
        if piece.end > piece.start:
            found.append(piece)
    return [*found, b"".join(own)] if own else found


class Form:
    """Writes headers in one encoding; lengths are even, as PS3.5 7.1.1 has it."""

    __slots__ = ("_item", "_long", "_short", "_turn", "_vrs", "encoding")

    def __init__(self, encoding: Encoding) -> None:
        order = ">" if encoding.big else "<"
        self.encoding = encoding
        self._item = Struct(order + "II").pack
        self._short = Struct(order + "IHH").pack
        self._long = Struct(order + "IHHI").pack
        self._turn = encoding.turn
        self._vrs = {name: number for number, name in encoding.vr_names.items()}

    def header(self, tag: int, vr: str, size: int) -> bytes:
        """Write the header of an element whose value is `size` bytes."""
        if self.encoding.implicit:
            return self._item(self._turn(tag), size)
        if vr in _LONG:
            return self._long(self._turn(tag), self._vrs[vr], 0, size)
        return self._short(self._turn(tag), self._vrs[vr], size)

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        """Write an element; a value that does not fit its VR is left out."""
        if len(value) & 1:
            value += b"\0" if vr in _NUL else b" "
        if len(value) > _SHORT_AT_MOST and vr not in _LONG:
            value = b""
        return self.header(tag, vr, len(value)) + value

    def item(self, content: list[Piece]) -> list[Piece]:
        """Write an item."""
        return [self._item(self._turn(ITEM), length(content)), *content]

    def item_header(self, size: int) -> bytes:
        """Write the header of an item or a fragment."""
        return self._item(self._turn(ITEM), size)

    def sequence(self, tag: int, items: Iterable[list[Piece]]) -> list[Piece]:
        """Write a sequence of the contents of its items."""
        content = joined(piece for item in items for piece in self.item(joined(item)))
        return [self.header(tag, "SQ", length(content)), *content]

    def encapsulated(self, tag: int, items: Iterable[Piece]) -> list[Piece]:
        """Write what is encapsulated in items of its own."""
        return [self.header(tag, "OB", UNDEFINED), *items, self._item(self._turn(SEQUENCE_DELIMITER), 0)]
