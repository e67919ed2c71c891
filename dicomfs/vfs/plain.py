"""Files whose bytes lie in memory or on the disk just as they are shown."""

import os
from typing import TYPE_CHECKING

from dicomfs.errors import Damaged

if TYPE_CHECKING:
    from dicomfs.archive.bundle import Bundle, Extent


class TextFile:
    """A short text that is made once. May be shared by threads."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.size = len(text)

    def read_ready(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`."""
        return self._text[offset : offset + size]

    read = read_ready

    def coming(self, _offset: int, _size: int) -> None:
        """Have nothing in the making."""

    def prefetch(self) -> None:
        """Have nothing to make."""

    def close(self) -> None:
        """Hold nothing."""


class DiskFile:
    """A file of the archive's directory that nobody changes any more. May be shared by threads."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`, wait for the disk."""
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise Damaged(f"a file of the archive cannot be read at {offset} ({error.strerror})") from error

    def read_ready(self, offset: int, size: int) -> memoryview | None:
        """Return the same if the page cache has all of it."""
        wanted = min(size, self.size - offset)
        if wanted <= 0:
            return memoryview(b"")
        buffer = memoryview(bytearray(wanted))
        try:
            got = os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not cached; EOPNOTSUPP: a filesystem that cannot tell
            return None
        return buffer if got == wanted else None

    def coming(self, _offset: int, _size: int) -> None:
        """Have nothing in the making."""

    def prefetch(self) -> None:
        """Have nothing to make."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class DocumentFile:
    """A document in a bundle of the cache. May be shared by threads."""

    def __init__(self, bundle: "Bundle", extent: "Extent") -> None:
        self._bundle = bundle
        self._offset, self.size = extent

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`, wait for the disk."""
        return self._bundle.read(self._offset + offset, self._left(offset, size))

    def read_ready(self, offset: int, size: int) -> memoryview | None:
        """Return the same if memory has it."""
        return self._bundle.read_ready(self._offset + offset, self._left(offset, size))

    def _left(self, offset: int, size: int) -> int:
        return max(0, min(size, self.size - offset))

    def coming(self, _offset: int, _size: int) -> None:
        """Have nothing in the making."""

    def prefetch(self) -> None:
        """Have nothing to make."""

    def close(self) -> None:
        """Hold nothing that others do not."""
