"""Preamble and meta information of files that are made here (PS3.10 7.1)."""

from struct import pack
from typing import Final

from dicomfs.dicom.encoding import EXPLICIT_LITTLE
from dicomfs.dicom.part10 import PREAMBLE
from dicomfs.dicom.pieces import Form

IMPLEMENTATION_CLASS_UID: Final = "2.25.129550648949205800446829789957196636263"
IMPLEMENTATION_VERSION_NAME: Final = "DICOMFS"

_FORM: Final = Form(EXPLICIT_LITTLE)


def beginning(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """Return what comes before the data set; what is not ASCII in a UID is replaced."""
    rest = b"".join(
        _FORM.element(tag, vr, value)
        for tag, vr, value in (
            (0x00020001, "OB", b"\0\1"),
            (0x00020002, "UI", sop_class.encode("ascii", "replace")),
            (0x00020003, "UI", sop_instance.encode("ascii", "replace")),
            (0x00020010, "UI", syntax.encode("ascii")),
            (0x00020012, "UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            (0x00020013, "SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
        )
    )
    return b"\0" * PREAMBLE + b"DICM" + _FORM.element(0x00020000, "UL", pack("<I", len(rest))) + rest
