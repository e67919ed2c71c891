"""Files put together of texts and stretches of instances: frames, bulk values, whole instances as multipart.

    --BOUNDARY CRLF Content-Type: …; transfer-syntax=… CRLF CRLF | bytes of the instance | CRLF --BOUNDARY-- CRLF

Where each byte comes from is known when the file is made, so a size reads nothing, and a read is a bisection.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import accumulate
from typing import Final, NamedTuple, TypeAlias

from dicomfs.archive.parts import Parts, Source
from dicomfs.dicom.frames import Frames
from dicomfs.dicom.model import BulkValue
from dicomfs.dicom.stretch import Stretch
from dicomfs.errors import NotFound
from dicomfs.vfs.gzipped import Gzipped, gzipped_size
from dicomfs.vfs.node import OpenFile

__all__ = [
    "MANY", "Composed", "Piece", "bulk_file", "frame_file", "frame_size", "gzipped_file", "gzipped_size", "part10_file",
    "part10_size", "pixeldata_file", "pixeldata_size",
]  # fmt: skip

_UID: Final = re.compile(r"[0-9.]{1,64}")
MANY: Final = 512
"""Of more pieces than this a file, or what is read of it, is put together by a thread: others would wait for it."""


class Piece(NamedTuple):
    """A stretch of what a source holds."""

    source: Source
    stretch: Stretch


Part: TypeAlias = tuple[Piece | bytes, int, int]
"""Bytes [first, last) of a piece."""


class Composed:
    """A file made of bytes and ranges of instances' data. May be shared by threads (`read_ready` by one)."""

    def __init__(self, pieces: Sequence[bytes | tuple[Parts, int, int] | Piece]) -> None:
        self._pieces: list[bytes | Piece] = [
            piece if isinstance(piece, bytes | Piece) else Piece(piece[0].source, Stretch(piece[1], piece[2]))
            for piece in pieces
        ]
        self._starts = list(accumulate(map(_length, self._pieces), initial=0))
        self.size = self._starts.pop()
        self._spans = _spans(self._pieces)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return up to `size` bytes at `offset`, fewer only at the end; wait as long as it takes. Raise Damaged."""
        parts = [_read(*part) for part in self._parts(offset, offset + size)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_ready(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return the same if nothing has to be waited for, else None."""
        if self._are_many(offset, size):
            return None
        found: list[bytes | memoryview] = []
        for part in self._parts(offset, offset + size):
            data = _ready(*part)
            if data is None:
                return None
            found.append(data)
        return found[0] if len(found) == 1 else b"".join(found)

    def coming(self, offset: int, size: int) -> Future[memoryview] | None:
        """Return what is being made already and will make `read_ready` answer, if anything is."""
        if self._are_many(offset, size):
            return None
        found: Future[memoryview] | None = None
        for piece, first, last in self._parts(offset, offset + size):
            if not isinstance(piece, bytes):
                begin, end = piece.stretch.source(first, last)
                future = piece.source.coming(begin, end - begin)
                if future is not None and (found is None or found.done()):
                    found = future
        return found

    def prefetch(self) -> None:
        """Begin to make what a reader of the whole file asks for first, if making it takes time."""
        for source, start, end in self._spans[:1]:
            source.prefetch(start, end)

    def close(self) -> None:
        """Give back what was made for a reader of this file; what others read goes on."""
        for source, start, end in self._spans:
            source.close(start, end)

    def _parts(self, offset: int, end: int) -> Iterator[Part]:
        """Yield the parts of pieces that a range of the file is made of."""
        end = min(end, self.size)
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            piece, start = self._pieces[number], self._starts[number]
            last = min(end - start, _length(piece))
            if last > offset - start:
                yield piece, offset - start, last
            offset = start + last
            number += 1

    def _are_many(self, offset: int, size: int) -> bool:
        """Say whether a range has so many pieces that putting them together is work for a thread."""
        first = bisect_right(self._starts, offset)
        return bisect_left(self._starts, offset + size, first) - first > MANY


def _spans(pieces: Sequence[bytes | Piece]) -> list[tuple[Source, int, int]]:
    """Return what of each source a file is made of."""
    spans: dict[int, tuple[Source, int, int]] = {}
    for piece in pieces:
        if not isinstance(piece, bytes):
            source, (start, end, *_) = piece
            _, first, last = spans.get(id(source), (source, start, end))
            spans[id(source)] = source, min(first, start), max(last, end)
    return list(spans.values())


def _length(piece: bytes | Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.stretch.length


def _read(piece: bytes | Piece, first: int, last: int) -> bytes | memoryview:
    if isinstance(piece, bytes):
        return piece[first:last]
    begin, end = piece.stretch.source(first, last)
    return piece.stretch.served(piece.source.read(begin, end - begin), first, last)


def _ready(piece: bytes | Piece, first: int, last: int) -> bytes | memoryview | None:
    if isinstance(piece, bytes):
        return piece[first:last]
    begin, end = piece.stretch.source(first, last)
    data = piece.source.read_ready(begin, end - begin)
    return None if data is None else piece.stretch.served(data, first, last)


def frame_file(parts: Parts, number: int, boundary: str) -> Composed:
    """Return frame `number` (from 1) as multipart/related of exactly one part, PS3.18 8.6.1.2; raise NotFound."""
    frames = parts.frames
    pieces = [Piece(parts.source, stretch) for stretch in frames.stretches(number)]
    return Composed([_frame_head(frames, boundary), *pieces, _tail(boundary)])


def frame_size(parts: Parts, number: int, boundary: str) -> int:
    """Return the size of that file; reads no pixels."""
    frames = parts.frames
    return len(_frame_head(frames, boundary)) + frames.length(number) + len(_tail(boundary))


def part10_file(parts: Parts, boundary: str) -> Composed:
    """Return the whole Part 10 file as multipart/related of exactly one part."""
    whole = Piece(parts.file, Stretch(0, parts.file.size))
    return Composed([_part10_head(parts, boundary), whole, _tail(boundary)])


def part10_size(parts: Parts, boundary: str) -> int:
    """Return the size of that file."""
    return len(_part10_head(parts, boundary)) + parts.file.size + len(_tail(boundary))


def pixeldata_file(parts: Parts) -> Composed:
    """Return the stream of a video, as its frame 1 but without multipart; raise NotFound where there is none."""
    _require_stream(parts)
    return Composed([Piece(parts.source, stretch) for stretch in parts.frames.stretches(1)])


def pixeldata_size(parts: Parts) -> int:
    """Return the size of that file."""
    _require_stream(parts)
    return parts.frames.length(1)


def bulk_file(parts: Parts, bulk: BulkValue) -> Composed:
    """Return the bytes of a bulk value in little endian."""
    return Composed([Piece(parts.source, Stretch(bulk.start, bulk.end, bulk.swap))])


def gzipped_file(file: OpenFile) -> Gzipped:
    """Return the same file in a gzip member of stored blocks, whose size is known without reading."""
    return Gzipped(file)


def _require_stream(parts: Parts) -> None:
    if not parts.frames.single_stream:
        raise NotFound("this instance is no video")


def _frame_head(frames: Frames, boundary: str) -> bytes:
    kind = f"{frames.media_type}; transfer-syntax={frames.transfer_syntax}"
    return f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()


def _part10_head(parts: Parts, boundary: str) -> bytes:
    kind = "application/dicom"
    transfer_syntax = parts.part10.transfer_syntax
    if _UID.fullmatch(transfer_syntax):  # a file may claim anything, line ends too
        kind += f"; transfer-syntax={transfer_syntax}"
    return f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()


def _tail(boundary: str) -> bytes:
    return f"\r\n--{boundary}--\r\n".encode()
