"""How elements are written: implicit or explicit VR, byte order, and which of these some bytes look like.

Tags are compared as they lie in the file, as one 32-bit number ("raw"), which in little endian is element
then group: turning every tag round would cost more than everything else that is done with it. VRs are
compared as the 16-bit number that their two letters are in the byte order at hand.
"""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from mmap import mmap
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

Data: TypeAlias = bytes | memoryview | mmap

UNDEFINED: Final = 0xFFFFFFFF
PIXEL_DATA: Final = 0x7FE00010
FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009
ITEM: Final = 0xFFFEE000
ITEM_DELIMITER: Final = 0xFFFEE00D
SEQUENCE_DELIMITER: Final = 0xFFFEE0DD

SHORT_VRS: Final = ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO",
                    "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US")  # fmt: skip
LONG_VRS: Final = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")

TRUSTED_HEADERS: Final = 3
"""So many plausible element headers in a row are no accident."""

Unpack: TypeAlias = Callable[[Data, int], tuple[int, ...]]


class Encoding:
    """One of the four ways to write a data set, with the tables for reading it."""

    __slots__ = ("_raw", "big", "delimiters", "header", "implicit", "item", "length32", "long_vrs", "name", "pixels",
                 "sequence_vrs", "short_vrs", "vr_names")  # fmt: skip

    def __init__(self, name: str, *, implicit: bool, big: bool) -> None:
        self.name = name
        self.implicit = implicit
        self.big = big
        order = ">" if big else "<"
        self.item: Unpack = Struct(order + "II").unpack_from
        self.header: Unpack = self.item if implicit else Struct(order + "IHH").unpack_from
        self.length32: Unpack = Struct(order + "I").unpack_from
        numbers = {vr: int.from_bytes(vr.encode(), "big" if big else "little") for vr in SHORT_VRS + LONG_VRS}
        self.vr_names = {number: vr for vr, number in numbers.items()}
        self.short_vrs = frozenset(numbers[vr] for vr in SHORT_VRS)
        self.long_vrs = frozenset(numbers[vr] for vr in LONG_VRS)
        self.sequence_vrs = frozenset((0, numbers["SQ"], numbers["UN"]))
        self.pixels = frozenset(map(self.turn, (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA)))
        self.delimiters = {self.turn(tag): tag for tag in (ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER)}

    def turn(self, tag: int) -> int:
        """Return the raw form of a tag, or the tag of a raw form."""
        return tag if self.big else (tag & 0xFFFF) << 16 | tag >> 16

    def number(self, vr: str) -> int:
        """Return the number that a VR's letters are."""
        return int.from_bytes(vr.encode(), "big" if self.big else "little")


EXPLICIT_LITTLE: Final = Encoding("explicit VR little endian", implicit=False, big=False)
IMPLICIT_LITTLE: Final = Encoding("implicit VR little endian", implicit=True, big=False)
EXPLICIT_BIG: Final = Encoding("explicit VR big endian", implicit=False, big=True)
IMPLICIT_BIG: Final = Encoding("implicit VR big endian", implicit=True, big=True)
ENCODINGS: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, IMPLICIT_BIG)


@cache
def watched(wanted: frozenset[int], encoding: Encoding) -> Mapping[int, int]:
    """Map the raw tags a walk must notice to their tags, and those that are no elements to 0."""
    tags = {encoding.turn(tag): tag for tag in wanted}
    if encoding.implicit:  # in explicit VR their missing VR gives them away
        tags |= dict.fromkeys((0, *encoding.delimiters), 0)
    return tags


def shown(tag: int) -> str:
    """Return a tag as people write it."""
    return f"{tag >> 16:04X},{tag & 0xFFFF:04X}"


class Element(NamedTuple):
    """An element header read on its own: `value` is -1 where none can lie, `end` may be past the limit."""

    tag: int
    vr: int
    value: int
    length: int

    def end(self, limit: int) -> int:
        """Return where the value ends, -1 if past `limit`; an undefined length counts as none."""
        end = self.value + (0 if self.length == UNDEFINED else self.length)
        return end if end <= limit else -1


_NO_ELEMENT: Final = Element(0, 0, -1, 0)


def element_at(data: Data, position: int, limit: int, encoding: Encoding) -> Element:
    """Read the element header at `position`."""
    if position + 8 > limit:
        return _NO_ELEMENT
    if encoding.implicit:
        raw, length = encoding.header(data, position)
        return Element(encoding.turn(raw), 0, position + 8, length)
    raw, vr, length = encoding.header(data, position)
    if vr in encoding.short_vrs:
        return Element(encoding.turn(raw), vr, position + 8, length)
    if vr in encoding.long_vrs and position + 12 <= limit:
        return Element(encoding.turn(raw), vr, position + 12, encoding.length32(data, position + 8)[0])
    return _NO_ELEMENT


def looks_like_element(data: Data, position: int, limit: int, encodings: Collection[Encoding], above: int) -> bool:
    """Tell whether an element with a higher tag than `above`, or a delimiter, or the end lies at `position`."""
    if position == limit:
        return True
    if position + 8 > limit:
        return False
    for encoding in encodings:
        if delimiter_at(data, position, limit, encoding):
            return True
        element = element_at(data, position, limit, encoding)
        if element.tag > above and element.end(limit) >= 0:
            return True
    return False


def plausible_headers(data: Data, position: int, limit: int, encoding: Encoding) -> int:
    """Count element headers in ascending order from `position`, as far as TRUSTED_HEADERS.

    Reaching the end exactly settles it as well, and so does an item where one should be.
    """
    above = -1
    for count in range(TRUSTED_HEADERS):
        if count and (position == limit or delimiter_at(data, position, limit, encoding)):
            return TRUSTED_HEADERS
        element = element_at(data, position, limit, encoding)
        end = element.end(limit)
        if element.value < 0 or end < 0 or element.tag <= above:
            return count
        if element.length == UNDEFINED:
            return TRUSTED_HEADERS if delimiter_at(data, end, limit, encoding) else count
        above = element.tag
        position = end
    return TRUSTED_HEADERS


def delimiter_at(data: Data, position: int, limit: int, encoding: Encoding) -> int:
    """Return the tag of the item or delimiter at `position`, 0 if there is none."""
    if position + 8 > limit:
        return 0
    return encoding.delimiters.get(encoding.item(data, position)[0], 0)


def recognised(data: Data, position: int, limit: int, expected: Encoding) -> Encoding:
    """Return the encoding that the data set at `position` is really in: some writers lie about it."""
    best = expected
    best_count = plausible_headers(data, position, limit, expected)
    for encoding in ENCODINGS:
        if best_count == TRUSTED_HEADERS:
            break
        count = plausible_headers(data, position, limit, encoding)
        if count > best_count:
            best, best_count = encoding, count
    return best
