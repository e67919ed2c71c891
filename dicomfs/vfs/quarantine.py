"""The quarantine: every file that an import refused, beside the reason.

Its files lie in ARCHIVE/quarantine just as they are shown, <sha256>.dcm and <sha256>.txt. An inode
number is made of the first 48 bits of the hash and a bit for the extension.
"""

import math
import os
import re
import stat
import time
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from dicomfs.errors import NotFound
from dicomfs.vfs.node import (
    COMPUTED_QUARANTINE,
    COMPUTED_SHIFT,
    NOTHING,
    QUARANTINE,
    ROOT,
    Attributes,
    Changes,
    Entry,
    INode,
    NoXattrs,
    OpenFile,
)
from dicomfs.vfs.plain import DiskFile

_BASE: Final = COMPUTED_QUARANTINE << COMPUTED_SHIFT
_NAME: Final = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}\.(dcm|txt)").fullmatch
_RELIST_S: Final = 1.0
"""An import that quarantines changes the directory all the time; so often it is listed anew, and no more."""
_SETTLED_NS: Final = 100_000_000
"""A directory changed this lately may change again without a new mtime: the kernel's clock has ticks."""


class _Listing:
    """The files of the directory as they once were, in the order of their inode numbers."""

    __slots__ = ("inodes", "listed_s", "mtime_ns", "names")

    def __init__(self) -> None:
        self.mtime_ns = -1
        self.listed_s = -math.inf
        self.inodes: list[INode] = []
        self.names: dict[INode, str] = {}


class Quarantine(NoXattrs):
    """Provider of the quarantine. A file is looked up by itself; only a listing is linear in the directory's size."""

    def __init__(self, directory: Path, relist_s: float = _RELIST_S) -> None:
        """Show a directory; it is listed anew at most every `relist_s` seconds."""
        self._directory = directory
        self._relist_s = relist_s
        self._listing = _Listing()
        self._looked_up: dict[INode, str] = {}
        self._seen_ns = self._mtime_ns()
        self._moving = False

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of the directory or of a file in it."""
        if ino == QUARANTINE:
            return Attributes(QUARANTINE, True, 0, self._mtime_ns(), 2)
        name = self._name(ino)
        return None if name is None else self._file(ino, name)

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the file of this name."""
        text = name.decode("ascii", "replace")
        ino = _ino(text) if parent == QUARANTINE else None
        found = None if ino is None else self._file(ino, text)
        if found is not None:
            self._looked_up[found.ino] = text
        return found

    def entries(self, ino: INode, after: INode) -> Iterator[Entry]:
        """Yield the files in the order of their inode numbers, which are their cookies."""
        if ino != QUARANTINE:
            return
        listing = self._list()
        for number in islice(listing.inodes, bisect_right(listing.inodes, after), None):
            name = listing.names[number]
            if (found := self._file(number, name)) is not None:
                yield name.encode(), number, False, found.size, found.mtime_ns, 1, number

    def parent(self, ino: INode) -> INode | None:
        """Return the directory of a node."""
        return ROOT if ino == QUARANTINE else QUARANTINE

    def open(self, ino: INode) -> OpenFile:
        """Open a file."""
        name = self._name(ino)
        try:
            if name is not None:
                return DiskFile(os.path.join(self._directory, name))
        except FileNotFoundError:
            pass
        raise NotFound("that file is no longer in the quarantine")

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Open a file: that needs its name alone, which memory has."""
        return self.open(ino)

    def changes(self) -> Changes:
        """Say whether files came or went; which ones went, when no more do."""
        mtime_ns = self._mtime_ns()
        if mtime_ns != self._seen_ns:
            self._seen_ns = mtime_ns
            self._moving = True
            return Changes({QUARANTINE, ROOT}, (), complete=True)
        if not self._moving:
            return NOTHING
        self._moving = False
        before = {**self._listing.names, **self._looked_up}
        if not before:
            return NOTHING
        now = self._list(at_once=True).names
        gone = [ino for ino in before if ino not in now]
        for ino in gone:
            self._looked_up.pop(ino, None)
        return Changes(frozenset(), [(QUARANTINE, before[ino].encode()) for ino in gone], complete=True)

    def _file(self, ino: INode, name: str) -> Attributes | None:
        try:
            status = os.lstat(os.path.join(self._directory, name))
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return Attributes(ino, False, status.st_size, status.st_mtime_ns, 1)

    def _name(self, ino: INode) -> str | None:
        """Return the name behind an inode number; one that was never shown is looked for (NFS handles)."""
        return self._looked_up.get(ino) or self._listing.names.get(ino) or self._list().names.get(ino)

    def _list(self, *, at_once: bool = False) -> _Listing:
        """Return every file, as of now or a short time ago."""
        listing = self._listing
        now_s = time.monotonic()
        if now_s - listing.listed_s < self._relist_s and not at_once:
            return listing
        now_ns = time.time_ns()
        mtime_ns = self._mtime_ns()
        if mtime_ns == listing.mtime_ns:
            return listing
        try:
            listed = os.listdir(self._directory)
        except FileNotFoundError:
            listed = []
        found = sorted((ino, name) for name in listed if (ino := _ino(name)) is not None)
        listing = self._listing = _Listing()
        listing.names = dict(found)
        listing.inodes = list(listing.names)
        listing.listed_s = now_s
        listing.mtime_ns = mtime_ns if now_ns - mtime_ns > _SETTLED_NS else -1
        return listing

    def _mtime_ns(self) -> int:
        try:
            return os.stat(self._directory).st_mtime_ns
        except FileNotFoundError:
            return 0


def _ino(name: str) -> INode | None:
    """Return the inode number of a file's name, None for names that are none of ours."""
    found = _NAME(name)
    return None if found is None else _BASE | int(found[1], 16) << 1 | (found[2] == "txt")
