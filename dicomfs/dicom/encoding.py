"""The four ways to write a data set: implicit or explicit VR, little or big endian, as tables for reading.

Tags are compared as they lie in the file, as one 32-bit number ("raw"), which in little endian is element
then group: turning every tag round would cost more than everything else that is done with it. VRs are
compared as the 16-bit number that their two letters are in the byte order at hand.
"""

from collections.abc import Callable
from mmap import mmap
from struct import Struct
from typing import Final, TypeAlias

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


def shown(tag: int) -> str:
    """Return a tag as people write it."""
    return f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
