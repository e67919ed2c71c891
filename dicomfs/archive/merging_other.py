"""The other archive of a merge: opened for reading, wherever it lies and whatever its index is like.

Nothing is written into it, so it may lie on a disk that is read only. Where its index is missing, of another version
or not to be used, its commits are folded into one below a temporary directory.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomfs.archive import settings as settings_file
from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.fold import fold_meta
from dicomfs.archive.settings import Settings
from dicomfs.errors import ArchiveMissing, Damaged, DicomfsError, Refused, StorageFull, UsageError
from dicomfs.store.index import Transaction
from dicomfs.store.replay import find, replay
from dicomfs.store.store import Store


@contextmanager
def opened(other: Path, archive_path: Path) -> Iterator[Archive]:
    """Open an archive to be read, which must not be the one at `archive_path`; raise UsageError, Damaged."""
    settings = settings_file.read(other)
    _refuse_same(other, archive_path)
    try:
        found = Archive.open(other)
    except (ArchiveMissing, Damaged, Refused):
        with (
            tempfile.TemporaryDirectory(prefix="dicomfs-merge-") as scratch,
            _folded(other, settings, scratch) as found,
        ):
            yield found
        return
    with found:
        yield found


def _refuse_same(other: Path, archive_path: Path) -> None:
    for name in (".", "packs", settings_file.FILE, "lock"):
        try:
            same = os.path.samefile(other / name, archive_path / name)
        except OSError:
            continue
        if same:
            raise UsageError(f"{other}: is the archive itself; name another one")


@contextmanager
def _folded(other: Path, settings: Settings, scratch: str) -> Iterator[Archive]:
    try:
        store = Store(other, tables.TABLES, new_index=Path(scratch))
    except OSError as error:
        raise StorageFull(f"{scratch}: no room for an index of {other} ({error.strerror})") from error
    try:

        def fold(txn: Transaction, seq: int, time_ns: int, meta: bytes) -> None:
            fold_meta(store, txn, seq, time_ns, meta)

        found = find(store)
        replay(store, found, fold)
        if found.problems or found.missing:
            raise damaged(other, found.problems[0] if found.problems else "commits are missing")
        yield Archive(other, settings, store)
    finally:
        store.close()


def damaged(other: Path, error: DicomfsError | str) -> Damaged:
    """Return what is said of another archive that is hurt."""
    text = str(error)
    for command in (
        "reindex",
        "check",
    ):  # which the command line would take for those of the archive that is merged into
        text = text.replace(f"'dicomfs {command}'", f"`dicomfs {command} -a {other}`")
    return Damaged(f"{other}: is damaged: {text}; see `dicomfs check -a {other}`, and mend it first")
