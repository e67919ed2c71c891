"""Reading blobs: every byte handed out was checked against the CRC-32 written with it.

A blob stored plain is checked in pieces of 64 KiB, a coded one is decoded chunk by chunk, so that a short read
costs little. Chunks that a read wanted a part of are kept, as the next read mostly wants the rest.
"""

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Final

from isal.isal_zlib import crc32

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.ahead import THREADS, Ahead
from dicomfs.store.codec import CHUNK, Spans
from dicomfs.store.decoders import Decoders
from dicomfs.store.location import Location
from dicomfs.store.packs import PackDirectory

CACHE_BYTES: Final = 16 << 20
"""How much decoded data is kept, at most, apart from one chunk of any size."""
_SPANS_KEPT: Final = 4096

_Place = tuple[int, int, int]
"""pack, offset of the blob, number of the chunk"""


class BlobReader:
    """Decodes and checks blobs. May be shared by threads; `ready` by one thread only."""

    def __init__(self, packs: PackDirectory, cache_bytes: int = CACHE_BYTES) -> None:
        self._packs = packs
        self._cache_bytes = cache_bytes
        self._cached = 0
        self._decoded: OrderedDict[_Place, memoryview] = OrderedDict()
        self._decoding: dict[_Place, Future[memoryview]] = {}
        self._spans: dict[tuple[int, int], Spans] = {}
        self._lock = threading.Lock()
        self.ahead = Ahead()
        """What makes parts of files before they are asked for."""
        self.decoders = Decoders(packs.directory, THREADS if (os.cpu_count() or 1) > 1 else 0)
        """The processes that it has do it."""

    def ready(self, at: Location, start: int, end: int) -> memoryview | None:
        """Return bytes [start, end) of the blob if nothing has to be waited for, else None."""
        if at.codec == codecs.PLAIN:
            first, last = _pieces(at, start, end)
            data = self._packs.open(at.pack).resident(at.offset + first, last - first)
            if data is None:
                return None
            _verify(at, data, first)
            return data[start - first : end - first]
        spans = self._spans_of(at)
        number = spans.first(start)
        begin, stop = spans.plain(number)
        if end > stop:
            return None
        found = self._decoded.get((at.pack, at.offset, number))
        if found is None:
            if stop - begin > CHUNK or (at.pack, at.offset, number) in self._decoding:
                return None
            found = self._decode_resident(at, spans, number)
        return None if found is None else found[start - begin : end - begin]

    def read(self, at: Location, start: int, end: int) -> memoryview:
        """Return bytes [start, end) of the blob; wait for disk and decoder. Raise Damaged."""
        if at.codec == codecs.PLAIN:
            first, last = _pieces(at, start, end)
            data = memoryview(self._packs.open(at.pack).read(at.offset + first, last - first))
            _verify(at, data, first)
            return data[start - first : end - first]
        out = codecs.room(end - start)
        self.fill(at, start, end, out)
        return out

    def fill(self, at: Location, start: int, end: int, out: memoryview) -> None:
        """Put the same bytes where they are wanted."""
        if at.codec == codecs.PLAIN:
            out[:] = self.read(at, start, end)
            return
        spans = self._spans_of(at)
        first, last = spans.first(start), spans.first(end - 1)
        whole: list[tuple[int, memoryview]] = []
        for number in range(first, last + 1):
            begin, stop = spans.plain(number)
            part = out[max(begin - start, 0) : stop - start]
            if start <= begin and stop <= end:
                whole.append((number, part))
            else:
                part[:] = self._chunk(at, spans, number)[max(start - begin, 0) : end - begin]
        if whole:
            begin, _ = spans.stored(whole[0][0])
            _, stop = spans.stored(whole[-1][0])
            stored = memoryview(self._packs.open(at.pack).read(at.offset + begin, stop - begin))
            for number, part in whole:
                _decode(at, spans, number, stored, begin, part)

    def whole(self, at: Location) -> memoryview:
        """Return the whole blob, past the cache: for those who read everything once."""
        stored = self._packs.open(at.pack).read(at.offset, at.stored)
        if at.codec == codecs.PLAIN:
            _verify(at, memoryview(stored), 0)
        try:
            return codecs.decode(at.codec, stored, at.length, at.checks)
        except Damaged as error:
            raise _damaged(at) from error

    def verify(self, at: Location) -> None:
        """Read the stored bytes and compare their CRCs; raise Damaged. Decodes nothing."""
        stored = memoryview(self._packs.open(at.pack).read(at.offset, at.stored))
        if at.codec == codecs.PLAIN:
            _verify(at, stored, 0)
            return
        spans = self._spans_of(at)
        if not all(spans.intact(number, stored) for number in range(spans.count)):
            raise _damaged(at)

    def _spans_of(self, at: Location) -> Spans:
        key = at.pack, at.offset
        found = self._spans.get(key)
        if found is None:
            if len(self._spans) >= _SPANS_KEPT:
                self._spans.clear()
            found = self._spans[key] = Spans(at.codec, at.length, at.stored, at.checks)
        return found

    def _decode_resident(self, at: Location, spans: Spans, number: int) -> memoryview | None:
        """Decode at once what takes no longer than asking a thread, if it is in memory."""
        begin, stop = spans.stored(number)
        stored = self._packs.open(at.pack).resident(at.offset + begin, stop - begin)
        if stored is None:
            return None
        plain = self._decode_new(at, spans, number, stored, begin)
        with self._lock:
            self._keep((at.pack, at.offset, number), plain)
        return plain

    def _decode_new(self, at: Location, spans: Spans, number: int, stored: memoryview, begin: int) -> memoryview:
        start, stop = spans.plain(number)
        plain = codecs.room(stop - start)
        _decode(at, spans, number, stored, begin, plain)
        return plain

    def _keep(self, key: _Place, plain: memoryview) -> None:
        """Put a chunk into the cache; the caller holds the lock."""
        if key in self._decoded:
            return
        self._decoded[key] = plain
        self._cached += len(plain)
        while self._cached > self._cache_bytes and len(self._decoded) > 1:
            _, oldest = self._decoded.popitem(last=False)
            self._cached -= len(oldest)

    def _chunk(self, at: Location, spans: Spans, number: int) -> memoryview:
        """Return a whole chunk, which is decoded once though several threads ask for it."""
        key = at.pack, at.offset, number
        with self._lock:
            found = self._decoded.get(key)
            if found is not None:
                self._decoded.move_to_end(key)
                return found
            future = self._decoding.get(key)
            mine = future is None
            if future is None:
                future = self._decoding[key] = Future()
        if mine:
            self._fulfil(at, spans, number, future)
        return future.result()

    def _fulfil(self, at: Location, spans: Spans, number: int, future: Future[memoryview]) -> None:
        key = at.pack, at.offset, number
        try:
            begin, stop = spans.stored(number)
            stored = memoryview(self._packs.open(at.pack).read(at.offset + begin, stop - begin))
            plain = self._decode_new(at, spans, number, stored, begin)
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            with self._lock:
                self._decoding.pop(key, None)
            future.set_exception(error)
            return
        with self._lock:
            self._decoding.pop(key, None)
            self._keep(key, plain)
        future.set_result(plain)

    def forget(self) -> None:
        """Drop what was decoded, as the packs are no longer those it came from."""
        self.ahead.forget()
        self.decoders.forget()
        with self._lock:
            self._decoded.clear()
            self._spans.clear()
            self._cached = 0

    def close(self) -> None:
        """Drop what was decoded, and decode nothing ahead any more."""
        self.decoders.close()
        self.ahead.close()
        self.forget()


def _pieces(at: Location, start: int, end: int) -> tuple[int, int]:
    """Return the range of a plain blob that has to be read so that bytes [start, end) can be checked."""
    first = start // codecs.CRC_CHUNK * codecs.CRC_CHUNK
    return first, min(at.stored, -(-end // codecs.CRC_CHUNK) * codecs.CRC_CHUNK)


def _decode(at: Location, spans: Spans, number: int, stored: memoryview, begin: int, out: memoryview) -> None:
    """Decode one chunk; `stored` begins at the stored byte `begin` of the blob."""
    first, last = spans.stored(number)
    try:
        spans.decode(number, stored[first - begin : last - begin], out)
    except Damaged as error:
        raise _damaged(at) from error


def _damaged(at: Location) -> Damaged:
    return Damaged(f"pack {at.pack:08d}: the blob at {at.offset} is damaged")


def _verify(at: Location, data: memoryview, first: int) -> None:
    step = codecs.CRC_CHUNK
    number = first // step
    if len(data) <= step:
        good = crc32(data) == at.checks[number]
    else:
        good = all(
            crc32(data[start : start + step]) == crc
            for start, crc in zip(range(0, len(data), step), at.checks[number:], strict=False)
        )
    if not good:
        raise _damaged(at)
