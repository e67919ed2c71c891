"""The attributes of the catalog by keyword and tag: all that a layout or a query gets without opening a file."""

from enum import IntEnum
from typing import Final


class Kind(IntEnum):
    """What kind of value an attribute has; QUOTED is a template's own text."""

    TEXT = 0
    NUMBER = 1
    DATE = 2
    TIME = 3
    PERSON = 4
    QUOTED = 5


CATALOG: Final[dict[str, tuple[str, Kind]]] = {
    "00100020": ("PatientID", Kind.TEXT),
    "00100021": ("IssuerOfPatientID", Kind.TEXT),
    "00100010": ("PatientName", Kind.PERSON),
    "00100030": ("PatientBirthDate", Kind.DATE),
    "00100040": ("PatientSex", Kind.TEXT),
    "0020000D": ("StudyInstanceUID", Kind.TEXT),
    "00080020": ("StudyDate", Kind.DATE),
    "00080030": ("StudyTime", Kind.TIME),
    "00080050": ("AccessionNumber", Kind.TEXT),
    "00200010": ("StudyID", Kind.TEXT),
    "00081030": ("StudyDescription", Kind.TEXT),
    "00080090": ("ReferringPhysicianName", Kind.PERSON),
    "0020000E": ("SeriesInstanceUID", Kind.TEXT),
    "00200011": ("SeriesNumber", Kind.NUMBER),
    "00080060": ("Modality", Kind.TEXT),
    "0008103E": ("SeriesDescription", Kind.TEXT),
    "00181030": ("ProtocolName", Kind.TEXT),
    "00180015": ("BodyPartExamined", Kind.TEXT),
    "00080070": ("Manufacturer", Kind.TEXT),
    "00081010": ("StationName", Kind.TEXT),
    "00400244": ("PerformedProcedureStepStartDate", Kind.DATE),
    "00400245": ("PerformedProcedureStepStartTime", Kind.TIME),
    "00080018": ("SOPInstanceUID", Kind.TEXT),
    "00080016": ("SOPClassUID", Kind.TEXT),
    "00020010": ("TransferSyntaxUID", Kind.TEXT),
    "00200013": ("InstanceNumber", Kind.NUMBER),
    "00280008": ("NumberOfFrames", Kind.NUMBER),
    "00280010": ("Rows", Kind.NUMBER),
    "00280011": ("Columns", Kind.NUMBER),
    "00280100": ("BitsAllocated", Kind.NUMBER),
    "00080023": ("ContentDate", Kind.DATE),
    "00080033": ("ContentTime", Kind.TIME),
}
"""By tag (PS3.6)."""
KINDS: Final[dict[str, Kind]] = dict(CATALOG.values())
CATALOG_KEYWORDS = frozenset(KINDS)
CATALOG_TAGS = {tag: keyword for tag, (keyword, _) in CATALOG.items()}
