"""The elements of a data set and of all items within it, as a tree of where their values lie.

This is the walk of `walk` that looks into every sequence: what lies where is decided there, so the two agree
on what is bulk. Only what is known to follow is in the tree: the rest of a container in which the walk was lost
is left out. Linear in the bytes of the header.
"""

from typing import ClassVar, Final, TypeAlias

from dicomfs.dicom.encoding import EXPLICIT_LITTLE, IMPLICIT_LITTLE, ITEM, UNDEFINED, Data, Encoding
from dicomfs.dicom.model_vr import LONGEST_CREATOR, usual_vr
from dicomfs.dicom.stride import LARGE
from dicomfs.dicom.walk import Walk

DEEPEST: Final = 64
"""Sequences nested deeper than this are left out."""
MOST_ELEMENTS: Final = 1 << 22
"""So many elements and items are taken from one file; the walk ends soon after."""
ROUND: Final = 1 << 23
"""So many bytes are walked before elements are counted."""
NO_WHOLE_READ: Final = 0xFFFF
"""A UN this long stays one: it may be what does not fit the length of its own VR (PS3.5 6.2.2)."""


class DataSet:
    """The elements of a data set or an item by tag, the last where several have one."""

    __slots__ = ("elements", "encoding")

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.elements: dict[int, Element] = {}


Element: TypeAlias = tuple[str, int, int, bool, list[DataSet] | None]
"""VR, where the value starts and ends, whether it is big endian, the items of a sequence."""

_EMPTY: Final = DataSet(EXPLICIT_LITTLE)
ENCAPSULATED: Final[list[DataSet]] = []
"""Stands for the items of what is not a sequence but is encapsulated in items (PS3.5 A.4)."""


class Elements(Walk):
    """A walk that looks into every sequence and keeps all elements: the tree is `data_set`."""

    __slots__ = ("_count", "_fragments", "_inside", "data_set")
    INTO_ALL: ClassVar = True

    def __init__(self, data: Data, start: int, end: int, encoding: Encoding) -> None:
        self.data_set = self._made(encoding)
        # What the containers of the walk's stack become: data sets, and the lists of items between them.
        self._inside: list[DataSet | list[DataSet]] = [self.data_set]
        self._count = 0
        self._fragments = ("", 0)
        super().__init__(data, start, end, encoding)

    def _in_data_set(self, position: int) -> int:
        """Take elements as far as one that needs a decision; what `stride` does, and as plain."""
        encoding = self._top.encoding
        if encoding.implicit:
            return self._in_implicit(position)
        data, limit = self._data, self._top.limit
        header, length32, names = encoding.header, encoding.length32, encoding.vr_names
        short_vrs, long_vrs, big = encoding.short_vrs, encoding.long_vrs, encoding.big
        elements = self._elements()
        before = len(elements)
        last = min(limit - 8, position + ROUND)
        while position <= last:
            raw, number, length = header(data, position)
            tag = raw if big else (raw & 0xFFFF) << 16 | raw >> 16
            if number in short_vrs:
                value = position + 8
                after = value + length
                if after > limit:
                    return self._past_the_end(position, tag, length)
            elif number in long_vrs:
                value = position + 12
                if value > limit:
                    return self._no_more_elements(position)
                length = length32(data, position + 8)[0]
                vr = names[number]
                after = value + length
                if length > LARGE or vr == "SQ" or vr == "UN" or after > limit:
                    self._count += len(elements) - before
                    return self._decide(position, tag, vr, value, length)
            else:
                return self._not_an_element(position, tag)
            elements[tag] = (names[number], value, after, big, None)
            position = after
        self._count += len(elements) - before
        return self._no_more_elements(position) if position + 8 > limit else self._unless_too_many(position)

    def _in_implicit(self, position: int) -> int:
        data, limit, encoding = self._data, self._top.limit, self._top.encoding
        header, delimiters, big = encoding.header, encoding.delimiters, encoding.big
        elements = self._elements()
        before = len(elements)
        last = min(limit - 8, position + ROUND)
        while position <= last:
            raw, length = header(data, position)
            tag = raw if big else (raw & 0xFFFF) << 16 | raw >> 16
            if raw == 0 or raw in delimiters:
                return self._not_an_element(position, tag)
            value = position + 8
            after = value + length
            vr = usual_vr(tag, self._creator)
            if length > LARGE or vr == "SQ" or after > limit:
                self._count += len(elements) - before
                return self._decide(position, tag, vr, value, length)
            elements[tag] = (vr, value, after, big, None)
            position = after
        self._count += len(elements) - before
        return self._no_more_elements(position) if position + 8 > limit else self._unless_too_many(position)

    def _decide(self, start: int, tag: int, vr: str, value: int, length: int) -> int:
        encoding = self._top.encoding
        self._count += 1
        if self._count > MOST_ELEMENTS:
            return self._unless_too_many(start)
        if length == UNDEFINED:
            return self._undefined(start, tag, 0 if encoding.implicit else encoding.number(vr), value)
        after = value + length
        if after > self._top.limit:
            return self._past_the_end(start, tag, length)
        big = encoding.big
        told = vr == "SQ" and not encoding.implicit
        if vr == "UN" and not encoding.implicit and (tag >> 16 & 1 or length < NO_WHOLE_READ):
            vr, big = usual_vr(tag, self._creator), False  # PS3.5 6.2.2: whoever knows it may read it as little endian
        if vr == "SQ" and (inside := self._of_sequence(value, after, told=told)):
            self._enter(tag, start, after, inside, items=True, defined=True)
            return value
        if vr == "SQ" and not told:
            vr = "UN"  # the dictionary means another element
        self._elements()[tag] = (vr, value, after, big, None)
        return after

    def _of_sequence(self, value: int, after: int, *, told: bool) -> Encoding | None:
        """Return what a sequence of known length is in, None for what is none; `told` if its VR is SQ."""
        encoding = self._top.encoding
        if value == after or self._item_at(value, after, encoding):
            return encoding
        if after - value > LARGE:  # as the walk decides about bulk
            return None
        if self._item_at(value, after, IMPLICIT_LITTLE):
            return IMPLICIT_LITTLE  # PS3.5 6.2.2: an UN is, whatever the data set is in
        return encoding if told else None

    def _in_sequence(self, position: int) -> int:
        """Step into the next item; the common ones without the questions that the walk asks of strange ones."""
        if self._count > MOST_ELEMENTS:
            return self._unless_too_many(position)
        top, data = self._top, self._data
        encoding, limit = top.encoding, top.limit
        last, item, item_raw = limit - 8, encoding.item, encoding.turn(ITEM)
        items = self._items()
        while position <= last:
            raw, length = item(data, position)
            if raw != item_raw or length:
                break
            items.append(_EMPTY)
            self._count += 1
            position += 8
        else:
            return super()._in_sequence(position)
        value = position + 8
        after = value + length
        if raw == item_raw and 8 <= length <= limit - value and not encoding.implicit:
            _, number, inner = encoding.header(data, value)
            if number in encoding.short_vrs and inner <= length - 8:
                self._enter(top.tag, position, after, encoding, items=False, defined=True)
                return value
        return super()._in_sequence(position)

    def _unless_too_many(self, position: int) -> int:
        if self._count > MOST_ELEMENTS:
            self.stop = position
        return position

    def _odd_value(self, tag: int, value: int, after: int) -> int:
        vr = usual_vr(tag, self._creator)
        if vr == "SQ" and after - value <= LARGE:
            self._enter(tag, value, after, self._top.encoding, items=True, defined=True)
            return value
        self._elements()[tag] = (vr, value, after, self._top.encoding.big, None)
        return after

    def _undefined(self, start: int, tag: int, vr: int, value: int) -> int:
        self._fragments = (self._top.encoding.vr_names.get(vr, "OB"), value)
        return super()._undefined(start, tag, vr, value)

    def _after_fragments(self, start: int, tag: int, position: int) -> int:
        vr, value = self._fragments
        self._elements()[tag] = ("OB" if vr == "UN" else vr, value, position, False, ENCAPSULATED)
        del self.bulk[:]
        return super()._after_fragments(start, tag, position)

    def _enter(self, tag: int, start: int, limit: int, encoding: Encoding, *, items: bool, defined: bool) -> None:
        super()._enter(tag, start, limit, encoding, items=items, defined=defined)
        inside = self._inside
        if items:
            sequence: list[DataSet] = []
            if len(inside) < 2 * DEEPEST:
                self._elements()[tag] = ("SQ", start, start, False, sequence)
            inside.append(sequence)
        else:
            self._count += 1
            item = self._made(encoding)
            self._items().append(item)
            inside.append(item)

    def _leave(self) -> None:
        super()._leave()
        self._inside.pop()

    def _made(self, encoding: Encoding) -> DataSet:
        """Make what keeps the elements of a data set that begins."""
        return DataSet(encoding)

    def _elements(self) -> "dict[int, Element]":
        inside = self._inside[-1]
        assert isinstance(inside, DataSet)
        return inside.elements

    def _items(self) -> list[DataSet]:
        inside = self._inside[-1]
        assert isinstance(inside, list)
        return inside

    def _creator(self, tag: int) -> bytes:
        _, start, end, _, _ = self._elements().get(tag, ("", 0, 0, False, None))
        return bytes(self._data[start:end]) if end - start <= LONGEST_CREATOR else b""
