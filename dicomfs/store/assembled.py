"""A file put together from its recipe, readable at any offset."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Final, TypeAlias

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.ahead import Window
from dicomfs.store.blobs import BlobReader
from dicomfs.store.decoders import Part
from dicomfs.store.location import Location
from dicomfs.store.packs import PackGone
from dicomfs.store.recipe import BlobId, Recipe

LOOK_AHEAD: Final = 2
"""How many windows past the one read a sequential reader has made for it."""
WINDOW: Final = 1 << 21
"""How long a window is at least."""
_LONG: Final = 1 << 17
"""A read of this length is one of many: nobody who wants a header asks for so much."""
_NEAR: Final = 4 << 20
"""A long read this close to where the last one ended goes on from it: the kernel's arrive out of order."""


Locate: TypeAlias = Callable[[list[BlobId]], list[Location | None]]
"""Find blobs in the index."""
Renew: TypeAlias = Callable[[BlobReader], tuple[BlobReader, Locate] | None]
"""Return what reads blobs instead of a reader that lacks a pack; None where there is nothing newer."""


class _Held:
    """Where a file's blobs are read from, and where they lie there, as far as was asked."""

    __slots__ = ("blobs", "locate", "locations")

    def __init__(self, blobs: BlobReader, locate: Locate) -> None:
        self.blobs = blobs
        self.locate = locate
        self.locations: dict[int, Location] = {}


class AssembledFile:
    """One file of the archive, open for reading. May be shared by threads (`read_ready` by one).

    What it reads never changes. Packs may be replaced below it: then its blobs are located once more.
    """

    def __init__(
        self,
        recipe: Recipe,
        literals: memoryview,
        blobs: BlobReader,
        locate: Locate,
        renew: Renew = lambda _: None,
    ) -> None:
        """Join a recipe with its literal stream; `locate` finds blobs in the index when first needed."""
        if recipe.literal_length != len(literals):
            raise Damaged("a file's header is not as long as its recipe says")
        self.size = recipe.size
        self.literal_length = len(literals)
        self._recipe = recipe
        self._literals = literals
        self._held = _Held(blobs, locate)
        self._renew = renew
        self._ahead = blobs.ahead
        self._last_end = 0
        self._windows: list[Window] = []

    def read_ready(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return up to `size` bytes at `offset` if nothing has to be waited for, else None."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        window = self._window(offset, end)
        if window is not None:
            future = window.future
            if future is None or not future.done() or future.cancelled() or future.exception() is not None:
                return None
            self._order(offset, end, end)
            return self._taken(window, future.result(), offset, end)
        try:
            parts = self._ready(offset, end)
        except PackGone:
            return None  # which `read` goes on from
        self._order(offset, end, offset if parts is None else end)
        if parts is None:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _ready(self, offset: int, end: int) -> list[memoryview] | None:
        """Return the parts of a range, None where one has to be waited for."""
        held = self._held
        parts: list[memoryview] = []
        for number, start, stop in self._parts(offset, end):
            if self._recipe.blobs[number] is None:
                at = self._recipe.literal_starts[number]
                parts.append(self._literals[at + start : at + stop])
                continue
            data = held.blobs.ready(self._location(held, number), start, stop)
            if data is None:
                return None
            parts.append(data)
        return parts

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return up to `size` bytes at `offset`, fewer only at the end; raise Damaged, never wrong bytes."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        window = self._window(offset, end)
        future = None if window is None else window.future
        if window is not None and future is not None:
            try:
                return self._taken(window, future.result(), offset, end)
            except (Damaged, CancelledError):
                self._drop(window)
        self._order(offset, end, end)
        while True:
            held = self._held
            try:
                return self._assemble(held, offset, end)
            except PackGone:
                if not self._go_on_from(held):
                    raise

    def _go_on_from(self, held: _Held) -> bool:
        """Read from other packs than these from now on; say whether there are any."""
        if held is self._held:
            renewed = self._renew(held.blobs)
            if renewed is None:
                return False
            self._held = _Held(*renewed)
        return True

    def _assemble(self, held: _Held, offset: int, end: int) -> memoryview:
        """Put together a range of the file; wait as long as it takes."""
        found = self._parts(offset, end)
        if len(found) == 1:
            return self._part(held, *found[0])
        out = codecs.room(end - offset)
        at = 0
        for number, start, stop in found:
            part = out[at : at + stop - start]
            if self._recipe.blobs[number] is None:
                part[:] = self._part(held, number, start, stop)
            else:
                held.blobs.fill(self._location(held, number), start, stop, part)
            at += stop - start
        return out

    def _make(self, offset: int, end: int) -> memoryview:
        """Put together a window: by another process where there is one."""
        held = self._held
        found = self._parts(offset, end)
        literals: list[tuple[int, memoryview]] = []
        parts: list[Part] = []
        at = 0
        for number, start, stop in found:
            if self._recipe.blobs[number] is None:
                literals.append((at, self._part(held, number, start, stop)))
            else:
                parts.append(Part(self._location(held, number), start, stop, at))
            at += stop - start
        out = held.blobs.decoders.run(end - offset, parts)
        if out is None:
            return self._assemble(held, offset, end)
        for at, literal in literals:
            out[at : at + len(literal)] = literal
        return out

    def coming(self, offset: int, size: int) -> Future[memoryview] | None:
        """Return what is being made and holds this range, if anything is."""
        window = self._window(offset, min(offset + size, self.size))
        return None if window is None else window.future

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        """Begin to make what a reader of the whole file, or of this range, asks for first."""
        stop = self.size if stop is None else min(stop, self.size)
        if stop - start >= _LONG and not self._windows and self._is_coded(start):
            window = self._ahead.order(start, min(stop, start + WINDOW), self._make)
            self._windows = [] if window is None else [window]

    def _part(self, held: _Held, number: int, start: int, stop: int) -> memoryview:
        if self._recipe.blobs[number] is None:
            at = self._recipe.literal_starts[number]
            return self._literals[at + start : at + stop]
        return held.blobs.read(self._location(held, number), start, stop)

    def head(self, limit: int) -> bytes:
        """Return the file from its beginning up to its first blob, at most `limit` bytes."""
        blobs = self._recipe.blobs
        end = next(
            (start for start, blob in zip(self._recipe.starts, blobs, strict=True) if blob is not None), self.size
        )
        return bytes(self.read(0, min(end, limit)))

    def blob_ids(self) -> list[BlobId]:
        """Return the blobs of this file, as often as they occur."""
        return self._recipe.blob_ids()

    def resolve(self) -> None:
        """Find every blob in the index; raise Damaged where one is not there."""
        for number, blob in enumerate(self._recipe.blobs):
            if blob is not None:
                self._location(self._held, number)

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int, BlobId | None]]:
        """Yield what the file has from `start` to `end`, piece by piece: a blob's name where a piece is all of it."""
        if start >= end:
            return
        recipe = self._recipe
        for number, first, stop in self._parts(start, end):
            at, whole = recipe.starts[number], stop - first == recipe.lengths[number]
            yield at + first, at + stop, recipe.blobs[number] if whole else None

    def literals(self) -> Iterator[tuple[int, memoryview]]:
        """Yield what is no blob: where it lies in the file, and its bytes."""
        recipe = self._recipe
        for start, length, at, blob in zip(
            recipe.starts, recipe.lengths, recipe.literal_starts, recipe.blobs, strict=True
        ):
            if blob is None:
                yield start, self._literals[at : at + length]

    def close(self, start: int = 0, stop: int | None = None) -> None:
        """End reading, of the whole file or of this range: what was made for others stays."""
        stop = self.size if stop is None else stop
        for window in self._windows:
            if start <= window.start and window.stop <= stop:
                self._ahead.done(window)
        self._windows = [one for one in self._windows if one.future is not None]

    def _parts(self, offset: int, end: int) -> list[tuple[int, int, int]]:
        """Return (extent, start in it, end in it) for a range of the file."""
        recipe = self._recipe
        number = recipe.first(offset)
        found: list[tuple[int, int, int]] = []
        while offset < end:
            base = recipe.starts[number]
            stop = min(end - base, recipe.lengths[number])
            found.append((number, offset - base, stop))
            offset = base + stop
            number += 1
        return found

    def _location(self, held: _Held, number: int) -> Location:
        known = held.locations
        found = known.get(number)
        if found is None:
            # A file is mostly read on from where a read began, so its next blobs are looked up along.
            blobs = self._recipe.blobs
            near = range(number, min(number + 256, len(blobs)))
            wanted = [one for one in near if blobs[one] is not None and one not in known]
            ids = [blob for candidate in wanted if (blob := blobs[candidate]) is not None]
            for candidate, location in zip(wanted, held.locate(ids), strict=True):
                if location is not None and location.length == self._recipe.lengths[candidate]:
                    known[candidate] = location
            found = known.get(number)
            if found is None:
                raise Damaged("a blob of this file is not in the index, or not as long as the recipe says")
        return found

    def _window(self, offset: int, end: int) -> Window | None:
        """Return the window that holds this range, if one was ordered."""
        return next((one for one in self._windows if one.start <= offset and end <= one.stop), None)

    def _taken(self, window: Window, data: memoryview, offset: int, end: int) -> memoryview:
        """Return a part of a window, which is dropped when all of it was asked for."""
        window.left -= end - offset
        if window.left <= 0:
            self._drop(window)
        return data[offset - window.start : end - window.start]

    def _drop(self, window: Window) -> None:
        self._windows = [one for one in self._windows if one is not window]
        self._ahead.done(window)

    def _order(self, offset: int, end: int, start: int) -> None:
        """Have made what a sequential reader, who asks for this range, will ask for from `start` on."""
        if end - offset >= _LONG:
            sequential = not offset or abs(offset - self._last_end) <= _NEAR
        else:
            sequential = _LONG <= offset == self._last_end  # the kernel's read-ahead of a header is no reader
        self._last_end = end
        if not sequential or start >= self.size:
            return
        windows = [one for one in self._windows if one.future is not None and one.stop > offset]
        start = max((one.stop for one in windows), default=start)
        # Somebody waits for the first window, unless this range was answered: another one is made beside it.
        length = max(end - start, WINDOW if start >= end else 0)
        coming = sum(one.start > offset for one in windows)
        while start < self.size and coming < LOOK_AHEAD and self._is_coded(start):
            stop = min(start + length, self.size)
            window = self._ahead.order(start, stop, self._make)
            if window is None:
                break
            windows.append(window)
            coming += 1
            start = stop
            length = max(end - offset, WINDOW)
        self._windows = windows

    def _is_coded(self, offset: int) -> bool:
        """Say whether what begins here has to be decoded."""
        recipe = self._recipe
        number = recipe.first(offset)
        while number < len(recipe.blobs) and recipe.blobs[number] is None:
            number += 1
        try:
            return number < len(recipe.blobs) and self._location(self._held, number).codec != codecs.PLAIN
        except Damaged:
            return False  # which concerns the read that gets there
