"""DICOM byte strings put together element by element, right or wrong, in any transfer syntax.

Nothing is checked and nothing is corrected: a length may lie, a VR may be missing, a delimiter may be left out.
That is what `tests.builders`, which writes with pydicom, cannot do.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import pack

UNDEFINED = 0xFFFFFFFF
LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
NUMBERS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
PADDING = {"UI": b"\0", "OB": b"\0", "UN": b"\0"}

IMPLICIT_UID = "1.2.840.10008.1.2"
EXPLICIT_UID = "1.2.840.10008.1.2.1"
DEFLATED_UID = "1.2.840.10008.1.2.1.99"
BIG_UID = "1.2.840.10008.1.2.2"
JPEG_UID = "1.2.840.10008.1.2.4.50"

STUDY, SERIES, SOP, SOP_CLASS = "2.25.11", "2.25.12", "2.25.13", "1.2.840.10008.5.1.4.1.1.7"

Value = bytes | str | int | float | Sequence[int] | Sequence[float]


@dataclass(frozen=True)
class Writer:
    """Writes elements in one encoding."""

    name: str
    transfer_syntax: str
    implicit: bool = False
    big: bool = False

    def tag(self, tag: int) -> bytes:
        return pack((">" if self.big else "<") + "HH", tag >> 16, tag & 0xFFFF)

    def u32(self, number: int) -> bytes:
        return pack(">I" if self.big else "<I", number)

    def value(self, vr: str, value: Value) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            raw = value.encode("latin_1")
            return raw + PADDING.get(vr, b" ") * (len(raw) & 1)
        numbers = value if isinstance(value, Sequence) else [value]
        return b"".join(pack((">" if self.big else "<") + NUMBERS[vr], number) for number in numbers)

    def header(self, tag: int, vr: str, length: int) -> bytes:
        if self.implicit:
            return self.tag(tag) + self.u32(length)
        if vr in LONG_VRS:
            return self.tag(tag) + vr.encode() + b"\0\0" + self.u32(length)
        return self.tag(tag) + vr.encode() + pack(">H" if self.big else "<H", length)

    def element(self, tag: int, vr: str, value: Value, length: int | None = None) -> bytes:
        """Write an element; `length` is what to declare, if not the truth."""
        raw = self.value(vr, value)
        return self.header(tag, vr, len(raw) if length is None else length) + raw

    def item(self, content: bytes = b"", *, undefined: bool = False, length: int | None = None) -> bytes:
        if undefined:
            return self.tag(0xFFFEE000) + self.u32(UNDEFINED) + content + self.tag(0xFFFEE00D) + self.u32(0)
        return self.tag(0xFFFEE000) + self.u32(len(content) if length is None else length) + content

    def sequence(self, tag: int, items: Iterable[bytes], *, undefined: bool = False, vr: str = "SQ") -> bytes:
        content = b"".join(items)
        if undefined:
            return self.header(tag, vr, UNDEFINED) + content + self.end()
        return self.header(tag, vr, len(content)) + content

    def end(self) -> bytes:
        """Write a sequence delimiter."""
        return self.tag(0xFFFEE0DD) + self.u32(0)

    def encapsulated(
        self, fragments: Iterable[bytes], offset_table: bytes = b"", *, tag: int = 0x7FE00010, closed: bool = True
    ) -> bytes:
        items = self.item(offset_table) + b"".join(map(self.item, fragments))
        return self.header(tag, "OB", UNDEFINED) + items + (self.end() if closed else b"")

    def identity(self, study: str = STUDY, series: str = SERIES, sop: str = SOP) -> bytes:
        """Write what makes a data set an instance."""
        return (
            self.element(0x00080016, "UI", SOP_CLASS)
            + self.element(0x00080018, "UI", sop)
            + self.element(0x0020000D, "UI", study)
            + self.element(0x0020000E, "UI", series)
        )

    def image(self, rows: int, columns: int, *, bits: int = 16, samples: int = 1, frames: int | None = None,
              interpretation: str = "MONOCHROME2") -> bytes:  # fmt: skip
        """Write what the length of a frame follows from."""
        return (
            self.element(0x00280002, "US", samples)
            + self.element(0x00280004, "CS", interpretation)
            + (b"" if frames is None else self.element(0x00280008, "IS", str(frames)))
            + self.element(0x00280010, "US", rows)
            + self.element(0x00280011, "US", columns)
            + self.element(0x00280100, "US", bits)
        )


EXPLICIT = Writer("explicit", EXPLICIT_UID)
IMPLICIT = Writer("implicit", IMPLICIT_UID, implicit=True)
BIG = Writer("big", BIG_UID, big=True)
WRITERS = (EXPLICIT, IMPLICIT, BIG)


def meta(transfer_syntax: str | None, *, sop_class: str = SOP_CLASS, group_length: int | None = None) -> bytes:
    """Write meta information; `group_length` is what to declare, if not the truth."""
    rest = EXPLICIT.element(0x00020001, "OB", b"\0\1") + EXPLICIT.element(0x00020002, "UI", sop_class)
    if transfer_syntax is not None:
        rest += EXPLICIT.element(0x00020010, "UI", transfer_syntax)
    return EXPLICIT.element(0x00020000, "UL", len(rest) if group_length is None else group_length) + rest


def part10(data_set: bytes, transfer_syntax: str | None = EXPLICIT_UID, *, preamble: bytes = b"\0" * 128) -> bytes:
    """Put preamble and meta information before a data set."""
    return preamble + b"DICM" + meta(transfer_syntax) + data_set


def deflated(data_set: bytes) -> bytes:
    """Deflate a data set as PS3.5 A.5 says, without a zlib head."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data_set) + compressor.flush()
