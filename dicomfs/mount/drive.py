"""One mounted drive from its first request to its last: the trio program of a mount process."""

import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from dicomfs.archive.archive import Archive
from dicomfs.archive.as_of import AsOf
from dicomfs.errors import MountError
from dicomfs.mount import kernel, mapped, mountpoint
from dicomfs.mount.operations import Operations
from dicomfs.mount.options import MountOptions
from dicomfs.mount.place import place
from dicomfs.mount.traced import traced
from dicomfs.mount.waiting import TASKS, THREADS, Waiting
from dicomfs.mount.watch import Watch
from dicomfs.vfs.tree import Tree

log = logging.getLogger(__name__)

GRACE_S: Final = 3.0
"""How long requests in progress may take to end, once the drive has been told to."""
_GARBAGE: Final = 20_000
"""After how many new objects Python looks for cycles; by default it is 700."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(
    archive_path: Path,
    directory: Path,
    options: MountOptions,
    ready: Callable[[], None],
    *,
    as_of: AsOf | None = None,
    debug: bool,
) -> None:
    """Mount an archive, call `ready` when the drive answers, serve it until it is unmounted."""
    archive = Archive.open(archive_path, as_of)
    tree = Tree(archive, options.views, private=options.private, private_tables=options.private_tables)
    waiting = Waiting()
    operations = Operations(tree, options, waiting)
    if debug:
        traced(operations)
    kernel.drop_sys_resource()
    waiting.take_over()
    with kernel.captured_stderr() as said:
        try:
            pyfuse3.init(operations, str(directory), _fuse_options(archive_path, options))
        except RuntimeError as error:
            raise mountpoint.explain(directory, said()) from error
    drive = _Drive(operations, Watch(tree), directory, options, ready)
    try:
        orderly = drive.serve()
    finally:
        tree.close()
        archive.release()
    if orderly:
        archive.close()


def _fuse_options(archive_path: Path, options: MountOptions) -> set[str]:
    name = _escaped(os.fsencode(archive_path))
    chosen = {f"fsname={name}", "subtype=dicomfs", "ro", "nosuid", "nodev", "default_permissions"}
    switches = {"allow_other": options.allow_other, "allow_root": options.allow_root, "noexec": options.noexec}
    return chosen | {switch for switch, on in switches.items() if on}


def _escaped(text: bytes) -> str:
    """Write bytes for libfuse's parser of options, which undoes octal escapes; pyfuse3 takes ASCII alone.

    The kernel is given the very path: mount(8) tells by it whether a line of fstab is mounted already.
    """
    return "".join(f"\\{byte:03o}" if byte >= 0x7F or byte in b",\\" else chr(byte) for byte in text)


class _Drive:
    """A session that was opened, until it is closed."""

    def __init__(
        self, operations: Operations, watch: Watch, directory: Path, options: MountOptions, ready: Callable[[], None]
    ) -> None:
        self._operations = operations
        self._watch = watch
        self._directory = directory
        self._options = options
        self._ready = ready

    def serve(self) -> bool:
        """Serve until unmounted or told to end; say whether nothing is left running."""
        try:
            return trio.run(self._main)
        except Exception as error:
            log.error("the drive ends: %s", place(error))
            raise MountError(f"{self._directory}: the drive ended by an error: {place(error)}") from error
        finally:
            self._close()

    async def _main(self) -> bool:
        orderly = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_on_signal, nursery.cancel_scope)
            nursery.start_soon(self._announce)
            nursery.start_soon(self._watch.run)
            nursery.start_soon(mapped.keep_small)
            await pyfuse3.main(min_tasks=THREADS, max_tasks=TASKS)
            orderly = True
            nursery.cancel_scope.cancel()
        return orderly

    async def _announce(self) -> None:
        await self._operations.started.wait()
        kib = self._options.read_ahead_kib
        await trio.to_thread.run_sync(kernel.set_read_ahead, self._directory, kib, abandon_on_cancel=True)
        self._ready()
        # Or the first read of a coded frame would wait for it, a tenth of a second.
        with suppress(ImportError):  # which is that read's matter
            await trio.to_thread.run_sync(import_module, "numpy", abandon_on_cancel=True)
        # What was imported stays, and requests make no cycles: looking for them would stop every request for a while.
        gc.freeze()
        gc.set_threshold(_GARBAGE)

    async def _end_on_signal(self, everything: trio.CancelScope) -> None:
        with trio.open_signal_receiver(*_SIGNALS) as received:
            async for number in received:
                log.info("ending: %s", signal.Signals(number).name)
                pyfuse3.terminate()
                await trio.sleep(GRACE_S)
                log.warning("requests in progress were given up")
                everything.cancel()

    def _close(self) -> None:
        if not self._watch.end(GRACE_S):
            # A thread waits for the kernel, and the kernel for the answer to a request that was given up.
            mountpoint.abort(self._directory)
        if self._watch.end(GRACE_S):
            pyfuse3.close()
        else:
            mountpoint.detach(self._directory)
