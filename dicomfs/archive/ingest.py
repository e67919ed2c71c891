"""Import files: workers split them, this process alone writes.

    inputs -> batches -> worker processes -> chunks, in the order of the inputs -> claims -> fold -> commit

Because chunks are taken in the order of the inputs, the same inputs give the same names and inode
numbers, however many workers there are. A commit is made at every COMMIT_BYTES, COMMIT_FILES or
COMMIT_S, whichever comes first; only then is a file reported as imported.
"""

import getpass
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Final, Self, cast

from isal.isal_zlib import crc32

from dicomfs.archive import archive as archives
from dicomfs.archive import inputs as sources
from dicomfs.archive import layouts, quarantine, rebuild, static_files, tables
from dicomfs.archive.catalog import View
from dicomfs.archive.changing import Changing, restate
from dicomfs.archive.claims import Claims
from dicomfs.archive.committing import FARTHEST_NS, Opened
from dicomfs.archive.dryrun import dry_run
from dicomfs.archive.fold import Fold, fold_meta
from dicomfs.archive.inputs import Input
from dicomfs.archive.outcome import ImportReport, OnProgress, Outcome
from dicomfs.archive.quarantine import SourceLost
from dicomfs.archive.records import Records
from dicomfs.archive.results import CONFLICT_REASONS, DELETED, RESTORED, OnConflict, OnResult, Results
from dicomfs.archive.runs import Run
from dicomfs.archive.splitting import Row
from dicomfs.archive.tables import U64
from dicomfs.archive.worker import Base, Begin, Ended, StoredBlob
from dicomfs.archive.workers import Answer, Workers
from dicomfs.errors import DicomfsError
from dicomfs.store import replacing
from dicomfs.store.lock import WriterLock
from dicomfs.store.recipe import BlobId
from dicomfs.store.recovery import recover
from dicomfs.store.store import Store
from dicomfs.store.writer import Writer, explain

COMMIT_BYTES: Final = 64 << 20
COMMIT_FILES: Final = 4096
COMMIT_S: Final = 2.0
_GIANT_BYTES: Final = 256 << 20
"""A single file beyond this is committed in pieces: blobs first, its record last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How to import; `jobs` None is one worker for each core, `wait_s` how long to wait for another writer."""

    on_conflict: OnConflict = "keep"
    restore_deleted: bool = False
    """Whether instances that were deleted come back when they arrive again, which are refused otherwise."""
    recursive: bool = True
    jobs: int | None = None
    dry_run: bool = False
    wait_s: float = 0.0
    static_dicomweb: bool = False
    """The paths are roots of static DICOMweb trees, of whose instances files are built."""


def import_paths(
    archive_path: Path,
    paths: Sequence[Path],
    options: ImportOptions,
    progress: OnProgress | None = None,
    on_result: OnResult | None = None,
) -> ImportReport:
    """Import files and directories; every input gets exactly one result.

    Errors of the archive itself are raised; an error that ends the run early after something was
    committed is in the report's `stopped`.
    """
    settings = archives.require(archive_path)
    sources.refuse_archive(paths, archive_path)
    started = time.monotonic()
    results = Results(on_result, progress)
    jobs = options.jobs or os.cpu_count() or 1
    if options.static_dicomweb:
        static_files.require_trees(paths)
    elif progress is not None:
        results.count_inputs(paths, archive_path, recursive=options.recursive)
    if options.dry_run:
        with _inputs(paths, archive_path, options, results) as found:
            dry_run(
                archive_path, settings.codec, jobs, found, results, options.on_conflict,
                restore_deleted=options.restore_deleted,
            )  # fmt: skip
    else:
        lock = WriterLock(archive_path / "lock", "dicomfs import", wait_s=options.wait_s)
        try:
            with _inputs(paths, archive_path, options, results) as found:
                _import(archive_path, settings.codec, jobs, found, results, options)
        finally:
            lock.release()
    results.report.seconds = time.monotonic() - started
    return results.report


def _inputs(
    paths: Sequence[Path], archive_path: Path, options: ImportOptions, results: Results
) -> AbstractContextManager[Iterator[Input]]:
    if not options.static_dicomweb:
        return nullcontext(sources.find(paths, archive_path, results.refuse, recursive=options.recursive))
    from dicomfs.archive.static_import import StaticInputs  # which few imports need

    place = None if options.dry_run else archive_path
    return StaticInputs(paths, place, results.refuse, lambda: bool(results.report.stopped))


def open_for_writing(archive_path: Path) -> Store:
    """Open the store of an archive whose lock the caller holds, healed from whatever happened before."""
    replacing.settle(archive_path, partial(rebuild.rebuild, archive_path))
    store = Store(archive_path, tables.TABLES, writable=True)
    try:
        recover(store, lambda txn, seq, time_ns, meta: fold_meta(store, txn, seq, time_ns, meta))
    except BaseException:
        store.close()
        raise
    return store


def _import(
    root: Path, codec: str, jobs: int, found: Iterator[Input], results: Results, options: ImportOptions
) -> None:
    store = open_for_writing(root)
    try:
        try:
            run = results.run = Run(root)
        except OSError as error:
            raise explain(error, store) from error
        results.report.run_directory = run.directory
        run.log(f"import began, {jobs} workers, on conflict {options.on_conflict}")
        try:
            coordinator = _Coordinator(root, store, results, options)
            coordinator.run(found, codec, jobs)
            results.report.bytes_stored = coordinator.bytes_stored
            sums = ", ".join(f"{count} {outcome}" for outcome, count in sorted(results.report.outcomes.items()))
            run.log(f"import ended: {sums or 'no inputs'}{'; stopped: ' if results.report.stopped else ''}"
                    f"{results.report.stopped}")  # fmt: skip
        finally:
            run.close()
    except OSError as error:
        raise explain(error, store) from error
    finally:
        store.close()


class _Coordinator:
    """Takes the workers' chunks and commits them."""

    def __init__(self, root: Path, store: Store, results: Results, options: ImportOptions) -> None:
        self._root = root
        self._store = store
        self._results = results
        self._on_conflict: OnConflict = options.on_conflict
        self._restores = options.restore_deleted
        self._returning: list[int] = []
        self._writer = Writer(store)
        self._claims = Claims(store)
        self._bases: dict[bytes, Base] = {}
        self._by = who()
        self._run = "" if results.run is None else results.run.directory.name
        self._last_time_ns = min(View(store, self._writer.txn).commit_time_ns, FARTHEST_NS)
        self._refused = self._present = self._deleted = self._returns = False
        self._earlier = 0
        self._new_bulk = self._new_stored = 0
        self._mended: set[BlobId] = set()
        self._repairs = False
        self._begin_commit()

    def run(self, found: Iterator[Input], codec: str, jobs: int) -> None:
        """Import everything; whatever ends the run early, what was committed is kept and every input is told of."""
        first = next(found, None)
        rest = iter(()) if first is None else chain((first,), found)
        try:
            with _Interrupts() as interrupts:
                if first is not None:
                    with Workers(self._root, codec, jobs, dry_run=False) as workers:
                        for answer in workers.run(sources.batches(rest, self._results.note)):
                            self._take(answer)
                            if interrupts.signal:
                                break
                self._commit()
                opened = Opened(self._store, self._writer, self._by)
                layouts.catch_up(opened)
                self._catch_up_with_projects(opened, jobs, lambda: bool(interrupts.signal))
                self._writer.close()
                if interrupts.signal:
                    self._results.report.interrupted = interrupts.signal
                    self._results.stop("interrupted: run the same command again to go on", rest)
        except DicomfsError as error:
            self._writer.abort()
            reason = self._results.with_names(str(error))
            self._results.drop_unsettled(reason)
            self._results.stop(reason, rest)
        except BaseException:
            self._writer.abort()
            raise

    def _catch_up_with_projects(self, opened: Opened, jobs: int, stop: Callable[[], bool]) -> None:
        states = View(self._store, self._writer.txn).projects()
        if any(state.on and state.definition.live for state in states):
            from dicomfs.archive import projects  # which few archives need

            projects.catch_up(self._root, opened, self._results.warn, jobs, stop)

    @property
    def bytes_stored(self) -> int:
        """By how much the packs grew."""
        return self._writer.bytes_committed

    def _begin_commit(self) -> None:
        self._time_ns = max(time.time_ns(), self._last_time_ns + 1)
        self._since = time.monotonic()
        self._records = Records()
        self._fold = Fold(self._store, self._writer.txn, self._writer.seq, self._time_ns)
        self._claims.begin(self._writer.txn, self._fold, self._records)

    def _commit(self) -> None:
        if self._writer.pending_bytes:
            self._records.run = self._run
            if self._claims.stale:
                restate(self._store, self._writer.txn, self._records, self._fold, self._claims.stale)
            self._fold.said("", None, self._run, None)
            self._fold.finish("import", self._by)
            self._writer.commit(self._records.encode("import", self._by), self._time_ns)
            self._last_time_ns = self._time_ns
            self._begin_commit()
        if self._returning:
            self._restore()
        self._results.settle()

    def _restore(self) -> None:
        """Bring back what was deleted and arrived again."""
        opened = Opened(self._store, self._writer, self._by)
        changing = Changing(self._root, opened, "restore", "it arrived again")
        changing.records.run = self._run
        for ino in self._returning:
            changing.restore(ino)
        changing.restate()
        changing.commit()
        self._returning = []
        self._claims = Claims(self._store)  # which knew what patients, studies and series were said to be
        self._last_time_ns = View(self._store, self._writer.txn).commit_time_ns
        self._begin_commit()

    def _take(self, answer: Answer) -> None:
        for item in answer.items:
            if isinstance(item, StoredBlob):
                self._take_blob(item, answer.memory)
            elif isinstance(item, Row):
                self._take_row(item)
            elif isinstance(item, Begin):
                self._begin_file(item)
            elif isinstance(item, Base):
                self._bases[item.blob] = item
            else:
                self._end_file(item)
        # The answer's memory is used again once this returns.
        self._writer.flush()
        due = (
            self._writer.pending_bytes >= COMMIT_BYTES
            or len(self._records.instances) >= COMMIT_FILES
            or time.monotonic() - self._since >= COMMIT_S
        )
        if due:
            self._commit()

    def _begin_file(self, file: Begin) -> None:
        txn, held = self._writer.txn, self._store.index.tables
        same = txn.get(file.sha256, db=held["file"])
        view = View(self._store, txn)
        versions = view.instances_where_uid(file.sop_instance_uid)
        self._earlier = versions[0] if versions and view.is_shown(file.sop_instance_uid) else 0
        is_deleted = not self._earlier and view.is_deleted(file.sop_instance_uid)
        self._deleted = is_deleted and not self._restores
        self._returns = is_deleted and self._restores and same is not None
        if self._returns and same is not None and (ino := U64.unpack(same)[0]) not in self._returning:
            self._returning.append(ino)
        # An earlier version may come back: it takes the place of what replaced it.
        returns = same is not None and self._on_conflict == "replace" and self._is_displaced(same)
        self._present = same is not None and not returns and not is_deleted
        self._refused = (
            self._present
            or self._deleted
            or self._returns
            or (bool(self._earlier) and self._on_conflict in ("skip", "error"))
        )
        self._new_bulk = self._new_stored = 0
        self._repairs = False

    def _is_displaced(self, ino: bytes) -> bool:
        inode = self._writer.txn.get(ino, db=self._store.index.tables["inode"])
        return inode is not None and tables.InstanceInode.parse(inode).parent == tables.NOWHERE

    def _take_blob(self, item: StoredBlob, memory: memoryview) -> None:
        blob, codec, length, at, size, crc, checks, hurt = item
        again = hurt and blob not in self._mended
        if self._refused and not again:
            return
        if again:
            self._mended.add(blob)
            self._repairs = True
        if self._writer.add_blob(blob, codec, length, memory[at : at + size], crc, checks, again=again):
            self._new_bulk += length
            self._new_stored += size
            if self._writer.pending_bytes >= _GIANT_BYTES:
                self._commit()

    def _take_row(self, row: Row) -> None:
        uid = str(row.attributes.instance["SOPInstanceUID"])
        conflict = bool(self._earlier)
        if self._present:
            reason = "its stored copy was damaged, and is repaired" if self._repairs else ""
            self._results.add(Outcome.PRESENT, reason, row.size, row.sha256, uid, settled=False)
            return
        if self._deleted or self._returns:
            outcome, reason = (Outcome.DELETED, DELETED) if self._deleted else (Outcome.IMPORTED, RESTORED)
            self._results.add(outcome, reason, row.size, row.sha256, uid, settled=False)
            return
        reason = CONFLICT_REASONS[self._on_conflict] if conflict else ""
        if not self._refused:
            new_base = self._store_base(row.base)
            offset = self._writer.add_body(row.body)
            replaces = self._earlier if self._on_conflict == "replace" else 0
            self._claims.place(
                row, offset, self._new_bulk, self._new_stored, new_base, conflict=conflict, replaces=replaces
            )
        outcome = Outcome.CONFLICT if conflict else Outcome.IMPORTED
        self._results.add(outcome, reason, row.size, row.sha256, uid, settled=False)

    def _store_base(self, blob: bytes) -> int:
        base = self._bases.pop(blob, None)
        if base is None:
            return 0
        crc = crc32(base.stored)
        added = self._writer.add_blob(base.blob, base.codec, base.length, base.stored, crc, (crc,), prefix=b"h/")
        return len(base.stored) if added else 0

    def _end_file(self, file: Ended) -> None:
        if file.outcome is Outcome.QUARANTINED:
            try:
                quarantine.keep(self._root, self._results.current.path, file.reason, file.sha256.hex())
            except SourceLost as error:
                file = file._replace(outcome=Outcome.FAILED, reason=str(error))
            except OSError as error:
                raise explain(error, self._store) from error
        self._results.add(*file, settled=True)


class _Interrupts:
    """Take SIGINT and SIGTERM as a wish to end the run after the file in work; the second one is no wish.

    Only the main thread hears signals: elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, signal.Handlers] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = cast(signal.Handlers, signal.signal(number, self._hear))
        return self

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def who() -> str:
    """Return the user and the machine, as a commit tells who made it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
