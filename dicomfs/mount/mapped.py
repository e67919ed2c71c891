"""Give back what is mapped of the archive's files, when it is much.

The index and the packs are read through mappings. Whatever was touched of them stays in the page tables, and
counts as the drive's memory, though it is no more than a view of the page cache: a walk over a million
instances leaves 0.7 GB so. To take it out of the page tables loses nothing: who touches it again finds it
in the page cache, also a thread that reads at this very moment (madvise(2), MADV_DONTNEED; shared mappings).
"""

import ctypes
import mmap
from collections.abc import Iterator
from typing import Final

import trio

BOUND_KIB: Final = 96 << 10
"""Half of it is given back, too, when the drive comes to rest. What is touched again has to be mapped
again: a walk over a million instances took an eighth more CPU with 112 MiB than with no bound, a quarter with 64."""
AT_REST_S: Final = 0.25
IN_USE_S: Final = 0.005
"""A touch maps up to 2 MiB where the page cache has folios so large: a walk adds 10 MiB in a millisecond."""
_PAUSE: Final = 2
_REST: Final = 200
"""After so many looks at which nothing had been added, the drive pauses; after so many it is at rest."""
_PAGE_KIB: Final = mmap.PAGESIZE >> 10
_READ_ONLY_SHARED: Final = b"r--s"


async def keep_small(bound_kib: int = BOUND_KIB) -> None:
    """Give back what is mapped whenever it is more than this; look often only while it grows.

    It ends at once where /proc is not mounted.
    """
    left_kib = calm = 0
    while (kib := mapped_kib()) is not None:
        calm = 0 if kib > left_kib else calm + 1
        if kib > bound_kib or (calm == _PAUSE and kib > bound_kib // 2):
            give_back()
            kib = mapped_kib() or 0
        left_kib = kib
        await trio.sleep(IN_USE_S if calm < _REST else AT_REST_S)


def mapped_kib() -> int | None:
    """Return how much of files is in this process's page tables; None where nobody tells."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[2]) * _PAGE_KIB
    except FileNotFoundError:
        return None


def give_back() -> None:
    """Take what is mapped shared and only to be read, as the archive's files alone are, out of the page tables."""
    for start, end in _mappings():
        _madvise(start, end - start, mmap.MADV_DONTNEED)


def _mappings() -> Iterator[tuple[int, int]]:
    """Walk where such mappings begin and end (proc(5), /proc/pid/maps)."""
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            where, access, _, _, inode, *_ = line.split(maxsplit=5)
            if access == _READ_ONLY_SHARED and inode != b"0":
                start, _, end = where.partition(b"-")
                yield int(start, 16), int(end, 16)


_madvise = ctypes.PyDLL(None).madvise  # keeps the interpreter's lock, which to get back may take longer than this
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
