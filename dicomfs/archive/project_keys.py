"""The keys of projects with pseudonyms: ARCHIVE/projects/<root>.key, 32 random bytes each, outside the packs.

Who has the packs alone cannot make a pseudonym of a name that he guesses. A key is on the disk before the commit
that names its project.
"""

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from dicomfs.errors import Refused, StorageFull

DIRECTORY: Final = "projects"
LENGTH: Final = 32


class KeyMissing(Refused):
    """A project's key is not there, or is none."""


def path(archive: Path, root: int) -> Path:
    """Return where the key of a project lies."""
    return archive / DIRECTORY / f"{root}.key"


def make(archive: Path, root: int) -> bytes:
    """Make the key of a project that is about to be committed, and bring it to the disk."""
    where = path(archive, root)
    key = secrets.token_bytes(LENGTH)
    temporary = where.with_name(f".{where.name}.{secrets.token_hex(8)}")
    try:
        with suppress(FileExistsError):
            where.parent.mkdir(mode=0o700)
            _sync(archive)
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(fd)
            # One of the same number is of a project that was never committed, or is lost with its pack.
            with suppress(FileNotFoundError):
                os.rename(where, f"{temporary}.old")
            os.rename(temporary, where)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync(where.parent)
    except OSError as error:
        raise StorageFull(f"{where}: the key of the project cannot be written ({error.strerror})") from error
    return key


def mark(key: bytes) -> str:
    """Return what a project keeps of its key in the packs, to know it again; the key does not follow from it."""
    return hmac.digest(key, b"the key of a project", "sha256").hex()[:32]


def read(archive: Path, root: int, marked: str) -> bytes:
    """Return the key of a project, which has this mark; raise KeyMissing."""
    where = path(archive, root)
    remedy = "bring it back from a copy of the archive; what is in the project can be read without it"
    try:
        key = where.read_bytes()
    except OSError as error:
        raise KeyMissing(f"{where}: the project's key cannot be read ({error.strerror}): {remedy}") from error
    if len(key) != LENGTH:
        raise KeyMissing(f"{where}: is not {LENGTH} bytes long, so not the project's key: {remedy}")
    if marked and not hmac.compare_digest(mark(key), marked):
        raise KeyMissing(f"{where}: is not the key with which the project was begun: {remedy}")
    return key


def forget(archive: Path, root: int) -> bool:
    """Remove the key of a project; say whether there was one."""
    where = path(archive, root)
    try:
        where.unlink()
        _sync(where.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageFull(f"{where}: the project's key cannot be removed ({error.strerror})") from error
    return True


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
