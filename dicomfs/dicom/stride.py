"""The innermost loops: from one element header to the next, until one needs a decision."""

from collections.abc import Mapping
from typing import Final, TypeAlias

from dicomfs.dicom.encoding import Data, Encoding

LARGE: Final = 1 << 20
"""A value beyond this is kept apart from the header; a sequence beyond this is looked into."""

Found: TypeAlias = tuple[int, int, int]
"""A value: its VR as a number (0 where the encoding does not tell), where it starts, where it ends."""


def noticed(wanted: frozenset[int], encoding: Encoding) -> Mapping[int, int]:
    """Map the raw tags that a stride must notice to their tags, and those that are no elements to 0."""
    tags = {encoding.turn(tag): tag for tag in wanted}
    if encoding.implicit:  # in explicit VR their missing VR gives them away
        tags |= dict.fromkeys((0, *encoding.delimiters), 0)
    return tags


def explicit(
    data: Data, position: int, limit: int, encoding: Encoding, noticed: Mapping[int, int], found: dict[int, Found]
) -> tuple[int, int, int, int, int]:
    """Step over elements as far as one that needs a decision: (start, raw tag, VR, value, length).

    The raw tag is -1 where no header fits any more, the value -1 where the VR does not exist.
    This is the import's innermost loop: about 0.2 µs an element.
    """
    header, length32, pixels = encoding.header, encoding.length32, encoding.pixels
    short_vrs, long_vrs = encoding.short_vrs, encoding.long_vrs
    last = limit - 8
    while position <= last:
        start = position
        raw, vr, length = header(data, start)
        if vr in short_vrs:
            value = start + 8
        elif vr in long_vrs:
            value = start + 12
            if value > limit:
                break
            length = length32(data, start + 8)[0]
            if length > LARGE or raw in pixels:
                return start, raw, vr, value, length
        else:
            return start, raw, vr, -1, length
        position = value + length
        if raw in noticed and position <= limit:
            found[noticed[raw]] = (vr, value, position)
    if position > limit:
        return start, raw, vr, value, length
    return position, -1, 0, -1, 0


def implicit(
    data: Data, position: int, limit: int, encoding: Encoding, noticed: Mapping[int, int], found: dict[int, Found]
) -> tuple[int, int, int, int, int]:
    """Do the same for elements without a VR; the value is -1 for delimiters and zeros."""
    header, pixels = encoding.header, encoding.pixels
    last = limit - 8
    while position <= last:
        start = position
        raw, length = header(data, start)
        position = start + 8 + length
        if raw in noticed:
            tag = noticed[raw]
            if tag == 0:
                return start, raw, 0, -1, length
            if position <= limit:
                found[tag] = (0, start + 8, position)
        if length > LARGE or raw in pixels:
            return start, raw, 0, start + 8, length
    if position > limit:
        return start, raw, 0, start + 8, length
    return position, -1, 0, -1, 0
