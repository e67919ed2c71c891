"""Frames and bulk values in the wrapping of static-wado: one part, whose headers name the file it was written to.

    --BOUNDARY CRLF Content-Type: …;transfer-syntax=… CRLF Content-Location: 1.mht.gz CRLF CRLF
    | bytes |
    CRLF --BOUNDARY-- CRLF

Its readers look for `transfer-syntax=` and take all that follows in the line.
"""

from typing import Final

from dicomfs.archive.parts import Parts
from dicomfs.dicom.frames import OCTETS
from dicomfs.dicom.model import BulkValue
from dicomfs.dicom.part10 import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from dicomfs.dicom.stretch import Stretch
from dicomfs.vfs.composed import Composed, Piece

PACKED: Final = ".mht.gz"
PLAIN: Final = ".mht"
_UNCOMPRESSED: Final = frozenset((IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN))


def frame_suffix(parts: Parts) -> str:
    """Return how names of an instance's frames end: uncompressed pixels are gzipped."""
    return PACKED if parts.frames.transfer_syntax in _UNCOMPRESSED else PLAIN


def frame_file(parts: Parts, number: int, boundary: str, name: str) -> Composed:
    """Return frame `number` (from 1), to be written under a name; raise NotFound."""
    frames = parts.frames
    kind = f"{frames.media_type};transfer-syntax={frames.transfer_syntax}"
    return _wrapped([Piece(parts.source, stretch) for stretch in frames.stretches(number)], kind, boundary, name)


def value_file(parts: Parts, value: BulkValue, boundary: str, name: str) -> Composed:
    """Return a bulk value in little endian, to be written under a name."""
    return _wrapped([Piece(parts.source, Stretch(value.start, value.end, value.swap))], OCTETS, boundary, name)


def _wrapped(pieces: list[Piece], kind: str, boundary: str, name: str) -> Composed:
    head = f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Location: {name}\r\n\r\n".encode()
    return Composed([head, *pieces, f"\r\n--{boundary}--\r\n".encode()])
