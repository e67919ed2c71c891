"""Where the elements of a data set lie: one pass over its bytes, without recursion and without copies.

The walker is fed whatever people have on their disks, so nothing here raises. What it cannot follow it
steps over when an enclosing length says how far; otherwise it stops there and says why. It decides only
where values begin and end; what becomes of them is decided in `split` and `attributes`.

    element, explicit   group element VR length16 value                 PS3.5 7.1.2
                        group element VR 0000 length32 value
    element, implicit   group element length32 value                    PS3.5 7.1.3
    item or delimiter   FFFE  E000|E00D|E0DD length32                   PS3.5 7.5, A.4

Sequences are stepped over in one go unless their length is undefined or large: no value that small is
kept apart from the header, and no attribute of the catalog lies within one.
"""

from functools import cache
from typing import ClassVar, Final, NamedTuple

from dicomfs.dicom.encoding import (
    ENCODINGS,
    IMPLICIT_LITTLE,
    ITEM,
    PIXEL_DATA,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    Data,
    Encoding,
    shown,
)
from dicomfs.dicom.headers import delimiter_at, element_at, looks_like_element, recognised
from dicomfs.dicom.stride import LARGE, Found, explicit, implicit, noticed

SMALLEST_PIXELS: Final = 1024
SMALLEST_FRAGMENT: Final = 256
DEEPEST: Final = 1 << 18
"""Sequences nested deeper than this are not followed."""
MOST_FRAGMENTS: Final = 1 << 18
"""So many fragments are kept as one value, whenever there are more: memory must not grow with what a file claims."""
STRAY_DELIMITERS: Final = 64
"""So many delimiters that delimit nothing are taken for sloppiness, more for noise."""

NATIVE, FRAGMENT, VALUE = 1, 2, 3
"""Kinds of bulk: native pixel data (all frames), a fragment, any other large value."""

_NO_TAGS: Final[frozenset[int]] = frozenset()
_noticed = cache(noticed)
_noticed_within: Final = {encoding: noticed(_NO_TAGS, encoding) for encoding in ENCODINGS}


class Bulk(NamedTuple):
    """A range of the file that is worth keeping apart, with the tag of the element it belongs to."""

    kind: int
    tag: int
    start: int
    end: int


class Fault(NamedTuple):
    """Why the walk ended before the data did; `cut` when it is the data that ended too early."""

    cut: bool
    offset: int
    what: str


class _Container:
    """A data set (elements follow) or a sequence (items follow) that the walk is inside of."""

    __slots__ = ("defined", "encoding", "items", "limit", "start", "tag")

    def __init__(self, tag: int, start: int, limit: int, encoding: Encoding, *, items: bool, defined: bool) -> None:
        self.tag = tag
        self.start = start
        self.limit = limit
        self.encoding = encoding
        self.items = items
        self.defined = defined


class Walk:
    """One finished walk over `data[start:end]`, a data set in `encoding`.

    `found` holds the last value of each wanted tag of the outermost level, `bulk` the ranges to keep apart
    in the order of the file, `stop` the first byte that was not understood (`end` when all was).
    """

    __slots__ = ("_data", "_end", "_notice", "_pixels_seen", "_stack", "_strays", "_top", "_wanted",
                 "bulk", "encoding", "fault", "found", "stop")  # fmt: skip
    INTO_ALL: ClassVar = False
    """Whether items that are not large are looked into as well."""

    def __init__(self, data: Data, start: int, end: int, encoding: Encoding, wanted: frozenset[int] = _NO_TAGS) -> None:
        self._data = data
        self._end = end
        self._wanted = wanted
        self._notice = _noticed(wanted, encoding)
        self._pixels_seen = False
        self._strays = 0
        self._stack: list[_Container] = []
        self._top = _Container(0, start, end, encoding, items=False, defined=True)
        self.encoding = encoding
        self.found: dict[int, Found] = {}
        self.bulk: list[Bulk] = []
        self.fault: Fault | None = None
        self.stop = -1
        position = start
        while self.stop < 0:
            if len(self._stack) > DEEPEST:
                position = self._lost(position, f"sequences nest too deep at byte {position}", cut=False)
                continue
            position = self._in_sequence(position) if self._top.items else self._in_data_set(position)

    # Where elements follow -----------------------------------------------------------------------

    def _in_data_set(self, position: int) -> int:
        top = self._top
        encoding = top.encoding
        notice = _noticed_within[encoding] if self._stack else self._notice
        stride = implicit if encoding.implicit else explicit
        start, raw, vr, value, length = stride(self._data, position, top.limit, encoding, notice, self.found)
        if raw < 0:
            return self._no_more_elements(start)
        tag = encoding.turn(raw)
        if value < 0:
            return self._not_an_element(start, tag)
        if length == UNDEFINED:
            if not self._stack and tag in self._wanted:
                self.found[tag] = (encoding.number("SQ"), value, value)
            return self._undefined(start, tag, vr, value)
        after = value + length
        if after > top.limit:
            return self._past_the_end(start, tag, length)
        if not self._stack and tag in self._wanted:
            self.found[tag] = (vr, value, after)
        if raw in encoding.pixels and not self._stack:
            self._pixels_seen = True
            if length >= SMALLEST_PIXELS:
                self.bulk.append(Bulk(NATIVE, tag, value, after))
        elif length > LARGE:
            if vr in encoding.sequence_vrs and self._item_at(value, after, encoding):
                self._enter(tag, start, after, encoding, items=True, defined=True)
                return value
            self.bulk.append(Bulk(VALUE, tag, value, after))
        return after

    def _no_more_elements(self, position: int) -> int:
        top = self._top
        if not self._stack:
            if self._header_cut(position):
                what = f"the data ends within the header of an element at byte {position}"
                return self._lost(position, what, cut=True)
            self.stop = self._end
            return position
        if top.defined:
            self._leave()
            return top.limit
        return self._unclosed(position)

    def _header_cut(self, position: int) -> bool:
        # Fewer than 8 (12) bytes are left. Padding and line ends are common there, so they must look the part.
        left = bytes(self._data[position : self._end])
        if len(left) < 4 or not left.strip(b"\0\xff\t\n\r "):
            return False
        encoding = self._top.encoding
        tag = encoding.turn(encoding.length32(left, 0)[0])
        if tag <= self._highest() or tag >> 16 == 0xFFFE:
            return False
        if encoding.implicit or len(left) < 6:
            return tag >> 16 <= 0x7FE0
        return int.from_bytes(left[4:6], "big" if encoding.big else "little") in encoding.vr_names

    def _highest(self) -> int:
        # The highest tag that is known to have passed, for telling a cut element from trailing noise.
        return PIXEL_DATA if self._pixels_seen else max(self.found, default=0)

    def _past_the_end(self, start: int, tag: int, length: int) -> int:
        encoding = self._top.encoding
        noise = not self._stack and (self._pixels_seen or encoding.implicit) and tag <= self._highest()
        return self._lost(start, too_long(shown(tag), start, length), cut=not noise)

    def _not_an_element(self, position: int, tag: int) -> int:
        if tag >> 16 == 0xFFFE and tag & 0xFFFF in (0xE000, 0xE00D, 0xE0DD):
            return self._delimiter(position, tag)
        if tag == 0 and not self._stack:  # zeros after the data set; command elements are never stored
            self.stop = position
            return position
        if self._top.encoding.implicit:
            return self._lost(position, f"no element at byte {position}", cut=False)
        return self._odd_vr(position, tag)

    def _delimiter(self, position: int, tag: int) -> int:
        top = self._top
        if self._stack and not top.defined:
            self._leave()
            if tag == ITEM:  # the delimiter of the item before it is missing
                return position
            if tag == SEQUENCE_DELIMITER and not self._top.defined:  # and so here
                self._leave()
            return position + 8
        self._strays += 1
        if self._strays > STRAY_DELIMITERS:
            return self._lost(position, f"no element at byte {position}", cut=False)
        return position + 8

    def _odd_vr(self, position: int, tag: int) -> int:
        # A VR that does not exist: a later edition's, a blank, or none because the writer fell into implicit VR
        # (PS3.5 6.2.2, 7.1.2). The reading after which another element follows is the right one.
        encoding = self._top.encoding
        limit = self._top.limit
        short = encoding.header(self._data, position)[2]
        readings = [(position + 8, short), (position + 8, encoding.item(self._data, position)[1])]
        if position + 12 <= limit:
            long = (position + 12, encoding.length32(self._data, position + 8)[0])
            readings.insert(0 if short == 0 else 2, long)
        for value, length in readings:
            if length == UNDEFINED and self._item_at(value, limit, encoding):
                return self._undefined(position, tag, 0, value)
            after = value + length
            if after <= limit and looks_like_element(self._data, after, limit, ENCODINGS[encoding.big * 2 :][:2], tag):
                return self._odd_value(tag, value, after)
        return self._lost(position, f"no element at byte {position}", cut=False)

    def _odd_value(self, tag: int, value: int, after: int) -> int:
        if not self._stack and tag in self._wanted:
            self.found[tag] = (0, value, after)
        if after - value > LARGE:
            self.bulk.append(Bulk(VALUE, tag, value, after))
        return after

    # Values of undefined length ------------------------------------------------------------------

    def _undefined(self, start: int, tag: int, vr: int, value: int) -> int:
        encoding = self._top.encoding
        if vr not in encoding.sequence_vrs or encoding.turn(tag) in encoding.pixels:
            return self._encapsulated(start, tag, value)
        if vr == encoding.number("UN") and self._item_at(value, self._top.limit, IMPLICIT_LITTLE):
            encoding = IMPLICIT_LITTLE  # PS3.5 6.2.2 note 2
        self._enter(tag, start, self._top.limit, encoding, items=True, defined=False)
        return value

    def _encapsulated(self, start: int, tag: int, position: int) -> int:
        """Step over the fragments of encapsulated data, PS3.5 A.4; the first item is the offset table."""
        data, limit, encoding = self._data, self._top.limit, self._top.encoding
        item = encoding.item
        item_raw, delimiter_raw = encoding.turn(ITEM), encoding.turn(SEQUENCE_DELIMITER)
        smallest = LARGE + 1 if self._stack else SMALLEST_FRAGMENT
        first = True
        before = len(self.bulk)
        while position + 8 <= limit:
            raw, length = item(data, position)
            if raw != item_raw:
                break
            value = position + 8
            after = value + length
            if after > limit:
                return self._lost(position, too_long(f"a fragment of {shown(tag)}", position, length), cut=True)
            if first and _is_offset_table(data, value, length):
                if length > LARGE:
                    self.bulk.append(Bulk(VALUE, tag, value, after))
            elif length >= smallest:
                self.bulk.append(Bulk(FRAGMENT, tag, value, after))
                if len(self.bulk) - before > MOST_FRAGMENTS:
                    self.bulk[before:] = [Bulk(VALUE, tag, self.bulk[before].start, after)]
            first = False
            position = after
            if length & 1 and after + 9 <= limit and item(data, after + 1)[0] in (item_raw, delimiter_raw):
                position += 1  # padded to even length, without counting the pad
        return self._after_fragments(start, tag, position)

    def _after_fragments(self, start: int, tag: int, position: int) -> int:
        encoding, limit = self._top.encoding, self._top.limit
        raw = encoding.item(self._data, position)[0] if position + 8 <= limit else 0
        if not self._stack:
            self._pixels_seen = self._pixels_seen or encoding.turn(tag) in encoding.pixels
        if raw == encoding.turn(SEQUENCE_DELIMITER):
            return position + 8
        if raw == 0:
            what = f"{shown(tag)} at byte {start} is not closed by a delimiter: the data ends at byte {position}"
            return self._lost(position, what, cut=True)
        return position  # the delimiter is missing; what follows may be the next element

    # Where items follow --------------------------------------------------------------------------

    def _in_sequence(self, position: int) -> int:
        top = self._top
        encoding, limit = top.encoding, top.limit
        if position + 8 > limit:
            if not top.defined:
                return self._unclosed(position)
            self._leave()
            return limit
        raw, length = encoding.item(self._data, position)
        tag = encoding.delimiters.get(raw)
        if tag is None:
            return self._not_an_item(position)
        if tag != ITEM:
            if tag == SEQUENCE_DELIMITER and not top.defined:
                self._leave()
            return position + 8
        value = position + 8
        if length == UNDEFINED:
            self._enter(top.tag, position, limit, self._of_item(value, limit), items=False, defined=False)
            return value
        after = value + length
        if after > limit:
            return self._lost(position, too_long(f"an item of {shown(top.tag)}", position, length), cut=True)
        if length > LARGE or self.INTO_ALL:
            self._enter(top.tag, position, after, self._of_item(value, after), items=False, defined=True)
            return value
        return after

    def _not_an_item(self, position: int) -> int:
        # A sequence of undefined length without its delimiter, if the next element of the outer data set is here.
        top = self._top
        if not top.defined:
            outer = self._stack[-1].encoding
            element = element_at(self._data, position, top.limit, outer)
            if element.tag > top.tag and element.end(top.limit) >= 0:
                self._leave()
                return position
        return self._lost(position, f"no item of {shown(top.tag)} at byte {position}", cut=False)

    def _of_item(self, position: int, limit: int) -> Encoding:
        # Some writers fall into implicit VR within sequences, and some UN hold explicit VR.
        encoding = self._top.encoding
        if delimiter_at(self._data, position, limit, encoding):
            return encoding
        element = element_at(self._data, position, limit, encoding)
        pair = ENCODINGS[2:] if encoding.big else ENCODINGS[:2]
        if element.value >= 0 and element.end(limit) >= 0:
            explicit_header = pair[0].header(self._data, position)
            if not encoding.implicit or explicit_header[1] not in pair[0].vr_names:
                return encoding
        return recognised(self._data, position, limit, encoding, pair)

    def _item_at(self, position: int, limit: int, encoding: Encoding) -> bool:
        return delimiter_at(self._data, position, limit, encoding) in (ITEM, SEQUENCE_DELIMITER)

    # The stack -----------------------------------------------------------------------------------

    def _enter(self, tag: int, start: int, limit: int, encoding: Encoding, *, items: bool, defined: bool) -> None:
        self._stack.append(self._top)
        self._top = _Container(tag, start, limit, encoding, items=items, defined=defined)

    def _leave(self) -> None:
        self._top = self._stack.pop()

    def _unclosed(self, position: int) -> int:
        top = self._top
        what = f"{shown(top.tag)} at byte {top.start} is not closed by a delimiter: the data ends at byte {position}"
        return self._lost(position, what, cut=True)

    def _lost(self, position: int, what: str, *, cut: bool) -> int:
        """Go on after the innermost container whose length is known; without one, the walk ends here."""
        while self._stack and not self._top.defined:
            self._leave()
        if not self._stack:
            self.fault = Fault(cut, position, what)
            self.stop = position
            return position
        top = self._top
        if top.limit - position > LARGE:
            self.bulk.append(Bulk(VALUE, top.tag, position, top.limit))
        self._leave()
        return top.limit


def too_long(what: str, position: int, length: int) -> str:
    """Say that a length runs past the end of the data."""
    return f"{what} at byte {position} declares {length} bytes, more than are left"


def _is_offset_table(data: Data, value: int, length: int) -> bool:
    # An offset table is empty or starts with offset 0; a writer that leaves it out starts with a fragment.
    return length < 4 or not any(data[value : value + 4])
