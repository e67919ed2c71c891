"""Single element headers: what lies at a position, and which encoding that looks like."""

from collections.abc import Collection
from typing import Final, NamedTuple

from dicomfs.dicom.encoding import ENCODINGS, UNDEFINED, Data, Encoding

TRUSTED_HEADERS: Final = 3
"""So many plausible element headers in a row are no accident."""


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
    header, short_vrs, long_vrs = encoding.header, encoding.short_vrs, encoding.long_vrs
    for count in range(TRUSTED_HEADERS):
        if position == limit:
            return TRUSTED_HEADERS if count else 0
        if position + 8 > limit:
            return count
        # What `element_at` does, without an object for each: every file is asked at least twice.
        raw, *rest = header(data, position)
        if raw in encoding.delimiters:
            return TRUSTED_HEADERS if count else 0
        value, length = position + 8, rest[-1]
        if not encoding.implicit and rest[0] not in short_vrs:
            if rest[0] not in long_vrs or position + 12 > limit:
                return count
            value, length = position + 12, encoding.length32(data, position + 8)[0]
        tag = encoding.turn(raw)
        end = value if length == UNDEFINED else value + length
        if end > limit or tag <= above:
            return count
        if length == UNDEFINED:
            return TRUSTED_HEADERS if delimiter_at(data, end, limit, encoding) else count
        above = tag
        position = end
    return TRUSTED_HEADERS


def delimiter_at(data: Data, position: int, limit: int, encoding: Encoding) -> int:
    """Return the tag of the item or delimiter at `position`, 0 if there is none."""
    if position + 8 > limit:
        return 0
    return encoding.delimiters.get(encoding.item(data, position)[0], 0)


def recognised(
    data: Data, position: int, limit: int, expected: Encoding, candidates: Collection[Encoding] = ENCODINGS
) -> Encoding:
    """Return the encoding that the data set at `position` is really in: some writers lie about it."""
    best = expected
    best_count = max(1, plausible_headers(data, position, limit, expected))  # one header may be an accident
    for encoding in candidates:
        if best_count == TRUSTED_HEADERS:
            break
        count = plausible_headers(data, position, limit, encoding)
        if count > best_count:
            best, best_count = encoding, count
    return best
