"""Where the stored bytes of a blob lie: the value of the index's blob table.

Little endian: u32 pack, u64 offset, u32 stored length, u32 plain length, u8 codec, then the checks (see codec.py),
u32 each.
"""

from struct import Struct, error
from typing import NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.codec import Checks
from dicomfs.store.recipe import MAX_BLOB

_HEAD = Struct("<IQIIB")


class Location(NamedTuple):
    """One blob in one pack; offsets and lengths are bytes."""

    pack: int
    offset: int
    stored: int
    length: int
    codec: int
    checks: Checks

    def encode(self) -> bytes:
        """Return the value of the blob table."""
        return _HEAD.pack(*self[:5]) + Struct(f"<{len(self.checks)}I").pack(*self.checks)


def decode(value: bytes) -> Location:
    """Read the value of the blob table; raise Damaged where it is none."""
    try:
        pack, offset, stored, length, codec = _HEAD.unpack_from(value)
        checks = Struct(f"<{(len(value) - _HEAD.size) // 4}I").unpack(value[_HEAD.size :])
    except error as cause:
        raise Damaged("the index has a damaged record of a blob; run 'dicomfs reindex'") from cause
    known = codec in codecs.SUFFIXES and length <= MAX_BLOB and stored <= 2 * MAX_BLOB
    if not known or not _fits(stored, length, codec, checks):
        raise Damaged("the index has a damaged record of a blob; run 'dicomfs reindex'")
    return Location(pack, offset, stored, length, codec, checks)


def _fits(stored: int, length: int, codec: int, checks: Checks) -> bool:
    """Say whether these checks can be those of such a blob."""
    if codec == codecs.PLAIN:
        return len(checks) == (-(-stored // codecs.CRC_CHUNK) or 1)
    if len(checks) == 1:
        return True
    step = 1 + codecs.WIDTHS[codec]
    return len(checks) == -(-length // codecs.CHUNK) * step and sum(checks) - sum(checks[::step]) == stored
