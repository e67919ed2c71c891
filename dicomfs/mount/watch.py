"""Make the kernel forget what a commit of another process made untrue.

The kernel may believe attributes and names for a day, so it has to be told. Told it is by threads: to forget a name
waits for the requests that are in progress in its directory, and those wait for the event loop, or for minutes until
a document is made. So each directory has a thread of its own, and none waits for another's.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, ParamSpec

import pyfuse3
import trio

from dicomfs.errors import DicomfsError
from dicomfs.mount.place import place
from dicomfs.vfs.node import INode
from dicomfs.vfs.tree import Tree

log = logging.getLogger(__name__)

INTERVAL_S: Final = 0.25
TELLERS: Final = 64
"""How many directories may be waited for at once."""

P = ParamSpec("P")


class Watch:
    """Looks for changes for as long as the drive is mounted."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._limiter = trio.CapacityLimiter(TELLERS)
        self._names: dict[INode, list[bytes]] = {}
        """Names that the kernel is to forget, by directory."""
        self._busy: set[INode] = set()
        """Directories of which it is being told."""
        self._telling = threading.Condition()
        self._tellers = 0
        self._ending = False

    async def run(self) -> None:
        """Look for changes for ever."""
        failing = False
        async with trio.open_nursery() as nursery:
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
                if found.directories:
                    await self._in_thread(self._forget_attributes, found.directories)
                for parent, name in found.removed:
                    self._names.setdefault(parent, []).append(name)
                for parent in self._names.keys() - self._busy:
                    self._busy.add(parent)
                    nursery.start_soon(self._tell_names, parent)

    def end(self, timeout_s: float) -> bool:
        """Say whether nobody talks to the kernel any more: only then may the session be closed."""
        with self._telling:
            self._ending = True
            return self._telling.wait_for(lambda: not self._tellers, timeout_s)

    async def _tell_names(self, parent: INode) -> None:
        """Have names of a directory forgotten: where a request is in progress there, it waits for that."""
        while (names := self._names.pop(parent, None)) is not None:
            await self._in_thread(self._forget_names, parent, names)
        self._busy.discard(parent)

    async def _in_thread(self, tell: Callable[P, None], *arguments: P.args, **_: P.kwargs) -> None:
        await trio.to_thread.run_sync(
            partial(self._tell, partial(tell, *arguments)), abandon_on_cancel=True, limiter=self._limiter
        )

    def _tell(self, tell: Callable[[], None]) -> None:
        with self._telling:
            if self._ending:
                return
            self._tellers += 1
        try:
            tell()
        finally:
            with self._telling:
                self._tellers -= 1
                self._telling.notify_all()

    def _forget_attributes(self, directories: Iterable[INode]) -> None:
        for ino in directories:
            if self._ending:
                return
            with contextlib.suppress(OSError):  # ENOENT: the kernel does not know it
                pyfuse3.invalidate_inode(ino, attr_only=True)

    def _forget_names(self, parent: INode, names: Iterable[bytes]) -> None:
        for name in names:
            if self._ending:
                return
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_entry(parent, name)
