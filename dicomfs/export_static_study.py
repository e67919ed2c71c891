"""One study as static DICOMweb: from the documents of the drive's `dicomweb` to the files that static-wado reads.

    studies/<ST>/  index.json.gz thumbnail
      bulkdata/<h0-2>/<h2-4>/<h4->.mht.gz         values
      bulkdata/<h0-3>/<h3-5>/<h5->.json.gz        patient, study, series and image objects
      deduplicated/index.json.gz
      series/index.json.gz
        <SE>/  metadata.gz series-singleton.json.gz thumbnail
          instances/index.json.gz
            <SOP>/  metadata.gz thumbnail frames/<n>.mht[.gz] rendered/index.pdf|mp4
    deduplicated/<ST>/<hash>.gz

A way to bulk data (BulkDataURI) leads from the document that has it, in lists from the directory of the series.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from dicomfs.archive import deduplicated, documents, documents_gzip, documents_history, static_queries
from dicomfs.archive.bundle import NO_HASH
from dicomfs.archive.documents_instance import Kept
from dicomfs.archive.documents_series import CHANGED, number_order
from dicomfs.errors import Damaged, DicomfsError
from dicomfs.export import FileResult, Outcome, failure
from dicomfs.export_static_lists import Lists, remove
from dicomfs.export_static_target import Expected, Target, Texts, array
from dicomfs.export_view import pieces
from dicomfs.vfs import composed, static_files
from dicomfs.vfs import web_instance as instances
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.web_numbers import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.bundle import Bundle, Card
    from dicomfs.archive.catalog import Patient, Study
    from dicomfs.archive.parts import Parts
    from dicomfs.dicom.model import BulkValue
    from dicomfs.vfs.node import OpenFile
    from dicomfs.vfs.shelf import Shelf

Task: TypeAlias = "Callable[[], FileResult]"
"""Something to be done by any thread."""

_PIXELS: Final = ("7FE00010", "7FE00008", "7FE00009")
_STEP: Final = 1 << 20
_FRAME: Final = re.compile(r"([0-9]+)\.mht(?:\.gz)?").fullmatch
_WHOLE: Final = {"pdf": "index.pdf", "video": "index.mp4"}


class _Series(NamedTuple):
    key: int
    name: str
    stamp: str
    mtime_ns: int


class _Value(NamedTuple):
    """A bulk value and the name of its file below the study's directory."""

    value: BulkValue
    name: str


class _Instance(NamedTuple):
    """An instance in the documents that are written of it."""

    metadata: str
    """Its JSON object in its own document."""
    in_series: str
    """The same in its series' documents."""
    query: str
    values: tuple[_Value, ...]


class StudyExport:
    """One study on its way. Belongs to one thread; what `tasks` yields may be done by several."""

    def __init__(self, archive: Archive, shelf: Shelf, target: Target, number: int) -> None:
        """Look at a study; raise NotFound."""
        self._archive = archive
        self._shelf = shelf
        self._target = target
        with archive.view() as view:
            self._study: Study = view.study(number)
            self._patient: Patient = view.patient(self._study.patient)
            series = [found for found in view.series_of(number) if view.shown(number, found.key)]
            series.sort(key=lambda found: (number_order(found.attributes, "SeriesNumber"), found.key))
            self._series = [
                _Series(
                    found.key,
                    documents.directory_name(str(found.attributes.get("SeriesInstanceUID", ""))),
                    documents.series_stamp(view, found.key),
                    found.mtime_ns,
                )
                for found in series
            ]
            history = documents_history.history(view, number)
        self.name = documents.directory_name(str(self._study.attributes["StudyInstanceUID"]))
        self._place = f"studies/{self.name}"
        self._lists = Lists(target, self.name, history, self._earlier)
        self._values: set[str] = set()
        """Names of the values' files."""
        self._queries: list[str] = []
        self._first: dict[str, str] | None = None
        self._instances = 0
        self._middles: list[tuple[int, bool]] = []

    def tasks(self) -> Iterator[Task | None]:
        """Yield what is to be done; what comes after a None needs all that came before it."""
        try:
            for series in self._series:
                yield from self._one_series(series)
            yield None
            if self._first is not None:
                yield from self._documents()
                yield None
            yield from self._removals()
        finally:
            self._lists.close()

    def _documents(self) -> Iterator[Task]:
        assert self._first is not None
        mtime_ns = self._study.mtime_ns
        query = static_queries.study(self._study, self._patient, len(self._queries), self._instances, self._first)
        yield from self._lists.tasks()
        yield self._text(f"{self._place}/series/index.json.gz", mtime_ns, f"[{','.join(self._queries)}]")
        shown = [ino for ino, has_frames in self._middles if has_frames] or [ino for ino, _ in self._middles]
        if shown:
            yield self._picture(f"{self._place}/thumbnail", mtime_ns, shown[len(shown) // 2])
        # Whoever finds this document finds the others.
        yield self._text(f"{self._place}/index.json.gz", mtime_ns, f"[{query}]")

    # Series -----------------------------------------------------------------------------------------

    def _one_series(self, series: _Series) -> Iterator[Task | None]:
        bundle = self._shelf.bring("series", series.key, series.stamp).bundle
        bundle.remember()
        place = f"{self._place}/series/{series.name}"
        metadata, index = Texts(self._target.root), Texts(self._target.root)
        first: dict[str, str] | None = None
        count = 0
        try:
            for card in bundle.cards:
                below = f"{place}/instances/{card.name}"
                try:
                    told = self._told(bundle, card)
                except CHANGED as error:
                    reason = str(error) if isinstance(error, DicomfsError) else "its documents cannot be read"
                    yield partial(FileResult, f"{below}/metadata.gz", Outcome.FAILED, reason, 0)
                    continue
                whole = deduplicated.elements(told.in_series)
                first = first or whole
                count += 1
                metadata.add(told.in_series)
                index.add(static_queries.instance(told.query, whole))
                yield from self._lists.add(card.ino, whole)
                yield from self._files(card, told, below)
            if first is None:
                return
            self._first = self._first or first
            self._instances += count
            query = static_queries.series(str(bundle.document(("query", 0)), "utf-8"), count, first)
            self._queries.append(query)
            middle = bundle.cards.of(bundle.middle)
            if middle is not None:
                self._middles.append((middle.ino, middle.frames > 0))
                yield self._picture(f"{place}/thumbnail", series.mtime_ns, middle.ino)
            yield None
            for texts in (metadata, index):
                texts.flush()
            yield self._array(f"{place}/metadata.gz", series.mtime_ns, metadata)
            yield self._text(f"{place}/series-singleton.json.gz", series.mtime_ns, f"[{query}]")
            yield self._array(f"{place}/instances/index.json.gz", series.mtime_ns, index)
            yield None
        finally:
            metadata.close()
            index.close()
        yield from self._gone(f"{place}/instances", {card.name for card in bundle.cards})
        for card in bundle.cards:
            yield from self._other_frames(card, f"{place}/instances/{card.name}")

    def _told(self, bundle: Bundle, card: Card) -> _Instance:
        """Return what an instance's documents say; raise one of CHANGED."""
        if card.damaged:
            raise Damaged("its header cannot be read, so it is in no document; run dicomfs check --verify-files")
        kept = Kept(bundle, card.ino)
        return self._ways(card, kept.pieces(), bundle.cards.hashes(card.ino)[1], kept.query)

    def _earlier(self, ino: int) -> dict[str, str]:
        """Return the elements of a version that is shown no more, as lists have them; none if it cannot be read."""
        told = documents_history.tell(self._archive, ino)
        if told is None:
            return {}
        try:
            return deduplicated.elements(self._ways(told.card, told.pieces, told.hashes, "").in_series)
        except Damaged:
            return {}

    def _ways(self, card: Card, parts: tuple[str, ...], hashes: tuple[bytes, ...], query: str) -> _Instance:
        """Return an instance whose JSON object is cut where ways to bulk data go; raise Damaged."""
        first, *rest = parts
        own, series = [first], [first]
        values: list[_Value] = []
        pixels = next((tag for tag in _PIXELS if any(value.name == tag for value in card.bulk)), "")
        for piece, value, digest in zip(rest, card.bulk, hashes, strict=True):
            if card.frames and value.name == pixels:
                ways = "./frames", f"./instances/{documents.uri(card.name)}/frames"
            else:
                known = self._hash(card.ino, value) if digest == NO_HASH else digest.hex()
                name = f"bulkdata/{known[:2]}/{known[2:4]}/{known[4:]}{static_files.PACKED}"
                values.append(_Value(value, name))
                ways = f"../../../../{name}", f"../../{name}"
            after = piece.removeprefix(f"bulkdata/{value.name}")
            own += ways[0], after
            series += ways[1], after
        return _Instance("".join(own), "".join(series), query, tuple(values))

    def _hash(self, ino: int, value: BulkValue) -> str:
        """Return the SHA-256 of a value; raise Damaged."""
        file = composed.bulk_file(self._shelf.parts(ino), value)
        digest = sha256()
        for offset in range(0, file.size, _STEP):
            digest.update(file.read(offset, _STEP))
        return digest.hexdigest()

    # Files ------------------------------------------------------------------------------------------

    def _files(self, card: Card, told: _Instance, place: str) -> Iterator[Task]:
        parts = cache(partial(self._shelf.parts, card.ino))
        for number in range(1, card.frames + 1):
            yield partial(self._frame, parts, number, place, card.mtime_ns)
        for value, name in told.values:
            if name not in self._values:
                self._values.add(name)
                yield partial(self._value, parts, value, f"{self._place}/{name}", card.mtime_ns)
        if card.kind in _WHOLE:
            name = f"{place}/rendered/{_WHOLE[card.kind]}"
            yield self._copy(name, card.mtime_ns, Node(web.INSTANCE, card.ino, web.WHOLE, 0))
        yield self._picture(f"{place}/thumbnail", card.mtime_ns, card.ino)
        yield self._text(f"{place}/metadata.gz", card.mtime_ns, f"[{told.metadata}]")

    def _frame(self, parts: Callable[[], Parts], number: int, place: str, mtime_ns: int) -> FileResult:
        below = f"{place}/frames/{number}"
        try:
            suffix = static_files.frame_suffix(parts())
            below += suffix
            file = static_files.frame_file(parts(), number, self._archive.settings.boundary, f"{number}{suffix}")
            packed = suffix == static_files.PACKED
            found = self._wrapped(below, mtime_ns, file, packed=packed, is_known=False)
            # The same instance may have come back in another transfer syntax.
            other = static_files.PLAIN if packed else static_files.PACKED
            with suppress(FileNotFoundError):
                self._target.remove(f"{place}/frames/{number}{other}")
            return found
        except (DicomfsError, OSError) as error:
            return failure(below, 0, error)

    def _value(self, parts: Callable[[], Parts], value: BulkValue, below: str, mtime_ns: int) -> FileResult:
        try:
            name = below.rpartition("/")[2]
            file = static_files.value_file(parts(), value, self._archive.settings.boundary, name)
            return self._wrapped(below, mtime_ns, file, packed=True, is_known=True)
        except (DicomfsError, OSError) as error:
            return failure(below, 0, error)

    def _wrapped(
        self, below: str, mtime_ns: int, file: composed.Composed, *, packed: bool, is_known: bool
    ) -> FileResult:
        """Write a multipart file; one that `is_known` by its name may be of any time."""
        size, unpacked = (None, file.size) if packed else (file.size, None)

        def data() -> Iterator[bytes | memoryview]:
            plain = pieces(file, file.size)
            return documents_gzip.packed(plain) if packed else plain

        try:
            return self._target.file(below, mtime_ns, Expected(None if is_known else mtime_ns, size, unpacked), data)
        finally:
            file.close()

    def _picture(self, below: str, mtime_ns: int, ino: int) -> Task:
        return self._copy(below, mtime_ns, Node(web.INSTANCE, ino, web.THUMBNAIL, 0))

    def _copy(self, below: str, mtime_ns: int, node: Node) -> Task:
        """Write a file as the drive has it."""

        def copy() -> FileResult:
            try:
                file: OpenFile = instances.open_file(self._shelf, self._archive, node)
                try:
                    expected = Expected(mtime_ns, file.size)
                    return self._target.file(below, mtime_ns, expected, lambda: pieces(file, file.size))
                finally:
                    file.close()
            except (DicomfsError, OSError) as error:
                return failure(below, 0, error)

        return copy

    def _text(self, below: str, mtime_ns: int, text: str) -> Task:
        return self._document(below, mtime_ns, lambda: iter((documents_gzip.member(text),)))

    def _array(self, below: str, mtime_ns: int, texts: Texts) -> Task:
        return self._document(below, mtime_ns, partial(array, texts))

    def _document(self, below: str, mtime_ns: int, data: Callable[[], Iterator[bytes | memoryview]]) -> Task:
        def write() -> FileResult:
            try:
                return self._target.document(below, mtime_ns, data())
            except OSError as error:
                return failure(below, 0, error)

        return write

    # What is gone -----------------------------------------------------------------------------------

    def _removals(self) -> Iterator[Task]:
        yield from self._gone(f"{self._place}/series", {series.name for series in self._series})
        yield from self._lists.removals(self._values)

    def _gone(self, directory: str, names: set[str]) -> Iterator[Task]:
        """Remove the directories of what is not there any more; other files are others' business."""
        for name in self._target.names(directory):
            if name not in names and self._target.is_directory(f"{directory}/{name}"):
                yield partial(remove, self._target, f"{directory}/{name}")

    def _other_frames(self, card: Card, place: str) -> Iterator[Task]:
        """Remove frames that were there before and are no more."""
        for name in self._target.names(f"{place}/frames"):
            number = _FRAME(name)
            if number is not None and int(number[1]) > card.frames:
                yield partial(remove, self._target, f"{place}/frames/{name}")
