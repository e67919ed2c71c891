"""What the mount asks of the kernel beside FUSE: read-ahead, no splice, a watched stderr."""

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_CAPABILITY_VERSION_3: Final = 0x20080522
_CAP_SYS_RESOURCE: Final = 1 << 24
"""capabilities(7): linux/capability.h."""


def set_read_ahead(mountpoint: Path, kib: int) -> bool:
    """Set how far the kernel reads ahead on a mounted drive; say whether it let us (root alone may).

    Blocks until the drive answers: the kernel sets its own value while the drive starts.
    """
    try:
        device = os.stat(mountpoint).st_dev
        path = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
        with open(path, "w", encoding="ascii") as file:
            file.write(str(kib))
    except OSError:
        return False
    return True


def drop_sys_resource() -> None:
    """Give up the right to enlarge pipes, which makes libfuse read requests plainly.

    With it, libfuse moves every request through a pipe by splice(2): one system call more for each.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice, low word first
    if libc.capget(header, sets):
        return
    sets[0] &= ~_CAP_SYS_RESOURCE
    sets[1] &= ~_CAP_SYS_RESOURCE
    libc.capset(header, sets)


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep what C code and its children write to stderr; the value given reads it."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            return file.read().decode("utf-8", "replace").strip()

        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
