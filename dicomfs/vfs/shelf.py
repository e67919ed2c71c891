"""What the DICOMweb tree has at hand: bundles of documents, instances taken apart, pictures.

Bundles and pictures lie in the archive's cache/, or in that of the earlier state that is shown; where that cannot be
written, in a directory of this process that goes with it. What is not there is made by other processes
(archive/makers.py), on demand.
"""

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import documents, pictures
from dicomfs.archive.bundle import Bundle
from dicomfs.archive.makers import Makers
from dicomfs.archive.parts import Parts
from dicomfs.errors import Damaged, StorageFull
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.node import NotReady
from dicomfs.vfs.plain import DiskFile

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View

_BUNDLES: Final = 256
_ASIDE: Final = "-again"
_PARTS: Final = 32
PARTS_MEMORY: Final = 1 << 28
"""So many bytes the instances taken apart may keep, but for the last one: some are deflated, or all header."""
_ATTEMPTS: Final = 3
GRACE_S: Final = 0.5
"""A bundle that is out of date is good enough for so long after it was made: an import that commits all the time
must not keep everybody from seeing anything."""


class Held(NamedTuple):
    """A bundle, the stamp that it was made for, and when it was opened."""

    bundle: Bundle
    stamp: str
    since_s: float

    @property
    def version(self) -> int:
        """What the inode numbers of its documents say: another one for other contents."""
        return web.version(f"{self.stamp}.{self.bundle.crc32:x}")


class Shelf:
    """What the tree needs of one archive. May be shared by threads."""

    def __init__(self, archive: "Archive") -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._bundles: OrderedDict[tuple[str, int], Held] = OrderedDict()
        self._parts: OrderedDict[int, Parts] = OrderedDict()
        self._cache: Path | None = None
        self._own: Path | None = None
        self._state: Path | None = None
        """The earlier state that the makers read, if it is one."""
        self._makers: Makers | None = None
        self._tried: set[tuple[str, int]] = set()
        """Bundles (kind, number) that were made anew because something was missing from them."""
        self._outdated: set[tuple[str, int]] = set()

    def series(self, view: "View", number: int) -> Held:
        """Return the bundle of a series; raise NotReady."""
        return self.held("series", number, documents.series_stamp(view, number))

    def study(self, view: "View", number: int) -> Held:
        """Return the bundle of a study; raise NotReady."""
        return self.held("study", number, documents.study_stamp(view, number))

    def superseded(self, view: "View", number: int) -> Held:
        """Return the bundle of the lists that a study had before it was changed; raise NotReady."""
        return self.held("superseded", number, documents.study_stamp(view, number))

    def studies(self, view: "View") -> Held:
        """Return the bundle of the list of all studies; raise NotReady."""
        return self.held("studies", documents.STUDIES, documents.studies_stamp(view))

    def held(self, kind: str, number: int, stamp: str) -> Held:
        """Return the bundle of a kind and number, that of the stamp or one not much older; raise NotReady."""
        found = self._bundles.get((kind, number))
        if found is not None and found.stamp == stamp:
            return found
        if found is not None and monotonic() - found.since_s < GRACE_S:
            with self._lock:
                self._outdated.add((kind, number))
            return found
        raise NotReady(lambda: self.bring(kind, number, stamp))

    def outdated(self) -> set[tuple[str, int]]:
        """Return what bundles (kind, number) were handed out since the last call though a commit made them untrue."""
        with self._lock:
            found, self._outdated = self._outdated, set()
        return found

    def bring(self, kind: str, number: int, stamp: str) -> Held:
        """Open a bundle, made anew if it has to be; wait as long as it takes."""
        found = self._bundles.get((kind, number))
        if found is not None and found.stamp == stamp:
            return found
        cache, makers = self.ready()
        try:
            bundle = Bundle.open(documents.path(cache, kind, number, stamp))
            if bundle.missing and (kind, number) not in self._tried:
                self._try_again(cache, kind, number, stamp)
                bundle = Bundle.open(documents.path(cache, kind, number, stamp))
        except (FileNotFoundError, Damaged):
            makers.make((kind, () if kind == "studies" else (number,)))
            bundle, stamp = _newest(documents.path(cache, kind, number, stamp), len(stamp))
        found = Held(bundle, stamp, monotonic())
        with self._lock:
            self._bundles[kind, number] = found
            self._bundles.move_to_end((kind, number))
            while len(self._bundles) > _BUNDLES:
                self._bundles.popitem(last=False)
        return found

    def _try_again(self, cache: Path, kind: str, number: int, stamp: str) -> None:
        """Put aside a bundle from which an instance is missing, once: the pack that has it may be back."""
        self._tried.add((kind, number))
        aside = [documents.path(cache, kind, number, stamp)]
        if kind == "study":
            with self._archive.view() as view:
                for series in view.series_of(number):
                    path = documents.path(cache, "series", series.key, documents.series_stamp(view, series.key))
                    with suppress(FileNotFoundError, Damaged):
                        if Bundle.open(path).missing and ("series", series.key) not in self._tried:
                            self._tried.add(("series", series.key))
                            aside.append(path)
        for path in aside:
            with suppress(OSError):  # what is whole in it is taken over
                path.rename(path.with_name(f"{path.name}{_ASIDE}"))

    def parts(self, ino: int) -> Parts:
        """Return an instance taken apart; wait as long as it takes. Raise NotFound or Damaged."""
        found = self._parts.get(ino)
        if found is None:
            found = Parts.open(self._archive, ino)
            with suppress(Damaged):  # which concerns who asks for the frames
                _ = found.frames  # found here, where nobody else waits
            self._keep(ino, found)
        return found

    def holds(self, ino: int) -> bool:
        """Say whether an instance is taken apart already."""
        return ino in self._parts

    def parts_ready(self, ino: int) -> Parts | None:
        """Return the same if nothing has to be waited for, else None. For one thread only."""
        found = self._parts.get(ino)
        if found is None:
            found = Parts.open_ready(self._archive, ino)
            if found is not None:
                self._keep(ino, found)
        return found

    def _keep(self, ino: int, parts: Parts) -> Parts:
        with self._lock:
            self._parts[ino] = parts
            memory = sum(one.memory for one in self._parts.values())
            while len(self._parts) > _PARTS or (memory > PARTS_MEMORY and len(self._parts) > 1):
                _, oldest = self._parts.popitem(last=False)
                memory -= oldest.memory
        return parts

    def make_picture(self, job: tuple[int, ...]) -> None:
        """Make the picture of a job (`pictures.make`) if it is not there; wait as long as it takes."""
        if not self._has_picture(job):
            self.ready()[1].make(("picture", job))
            if not self._has_picture(job):
                raise Damaged("a picture that was made is not in the cache")

    def _has_picture(self, job: tuple[int, ...]) -> bool:
        return pictures.is_made(pictures.path(self.ready()[0], *job[:3]), _picture_bytes(job))

    def picture_ready(self, job: tuple[int, ...]) -> DiskFile | None:
        """Open a picture if it is made already."""
        if self._cache is None:
            return None
        try:
            file = DiskFile(str(pictures.path(self._cache, *job[:3])))
        except OSError:
            return None
        if file.size != _picture_bytes(job):  # cut off by a power failure, or of another header
            file.close()
            return None
        return file

    def ready(self) -> tuple[Path, Makers]:
        """Return the directory to write to, and those who write there."""
        former = None
        with self._lock:
            if self._makers is None or self._cache is None or self._state != self._archive.state:
                former, self._state = self._makers, self._archive.state
                self._cache = self._place()
                self._makers = Makers(self._archive.path, self._cache, state=self._state)
            found = self._cache, self._makers
        if former is not None:
            former.close()
        return found

    def _place(self) -> Path:
        """Return a directory to write to: the archive's cache, or one of our own."""
        cache = self._archive.cache
        try:
            cache.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache):
                return cache
        except OSError:
            pass
        if self._own is not None:
            return self._own
        try:
            self._own = Path(tempfile.mkdtemp(prefix="dicomfs-cache-"))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise StorageFull(
                f"there is no place for documents: neither {cache} nor a temporary one: {reason}"
            ) from error
        return self._own

    def forget(self) -> None:
        """Drop what is at hand, as the archive's index is another one."""
        with self._lock:
            self._bundles.clear()
            self._parts.clear()
            self._tried.clear()

    def close(self) -> None:
        """End the processes, and remove what is ours."""
        if self._makers is not None:
            self._makers.close()
        self.forget()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)


def _newest(path: Path, stamp_length: int) -> tuple[Bundle, str]:
    """Open the bundle at `path`, or the one that was made in its place: the catalog may have gone on in between."""
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            return Bundle.open(path), path.name[-stamp_length:]
        prefix = path.name[:-stamp_length]
        with os.scandir(path.parent) as entries:
            for entry in entries:
                if entry.name.startswith(prefix):
                    path, stamp_length = Path(entry.path), len(entry.name) - len(prefix)
    raise Damaged("a document that was made is not in the cache")


def _picture_bytes(job: tuple[int, ...]) -> int:
    """Return how long the picture of a job is."""
    if job[2] == pictures.THUMBNAIL:
        return pictures.THUMBNAIL_BYTES
    rows, columns, colour = job[3:]
    return pictures.rendered_bytes(rows, columns, bool(colour))
