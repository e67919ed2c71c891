"""A recipe: the extents of one file in order, each either literal bytes or one blob.

Encoded, little endian, one after another:

    u32 n               top bit 0: the next n bytes of the file's literal stream
    u32 n | 2**31, 32 s top bit 1: all n bytes of the blob with this SHA-256

The literal stream is everything between the blobs, joined.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from struct import Struct
from typing import Final, NewType, TypeAlias

from dicomfs.errors import Damaged

BlobId = NewType("BlobId", bytes)
"""The SHA-256 of a blob's plain bytes, 32 bytes."""

MAX_BLOB: Final = 1 << 24
"""No blob is longer, so that a read never decodes more; longer values are cut in pieces of this size."""

_WORD = Struct("<I")
_IS_BLOB = 1 << 31

Extent: TypeAlias = tuple[int, BlobId | None]


def encode(extents: Iterable[Extent]) -> bytes:
    """Return the extents as bytes; literal neighbours are joined and empty extents left out."""
    words: list[bytes] = []
    literal = 0
    for length, blob in extents:
        if blob is None:
            literal += length
            continue
        _end_literal(words, literal)
        literal = 0
        words += (_WORD.pack(length | _IS_BLOB), blob)
    _end_literal(words, literal)
    return b"".join(words)


def _end_literal(words: list[bytes], length: int) -> None:
    while length:
        part = min(length, _IS_BLOB - 1)
        words.append(_WORD.pack(part))
        length -= part


class Recipe:
    """Extents in order, ready to be read at any offset. Immutable; may be shared by threads."""

    __slots__ = ("blobs", "lengths", "literal_length", "literal_starts", "size", "starts")

    def __init__(self, encoded: bytes | memoryview) -> None:
        lengths: list[int] = []
        blobs: list[BlobId | None] = []
        at, end = 0, len(encoded)
        while at < end:
            if end - at < 4:
                raise Damaged("a recipe is cut off")
            (word,) = _WORD.unpack_from(encoded, at)
            at += 4
            if word & _IS_BLOB:
                if end - at < 32:
                    raise Damaged("a recipe is cut off")
                blobs.append(BlobId(bytes(encoded[at : at + 32])))
                at += 32
            else:
                blobs.append(None)
            lengths.append(word & (_IS_BLOB - 1))
        self.lengths = lengths
        self.blobs = blobs
        self.starts = list(accumulate(lengths, initial=0))
        self.size = self.starts.pop()
        literals = (length if blob is None else 0 for length, blob in zip(lengths, blobs, strict=True))
        self.literal_starts = list(accumulate(literals, initial=0))
        self.literal_length = self.literal_starts.pop()

    def first(self, offset: int) -> int:
        """Return the number of the extent that holds this offset of the file."""
        return bisect_right(self.starts, offset) - 1

    def blob_ids(self) -> list[BlobId]:
        """Return the blobs in the order of the file, as often as they occur."""
        return [blob for blob in self.blobs if blob is not None]
