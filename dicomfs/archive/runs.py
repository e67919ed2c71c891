"""The record that each import leaves: runs/<timestamp>/ with a log and a table of every input.

    import.log   what was asked, when, and the sums
    files.tsv    outcome, size, SHA-256, SOP Instance UID, reason and path of each input

In both, a backslash is written as \\\\, tabs and line ends as \\t, \\n and \\r, and every other character that
could move a terminal's cursor or turn its text around (controls, format characters such as bidi marks,
line and paragraph separators) as \\xNN, \\uNNNN or \\UNNNNNNNN; a byte NN of a path that is not UTF-8 as \\udcNN.
So both files are UTF-8.

Paths may hold patient names, so the directory is its owner's alone.
"""

import os
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from dicomfs.archive.outcome import FileResult

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_ASCII = re.compile(r"[ -\[\]-~]*").fullmatch
"""What is written as it is: nearly everything, told at once."""


def escaped(text: str) -> str:
    r"""Return text as one field of one line, which a terminal can be shown."""
    if _ASCII(text):
        return text
    return "".join(
        c.encode("unicode_escape").decode() if c == "\\" or unicodedata.category(c) in _UNSAFE else c for c in text
    )


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
        return (self.directory / name).open("w", encoding="utf-8", buffering=1 << 16)

    def log(self, message: str) -> None:
        """Write a line with the time."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._log.write(f"{now} {escaped(message)}\n")
        self._log.flush()

    def add(self, result: FileResult) -> None:
        """Write what became of an input."""
        source, outcome, _, size, sha256, uid, _, _ = result
        reason = result.told
        if not _ASCII(uid + reason + source):
            uid, reason, source = escaped(uid), escaped(reason), escaped(source)
        self._table.write(f"{outcome.value}\t{size}\t{sha256}\t{uid}\t{reason}\t{source}\n")

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
