"""Make a file of an instance that says less: its own header, and the same blobs.

    the instance     h h h [blob] h [blob] [blob] t        Parts: a header in place, bulk by its blobs
    what comes back  n n n  Range  n  Range  n             pieces: new bytes, and ranges that are taken over
    the file         recipe: 3 literal, blob, 1 literal, blob, blob, …

A range that covers all of a blob is that blob; anything else of a range is literal bytes, or a blob of its own where
the file, looked at as an import does, has bulk there. So a derived file costs its header. Everything is proved before
it leaves, as by an import: the compressed header is decoded again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from isal.isal_zlib import crc32

from dicomfs.archive import header_bases
from dicomfs.archive.archive import MAX_HEADER, Archive
from dicomfs.archive.parts import MAPPED_FROM, Parts, room
from dicomfs.archive.pieces import cut, encoded
from dicomfs.dicom.attributes import Attributes
from dicomfs.dicom.describe import Verdict, describe
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.split import FRAME, LITERAL, Span
from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store import recipe as recipes
from dicomfs.store.codec import Checks
from dicomfs.store.recipe import MAX_BLOB, BlobId

LEFT_OVER: Final = 1 << 16
"""More than this of a blob that is not taken over as a whole becomes a blob of its own."""

Value: TypeAlias = str | int


class Taken(Protocol):
    """Bytes of the data that are taken over as they are."""

    @property
    def start(self) -> int:
        """Where they begin."""

    @property
    def end(self) -> int:
        """Where they end."""


Engine: TypeAlias = Callable[[Data, Part10, Callable[[int, int], bytes], str], Sequence["bytes | Taken"]]
"""What makes the pieces of an instance's data: (data, part10, read, identity of the patient). Raises Withheld."""


class Withheld(Exception):
    """Nothing is made of an instance; the reason holds no value of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NewBlob(NamedTuple):
    """A blob that is to be stored if it is not there yet."""

    blob: bytes
    codec: int
    length: int
    stored: bytes
    crc: int
    checks: Checks


class Derived(NamedTuple):
    """A derived file: plain values, which travel between processes."""

    size: int
    sha256: bytes
    """Of its header."""
    base: bytes
    body: bytes
    literal_length: int
    attributes: dict[str, Value]
    """What the catalog would say of it."""
    blobs: list[NewBlob]
    new_base: NewBlob | None


class PutTogether(NamedTuple):
    """A file made of an instance, before its header is compressed."""

    size: int
    recipe: bytes
    literal: bytes
    attributes: Attributes
    blobs: list[NewBlob]
    """Those that are not the instance's own."""


class _Piece(NamedTuple):
    """A part of the file: a blob of its source, or literal bytes; `left_over` where these were part of a blob."""

    length: int
    blob: BlobId | None
    data: bytes = b""
    left_over: bool = False


class Deriver:
    """Makes files of instances, the later ones of a series compressed against the first. Belongs to one thread."""

    def __init__(self, archive: Archive, engine: Engine) -> None:
        self._archive = archive
        self._engine = engine
        self._coded = archive.settings.codec != "none"
        self._no_base = header_bases.no_base()
        self._base: header_bases.Base | None = None
        self._alone = False

    def begin(self, *, alone: bool) -> None:
        """Go on with another series; `alone` where there is one instance, which nothing will be compressed against."""
        self._base = None
        self._alone = alone

    def derive(self, ino: int, identity: str) -> Derived:
        """Make a file of an instance; raise Withheld, or Damaged where it cannot be read."""
        parts = Parts.open(self._archive, ino)
        made = put_together(parts, self._engine(parts.data, parts.part10, reader(parts), identity), coded=self._coded)
        base, body, sha256, new_base = self._header(made.recipe, made.literal)
        said = made.attributes
        attributes = said.patient | said.study | said.series | said.instance
        return Derived(made.size, sha256, base, body, len(made.literal), attributes, made.blobs, new_base)

    def _header(self, recipe: bytes, literals: bytes) -> tuple[bytes, bytes, bytes, NewBlob | None]:
        """Compress a header; return its base, its body, its SHA-256 and the base if that is new."""
        header = header_bases.header_of(recipe, literals)
        if len(header) > MAX_HEADER:
            raise Withheld("its header is too long")
        base = self._base if self._base is not None and header_bases.can_be_base(literals) else self._no_base
        body: bytes = base.compressor.compress(header)
        new_base = None
        wanted = self._base is None or header_bases.asks_for_another(body, header, literals)
        if wanted and not self._alone and header_bases.can_be_base(literals):
            blob = header_bases.blob_id(literals)
            stored: bytes = self._no_base.compressor.compress(literals)
            new_base = NewBlob(blob, codecs.ZSTD, len(literals), stored, crc32(stored), (crc32(stored),))
            base = self._base = header_bases.make(blob, literals)
            body = base.compressor.compress(header)
        if base.decompressor.decompress(body, max_output_size=len(header)) != header:
            raise Withheld("its header cannot be kept exactly: please report it")
        return base.blob, body, hashlib.sha256(header).digest(), new_base


def reader(parts: Parts) -> Callable[[int, int], bytes]:
    """Return what reads the real bytes of an instance's data."""
    return lambda start, end: bytes(parts.read(start, end))


def put_together(parts: Parts, made: Sequence["bytes | Taken"], *, coded: bool) -> PutTogether:
    """Make the recipe of a file from the pieces that an engine made of an instance; raise Withheld, or Damaged."""
    pieces = list(_joined(_pieces(parts, made)))
    size = sum(piece.length for piece in pieces)
    described = describe(_skeleton(pieces, size))
    if described.verdict != Verdict.DICOM or described.attributes is None:
        raise Withheld("what would be made of it is no DICOM file")
    bulk = [span for span in cut(described.spans) if span.kind != LITERAL]
    blobs: list[NewBlob] = []
    extents: list[recipes.Extent] = []
    literals: list[bytes] = []
    for length, blob, data in _with_blobs(pieces, bulk, lambda data, span: _store(data, span, blobs, coded)):
        extents.append((length, blob))
        literals.append(data)
    return PutTogether(size, recipes.encode(extents), b"".join(literals), described.attributes, blobs)


def _store(data: memoryview, span: Span, blobs: list[NewBlob], coded: bool) -> BlobId:
    codec, stored, checks = encoded(data, span, coded=coded)
    blob = BlobId(hashlib.sha256(data).digest())
    blobs.append(NewBlob(blob, codec, len(data), bytes(stored), crc32(stored), checks))
    return blob


def _pieces(parts: Parts, made: Sequence["bytes | Taken"]) -> Iterator[_Piece]:
    """Yield the parts of a file; ranges as blobs of the source where they are blobs of it."""
    for piece in made:
        if isinstance(piece, bytes):
            yield _Piece(len(piece), None, piece)
            continue
        if not 0 <= piece.start <= piece.end <= len(parts.data):
            raise Damaged("a range is not of the instance")
        inflated = iter(((piece.start, piece.end, None),))  # whose offsets are not those of the file
        found = parts.file.extents(piece.start, piece.end) if parts.source is parts.file else inflated
        for start, end, blob in found:
            if blob is not None:
                yield _Piece(end - start, blob)
                continue
            left_over = end - start > LEFT_OVER
            for at in range(start, end, MAX_BLOB):
                data = bytes(parts.read(at, min(at + MAX_BLOB, end)))
                if len(data) != min(at + MAX_BLOB, end) - at:
                    raise Damaged("a part of an instance cannot be read")
                yield _Piece(len(data), None, data, left_over)


def _joined(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    """Join literal bytes beside each other."""
    run: list[_Piece] = []
    for piece in pieces:
        if piece.blob is None:
            run.append(piece)
            continue
        yield from _run(run)
        run = []
        yield piece
    yield from _run(run)


def _run(run: list[_Piece]) -> Iterator[_Piece]:
    data = b"".join(piece.data for piece in run)
    if data:
        yield _Piece(len(data), None, data, any(piece.left_over for piece in run))


def _skeleton(pieces: list[_Piece], size: int) -> Data:
    """Return the file with zeros where blobs of the source lie: nobody who looks at it asks what is in bulk."""
    made = bytearray(size) if size < MAPPED_FROM else room(size)
    at = 0
    for piece in pieces:
        if piece.blob is None:
            made[at : at + piece.length] = piece.data
        at += piece.length
    return memoryview(made) if isinstance(made, bytearray) else made


def _with_blobs(
    pieces: list[_Piece], bulk: list[Span], store: Callable[[memoryview, Span], BlobId]
) -> Iterator[tuple[int, BlobId | None, bytes]]:
    """Yield (length, blob, literal bytes): bulk that lies within literal bytes is stored, and so are left-overs."""
    at = 0
    number = 0
    for piece in pieces:
        start, end = at, at + piece.length
        at = end
        if piece.blob is not None:
            yield piece.length, piece.blob, b""
            continue
        view = memoryview(piece.data)
        done = start
        while number < len(bulk) and bulk[number].start < start:
            number += 1
        while number < len(bulk) and bulk[number].end <= end:
            span = bulk[number]
            yield from _literal(view[done - start : span.start - start], store, left_over=piece.left_over)
            yield span.end - span.start, store(view[span.start - start : span.end - start], span), b""
            done = span.end
            number += 1
        yield from _literal(view[done - start :], store, left_over=piece.left_over)


def _literal(
    data: memoryview, store: Callable[[memoryview, Span], BlobId], *, left_over: bool
) -> Iterator[tuple[int, BlobId | None, bytes]]:
    if left_over and len(data) > LEFT_OVER:
        for at in range(0, len(data), MAX_BLOB):
            part = data[at : at + MAX_BLOB]
            yield len(part), store(part, Span(FRAME, at, at + len(part), 1)), b""
    elif len(data):
        yield len(data), None, bytes(data)
