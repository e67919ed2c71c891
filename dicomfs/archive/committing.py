"""Commits of what has nothing to do with new files: places in layouts and projects, one commit after another."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.archive import archive as archives
from dicomfs.archive.catalog import View
from dicomfs.archive.fold import Fold
from dicomfs.archive.placing import Placing
from dicomfs.archive.records import Records
from dicomfs.store.lock import WriterLock
from dicomfs.store.store import Store
from dicomfs.store.writer import Writer

FARTHEST_NS: Final = 1 << 62
"""No clock is set so late; a commit that says so was made by somebody else."""


class Opened(NamedTuple):
    """An archive that this process may write to, alone."""

    store: Store
    writer: Writer
    by: str


@contextmanager
def writing(archive_path: Path, what: str, wait_s: float) -> Iterator[Opened]:
    """Hold an archive's lock; what was not committed when the block ends with an error is dropped."""
    from dicomfs.archive.ingest import open_for_writing, who

    archives.require(archive_path)
    lock = WriterLock(archive_path / "lock", what, wait_s=wait_s)
    try:
        store = open_for_writing(archive_path)
        try:
            writer = Writer(store)
            try:
                yield Opened(store, writer, who())
            except BaseException:
                writer.abort()
                raise
            writer.close()
        finally:
            store.close()
    finally:
        lock.release()


class Committing:
    """A commit in the making, and the next one after it, by a writer that has nothing else to commit."""

    def __init__(self, opened: Opened, op: str) -> None:
        """`op` is what the commits say that they are."""
        self.store, self.writer, self._by = opened
        self._op = op
        self.placing = Placing(self.store)
        self._begin()

    def _begin(self) -> None:
        self._time_ns = max(time.time_ns(), min(self.view.commit_time_ns, FARTHEST_NS) + 1)
        self.records = Records()
        self.fold = Fold(self.store, self.writer.txn, self.writer.seq, self._time_ns)
        self.placing.begin(self.writer.txn, self.fold, self.records)

    def commit(self) -> None:
        """Make what was recorded last."""
        records = self.records
        self.fold.said(records.reason, records.edit, records.run, records.merged)
        self.fold.finish(self._op, self._by)
        self.writer.commit(self.records.encode(self._op, self._by), self._time_ns)
        self._begin()

    @property
    def view(self) -> View:
        """The catalog as it is with what was recorded; not beyond the next commit."""
        return View(self.store, self.writer.txn)
