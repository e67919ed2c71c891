"""The quarantine: every file that an import refused, beside the reason.

Its files lie in ARCHIVE/quarantine just as they are shown, <sha256>.dcm and <sha256>.txt. An inode
number is made of the first 48 bits of the hash and a bit for the extension.
"""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

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
    OpenFile,
)
from dicomfs.vfs.plain import DiskFile

_BASE: Final = COMPUTED_QUARANTINE << COMPUTED_SHIFT
_EXTENSIONS: Final = (".dcm", ".txt")
_HASH_DIGITS: Final = 64
_SETTLED_NS: Final = 100_000_000
"""A directory changed this lately may change again without a new mtime: the kernel's clock has ticks."""


class _Listing(NamedTuple):
    mtime_ns: int
    names: dict[INode, str]


class Quarantine:
    """Provider of the quarantine. Linear in its size when it has changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._listing = _Listing(-1, {})
        self._seen_ns = self._mtime_ns()

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of the directory or of a file in it."""
        if ino == QUARANTINE:
            return Attributes(QUARANTINE, True, 0, self._mtime_ns(), 2)
        name = self._names().get(ino)
        return None if name is None else self._file(ino, name)

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the file of this name."""
        text = name.decode("ascii", "replace")
        ino = _ino(text) if parent == QUARANTINE else None
        return None if ino is None or self._names().get(ino) != text else self._file(ino, text)

    def entries(self, ino: INode, after: INode) -> Iterator[Entry]:
        """Yield the files in the order of their inode numbers, which are their cookies."""
        if ino != QUARANTINE:
            return
        for number, name in self._names().items():
            if number > after and (found := self._file(number, name)) is not None:
                yield name.encode(), number, False, found.size, found.mtime_ns, 1, number

    def parent(self, ino: INode) -> INode | None:
        """Return the directory of a node."""
        return ROOT if ino == QUARANTINE else QUARANTINE

    def open(self, ino: INode) -> OpenFile:
        """Open a file."""
        name = self._names().get(ino)
        try:
            if name is not None:
                return DiskFile(os.path.join(self._directory, name))
        except FileNotFoundError:
            pass
        raise NotFound("that file is no longer in the quarantine")

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Open a file: that needs its name alone, which memory has."""
        return self.open(ino)

    def xattr_names(self, ino: INode) -> list[bytes]:  # noqa: ARG002
        """List nothing: what is wrong with a file stands in the text beside it."""
        return []

    def xattr(self, ino: INode, name: bytes) -> bytes | None:  # noqa: ARG002
        """Have no attributes."""
        return None

    def changes(self) -> Changes:
        """Say whether files came or went."""
        mtime_ns = self._mtime_ns()
        if mtime_ns == self._seen_ns:
            return NOTHING
        before = self._listing.names
        self._seen_ns = mtime_ns
        now = self._names()
        gone = [(QUARANTINE, name.encode()) for ino, name in before.items() if ino not in now]
        return Changes({QUARANTINE, ROOT}, gone, complete=True)

    def _file(self, ino: INode, name: str) -> Attributes | None:
        try:
            status = os.lstat(os.path.join(self._directory, name))
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return Attributes(ino, False, status.st_size, status.st_mtime_ns, 1)

    def _names(self) -> dict[INode, str]:
        """Return every file by inode number, in their order."""
        now_ns = time.time_ns()
        mtime_ns = self._mtime_ns()
        if mtime_ns != self._listing.mtime_ns or not mtime_ns:
            try:
                listed = os.listdir(self._directory)
            except FileNotFoundError:
                listed = []
            found = sorted((ino, name) for name in listed if (ino := _ino(name)) is not None)
            settled = now_ns - mtime_ns > _SETTLED_NS
            self._listing = _Listing(mtime_ns if settled else -1, dict(found))
        return self._listing.names

    def _mtime_ns(self) -> int:
        try:
            return os.stat(self._directory).st_mtime_ns
        except FileNotFoundError:
            return 0


def _ino(name: str) -> INode | None:
    """Return the inode number of a file's name, None for names that are none of ours."""
    digits, extension = name[:_HASH_DIGITS], name[_HASH_DIGITS:]
    if extension not in _EXTENSIONS or len(digits) < _HASH_DIGITS:
        return None
    try:
        return _BASE | int(digits[:12], 16) << 1 | _EXTENSIONS.index(extension)
    except ValueError:
        return None
