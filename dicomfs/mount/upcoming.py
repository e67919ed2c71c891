"""Files that will be opened next: who copies a series reads one whole file after another.

A drive's reader waits for one file at a time, so a compressed one would be decoded while nothing else is done.
The files of a series mostly have inode numbers one after another, in which order listings have them, too.
Nothing is guessed for those who read only the beginning of files.
"""

from collections.abc import Callable
from typing import Final

from dicomfs.vfs.node import INode, OpenFile

LONG: Final = 1 << 17
"""Shorter reads say nothing of what comes next."""
FILES: Final = 2


class Upcoming:
    """Some files, opened before anybody asked for them. Belongs to one thread."""

    def __init__(self, open_ready: Callable[[INode], OpenFile | None]) -> None:
        """`open_ready` opens a file if nothing has to be waited for."""
        self._open_ready = open_ready
        self._files: dict[INode, OpenFile] = {}
        self._whole: INode = 0
        """The file that was last read to its end."""

    def take(self, inode: INode) -> OpenFile | None:
        """Return the file if it was opened already; it is the caller's from now on."""
        return self._files.pop(inode, None)

    def note(self, inode: INode, offset: int, end: int, size: int) -> None:
        """Hear that the bytes [offset, end) of a file of this size were read at once, LONG of them or more."""
        if not offset and inode == self._whole + 1:
            for coming in range(inode + 1, inode + 1 + FILES):
                if coming not in self._files:
                    self._prepare(coming)
        if end >= size:
            self._whole = inode

    def _prepare(self, inode: INode) -> None:
        try:
            file = self._open_ready(inode)
        except Exception:  # noqa: BLE001 - a directory, nothing, or damage: which concerns whoever opens it
            return
        if file is None:
            return
        file.prefetch()
        self._files[inode] = file
        while len(self._files) > FILES:
            oldest = next(iter(self._files))
            self._files.pop(oldest).close()
