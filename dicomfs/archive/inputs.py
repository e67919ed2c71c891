"""Find the files that an import was pointed at."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.errors import UsageError

BATCH_FILES: Final = 64
BATCH_BYTES: Final = 32 << 20


class Input(NamedTuple):
    """One file to read; `explicit` where it was named itself."""

    path: str
    size: int
    explicit: bool


Refused = Callable[[str, str], None]
"""Called with a path that is no file, or a directory that cannot be read, and the reason."""


def find(paths: Sequence[Path], archive: Path, refused: Refused, *, recursive: bool) -> Iterator[Input]:
    """Walk files and directories, each directory in the order of its names.

    Links to files are followed, links to directories are not; what is no regular file is refused.
    """
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            refused(str(path), f"cannot be read: {error.strerror}")
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(str(path), os.path.realpath(archive), refused, recursive=recursive)
        elif stat.S_ISREG(status.st_mode):
            yield Input(str(path), status.st_size, explicit=True)
        else:
            refused(str(path), "is neither a file nor a directory")


def refuse_archive(paths: Sequence[Path], archive: Path) -> None:
    """Raise UsageError where an input lies inside the archive."""
    root = os.path.realpath(archive)
    for path in paths:
        real = os.path.realpath(path)
        if real == root or real.startswith(root + os.sep):
            raise UsageError(f"{path}: lies inside the archive itself")


def _walk(directory: str, archive: str, refused: Refused, *, recursive: bool) -> Iterator[Input]:
    try:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        refused(directory, f"cannot be read: {error.strerror}")
        return
    for entry in found:
        try:
            if entry.is_file():
                yield Input(entry.path, entry.stat().st_size, explicit=False)
            elif entry.is_dir(follow_symlinks=False):
                if recursive and os.path.realpath(entry.path) != archive:
                    yield from _walk(entry.path, archive, refused, recursive=True)
            elif entry.is_dir():
                refused(entry.path, "is a link to a directory, which is not followed: name it to import it")
            else:
                refused(entry.path, "is neither a file nor a directory")
        except OSError as error:
            refused(entry.path, f"cannot be read: {error.strerror}")


def batches(inputs: Iterator[Input], note: Callable[[list[Input]], None]) -> Iterator[list[str]]:
    """Group inputs into batches; `note` is told of each batch before it is given out."""
    batch: list[Input] = []
    size = 0
    for one in inputs:
        batch.append(one)
        size += one.size
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            note(batch)
            yield [item.path for item in batch]
            batch, size = [], 0
    if batch:
        note(batch)
        yield [item.path for item in batch]
