"""The bundle of a study: its query documents, the metadata of all its series, and its deduplicated list.

Everything comes from the bundles of its series, which are made first where they are not there; no header is read
for it. The deflated pieces of the two long lists are taken over from the bundle before it, as in a series.
"""

from __future__ import annotations

import contextlib
import json
import os
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import (
    bundle_writing,
    deduplicated,
    documents,
    documents_gzip,
    documents_history,
    documents_query,
    documents_series,
)
from dicomfs.archive.bundle import NO_HASH, Bundle
from dicomfs.archive.bundle_writing import BundleWriter, ListPiece
from dicomfs.archive.deduplicated import Object
from dicomfs.archive.documents_history import Earlier, History
from dicomfs.archive.documents_instance import Kept
from dicomfs.archive.documents_series import CHANGED, batches, digest, list_end, list_piece, number_order, taken_over
from dicomfs.errors import Damaged, Locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View

_ATTEMPTS: Final = 16
"""So often a study may change while it is written down."""
_OBJECT_DEPTH: Final = 3
"""bulkdata/<h0-3>/<h3-5>/<h5->.json.gz"""
_TYPES: Final = tuple(kind for kind, _ in deduplicated.GROUPS)


class _State(NamedTuple):
    """A study as one commit shows it."""

    stamp: str
    query: str
    series: tuple[tuple[int, str], ...]
    """Number and directory's name of each that has instances, by SeriesNumber, then by number."""
    history: History


class _Series(NamedTuple):
    """A series whose bundle is there."""

    path: Path
    name: str
    instances: tuple[tuple[int, str], ...]
    """Inode number and directory's name of those that are in its documents."""


def make(archive: Archive, cache: Path, number: int) -> Path:
    """Make a study's bundle and those of its series if they are not there; raise NotFound, StorageFull or Locked."""
    remade = False
    for _ in range(_ATTEMPTS):
        with archive.view() as view:
            path = documents.path(cache, "study", number, documents.study_stamp(view, number))
            if bundle_writing.is_there(path):
                return path
            now = _state(view, number)
        before = bundle_writing.before(path)
        paths = [documents_series.make(archive, cache, series) for series, _ in now.series]
        try:
            with BundleWriter(path) as writer:
                _Maker(archive, now, paths, before, writer).run()
                with archive.view() as view:
                    same = documents.study_stamp(view, number) == now.stamp
                # A series that changed meanwhile belongs to the study's next stamp.
                if same:
                    writer.commit()
                    return path
        except FileNotFoundError:
            continue  # another process made that series anew
        except CHANGED as error:
            if remade:
                raise Damaged(f"{path}: cannot be made from the bundles of its series") from error
            # Somebody's hand or a failing disk was at what these are made from.
            for spoiled in [*paths, *([] if before is None else [before.path])]:
                with contextlib.suppress(OSError):
                    os.unlink(spoiled)
            remade = True
    raise Locked("a study changes faster than its documents can be made; ask again when its import is done")


def _state(view: View, number: int) -> _State:
    study = view.study(number)
    series = [found for found in view.series_of(number) if view.shown(number, found.key)]
    series.sort(key=lambda found: (number_order(found.attributes, "SeriesNumber"), found.key))
    return _State(
        documents.study_stamp(view, number),
        documents_query.study(study, view.patient(study.patient), len(series), view.shown(number)),
        tuple(
            (found.key, documents.directory_name(str(found.attributes.get("SeriesInstanceUID", ""))))
            for found in series
        ),
        documents_history.history(view, number),
    )


class _Maker:
    """One bundle in the making; one series' bundle is open at a time."""

    def __init__(
        self, archive: Archive, now: _State, paths: list[Path], before: Bundle | None, writer: BundleWriter
    ) -> None:
        self._now = now
        self._earlier = Earlier(archive, before)
        self._paths = paths
        self._before = before
        self._pieces = {} if before is None else before.pieces()
        self._writer = writer
        self._series: list[_Series] = []
        self._queries: list[str] = []
        self._own: dict[int, str] = {}
        """The DeduppedHash of each instance."""
        self._replaced: dict[str, set[str]] = {}
        """The hashes of those in whose place an object is, by its own."""
        self._objects: dict[str, dict[str, str]] = {kind: {} for kind in _TYPES}
        """Texts by type and hash."""
        self._middles: list[tuple[int, bool]] = []

    def run(self) -> None:
        writer = self._writer
        for path, (_, name) in zip(self._paths, self._now.series, strict=True):
            with Bundle.open(path) as bundle:
                self._look_at(bundle, path, name)
        info = self._info()
        writer.name = info.hash
        writer.add(("study", 0), documents_gzip.member(f"[{self._now.query}]"))
        writer.add(("series", 0), documents_gzip.member(f"[{','.join(self._queries)}]"))
        writer.add_list("metadata", self._metadata())
        writer.add_list("deduplicated", self._deduplicated("deduplicated", 0, info))
        writer.add_list("list", self._deduplicated("list", 1, info))
        for one in self._all_objects():
            document = documents_gzip.member(deduplicated.at_depth(one.text, _OBJECT_DEPTH))
            writer.add_object(bytes.fromhex(one.hash), document)
        told = {*self._now.history.deleted, *chain(*self._now.history.lists)} - self._own.keys()
        if told:
            writer.add(("past", 0), self._earlier.record(told))
        shown = [ino for ino, has_frames in self._middles if has_frames] or [ino for ino, _ in self._middles]
        writer.middle = shown[len(shown) // 2] if shown else 0

    def _look_at(self, bundle: Bundle, path: Path, name: str) -> None:
        """Take from a series' bundle what there is once."""
        instances: list[tuple[int, str]] = []
        for card in bundle.cards:
            if card.damaged:
                self._writer.missing = True
                continue
            instances.append((card.ino, card.name))
            own, hashes = bundle.cards.hashes(card.ino)
            self._own[card.ino] = own.hex()
            for value, known in zip(card.bulk, hashes, strict=True):
                if known != NO_HASH:
                    self._writer.add_value(known, card.ino, value)
        self._series.append(_Series(path, name, tuple(instances)))
        self._queries.append(str(bundle.document(("query", 0)), "utf-8"))
        for known, kind, text, replaced in json.loads(bytes(bundle.document(("objects", 0)))):
            self._objects[kind].setdefault(known, text)
            self._replaced.setdefault(known, set()).update(replaced)
        self._earlier.learn(bundle)
        middle = bundle.cards.of(bundle.middle)
        if middle is not None:
            self._middles.append((middle.ino, middle.frames > 0))

    def _metadata(self) -> Iterator[ListPiece]:
        first = True
        for series in self._series:
            place = f"series/{documents.uri(series.name)}/instances/"
            names = dict(series.instances)

            def text(kept: Kept, ino: int, place: str = place, names: dict[int, str] = names) -> str:
                return f"{place}{documents.uri(names[ino])}/".join(kept.pieces())

            for piece in self._list("metadata", series, text, first=first):
                first = False
                yield piece
        yield list_end(empty=first)

    def _all_objects(self) -> Iterator[Object]:
        """Yield what instances refer to, with its history."""
        for kind, objects in self._objects.items():
            for known, text in objects.items():
                yield deduplicated.replacing(Object(kind, known, text), sorted(self._replaced[known]))

    def _info(self) -> Object:
        """Return the object that stands for the list, with its history."""
        history = self._now.history
        deleted = sorted(filter(None, map(self._own_hash, history.deleted)))
        lists = [list(map(self._own_hash, listed)) for listed in history.lists]
        # Of what cannot be read nobody knows the lists that it was in.
        names = [deduplicated.info(listed).hash if all(listed) else "" for listed in lists]
        if names:
            self._writer.add(("superseded", 0), json.dumps(names).encode())
        return deduplicated.info(self._own.values(), deleted, next(iter(names), ""))

    def _own_hash(self, ino: int) -> str:
        return self._own.get(ino) or self._earlier.of(ino).get("instance", "")

    def _deduplicated(self, kind: str, depth: int, info: Object) -> Iterator[ListPiece]:
        texts = (one.text for one in self._all_objects())
        yield list_piece([info.text, *(deduplicated.at_depth(text, depth) for text in texts)], b"", first=True)

        def text(kept: Kept, _: int) -> str:
            return deduplicated.at_depth(kept.objects()[-1].text, depth)

        for series in self._series:
            yield from self._list(kind, series, text, first=False)
        yield list_end(empty=False)

    def _list(
        self, kind: str, series: _Series, text: Callable[[Kept, int], str], *, first: bool
    ) -> Iterator[ListPiece]:
        """Yield the pieces of a list that are a series'."""
        with Bundle.open(series.path) as bundle:
            if self._before is None:
                bundle.remember()
            for batch in batches(ino for ino, _ in series.instances):
                replaced = [
                    (ino, self._now.history.replaced[ino]) for ino in batch if ino in self._now.history.replaced
                ]
                known = digest(batch, first=first, place=f"{series.name}{replaced or ''}")
                kept = self._pieces.get((kind, known))
                if kept is not None and self._before is not None:
                    yield taken_over(self._before, kept, known)
                else:
                    yield list_piece((text(Kept(bundle, ino), ino) for ino in batch), known, first=first)
                first = False
