"""A data set de-identified: every element written anew by the rules of a profile, in sequences at every depth.

Nothing is copied but values that are legal where they are; headers and lengths are made here. What the walk did not
understand is not in its tree, and so not in the result.
"""

import re
from collections.abc import Mapping
from typing import Final

from dicomfs.dicom import deid_dates, deid_rules
from dicomfs.dicom.attributes import SPECIFIC_CHARACTER_SET
from dicomfs.dicom.charset import CharacterSet, character_set
from dicomfs.dicom.deid_profile import CLEAN_DESCRIPTORS, CLEAN_GRAPHICS, CLEAN_STRUCTURED_CONTENT, SAFE_PRIVATE
from dicomfs.dicom.deid_pseudonyms import Pseudonyms
from dicomfs.dicom.deid_rules import DAY, NAME, NOTHING, NUMBER, PHRASE, Rule, Rules
from dicomfs.dicom.deid_table import safe_private
from dicomfs.dicom.deid_text import Known
from dicomfs.dicom.deid_values import (
    DATES,
    NUMBERS,
    SAMPLES,
    SHORT_TEXT,
    TERMS,
    TEXT,
    dummy,
    has_controls,
    is_character_set,
    is_icc_profile,
    is_legal,
    may_be,
)
from dicomfs.dicom.dictionary import dictionary_vr, is_standard_uid
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.fragments import Read
from dicomfs.dicom.model_elements import ENCAPSULATED, DataSet, Element
from dicomfs.dicom.model_values import swapped
from dicomfs.dicom.pieces import Form, Piece, Range
from dicomfs.dicom.refusal import Refused
from dicomfs.dicom.stride import LARGE

_PIXEL_GROUP: Final = 0x7FE0
_CODES_KEPT: Final = frozenset((0x00080008, 0x00080060, 0x00089007, 0x0040A010, 0x0040A040))
"""Image Type, Modality, Frame Type, Relationship Type, Value Type: what makes an object what it is, whoever is called
ORIGINAL. Terms of the Standard stay in any case."""
_IMAGE_GROUP: Final = 0x0028
_ICC_PROFILE: Final = 0x00282000
_FIRST_OF_BLOCKS: Final = 0x1000
_CREATOR: Final = Rule(deid_rules.KEEP_TEXT, ("LO",), 1)
_PADDING: Final = " \0"
_LEGAL_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)+").fullmatch
_LONGEST_UID: Final = 64
_UID_PADDING: Final = " \0\t\r\n"
_KINDS: Final = {deid_rules.ACCESSION_NUMBER: "accession number", deid_rules.STUDY_ID: "study id"}
_CLEANING: Final = frozenset((CLEAN_DESCRIPTORS, CLEAN_GRAPHICS, CLEAN_STRUCTURED_CONTENT))
_DUMMIED: Final = frozenset((deid_rules.KEEP, deid_rules.KEEP_TEXT, deid_rules.CLEAN))
_NOT_DUMMIED: Final = frozenset(("CS", "DS", "IS", "UI", *NUMBERS))
_SEQUENCES: Final = (deid_rules.ITEMS, deid_rules.DUMMY_ITEMS)
_LOOKED_AT: Final = 1 << 12
"""So much of large samples is looked at, whether it is text."""
_NO_CODE: Final = dummy("CS").decode("ascii")
_DAY: Final = re.compile(r"(?:18|19|20)[0-9]{6}").fullmatch
_LONGEST_NOTED: Final = 1 << 10
"""Longer texts are no names, no numbers and no short texts."""


class Transformation:
    """De-identifies the data sets of one instance."""

    def __init__(self, data: Data, read: Read, form: Form, rules: Rules, identity: str, pseudonyms: Pseudonyms) -> None:
        self._data = data
        self._read = read
        self._form = form
        self._rules = rules
        self._identity = identity
        self._pseudonyms = pseudonyms
        self._known = Known()
        self._notes_phrases = not _CLEANING.isdisjoint(rules.profile.options)
        self._safe = safe_private() if SAFE_PRIVATE in rules.profile.options else frozenset()

    def instance(self, outermost: DataSet, written: Mapping[int, list[Piece]]) -> list[Piece]:
        """Return the pieces of the outermost data set, with the elements that are `written` already."""
        self._note(outermost, character_set(b""))
        if self._known.is_too_much():
            raise Refused("it has more names and numbers than can be looked for")
        return self._data_set(outermost, character_set(b""), written, dummies=False)

    # What is taken out, for finding it in other text ----------------------------------------------

    def _note(self, found: DataSet, charset: CharacterSet) -> None:
        charset = self._charset(found, charset)
        told_by = self._rules.told_by
        for tag, (vr, start, end, _, items) in found.elements.items():
            if items:
                for item in items:
                    self._note(item, charset)
            # Whatever VR the file tells: who reads the value as it is meant, reads a name.
            told = NAME if vr == "PN" else NOTHING if tag & 0x10000 else told_by(tag)
            if told == NOTHING or start == end or (told == PHRASE and not self._notes_phrases):
                continue
            value = bytes(self._data[start : min(end, start + _LONGEST_NOTED)])
            if told == NAME:
                self._known.name(charset.decode(value, is_name=True))
            elif told == NUMBER:
                self._known.number(charset.decode(value).strip(_PADDING))
            elif told == DAY:
                self._note_days(value)
            elif vr in TEXT and end - start <= _LONGEST_NOTED:
                self._known.phrase(charset.decode(value).strip(_PADDING))

    def _note_days(self, value: bytes) -> None:
        """Take note of days, DA or DT: eight digits that other values may have, too."""
        for one in value.decode("latin_1").split("\\"):
            day = one.strip(_PADDING).replace(".", "")[:8]
            if _DAY(day) and not day.endswith("0101"):  # which stands for no day that is known
                self._known.number(day)

    def _charset(self, found: DataSet, around: CharacterSet) -> CharacterSet:
        element = found.elements.get(SPECIFIC_CHARACTER_SET)
        if element is None:
            return around
        value = bytes(self._data[element[1] : min(element[2], element[1] + _LONGEST_NOTED)])
        return character_set(value)

    # Writing --------------------------------------------------------------------------------------

    def _data_set(self, found: DataSet, charset: CharacterSet, written: Mapping[int, list[Piece]], *, dummies: bool
                  ) -> list[Piece]:  # fmt: skip
        charset = self._charset(found, charset)
        elements, rule_of, data, form = found.elements, self._rules.of, self._data, self._form
        blocks = self._safe_blocks(elements) if self._safe else frozenset()
        pieces: list[Piece] = []
        for tag in sorted(elements.keys() | written.keys()):
            if tag in written:
                pieces += written[tag]
                continue
            element = elements[tag]
            group = tag >> 16
            if group == _PIXEL_GROUP:
                continue  # which are written already, or nested
            rule = self._private(tag, elements, blocks) if group & 1 else rule_of(tag)
            action = rule.action
            if action == deid_rules.REMOVE or element[4] is ENCAPSULATED:
                continue
            vr, start, end, big, items = element
            told, vr = vr, (vr if vr in rule.vrs else rule.vrs[0])
            if (items is None) is (vr == "SQ"):
                continue  # a sequence that is none, or the other way round
            if items is not None:
                pieces += self._sequence(tag, action, items, charset, dummies=dummies)
                continue
            if dummies and action in _DUMMIED and vr not in _NOT_DUMMIED:
                action = deid_rules.DUMMY
            agreed = told == vr or may_be(told, vr)
            if end - start > LARGE and agreed:
                pieces += self._large(tag, vr, action, element)
                continue
            value = bytes(data[start:end]) if agreed else b""
            if big is not form.encoding.big:
                value = swapped(value, 2 if vr == "AT" else NUMBERS.get(vr) or SAMPLES.get(vr, 1))
            new = self._value(rule, action, tag, vr, value, charset) if value else value
            if new is not None:
                pieces.append(form.element(tag, vr, new))
        return pieces

    def _sequence(self, tag: int, action: int, items: list[DataSet], charset: CharacterSet, *, dummies: bool
                  ) -> list[Piece]:  # fmt: skip
        if action not in _SEQUENCES:
            return [self._form.element(tag, "SQ", b"")]
        dummies = dummies or action == deid_rules.DUMMY_ITEMS
        return self._form.sequence(tag, (self._data_set(item, charset, {}, dummies=dummies) for item in items))

    def _large(self, tag: int, vr: str, action: int, element: Element) -> list[Piece]:
        """Take over samples and numbers that are kept apart from the header; nothing else is that large."""
        _, start, end, big, _ = element
        size = SAMPLES.get(vr) or NUMBERS.get(vr, 0)
        if action != deid_rules.KEEP or not size:
            return [] if action in (deid_rules.KEEP, deid_rules.CLEAN) else [self._form.element(tag, vr, b"")]
        if tag == _ICC_PROFILE or not is_legal(vr, bytes(self._read(start, start + _LOOKED_AT))):
            return []
        if (end - start) % size or (end - start) & 1 or (size > 1 and big is not self._form.encoding.big):
            raise Refused("a large value in it is not what its VR says")
        if vr in NUMBERS and vr != "AT" and not self._form.encoding.implicit:
            return []  # longer than the length of its VR can say
        return [self._form.header(tag, vr, end - start), Range(start, end)]

    def _value(self, rule: Rule, action: int, tag: int, vr: str, value: bytes, charset: CharacterSet) -> bytes | None:
        """Return what becomes of a value that is not empty; None where the attribute goes with it."""
        if action == deid_rules.KEEP and vr == "UI":
            return self._uids(value, retained=True)
        if action == deid_rules.KEEP:
            return value if self._is_kept(rule, tag, vr, value) else b""
        if action == deid_rules.KEEP_TEXT and vr == "CS" and (tag >> 16 == _IMAGE_GROUP or tag in _CODES_KEPT):
            return self._codes(value)
        if action == deid_rules.KEEP_TEXT:
            return value if self._is_harmless(vr, value, charset) else dummy(vr)
        if action in (deid_rules.KEEP_UID, deid_rules.UID):
            return self._uids(value, retained=False)
        if action == deid_rules.EMPTY:
            return b""
        if action == deid_rules.DUMMY:
            return dummy(vr)
        if action == deid_rules.MOVE:
            return self._moved(rule, vr, value)
        if action == deid_rules.CLEAN:
            return self._cleaned(rule, vr, value, charset)
        return self._replaced(action, tag, value, charset)

    def _replaced(self, action: int, tag: int, value: bytes, charset: CharacterSet) -> bytes | None:
        if action == deid_rules.PATIENT:
            return self._pseudonyms.patient(self._identity).encode("ascii")
        if action == deid_rules.KEYED:
            text = charset.decode(value).strip(_PADDING)
            return self._pseudonyms.text(_KINDS[tag], text).encode("ascii") if text else b""
        if action == deid_rules.CHARSET and is_character_set(value):
            return value
        return None

    def _is_kept(self, rule: Rule, tag: int, vr: str, value: bytes) -> bool:
        if rule.most and vr in NUMBERS and len(value) > rule.most * NUMBERS[vr]:
            return False
        if vr in ("IS", "DS") and self._known.is_number(value.decode("latin_1").rstrip(_PADDING)):
            return False
        return is_legal(vr, value) and (tag != _ICC_PROFILE or is_icc_profile(value))

    def _is_harmless(self, vr: str, value: bytes, charset: CharacterSet) -> bool:
        if vr == "CS" and not is_legal(vr, value):
            return False
        if len(value) > _LONGEST_NOTED:
            return False
        shown = charset.decode(value)
        return not has_controls(shown) and not self._known.within(shown)

    def _codes(self, value: bytes) -> bytes:
        """Return codes without those that hold an identifier; a term of the Standard is none, whatever people's names.

        Each keeps its place, as that is what it means.
        """
        if not is_legal("CS", value):
            return dummy("CS")
        codes = value.decode("ascii").split("\\")
        kept = (one if one.strip(_PADDING) in TERMS or not self._known.within(one) else _NO_CODE for one in codes)
        return "\\".join(kept).encode("ascii")

    def _uids(self, value: bytes, *, retained: bool) -> bytes:
        uids = (one.strip(_UID_PADDING) for one in value.decode("latin_1").split("\\"))
        return "\\".join(self.uid(uid, retained=retained) for uid in uids).encode("ascii")

    def uid(self, uid: str, *, retained: bool) -> str:
        """Return what stands for a UID: itself if it is the Standard's, or retained and legal."""
        if not uid or is_standard_uid(uid) or (retained and len(uid) <= _LONGEST_UID and _LEGAL_UID(uid)):
            return uid
        return self._pseudonyms.uid(uid)

    def _moved(self, rule: Rule, vr: str, value: bytes) -> bytes | None:
        text = value.decode("latin_1")
        new = (
            deid_dates.kept(vr, text)
            if vr == "TM"
            else deid_dates.moved(vr, text, self._pseudonyms.days(self._identity))
        )
        if new and new.isascii():
            return new.encode("ascii")
        return dummy(vr) if "D" in rule.basic else b""

    def _cleaned(self, rule: Rule, vr: str, value: bytes, charset: CharacterSet) -> bytes | None:
        shown = charset.decode(value)
        text = shown.rstrip(_PADDING)
        left = "" if has_controls(shown) or vr == "PN" else self._known.cleaned(text)
        if left == text and left:
            return value
        if left and left.isascii():
            return left.encode("ascii")
        if "D" in rule.basic or not rule.basic:
            return dummy(vr)
        return b"" if "Z" in rule.basic else None

    # Private elements -----------------------------------------------------------------------------

    def _safe_blocks(self, elements: Mapping[int, Element]) -> frozenset[int]:
        """Return the tags of the private creators whose blocks have safe elements."""
        private = (tag for tag in elements if tag >> 16 & 1 and tag & 0xFFFF >= _FIRST_OF_BLOCKS)
        return frozenset(_creator_tag(tag) for tag in private if self._is_safe(tag, elements))

    def _private(self, tag: int, elements: Mapping[int, Element], blocks: frozenset[int]) -> Rule:
        """Return the rule for a private element: those on the Standard's list of safe ones may be kept."""
        if tag in blocks:
            return _CREATOR
        if _creator_tag(tag) not in blocks or not self._is_safe(tag, elements):
            return deid_rules.REMOVED
        return _of_vr(elements[tag][0])

    def _is_safe(self, tag: int, elements: Mapping[int, Element]) -> bool:
        creator = self._creator(elements.get(_creator_tag(tag)))
        vr = elements[tag][0]
        if (creator, tag >> 16, tag & 0xFF) not in self._safe or vr not in (dictionary_vr(tag, creator) or vr):
            return False
        return _of_vr(vr) is not deid_rules.REMOVED

    def _creator(self, element: Element | None) -> str:
        if element is None or element[2] - element[1] > _LONGEST_NOTED:
            return ""
        return bytes(self._data[element[1] : element[2]]).decode("latin_1").rstrip(_PADDING)


def _creator_tag(tag: int) -> int:
    return tag & 0xFFFF0000 | tag >> 8 & 0xFF  # PS3.5 7.8.1


def _of_vr(vr: str) -> Rule:
    """Return the rule for a safe private element by its VR; names, dates, UIDs and unknown ones are not safe enough."""
    if vr == "SQ":
        return Rule(deid_rules.ITEMS, (vr,))
    if vr in SHORT_TEXT or vr == "CS":
        return Rule(deid_rules.KEEP_TEXT, (vr,))
    if vr in NUMBERS or vr in SAMPLES or vr in ("AS", "DS", "IS"):
        return Rule(deid_rules.KEEP, (vr,))
    return deid_rules.REMOVED if vr not in DATES else Rule(deid_rules.EMPTY, (vr,))
