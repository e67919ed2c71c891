"""Rebuild the index from the packs: the same catalog, names, inode numbers and bytes as before."""

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final

from dicomfs.archive import archive as archives
from dicomfs.archive import floors, tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.floors import Before
from dicomfs.archive.fold import fold_meta
from dicomfs.archive.outcome import Progress
from dicomfs.errors import ArchiveMissing, Damaged, StorageFull
from dicomfs.store import replacing
from dicomfs.store.index import Transaction
from dicomfs.store.lock import WriterLock
from dicomfs.store.recovery import seal_leftover
from dicomfs.store.replay import Found, find, replay
from dicomfs.store.store import Store

_MOST_NAMED: Final = 1000


@dataclass(slots=True)
class ReindexReport:
    """What was found in the packs."""

    commits: int = 0
    instances: int = 0
    instances_before: int | None = None
    """How many the old index held, if it could be read."""
    missing_commits: list[int] = field(default_factory=list)
    """Commits that are given up with this rebuild, the first thousand of them."""
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything that was ever committed is there."""
        return not (self.missing_commits or self.problems) and self.instances >= (self.instances_before or 0)


def reindex(
    archive_path: Path, progress: Callable[[Progress], None] | None = None, *, wait_s: float = 0.0
) -> ReindexReport:
    """Make a new index beside the old one and put it in its place; a mounted drive goes on with the new one.

    Where something is lost, a commit of its own says so: see floors.py.
    """
    archives.require(archive_path)
    lock = WriterLock(archive_path / "lock", "dicomfs reindex", wait_s=wait_s)
    try:
        replacing.settle(archive_path, partial(rebuild, archive_path))
        return _reindex(archive_path, progress)
    except OSError as error:
        raise StorageFull(f"{archive_path}: the index cannot be written ({error.strerror})") from error
    finally:
        lock.release()


def rebuild(root: Path, without: frozenset[int] = frozenset()) -> None:
    """Make a new index from all packs but some; the caller holds the lock."""
    _reindex(root, None, without)


def _reindex(
    root: Path, progress: Callable[[Progress], None] | None, without: frozenset[int] | None = None
) -> ReindexReport:
    before, readable = _before(root)
    report = ReindexReport(instances_before=None if before is None else before.instances)
    new = begin_index(root)
    try:
        _fold_packs(root, new, report, before, progress, without, doubt=not readable)
    except BaseException:
        replacing.remove_tree(new)
        raise
    replacing.swap_index(root)
    return report


def begin_index(root: Path) -> Path:
    """Make the directory of an index that is going to take the place of the one that is there."""
    index, new = root / "index", root / "index.new"
    replacing.remove_tree(new)
    new.mkdir(mode=0o700)
    if index.exists():
        new.chmod(stat.S_IMODE(index.stat().st_mode))
    return new


def _fold_packs(
    root: Path,
    new: Path,
    report: ReindexReport,
    before: Before | None,
    progress: Callable[[Progress], None] | None,
    without: frozenset[int] | None,
    *,
    doubt: bool,
) -> None:
    """Make a new index in the directory `new`."""
    store = Store(root, tables.TABLES, new_index=new)
    try:
        if without is not None:
            store.packs.left_out = without
        found = find(store, None if before is None else before.committed)
        fold_all(store, found, progress)
        for number, end in found.torn.items():
            seal_leftover(store, number, end)
        report.problems = found.problems
        with store.index.reading() as txn:
            report.commits = txn.stat(store.commit_table)["entries"]
            report.instances = txn.stat(store.index.tables["instance"])["entries"]
            doubt = doubt or (found.doubt and not floors.told(store, txn))
        lost = floors.settle(store, before, doubt=doubt, hurt=[commit.seq for commit in found.entries])
        report.missing_commits = list(islice(chain.from_iterable(range(a, b + 1) for a, b in lost), _MOST_NAMED))
        store.index.sync()
    finally:
        store.close()


def fold_all(store: Store, found: Found, progress: Callable[[Progress], None] | None) -> None:
    """Fold the commits that were found into the index of a store, which is new."""

    def fold(txn: Transaction, seq: int, time_ns: int, meta: bytes) -> None:
        fold_meta(store, txn, seq, time_ns, meta)

    def on_commit(done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(done, total, 0, 0))

    replay(store, found, fold, on_commit)


def _before(root: Path) -> tuple[Before | None, bool]:
    """Return what the index knows that is to be replaced, and whether it could be read or is not there at all."""
    if not (root / "index" / "data.mdb").exists():
        return None, True
    try:
        with Archive.open(root) as archive:
            before = floors.before(archive.store)
    except (ArchiveMissing, Damaged):
        return None, False
    return before, before is not None
