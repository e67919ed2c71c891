"""The data set of an edited instance: which elements change, and what of them is kept as an earlier value."""

from collections.abc import Callable, Sequence
from struct import pack
from typing import Final, NamedTuple

from dicomfs.dicom import edit_original
from dicomfs.dicom.attributes import SOP_INSTANCE_UID, SPECIFIC_CHARACTER_SET
from dicomfs.dicom.charset import character_set
from dicomfs.dicom.dictionary import dictionary_vr
from dicomfs.dicom.edit_changes import Changes
from dicomfs.dicom.edit_patches import Patches
from dicomfs.dicom.edit_places import UNDEFINED_LENGTH, Place, Places
from dicomfs.dicom.edit_search import Sought
from dicomfs.dicom.edit_settings import ORIGINAL_ATTRIBUTES_SEQUENCE, SETTABLE, TEXT, check_values, number_bytes
from dicomfs.dicom.edit_text import UTF_8, converted, split_text, text_bytes
from dicomfs.dicom.encoding import LONG_VRS, Data
from dicomfs.dicom.model_vr import one_vr
from dicomfs.dicom.pieces import Form, Piece
from dicomfs.dicom.refusal import Refused
from dicomfs.dicom.stride import LARGE

_PIXEL_REPRESENTATION: Final = 0x00280103
_LONGEST_SHORT: Final = 0xFFFE
_PADDING: Final = b" \0"
_LONG: Final = frozenset(LONG_VRS)
_MOST_LOST: Final = 1 << 26
"""So many bytes that were not understood are searched."""


class _Setting(NamedTuple):
    """What an element becomes."""

    vr: str
    values: Sequence[str]


class Editing:
    """Edits the data set of one instance; belongs to one thread, and is used once."""

    def __init__(
        self, data: Data, read: Callable[[int, int], bytes | memoryview], places: Places, changes: Changes
    ) -> None:
        self._data = data
        self._read = read
        self._places = places
        self._changes = changes
        self._outermost = places.enclosures[0]
        self._encoding = places.encoding
        self._form = Form(places.encoding)
        self._declared = self._outermost.charset or b""
        self._existing: dict[int, list[Place]] = {}
        for place in places.outermost:
            self._existing.setdefault(place.tag, []).append(place)
        self._settings: dict[int, _Setting | None] = {}
        """What changes as a whole, None for what is removed."""
        self._uids: dict[Place, bytes] = {}
        self._converts = False

    def patch(self, patches: Patches) -> bytes | None:
        """Make the patches of the data set, none if nothing changes; return the SOP Instance UID if it is new."""
        self._decide()
        self._inherit()
        for place in (*self._places.outermost, *self._places.inner):
            if place.vr == "UI" and not self._is_settled(place) and (new := self._uid(place)) is not None:
                self._uids[place] = new
        if not self._settings and not self._uids:
            return None
        for place, new in self._uids.items():
            self._revalue(patches, place, new)
        if self._converts:
            self._convert(patches)
        for tag, setting in sorted(self._settings.items()):
            self._write(patches, tag, setting)
        self._keep_earlier(patches)
        patches.lengths(self._places.enclosures)
        return self._sop_instance_uid()

    # What is asked --------------------------------------------------------------------------------

    def _decide(self) -> None:
        for tag, values in self._changes.set.items():
            if values == ("",):
                self._decide_empty(tag)
                continue
            vr = self._vr(tag)
            if vr not in SETTABLE or any(place.inside for place in self._existing.get(tag, ())):
                raise Refused("an attribute that is to be set has, in this file, a VR that cannot be set")
            try:
                check_values(tag, vr, values)
            except ValueError as error:
                raise Refused(str(error)) from error
            if not self._is_same(tag, vr, values):
                self._settings[tag] = _Setting(vr, values)
        for tag in self._changes.empty:
            self._decide_empty(tag)
        for tag in self._changes.remove:
            if tag in self._existing:
                self._settings[tag] = None
        self._converts = any(
            setting is not None
            and setting.vr in TEXT
            and text_bytes(self._declared, "\\".join(setting.values), is_name=setting.vr == "PN") is None
            for setting in self._settings.values()
        )

    def _decide_empty(self, tag: int) -> None:
        places = self._existing.get(tag, ())
        if len(places) != 1 or places[0].end > places[0].value:
            self._settings[tag] = _Setting(self._vr(tag), ())

    def _vr(self, tag: int) -> str:
        """Return the VR to write: the file's if it is legal, else the dictionary's."""
        places = self._existing.get(tag, ())
        told = places[-1].vr if places else ""
        creator = self._creator(tag) if tag >> 16 & 1 else ""
        known = dictionary_vr(tag, creator) if creator or not tag >> 16 & 1 else ""
        if told in self._encoding.vr_names.values() and (not known or told in known.split(" or ")):
            return told
        if not known:
            raise Refused("an attribute that is to be changed is not in the file, and nobody knows what it would be")
        return one_vr(
            known, tag, implicit=self._encoding.implicit, signed=self._number(_PIXEL_REPRESENTATION) == 1,
            number=self._number,
        )  # fmt: skip

    def _number(self, tag: int) -> int:
        for place in self._existing.get(tag, ())[-1:]:
            return int.from_bytes(self._data[place.value : place.end][:2], "big" if self._encoding.big else "little")
        return 0

    def _creator(self, tag: int) -> str:
        for place in self._existing.get(_creator_tag(tag), ())[-1:]:
            return self._value(place).decode("latin_1").rstrip(" \0")
        return ""

    def _is_same(self, tag: int, vr: str, values: Sequence[str]) -> bool:
        places = self._existing.get(tag, ())
        if len(places) != 1 or places[0].items:
            return False
        value = self._value(places[0])
        number = number_bytes(vr, values, big=self._encoding.big)
        if number is not None:
            return value == number
        if vr in TEXT:
            shown = character_set(self._declared).exactly(value, is_name=vr == "PN")
        else:
            shown = value.decode("ascii") if value.isascii() else None
        return shown is not None and split_text(vr, shown) == split_text(vr, "\\".join(values))

    def _uid(self, place: Place) -> bytes | None:
        """Return the new value of UIDs, None where it is the old one."""
        uids = self._changes.uids
        if not uids or place.within.is_history or place.end - place.value > LARGE:
            return None
        old = self._value(place).split(b"\\")
        new = [
            uids[uid].encode("ascii") if (uid := one.strip(_PADDING).decode("latin_1")) in uids else one for one in old
        ]
        if new == old:
            return None
        value = b"\\".join(new).rstrip(_PADDING)
        return value + b"\0" * (len(value) & 1)

    # What encloses what ---------------------------------------------------------------------------

    def _inherit(self) -> None:
        """Tell enclosures what follows from those around them."""
        for place in self._places.outermost:
            if place.inside is not None:
                place.inside.gone = place.tag in self._settings
                place.inside.is_history = place.tag == ORIGINAL_ATTRIBUTES_SEQUENCE
        for enclosure in self._places.enclosures:
            around = enclosure.parent
            if around is not None:
                enclosure.gone = enclosure.gone or around.gone
                enclosure.is_history = enclosure.is_history or around.is_history
                enclosure.charset = around.charset if enclosure.charset is None else enclosure.charset
        if self._changes.uids:
            self._refuse_lost()

    def _refuse_lost(self) -> None:
        lost = self._places.lost
        sought = Sought(self._changes.uids if lost else ())
        for start, end in lost:
            if end - start > _MOST_LOST:
                raise Refused("it is damaged: too much of it cannot be read to tell whether it refers to a changed UID")
            if sought.is_in(self._read(start, end)):
                raise Refused("it is damaged where it may refer to a changed UID")

    def _is_settled(self, place: Place) -> bool:
        """Say whether an element is replaced, or lies in one that is."""
        return place.within.gone or (place.is_outermost and place.tag in self._settings)

    # What is written ------------------------------------------------------------------------------

    def _write(self, patches: Patches, tag: int, setting: _Setting | None) -> None:
        places = self._existing.get(tag, [])
        for place in places[:-1]:  # whoever reads the first of several, must not read an old value
            patches.replace(place.start, place.end, (), place.within)
        written = () if setting is None else (self._element(tag, setting),)
        if places:
            patches.replace(places[-1].start, places[-1].end, written, places[-1].within)
        else:
            self._insert(patches, tag, written)

    def _insert(self, patches: Patches, tag: int, written: Sequence[Piece]) -> None:
        """Put a new element in the place that its tag has (PS3.5 7.1)."""
        outermost = self._places.outermost
        at = next((place.start for place in outermost if place.tag > tag), outermost[-1].end if outermost else -1)
        if at < 0:
            raise Refused("it has no elements")
        patches.replace(at, at, written, self._places.groups.get(tag >> 16, self._outermost), tag)

    def _element(self, tag: int, setting: _Setting) -> bytes:
        vr, values = setting
        value = number_bytes(vr, values, big=self._encoding.big)
        if value is None:
            text = "\\".join(values)
            charset = UTF_8 if self._converts else self._declared
            value = text_bytes(charset, text, is_name=vr == "PN") if vr in TEXT else text.encode("ascii")
        assert value is not None  # every text can be written in UTF-8
        if len(value) > _LONGEST_SHORT and vr not in _LONG:
            raise Refused("a new value is longer than its VR can be in this file")
        return self._form.element(tag, vr, value)

    def _revalue(self, patches: Patches, place: Place, value: bytes) -> None:
        """Put another value behind the header that is there."""
        if not place.width:
            raise Refused("an element that is to be changed has a header that is none of the Standard's")
        if place.width == 2 and len(value) > _LONGEST_SHORT:
            raise Refused("a value would be longer than its VR can be in this file")
        order = ">" if place.within.encoding.big else "<"
        size = pack(order + ("H" if place.width == 2 else "I"), len(value))
        patches.replace(place.value - place.width, place.end, (size + value,), place.within)

    def _value(self, place: Place) -> bytes:
        large = place.end - place.value > LARGE
        return bytes(self._read(place.value, place.end) if large else self._data[place.value : place.end])

    def _sop_instance_uid(self) -> bytes | None:
        setting = self._settings.get(SOP_INSTANCE_UID)
        if setting is not None:
            value = setting.values[0].encode("ascii")
            return value + b"\0" * (len(value) & 1)
        for place in self._existing.get(SOP_INSTANCE_UID, ())[-1:]:
            return self._uids.get(place)
        return None

    # The character set ----------------------------------------------------------------------------

    def _convert(self, patches: Patches) -> None:
        """Convert all text to UTF-8; that which the edit replaces is written in it."""
        if self._places.lost:
            raise Refused("it is damaged: not all of its text can be converted to another character set")
        for place in (*self._places.outermost, *self._places.inner):
            if self._is_settled(place):
                continue
            if place.tag == SPECIFIC_CHARACTER_SET:
                if self._value(place) != UTF_8:
                    self._revalue(patches, place, UTF_8)
            elif place.vr in TEXT and not place.items:
                value = self._value(place)
                new = converted(place.within.charset or b"", value, is_name=place.vr == "PN")
                if new is None:
                    raise Refused(
                        "its Specific Character Set cannot hold a new value, and not all of its text is in that set:"
                        " it cannot be converted without a guess"
                    )
                if new != value:
                    self._revalue(patches, place, new)
        if SPECIFIC_CHARACTER_SET not in self._existing:
            self._insert(patches, SPECIFIC_CHARACTER_SET, (self._form.element(SPECIFIC_CHARACTER_SET, "CS", UTF_8),))

    # What was before ------------------------------------------------------------------------------

    def _keep_earlier(self, patches: Patches) -> None:
        """Append an item to the Original Attributes Sequence (PS3.3 C.12.1.1.9), if there were earlier values."""
        changed = {tag for tag in self._settings if tag in self._existing}
        changed |= {place.tag for place in self._uids if place.is_outermost}
        if not changed:
            return
        owners = {_creator_tag(tag) for tag in changed if tag >> 16 & 1}
        kept = [self._existing[tag][-1] for tag in sorted(changed | owners) if tag in self._existing]
        sequence = self._existing.get(ORIGINAL_ATTRIBUTES_SEQUENCE, [None])[-1]
        if sequence is None:
            item = edit_original.item(self._form, self._changes, [self._earlier(self._form, place) for place in kept])
            written = self._form.sequence(ORIGINAL_ATTRIBUTES_SEQUENCE, [item])
            self._insert(patches, ORIGINAL_ATTRIBUTES_SEQUENCE, written)
            return
        if sequence.inside is None:
            raise Refused("its Original Attributes Sequence is none")
        form = Form(sequence.inside.encoding)
        item = form.item(edit_original.item(form, self._changes, [self._earlier(form, place) for place in kept]))
        delimited = sequence.inside.field == UNDEFINED_LENGTH
        if delimited and not edit_original.is_closed(self._data, sequence, self._encoding):
            raise Refused("its Original Attributes Sequence does not end")
        at = sequence.end - 8 if delimited else sequence.end
        patches.replace(at, at, item, sequence.inside, -1)

    def _earlier(self, form: Form, place: Place) -> list[Piece]:
        """Return an element as it was, its text converted if all is; what cannot be converted is kept as it is."""
        if place.inside is not None and self._converts:
            for inner in self._places.inner:
                if place.start < inner.start < place.end and _is_switched(self._value(inner)):
                    raise Refused("a sequence that is to be removed has text in another character set than new values")
        plain = place.inside is None and not place.items and place.end - place.start <= LARGE
        value = self._value(place) if plain else b""
        if self._converts and place.vr in TEXT:
            new = converted(self._declared, value, is_name=place.vr == "PN")
            value = value if new is None else new
        return edit_original.earlier(form, self._data, place, self._encoding, value)


def _is_switched(value: bytes) -> bool:
    """Say whether text may be in another set than ASCII."""
    return not value.isascii() or b"\x1b" in value


def _creator_tag(tag: int) -> int:
    return tag & 0xFFFF0000 | tag >> 8 & 0xFF  # PS3.5 7.8.1
