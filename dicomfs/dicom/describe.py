"""What a file is: its verdict, its spans and the attributes that the catalog keeps, in one walk."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from dicomfs.dicom import part10, split
from dicomfs.dicom.attributes import LONGEST_UID, SPECIFIC_CHARACTER_SET, TABLE, Attributes, Raw, attributes
from dicomfs.dicom.charset import character_set
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.headers import recognised
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.split import Geometry, Span
from dicomfs.dicom.walk import VALUE, Bulk, Fault, Walk

MEDIA_STORAGE_DIRECTORY_STORAGE: Final = "1.2.840.10008.1.3.10"
DIRECTORY_RECORD_SEQUENCE: Final = 0x00041220
SAMPLES_PER_PIXEL: Final = 0x00280002
PHOTOMETRIC_INTERPRETATION: Final = 0x00280004

_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
Values: TypeAlias = dict[int, Raw]
_LONGEST: Final = LONGEST_UID * 8
"""No more of a value than this is looked at."""
_WANTED: Final = frozenset(
    (
        SPECIFIC_CHARACTER_SET,
        DIRECTORY_RECORD_SEQUENCE,
        SAMPLES_PER_PIXEL,
        PHOTOMETRIC_INTERPRETATION,
        *(tag for tag, _, _, _ in TABLE),
    )
)


class Verdict(StrEnum):
    """What is to become of a file."""

    DICOM = "DICOM"
    CUT_OFF = "CUT_OFF"
    NO_UIDS = "NO_UIDS"
    NOT_DICOM = "NOT_DICOM"
    DICOMDIR = "DICOMDIR"


@dataclass(frozen=True, slots=True)
class Described:
    """What a file is; the spans tile it whatever the verdict, the reason holds no patient's values."""

    verdict: Verdict
    reason: str
    transfer_syntax: str
    spans: Sequence[Span]
    attributes: Attributes | None


def describe(data: Data) -> Described:
    """Tell what a file is from all of its bytes."""
    file = part10.locate(data)
    if file is None:
        reason = "no DICM after 128 bytes, and no data elements at the start" if len(data) else "the file is empty"
        return Described(Verdict.NOT_DICOM, reason, "", split.whole(len(data)), None)
    if file.deflated:
        return _describe_deflated(data, file)
    walk = Walk(data, file.start, len(data), file.encoding, _WANTED)
    values = _values(data, walk)
    read = _attributes(values, file)
    geometry = _geometry(values, read, big=file.encoding.big) if walk.bulk else Geometry()
    spans = split.spans(walk.bulk, geometry, walk.stop, len(data))
    verdict, reason = _verdict(file, values, read, file.fault or walk.fault)
    return Described(verdict, reason, file.transfer_syntax, spans, read)


def _describe_deflated(data: Data, file: Part10) -> Described:
    # Deflating again would not give the same bytes, so the stream is kept as it is.
    spans = split.spans([Bulk(VALUE, 0, file.start, len(data))], Geometry(), len(data), len(data))
    inflated = part10.inflate(data, file.start)
    if inflated is None:
        reason = f"the deflated data set at byte {file.start} cannot be inflated"
        return Described(Verdict.NO_UIDS, reason, file.transfer_syntax, spans, _attributes({}, file))
    encoding = recognised(inflated.data, 0, len(inflated.data), file.encoding)
    walk = Walk(inflated.data, 0, len(inflated.data), encoding, _WANTED)
    values = _values(inflated.data, walk)
    read = _attributes(values, file)
    fault = walk.fault if inflated.complete else None
    if not inflated.whole:
        fault = Fault(True, len(data), f"the deflated data set at byte {file.start} ends too early or is damaged")
    verdict, reason = _verdict(file, values, read, fault)
    return Described(verdict, reason, file.transfer_syntax, spans, read)


def _values(data: Data, walk: Walk) -> Values:
    name = walk.encoding.vr_names.get
    return {
        tag: (name(vr, ""), bytes(data[start : end if end - start <= _LONGEST else start + _LONGEST]))
        for tag, (vr, start, end) in walk.found.items()
    }


def _attributes(values: Values, file: Part10) -> Attributes:
    charset = character_set(values.get(SPECIFIC_CHARACTER_SET, ("", b""))[1])
    return attributes(values, charset, file.transfer_syntax, big=file.encoding.big)


def _geometry(values: Values, read: Attributes, *, big: bool) -> Geometry:
    """Read how long a native frame is; the catalog's attributes have most of it."""
    rows, columns, bits, frames = (
        value if isinstance(value, int) and value > 0 else 0
        for value in map(read.instance.get, ("Rows", "Columns", "BitsAllocated", "NumberOfFrames"))
    )
    samples = values.get(SAMPLES_PER_PIXEL, ("", b""))[1]
    interpretation = values.get(PHOTOMETRIC_INTERPRETATION, ("", b""))[1]
    return Geometry(
        rows=rows,
        columns=columns,
        samples=int.from_bytes(samples, "big" if big else "little") if len(samples) == 2 else 1,
        bits_allocated=bits,
        frames=frames,
        subsampled=interpretation.strip() == b"YBR_FULL_422",
    )


def _verdict(file: Part10, values: Values, read: Attributes, fault: Fault | None) -> tuple[Verdict, str]:
    stored_class = part10.text_of_uid(file.meta.get(part10.MEDIA_STORAGE_SOP_CLASS_UID, b""))
    if MEDIA_STORAGE_DIRECTORY_STORAGE in (stored_class, read.instance.get("SOPClassUID")) or (
        DIRECTORY_RECORD_SEQUENCE in values
    ):
        return Verdict.DICOMDIR, "a DICOMDIR: the files that it lists are imported, not the list"
    if fault and fault.cut:
        return Verdict.CUT_OFF, fault.what
    present = (read.study, read.series, read.instance)
    missing = [keyword for keyword, level in zip(_UIDS, present, strict=True) if keyword not in level]
    if missing:
        reason = f"no {' and no '.join(missing)}"
        return Verdict.NO_UIDS, f"{reason}; {fault.what}" if fault else reason
    return Verdict.DICOM, ""
