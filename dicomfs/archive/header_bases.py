"""Compress headers against the first of their series: what an import and a project do alike (decision 9)."""

import hashlib
from struct import Struct
from typing import Final, NamedTuple

import zstandard

from dicomfs.archive.archive import NO_BASE
from dicomfs.store.recipe import BlobId

MAX_BASE: Final = 1 << 20
MIN_BASE: Final = 64
REBASE: Final = 0.25
"""A header that compresses to more than this part of itself becomes its series' next base."""
_LEVEL: Final = 3
_LENGTH: Final = Struct("<I")


class Base(NamedTuple):
    """What headers are compressed against."""

    blob: BlobId
    compressor: zstandard.ZstdCompressor
    decompressor: zstandard.ZstdDecompressor


def no_base() -> Base:
    """Return what compresses a header that stands alone, and bases."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    return Base(BlobId(NO_BASE), compressor, zstandard.ZstdDecompressor())


def make(blob: bytes, literals: bytes) -> Base:
    """Make a base of the literal bytes of a file; `blob` is their SHA-256."""
    dictionary = zstandard.ZstdCompressionDict(literals, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    dictionary.precompute_compress(level=_LEVEL)
    return Base(
        BlobId(blob),
        zstandard.ZstdCompressor(level=_LEVEL, dict_data=dictionary, write_checksum=True),
        zstandard.ZstdDecompressor(dict_data=dictionary),
    )


def blob_id(literals: bytes) -> BlobId:
    """Return the name of the base that these are."""
    return BlobId(hashlib.sha256(literals).digest())


def header_of(recipe: bytes, literals: bytes) -> bytes:
    """Return what is compressed: the recipe's length, the recipe, the literal bytes."""
    return b"".join((_LENGTH.pack(len(recipe)), recipe, literals))


def parts_of(header: bytes) -> tuple[bytes, bytes]:
    """Return recipe and literal bytes."""
    end = _LENGTH.size + int.from_bytes(header[: _LENGTH.size], "little")
    return header[_LENGTH.size : end], header[end:]


def can_be_base(literals: bytes) -> bool:
    """Say whether others are compressed against these."""
    return MIN_BASE <= len(literals) <= MAX_BASE


def asks_for_another(body: bytes, header: bytes, literals: bytes) -> bool:
    """Say whether a header is so unlike its base that it should be the next one."""
    return len(body) > REBASE * len(header) and len(literals) > 1024
