"""README.txt of the drive: ten plain lines for whoever opens it."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dicomfs.archive.moments import time_text
from dicomfs.vfs.views import VIEWS, is_projects

NAME: Final = b"README.txt"
_PROJECTS: Final = "projects"
_OTHERS: Final = "Every other directory is a layout: the same files under other names."
_LIVE: Final = "New imports appear by themselves, within a second."
_FROZEN: Final = "What is committed later does not appear."
_MAY_COME: Final = f"{_PROJECTS}/ comes with the first project. {_OTHERS}"


class State(NamedTuple):
    """The earlier state that a drive shows."""

    time_ns: int
    """The moment that was asked for."""
    seq: int
    """The last commit by then, 0 before the first."""
    commit_time_ns: int


def text(views: Sequence[str], *, default: bool, state: State | None = None) -> bytes:
    """Return the page; `views` are the names of those that are shown.

    `default` says that there may be more: the page is the same whatever layouts and projects come and go.
    """
    lines = {name: VIEWS[name].line for name in views if name in VIEWS}
    if any(is_projects(name) for name in views):
        lines[_PROJECTS] = VIEWS[_PROJECTS].line
    width = max((len(name) for name in lines), default=0) + 1
    layouts = any(name not in VIEWS and not is_projects(name) for name in views)
    others = _MAY_COME if default else _OTHERS if layouts else ""
    imported = "as it was imported"
    if default or _PROJECTS in lines:
        imported += ", or de-identified"
    page = [
        "This drive shows a DICOM archive. It is made by dicomfs.",
        *([] if state is None else _earlier(state)),
        "",
        *(f"{name + '/':{width}}  {line}" for name, line in lines.items()),
        *([others] if others else []),
        "",
        f"Every DICOM file reads back bit for bit {imported}. Copy, search, open or",
        "share the files with any program: cp, rsync, tar, a viewer, a network share.",
        "The drive is read-only. " + (_LIVE if state is None else _FROZEN),
        "",
        "To add files: dicomfs import PATH... --archive ARCHIVE. To find some: dicomfs query --help",
    ]
    return "\n".join(page).encode() + b"\n"


def _earlier(state: State) -> list[str]:
    """Say what is shown, as short as the rest of the page."""
    after = (
        f"after commit {state.seq}, of {time_text(state.commit_time_ns)}" if state.seq else "before its first commit"
    )
    return [f"It is an earlier state: as of {time_text(state.time_ns)},", f"{after}."]
