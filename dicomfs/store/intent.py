"""The word that packs are going to be replaced by others: packs/gc.json, which docs/format.md describes.

    {"version": 1, "come": [number], "go": [number], "forgot": time in ns since 1970}

It is written when the packs that come are whole, under the names NNNNNNNN.zip.new, and so is the index of what will
then be there. From then on whoever opens the archive for writing does what is left to do (replacing.py). Both kinds
of packs hold the same commits, so only one counts: those that come once all of them have their names.
"""

import errno
import json
import os
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.errors import Damaged

NAME: Final = "gc.json"
COMING: Final = ".new"
"""The end of a name that does not count yet."""
_VERSION: Final = 1
_MOST_BYTES: Final = 1 << 24


class Replacement(NamedTuple):
    """Numbers of packs: those that come are written, those that go are still there."""

    come: tuple[int, ...]
    go: tuple[int, ...]
    forgot_ns: int = 0
    """Up to which time, in ns since 1970, something is then forgotten; 0: nothing is."""


def read(directory: Path) -> Replacement | None:
    """Return what is going to be done in a directory of packs, None where nothing is; raise Damaged."""
    path = directory / NAME
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_MOST_BYTES))
        if told["version"] != _VERSION:
            raise Damaged(f"{path}: was written by a later version of dicomfs; use that one")
        come, go = (tuple(number for number in told[key] if isinstance(number, int)) for key in ("come", "go"))
        forgot_ns = int(told.get("forgot", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(
            f"{path}: is damaged; remove it if no file in packs/ ends in .zip{COMING}, and run 'dicomfs reindex'"
        ) from error
    return Replacement(come, go, forgot_ns)


def write(directory: Path, replacement: Replacement) -> None:
    """Say what is going to be done, so that it lasts."""
    path = directory / NAME
    new = path.with_name(NAME + COMING)
    with new.open("w") as file:
        os.fchmod(file.fileno(), 0o600 | os.stat(directory).st_mode & 0o666)
        come, go, forgot_ns = replacement
        json.dump({"version": _VERSION, "come": come, "go": go, "forgot": forgot_ns}, file)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_directory(directory)


def remove(directory: Path) -> None:
    """Say that nothing is left to be done."""
    (directory / NAME).unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Bring the names of a directory to the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a filesystem that does not do this to directories
            raise
    finally:
        os.close(fd)
