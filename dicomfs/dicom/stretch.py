"""A range of an instance's data, and the bytes that are served for it: swapped, shifted, or just as they are.

    data     start |------- end       read, whole samples of it
    swapped        |-------           each `swap` bytes reversed, counted from `start`; what is left over stays
    served         ..|----            `bits` bits from bit `skip` on, the last byte filled up with zeros

Bits are counted from the lowest of each byte, as pixels of one bit are packed (PS3.5 8.1.1).
"""

from array import array
from typing import Final, NamedTuple

_SWAPPED: Final = {array(code).itemsize: code for code in "HIQ"}


class Stretch(NamedTuple):
    """A range of the data and what is done to it."""

    start: int
    end: int
    swap: int = 1
    skip: int = 0
    bits: int = -1
    """-1: all that there are."""

    @property
    def length(self) -> int:
        """How many bytes are served."""
        return self.end - self.start if self.bits < 0 else (self.bits + 7) >> 3

    @property
    def plain(self) -> bool:
        """Whether the bytes are served as they are."""
        return self.swap == 1 and self.bits < 0

    def source(self, first: int, last: int) -> tuple[int, int]:
        """Return the range of the data that served bytes [first, last) are made of."""
        begin = self.start + (self.skip + 8 * first) // 8 // self.swap * self.swap
        stop = -(-(self.skip + 8 * last) // 8)
        return begin, min(self.start - (-stop // self.swap) * self.swap, self.end)

    def served(self, data: bytes | memoryview, first: int, last: int) -> bytes | memoryview:
        """Return served bytes [first, last), made of the bytes at `source`."""
        if self.plain or first >= last:
            return data[: last - first]
        begin, _ = self.source(first, last)
        data = swapped(data, self.swap)
        bit = self.skip + 8 * first - 8 * (begin - self.start)
        if self.bits < 0 and not bit:
            return data[: last - first]
        left = len(data) * 8 if self.bits < 0 else self.bits - 8 * first
        kept = min(left, 8 * (last - first))
        if not (bit | kept) & 7:
            return data[bit // 8 : (bit + kept) // 8]
        number = int.from_bytes(data, "little") >> bit & (1 << kept) - 1
        return number.to_bytes((kept + 7) // 8, "little")


def swapped(data: bytes | memoryview, width: int) -> bytes | memoryview:
    """Reverse each `width` bytes; what is left over at the end stays as it is."""
    if width not in _SWAPPED:
        return data
    whole = len(data) // width * width
    samples = array(_SWAPPED[width], bytes(data[:whole]))
    samples.byteswap()
    return samples.tobytes() + bytes(data[whole:])
