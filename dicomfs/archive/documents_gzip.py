"""Gzip members put together from deflated pieces, so that a piece whose text did not change is taken over as it is.

A piece ends in a full flush: it is deflated without knowledge of the pieces before it, and ends on a byte. What
follows from all of them, the CRC-32 of the whole text, is combined from theirs. There is no time and no name in it, so
equal texts cut into equal pieces mostly give equal bytes; but nothing relies on that, as it is the compressor's choice.

The compressor is ISA-L's, level 2. Measured on DICOM JSON against zlib's level 6: a list of 2,000 similar objects
becomes 0.09 MB instead of 0.10 MB in a thirtieth of the time, objects by themselves 12 % longer in a fifth of it.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from isal import isal_zlib

from dicomfs.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Deflate, no flags, time 0, no extra flags, made on Unix (RFC 1952 2.3).
HEADER: Final = bytes.fromhex("1f8b0800000000000003")
_TRAILER: Final = Struct("<II")
_LEVEL: Final = 2
_RAW: Final = -15
_GZIP: Final = 31
_ERROR: Final = cast("type[Exception]", isal_zlib.IsalError)  # its stub says that it is an instance


class Piece(NamedTuple):
    """A part of a text, deflated."""

    data: bytes | memoryview
    crc32: int
    """Of the text."""
    length: int
    """Of the text, in bytes."""


def piece(text: str, *, last: bool = False) -> Piece:
    """Deflate a part of a text; a member needs one that is the `last`."""
    data = _encoded(text)
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)
    ending = isal_zlib.Z_FINISH if last else isal_zlib.Z_FULL_FLUSH
    return Piece(compressor.compress(data) + compressor.flush(ending), isal_zlib.crc32(data), len(data))


class Sum:
    """The CRC-32 and the length of a text, put together from those of its pieces."""

    def __init__(self) -> None:
        self._crc32 = 0
        self._length = 0

    def add(self, crc32: int, length: int) -> None:
        """Add those of the next piece."""
        self._crc32 = isal_zlib.crc32_combine(self._crc32, crc32, length)
        self._length += length

    def trailer(self) -> bytes:
        """Return what ends the member."""
        return _TRAILER.pack(self._crc32, self._length & 0xFFFFFFFF)


def joined(pieces: Iterable[Piece]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the member that pieces make; the last one was made as such."""
    whole = Sum()
    yield HEADER
    for data, crc32, length in pieces:
        whole.add(crc32, length)
        yield data
    yield whole.trailer()


def packed(data: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield the bytes of one member of any length that holds the data."""
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)
    crc32 = length = 0
    yield HEADER
    for part in data:
        crc32 = isal_zlib.crc32(part, crc32)
        length += len(part)
        yield compressor.compress(part)
    yield compressor.flush(isal_zlib.Z_FINISH)
    yield _TRAILER.pack(crc32, length & 0xFFFFFFFF)


def member(text: str) -> bytes:
    """Return a whole text as one gzip member."""
    data, crc32, length = piece(text, last=True)
    return b"".join((HEADER, data, _TRAILER.pack(crc32, length & 0xFFFFFFFF)))


def text(document: bytes | memoryview) -> str:
    """Return the text of a member that was made here; raise Damaged where it is no longer what it was."""
    try:
        data: bytes = isal_zlib.decompress(document, _GZIP)
        return data.decode()
    except (_ERROR, ValueError, EOFError) as error:
        raise Damaged("a document of the cache is no longer what it was") from error


def _encoded(text: str) -> bytes:
    # Half of a surrogate pair is no character: it can come from a name that is no UTF-8.
    return text.encode("utf-8", "replace")
