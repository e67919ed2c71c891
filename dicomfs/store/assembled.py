"""A file put together from its recipe, readable at any offset."""

from collections.abc import Callable
from typing import Final

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.blobs import BlobReader
from dicomfs.store.location import Location
from dicomfs.store.recipe import BlobId, Recipe

LOOK_AHEAD: Final = 3
"""How many blobs past the one read a sequential reader has decoded for it."""
_NEAR: Final = 4 << 20
"""A read this close to where the last one ended counts as sequential: the kernel's arrive out of order."""


class AssembledFile:
    """One file of the archive, open for reading. Immutable; may be shared by threads (`read_ready` by one)."""

    def __init__(
        self,
        recipe: Recipe,
        literals: memoryview,
        blobs: BlobReader,
        locate: Callable[[list[BlobId]], list[Location | None]],
    ) -> None:
        """Join a recipe with its literal stream; `locate` finds blobs in the index when first needed."""
        if recipe.literal_length != len(literals):
            raise Damaged("a file's header is not as long as its recipe says")
        self.size = recipe.size
        self._recipe = recipe
        self._literals = literals
        self._blobs = blobs
        self._locate = locate
        self._locations: dict[int, Location] = {}
        self._last_end = 0

    def read_ready(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return up to `size` bytes at `offset` if nothing has to be waited for, else None."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        parts: list[memoryview] = []
        for number, start, stop in self._parts(offset, end):
            if self._recipe.blobs[number] is None:
                at = self._recipe.literal_starts[number]
                parts.append(self._literals[at + start : at + stop])
                continue
            data = self._blobs.ready(self._location(number), start, stop)
            if data is None:
                return None
            parts.append(data)
        self._look_ahead(offset, end)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return up to `size` bytes at `offset`, fewer only at the end; raise Damaged, never wrong bytes."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        self._look_ahead(offset, end)
        parts: list[memoryview] = []
        for number, start, stop in self._parts(offset, end):
            if self._recipe.blobs[number] is None:
                at = self._recipe.literal_starts[number]
                parts.append(self._literals[at + start : at + stop])
            else:
                parts.append(self._blobs.read(self._location(number), start, stop))
        return parts[0] if len(parts) == 1 else b"".join(parts)

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
                self._location(number)

    def close(self) -> None:
        """End reading; there is nothing to give back yet, but callers must not rely on that."""

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

    def _location(self, number: int) -> Location:
        found = self._locations.get(number)
        if found is None:
            # A file is mostly read on from where a read began, so its next blobs are looked up along.
            blobs = self._recipe.blobs
            near = range(number, min(number + 256, len(blobs)))
            wanted = [one for one in near if blobs[one] is not None and one not in self._locations]
            ids = [blob for candidate in wanted if (blob := blobs[candidate]) is not None]
            for candidate, location in zip(wanted, self._locate(ids), strict=True):
                if location is not None and location.length == self._recipe.lengths[candidate]:
                    self._locations[candidate] = location
            found = self._locations.get(number)
            if found is None:
                raise Damaged("a blob of this file is not in the index, or not as long as the recipe says")
        return found

    def _look_ahead(self, offset: int, end: int) -> None:
        sequential = offset > 0 and abs(offset - self._last_end) <= _NEAR
        self._last_end = end
        if not sequential or end >= self.size:
            return
        recipe = self._recipe
        number = recipe.first(end)
        left = LOOK_AHEAD
        while left and number < len(recipe.blobs):
            if recipe.blobs[number] is not None:
                try:
                    location = self._location(number)
                except Damaged:
                    return  # which concerns the read that gets there
                if location.codec == codecs.PLAIN:
                    return
                self._blobs.look_ahead(location)
                left -= 1
            number += 1
