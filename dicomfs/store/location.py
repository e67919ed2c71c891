"""Where the stored bytes of a blob lie: the value of the index's blob table.

Little endian: u32 pack, u64 offset, u32 stored length, u32 plain length, u8 codec, u32 CRC-32 each:
of every 64 KiB of a blob stored plain, of the whole of a coded one.
"""

from struct import Struct, error
from typing import NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.recipe import MAX_BLOB

_HEAD = Struct("<IQIIB")


class Location(NamedTuple):
    """One blob in one pack; offsets and lengths are bytes."""

    pack: int
    offset: int
    stored: int
    length: int
    codec: int
    crcs: tuple[int, ...]

    def encode(self) -> bytes:
        """Return the value of the blob table."""
        return _HEAD.pack(*self[:5]) + Struct(f"<{len(self.crcs)}I").pack(*self.crcs)


def decode(value: bytes) -> Location:
    """Read the value of the blob table; raise Damaged where it is none."""
    try:
        pack, offset, stored, length, codec = _HEAD.unpack_from(value)
        count = 1 if codec else -(-stored // codecs.CRC_CHUNK) or 1
        crcs = Struct(f"<{count}I").unpack(value[_HEAD.size :])
    except error as cause:
        raise Damaged("the index has a damaged record of a blob; run 'dicomfs reindex'") from cause
    if codec not in codecs.SUFFIXES or length > MAX_BLOB or stored > 2 * MAX_BLOB:
        raise Damaged("the index has a damaged record of a blob; run 'dicomfs reindex'")
    return Location(pack, offset, stored, length, codec, crcs)


def crcs_for(codec: int, stored: bytes | memoryview, crc: int) -> tuple[int, ...]:
    """Return the CRCs that the location of these stored bytes carries; `crc` is that of the whole."""
    if codec != codecs.PLAIN or len(stored) <= codecs.CRC_CHUNK:
        return (crc,)
    return codecs.chunk_crcs(stored)
