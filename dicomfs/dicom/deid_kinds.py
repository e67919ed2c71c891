"""Kinds of objects that are withheld: what may show or say who somebody is where no attribute tells.

Pixels are never changed, so whatever may have text burned in is refused unless it says that it has none.
"""

import re
from collections.abc import Callable
from typing import Final

from dicomfs.dicom.deid_profile import CLEAN_GRAPHICS, CLEAN_STRUCTURED_CONTENT, Profile
from dicomfs.dicom.refusal import Refused

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
_MODALITY: Final = 0x00080060
_IMAGE_TYPE: Final = 0x00080008
_CONVERSION_TYPE: Final = 0x00080064
_SERIES_DESCRIPTION: Final = 0x0008103E
_BURNED_IN_ANNOTATION: Final = 0x00280301
_RECOGNIZABLE_VISUAL_FEATURES: Final = 0x00280302
_SPECIMEN_LABEL_IN_IMAGE: Final = 0x00480010

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_DOCUMENTS: Final = ("104.",)
_REPORTS: Final = ("88.",)
_PRESENTATIONS: Final = ("11.", "131")
_OPAQUE: Final = ("66",)
"""Raw Data, which only its maker knows."""
_RETIRED: Final = ("8", "9", "10", "11", "12.77", "129")
"""Standalone overlays, curves and tables, a maker's own."""
_VOICES: Final = ("9.4.",)
_OTHERS: Final = ("201.", "501.", "601.")
"""Inventories of archives, luggage, materials."""
_RISKY: Final = ("7", "7.", "6", "6.", "3", "3.", "77.1", "77.1.", "77.2")
"""Secondary capture, ultrasound, all visible light."""
_RISKY_MODALITIES: Final = frozenset(
    ("US", "IVUS", "ES", "XC", "GM", "SM", "OP", "OPM", "DMS", "OT", "DOC", "HC", "SC", "VL", "TG", "EC", "BI", "DD",
     "VF", "FS")
)  # fmt: skip
_CAPTURES: Final = re.compile(
    r"SCREEN|CAPTURE|DOSE[ _]?(?:REPORT|INFO|SHEET)|REPORT|PASTED|SCANNED|PHOTO|LABEL|OVERVIEW|PATIENT[ _]?PROTOCOL"
    r"|RESULT TABLE|SUMMARY"
)
_SAID_SO: Final = re.compile(
    r"screen ?(?:save|shot|capture)|dose ?(?:report|info|sheet|summary)|patient ?protocol|exam ?protocol", re.IGNORECASE
)
_SCANNED: Final = frozenset(("SD", "DF", "DV"))
"""A scanned document, digitised film and video: what stands on film, stands in the pixels."""


def refuse(text_of: Callable[[int], str], profile: Profile) -> None:
    """Raise Refused for what must be withheld; `text_of` returns an attribute's text, "" where there is none."""
    sop_class, modality = text_of(SOP_CLASS_UID), text_of(_MODALITY)
    if not sop_class or not modality:
        raise Refused("SOP class or modality is missing, so nobody can tell what it shows")
    if not sop_class.startswith(_STORAGE):
        raise Refused("this kind of object cannot be de-identified: it is none of the Standard's images or documents")
    kind = sop_class.removeprefix(_STORAGE)
    burned_in = text_of(_BURNED_IN_ANNOTATION).upper()
    if burned_in == "YES":
        raise Refused("text is burned into the pixels (BurnedInAnnotation)")
    if text_of(_RECOGNIZABLE_VISUAL_FEATURES).upper() == "YES":
        raise Refused("the pixels show who it is (RecognizableVisualFeatures)")
    if burned_in not in ("", "NO"):
        raise Refused("whether text is burned into the pixels is not said clearly (BurnedInAnnotation)")
    if text_of(_SPECIMEN_LABEL_IN_IMAGE).upper() == "YES":
        raise Refused("a label is seen in the pixels (SpecimenLabelInImage)")
    _refuse_documents(kind, profile)
    _refuse_captures(text_of, kind, modality, clean=burned_in == "NO")


def _refuse_documents(kind: str, profile: Profile) -> None:
    if kind.startswith(_DOCUMENTS):
        raise Refused("an encapsulated document: what stands in it cannot be de-identified")
    if kind.startswith(_VOICES):
        raise Refused("a recording of a voice: it tells who it is")
    if kind in _OPAQUE or kind in _RETIRED or kind.startswith(_OTHERS):
        raise Refused("this kind of object cannot be de-identified: what is in it is not known well enough")
    if kind.startswith(_REPORTS) and CLEAN_STRUCTURED_CONTENT not in profile.options:
        raise Refused(f"a structured report: without its content it is none; see the option {CLEAN_STRUCTURED_CONTENT}")
    if kind.startswith(_PRESENTATIONS) and CLEAN_GRAPHICS not in profile.options:
        raise Refused(f"a presentation state: it may hold text; see the option {CLEAN_GRAPHICS}")


def _refuse_captures(text_of: Callable[[int], str], kind: str, modality: str, *, clean: bool) -> None:
    conversion = text_of(_CONVERSION_TYPE).upper()
    if conversion in _SCANNED:
        raise Refused("a scanned document or film: text may stand in the pixels (ConversionType)")
    if _CAPTURES.search(text_of(_IMAGE_TYPE).upper()) or _SAID_SO.search(text_of(_SERIES_DESCRIPTION)):
        raise Refused("a capture of a screen, a label or a report: text may stand in the pixels (ImageType)")
    if clean:
        return
    if conversion or kind in _RISKY or kind.startswith(tuple(one for one in _RISKY if one.endswith("."))):
        raise Refused("this kind of image often has text burned in, and it does not say that it has none (SOP class)")
    if modality.upper() in _RISKY_MODALITIES:
        raise Refused("this kind of image often has text burned in, and it does not say that it has none (Modality)")
