"""Rebuild the index from the packs: the same catalog, names, inode numbers and bytes as before."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs.archive import archive as archives
from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.fold import fold_meta
from dicomfs.archive.outcome import Progress
from dicomfs.errors import DicomfsError, StorageFull
from dicomfs.store.index import Transaction
from dicomfs.store.lock import WriterLock
from dicomfs.store.recovery import seal_leftover
from dicomfs.store.replay import find, replay
from dicomfs.store.store import Store


@dataclass(slots=True)
class ReindexReport:
    """What was found in the packs."""

    commits: int = 0
    instances: int = 0
    instances_before: int | None = None
    """How many the old index held, if it could be read."""
    missing_commits: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything that was ever committed is there."""
        return not (self.missing_commits or self.problems) and self.instances >= (self.instances_before or 0)


def reindex(
    archive_path: Path, progress: Callable[[Progress], None] | None = None, *, wait_s: float = 0.0
) -> ReindexReport:
    """Make a new index beside the old one and put it in its place; a mounted drive goes on with the new one."""
    archives.require(archive_path)
    lock = WriterLock(archive_path / "lock", "dicomfs reindex", wait_s=wait_s)
    try:
        return _reindex(archive_path, progress)
    except OSError as error:
        raise StorageFull(f"{archive_path}: the index cannot be written ({error.strerror})") from error
    finally:
        lock.release()


def _reindex(root: Path, progress: Callable[[Progress], None] | None) -> ReindexReport:
    report = ReindexReport(instances_before=_count_before(root))
    new, old = root / "index.new", root / "index.old"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    store = Store(root, tables.TABLES, new_index=new)
    try:
        found = find(store)
        report.missing_commits = found.missing

        def fold(txn: Transaction, seq: int, time_ns: int, meta: bytes) -> None:
            fold_meta(store, txn, seq, time_ns, meta, mend=bool(found.missing or found.problems))
            report.commits += 1

        def on_commit(done: int, total: int) -> None:
            if progress is not None:
                progress(Progress(done, total, 0, 0))

        replay(store, found, fold, on_commit)
        for number, end in found.torn.items():
            seal_leftover(store, number, end)
        report.problems = found.problems
        with store.index.reading() as txn:
            report.instances = txn.stat(store.index.tables["instance"])["entries"]
        store.index.sync()
    finally:
        store.close()
    shutil.rmtree(old, ignore_errors=True)
    index = root / "index"
    if index.exists():
        index.rename(old)
    new.rename(index)
    _sync(root)
    shutil.rmtree(old, ignore_errors=True)
    return report


def _count_before(root: Path) -> int | None:
    try:
        with Archive.open(root) as archive, archive.store.index.reading() as txn:
            return txn.stat(archive.store.index.tables["instance"])["entries"]
    except DicomfsError:
        return None


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
