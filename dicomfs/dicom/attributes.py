"""The attributes that the catalog keeps of an instance, at the level of the hierarchy each belongs to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from dicomfs.dicom.charset import CharacterSet
from dicomfs.dicom.representation import integer, text

Value: TypeAlias = str | int

SPECIFIC_CHARACTER_SET: Final = 0x00080005
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E
SOP_INSTANCE_UID: Final = 0x00080018


@dataclass(frozen=True, slots=True)
class Attributes:
    """Values by keyword, absent when missing or empty; several values are joined by backslashes."""

    patient: dict[str, Value]
    study: dict[str, Value]
    series: dict[str, Value]
    instance: dict[str, Value]


# (tag, level, keyword, VR): the VR is the dictionary's (PS3.6), for encodings that do not tell it.
_PATIENT, _STUDY, _SERIES, _INSTANCE = range(4)
TABLE: Final = (
    (0x00100020, _PATIENT, "PatientID", "LO"),
    (0x00100021, _PATIENT, "IssuerOfPatientID", "LO"),
    (0x00100010, _PATIENT, "PatientName", "PN"),
    (0x00100030, _PATIENT, "PatientBirthDate", "DA"),
    (0x00100040, _PATIENT, "PatientSex", "CS"),
    (STUDY_INSTANCE_UID, _STUDY, "StudyInstanceUID", "UI"),
    (0x00080020, _STUDY, "StudyDate", "DA"),
    (0x00080030, _STUDY, "StudyTime", "TM"),
    (0x00080050, _STUDY, "AccessionNumber", "SH"),
    (0x00200010, _STUDY, "StudyID", "SH"),
    (0x00081030, _STUDY, "StudyDescription", "LO"),
    (0x00080201, _STUDY, "TimezoneOffsetFromUTC", "SH"),
    (0x00080090, _STUDY, "ReferringPhysicianName", "PN"),
    (SERIES_INSTANCE_UID, _SERIES, "SeriesInstanceUID", "UI"),
    (0x00200011, _SERIES, "SeriesNumber", "IS"),
    (0x00080060, _SERIES, "Modality", "CS"),
    (0x0008103E, _SERIES, "SeriesDescription", "LO"),
    (0x00181030, _SERIES, "ProtocolName", "LO"),
    (0x00180015, _SERIES, "BodyPartExamined", "CS"),
    (0x00080070, _SERIES, "Manufacturer", "LO"),
    (0x00081010, _SERIES, "StationName", "SH"),
    (0x00400244, _SERIES, "PerformedProcedureStepStartDate", "DA"),
    (0x00400245, _SERIES, "PerformedProcedureStepStartTime", "TM"),
    (SOP_INSTANCE_UID, _INSTANCE, "SOPInstanceUID", "UI"),
    (0x00080016, _INSTANCE, "SOPClassUID", "UI"),
    (0x00200013, _INSTANCE, "InstanceNumber", "IS"),
    (0x00280008, _INSTANCE, "NumberOfFrames", "IS"),
    (0x00280010, _INSTANCE, "Rows", "US"),
    (0x00280011, _INSTANCE, "Columns", "US"),
    (0x00280100, _INSTANCE, "BitsAllocated", "US"),
    (0x00080023, _INSTANCE, "ContentDate", "DA"),
    (0x00080033, _INSTANCE, "ContentTime", "TM"),
)
INSTANCE_KEYWORDS: Final = frozenset(
    {*(keyword for _, level, keyword, _ in TABLE if level == _INSTANCE), "TransferSyntaxUID"}
)
"""The attributes of the instance level."""
KEYWORDS: Final = tuple(
    frozenset(keyword for _, at, keyword, _ in TABLE if at == level) for level in (_PATIENT, _STUDY, _SERIES)
)
"""The attributes of the levels above it, from the top down."""
LONGEST: Final = 1024
"""So many characters of a value are kept in the catalog: no value that a tree or a query needs is longer
(PS3.5 6.2), and a hostile one must not make the index grow. The header has the rest."""
LONGEST_UID: Final = 8192
"""UIDs tell things apart, so they are cut later."""
TAGS: Final = {keyword: tag for tag, _, keyword, _ in TABLE}


_KEPT: Final = 32
_SHORT: Final = 64
_OF_LEVEL: Final = tuple(
    tuple((tag, keyword, vr) for tag, at, keyword, vr in TABLE if at == level)
    for level in (_PATIENT, _STUDY, _SERIES, _INSTANCE)
)
_TAGS_OF: Final = tuple(tuple(tag for tag, _, _ in level) for level in _OF_LEVEL)

Raw: TypeAlias = tuple[str, bytes]
"""The bytes of a value, with its VR: '' or UN where it is not told."""


def attributes(values: Mapping[int, Raw], charset: CharacterSet, transfer_syntax: str, *, big: bool) -> Attributes:
    """Read the catalog's attributes off values by tag.

    Files that say the same of patient, study or series share one dictionary, which nobody may change.
    """
    patient, study, series, own = (tuple(map(values.get, tags)) for tags in _TAGS_OF)
    instance = _read(_INSTANCE, own, charset, big)
    if transfer_syntax:
        instance["TransferSyntaxUID"] = transfer_syntax
    return Attributes(
        _read_again(_PATIENT, patient, charset, big),
        _read_again(_STUDY, study, charset, big),
        _read_again(_SERIES, series, charset, big),
        instance,
    )


def _read(level: int, values: Sequence[Raw | None], charset: CharacterSet, big: bool) -> dict[str, Value]:
    read: dict[str, Value] = {}
    for raw, (_, keyword, usual_vr) in zip(values, _OF_LEVEL[level], strict=True):
        if raw is None:
            continue
        vr, value = raw
        if not vr or vr == "UN":
            vr = usual_vr
        # Most values of an instance are those of the one before.
        shown = (_shown_again if len(value) <= _SHORT else _shown)(vr, value, charset, big)
        if shown != "":
            read[keyword] = shown
    return read


_read_again: Final = lru_cache(_KEPT)(_read)


def _shown(vr: str, value: bytes, charset: CharacterSet, big: bool) -> Value:
    longest = LONGEST_UID if vr == "UI" else LONGEST
    shown = (text(vr, value[: longest * 8], charset, big=big) or "")[:longest]
    number = integer(vr, shown)
    return shown if number is None else number


_shown_again: Final = lru_cache(_KEPT * _SHORT)(_shown)
