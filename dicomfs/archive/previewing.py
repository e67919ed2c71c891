"""Show which paths a template would give the instances of an archive, and change nothing."""

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.archive.lacking import Lacking, in_order
from dicomfs.archive.layout import Layout
from dicomfs.archive.names import fold

_STUDIES: Final = 64
"""So many studies are read in one transaction."""


class Previewed(NamedTuple):
    """An instance, where `patients/` has it, and where the layout would."""

    ino: int
    current: str
    path: str


class _Directory:
    """A directory as it would be: names by identity, and which are taken."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()
        self.below: dict[str, _Directory] = {}

    def name(self, layout: Layout, level: int, one: Lacking, identity: str, *, plain: bool = True) -> str:
        known = self.names.get(identity)
        if known is not None:
            return known
        number = len(self.names) + 1 if layout.is_counted(level) else 0
        names = layout.names(level, one.attributes, identity, number)
        if not (plain or number):
            next(names)
        name = next(candidate for candidate in names if fold(candidate) not in self.taken)
        self.names[identity] = name
        self.taken.add(fold(name))
        return name


def preview(archive: Archive, layout: Layout, *, limit: int, of_series: int) -> Iterator[Previewed]:
    """Yield up to `limit` instances, the first `of_series` of each series, with the paths that they would have."""
    return islice(_paths(archive, layout, of_series), limit)


def _paths(archive: Archive, layout: Layout, of_series: int) -> Iterator[Previewed]:
    root = _Directory()
    after = 0
    while True:
        with archive.view() as view:
            studies = list(islice(view.studies(after), _STUDIES))
            found = [
                (one, view.path(one.instance.ino))
                for study in studies
                for series in view.series_of(study.key)
                for one in islice(in_order(lambda: view, series.key, 0, layout, _is_shown), of_series)
            ]
        if not studies:
            return
        for one, current in found:
            yield Previewed(one.instance.ino, current, _path(root, layout, one))
        after = studies[-1].key


def _is_shown(view: View, ino: int) -> bool:
    return view.instance_inode(ino).parent != tables.NOWHERE


def _path(directory: _Directory, layout: Layout, one: Lacking) -> str:
    parts = []
    for level in range(layout.depth - 1):
        identity = layout.identity(level, one.attributes)
        parts.append(directory.name(layout, level, one, identity))
        directory = directory.below.setdefault(identity, _Directory())
    parts.append(directory.name(layout, layout.depth - 1, one, one.identity, plain=one.instance.current))
    return "/".join(parts)
