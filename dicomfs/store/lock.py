"""The lock that makes sure that one process writes to an archive at a time."""

import errno
import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from dicomfs.errors import Locked, StorageFull

_POLL_S = 0.1


class WriterLock:
    """An flock on ARCHIVE/lock; the file's text names the holder. Ends with the process, however it ends."""

    def __init__(self, path: Path, purpose: str, *, wait_s: float = 0.0) -> None:
        """Take the lock; wait up to `wait_s` seconds for it, then raise Locked with the holder's name."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageFull(f"{path}: the archive may not be written ({error.strerror})") from error
        deadline = time.monotonic() + wait_s
        while not self._try():
            if time.monotonic() >= deadline:
                holder = self._holder()
                os.close(self._fd)
                raise Locked(f"{path.parent}: being written by {holder}; wait for it to end, or use --wait SECONDS")
            time.sleep(_POLL_S)
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = f"{purpose}, process {os.getpid()} on {socket.gethostname()}, since {since}\n"
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text.encode(), 0)
        except OSError as error:
            # A full disk only costs the name of the holder; the lock itself holds.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def _try(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> str:
        return os.pread(self._fd, 400, 0).decode("utf-8", "replace").strip() or "another process"

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._fd)
