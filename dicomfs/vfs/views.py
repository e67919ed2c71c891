"""The views: which directories the root of a drive can have, and which it has.

By default a drive shows `patients`, `dicomweb`, `projects` where there are any, and each layout that is switched on,
now or later; whoever names views gets just those. `projects/DIRECTORY` is one project, and nothing else.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dicomfs.errors import UsageError
from dicomfs.vfs.node import DICOMWEB, PATIENTS, PROJECTS, QUARANTINE, INode


class Known(NamedTuple):
    """A view that a drive can show."""

    root: INode
    line: str
    """What README.txt says of it."""
    links_instances: bool
    """Whether it holds every instance, under the inode number that instances have everywhere."""
    private: bool
    """Whether it is left out, unless asked for by name, where other users may look."""


VIEWS: Final[dict[str, Known]] = {
    "patients": Known(PATIENTS, "every file, by patient, study and series", links_instances=True, private=False),
    "dicomweb": Known(DICOMWEB, "a static DICOMweb tree, for a web server", links_instances=False, private=False),
    "quarantine": Known(
        QUARANTINE, "files that an import refused, each beside its reason", links_instances=False, private=True
    ),
    "projects": Known(
        PROJECTS, "files selected for a purpose, or de-identified copies", links_instances=False, private=False
    ),
}
DEFAULT: Final = ("patients", "dicomweb", "quarantine")
"""Beside these: `projects` as soon as there is one, and the layouts that are on."""
ONE_PROJECT: Final = "projects/"
"""What the name of a view begins with that is one project."""


def chosen(
    names: Sequence[str] = (),
    layouts: Sequence[str] = (),
    projects: Sequence[str] = (),
    *,
    private: bool,
    past: bool = False,
) -> tuple[str, ...]:
    """Return the views to show: those named, or the default ones; raise UsageError for an unknown one.

    `layouts` are those that are on, `projects` the directories of those that are; `private` says that nobody but the
    owner of the drive can look into it, and `past` that it shows an earlier state.
    """
    if past and "quarantine" in names:
        raise UsageError("'quarantine' is known as of now alone: leave it out of the views of an earlier state")
    for name in names:
        if name.startswith(ONE_PROJECT):
            _require_project(name.removeprefix(ONE_PROJECT), projects)
        elif name not in VIEWS and name not in layouts:
            known = ", ".join([*VIEWS, *layouts, *([f"{ONE_PROJECT}DIRECTORY"] if projects else [])])
            raise UsageError(f"there is no view '{name}'; the views are: {known}; 'dicomfs layout add' makes more")
    if names:
        return tuple(dict.fromkeys(names))
    shown = (name for name in DEFAULT if (private or not VIEWS[name].private) and not (past and name == "quarantine"))
    return (*shown, *layouts)


def is_projects(name: str) -> bool:
    """Say whether a view is of projects, all or one."""
    return name == "projects" or name.startswith(ONE_PROJECT)


def _require_project(directory: str, projects: Sequence[str]) -> None:
    if directory not in projects:
        raise UsageError(f"there is no project '{directory}'; 'dicomfs project list' tells the directories of all")
