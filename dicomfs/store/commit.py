"""The commit record: the last entry of every commit in a pack, and the truth about it.

Little endian, one after another:

    'DCAT', u16 version, u16 0, u64 seq, u64 start, u64 time_ns, u32 blobs, u32 meta, u64 body
    blobs  bytes    per blob of this commit: 32 s SHA-256, u64 offset in the pack, u32 stored length,
                    u32 plain length, u8 codec, u16 n, n times u32: the checks (see codec.py)
    meta   bytes    one zstd frame of JSON: what the layer above records of the commit
    body   bytes    what the layer above refers to by offset: the header of every file

`seq` counts the commits of the archive from 1; `start` is where in the pack this commit's first
entry begins, which ties the entries before the record to it.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Final, NamedTuple

import zstandard

from dicomfs.errors import Damaged
from dicomfs.store.location import Location
from dicomfs.store.recipe import BlobId

VERSION: Final = 1
_HEAD = Struct("<4sHHQQQIIQ")
_BLOB = Struct("<32sQIIBH")
_MAX_META: Final = 1 << 30


class CommitHead(NamedTuple):
    """The fixed part of a commit record; lengths in bytes."""

    seq: int
    start: int
    time_ns: int
    blobs_length: int
    meta_length: int
    body_length: int

    @property
    def blobs_at(self) -> int:
        """Where in the record the table of blobs begins."""
        return _HEAD.size

    @property
    def meta_at(self) -> int:
        """Where in the record the metadata begin."""
        return _HEAD.size + self.blobs_length

    @property
    def body_at(self) -> int:
        """Where in the record the body begins."""
        return self.meta_at + self.meta_length

    @property
    def length(self) -> int:
        """How long the whole record is."""
        return self.body_at + self.body_length


HEAD_LENGTH: Final = _HEAD.size


def name(seq: int) -> bytes:
    """Return the name of a commit's entry."""
    return b"c/%016x.cat" % seq


def encode(
    seq: int,
    start: int,
    time_ns: int,
    blobs: Sequence[tuple[BlobId, Location]],
    meta: bytes,
    body: Iterable[bytes],
) -> tuple[CommitHead, bytes]:
    """Return the record of one commit."""
    return encode_packed(seq, start, time_ns, blobs, pack_meta(meta), body)


def pack_meta(meta: bytes) -> bytes:
    """Return the JSON of a commit as its record holds it."""
    packed: bytes = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(meta)
    return packed


def encode_packed(
    seq: int,
    start: int,
    time_ns: int,
    blobs: Sequence[tuple[BlobId, Location]],
    packed: bytes,
    body: Iterable[bytes],
) -> tuple[CommitHead, bytes]:
    """Return the record of one commit whose JSON is compressed already."""
    table = b"".join(
        _BLOB.pack(blob, at.offset, at.stored, at.length, at.codec, len(at.checks))
        + Struct(f"<{len(at.checks)}I").pack(*at.checks)
        for blob, at in blobs
    )
    joined = b"".join(body)
    head = CommitHead(seq, start, time_ns, len(table), len(packed), len(joined))
    fixed = _HEAD.pack(b"DCAT", VERSION, 0, *head)
    return head, b"".join((fixed, table, packed, joined))


def record_length(blobs: Iterable[tuple[BlobId, Location]], meta_length: int, body_length: int) -> int:
    """Return how long a record with these blobs is."""
    return _HEAD.size + sum(_BLOB.size + 4 * len(at.checks) for _, at in blobs) + meta_length + body_length


def read_head(record: bytes) -> CommitHead:
    """Read the fixed part; raise Damaged where it is none of ours."""
    if len(record) < _HEAD.size or record[:4] != b"DCAT":
        raise Damaged("a commit record does not begin as one")
    _, version, _, *fields = _HEAD.unpack_from(record)
    if version != VERSION:
        raise Damaged(f"a commit record has version {version}; this program reads {VERSION}")
    return CommitHead(*fields)


def read_meta(packed: bytes) -> bytes:
    """Return the JSON of a commit."""
    try:
        if not 0 <= zstandard.frame_content_size(packed[:18]) <= _MAX_META:
            raise Damaged("a commit record claims an impossible length")
        meta: bytes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MAX_META)
    except zstandard.ZstdError as error:
        raise Damaged(f"a commit record does not decode: {error}") from error
    return meta


def read_blobs(table: bytes, pack: int) -> Iterator[tuple[BlobId, Location]]:
    """Walk the table of blobs."""
    at = 0
    while at + _BLOB.size <= len(table):
        blob, offset, stored, length, codec, count = _BLOB.unpack_from(table, at)
        at += _BLOB.size
        if at + 4 * count > len(table):
            raise Damaged("a commit record's table of blobs is cut off")
        checks = Struct(f"<{count}I").unpack_from(table, at)
        at += 4 * count
        yield BlobId(blob), Location(pack, offset, stored, length, codec, checks)
