"""What stands for identifiers: made by a key, so that the same becomes the same, and nobody without it can tell.

HMAC-SHA-256(key, kind 00 value)        no tables are kept: whoever has the key can make every pseudonym again
"""

import hmac
from base64 import b32encode
from functools import lru_cache
from typing import Final

_FARTHEST: Final = 3650
"""Dates are moved by up to so many days, about ten years."""
_REMEMBERED: Final = 1 << 12


class Pseudonyms:
    """The pseudonyms of one key. May be shared by threads."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.uid = lru_cache(_REMEMBERED)(self._uid)
        self.patient = lru_cache(_REMEMBERED)(self._patient)
        self.days = lru_cache(_REMEMBERED)(self._days)

    def _patient(self, identity: str) -> str:
        """Return the Patient ID of whom `identity` is."""
        return f"ANON-{_letters(self._digest('patient', identity), 12)}"

    def _uid(self, uid: str) -> str:
        """Return a UID by PS3.5 B.2, at most 44 characters long."""
        number = int.from_bytes(self._digest("uid", uid)[:16], "big")
        # The version and the variant that RFC 9562 has for UUIDs of one's own making.
        number = number & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
        return f"2.25.{number}"

    def text(self, kind: str, value: str) -> str:
        """Return 16 letters and digits for an accession number or the like."""
        return _letters(self._digest(kind, value), 16)

    def _days(self, identity: str) -> int:
        """Return by how many days the dates of a patient are moved: always into the past."""
        return -1 - int.from_bytes(self._digest("days", identity)[:8], "big") % _FARTHEST

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), "sha256")


def _letters(digest: bytes, count: int) -> str:
    return b32encode(digest)[:count].decode()
