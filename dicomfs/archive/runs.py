"""The record that each import leaves: runs/<timestamp>/ with a log and a table of every input.

    import.log   what was asked, when, and the sums
    files.tsv    outcome, size, SHA-256, SOP Instance UID, reason and path of each input; tabs, line ends
                 and backslashes in a path are written as \\t, \\n, \\r and \\\\

Paths may hold patient names, so the directory is its owner's alone.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from dicomfs.archive.outcome import FileResult

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Run:
    """One run's record; a context manager."""

    def __init__(self, root: Path) -> None:
        self.directory = self._make(root / "runs")
        self._log = self._open("import.log")
        self._table = self._open("files.tsv")
        self._table.write("outcome\tsize\tsha256\tsop_instance_uid\treason\tpath\n")

    @staticmethod
    def _make(runs: Path) -> Path:
        runs.mkdir(mode=0o700, exist_ok=True)
        while True:
            directory = runs / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            try:
                directory.mkdir(mode=0o700)
            except FileExistsError:
                continue
            return directory

    def _open(self, name: str) -> IO[str]:
        return (self.directory / name).open("w", encoding="utf-8", errors="surrogateescape", buffering=1 << 16)

    def log(self, message: str) -> None:
        """Write a line with the time."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._log.write(f"{now} {message}\n")
        self._log.flush()

    def add(self, result: FileResult) -> None:
        """Write what became of an input."""
        fields = (
            result.outcome,
            str(result.size),
            result.sha256,
            result.sop_instance_uid,
            result.reason,
            result.source,
        )
        self._table.write("\t".join(field.translate(_ESCAPES) for field in fields) + "\n")

    def flush(self) -> None:
        """Hand everything to the kernel: after each commit."""
        self._table.flush()

    def close(self) -> None:
        """Bring the record to the disk."""
        for file in (self._log, self._table):
            try:
                file.flush()
                os.fsync(file.fileno())
            finally:
                file.close()
