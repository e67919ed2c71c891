"""The objects of query documents (QIDO-RS, PS3.18 10.6.3.3), as texts of DICOM JSON.

Studies and series follow from the catalog alone, but for the few attributes of a series that it does not keep;
instances from the texts that their model has. Attributes that a level requires are there without Value where the
instances have none. RetrieveURL (0008,1190) is at no level: the tree does not know where it will be served.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final

from dicomfs.dicom.attributes import TABLE, TAGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dicomfs.archive.catalog import Patient, Series, Study
    from dicomfs.archive.records import Value

_CHARACTER_SET: Final = (0x00080005, '{"vr":"CS","Value":["ISO_IR 192"]}')
_ONLINE: Final = (0x00080056, '{"vr":"CS","Value":["ONLINE"]}')
_VRS: Final = {keyword: vr for _, _, keyword, vr in TABLE}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,12}").fullmatch
_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")

# Required at their level (tables 10.6.3-3 and 10.6.3-4), or there if known.
_STUDY_REQUIRED: Final = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyInstanceUID", "StudyID"
)  # fmt: skip
_STUDY_KNOWN: Final = ("TimezoneOffsetFromUTC", "StudyDescription")
_PATIENT_REQUIRED: Final = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_PATIENT_KNOWN: Final = ("IssuerOfPatientID",)
_SERIES_REQUIRED: Final = ("Modality", "SeriesInstanceUID", "SeriesNumber")
_SERIES_KNOWN: Final = (
    "SeriesDescription",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "BodyPartExamined",
    "ProtocolName",
    "Manufacturer",
    "StationName",
)
_SERIES_OF_INSTANCE: Final = (0x00080021, 0x00080031, 0x00400275)
"""SeriesDate, SeriesTime, RequestAttributesSequence: from the first instance, the catalog does not keep them."""

_INSTANCE: Final = (
    0x00080016,  # SOPClassUID
    0x00080018,  # SOPInstanceUID
    0x00080023,  # ContentDate
    0x00080033,  # ContentTime
    0x00080201,  # TimezoneOffsetFromUTC
    0x00083002,  # AvailableTransferSyntaxUID
    0x0020000D,  # StudyInstanceUID
    0x0020000E,  # SeriesInstanceUID
    0x00200013,  # InstanceNumber
    0x00280008,  # NumberOfFrames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # BitsAllocated
)
_INSTANCE_REQUIRED: Final = {
    0x00080016: '{"vr":"UI"}',
    0x00080018: '{"vr":"UI"}',
    0x0020000D: '{"vr":"UI"}',
    0x0020000E: '{"vr":"UI"}',
    0x00200013: '{"vr":"IS"}',
}


def study(found: Study, patient: Patient, series: int, instances: int) -> str:
    """Return the object of a study with so many series and instances."""
    held = [_CHARACTER_SET, _ONLINE]
    if found.modalities:  # without a value OHIF takes the whole list for broken
        held.append((0x00080061, _element("CS", "\\".join(found.modalities))))
    _add(held, found.attributes, _STUDY_REQUIRED, _STUDY_KNOWN)
    _add(held, patient.attributes, _PATIENT_REQUIRED, _PATIENT_KNOWN)
    held.append((0x00201206, _element("IS", series)))
    held.append((0x00201208, _element("IS", instances)))
    return _object(held)


def series(found: Series, above: Study, instances: int, fields: Mapping[int, str]) -> str:
    """Return the object of a series with so many instances; `fields` are those of its first instance."""
    held = [_CHARACTER_SET, _ONLINE]
    _add(held, above.attributes, ("StudyInstanceUID",), ("TimezoneOffsetFromUTC",))
    _add(held, found.attributes, _SERIES_REQUIRED, _SERIES_KNOWN)
    held += ((tag, fields[tag]) for tag in _SERIES_OF_INSTANCE if tag in fields)
    held.append((0x00201209, _element("IS", instances)))
    return _object(held)


def instance(fields: Mapping[int, str]) -> str:
    """Return the object of an instance."""
    held = [_CHARACTER_SET, _ONLINE]
    for tag in _INSTANCE:
        text = fields.get(tag) or _INSTANCE_REQUIRED.get(tag)
        if text is not None:
            held.append((tag, text))
    return _object(held)


def _add(
    held: list[tuple[int, str]], attributes: Mapping[str, Value], required: tuple[str, ...], known: tuple[str, ...]
) -> None:
    there = (*required, *(keyword for keyword in known if keyword in attributes))
    held += ((TAGS[keyword], _element(_VRS[keyword], attributes.get(keyword, ""))) for keyword in there)


def _object(held: list[tuple[int, str]]) -> str:
    held.sort()
    return "{" + ",".join([f'"{tag:08X}":{text}' for tag, text in held]) + "}"


def _element(vr: str, value: Value) -> str:
    """Return an attribute's text; several values are joined by backslashes in the catalog."""
    if value == "":
        return f'{{"vr":"{vr}"}}'
    if isinstance(value, str) and "\\" in value:
        values = [_value(vr, one) for one in value.split("\\")]
    else:
        values = [_value(vr, value)]
    if not any(values):
        return f'{{"vr":"{vr}"}}'
    # One of several values that is empty is null (PS3.18 F.2.5).
    return f'{{"vr":"{vr}","Value":[{",".join([text or "null" for text in values])}]}}'


def _value(vr: str, value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    if vr == "PN":
        groups = zip(_GROUPS, value.split("="), strict=False)
        text = ",".join([f'"{group}":{_string(name)}' for group, name in groups if name])
        return f"{{{text}}}" if text else ""
    if vr == "IS" and _INTEGER(value):
        return str(int(value))
    return _string(value) if value else ""


_string = encode_basestring
