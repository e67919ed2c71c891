"""The bundle of a series: its metadata, the list of its instances, and the documents of each.

A series is made again as a whole when anything in it changed, but what the bundle before it has is taken over:
each instance's documents, and the deflated pieces of the two lists. So one more instance costs one header, one piece
of each list, and copying; the bytes are those that making everything anew gives.
"""

from __future__ import annotations

import json
import zlib
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import (
    bundle_writing,
    deduplicated,
    documents,
    documents_gzip,
    documents_history,
    documents_instance,
    documents_query,
)
from dicomfs.archive.bundle import NO_HASH
from dicomfs.archive.bundle_writing import BundleWriter, ListPiece
from dicomfs.archive.documents_history import Earlier
from dicomfs.archive.documents_instance import Kept, Told
from dicomfs.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.bundle import Bundle, Card, PieceKept
    from dicomfs.archive.catalog import Instance, Series, Study, View
    from dicomfs.archive.documents_instance import Listed
    from dicomfs.archive.records import Attributes

_PER_PIECE: Final = 64
"""Instances of a piece, on average."""
CHANGED: Final[tuple[type[Exception], ...]] = (Damaged, zlib.error, ValueError, LookupError, TypeError)
"""What reading an earlier bundle ends in whose contents are not as they were written."""
_STAGE_S: Final = 60.0
"""After so long what is done is put aside as the bundle of a part of the series: a process that is ended in the
middle of a very long series must not have worked for nothing."""
_SPREAD: Final = 0x9E3779B97F4A7C15


class State(NamedTuple):
    """A series as one commit shows it."""

    series: Series
    study: Study
    stamp: str
    instances: tuple[Listed, ...]
    """In the order of its documents: by InstanceNumber, then by inode number."""
    replaced: Mapping[int, tuple[int, ...]]
    """The versions in whose place instances are."""


def state(view: View, number: int) -> State:
    """Return a series as it is; raise NotFound."""
    series = view.series(number)
    instances = sorted(view.shown_instances(number), key=_order)
    replaced = documents_history.history(view, series.study).replaced
    return State(
        series, view.study(series.study), documents.series_stamp(view, number),
        tuple(map(documents_history.listed, instances)),
        {one.ino: replaced[one.ino] for one in instances if one.ino in replaced},
    )  # fmt: skip


def make(archive: Archive, cache: Path, number: int) -> Path:
    """Make a series' bundle if it is not there; raise NotFound or StorageFull."""
    with archive.view() as view:
        found = documents.path(cache, "series", number, documents.series_stamp(view, number))
    if bundle_writing.is_there(found):
        return found
    with archive.view() as view:
        now = state(view, number)
    path = documents.path(cache, "series", number, now.stamp)
    part = documents.path(cache, "part", number, now.stamp)
    while not _stage(archive, now, path, part):
        pass
    return path


def _stage(archive: Archive, now: State, path: Path, part: Path) -> bool:
    """Write the bundle, or what a stage's time is enough for; say whether it is whole."""
    before = bundle_writing.before(path, part)
    if before is not None:
        before.remember()
    try:
        return _write(archive, now, before, path, part)
    except CHANGED:
        if before is None:
            raise
        # Somebody's hand or a failing disk was at the bundle before this one: nothing is taken over from it.
        return _write(archive, now, None, path, part)


def _write(archive: Archive, now: State, before: Bundle | None, path: Path, part: Path) -> bool:
    with BundleWriter(path) as writer:
        whole = _Maker(archive, now, before, writer, goes_on=before is not None and before.path == part).run()
        writer.commit(path if whole else part)
    if whole:
        bundle_writing.remove(part)
    return whole


def batches(numbers: Iterable[int], many: int = _PER_PIECE) -> Iterator[tuple[int, ...]]:
    """Cut a list of numbers into batches of about so many, where they say so themselves: one more changes one batch."""
    batch: list[int] = []
    for number in numbers:
        batch.append(number)
        # Multiplied, for inode numbers of one series may have any regular distance.
        if (number * _SPREAD >> 32) % many == 0:
            yield tuple(batch)
            batch = []
    if batch:
        yield tuple(batch)


def digest(batch: tuple[int, ...], *, first: bool, place: str = "") -> bytes:
    """Return what tells apart the pieces of a list: a file never changes, so its number is enough."""
    return sha256(f"{place} {first} {batch}".encode()).digest()[:16]


def list_piece(texts: Iterable[str], known: bytes, *, first: bool) -> ListPiece:
    """Deflate a piece of a JSON array."""
    return ListPiece(known, documents_gzip.piece(("[" if first else ",") + ",".join(texts)))


def list_end(*, empty: bool) -> ListPiece:
    """Return what ends a JSON array."""
    return ListPiece(b"", documents_gzip.piece("[]" if empty else "]", last=True))


def taken_over(bundle: Bundle, kept: PieceKept, known: bytes) -> ListPiece:
    """Return a piece as an earlier bundle has it."""
    return ListPiece(known, documents_gzip.Piece(bundle.read(*kept.extent), kept.crc32, kept.length))


class _Maker:
    """One bundle in the making."""

    def __init__(
        self, archive: Archive, now: State, before: Bundle | None, writer: BundleWriter, *, goes_on: bool
    ) -> None:
        self._archive = archive
        self._now = now
        self._before = before
        self._pieces = {} if before is None else before.pieces()
        self._writer = writer
        self._listed = {listed.ino: listed for listed in now.instances}
        self._cards: list[Card] = []
        self._objects: dict[str, tuple[str, str, set[str]]] = {}
        """Type and text of what instances refer to, by hash, and in whose place it is."""
        self._earlier = Earlier(archive, before)
        self._first: Told | Kept | None = None
        self._end_s = monotonic() + _STAGE_S
        self._read = self._skipped = 0
        self._goes_on = goes_on
        """What the earlier bundle has is of this very state: what was damaged a stage ago is not tried again."""

    def run(self) -> bool:
        """Write everything, or what there is time for; say whether that is everything."""
        metadata: list[ListPiece] = []
        index: list[ListPiece] = []
        for batch in batches(self._listed):
            told = {ino: self._instance(ino) for ino in batch}
            there = tuple(ino for ino, found in told.items() if found is not None)
            if not there:
                continue
            known = digest(there, first=not metadata)
            self._first = self._first or told[there[0]]
            metadata.append(self._piece("metadata", known) or self._metadata(told, known, first=not metadata))
            index.append(self._piece("index", known) or self._index(told, known, first=not index))
        for pieces in (metadata, index):
            pieces.append(list_end(empty=not pieces))
        self._writer.add_list("metadata", metadata)
        self._writer.add_list("index", index)
        self._writer.add(
            ("objects", 0),
            json.dumps([(digest, *held[:2], sorted(held[2])) for digest, held in self._objects.items()]).encode(),
        )
        self._remember()
        self._writer.add(("query", 0), self._query().encode("utf-8", "replace"))
        self._writer.middle = middle(self._cards)
        return not self._skipped

    def _instance(self, ino: int) -> Told | Kept | None:
        """Write an instance's own documents; return what else is written of it, None where it is left out."""
        kept = self._kept(ino)
        if kept is not None:
            return kept
        if self._goes_on and self._before is not None and self._before.cards.of(ino) is not None:
            self._add_card(documents_instance.damaged(self._listed[ino]), NO_HASH, ())
            return None
        if self._read and monotonic() > self._end_s:
            self._skipped += 1
            return None
        self._read += 1
        listed = self._listed[ino]
        place = documents_history.to_directory(self._now.series, listed.name)
        told = documents_instance.tell(self._archive, listed, place)
        if told is None:
            self._add_card(documents_instance.damaged(listed), NO_HASH, ())
            return None
        earlier = self._now.replaced.get(ino, ())
        if earlier:
            hashes = [self._earlier.of(one, self._before) for one in earlier]
            told = told._replace(earlier=earlier, replaced=documents_history.replaced_by(told.objects, hashes))
        self._writer.add(("instance", ino), told.metadata())
        self._writer.add(("dedup", ino), told.deduplicated())
        self._writer.add(("kept", ino), told.kept())
        self._add_card(told.card, told.own, told.hashes)
        for one, replaced in zip(told.objects[:-1], told.replaced, strict=False):
            self._objects.setdefault(one.hash, (one.type, one.text, set()))[2].update(replaced)
        return told

    def _kept(self, ino: int) -> Kept | None:
        before = self._before
        card = None if before is None else before.cards.of(ino)
        if before is None or card is None or card.damaged:
            return None
        kept = Kept(before, ino)
        if (not kept.lasting and not self._goes_on) or kept.earlier != self._now.replaced.get(ino, ()):
            return None
        for kind in ("instance", "dedup", "kept"):
            self._writer.add((kind, ino), before.document((kind, ino)))
        self._add_card(card, *before.cards.hashes(ino))
        if any(hashed not in self._objects for _, hashed in kept.references()):
            for one in kept.objects()[:-1]:
                if one.hash not in self._objects:
                    self._objects[one.hash] = (one.type, deduplicated.plain(one).text, set())
        for (_, digest), replaced in zip(kept.references(), kept.replaced, strict=False):
            self._objects[digest][2].update(replaced)
        return kept

    def _remember(self) -> None:
        """Write down the hashes of what was in the bundle before and is shown no more: the study's asks for them."""
        before = self._before
        gone: set[int] = set() if before is None else {ino for _, ino, _ in before.cards.names()}
        gone = (gone | self._earlier.numbers) - self._listed.keys()
        with self._archive.view() as view:
            gone = {ino for ino in gone if view.past(ino) is not None}  # others were forgotten
        for ino in gone:
            self._earlier.of(ino, before)
        if gone:
            self._writer.add(("past", 0), self._earlier.record(gone))

    def _add_card(self, card: Card, own: bytes, hashes: Iterable[bytes]) -> None:
        self._writer.add_card(card, own, hashes)
        self._cards.append(card)

    def _piece(self, kind: str, known: bytes) -> ListPiece | None:
        kept = self._pieces.get((kind, known))
        return None if kept is None or self._before is None else taken_over(self._before, kept, known)

    def _metadata(self, told: dict[int, Told | Kept | None], known: bytes, *, first: bool) -> ListPiece:
        texts = []
        for ino, found in told.items():
            if found is not None:
                pieces = found.pieces() if isinstance(found, Kept) else found.pieces
                texts.append(f"instances/{documents.uri(self._listed[ino].name)}/".join(pieces))
        return list_piece(texts, known, first=first)

    def _index(self, told: dict[int, Told | Kept | None], known: bytes, *, first: bool) -> ListPiece:
        return list_piece((found.query for found in told.values() if found is not None), known, first=first)

    def _query(self) -> str:
        """Return the series' query object; some attributes are only in its first instance."""
        pieces = (
            () if self._first is None else self._first.pieces() if isinstance(self._first, Kept) else self._first.pieces
        )
        fields = deduplicated.elements("".join(pieces) or "{}")
        return documents_query.series(
            self._now.series,
            self._now.study,
            len(self._now.instances),
            {int(tag, 16): text for tag, text in fields.items() if '"BulkDataURI":' not in text},
        )


def middle(cards: Sequence[Card]) -> int:
    """Return the instance whose picture stands for all: the middle one of those with pixels, 0 where there is none."""
    shown = [card for card in cards if card.frames] or [card for card in cards if not card.damaged] or cards
    return shown[len(shown) // 2].ino if shown else 0


def number_order(attributes: Attributes, keyword: str) -> tuple[bool, int]:
    """Return what series and instances are put in order by: those without a number come last."""
    number = attributes.get(keyword)
    return (False, number) if isinstance(number, int) else (True, 0)


def _order(instance: Instance) -> tuple[tuple[bool, int], int]:
    return number_order(instance.attributes, "InstanceNumber"), instance.ino
