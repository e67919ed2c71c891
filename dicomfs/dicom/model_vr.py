"""The VR of an element whose file does not tell it, or tells the wrong one: implicit VR, UN, VRs that do not exist.

What the dictionary leaves open ('US or SS') follows from other elements, PS3.3 C.7.6.3, C.11.1 and PS3.5 A.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from dicomfs.dicom.dictionary import dictionary_vr
from dicomfs.dicom.encoding import LONG_VRS, PIXEL_DATA, SHORT_VRS

LUT_DATA: Final = 0x00283006
LUT_DESCRIPTOR: Final = 0x00283002
BITS_ALLOCATED: Final = 0x00280100
WAVEFORM_BITS_ALLOCATED: Final = 0x54001004
LONGEST_CREATOR: Final = 64
"""A private creator is an LO, PS3.5 7.8.1 and 6.2."""

_VRS: Final = frozenset(SHORT_VRS + LONG_VRS)
_WAVEFORM_GROUP: Final = 0x5400


def usual_vr(tag: int, creator: Callable[[int], bytes]) -> str:
    """Return the dictionary's VR, which may be as open as 'US or SS'; UN for what it does not know.

    `creator` returns the value of a private creator element, b"" where there is none.
    """
    if not tag >> 16 & 1:
        return dictionary_vr(tag) or "UN"
    if tag & 0xFFFF < 0x1000:  # PS3.5 7.8.1: creators, and what belongs to nobody
        return "LO" if 0x10 <= tag & 0xFFFF < 0x100 else "UN"
    return _private_vr(tag, creator(tag & 0xFFFF0000 | tag >> 8 & 0xFF))


@lru_cache(1 << 14)
def _private_vr(tag: int, creator: bytes) -> str:
    if not 0 < len(creator) <= LONGEST_CREATOR:
        return "UN"
    return dictionary_vr(tag, creator.decode("latin_1").rstrip(" \0")) or "UN"


def one_vr(vr: str, tag: int, *, implicit: bool, signed: bool, number: Callable[[int], int]) -> str:
    """Return one VR for what `usual_vr` gave.

    `number` returns the first number of an element of the same data set, 0 where there is none.
    """
    if vr in _VRS:
        return vr
    if vr == "US or SS":
        return "SS" if signed else "US"
    if vr == "US or OW" and tag == LUT_DATA:
        return "US" if number(LUT_DESCRIPTOR) == 1 else "OW"  # PS3.3 C.11.1.1.1: as many values as the descriptor says
    if vr in ("OB or OW", "OB_OW") and not implicit:
        bits = BITS_ALLOCATED if tag == PIXEL_DATA else WAVEFORM_BITS_ALLOCATED if tag >> 16 == _WAVEFORM_GROUP else 0
        return "OB" if bits and 0 < number(bits) <= 8 else "OW"  # PS3.5 A.2
    return "OW" if "OW" in vr else "UN"
