"""Text written in the character set that a file declares, where that can hold it exactly (PS3.5 6.1)."""

import re
import warnings
from typing import Final

from dicomfs.dicom.charset import CharacterSet, character_set
from dicomfs.dicom.edit_settings import UNSPLIT

UTF_8: Final = b"ISO_IR 192"
_NARROW: Final = {"cp949": "euc_kr", "gb18030": "gb2312"}
"""What the sets behind escape sequences hold; reading takes the wider ones, PS3.3 table C.12-4."""
_DELIMITERS: Final = re.compile(r"([\\\t\n\f\r])")
_NAME_DELIMITERS: Final = re.compile(r"([\\^=\t\n\f\r])")
_PADDING: Final = " \0"


def text_bytes(declared: bytes, text: str, *, is_name: bool) -> bytes | None:
    """Return text in what a Specific Character Set declares, None where that cannot hold it exactly."""
    if text.isascii():
        return text.encode("ascii")
    charset = character_set(declared)
    terms = [term.strip(_PADDING) for term in declared.decode("ascii", "replace").split("\\")]
    made = _encoded(charset.first, text) if len(terms) == 1 else _extended(charset, terms, text, is_name=is_name)
    if made is None or charset.exactly(made, is_name=is_name) != text or charset.decode(made, is_name=is_name) != text:
        return None
    return made


def converted(declared: bytes, value: bytes, *, is_name: bool) -> bytes | None:
    """Return a value in UTF-8, as it is if that is the same; None where it is not cleanly in the declared set."""
    text = character_set(declared).exactly(value, is_name=is_name)
    if text is None:
        return None
    made = text.encode("utf_8")
    if made == value or not len(made) & 1:
        return value if made == value else made
    return made[:-1] if made[-1:] in (b" ", b"\0") else made + b" "


def split_text(vr: str, text: str) -> tuple[str, ...]:
    """Return the values of a text without their padding; no value is one that is empty."""
    if vr in UNSPLIT:
        return (text.rstrip(_PADDING),)
    strip = str.rstrip if vr in ("LO", "PN", "SH", "UC") else str.strip
    return tuple(strip(one, _PADDING) for one in text.split("\\"))


def _encoded(codec: str, text: str) -> bytes | None:
    try:
        return text.encode(codec)
    except (UnicodeEncodeError, LookupError):
        return None


def _extended(charset: CharacterSet, terms: list[str], text: str, *, is_name: bool) -> bytes | None:
    """Return text with escape sequences, each part of it from where the sets start afresh (PS3.5 6.1.2.5.3)."""
    for sign in frozenset(text):
        if not sign.isascii() and all(_encoded(_NARROW.get(codec, codec), sign) is None for codec in charset.codecs):
            return None
    from pydicom.charset import convert_encodings, encode_string

    parts = (_NAME_DELIMITERS if is_name else _DELIMITERS).split(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is misspelt is corrected, and what cannot be held replaced, with one
        try:
            encodings = convert_encodings(terms)
            return b"".join(_designated(charset, encode_string(part, encodings)) if part else b"" for part in parts)
        except (UserWarning, LookupError, ValueError):
            return None


def _designated(charset: CharacterSet, part: bytes) -> bytes:
    """Return a part behind the escape sequence of GB 2312, which pydicom leaves out (PS3.3 table C.12-4)."""
    if "gb18030" in charset.codecs and charset.exactly(part) is None:
        return b"\x1b$)A" + part
    return part
