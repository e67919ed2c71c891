"""What a profile does to each attribute: Table E.1-1 decided for one profile, and rules for what is not in it.

Where the table leaves a choice (X/Z/D and the like), it is what breaks no type of an IOD: a dummy where the table
allows one, else an empty value. What is not in the table is kept only if the dictionary knows it and its VR cannot
hold what the profile takes out elsewhere:

    PN, AE, UR            emptied                        DA, DT, TM      as the profile has dates
    LT, ST, UT            a dummy, or cleaned            UI              mapped, if not a UID of the Standard
    LO, SH, UC            kept, without identifiers;     SQ              looked into
                          what people type: as LT
    CS, DS, IS, numbers   kept if they are such          OB, UN          removed, but for a few
"""

from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from dicomfs.dicom.deid_profile import (
    CLEAN_DESCRIPTORS,
    CLEAN_GRAPHICS,
    CLEAN_STRUCTURED_CONTENT,
    FULL_DATES,
    MODIFIED_DATES,
    RETAIN_CHARACTERISTICS,
    RETAIN_DEVICE,
    RETAIN_UIDS,
    Profile,
)
from dicomfs.dicom.deid_table import Row, confidentiality
from dicomfs.dicom.deid_values import DATES, LONG_TEXT, NUMBERS, SAMPLES, SHORT_TEXT, TEXT
from dicomfs.dicom.dictionary import dictionary_keyword, dictionary_values, dictionary_vr

REMOVE, EMPTY, DUMMY, UID, CLEAN, KEEP, KEEP_TEXT, KEEP_UID = range(8)
MOVE, CHARSET, PATIENT, KEYED, ITEMS, DUMMY_ITEMS = range(8, 14)
"""What is done to an attribute. KEEP checks that it is legal, KEEP_TEXT that it holds no identifier as well; MOVE
moves dates; ITEMS looks into a sequence, DUMMY_ITEMS makes dummies of all that is in it."""

NOTHING, NAME, NUMBER, DAY, PHRASE = range(5)
"""What an attribute tells."""

PATIENT_ID: Final = 0x00100020
PATIENT_NAME: Final = 0x00100010
ACCESSION_NUMBER: Final = 0x00080050
STUDY_ID: Final = 0x00200010
IDENTIFYING: Final = frozenset(
    (PATIENT_ID, ACCESSION_NUMBER, STUDY_ID, 0x00101000, 0x00101001, 0x00101090, 0x00380010, 0x00401001, 0x00402016,
     0x00402017, 0x00120040)
)  # fmt: skip
"""What identifies by itself, wherever it is found."""
PLACES: Final = frozenset((0x00080081, 0x00101040, 0x00102154, 0x00102155, 0x00181000))
"""Addresses, telephones, serial numbers, if they are taken out; but no names of institutions and stations, as those of
makers and models are in them."""
DESCRIBING_REMOVAL: Final = frozenset((0x00120062, 0x00120063, 0x00120064, 0x00280303))
"""What de-identification says about itself, written anew."""

_TEXT_VALUE: Final = 0x0040A160
_UNFORMATTED_TEXT_VALUE: Final = 0x00700006
_FIXED: Final = {
    0x00080005: CHARSET,
    PATIENT_ID: PATIENT,
    PATIENT_NAME: PATIENT,
    ACCESSION_NUMBER: KEYED,
    STUDY_ID: KEYED,
    **dict.fromkeys(DESCRIBING_REMOVAL, REMOVE),
    0x00080001: REMOVE,  # Length to End: not true any more
    0x00080300: REMOVE,  # what private blocks hold, which are gone
    0x04000500: REMOVE,  # what was there before, encrypted
    0x4FFE0001: REMOVE,  # what signatures that are gone were made by
}
_MORE: Final[Mapping[int, Row]] = {
    # The content of what the table cleans as a whole (PS3.15 E.3.3, E.3.4).
    _TEXT_VALUE: Row("Z/D", {CLEAN_STRUCTURED_CONTENT: "C"}),
    _UNFORMATTED_TEXT_VALUE: Row("D", {CLEAN_GRAPHICS: "C"}),
}
_NEVER_EMPTY: Final = frozenset((0x00081110,))
"""Referenced Study Sequence: type 3 with at least one item where it is found (PS3.3 C.7.2.1), so X of X/Z."""
_ACQUISITION: Final = 0x0018
_LOCAL_IDS: Final = frozenset((0x00209056,))
"""Stack ID, which tells stacks of one object apart."""
_TYPED: Final = ("Description", "Comment", "Comments", "Notes", "InstructionText")
_TYPED_GROUPS: Final = frozenset(
    (0x0010, 0x0014, 0x0032, 0x0038, 0x0040, 0x0044, 0x2000, 0x2100, 0x2110, 0x2200, 0x4008, 0x4010)
)
"""Patients (birth dates in other calendars), visits, requests, results, media."""
_NOT_TYPED: Final = frozenset((0x00102201, 0x00102292, 0x00409210))
"""Species, breed, LUT Label."""
_PERSONS: Final = frozenset(
    (0x00080051, 0x00100024, 0x00100026, 0x00100027, 0x00321031, 0x00400026, 0x00400027, 0x00400036, 0x00404009,
     0x0040A028, 0x0040A066, 0x0040A068, 0x0040A070, 0x0040A076, 0x00440103, 0x0072000E)
)  # fmt: skip
"""Sequences of codes and identifiers of persons, organizations and those who assign identifiers."""
_WHO_OR_WHERE: Final = frozenset(
    (0x00181803, 0x00720008, 0x00720010, 0x0072006F, 0x0074100C, 0x00741202, 0x30020020, 0x01000426)
)
"""Addresses, names of users, contacts, lists and machines, and values of whatever attribute."""
_CHARACTERISTICS: Final = frozenset(
    (0x00100022, 0x00100035, 0x00101021, 0x00101022, 0x00101023, 0x00101024, 0x00102298, 0x00109431)
)
"""What tells as much as the patient's size and weight, which the table has."""
_GROUPS_OF_SAMPLES: Final = frozenset((0x0028, 0x5400, 0x7FE0))
"""ICC profile, look-up tables, waveforms, pixels."""


class Rule(NamedTuple):
    """What is done to an attribute, the VRs that it may have, and how many values; 0 for any number."""

    action: int
    vrs: tuple[str, ...]
    most: int = 0
    basic: str = ""
    """The Standard's action under the Basic Profile, for values that cannot be cleaned."""


REMOVED: Final = Rule(REMOVE, ())


class Rules:
    """The rules of one profile by tag. May be shared by threads."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._options = frozenset(profile.options)
        self._table = {**confidentiality(), **_MORE}
        self._known: dict[int, Rule] = {}
        self._told: dict[int, int] = {}

    def of(self, tag: int) -> Rule:
        """Return what is done to an attribute that is not private."""
        found = self._known.get(tag)
        if found is None:
            found = self._decided(tag)
            if found is not REMOVED:  # there are as many as the dictionary has
                self._known[tag] = found
        return found

    def told_by(self, tag: int) -> int:
        """Return what an attribute tells of somebody that other values may tell, too."""
        if tag >> 16 & 1:
            return NOTHING
        found = self._told.get(tag)
        if found is None:
            found = self._tells(tag)
            if found != NOTHING or self.of(tag) is not REMOVED:
                self._told[tag] = found
        return found

    def _tells(self, tag: int) -> int:
        rule = self.of(tag)
        taken_out = rule.action in (REMOVE, EMPTY, DUMMY)
        if "PN" in rule.vrs:
            return NAME
        if tag in IDENTIFYING or (tag in PLACES and taken_out):
            return NUMBER
        if not DATES.isdisjoint(rule.vrs) and rule.action != KEEP:
            return DAY
        return PHRASE if rule.vrs and taken_out else NOTHING

    def _decided(self, tag: int) -> Rule:
        if _is_left_out(tag):
            return REMOVED
        vrs = tuple(dictionary_vr(tag).replace("OB_OW", "OB or OW").split(" or "))
        if not vrs[0]:
            return REMOVED
        most = dictionary_values(tag)
        if tag in _FIXED:
            return Rule(_FIXED[tag], vrs, most)
        row = self._table.get(tag)
        if row is None:
            return Rule(self._unlisted(tag, vrs), vrs, most)
        return Rule(self._listed(tag, row, vrs[0]), vrs, most, row.basic)

    def _listed(self, tag: int, row: Row, vr: str) -> int:
        chosen = {action for option, action in row.options.items() if option in self._options}
        if "C" in chosen:
            return self._cleaned(row.basic, vr)
        if "K" in chosen:
            return ITEMS if vr == "SQ" else _kept(vr)
        return REMOVE if tag in _NEVER_EMPTY else _basic(row.basic, vr)

    def _cleaned(self, basic: str, vr: str) -> int:
        if vr == "SQ":
            return ITEMS
        if vr in DATES:
            return MOVE
        if vr in TEXT:
            return CLEAN
        return _basic(basic, vr)

    def _unlisted(self, tag: int, vrs: tuple[str, ...]) -> int:
        vr = vrs[0]
        if tag in _CHARACTERISTICS and RETAIN_CHARACTERISTICS not in self._options:
            return EMPTY
        if vr == "SQ":
            return DUMMY_ITEMS if tag in _PERSONS else ITEMS
        if vr in DATES:
            return KEEP if FULL_DATES in self._options else MOVE if MODIFIED_DATES in self._options else EMPTY
        if vr in SHORT_TEXT and _is_identifier(tag):
            return KEEP_TEXT if RETAIN_DEVICE in self._options and tag >> 16 == _ACQUISITION else DUMMY
        if vr in LONG_TEXT or (vr in SHORT_TEXT and _is_typed(tag)):
            return CLEAN if CLEAN_DESCRIPTORS in self._options else DUMMY
        if vr == "UI":
            return KEEP if RETAIN_UIDS in self._options else KEEP_UID
        if vr in ("PN", "AE", "UR"):
            return EMPTY
        if vr in ("OB", "UN") and tag >> 16 not in _GROUPS_OF_SAMPLES:
            return REMOVE
        return _kept(vr)


@cache
def rules_of(profile: Profile) -> Rules:
    """Return the rules of a profile, the same ones every time."""
    return Rules(profile)


def _is_left_out(tag: int) -> bool:
    """Say whether a tag is in a group that is never taken over: commands, media, curves, overlays, old tables."""
    group = tag >> 16
    return (
        group <= 0x0006
        or not tag & 0xFFFF
        or group in (0x1000, 0x1010, 0xFFFC)
        or 0x5000 <= group <= 0x50FF
        or 0x6000 <= group <= 0x60FF
        or (group >> 8 == 0x7F and group != 0x7FE0)
        or tag >> 8 == 0x002031
    )


def _is_identifier(tag: int) -> bool:
    ends = dictionary_keyword(tag).endswith(("ID", "IDs", "IdentificationNumber"))
    return tag in _WHO_OR_WHERE or (ends and tag not in _LOCAL_IDS)


def _is_typed(tag: int) -> bool:
    """Say whether a short text is one that people type about a patient, a visit or an object."""
    return tag not in _NOT_TYPED and (tag >> 16 in _TYPED_GROUPS or dictionary_keyword(tag).endswith(_TYPED))


def _kept(vr: str) -> int:
    if vr in SHORT_TEXT or vr in LONG_TEXT or vr == "CS":
        return KEEP_TEXT
    if vr == "PN":
        return EMPTY
    return KEEP if vr in NUMBERS or vr in SAMPLES or vr in DATES or vr in ("AS", "DS", "IS", "UI") else EMPTY


def _basic(action: str, vr: str) -> int:
    if "U" in action:
        return ITEMS if vr == "SQ" else UID
    if "D" in action:
        return DUMMY_ITEMS if vr == "SQ" else UID if vr == "UI" else DUMMY
    return EMPTY if "Z" in action else REMOVE
