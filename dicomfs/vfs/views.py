"""The views: which directories the root of a drive can have, and which it has.

By default a drive shows `patients`, `dicomweb` and each layout that is switched on, now or later; whoever names
views gets just those.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dicomfs.errors import UsageError
from dicomfs.vfs.node import DICOMWEB, PATIENTS, QUARANTINE, INode


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
}
DEFAULT: Final = ("patients", "dicomweb", "quarantine")


def chosen(names: Sequence[str] = (), layouts: Sequence[str] = (), *, private: bool) -> tuple[str, ...]:
    """Return the views to show: those named, or the default ones; raise UsageError for an unknown one.

    `layouts` are those that are on; `private` says that nobody but the owner of the drive can look into it.
    """
    for name in names:
        if name not in VIEWS and name not in layouts:
            known = ", ".join([*VIEWS, *layouts])
            raise UsageError(f"there is no view '{name}'; the views are: {known}")
    if names:
        return tuple(dict.fromkeys(names))
    return (*(name for name in DEFAULT if private or not VIEWS[name].private), *layouts)
