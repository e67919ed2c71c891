"""Specific Character Set: bytes to text (PS3.3 C.12.1.1.2, PS3.5 6.1).

Python's codecs know every character set of DICOM; only the code extensions of ISO 2022, which switch
between sets by escape sequences within a value, are decoded here. Decoding never fails: bytes that are
wrong for the declared set are tried as UTF-8 and then taken for Latin 1, where every byte is something.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

# GB 18030 contains GB 2312, and code page 949 KS X 1001: the wider ones read what writers really write.
# Defined terms are told apart by their registration number: writers misspell all the rest of them.
_CODECS: Final = {
    6: "ascii", 13: "shift_jis", 58: "gb18030", 87: "iso2022_jp", 100: "latin_1", 101: "iso8859_2", 109: "iso8859_3",
    110: "iso8859_4", 126: "iso8859_7", 127: "iso8859_6", 138: "iso8859_8", 144: "iso8859_5", 148: "iso8859_9",
    149: "cp949", 159: "iso2022_jp_2", 166: "tis_620", 192: "utf_8", 203: "iso8859_15",
}  # fmt: skip
_NAMES: Final = {"GB18030": "gb18030", "GBK": "gbk", "GB2312": "gb18030", "UTF8": "utf_8", "LATIN1": "latin_1",
                 "ASCII": "ascii", "SJIS": "shift_jis", "EUCKR": "cp949"}  # fmt: skip
_TERM: Final = re.compile(r"ISO[ _-]*(?:2022)?[ _-]*IR[ _-]*(\d+)|ISO[ _-]*2022[ _-]+(\d+)|ISO[ _-]*8859[ _-]+(1)")

# Escape sequences, PS3.3 tables C.12-3 and C.12-4. Sets designated to G1 hold bytes from 0x80 on, and their
# codecs here read ASCII too; sets designated to G0 replace ASCII.
_G1: Final = {
    b"-A": "latin_1", b"-B": "iso8859_2", b"-C": "iso8859_3", b"-D": "iso8859_4", b"-F": "iso8859_7",
    b"-G": "iso8859_6", b"-H": "iso8859_8", b"-L": "iso8859_5", b"-M": "iso8859_9", b"-T": "tis_620",
    b"-b": "iso8859_15", b")I": "shift_jis", b"$)C": "cp949", b"$)A": "gb18030",
}  # fmt: skip
_G0_MULTI: Final = frozenset((b"$B", b"$@", b"$(D"))
_ESCAPE: Final = re.compile(rb"\x1b(\$[()][A-D]|\$[B@]|[(-][A-Zb]|\)I)")

_DELIMITERS: Final = re.compile(rb"([\\\t\n\f\r])")
_NAME_DELIMITERS: Final = re.compile(rb"([\\^=\t\n\f\r])")


class CharacterSet:
    """What the values of one data set are encoded in."""

    __slots__ = ("codecs", "first")

    def __init__(self, codecs: Sequence[str], first: str = "ascii") -> None:
        self.codecs = codecs
        self.first = first
        """What is in force where nothing was designated; "" if nobody knows it."""

    def decode(self, value: bytes, *, is_name: bool = False) -> str:
        """Return a value as text; `is_name` for PN, whose components each start afresh."""
        if b"\x1b" in value:
            return self._with_escapes(value, _NAME_DELIMITERS if is_name else _DELIMITERS)
        if value.isascii():
            return value.decode("ascii")
        return _decoded(value, self._without_escapes())

    def exactly(self, value: bytes, *, is_name: bool = False) -> str | None:
        """Return the same text, None where a part of it is not of the set that is in force there."""
        if b"\x1b" in value:
            return self._exactly_with_escapes(value, _NAME_DELIMITERS if is_name else _DELIMITERS)
        return _exactly(value, self.first)

    def _exactly_with_escapes(self, value: bytes, delimiters: re.Pattern[bytes]) -> str | None:
        text: list[str | None] = []
        right = self.first
        multi = b""
        position = 0
        for escape in [*_ESCAPE.finditer(value), None]:
            part = value[position : escape.start() if escape else len(value)]
            if multi:
                text.append(_exactly(multi + part, "iso2022_jp_2") if part else "")
            else:
                for index, piece in enumerate(delimiters.split(part)):
                    right = self.first if index & 1 else right
                    text.append(_exactly(piece, right))
            if escape is None:
                break
            designation = escape[1]
            position = escape.end()
            right = _G1.get(designation, right)
            multi = b"\x1b" + designation if designation in _G0_MULTI else b""
        known = [part for part in text if part is not None]
        return "".join(known) if len(known) == len(text) else None

    def _without_escapes(self) -> Sequence[str]:
        # The first value is in force; if that is ASCII, values that forgot their escape sequence are in another.
        return [codec for codec in self.codecs if codec not in ("ascii", "iso2022_jp", "iso2022_jp_2")][:2]

    def _with_escapes(self, value: bytes, delimiters: re.Pattern[bytes]) -> str:
        initial = self._without_escapes()
        right = initial  # what bytes from 0x80 on are read with
        text: list[str] = []
        multi = b""
        position = 0
        for escape in [*_ESCAPE.finditer(value), None]:
            part = value[position : escape.start() if escape else len(value)]
            if multi:
                text.append(_two_bytes(multi, part))
            else:
                for index, piece in enumerate(delimiters.split(part)):
                    if index & 1:  # a delimiter: what was designated before it no longer holds, PS3.5 6.1.2.5.3
                        right = initial or right
                    text.append(_decoded(piece, right))
            if escape is None:
                break
            designation = escape[1]
            position = escape.end()
            if designation in _G1:
                right = (_G1[designation],)
            multi = b"\x1b" + designation if designation in _G0_MULTI else b""
        return "".join(text)


@lru_cache(maxsize=256)
def character_set(specific_character_set: bytes) -> CharacterSet:
    """Return what a value of (0008,0005) stands for; unknown terms count as absent."""
    terms = specific_character_set.decode("ascii", "replace").upper().split("\\")
    codecs = [_codec(term) for term in terms]
    return CharacterSet([codec for codec in codecs if codec], codecs[0] if terms[0].strip(" \0") else "ascii")


def _codec(term: str) -> str:
    term = term.strip(" \0")
    if match := _TERM.match(term):
        return _CODECS.get(int(match[1] or match[2] or "100"), "")
    for name, codec in _NAMES.items():
        if name in term.replace("-", "").replace("_", ""):
            return codec
    return ""


def _exactly(value: bytes, codec: str) -> str | None:
    """Return text of one set, None where it is not; JIS X 0201 has no signs of two bytes."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    try:
        shown = value.decode(codec)
    except (UnicodeDecodeError, LookupError):  # LookupError: nobody knows the set
        return None
    if "\x1b" in shown or (codec == "shift_jis" and not all(sign.isascii() or _is_katakana(sign) for sign in shown)):
        return None
    return shown


def _is_katakana(sign: str) -> bool:
    return "\uff61" <= sign <= "\uff9f"  # half-width, PS3.3 table C.12-2


def _decoded(value: bytes, codecs: Sequence[str]) -> str:
    for codec in (*codecs, "utf_8"):
        try:
            return value.decode(codec)
        except UnicodeDecodeError:
            continue
    return value.decode("latin_1")


def _two_bytes(escape: bytes, value: bytes) -> str:
    # Python reads the 7-bit Japanese sets behind their escape sequences.
    return (escape + value).decode("iso2022_jp_2", "replace")
