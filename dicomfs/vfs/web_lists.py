"""A study's `deduplicated/instances/`: a list for each of its instances, by SOP Instance UID.

The lists lie in the bundles of all the study's series, so what the directory has is put together once and kept: a
listing is asked for in many parts, and each part is then a bisection and a slice.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import documents
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.node import Entry, INode, NotReady
from dicomfs.vfs.shelf import GRACE_S
from dicomfs.vfs.web_directories import DOCUMENTS

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View
    from dicomfs.vfs.shelf import Shelf

_KEPT: Final = 4


class _Listing(NamedTuple):
    """What the directory has, in the order of its cookies, which are the instances' numbers."""

    stamp: str
    since_s: float
    cookies: list[INode]
    entries: list[Entry]


class Lists:
    """These directories of some studies. May be shared by threads."""

    def __init__(self, archive: "Archive", shelf: "Shelf") -> None:
        self._archive = archive
        self._shelf = shelf
        self._lock = threading.Lock()
        self._listings: OrderedDict[int, _Listing] = OrderedDict()

    def entries(self, view: "View", study: int, after: int) -> Iterator[Entry]:
        """Return the entries of a study's directory past `after`; raise NotReady."""
        stamp = documents.study_stamp(view, study)
        listing = self._listings.get(study)
        if listing is None or (listing.stamp != stamp and monotonic() - listing.since_s >= GRACE_S):
            raise NotReady(lambda: self._bring(study))
        return iter(listing.entries[bisect_right(listing.cookies, after) :])

    def _bring(self, study: int) -> None:
        """Put a directory together, from bundles that may have to be made."""
        with self._archive.view() as view:
            stamp = documents.study_stamp(view, study)
            wanted = [
                (series.key, documents.series_stamp(view, series.key))
                for series in view.series_of(study)
                if view.shown(study, series.key)
            ]
        found: dict[str, Entry] = {}
        for series, series_stamp in wanted:
            held = self._shelf.bring("series", series, series_stamp)
            version = held.version
            for name, ino, mtime_ns in held.bundle.cards.names():
                # Where several series have one name, it is the first instance's.
                if name not in found or ino < found[name][-1]:
                    extent = held.bundle.get((DOCUMENTS[web.INSTANCE, web.LIST], ino))
                    document = web.inode(web.INSTANCE, ino, web.LIST, version)
                    found[name] = (
                        f"{name}.gz".encode(), document, False, extent.size if extent else -1, mtime_ns, 1, ino
                    )  # fmt: skip
        there = (entry for entry in found.values() if entry[3] >= 0)
        entries = sorted(there, key=lambda entry: entry[-1])
        with self._lock:
            self._listings[study] = _Listing(stamp, monotonic(), [entry[-1] for entry in entries], entries)
            self._listings.move_to_end(study)
            while len(self._listings) > _KEPT:
                self._listings.popitem(last=False)
