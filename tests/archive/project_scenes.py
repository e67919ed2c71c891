"""Projects for tests: made, walked and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dicomfs.archive import projects
from dicomfs.archive.archive import Archive
from dicomfs.archive.projects import Done, Wanted
from tests.archive.importing import add, children
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.catalog import View

CT = (("Modality", "CT"),)
DEID = "basic"


def create(archive: Path, name: str = "own", where: tuple[tuple[str, str], ...] = CT, **wanted: Any) -> Done:
    """Make a project; what is no part of its definition goes to `create`."""
    options = {key: wanted.pop(key) for key in ("jobs", "module") if key in wanted}
    return projects.create(archive, Wanted(name=name, where=where, **wanted), **{"jobs": 1, **options})


def numbered(archive: Path, *numbers: int, **kinds: object) -> None:
    """Import the instances with these numbers, in this order."""
    add(archive, *(make_instance(number=number, **kinds) for number in numbers))  # type: ignore[arg-type]


def below(archive: Path, ino: int) -> dict[str, int]:
    """Return the inode numbers of the files below a directory, by path."""

    def walk(view: View, ino: int, path: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in children(view, ino):
            shown = path + entry.name.decode()
            found |= walk(view, entry.ino, f"{shown}/") if entry.is_directory else {shown: entry.ino}
        return found

    with Archive.open(archive) as opened, opened.view() as view:
        return walk(view, ino, "")


def read(archive: Path, ino: int) -> bytes:
    """Return the bytes of a file."""
    with Archive.open(archive) as opened:
        file = opened.open_instance(ino)
        return bytes(file.read(0, file.size))


def reasons(archive: Path, root: int) -> dict[int, str]:
    """Return why instances are withheld from a project."""
    with Archive.open(archive) as opened, opened.view() as view:
        return {member.source: member.reason for member in view.members(root) if member.reason}
