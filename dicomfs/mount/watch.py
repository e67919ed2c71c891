"""Make the kernel forget what a commit of another process made untrue.

The kernel may believe attributes and names for a day, so it has to be told. Told it is by a thread:
an invalidation waits for requests that are in progress, and those wait for the event loop.
"""

import contextlib
import logging
import threading
from typing import Final

import pyfuse3
import trio

from dicomfs.errors import DicomfsError
from dicomfs.mount.place import place
from dicomfs.vfs.node import Changes
from dicomfs.vfs.tree import Tree

log = logging.getLogger(__name__)

INTERVAL_S: Final = 0.25


class Watch:
    """Looks for changes for as long as the drive is mounted."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._telling = threading.Lock()
        self._ending = False

    async def run(self) -> None:
        """Look for changes for ever."""
        failing = False
        while True:
            await trio.sleep(INTERVAL_S)
            try:
                found = self._tree.changes()
                failing = False
            except Exception as error:  # noqa: BLE001 - a drive outlives whatever befalls its archive
                # Likely a reindex in progress, which a later look will find done.
                if not failing:
                    reason = error if isinstance(error, DicomfsError) else place(error)
                    log.warning("cannot look for changes: %s", reason)
                failing = True
                continue
            if found.directories or found.removed:
                await trio.to_thread.run_sync(self._tell, found, abandon_on_cancel=True)

    def end(self, timeout_s: float) -> bool:
        """Say whether nobody talks to the kernel any more: only then may the session be closed."""
        self._ending = True
        return self._telling.acquire(timeout=timeout_s)

    def _tell(self, found: Changes) -> None:
        with self._telling:
            for ino in found.directories:
                if self._ending:
                    return
                with contextlib.suppress(OSError):  # ENOENT: the kernel does not know it
                    pyfuse3.invalidate_inode(ino, attr_only=True)
            for parent, name in found.removed:
                if self._ending:
                    return
                with contextlib.suppress(OSError):
                    pyfuse3.invalidate_entry(parent, name)
