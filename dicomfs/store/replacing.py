"""Put packs in the place of others, and the index of the result in the place of the old one, whatever happens.

    1  NNNNNNNN.zip.new …    the packs that come, on the disk           nothing of this counts: `settle` removes it
    2  index.new/            the index of what will be there then
    3  gc.json               the word that it is to be done             from here on `settle` does what is left
    4  NNNNNNNN.zip          the packs that come get their names
    5  index/                the two indexes change places, at once
    6  the packs that go are removed
    7  gc.json is removed

Readers go by the index alone. Up to 5 it leads them to packs that are there until 6; after it to those that came at
4. A reader with the old index in its hand, who misses a pack after 6, opens the new one (`Archive.reading`).
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from dicomfs.errors import ArchiveMissing, Damaged, StorageFull
from dicomfs.store import intent
from dicomfs.store.intent import Replacement, sync_directory
from dicomfs.store.store import Store

Faults = Callable[[str], None]
"""Called with the name of each step: a test's way to stop there."""
_EXCHANGE: Final = 2
"""RENAME_EXCHANGE of renameat2(2)."""
_AT_FDCWD: Final = -100
_CANNOT_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def settle(root: Path, rebuild: Callable[[frozenset[int]], None], faults: Faults = lambda _step: None) -> bool:
    """Finish a replacement of packs that was begun, or remove what is left of one that never counted.

    `rebuild` makes the index anew without some packs, which it hardly ever has to. Say whether something was finished.
    The caller holds the writer's lock. Raises Damaged, and StorageFull where the disk does not let us.
    """
    packs = root / "packs"
    replacement = intent.read(packs)
    try:
        if replacement is None:
            discard(root)
            return False
        _finish(root, replacement, rebuild, faults)
    except OSError as error:
        raise StorageFull(f"{root}: packs cannot be put in their places ({error.strerror})") from error
    return True


def left_out(store: Store, known: set[int]) -> frozenset[int]:
    """Return the packs that do not count for an index that knows these: the others of a replacement in work."""
    replacement = intent.read(store.packs.directory)
    if replacement is None:
        return frozenset()
    return frozenset(replacement.go if known.issuperset(replacement.come) else replacement.come)


def discard(root: Path) -> None:
    """Remove what is left of a replacement that never counted."""
    for left in (root / "packs").glob(f"*{intent.COMING}"):
        left.unlink()
    remove_tree(root / "index.new")


def _finish(root: Path, replacement: Replacement, rebuild: Callable[[frozenset[int]], None], faults: Faults) -> None:
    packs = root / "packs"
    for number in replacement.come:
        path = packs / f"{number:08d}.zip"
        with suppress(FileNotFoundError):
            path.with_name(path.name + intent.COMING).rename(path)
        if not path.exists():
            raise Damaged(f"{path}: the pack is missing; bring it back from a copy of the archive")
        faults(f"named {number}")
    sync_directory(packs)
    faults("named")
    come = set(replacement.come)
    if not come.issubset(_known(root / "index")):
        if come.issubset(_known(root / "index.new")):
            swap_index(root)
        else:
            rebuild(frozenset(replacement.go))
    faults("swapped")
    remove_tree(root / "index.new")
    for number in replacement.go:
        (packs / f"{number:08d}.zip").unlink(missing_ok=True)
        faults(f"removed {number}")
    sync_directory(packs)
    intent.remove(packs)
    sync_directory(packs)
    faults("done")


def _known(index: Path) -> set[int]:
    """Return the packs that an index knows; none where it cannot be read."""
    try:
        store = Store(index.parent, (), index=index)
    except (ArchiveMissing, Damaged):
        return set()
    try:
        with store.index.reading() as txn:
            return set(store.pack_states(txn))
    except Damaged:
        return set()
    finally:
        store.close()


def swap_index(root: Path) -> None:
    """Put index.new in the place of index, so that it lasts; the old one is removed. There is always one of them."""
    index, new, old = root / "index", root / "index.new", root / "index.old"
    remove_tree(old)
    if not index.exists():
        new.rename(index)
    elif _exchange(index, new):
        old = new
    else:
        index.rename(old)
        new.rename(index)
    sync_directory(root)
    remove_tree(old)


def remove_tree(directory: Path) -> None:
    """Remove a directory, or a link to one on another disk, if it is there."""
    if directory.is_symlink():
        directory.unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories change their names at once; say no where the filesystem cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if not libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one))
