"""Values that are kept: whether they are what their VR says, and the dummies that stand for those that are not.

What is not legal in its place may be anything, a name too, so it is not kept.
"""

import re
from functools import lru_cache
from typing import Final

from dicomfs.dicom import deid_dates

NUMBERS: Final = {"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8}
"""Bytes of a value."""
SAMPLES: Final = {"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2}
"""Bytes of a sample."""
SHORT_TEXT: Final = frozenset(("LO", "SH", "UC"))
LONG_TEXT: Final = frozenset(("LT", "ST", "UT"))
TEXT: Final = SHORT_TEXT | LONG_TEXT | {"PN"}
DATES: Final = frozenset(("DA", "DT", "TM"))

_DUMMY: Final = b"ANONYMIZED"
_DUMMIES: Final = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), _DUMMY),
    "AS": b"000Y", "AT": b"\0" * 4, "DA": b"19000101", "DS": b"0", "DT": b"19000101000000", "IS": b"0", "TM": b"000000",
    "UR": b"urn:anonymized", **{vr: b"\0" * size for vr, size in NUMBERS.items()},
    "OB": b"\0\0", "OW": b"\0\0", "OD": b"\0" * 8, "OF": b"\0" * 4, "OL": b"\0" * 4, "OV": b"\0" * 8,
}  # fmt: skip

_PATTERNS: Final = {
    "AS": r"[0-9]{3}[DWMY]",
    "CS": r"[A-Z0-9 _]{0,16}",
    "DS": r" *(?:[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[Ee][+-]?[0-9]{1,3})?)? *",
    "IS": r" *(?:[+-]?[0-9]{1,12})? *",
    "UI": r"(?:[0-9.]{1,64})?",
}
_LEGAL: Final = {vr: re.compile(rf"{one}(?:\\{one})*[ \0]?") for vr, one in _PATTERNS.items()}
_LOOSE_CODE: Final = re.compile(r"[A-Za-z0-9 _\\./+-]{0,64}\0?")
"""Codes that some writers have: lower case, dots."""
_TERMS: Final = """
ORIGINAL DERIVED MIXED PRIMARY SECONDARY AXIAL LOCALIZER REFORMATTED PROJECTION OTHER VOLUME NONE WHOLE BODY DYNAMIC
STATIC GATED TOMO RECON EMISSION TRANSMISSION SUBTRACTION PERFUSION DIFFUSION ANGIO FLUOROSCOPY MAXIMUM MINIMUM MEAN
MEDIAN MONOCHROME1 MONOCHROME2 RGB HSV ARGB CMYK YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_ICT YBR_RCT XYB YES NO
COLOR MONOCHROME TRUE_COLOR LIN LOG DISP RELATIVE IDENTITY INVERSE LINEAR LINEAR_EXACT SIGMOID SEG REG PLAN KEY DOC
KO PR SR CT MR NM PT PET US DX CR MG XA RF ECG EEG EMG EPS RTIMAGE RTDOSE RTPLAN RTSTRUCT RTRECORD OPT OCT SMR M3D
ASMT FID RWV STAIN TEXTUREMAP CONTAINER TEXT CODE NUM PNAME DATE TIME DATETIME UIDREF IMAGE COMPOSITE WAVEFORM
SCOORD SCOORD3D TCOORD TABLE CONTAINS
"""
TERMS: Final = frozenset(_TERMS.split())
"""Terms of image types, photometric interpretations, modalities and reports, which nothing is understood without."""
_SHORT: Final = 64
"""Values up to so many bytes are remembered: neighbours in a series repeat most of them."""
_LONGEST_DECIMAL: Final = 32
"""A DS has 16 characters; some writers take more."""
_CHARACTER_SETS: Final = re.compile(
    r"(?:ISO[ _]IR [0-9]{1,3}|ISO 2022 IR [0-9]{1,3}|GB18030|GBK)?(?:\\(?:ISO 2022 IR [0-9]{1,3})?)*[ \0]?"
)
_MANY_NUMBERS: Final = 32
"""So many bytes of numbers look like text by no chance."""
_ONLY_TEXT: Final = re.compile(rb"[\x20-\x7e]{6,}\0?")
_CONTROLS: Final = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f-\x9f]")


def dummy(vr: str) -> bytes:
    """Return a legal value that says nothing; "" where there is none."""
    return _DUMMIES.get(vr, b"")


def is_legal(vr: str, value: bytes) -> bool:
    """Say whether a value that is no free text is what its VR says."""
    return (_is_legal_again if len(value) <= _SHORT else _is_legal)(vr, value)


def _is_legal(vr: str, value: bytes) -> bool:
    if vr in NUMBERS:
        return len(value) % NUMBERS[vr] == 0 and not (len(value) >= _MANY_NUMBERS and _ONLY_TEXT.fullmatch(value))
    if vr in SAMPLES:
        return len(value) % SAMPLES[vr] == 0 and not _ONLY_TEXT.fullmatch(value)
    if not value.isascii():
        return False
    text = value.decode("ascii")
    if vr in DATES:
        return bool(deid_dates.kept(vr, text)) or not text.strip(" \0\\")
    pattern = _LEGAL.get(vr)
    if pattern is None or not pattern.fullmatch(text):
        return vr == "CS" and bool(_LOOSE_CODE.fullmatch(text))
    return vr != "DS" or all(len(one) <= _LONGEST_DECIMAL for one in text.split("\\"))


def may_be(told: str, vr: str) -> bool:
    """Say whether a value whose file tells one VR may be of another: text of text, samples of samples, UN of any."""
    if told == "UN" or " or " in told:
        return True
    return (told in NUMBERS or told in SAMPLES) is (vr in NUMBERS or vr in SAMPLES)


def is_icc_profile(value: bytes) -> bool:
    """Say whether a value has the head of an ICC profile, and its length (ICC.1 7.2)."""
    return value[36:40] == b"acsp" and 0 <= len(value) - int.from_bytes(value[:4], "big") <= 1


_is_legal_again: Final = lru_cache(1 << 14)(_is_legal)


def is_character_set(value: bytes) -> bool:
    """Say whether a Specific Character Set names such."""
    return value.isascii() and bool(_CHARACTER_SETS.fullmatch(value.decode("ascii")))


def has_controls(text: str) -> bool:
    """Say whether a text holds control characters that none may hold, apart from NULs at its end."""
    return bool(_CONTROLS.search(text.rstrip("\0")))
