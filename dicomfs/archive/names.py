"""Names that every system can hold: what a path component may look like, and how two of them clash.

A name made here is legal on Linux, Windows and SMB, at most 120 UTF-8 bytes, NFC, and never `.` or
`..`. Values of DICOM attributes are hostile input: whatever they hold becomes characters of one
component, never a second component, a control sequence or a hidden file.

    component   the legal form of a whole name           'CON.dcm'  -> '_CON.dcm'
    fragment    the legal form of a piece of a name      'A/B. '    -> 'A-B'
    cut         the name within MAX_BYTES                'xxx…'     -> 'xxx…~d3bfh7'
    candidates  the names to claim one after the other   '00001.dcm', '00001~d3bfh7.dcm', …
    fold        the key under which two names clash      'Müller'   -> 'müller'
    possible    whether a file can have a name at all    b'../x'    -> None

What a level of a tree is called is decided by `layout`; who got which name, by the catalog.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# 255 bytes is the limit of Linux filesystems; 120 keeps four levels within Windows' path of 260 characters.
MAX_BYTES = 120

# Refused by Windows and SMB; Samba shows such a name as garbage like `AHB000~E.DCM`.
_ILLEGAL = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]+')
_CARETS = re.compile(r"\^+")  # separates the components of a person's name (PS3.5 6.2.1)
_SPACES = re.compile(r"\s+")
# Control, format (bidi marks, zero width), surrogate, unassigned; private use, where SMB puts illegal ones.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})

# What is read back from an archive may have been made by anybody: whoever shows or writes a name asks this.
possible = re.compile(rb"(?!\.{1,2}\Z)[^/\0]{1,255}").fullmatch

# Text that `fragment` would return as it is: the common case, told in half a microsecond.
_SAFE = r"A-Za-z0-9_()\[\]{}#@&+=,;!$%'`"
_PLAIN = re.compile(rf"[{_SAFE}](?:[{_SAFE}.~-]| (?! ))*(?<![ .])").fullmatch

# Windows opens the device whatever extension follows; superscript digits count as digits there.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"}
    | {port + digit for port in ("com", "lpt") for digit in "0123456789¹²³"}
)
_EXTENSION = ".dcm"


def fragment(text: str) -> str:
    """Return `text` with legal characters only and no bad edges: a piece of a name, maybe empty."""
    if _PLAIN(text):
        return text
    text = _ILLEGAL.sub("-", unicodedata.normalize("NFC", text))
    text = _CARETS.sub("^", text).strip("^ ").replace("^", "_")
    if not text.isascii():
        # Whitespace first: U+2028 and its kind are spaces, and NFC again because what stood between
        # a letter and its accent may be gone.
        text = _SPACES.sub(" ", text)
        text = "".join(c for c in text if unicodedata.category(c) not in _INVISIBLE)
        text = unicodedata.normalize("NFC", text)
    return _SPACES.sub(" ", text).rstrip(" .").lstrip(" -.~")


def component(text: str) -> str:
    """Return `text` as one legal path component, maybe empty, not yet cut."""
    name = fragment(text)
    return "_" + name if name.partition(".")[0].rstrip(" ").lower() in _DEVICES else name


def digest(identity: str, length: int = 6) -> str:
    """Return the first `length` base32 digits of the identity's SHA-256: what follows a `~`."""
    hashed = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(hashed)[:length].decode("ascii").lower()


def cut(name: str, identity: str) -> str:
    """Return `name` within MAX_BYTES; a cut one ends in `~hash`, before its `.dcm` if it has one."""
    if len(name) * 4 <= MAX_BYTES or len(name.encode()) <= MAX_BYTES:
        return name
    return _suffixed(*_split(name), "~" + digest(identity))


def fold(name: str) -> str:
    """Return the key of a name: two names with equal keys are one name to Windows or macOS."""
    if name.isascii():
        return name.lower()
    # Canonical caseless matching (Unicode D145), composed again so that keys are compact.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def candidates(name: str, identity: str) -> Iterator[str]:
    """Yield the names to try, best first; never ends, for the hashed ones may be taken on purpose."""
    yield name
    stem, extension = _split(name)
    short = "~" + digest(identity)
    if stem.endswith(short):  # cut, or a stand-in: it carries the short hash already
        stem = stem.removesuffix(short)
    else:
        yield _suffixed(stem, extension, short)
    long = "~" + digest(identity, 26)
    yield _suffixed(stem, extension, long)
    for number in count(2):
        yield _suffixed(stem, extension, f"{long}-{number}")


def _split(name: str) -> tuple[str, str]:
    if name[-len(_EXTENSION) :].lower() == _EXTENSION:
        return name[: -len(_EXTENSION)], name[-len(_EXTENSION) :]
    return name, ""


def _suffixed(stem: str, extension: str, suffix: str) -> str:
    room = MAX_BYTES - len(suffix) - len(extension)
    encoded = stem.encode()
    if len(encoded) > room:
        # A code point cut in two is dropped.
        stem = encoded[:room].decode("utf-8", "ignore").rstrip(" .-_")
    return (stem or "UNKNOWN") + suffix + extension
