"""Give every input of an import its one result, in the order of the inputs, and count."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, Literal, TypeAlias

from dicomfs.archive import inputs as sources
from dicomfs.archive.inputs import Input
from dicomfs.archive.outcome import FileResult, ImportReport, OnProgress, Outcome, Progress
from dicomfs.archive.runs import Run

OnConflict: TypeAlias = Literal["keep", "replace", "skip", "error"]
OnResult: TypeAlias = Callable[[FileResult], None]

CONFLICT_REASONS: Final[dict[OnConflict, str]] = {
    "keep": "kept beside an earlier file of the same SOP Instance UID",
    "replace": "replaced an earlier file of the same SOP Instance UID, which is kept as its earlier version",
    "skip": "not imported: another file of the same SOP Instance UID is in the archive",
    "error": "not imported: another file of the same SOP Instance UID is in the archive (--on-conflict error)",
}
DELETED: Final = "not imported: it was deleted from the archive; --restore-deleted takes it in again"
RESTORED: Final = "it was deleted from the archive, and is restored"
NOT_READ: Final = "not read: the import had stopped"
_KEPT: Final = (CONFLICT_REASONS["keep"], CONFLICT_REASONS["replace"])


class Results:
    """Gives every input its one result, in order, and counts."""

    def __init__(self, on_result: OnResult | None, progress: OnProgress | None) -> None:
        self.report = ImportReport()
        self.run: Run | None = None
        self._on_result = on_result
        self._progress = progress
        self._open: deque[Input] = deque()
        self._waiting: list[tuple[FileResult, bool]] = []
        self._done = self._bytes_done = self._total = self._bytes_total = 0

    def count_inputs(self, paths: Sequence[Path], archive: Path, *, recursive: bool) -> None:
        """Find out how much there is to do."""
        for one in sources.find(paths, archive, lambda *_: None, recursive=recursive):
            self._total += 1
            self._bytes_total += one.size

    def note(self, batch: list[Input]) -> None:
        """Remember which inputs the next answers are about."""
        self._open.extend(batch)

    def refuse(self, path: str, outcome: Outcome, reason: str) -> None:
        """Report a path that never became an input."""
        self._tell(FileResult(path, outcome, reason, 0, "", "", explicit=outcome is Outcome.FAILED))

    @property
    def current(self) -> Input:
        """The input that the next result is about."""
        return self._open[0]

    def add(self, outcome: Outcome, reason: str, size: int, sha256: bytes, uid: str, *, settled: bool) -> None:
        """Give the current input its result; one that is not settled is told at the next commit."""
        source = self._open.popleft()
        result = FileResult(source.name, outcome, reason, size, sha256.hex(), uid, source.explicit, source.remarks)
        if source.shown:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(source.path)
        if settled and not self._waiting:
            self._tell(result)
        else:
            self._waiting.append((result, settled))
        self._done += 1
        self._bytes_done += source.size
        if self._progress is not None:
            self._progress(Progress(self._done, self._total, self._bytes_done, self._bytes_total))

    def with_names(self, message: str) -> str:
        """Return a message with the names that users know in the place of those of files built for the import."""
        for source in self._open:
            if source.shown:
                message = message.replace(source.path, source.shown)
        return message

    def settle(self) -> None:
        """A commit was made: tell what waited for it."""
        waiting, self._waiting = self._waiting, []
        for result, _ in waiting:
            self._tell(result)
        if self.run is not None:
            self.run.flush()

    def drop_unsettled(self, reason: str) -> None:
        """The run ends here: what was not committed was not imported."""
        for result, settled in self._waiting:
            if not settled:
                lost = FileResult(result.source, Outcome.FAILED, f"not committed: {reason}", result.size,
                                  result.sha256, result.sop_instance_uid, explicit=result.explicit)  # fmt: skip
                self._tell(lost)
            else:
                self._tell(result)
        self._waiting = []

    def warn(self, what: str) -> None:
        """Tell of what is not as it should be though all files are there."""
        self.report.warnings.append(what)
        if self.run is not None:
            self.run.log(what)

    def stop(self, why: str, rest: Iterator[Input]) -> None:
        """The run ends before its inputs do: every one that is left gets its result all the same."""
        self.report.stopped = why
        unread = list(self._open)
        self._open.clear()
        for source in chain(unread, rest):
            self._tell(FileResult(source.name, Outcome.FAILED, NOT_READ, 0, "", "", explicit=source.explicit))

    def _tell(self, result: FileResult) -> None:
        report = self.report
        report.outcomes[result.outcome] += 1
        if result.outcome is Outcome.IMPORTED or (result.outcome is Outcome.CONFLICT and result.reason in _KEPT):
            report.bytes_in += result.size
        if result.outcome is Outcome.CONFLICT and result.reason == CONFLICT_REASONS["error"]:
            report.not_imported += 1
        if result.outcome is Outcome.SKIPPED and result.explicit:
            report.explicit_skipped += 1
        report.remarks.update(result.remarks)
        if self.run is not None:
            self.run.add(result)
        if self._on_result is not None:
            self._on_result(result)
