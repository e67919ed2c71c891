"""De-identifying what a test has as bytes: the file joined again, and what of it is its own."""

import io
import warnings
from typing import NamedTuple

from pydicom import Dataset, dcmread

from dicomfs.dicom import part10 as part10s
from dicomfs.dicom.deidentify import Profile, Pseudonyms, Range, deidentify
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.walk import Walk

KEY = bytes(range(32))
IDENTITY = "4711\0clinic"
PSEUDONYMS = Pseudonyms(KEY)


class Result(NamedTuple):
    data: bytes
    own: bytes
    """What is not taken over as it is, ranges replaced by a byte that is in no text."""
    ranges: list[bytes]

    def read(self) -> Dataset:
        return dcmread(io.BytesIO(self.data))


def deidentified(file: bytes, profile: str = "basic", pseudonyms: Pseudonyms = PSEUDONYMS) -> Result:
    part10 = part10s.locate(file)
    assert part10 is not None
    if part10.deflated:
        file = bytes(part10s.inflated(file, part10.start))
        part10 = part10s.locate(file)
        assert part10 is not None
    pieces = deidentify(
        hollow(file, part10), part10, lambda start, end: file[start:end], IDENTITY, Profile.parse(profile), pseudonyms
    )
    ranges = [file[piece.start : piece.end] for piece in pieces if isinstance(piece, Range)]
    whole = b"".join(file[piece.start : piece.end] if isinstance(piece, Range) else piece for piece in pieces)
    own = b"\xff".join(piece for piece in pieces if not isinstance(piece, Range))
    return Result(whole, own, ranges)


def hollow(file: bytes, part10: Part10) -> bytes:
    """Return a file as the archive has it in memory: zeros where its blobs lie."""
    data = bytearray(file)
    for _, _, start, end in Walk(file, part10.start, len(file), part10.encoding).bulk:
        data[start:end] = bytes(end - start)
    return bytes(data)


def by_pydicom(file: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(io.BytesIO(file), force=True)
