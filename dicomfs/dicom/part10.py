"""Where a file's meta information ends and its data set begins, and how the data set is encoded (PS3.10 7).

    preamble (128 bytes) "DICM" | meta information: group 0002 | data set

Any of the first three may be missing, the group length may be wrong, and the transfer syntax may lie: the
bytes decide. A deflated data set is inflated here, as far as a header can reach.
"""

import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from dicomfs.dicom.encoding import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    UNDEFINED,
    Data,
    Encoding,
    shown,
)
from dicomfs.dicom.headers import TRUSTED_HEADERS, element_at, plausible_headers, recognised
from dicomfs.dicom.walk import Fault, too_long

PREAMBLE: Final = 128
META_GROUP: Final = 0x0002
LONGEST_UID: Final = 128
"""Twice what PS3.5 9.1 allows, and all that is kept of the meta information."""
TRANSFER_SYNTAX_UID: Final = 0x00020010
MEDIA_STORAGE_SOP_CLASS_UID: Final = 0x00020002

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = frozenset(
    ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")  # PS3.5 A.5, A.7, A.9
)

INFLATED_HEADER: Final = 1 << 24
"""So much of a deflated data set is inflated to find its attributes: they come before the pixel data."""
DEFLATED_PIECE: Final = 1 << 16
INFLATED_PIECE: Final = 1 << 22
INFLATED_AT_MOST: Final = 1 << 28
"""So much is inflated to find out whether the stream is whole; a longer one is taken to be."""

_NAMES: Final = {
    EXPLICIT_LITTLE: EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_LITTLE: IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_BIG: EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_BIG: "",
}


class Part10(NamedTuple):
    """What comes before a file's data set, which starts at `start` of the data and is in `encoding`."""

    start: int
    encoding: Encoding
    transfer_syntax: str
    meta: dict[int, bytes]
    deflated: bool = False
    fault: Fault | None = None


class Inflated(NamedTuple):
    """The beginning of a deflated data set, `complete` when it is all of it.

    `whole` unless the stream is known to end too early.
    """

    data: bytes
    complete: bool
    whole: bool


def locate(data: Data) -> Part10 | None:
    """Find where the data set starts and what it is encoded in; None when this is no DICOM file."""
    size = len(data)
    start = meta_start(data)
    if not start and not _starts_like_data_set(data):
        return None
    start, meta, fault = _meta_information(data, start)
    declared = text_of_uid(meta.get(TRANSFER_SYNTAX_UID, b""))
    if fault:
        return Part10(start, EXPLICIT_LITTLE, declared, meta, fault=fault)
    if declared in DEFLATED and plausible_headers(data, start, size, EXPLICIT_LITTLE) < TRUSTED_HEADERS:
        return Part10(start, EXPLICIT_LITTLE, declared, meta, deflated=True)
    encoding = recognised(data, start, size, expected_encoding(declared))
    return Part10(start, encoding, declared or _NAMES[encoding], meta)


def meta_start(data: Data) -> int:
    """Return where the meta information starts, or what there is without it: after the preamble, if there is one."""
    if data[PREAMBLE : PREAMBLE + 4] == b"DICM":
        return PREAMBLE + 4
    return 4 if data[:4] == b"DICM" else 0


def expected_encoding(transfer_syntax: str) -> Encoding:
    """Return the encoding that a transfer syntax calls for."""
    if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        return IMPLICIT_LITTLE
    return EXPLICIT_BIG if transfer_syntax == EXPLICIT_VR_BIG_ENDIAN else EXPLICIT_LITTLE


def text_of_uid(value: bytes) -> str:
    """Return a UID without its padding; NUL is right, but blanks are common."""
    return value.strip(b"\0 \t\r\n").decode("ascii", "replace")


def inflate(data: Data, start: int) -> Inflated | None:
    """Inflate the data set at `start`, which should be raw deflate but may have a zlib or gzip head.

    None when it is none of them. Memory is bounded by INFLATED_HEADER, time by INFLATED_AT_MOST.
    """
    for window_bits in (-zlib.MAX_WBITS, zlib.MAX_WBITS + 32):
        inflater = zlib.decompressobj(window_bits)
        head: list[bytes] = []
        inflated = 0
        try:
            for piece in _pieces(data, start, inflater):
                if inflated < INFLATED_HEADER:
                    head.append(piece)
                inflated += len(piece)
                if inflated >= INFLATED_AT_MOST:
                    break
        except zlib.error:
            if not inflated:
                continue
            return Inflated(b"".join(head), complete=False, whole=False)
        whole = inflater.eof or inflated >= INFLATED_AT_MOST
        return Inflated(b"".join(head), complete=inflater.eof and inflated < INFLATED_HEADER, whole=whole)
    return None


def inflated(data: Data, start: int) -> bytearray:
    """Return what comes before `start` and all of the deflated data set there, up to INFLATED_AT_MOST of it.

    The data set is there as far as it is whole; nothing of it when it is not deflated.
    """
    for window_bits in (-zlib.MAX_WBITS, zlib.MAX_WBITS + 32):
        found = bytearray(data[:start])
        try:
            for piece in _pieces(data, start, zlib.decompressobj(window_bits)):
                found += piece
                if len(found) - start >= INFLATED_AT_MOST:
                    del found[start + INFLATED_AT_MOST :]
                    return found
        except zlib.error:
            pass
        if len(found) > start:
            return found
    return bytearray(data[:start])


def _pieces(data: Data, start: int, inflater: "zlib._Decompress") -> Iterator[bytes]:
    # In pieces on both sides: zlib copies what it was given and has not used.
    for at in range(start, len(data), DEFLATED_PIECE):
        given = bytes(data[at : at + DEFLATED_PIECE])
        while given and not inflater.eof:
            yield inflater.decompress(given, INFLATED_PIECE)
            given = inflater.unconsumed_tail
        if inflater.eof:
            return
    while not inflater.eof and (piece := inflater.decompress(b"", INFLATED_PIECE)):
        yield piece


def _starts_like_data_set(data: Data) -> bool:
    # Without "DICM" only the bytes can tell: a first tag in group 0002, 0004 or 0008, and more elements after it.
    size = len(data)
    if size < 8:
        return False
    first, second = data[0], data[1]
    if first in (2, 4, 8) and second == 0:
        encodings = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    elif first == 0 and second in (2, 4, 8):
        encodings = (EXPLICIT_BIG, IMPLICIT_BIG)
    else:
        return False
    return any(plausible_headers(data, 0, size, encoding) == TRUSTED_HEADERS for encoding in encodings)


def _meta_information(data: Data, position: int) -> tuple[int, dict[int, bytes], Fault | None]:
    """Read group 0002 up to the first element of another group; its group length is wrong too often."""
    meta: dict[int, bytes] = {}
    size = len(data)
    encoding = recognised(data, position, size, EXPLICIT_LITTLE)
    header, short_vrs, implicit, turn = encoding.header, encoding.short_vrs, encoding.implicit, encoding.turn
    while position + 8 <= size:
        raw, *rest = header(data, position)
        tag = turn(raw)
        if tag >> 16 != META_GROUP:
            break
        if implicit or rest[0] in short_vrs:
            value, length = position + 8, rest[-1]
        else:
            tag, _, value, length = element_at(data, position, size, encoding)
        end = value if length == UNDEFINED else value + length
        if not 0 <= end <= size:
            return position, meta, Fault(True, position, too_long(shown(tag), position, length))
        if length == UNDEFINED:
            break
        if length <= LONGEST_UID:
            meta[tag] = bytes(data[value:end])
        position = end
    return position, meta, None
