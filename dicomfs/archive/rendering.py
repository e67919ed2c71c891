"""Make the documents and pictures of an archive before anybody asks for them.

    series ── its bundle ─▶ its cards say which pictures there are ─▶ pictures
    study  ── its bundle, when those of its series are there ─▶ the list of all studies, last

What is there already is not made again, so that one that was interrupted goes on where it was.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from dicomfs.archive import documents, pictures
from dicomfs.archive.archive import Archive
from dicomfs.archive.bundle import Bundle, Card
from dicomfs.archive.catalog import View
from dicomfs.archive.makers import Job, Makers
from dicomfs.archive.outcome import Progress
from dicomfs.errors import Damaged, DicomfsError, NotFound, Refused, StorageFull

Show: TypeAlias = Callable[[Progress], None]

_AHEAD: Final = 4
"""How many jobs for each process are asked for at once."""
_TOLD: Final = 1000
"""How many failures are kept in words."""


@dataclass(slots=True)
class RenderReport:
    """The sums of one run."""

    documents: int = 0
    """Bundles of documents that are there now: one for each series and study, and the list of studies."""
    pictures: int = 0
    made: int = 0
    """How many of both were not there before."""
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """What was wrong with each of the first of them."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Study:
    key: int
    series: tuple[int, ...]
    instances: int


def render(
    archive_path: Path,
    *,
    study_uid: str | None = None,
    rendered: bool = False,
    jobs: int = 0,
    progress: Show | None = None,
) -> RenderReport:
    """Make the documents and thumbnails of all studies, or of one, and their frames' pictures with `rendered`.

    `jobs` is the number of processes, 0 for one for each CPU. Raises NotFound where there is no such study, and
    StorageFull where the archive's cache cannot be written.
    """
    started = time.monotonic()
    with Archive.open(archive_path) as archive:
        studies = _studies(archive, study_uid)
        most = jobs or os.cpu_count() or 1
        makers = Makers(archive_path, archive_path / "cache", most)
        run = _Run(archive, makers, most, progress)
        try:
            run.all(studies, rendered=rendered)
        finally:
            makers.close()
    run.report.seconds = time.monotonic() - started
    return run.report


def _studies(archive: Archive, study_uid: str | None) -> list[_Study]:
    with archive.view() as view:
        if study_uid is None:
            keys = [study.key for study in view.studies()]
        else:
            key = view.study_with_uid(study_uid)
            if key is None:
                raise NotFound(f"no study has the Study Instance UID {study_uid}")
            keys = [key]
        found = []
        for key in keys:
            series = tuple(series.key for series in view.series_of(key))
            found.append(_Study(key, series, view.shown(key)))
    return found


class _Run:
    """One run: jobs are given out in order, a few at a time."""

    def __init__(self, archive: Archive, makers: Makers, most: int, progress: Show | None) -> None:
        self.report = RenderReport()
        self._archive = archive
        self._cache = archive.path / "cache"
        self._makers = makers
        self._most = most
        self._progress = progress
        self._done = 0
        self._total = 0
        self._asked: deque[tuple[Job, Future[None]]] = deque()

    def all(self, studies: list[_Study], *, rendered: bool) -> None:
        """Make everything."""
        self._total = 1 + sum(1 + len(study.series) + study.instances for study in studies)
        for study in studies:
            for number in study.series:
                self._document("series", number)
        self._wait()
        for study in studies:
            for number in study.series:
                for card in self._cards(number):
                    self._pictures(card, rendered=rendered)
            self._document("study", study.key)
        self._wait()
        self._document("studies", documents.STUDIES)
        self._wait()

    def _document(self, kind: str, number: int) -> None:
        self.report.documents += 1
        path = self._path(kind, number)
        self._ask((kind, () if kind == "studies" else (number,)), there=path is None or path.exists())

    def _path(self, kind: str, number: int) -> Path | None:
        """Return where a bundle is if it is not out of date; None where the archive has lost what it is about."""
        stamps: dict[str, Callable[[View], str]] = {
            "series": lambda view: documents.series_stamp(view, number),
            "study": lambda view: documents.study_stamp(view, number),
            "studies": documents.studies_stamp,
        }
        with self._archive.view() as view:
            try:
                return documents.path(self._cache, kind, number, stamps[kind](view))
            except NotFound:
                return None

    def _cards(self, number: int) -> Iterable[Card]:
        """Return what is to be known of a series' instances; nothing where its bundle could not be made."""
        path = self._path("series", number)
        try:
            return () if path is None else Bundle.open(path).cards
        except (FileNotFoundError, Damaged):
            return ()

    def _pictures(self, card: Card, *, rendered: bool) -> None:
        self._picture((card.ino, pictures.middle(card.frames), pictures.THUMBNAIL), pictures.THUMBNAIL_BYTES)
        if not rendered:
            return
        size = pictures.rendered_bytes(card.rows, card.columns, card.colour)
        self._total += card.frames
        for frame in range(1, card.frames + 1):
            promised = (card.rows, card.columns, int(card.colour))
            self._picture((card.ino, frame, pictures.RENDERED, *promised), size)

    def _picture(self, args: tuple[int, ...], size: int) -> None:
        self.report.pictures += 1
        ino, frame, kind = args[:3]
        self._ask(("picture", args), there=pictures.is_made(pictures.path(self._cache, ino, frame, kind), size))

    def _ask(self, job: Job, *, there: bool) -> None:
        """Have a job done, when those before it are on their way."""
        if there:
            self._step()
            return
        while len(self._asked) >= self._most * _AHEAD:
            self._finish()
        self._asked.append((job, self._makers.submit(job)))

    def _wait(self) -> None:
        while self._asked:
            self._finish()

    def _finish(self) -> None:
        """Wait for the oldest job. A disk that is full concerns all of them."""
        job, future = self._asked.popleft()
        try:
            future.result()
            self.report.made += 1
        except (StorageFull, Refused):
            raise
        except DicomfsError as error:
            self.report.failed += 1
            if len(self.report.failures) < _TOLD:
                name, args = job
                about = (
                    f"instance {args[0]}, frame {args[1]}" if name == "picture" else " ".join([name, *map(str, args)])
                )
                self.report.failures.append(f"{about}: {error}")
        self._step()

    def _step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(Progress(self._done, max(self._total, self._done), 0, 0))
