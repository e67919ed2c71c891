"""Find the files that an import was pointed at."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.archive.outcome import Outcome
from dicomfs.errors import DicomfsError, UsageError

BATCH_FILES: Final = 64
BATCH_BYTES: Final = 8 << 20


class Input(NamedTuple):
    """One file to read; `explicit` where it was named itself.

    A file that was built for the import has the name that is `shown` for it, and `remarks` on how it was; it is removed
    once it was read.
    """

    path: str
    size: int
    explicit: bool
    shown: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What users know it by."""
        return self.shown or self.path


BATCH_PATH_BYTES: Final = 8 << 10
"""Batches travel through a socket, and all that a worker holds must fit its buffer."""

Refused = Callable[[str, Outcome, str], None]
"""Called with a path that is no input, what becomes of it, and the reason."""


def find(paths: Sequence[Path], archive: Path, refused: Refused, *, recursive: bool) -> Iterator[Input]:
    """Walk files and directories, each directory in the order of its names.

    Links to files are followed, links to directories are not; what is no regular file is skipped.
    """
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            refused(str(path), Outcome.FAILED, f"cannot be read: {error.strerror}")
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(str(path), os.path.realpath(archive), refused, recursive=recursive)
        elif stat.S_ISREG(status.st_mode):
            yield Input(str(path), status.st_size, explicit=True)
        else:
            refused(str(path), Outcome.FAILED, _NO_FILE)


def refuse_archive(paths: Sequence[Path], archive: Path) -> None:
    """Raise UsageError where an input lies inside the archive."""
    root = os.path.realpath(archive)
    for path in paths:
        real = os.path.realpath(path)
        if real == root or real.startswith(root + os.sep):
            raise UsageError(f"{path}: lies inside the archive itself")


_NO_FILE: Final = "is neither a file nor a directory"


def _walk(directory: str, archive: str, refused: Refused, *, recursive: bool) -> Iterator[Input]:
    """Walk a directory depth first, however deep it is."""
    waiting = [_entries(directory, refused)]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            continue
        try:
            if entry.is_file():
                yield Input(entry.path, entry.stat().st_size, explicit=False)
            elif entry.is_dir(follow_symlinks=False):
                if recursive and os.path.realpath(entry.path) != archive:
                    waiting.append(_entries(entry.path, refused))
            elif entry.is_dir():
                reason = "is a link to a directory, which is not followed: name it to import it"
                refused(entry.path, Outcome.SKIPPED, reason)
            elif entry.is_symlink():
                refused(entry.path, Outcome.FAILED, "cannot be read: a link to nothing, or to no file")
            else:
                refused(entry.path, Outcome.SKIPPED, _NO_FILE)
        except OSError as error:
            refused(entry.path, Outcome.FAILED, f"cannot be read: {error.strerror}")


def _entries(directory: str, refused: Refused) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        refused(directory, Outcome.FAILED, f"cannot be read: {error.strerror}")
        found = []
    return iter(found)


def batches(inputs: Iterator[Input], note: Callable[[list[Input]], None]) -> Iterator[list[str]]:
    """Group inputs into batches; `note` is told of each before it is given out, and of one that is not any more."""
    batch: list[Input] = []
    size = path_bytes = 0
    while True:
        try:
            one = next(inputs)
        except StopIteration:
            break
        except DicomfsError:
            note(batch)
            raise
        batch.append(one)
        size += one.size
        path_bytes += len(one.path)
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES or path_bytes >= BATCH_PATH_BYTES:
            note(batch)
            yield [item.path for item in batch]
            batch, size, path_bytes = [], 0, 0
    if batch:
        note(batch)
        yield [item.path for item in batch]
