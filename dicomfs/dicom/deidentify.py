"""De-identified instances by PS3.15 Annex E: one file's bytes to the pieces of another, which shows the same pixels.

    preamble 00… "DICM" | meta information made here | data set by `deid_data_set` | pixel data by `deid_pixels`

Pure: the same instance, profile and key give the same bytes for ever. What cannot be judged is refused, not guessed.
Linear in the length of the header and in the number of fragments.
"""

from collections.abc import Callable
from typing import Final

from dicomfs.dicom import deid_pixels
from dicomfs.dicom.charset import character_set
from dicomfs.dicom.deid_data_set import Transformation
from dicomfs.dicom.deid_kinds import SOP_CLASS_UID, SOP_INSTANCE_UID, refuse
from dicomfs.dicom.deid_profile import FULL_DATES, MODIFIED_DATES, RETAIN_UIDS, Profile
from dicomfs.dicom.deid_pseudonyms import Pseudonyms
from dicomfs.dicom.deid_rules import PATIENT_ID, PATIENT_NAME, rules_of
from dicomfs.dicom.dictionary import is_standard_uid
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.file_meta import beginning
from dicomfs.dicom.model_elements import DataSet, Elements
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.pieces import Form, Piece, Range, joined
from dicomfs.dicom.refusal import Refused
from dicomfs.dicom.representation import text

__all__ = ["Profile", "Pseudonyms", "Range", "Refused", "deidentify"]

_LONGEST: Final = 1024
"""So much of a value is looked at to tell what kind of object it is."""
_CHARACTER_SET: Final = character_set(b"")
_CODED: Final = {SOP_CLASS_UID: "UI", SOP_INSTANCE_UID: "UI"}


def deidentify(
    data: Data,
    part10: Part10,
    read: Callable[[int, int], bytes | memoryview],
    identity: str,
    profile: Profile,
    pseudonyms: Pseudonyms,
) -> list[Piece]:
    """Return the pieces of the de-identified file: its own bytes, and ranges of `data` taken over as they are.

    `data` may have zeros within bulk, which `read` returns. `identity` is what the patient is known by. Each native
    pixel data and each fragment is a range of its own. Raise Refused for what must be withheld, Damaged as `read` does.
    """
    outermost = _understood(data, part10)
    elements = outermost.elements

    def text_of(tag: int) -> str:
        _, start, end, big, _ = elements.get(tag, ("", 0, 0, False, None))
        value = bytes(data[start : min(end, start + _LONGEST)])
        return (text(_CODED.get(tag, "LO"), value, _CHARACTER_SET, big=big) or "").strip(" \0")

    refuse(text_of, profile)
    sop_class, sop_instance = text_of(SOP_CLASS_UID), text_of(SOP_INSTANCE_UID)
    if not sop_instance or "\\" in sop_instance:
        raise Refused("it has no SOP Instance UID, or more than one")
    syntax, encoding = deid_pixels.transfer_syntax(part10, elements)
    form = Form(encoding)
    written = deid_pixels.pixels(data, elements, part10.encoding, syntax, form, read)
    written |= _said(form, identity, profile, pseudonyms)
    if not is_standard_uid(sop_class):
        raise Refused("its SOP class is none that is known")
    transformation = Transformation(data, read, form, rules_of(profile), identity, pseudonyms)
    pieces = transformation.instance(outermost, written)
    new_uid = transformation.uid(sop_instance, retained=RETAIN_UIDS in profile.options)
    return joined([beginning(sop_class, new_uid, syntax), *pieces])


def _understood(data: Data, part10: Part10) -> DataSet:
    """Return the tree of the data set. Raise Refused where there is more that was not understood."""
    if part10.fault or part10.deflated:
        raise Refused("it is damaged: its meta information or its compression is not whole")
    walk = Elements(data, part10.start, len(data), part10.encoding)
    if walk.fault:
        raise Refused("it is damaged: not all of its elements can be read")
    if walk.stop < len(data) and any(data[walk.stop : walk.stop + 4]):
        raise Refused("it has more elements than can be looked at")
    return walk.data_set


def _said(form: Form, identity: str, profile: Profile, pseudonyms: Pseudonyms) -> dict[int, list[Piece]]:
    """Return what is in every result: who it is now, and what was done (PS3.15 E.1.1, PS3.3 C.7.1.1, C.12.1)."""
    name = pseudonyms.patient(identity).encode("ascii")
    options = profile.options
    longitudinal = b"UNMODIFIED" if FULL_DATES in options else b"MODIFIED" if MODIFIED_DATES in options else b"REMOVED"
    method = "\\".join(("PS3.15 Annex E", *(option for option in profile.text.split(","))))
    codes: list[list[Piece]] = [
        [
            form.element(0x00080100, "SH", code.encode("ascii")),
            form.element(0x00080102, "SH", b"DCM"),
            form.element(0x00080104, "LO", meaning.encode("ascii")),
        ]
        for code, meaning in profile.methods
    ]
    return {
        PATIENT_NAME: [form.element(PATIENT_NAME, "PN", name)],
        PATIENT_ID: [form.element(PATIENT_ID, "LO", name)],
        0x00120062: [form.element(0x00120062, "CS", b"YES")],
        0x00120063: [form.element(0x00120063, "LO", method.encode("ascii"))],
        0x00120064: form.sequence(0x00120064, codes),
        0x00280303: [form.element(0x00280303, "CS", longitudinal)],
    }
