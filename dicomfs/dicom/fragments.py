"""Which fragments of encapsulated pixel data make which frame (PS3.5 A.4, PS3.3 C.7.6.3.1.8).

    7FE0,0010 OB FFFFFFFF | item: offset table | item: fragment | item: fragment | … | delimiter

Offset tables count from the first item after the basic one, to the item's tag. They are believed when each offset
is that of a fragment, in order; else the number of fragments or the ends of JPEG streams decide. Linear in the
number of fragments.
"""

from array import array
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from dicomfs.dicom.encoding import ITEM, Data, Encoding

Read: TypeAlias = Callable[[int, int], bytes | memoryview]
"""Returns bytes [start, end) of the data, bulk too."""

MOST_FRAMES: Final = 1 << 20
"""No instance has more frames or fragments: what a file claims beyond is not believed."""
_LITERAL: Final = 256
"""What is shorter is in its place in any case (`walk.SMALLEST_FRAGMENT`)."""
_AT_ONCE: Final = 1 << 16
_END_OF_IMAGE: Final = b"\xff\xd9"
_PADDED: Final = 10
"""So close to the end of its last fragment a JPEG stream ends; what follows is padding."""


class Fragments(NamedTuple):
    """Where fragments begin and end, and where the basic offset table lies."""

    starts: "array[int]"
    ends: "array[int]"
    table: tuple[int, int]


def fragments(data: Data, position: int, encoding: Encoding, read: Read) -> Fragments:
    """Find the items of encapsulated data from the first one, the offset table, on."""
    items = _Items(data, encoding, read)
    limit = len(data)
    item_raw = encoding.turn(ITEM)
    starts, ends = array("Q"), array("Q")
    table = position, position
    first = True
    while position + 8 <= limit and len(starts) < MOST_FRAMES:
        raw, length = items.at(position)
        value = position + 8
        after = value + length
        if raw != item_raw or after > limit:
            break
        if first and _is_table(data, value, length, read):
            table = value, after
        else:
            starts.append(value)
            ends.append(after)
        first = False
        position = after
        if length & 1 and after + 9 <= limit and items.at(after + 1)[0] in encoding.delimiters:
            position += 1  # padded to even length, without counting the pad
    return Fragments(starts, ends, table)


class _Items:
    """Reads item headers: those of very many fragments are bulk, like what is between them."""

    def __init__(self, data: Data, encoding: Encoding, read: Read) -> None:
        self._data = data
        self._item = encoding.item
        self._read = read
        self._begin = 0
        self._bytes: bytes | memoryview = b""

    def at(self, position: int) -> tuple[int, ...]:
        found = self._item(self._data, position)
        if found[0]:
            return found
        if not self._begin <= position <= self._begin + len(self._bytes) - 8:
            self._begin = position
            self._bytes = self._read(position, min(position + _AT_ONCE, len(self._data)))
            if len(self._bytes) < 8:
                return found
        return self._item(memoryview(self._bytes), position - self._begin)


def _is_table(data: Data, value: int, length: int, read: Read) -> bool:
    # A table is empty or starts with offset 0; a writer that leaves it out starts with a fragment. A fragment may be
    # bulk, which is not in its place.
    if length < 4:
        return True
    if any(data[value : value + 4]):
        return False
    if length < _LITERAL or any(data[value + 4 : value + 8]):
        return True
    return not any(read(value, value + 4))


def offsets(table: tuple[int, int], width: int, read: Read, *, big: bool) -> "array[int]":
    """Return the numbers of an offset table at this place; none if there are too many."""
    start, end = table
    count = (end - start) // width
    found = array("I" if width == 4 else "Q")
    if 0 < count <= MOST_FRAMES:
        found.frombytes(bytes(read(start, start + count * width)))
        if big:
            found.byteswap()
    return found


def by_offsets(found: Fragments, table: "array[int]") -> "array[int] | None":
    """Return where each frame's fragments begin by an offset table, None where it cannot be right.

    All answers have one number more than frames: where the fragments of the last one end.
    """
    count = len(found.starts)
    if not 0 < len(table) <= count or table[0] != 0:
        return None
    base = found.starts[0]
    bounds = array("I")
    number = 0
    for offset in table:
        while number < count and found.starts[number] - base < offset:
            number += 1
        if number == count or found.starts[number] - base != offset or (bounds and number == bounds[-1]):
            return None
        bounds.append(number)
    bounds.append(count)
    return bounds


def by_end_of_image(found: Fragments, read: Read) -> "array[int]":
    """Return the same by where JPEG streams end, in the last bytes of a fragment."""
    bounds = array("I")
    begins = True
    for number, (start, end) in enumerate(zip(found.starts, found.ends, strict=True)):
        if begins:
            bounds.append(number)
        begins = _END_OF_IMAGE in bytes(read(max(start, end - _PADDED), end))
    bounds.append(len(found.starts))
    return bounds


def by_frame(found: Fragments, frames: int, tables: Iterable["array[int]"], read: Read, *,
             single: bool) -> "array[int]":  # fmt: skip
    """Return the same by whatever tells it; `single`: the Standard has each frame in one fragment."""
    count = len(found.starts)
    if count == frames or count <= 1:
        return array("I", range(count + 1))
    for table in tables:
        bounds = by_offsets(found, table)
        if bounds is not None:
            return bounds
    if frames == 1:
        return array("I", [0, count])
    if single or count < frames:
        return array("I", range(min(count, frames) + 1))
    return by_end_of_image(found, read)
