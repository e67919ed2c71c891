"""Keep the exact bytes of what was refused, beside a one-line reason."""

import hashlib
import os
import shutil
from pathlib import Path

DIRECTORY = "quarantine"


def keep(root: Path, source: str, reason: str) -> str:
    """Copy a refused file to quarantine/<sha256>.dcm with its reason in <sha256>.txt; return the SHA-256.

    The copy is on the disk when this returns. A file that is there already is left alone.
    """
    directory = root / DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    temporary = directory / f".{os.getpid()}.new"
    try:
        with open(source, "rb") as original, temporary.open("wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        with temporary.open("rb") as copy:
            sha256 = hashlib.file_digest(copy, "sha256").hexdigest()
        final = directory / f"{sha256}.dcm"
        if final.exists():
            temporary.unlink()
        else:
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
    return sha256


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
