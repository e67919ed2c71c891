"""The bundle of superseded lists: the deduplicated lists that a study had before it was changed.

They are made when somebody asks for one: most never are. Instances that are shown still come from the bundles of their
series, others are read. A list has what instances were, and not what it told of its own history.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from dicomfs.archive import bundle_writing, deduplicated, documents, documents_history, documents_series
from dicomfs.archive.bundle import Bundle
from dicomfs.archive.bundle_writing import BundleWriter
from dicomfs.archive.documents_instance import Kept
from dicomfs.archive.documents_series import batches, list_end, list_piece
from dicomfs.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.bundle_writing import ListPiece
    from dicomfs.archive.deduplicated import Object


def make(archive: Archive, cache: Path, number: int) -> Path:
    """Make the bundle if it is not there; raise NotFound or StorageFull."""
    with archive.view() as view:
        path = documents.path(cache, "superseded", number, documents.study_stamp(view, number))
        if bundle_writing.is_there(path):
            return path
        lists = documents_history.history(view, number).lists
        shown = {ino: view.instance_inode(ino).series for ino in chain(*lists) if view.past(ino) is None}
    with BundleWriter(path) as writer:
        for at, numbers in enumerate(lists):
            writer.add_list("list", _list(_Listing(archive, cache, shown), numbers), at)
        writer.commit()
    return path


def _list(listing: _Listing, numbers: tuple[int, ...]) -> Iterator[ListPiece]:
    instances = [list_piece(map(listing.instance, batch), b"", first=False) for batch in batches(numbers)]
    texts = [deduplicated.at_depth(one.text, 1) for one in listing.objects.values()]
    yield list_piece([deduplicated.info(listing.own).text, *texts], b"", first=True)
    yield from instances
    yield list_end(empty=False)


class _Listing:
    """A list in the making. `shown` are the series of instances that are shown still."""

    def __init__(self, archive: Archive, cache: Path, shown: dict[int, int]) -> None:
        self._archive = archive
        self._cache = cache
        self._shown = shown
        self._bundle: tuple[int, Bundle] | None = None
        self.own: list[str] = []
        """The DeduppedHash of each instance."""
        self.objects: dict[str, Object] = {}
        """What they refer to, by hash."""

    def instance(self, ino: int) -> str:
        """Return an instance's text as it is in the list."""
        objects = self._told(ino)
        for one in objects[:-1]:
            self.objects.setdefault(one.hash, one)
        self.own.append(objects[-1].hash)
        return deduplicated.at_depth(objects[-1].text, 1)

    def _told(self, ino: int) -> tuple[Object, ...]:
        series = self._shown.get(ino)
        if series is None:
            told = documents_history.tell(self._archive, ino)
            if told is None:
                raise Damaged(f"instance {ino} cannot be read any more, so its list cannot be made")
            return told.objects
        if self._bundle is None or self._bundle[0] != series:
            path = documents_series.make(self._archive, self._cache, series)
            self._bundle = series, Bundle.open(path)
        return tuple(map(deduplicated.plain, Kept(self._bundle[1], ino).objects()))
