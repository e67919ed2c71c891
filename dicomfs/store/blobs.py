"""Reading blobs: every byte handed out was checked against the CRC-32 written with it.

A blob stored plain is checked in pieces of 64 KiB, so a short read costs little; a coded blob is
decoded whole, kept in a cache of bounded size, and asked for ahead of time by sequential readers.
"""

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from isal.isal_zlib import crc32

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.location import Location
from dicomfs.store.packs import PackDirectory

CACHE_BYTES: Final = 128 << 20
"""How much decoded data is kept, at most."""
DECODERS: Final = 2
SMALL: Final = 1 << 15
"""Coded blobs of up to so many stored bytes are decoded where they are asked for, in about 0.1 ms."""
_QUEUE: Final = 8
"""How many blobs may wait to be decoded ahead."""

_Place = tuple[int, int]


class BlobReader:
    """Decodes and checks blobs. May be shared by threads; `ready` by one thread only."""

    def __init__(self, packs: PackDirectory, cache_bytes: int = CACHE_BYTES) -> None:
        self._packs = packs
        self._cache_bytes = cache_bytes
        self._cached = 0
        self._decoded: OrderedDict[_Place, memoryview] = OrderedDict()
        self._decoding: dict[_Place, Future[memoryview]] = {}
        self._lock = threading.Lock()
        self._decoders: ThreadPoolExecutor | None = None

    def ready(self, at: Location, start: int, end: int) -> memoryview | None:
        """Return bytes [start, end) of the blob if nothing has to be waited for, else None."""
        if at.codec != codecs.PLAIN:
            found = self._decoded.get((at.pack, at.offset))
            if found is None and at.stored <= SMALL and (at.pack, at.offset) not in self._decoding:
                found = self._decode_small(at)
            return None if found is None else found[start:end]
        first = start // codecs.CRC_CHUNK * codecs.CRC_CHUNK
        last = min(at.stored, -(-end // codecs.CRC_CHUNK) * codecs.CRC_CHUNK)
        data = self._packs.open(at.pack).resident(at.offset + first, last - first)
        if data is None:
            return None
        _verify(at, data, first)
        return data[start - first : end - first]

    def read(self, at: Location, start: int, end: int) -> memoryview:
        """Return bytes [start, end) of the blob; wait for disk and decoder. Raise Damaged."""
        if at.codec != codecs.PLAIN:
            return self._decode(at)[start:end]
        first = start // codecs.CRC_CHUNK * codecs.CRC_CHUNK
        last = min(at.stored, -(-end // codecs.CRC_CHUNK) * codecs.CRC_CHUNK)
        data = memoryview(self._packs.open(at.pack).read(at.offset + first, last - first))
        _verify(at, data, first)
        return data[start - first : end - first]

    def whole(self, at: Location) -> memoryview:
        """Return the whole blob, past the cache: for those who read everything once."""
        stored = self._packs.open(at.pack).read(at.offset, at.stored)
        return _decode_stored(at, stored)

    def verify(self, at: Location) -> None:
        """Read the stored bytes and compare their CRC; raise Damaged. Decodes nothing."""
        _check_stored(at, self._packs.open(at.pack).read(at.offset, at.stored))

    def look_ahead(self, at: Location) -> None:
        """Begin to decode a blob that will soon be asked for."""
        key = (at.pack, at.offset)
        if at.codec == codecs.PLAIN or key in self._decoded or key in self._decoding:
            return
        with self._lock:
            if key in self._decoded or key in self._decoding or len(self._decoding) >= _QUEUE:
                return
            if self._decoders is None:
                self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
            future: Future[memoryview] = Future()
            self._decoding[key] = future
        self._decoders.submit(self._fulfil, at, future)

    def _decode_small(self, at: Location) -> memoryview | None:
        """Decode at once what takes less time than asking a thread, if it is in memory."""
        stored = self._packs.open(at.pack).resident(at.offset, at.stored)
        if stored is None:
            return None
        plain = _decode_stored(at, stored)
        with self._lock:
            self._keep(at, plain)
        return plain

    def _keep(self, at: Location, plain: memoryview) -> None:
        """Put a blob into the cache; the caller holds the lock."""
        if (at.pack, at.offset) in self._decoded:
            return
        self._decoded[at.pack, at.offset] = plain
        self._cached += len(plain)
        while self._cached > self._cache_bytes and len(self._decoded) > 1:
            _, oldest = self._decoded.popitem(last=False)
            self._cached -= len(oldest)

    def _decode(self, at: Location) -> memoryview:
        key = (at.pack, at.offset)
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
            self._fulfil(at, future)
        return future.result()

    def _fulfil(self, at: Location, future: Future[memoryview]) -> None:
        key = (at.pack, at.offset)
        try:
            stored = self._packs.open(at.pack).read(at.offset, at.stored)
            plain = _decode_stored(at, stored)
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            with self._lock:
                if self._decoding.pop(key, None) is not None:
                    future.set_exception(error)
            return
        with self._lock:
            if self._decoding.pop(key, None) is None:
                return  # closed in the meantime, which the future tells
            self._keep(at, plain)
            future.set_result(plain)

    def forget(self) -> None:
        """Drop what was decoded, as the packs are no longer those it came from."""
        with self._lock:
            self._decoded.clear()
            self._cached = 0

    def close(self) -> None:
        """End the decoders; whoever waits for a blob that they had not begun gets an error."""
        if self._decoders is not None:
            self._decoders.shutdown(cancel_futures=True)
        with self._lock:
            for future in self._decoding.values():
                future.set_exception(Damaged("the archive was closed"))
            self._decoding.clear()
            self._decoded.clear()
            self._cached = 0


def _decode_stored(at: Location, stored: bytes | memoryview) -> memoryview:
    _check_stored(at, stored)
    return memoryview(stored) if at.codec == codecs.PLAIN else codecs.decode(at.codec, stored, at.length)


def _check_stored(at: Location, stored: bytes | memoryview) -> None:
    if at.codec == codecs.PLAIN:
        _verify(at, memoryview(stored), 0)
    elif crc32(stored) != at.crcs[0]:
        raise Damaged(f"pack {at.pack:08d}: the blob at {at.offset} is damaged")


def _verify(at: Location, data: memoryview, first: int) -> None:
    step = codecs.CRC_CHUNK
    number = first // step
    if len(data) <= step:
        good = crc32(data) == at.crcs[number]
    else:
        good = all(
            crc32(data[start : start + step]) == crc
            for start, crc in zip(range(0, len(data), step), at.crcs[number:], strict=False)
        )
    if not good:
        raise Damaged(f"pack {at.pack:08d}: the blob at {at.offset} is damaged")
