"""How the text of a DICOM JSON object is written: as bytes that its writer misread, or in UTF-8.

The reference's first writer takes bytes for Latin 1 and keeps (0008,0005): each character is a byte of the file, so the
bytes come back as they were, whatever they mean. Only where (0008,0005) is exactly ISO_IR 192 it decodes, and then all
but PN. Its second writer decodes, but leaves escape sequences of ISO 2022 as they are: where there are some, all of the
text is bytes again. Any other text is Unicode, and becomes UTF-8 if there is more in it than ASCII.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from dicomfs.dicom.json_values import Element, Json, NoValue, first_text, texts_of

CHARACTER_SET: Final = "00080005"
DEEPEST: Final = 64
"""Sequences nested deeper than this are refused."""
UTF8: Final = "ISO_IR 192"

MISREAD: Final = "text that had been read as Latin 1 has its bytes again"
ESCAPED: Final = "text with escape sequences of ISO 2022 has its bytes again"
NOT_DECODED: Final = "text has escape sequences of ISO 2022 that could not be undone"
NO_TEXT: Final = "text has characters that stand for what was lost (U+FFFD)"
JOINED: Final = "values in one string are several again"

_REPLACEMENT: Final = "\ufffd"
_ESCAPE: Final = "\x1b"
_DECODED_NEVER: Final = frozenset(("PN", "IS", "DS"))
_UNSPLIT: Final = frozenset(("LT", "ST", "UR", "UT"))


class Text(NamedTuple):
    """How an object's text becomes bytes; `converted` where (0008,0005) has to be ISO_IR 192 at every depth."""

    misread: bool
    decoded_utf8: bool
    converted: bool
    notes: tuple[str, ...]

    def encode(self, vr: str, text: str) -> bytes:
        """Return the bytes of a text."""
        if self.misread and not (self.decoded_utf8 and (vr not in _DECODED_NEVER or _reads_well(text))):
            return text.encode("latin_1", "replace")
        return text.encode("utf-8", "replace")


def text_of(record: Mapping[str, Json], *, first_writer: bool) -> Text:
    """Tell how the text of an object is written; raise NoValue where it is nested too deeply.

    `first_writer` where the reference's first writer made it.
    """
    extended = any("2022" in text for text in texts_of((_element(record.get(CHARACTER_SET)) or {}).get("Value")))
    decoded_utf8 = first_text(_element(record.get(CHARACTER_SET))) == UTF8 and first_writer
    ascii_only, latin, some, escaped, lost, joined = True, True, False, False, False, False
    for vr, text in _texts(record):
        joined = joined or (first_writer and "\\" in text and vr not in _UNSPLIT)
        if text.isascii():
            escaped = escaped or _ESCAPE in text
            continue
        ascii_only = False
        escaped = escaped or _ESCAPE in text
        lost = lost or _REPLACEMENT in text
        if decoded_utf8 and (vr not in _DECODED_NEVER or _reads_well(text)):
            continue
        some = True
        latin = latin and max(text) <= "\xff"
    misread = latin and (first_writer or (escaped and extended))
    notes = []
    if misread and some:
        notes.append(MISREAD if first_writer else ESCAPED)
    if escaped and not misread:
        notes.append(NOT_DECODED)
    if lost:
        notes.append(NO_TEXT)
    if joined:
        notes.append(JOINED)
    return Text(misread, decoded_utf8, not misread and not ascii_only, tuple(notes))


def _texts(record: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Yield (VR, text) of every value, in sequences too."""
    waiting: list[tuple[Mapping[str, Json], int]] = [(record, 0)]
    while waiting:
        data_set, depth = waiting.pop()
        if depth > DEEPEST:
            raise NoValue(f"its sequences are nested more than {DEEPEST} deep")
        for value in data_set.values():
            element = _element(value)
            if element is None:
                continue
            vr = str(element.get("vr"))
            values = element.get("Value")
            if vr == "SQ" and isinstance(values, list):
                waiting += [(item, depth + 1) for item in values if isinstance(item, dict)]
            else:
                for text in texts_of(values):
                    yield vr, text


def _reads_well(text: str) -> bool:
    """Say whether text is no UTF-8 read as Latin 1: other writers of such lists decode names, too."""
    try:
        text.encode("latin_1").decode("utf-8")
    except UnicodeError:
        return True
    return text.isascii()


def _element(value: Json) -> Element | None:
    return value if isinstance(value, dict) else None
