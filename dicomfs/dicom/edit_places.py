"""Where the elements of a data set lie, and every length that depends on what is in them.

    enclosure      its length, which is right only as long as nothing in it grows
    item           at the item, unless undefined
    sequence       in its header, unless undefined
    group          the value of (gggg,0000), where one comes before the group (PS3.5 7.2)

What lies where is decided by `walk` and `model_elements`. Beside the elements of the outermost level, only those are
kept that an edit may reach: UIDs and text. Linear in the bytes of the header.
"""

from collections.abc import Callable
from typing import Final

from dicomfs.dicom.attributes import SPECIFIC_CHARACTER_SET
from dicomfs.dicom.edit_settings import TEXT
from dicomfs.dicom.encoding import Data, Encoding
from dicomfs.dicom.model_elements import ENCAPSULATED, DataSet, Element, Elements

UNDEFINED_LENGTH: Final = -1
UNKNOWN_LENGTH: Final = -2
"""There is a length, but its form is none of the Standard's."""
_REACHED: Final = TEXT | {"UI"}


class Enclosure:
    """What has elements in it: a data set or an item, a sequence, or the rest of a group after its group length."""

    __slots__ = ("big", "charset", "delta", "encoding", "field", "gone", "group", "is_history", "length", "parent")

    def __init__(self, parent: "Enclosure | None", encoding: Encoding, field: int, length: int, *, big: bool) -> None:
        self.parent = parent
        self.encoding = encoding
        """What is in it, is in."""
        self.big = big
        """Whether its length is big endian."""
        self.field = field
        """Where the 32 bits of its length are, UNDEFINED_LENGTH or UNKNOWN_LENGTH."""
        self.length = length
        self.delta = 0
        """How many bytes it becomes longer."""
        self.gone = False
        """Whether the element of the outermost level that it is in is replaced as a whole."""
        self.is_history = False
        """Whether it tells of earlier edits."""
        self.charset: bytes | None = None
        """Its own Specific Character Set."""
        self.group: tuple[int, Enclosure] | None = None
        """The group that is open, with its enclosure."""

    def of(self, tag: int) -> "Enclosure":
        """Return the innermost enclosure of an element that lies in this data set now."""
        if self.group is not None and self.group[0] == tag >> 16:
            return self.group[1]
        self.group = None
        return self


class Place:
    """Where an element lies: its header from `start`, its value from `value` to `end`, delimiters included.

    `width` is how many bytes its length has, just before the value; 0 where there is none, or the header is none of the
    Standard's.
    """

    __slots__ = ("end", "inside", "is_outermost", "items", "start", "tag", "value", "vr", "width", "within")

    def __init__(self, tag: int, vr: str, start: int, value: int, end: int, width: int, within: Enclosure) -> None:
        self.tag = tag
        self.vr = vr
        self.start = start
        self.value = value
        self.end = end
        self.width = width
        self.within = within
        self.inside: Enclosure | None = None
        """The enclosure that a sequence is."""
        self.items = False
        """Whether it is encapsulated in items."""
        self.is_outermost = False


class Places(Elements):
    """A walk that looks into every sequence and keeps where things lie.

    `outermost` has all elements of the outermost level in the order of the file, `inner` UIDs and texts that are
    not empty of all others, `enclosures` what is enclosed before what is in it, `lost` ranges that were not understood.
    """

    __slots__ = ("_around", "_odd", "_pending", "enclosures", "groups", "inner", "lost", "outermost")

    def __init__(self, data: Data, start: int, end: int, encoding: Encoding) -> None:
        outermost = Enclosure(None, encoding, UNDEFINED_LENGTH, 0, big=encoding.big)
        self.enclosures = [outermost]
        self.groups: dict[int, Enclosure] = {}
        """The groups of the outermost level that have a group length."""
        self.outermost: list[Place] = []
        self.inner: list[Place] = []
        self.lost: list[tuple[int, int]] = []
        self._around = [outermost]
        self._pending: Place | None = None
        self._odd = False
        super().__init__(data, start, end, encoding)
        self._close(self.stop)

    @property
    def whole(self) -> bool:
        """Whether all elements as far as the pixel data were understood."""
        if self.fault:
            return self._pixels_seen and not self.fault.cut
        return self.stop >= self._end or not any(self._data[self.stop : self.stop + 4])

    # The walk -------------------------------------------------------------------------------------

    def _in_data_set(self, position: int) -> int:
        self._close(position)
        after = super()._in_data_set(position)
        self._close(after)
        return after

    def _in_sequence(self, position: int) -> int:
        after = super()._in_sequence(position)
        self._close(after)
        return after

    def _close(self, position: int) -> None:
        if self._pending is not None and not self._stack:
            self._pending.end = position
            self._pending = None

    def _lost(self, position: int, what: str, *, cut: bool) -> int:
        after = super()._lost(position, what, cut=cut)
        self.lost.append((position, after if self._stack or not self.fault else self._end))
        return after

    def _odd_value(self, tag: int, value: int, after: int) -> int:
        self._odd = True
        after = super()._odd_value(tag, value, after)
        self._odd = False
        return after

    def _enter(self, tag: int, start: int, limit: int, encoding: Encoding, *, items: bool, defined: bool) -> None:
        around, within = self._around, self._around[-1]
        outer = self._top.encoding
        super()._enter(tag, start, limit, encoding, items=items, defined=defined)
        if items:
            within = within.of(tag)
            field, content = start + 4, start + 8
            if self._odd:
                field, content = start - 4, start
            elif not outer.implicit:
                field, content = start + 8, start + 12
        else:
            field, content = start + 4, start + 8
        length = limit - content
        if not defined:
            field = UNDEFINED_LENGTH
        elif length < 0 or outer.length32(self._data, field)[0] != length:
            field = UNKNOWN_LENGTH
        enclosure = Enclosure(within, encoding, field, length, big=outer.big)
        around.append(enclosure)
        self.enclosures.append(enclosure)
        if items and len(around) == 2:
            begin = self._header(tag, start, outer)[0] if self._odd else start
            self._pending = Place(tag, "SQ", begin, content, limit, 0, within)
            self._pending.inside = enclosure
            self._pending.is_outermost = True
            self.outermost.append(self._pending)

    def _leave(self) -> None:
        super()._leave()
        self._around.pop()

    def _made(self, encoding: Encoding) -> DataSet:
        made = super()._made(encoding)
        made.elements = _Noticing(self._notice_element)
        return made

    # What it finds --------------------------------------------------------------------------------

    def _notice_element(self, tag: int, element: Element) -> None:
        vr, value, end, _, items = element
        if items is not None and items is not ENCAPSULATED:
            return  # a sequence, which was entered
        data_set = self._around[-1]
        within = data_set.of(tag)
        outermost = len(self._around) == 1
        if tag & 0xFFFF == 0:
            self._group_length(tag, value, end, data_set, outermost=outermost)
        if tag == SPECIFIC_CHARACTER_SET:
            data_set.charset = bytes(self._data[value:end])
        elif not outermost and (vr not in _REACHED or value == end):
            return
        start, width = self._header(tag, value, self._top.encoding)
        place = Place(tag, vr, start, value, end, width, within)
        place.is_outermost = outermost
        (self.outermost if outermost else self.inner).append(place)
        if items is ENCAPSULATED:
            place.items, place.width = True, 0
            if outermost:
                self._pending = place

    def _group_length(self, tag: int, value: int, end: int, data_set: Enclosure, *, outermost: bool) -> None:
        if end - value != 4:
            return
        length = data_set.encoding.length32(self._data, value)[0]
        encoding = data_set.encoding
        group = Enclosure(data_set, encoding, value, length, big=encoding.big)
        self.enclosures.append(group)
        data_set.group = (tag >> 16, group)
        if outermost:
            self.groups[tag >> 16] = group

    def _header(self, tag: int, value: int, encoding: Encoding) -> tuple[int, int]:
        """Return where the header of the value begins, and how wide its length is."""
        data = self._data
        if encoding.implicit:
            return value - 8, 4
        raw = encoding.turn(tag)
        if encoding.item(data, value - 8)[0] == raw:
            vr = encoding.header(data, value - 8)[1]
            return value - 8, 2 if vr in encoding.short_vrs else 0
        vr = encoding.header(data, value - 12)[1] if value >= 12 else 0
        return value - 12, 4 if vr in encoding.long_vrs else 0


class _Noticing(dict[int, Element]):
    """The elements of a data set, each of which is told of when it is found."""

    __slots__ = ("_notice",)

    def __init__(self, notice: Callable[[int, Element], None]) -> None:
        super().__init__()
        self._notice = notice

    def __setitem__(self, tag: int, element: Element) -> None:
        super().__setitem__(tag, element)
        self._notice(tag, element)
