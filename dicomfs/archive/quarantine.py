"""Keep the exact bytes of what was refused, beside a one-line reason."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

DIRECTORY = "quarantine"


class SourceLost(Exception):
    """The file cannot be read any more, or is not what it was when it was judged."""


def keep(root: Path, source: str, reason: str, sha256: str) -> None:
    """Copy a refused file to quarantine/<sha256>.dcm with its reason in <sha256>.txt.

    The copy is on the disk when this returns. A file that is there already is left alone if it still has
    these bytes. The caller holds the writer's lock. Raise SourceLost where the source is at fault.
    """
    directory = root / DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    final = directory / f"{sha256}.dcm"
    if _holds(final, sha256) and final.with_suffix(".txt").exists():
        return
    temporary = directory / ".new"
    try:
        digest = hashlib.sha256()
        with temporary.open("wb") as copy:
            for piece in _pieces(source):
                digest.update(piece)
                copy.write(piece)
            copy.flush()
            os.fsync(copy.fileno())
        if digest.hexdigest() != sha256:
            raise SourceLost("changed while it was read: import it again")
        _write(directory / f"{sha256}.txt", f"{reason}\n")
        temporary.rename(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _holds(path: Path, sha256: str) -> bool:
    """Say whether a file has these bytes: it may have rotted, and the source may be the last good copy."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _pieces(source: str) -> Iterator[bytes]:
    try:
        with open(source, "rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                yield piece
    except OSError as error:
        raise SourceLost(f"cannot be read: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
