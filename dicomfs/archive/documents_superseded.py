"""The bundle of a superseded list: the deduplicated list that a study had before it was last changed.

It is made when somebody asks for it: most never are. Instances that are shown still come from their series' bundles,
others are read. It has what instances were, and not what it told of its own history.
"""

from __future__ import annotations

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
        numbers = documents_history.history(view, number).before
        shown = {ino: view.instance_inode(ino).series for ino in numbers if view.past(ino) is None}
    listing = _Listing(archive, cache, shown)
    instances = [
        list_piece((listing.instance(ino) for ino in batch), b"", first=False) for batch in batches(sorted(numbers))
    ]
    with BundleWriter(path) as writer:
        info = deduplicated.info(listing.own)
        writer.name = info.hash
        writer.add_list("list", _pieces(info, listing.objects, instances))
        writer.commit()
    return path


def _pieces(info: Object, objects: dict[str, Object], instances: list[ListPiece]) -> Iterator[ListPiece]:
    texts = [deduplicated.at_depth(one.text, 1) for one in objects.values()]
    yield list_piece([info.text, *texts], b"", first=True)
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
