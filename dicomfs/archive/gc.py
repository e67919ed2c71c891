"""Free what nobody needs: merge small packs, drop blobs that belong to nothing, remove what is left over in the cache.

    mark (gc_marking) ─▶ plan (gc_planning) ─▶ packs that come (store/repack) ─▶ their index ─▶ store/replacing

History stays what it is: the packs that come hold the commits of those that go, with the same numbers, times and
records. So the index that belongs to them is their fold, as after any `reindex`, and has to say the same as the one
before; it is compared before anything is replaced.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from dicomfs.archive import archive as archives
from dicomfs.archive import gc_cache, gc_comparing, gc_forgetting, gc_marking, gc_states, rebuild, states, tables
from dicomfs.archive import settings as settings_file
from dicomfs.archive.archive import Archive
from dicomfs.archive.gc_forgetting import NOTHING
from dicomfs.archive.gc_marking import Marks
from dicomfs.archive.gc_planning import Plan, Planner
from dicomfs.archive.ingest import open_for_writing, who
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.errors import Damaged, DicomfsError, StorageFull
from dicomfs.store import intent, repack, replacing
from dicomfs.store import location as locations
from dicomfs.store.index import Index, Transaction
from dicomfs.store.intent import Replacement
from dicomfs.store.lock import WriterLock
from dicomfs.store.repack import Again
from dicomfs.store.replacing import Faults
from dicomfs.store.replay import find
from dicomfs.store.store import TABLES, Store
from dicomfs.store.writer import explain

_SPARE: Final = 16 << 20
"""So much room is to be left on a disk beside what is written."""


@dataclass(slots=True)
class GcReport:
    """What was freed, or would be; sizes in bytes."""

    versions: int = 0
    """Earlier versions of files that were forgotten."""
    packs_before: int = 0
    packs_after: int = 0
    packs_removed: list[int] = field(default_factory=list)
    """Numbers of the packs that others took the place of."""
    packs_written: int = 0
    bytes_written: int = 0
    """What the packs that came take."""
    blobs: int = 0
    """Stored blobs that belonged to nothing, or of which there is a later copy."""
    bytes_freed: int = 0
    """By how much the packs got shorter."""
    cache_files: int = 0
    cache_bytes: int = 0
    seconds: float = 0.0


def collect(
    archive_path: Path,
    *,
    forget_before_ns: int | None = None,
    dry_run: bool = False,
    progress: OnProgress | None = None,
    wait_s: float = 0.0,
    faults: Faults = lambda _step: None,
) -> GcReport:
    """Free what nobody needs; with `dry_run` only say what that would be.

    Every version of every file stays, but for those that are forgotten: with `forget_before_ns` (since 1970) what was
    replaced or deleted by then, unless something still shows or needs it.
    Raises Refused where somebody uses an earlier state that would be forgotten, Damaged where something that is to be
    copied is hurt, StorageFull, and Locked. Whatever happens, the archive
    is as it was before, or as it is after; drives that are mounted go on.
    """
    archives.require(archive_path)
    started = time.monotonic()
    report = GcReport()
    if dry_run:
        with Archive.open(archive_path) as archive:
            _Collector(archive, forget_before_ns, progress, faults).tell(report)
            _clear_cache(archive, report, dry_run=True, forgotten=bool(report.versions))
    else:
        lock = WriterLock(archive_path / "lock", "dicomfs gc", wait_s=wait_s)
        try:
            _collect(archive_path, report, forget_before_ns, progress, faults)
        finally:
            lock.release()
    report.seconds = time.monotonic() - started
    return report


def _collect(root: Path, report: GcReport, limit_ns: int | None, progress: OnProgress | None, faults: Faults) -> None:
    store = open_for_writing(root)
    try:
        collector = _Collector(Archive(root, settings_file.read(root), store), limit_ns, progress, faults)
        collector.tell(report)
        prepared = collector.prepare()
    except OSError as error:
        replacing.discard(root)
        raise explain(error, store) from error
    except BaseException:
        replacing.discard(root)
        raise
    finally:
        store.close()
    if prepared:
        _replace(root, collector.plan, faults)
    with Archive.open(root) as archive:
        _clear_cache(archive, report, dry_run=False, forgotten=bool(collector.plan.replacement.forgot_ns))


def _replace(root: Path, plan: Plan, faults: Faults) -> None:
    """Put what was prepared in its place; nothing of it counts before the intent is written."""
    try:
        with states.gate(root, shut=True):
            _refuse_in_use(root, plan.replacement)
            intent.write(root / "packs", plan.replacement)
    except DicomfsError:
        replacing.discard(root)
        raise
    except OSError as error:
        if not (root / "packs" / intent.NAME).exists():  # else the next writer does what it says
            replacing.discard(root)
        raise StorageFull(f"{root}: nothing was freed: writing failed ({error.strerror})") from error
    faults("intent")
    replacing.settle(root, partial(rebuild.rebuild, root), faults)


def _refuse_in_use(root: Path, replacement: Replacement) -> None:
    """Look once more, as somebody may have come since."""
    if not replacement.forgot_ns:
        return
    live = Index(root / "index", TABLES, writable=False)
    try:
        gc_states.refuse_in_use(root, live, replacement.forgot_ns)
    finally:
        live.close()


def _clear_cache(archive: Archive, report: GcReport, *, dry_run: bool, forgotten: bool) -> None:
    unused = gc_states.unused(archive.path, archive.store.live, forgotten=forgotten)
    for found in chain(gc_cache.superseded(archive, forgotten=forgotten), unused):
        if dry_run or gc_cache.remove(found):
            report.cache_files += 1
            report.cache_bytes += found.size


class _Collector:
    """Prepares what is to take the place of packs. Belongs to one thread."""

    def __init__(self, archive: Archive, limit_ns: int | None, progress: OnProgress | None, faults: Faults) -> None:
        self._root = archive.path
        self._store = archive.store
        self._progress = progress
        self._faults = faults
        self._forgotten = NOTHING if limit_ns is None else gc_forgetting.choose(archive, limit_ns, progress)
        if self._forgotten.count:
            gc_states.refuse_in_use(archive.path, archive.store.live, self._forgotten.limit_ns)
        self._marks: Marks = gc_marking.mark(archive, self._forgotten, progress)
        self._planner = Planner(archive, self._marks, self._forgotten, who())
        self.plan: Plan = self._planner.plan()

    def tell(self, report: GcReport) -> None:
        """Say what the plan is."""
        plan = self.plan
        report.versions = self._forgotten.count
        report.packs_before = plan.packs
        report.packs_after = plan.packs - len(plan.go) + len(plan.come)
        report.packs_removed = list(plan.go)
        report.packs_written = len(plan.come)
        report.bytes_written = plan.written
        report.blobs = plan.blobs
        report.bytes_freed = plan.freed

    def prepare(self) -> bool:
        """Write the packs that come and their index, if there are any; say whether there are."""
        plan = self.plan
        if not plan.come:
            return False
        self._planner.require_whole(plan)
        self._require_room()
        written = repack.write(self._store, self._again(), plan.come[0].number, self._on_bytes())
        assert written == plan.come, "packs are as long as was planned"
        self._faults("packs")
        self._make_index()
        self._faults("index")
        return True

    def _again(self) -> Iterator[Again]:
        yield from (self._planner.again(seq, prove=True)[0] for seq in self.plan.commits)
        if self.plan.forgot_ns:
            yield self._planner.end()

    def _on_bytes(self) -> Callable[[int], None]:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            if self._progress is not None:
                self._progress(Progress(0, 0, done, self.plan.written))

        return count

    def _require_room(self) -> None:
        """Refuse to begin what the disk has no room for."""
        packs = self._store.packs.directory
        needed = {packs: self.plan.written, self._root: self._store.index.size() * 5 // 4}
        on: dict[int, int] = {}
        for directory, size in needed.items():
            device = os.stat(directory).st_dev
            on[device] = on.get(device, _SPARE) + size
            status = os.statvfs(directory)
            free = status.f_bavail * status.f_frsize
            if free < on[device]:
                raise StorageFull(
                    f"{directory}: packs are written anew before the old ones are removed, which takes "
                    f"{on[device]:,} bytes; {free:,} are free. Nothing was changed"
                )

    def _make_index(self) -> None:
        """Fold what will be there into an index beside the one that is there, and compare the two."""
        folded = Store(self._root, tables.TABLES, new_index=rebuild.begin_index(self._root))
        try:
            folded.packs.look_ahead(self.plan.replacement)
            found = find(folded)
            rebuild.fold_all(folded, found, self._progress)
            if found.problems or found.torn:
                raise Damaged(f"{(*found.problems, 'a pack is torn')[0]}; nothing was changed; run 'dicomfs check'")
            with self._store.index.reading() as txn, folded.index.reading() as folded_txn:
                self._compare(txn, folded, folded_txn)
            folded.index.sync()
        finally:
            folded.close()

    def _compare(self, txn: Transaction, folded: Store, folded_txn: Transaction) -> None:
        store = self._store
        changed = gc_comparing.changed(store, txn, folded, folded_txn, self._forgotten)
        if changed:
            raise Damaged(
                f"table '{changed}' of the index is not what the packs say; nothing was changed; run 'dicomfs reindex'"
            )
        for blob, at in self._marks.walk(store, txn):
            value = folded_txn.get(blob, db=folded.blob_table)
            if value is None or locations.decode(value)[2:] != at[2:]:
                raise Damaged(f"blob {blob.hex()} would be lost; nothing was changed; run 'dicomfs check'")
