"""Whether a file may refer to one of many UIDs, without asking what its elements are."""

import re
from collections.abc import Callable, Iterable
from typing import Final

from dicomfs.dicom import part10 as part10s
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.walk import Walk

_UID: Final = re.compile(rb"[0-9.]+")


class Sought:
    """UIDs that are looked for; made once for many files. Immutable; may be shared by threads."""

    def __init__(self, uids: Iterable[str]) -> None:
        self._uids = frozenset(uid.encode("ascii", "replace") for uid in uids)
        self._odd = [uid for uid in self._uids if not _UID.fullmatch(uid)]

    def is_in(self, header: bytes | memoryview) -> bool:
        """Say whether one of them stands in bytes; linear in their number."""
        # The last byte before a value may be of its length, and a digit: that of 48 to 57 bytes in big endian.
        uids = self._uids
        if any(found in uids or found[1:] in uids for found in _UID.findall(header)):
            return True
        return bool(self._odd) and any(uid in bytes(header) for uid in self._odd)


def affected(data: Data, part10: Part10, read: Callable[[int, int], bytes | memoryview], sought: Sought) -> bool:
    """Say whether an instance may hold a sought UID; False only where an edit finds none to change.

    The header alone is searched, for what looks like a UID: linear in its length, whatever number of UIDs.
    """
    if part10.deflated:
        data = bytes(part10s.inflated(bytes(read(0, len(data))), part10.start))
        part10 = part10s.locate(data) or part10
    walk = Walk(data, part10.start, len(data), part10.encoding)
    at = part10s.meta_start(data)
    for _, _, start, end in [*walk.bulk, (0, 0, walk.stop, len(data))]:
        if sought.is_in(data[at:start]):
            return True
        at = end
    return False
