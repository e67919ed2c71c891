"""Which instances belong to a project: its conditions, its list, and what is in it already."""

from __future__ import annotations

import hmac
from array import array
from typing import TYPE_CHECKING, NamedTuple

from dicomfs.archive.lacking import in_order
from dicomfs.archive.project_lists import ANY, from_stored, resolve
from dicomfs.archive.query import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View
    from dicomfs.archive.lacking import Lacking
    from dicomfs.archive.layout import Layout
    from dicomfs.archive.project_definition import Definition
    from dicomfs.archive.query import Match


class Chosen(NamedTuple):
    """Instances by the numbers of their series: studies in the order of patients and dates, series by their numbers."""

    series: dict[int, array[int]]
    instances: int
    studies: int


def choose(archive: Archive, root: int, definition: Definition, after: int = 0, again: Collection[int] = ()) -> Chosen:
    """Find the instances past a number, and all of some studies, that belong to a project and are not in it.

    8 bytes of memory for each.
    """
    series: dict[int, array[int]] = {}
    studies: set[int] = set()
    count = 0
    for match in _matches(archive, definition, after, again):
        assert match.instance is not None
        with archive.view() as view:
            if view.member(root, match.instance.ino) is not None:
                continue
        series.setdefault(match.instance.series, array("Q")).append(match.instance.ino)
        studies.add(match.study.key)
        count += 1
    return Chosen(series, count, len(studies))


def _matches(archive: Archive, definition: Definition, after: int, again: Collection[int]) -> Iterator[Match]:
    within = _listed(archive, definition)
    if not after:
        yield from chosen(archive, definition.where, within)
        return
    new = _studies_after(archive, after)
    for keys, past in ((sorted(again), 0), (sorted(new.difference(again)), after)):
        named = {key: [None] if within is None else within[key] for key in keys if within is None or key in within}
        if named:
            yield from chosen(archive, definition.where, named, past)


def shuffled(view: View, found: Chosen, key: bytes) -> Chosen:
    """Return the same with its studies in an order that only the key knows.

    They come in the order of patients' names, which inode numbers, listings and suffixes of names would tell.
    """

    def order(series: int) -> bytes:
        return hmac.digest(key, b"order\0%d" % view.series(series).study, "sha256")

    return found._replace(series={series: found.series[series] for series in sorted(found.series, key=order)})


def walk(views: Callable[[], View], found: Chosen, layout: Layout) -> Iterator[Lacking]:
    """Walk what was chosen, each series in the order of slices; `views` gives the view to look at."""
    for series, numbers in found.series.items():
        wanted = set(numbers)

        def is_wanted(_: View, ino: int, wanted: set[int] = wanted) -> bool:
            return ino in wanted

        yield from in_order(views, series, 0, layout, is_wanted)


def _listed(archive: Archive, definition: Definition) -> dict[int, list[int | None]] | None:
    """Return the studies that a list names, each with the patients whose instances are meant."""
    if not definition.queries and not definition.source:
        return None
    found: dict[int, list[int | None]] = {}
    for study, patient in sorted(resolve(archive, from_stored(definition.queries)).studies):
        found.setdefault(study, []).append(None if patient == ANY else patient)
    return {study: [None] if None in patients else patients for study, patients in found.items()}


def _studies_after(archive: Archive, after: int) -> set[int]:
    """Return the studies of the instances past a number that have not been replaced."""
    with archive.view() as view:
        series = {inode.series for _, inode in view.not_replaced(after)}
        return {view.series(number).study for number in series}
