"""Turn one source file into blobs and a header: what a worker process does, file by file.

Every file is proved before it leaves: blobs are decoded again, the compressed header too, and the
recipe in it is replayed against the source, extent by extent. A file whose parts do not prove right is
kept whole. A blob that is in the archive already is proved by its SHA-256. What is read from a mapping,
which may change meanwhile, is hashed a second time as it is given away.
"""

import hashlib
import mmap
import os
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from isal.isal_zlib import crc32

from dicomfs.archive import header_bases
from dicomfs.archive.archive import MAX_HEADER, NO_BASE
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.pieces import cut, encoded, replays, tile
from dicomfs.dicom.describe import Verdict, describe
from dicomfs.dicom.part10 import locate
from dicomfs.dicom.split import FRAME, LITERAL, Span
from dicomfs.errors import Damaged, DicomfsError
from dicomfs.store import codec as codecs
from dicomfs.store import recipe as recipes
from dicomfs.store.codec import Checks, Coded
from dicomfs.store.recipe import BlobId, Extent, Recipe

BUFFER: Final = 64 << 20
"""Files up to this size are read, larger ones are mapped."""
_PIECE: Final = 1 << 20
_SNIFFED: Final = 1 << 18
_SNIFFED_ABOVE: Final = 8 << 20
"""Of a longer file some is looked at before all of it is read: sticks hold videos and disk images, too."""
_ASIDE_ABOVE: Final = 16 << 20
"""The pieces of a longer file are hashed and encoded by threads."""
_ASIDE: Final = 4
"""How many of them at once, at up to MAX_BLOB bytes each."""
_SERIES_KEPT: Final = 64

View = memoryview


class _Misfit(Exception):
    """The parts of a file do not make the file."""


class _Changed(Exception):
    """The source is not what it was when its SHA-256 was taken."""


class Levels(NamedTuple):
    """The attributes of a file, level by level: a tuple, since thousands travel between processes."""

    patient: dict[str, str | int]
    study: dict[str, str | int]
    series: dict[str, str | int]
    instance: dict[str, str | int]


class Row(NamedTuple):
    """A file that was split: what the coordinator needs to claim names and write the commit."""

    size: int
    sha256: bytes
    base: bytes
    body: bytes
    literal_length: int
    attributes: Levels


class Sink(Protocol):
    """Where the pieces go, in order: begin, bases and blobs, row; or one outcome."""

    def begin(self, sha256: bytes, sop_instance_uid: str) -> None:
        """Announce a file, so that it can be refused before its blobs are written."""

    def blob(
        self,
        blob: BlobId,
        codec: int,
        length: int,
        stored: bytes | View,
        crc: int,
        checks: Checks,
        *,
        again: bool = False,
    ) -> None:
        """Give a blob; `stored` may be overwritten after the call. `again`: the stored one is damaged."""

    def base(self, blob: BlobId, codec: int, length: int, stored: bytes) -> None:
        """Give the base that a later row refers to."""

    def row(self, row: Row) -> None:
        """End a file that was split."""

    def risk(self) -> None:
        """Tell everything before a file that may end this process."""

    def outcome(self, outcome: Outcome, reason: str, size: int, sha256: bytes, sop_instance_uid: str) -> None:
        """End a file that was not."""


class Held(IntEnum):
    """Whether the archive holds something, and in what state."""

    NOT = 0
    WHOLE = 1
    HURT = 2
    HEADER_HURT = 3


class Known(Protocol):
    """What the archive holds already."""

    def file(self, sha256: bytes) -> Held:
        """Say whether a file with this SHA-256 was imported."""

    def blobs(self, blobs: list[BlobId]) -> list[Held]:
        """Say of each blob whether it is stored."""

    def base_of(self, study_instance_uid: str, series_instance_uid: str) -> tuple[bytes, bytes] | None:
        """Return the base that the series' first instance uses, and its bytes."""


class _Made(NamedTuple):
    """A blob ready to be given away; `coded` is None where the archive has it."""

    blob: BlobId
    length: int
    held: Held
    coded: Coded | None
    crc: int


class Splitter:
    """Splits files, one after another. Belongs to one thread."""

    def __init__(self, known: Known, sink: Sink, *, codec: str, describe_only: bool = False) -> None:
        """`codec` is the archive's; `describe_only` makes a dry run of it."""
        self._known = known
        self._sink = sink
        self._coded = codec != "none"
        self._describe_only = describe_only
        self._pool: ThreadPoolExecutor | None = None
        self._series: OrderedDict[str, header_bases.Base] = OrderedDict()
        self._no_base = header_bases.no_base()

    def process(self, path: str) -> None:
        """Split one file and give its pieces to the sink; a file that cannot be read is an outcome, too."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._process(fd, os.fstat(fd).st_size)
            finally:
                os.close(fd)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            self._sink.outcome(Outcome.FAILED, reason, 0, b"", "")
        except DicomfsError as error:
            self._sink.outcome(Outcome.FAILED, str(error), 0, b"", "")
        except Exception as error:  # noqa: BLE001 - whatever a file does to us, the others go on
            reason = f"internal error ({type(error).__name__}): please report it"
            self._sink.outcome(Outcome.FAILED, reason, 0, b"", "")

    def _process(self, fd: int, size: int) -> None:
        if size > _SNIFFED_ABOVE:
            head = os.pread(fd, _SNIFFED, 0)
            if locate(head) is None:
                self._foreign(head[:512], size)
                return
        if size <= BUFFER:
            self._split(_read(fd, size), mapped=False)
            return
        # Should the file shrink, this process dies: everything before it has to be told first.
        self._sink.risk()
        with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_SEQUENTIAL)
            data = memoryview(mapped)
            try:
                self._split(data, mapped=True)
            finally:
                data.release()

    def _split(self, data: bytes | View, *, mapped: bool) -> None:
        sha256 = hashlib.sha256(data).digest()
        size = len(data)
        held = self._known.file(sha256)
        if held == Held.WHOLE:
            self._sink.outcome(Outcome.PRESENT, "", size, sha256, "")
            return
        if held == Held.HEADER_HURT:
            reason = "is in the archive, but damaged there: bring the pack back that 'dicomfs check' names"
            self._sink.outcome(Outcome.FAILED, reason, size, sha256, "")
            return
        try:
            described = describe(data)
        except Exception as error:  # noqa: BLE001 - whatever a file does to us, the others go on
            reason = f"cannot be parsed ({type(error).__name__}): please report it"
            self._sink.outcome(Outcome.QUARANTINED, reason, size, sha256, "")
            return
        if described.verdict == Verdict.NOT_DICOM:
            self._foreign(bytes(data[:512]), size, described.reason, sha256)
            return
        if described.attributes is None or described.verdict != Verdict.DICOM:
            self._sink.outcome(_OUTCOMES[described.verdict], described.reason, size, sha256, "")
            return
        found = described.attributes
        attributes = Levels(found.patient, found.study, found.series, found.instance)
        self._sink.begin(sha256, str(attributes.instance["SOPInstanceUID"]))
        if self._describe_only:
            self._sink.row(Row(size, sha256, NO_BASE, b"", 0, attributes))
            return
        for spans in (described.spans, [Span(FRAME, 0, size, 1)]):
            try:
                row = self._prove(data, cut(spans), sha256, attributes, mapped=mapped)
            except _Misfit:
                continue
            except _Changed:
                break
            self._sink.row(row)
            return
        reason = "changed while it was read: import it again" if mapped else "cannot be kept exactly: please report it"
        self._sink.outcome(Outcome.FAILED, reason, size, sha256, "")

    def _foreign(self, head: bytes, size: int, reason: str = "not DICOM", sha256: bytes = b"") -> None:
        """Skip what is not DICOM; say what it is where that helps."""
        known = (what for magic, at, what in _FOREIGN if head[at : at + len(magic)] == magic)
        self._sink.outcome(Outcome.SKIPPED, next(known, reason), size, sha256, "")

    def _prove(self, data: bytes | View, pieces: Sequence[Span], sha256: bytes, attributes: Levels, *,
               mapped: bool) -> Row:  # fmt: skip
        """Give the blobs and return the row, or raise _Misfit."""
        if not tile(pieces, len(data)):
            raise _Misfit
        replayed = hashlib.sha256()
        extents: list[Extent] = []
        literals: list[bytes] = []
        made: deque[tuple[int, Future[_Made]]] = deque()
        view = memoryview(data)
        aside = len(data) > _ASIDE_ABOVE
        for piece in pieces:
            kind, start, end, _ = piece
            part = view[start:end]
            if mapped:
                part = memoryview(bytes(part))
                replayed.update(part)
            if kind == LITERAL:
                literals.append(bytes(part))
                extents.append((end - start, None))
            elif aside:
                if len(made) >= _ASIDE:
                    number, future = made.popleft()
                    extents[number] = self._give(future.result())
                made.append((len(extents), self._threads().submit(self._make, part, piece)))
                extents.append((end - start, None))
            else:
                extents.append(self._give(self._make(part, piece)))
        for number, future in made:
            extents[number] = self._give(future.result())
        if mapped and replayed.digest() != sha256:
            raise _Changed
        literal = b"".join(literals)
        base, body = self._header(recipes.encode(extents), literal, attributes, extents)
        return Row(len(data), sha256, base, body, len(literal), attributes)

    def _threads(self) -> ThreadPoolExecutor:
        """Return what encodes a long file on all cores: when the others are done, it would be one worker's alone."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="encode")
        return self._pool

    def _make(self, data: memoryview, piece: Span) -> _Made:
        """Make a blob of a piece, and prove it, unless the archive has it. Called by several threads."""
        blob = BlobId(hashlib.sha256(data).digest())
        (held,) = self._known.blobs([blob])
        if held == Held.WHOLE:
            return _Made(blob, len(data), held, None, 0)
        coded = encoded(data, piece, coded=self._coded)
        return _Made(blob, len(data), held, coded, crc32(coded.stored))

    def _give(self, made: _Made) -> Extent:
        blob, length, held, coded, crc = made
        if coded is not None:
            codec, stored, checks = coded
            if held == Held.HURT:
                self._sink.blob(blob, codec, length, stored, crc, checks, again=True)
            else:
                self._sink.blob(blob, codec, length, stored, crc, checks)
        return length, blob

    def _header(self, recipe: bytes, literals: bytes, attributes: Levels, extents: list[Extent]) -> tuple[bytes, bytes]:
        """Compress recipe and literals against the series' base; return base and body."""
        header = header_bases.header_of(recipe, literals)
        if len(header) > MAX_HEADER:
            raise _Misfit
        context = self._context(attributes, literals)
        body: bytes = context.compressor.compress(header)
        if context is not self._no_base and header_bases.asks_for_another(body, header, literals):
            context = self._new_base(attributes, literals)
            body = context.compressor.compress(header)
        replayed: bytes = context.decompressor.decompress(body, max_output_size=len(header))
        again, rest = header_bases.parts_of(replayed)
        if rest != literals or not replays(Recipe(again), extents):
            raise _Misfit
        return context.blob, body

    def _context(self, attributes: Levels, literals: bytes) -> header_bases.Base:
        if not header_bases.can_be_base(literals):
            return self._no_base
        series = str(attributes.series["SeriesInstanceUID"])
        found = self._series.get(series)
        if found is not None:
            self._series.move_to_end(series)
            return found
        try:
            earlier = self._known.base_of(str(attributes.study["StudyInstanceUID"]), series)
        except Damaged:
            earlier = None
        if earlier is not None:
            return self._keep(series, *earlier)
        return self._new_base(attributes, literals)

    def _new_base(self, attributes: Levels, literals: bytes) -> header_bases.Base:
        if not header_bases.can_be_base(literals):
            return self._no_base
        base = header_bases.blob_id(literals)
        stored = self._no_base.compressor.compress(literals)
        self._sink.base(base, codecs.ZSTD, len(literals), stored)
        return self._keep(str(attributes.series["SeriesInstanceUID"]), base, literals)

    def _keep(self, series: str, base: bytes, literals: bytes) -> header_bases.Base:
        context = self._series[series] = header_bases.make(base, literals)
        if len(self._series) > _SERIES_KEPT:
            self._series.popitem(last=False)
        return context


_FOREIGN: Final = (
    (b"PK\3\4", 0, "a ZIP file: unpack it first"),
    (b"\x1f\x8b", 0, "a gzip file: unpack it first"),
    (b"BZh", 0, "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ", 0, "an xz file: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7-Zip file: unpack it first"),
    (b"ustar", 257, "a tar file: unpack it first"),
)
_OUTCOMES: Final = {
    Verdict.CUT_OFF: Outcome.QUARANTINED,
    Verdict.NO_UIDS: Outcome.QUARANTINED,
    Verdict.DICOMDIR: Outcome.SKIPPED,
}


def _read(fd: int, size: int) -> bytes:
    """Read all of a file that should be `size` bytes long."""
    data = os.read(fd, size + 1)
    if len(data) == size > 0:
        return data
    # It grows, or is no file on a disk: on to its end.
    parts = [data]
    length = len(data)
    while data:
        if length > BUFFER:
            raise OSError(0, "the file is growing while it is read")
        data = os.read(fd, _PIECE)
        parts.append(data)
        length += len(data)
    return b"".join(parts)
