"""The data dictionary (PS3.6) and what is known of private ones: the one door to pydicom.

pydicom is loaded when a keyword is first asked for that the catalog does not know.
"""

import re
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Final

from dicomfs.dicom.attributes import TAGS
from dicomfs.errors import UsageError

_NUMERIC: Final = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
_UNLISTED: Final = re.compile(r"1\.2\.840\.10008\.(?:6\.1\.[1-9][0-9]{0,3}|5\.1\.4\.1\.1(?:\.[1-9][0-9]{0,2}){1,4})")
"""Context groups, which pydicom does not list, and storage classes, which later editions add."""


@cache
def keyword_tag(keyword: str) -> int:
    """Return the tag of a keyword, of 'ggggeeee' or of 'gggg,eeee'."""
    if tag := TAGS.get(keyword):
        return tag
    if match := _NUMERIC.fullmatch(keyword):
        return int(match[1] + match[2], 16)
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword) if keyword else None  # retired elements have the keyword ''
    if tag is None:
        message = f"{keyword!r} is neither a DICOM keyword, such as PatientID, nor a tag, such as 0010,0020"
        raise UsageError(message)
    return tag


def similar_keyword(text: str) -> str:
    """Return the keyword that somebody who wrote `text` may have meant, '' if there is none near."""
    from pydicom.datadict import keyword_dict

    keywords = {keyword.lower(): keyword for keyword in keyword_dict}
    near = get_close_matches(text.lower(), keywords, 1, 0.8)
    return keywords[near[0]] if near else ""


@lru_cache(1 << 16)  # bounded: the tags of hostile files are without number
def dictionary_vr(tag: int, creator: str = "") -> str:
    """Return the VR that the dictionary has for a tag ('US or SS' for some), '' for one that it lacks."""
    private, element = tag >> 16 & 1, tag & 0xFFFF
    if element == 0:
        return "UL"  # group length, PS3.5 7.2
    if private and element < 0x100:
        return "LO"  # private creator, PS3.5 7.8.1
    from pydicom.datadict import dictionary_VR, private_dictionary_VR

    try:
        return private_dictionary_VR(tag, creator) if private else dictionary_VR(tag)
    except KeyError:
        return ""


@lru_cache(1 << 14)
def dictionary_values(tag: int) -> int:
    """Return how many values the dictionary allows an attribute that is not private, 0 for any number."""
    from pydicom.datadict import dictionary_VM

    try:
        most = dictionary_VM(tag).rpartition("-")[2]
    except KeyError:
        return 0
    return int(most) if most.isdecimal() else 0


@lru_cache(1 << 14)
def dictionary_keyword(tag: int) -> str:
    """Return the keyword of an attribute that is not private, '' where it has none."""
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag)


@lru_cache(1 << 12)
def is_standard_uid(uid: str) -> bool:
    """Say whether a UID is one that the Standard registers (PS3.6 A)."""
    from pydicom._uid_dict import UID_dictionary

    return uid in UID_dictionary or bool(_UNLISTED.fullmatch(uid))
