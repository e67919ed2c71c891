"""What an edit makes of one instance: the whole file that takes its place, told by a row as an import gives it.

    the instance     header | blob | blob …                  Parts
    its next version header, edited | the same blobs …       dicom/edit, put together by deriving.py

The header is compressed against the base that the instance's own has, so an edit costs little more than a recipe. The
SHA-256 is that of the whole file, for which every byte of it is read, checked and decoded, once. The same instance and
changes give the same file in any archive, so that an edit can be done again there.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from dicomfs.archive import header_bases
from dicomfs.archive.archive import MAX_HEADER, NO_BASE, Archive
from dicomfs.archive.deriving import NewBlob, PutTogether, Withheld, put_together, reader
from dicomfs.archive.parts import Parts
from dicomfs.archive.splitting import Levels, Row
from dicomfs.dicom.edit import Changes, Refused, Sought, affected
from dicomfs.dicom.edit_in_turn import edit_in_turn
from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.recipe import BlobId, Recipe

_BASES_KEPT: Final = 16


class Edited(NamedTuple):
    """The next version of an instance: plain values, which travel between processes."""

    row: Row
    blobs: list[NewBlob]
    """Those that its earlier version has not; the rest, and its base, are in the archive."""


class Definition(NamedTuple):
    """What a commit's "edit" says: what was changed in each instance that it replaces."""

    changes: Changes
    references: frozenset[int]
    """Instances that it replaced only because they refer to what has other UIDs now."""

    @property
    def of_references(self) -> Changes:
        """What was changed in those."""
        return uids_only(self.changes)

    def to_json(self) -> dict[str, object]:
        """Return what a commit keeps."""
        held: dict[str, object] = {**self.changes.to_json()}
        if self.references:
            held["references"] = sorted(self.references)
        return held

    @classmethod
    def from_json(cls, said: object) -> "Definition":
        """Read what a commit keeps; raise ValueError for anything else."""
        if not isinstance(said, dict):
            raise ValueError("what was asked is no object")
        numbers = said.get("references", [])
        if not isinstance(numbers, list) or not all(isinstance(one, int) for one in numbers):
            raise ValueError("references are no numbers")
        rest = {key: value for key, value in said.items() if key != "references"}
        return cls(Changes.from_json(rest), frozenset(numbers))


def uids_only(changes: Changes) -> Changes:
    """Return the same edit for instances that were not chosen: they are to name what was by its new UIDs."""
    return Changes(time=changes.time, uids=changes.uids, reason=changes.reason, system=changes.system)


def edited(archive: Archive, ino: int, changes: Changes) -> Edited | None:
    """Return what an edit makes of an instance, None where nothing changes.

    Raise Withheld, with a reason without any value, where it cannot be done; NotFound, Damaged.
    """
    return Editor(archive).edited(ino, changes)


class Editor:
    """Edits instances of an archive, one after another. Belongs to one thread."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._coded = archive.settings.codec != "none"
        self._bases: OrderedDict[bytes, header_bases.Base] = OrderedDict()

    def edited(self, ino: int, *changes: Changes) -> Edited | None:
        """Do what the function of this name does, with several changes one after another."""
        parts = Parts.open(self._archive, ino)
        made = self._made(parts, *changes)
        if made is None:
            return None
        base, body = self._header(ino, made)
        said = made.attributes
        levels = Levels(said.patient, said.study, said.series, said.instance)
        row = Row(made.size, self._sha256(made), base, body, len(made.literal), levels)
        return Edited(row, made.blobs)

    def before_and_after(self, ino: int, changes: Changes) -> tuple[bytes, bytes] | None:
        """Return what lies before the first bulk data of an instance, and of what an edit would make of it."""
        parts = Parts.open(self._archive, ino)
        made = self._made(parts, changes)
        if made is None:
            return None
        recipe = Recipe(made.recipe)
        first = next((number for number, blob in enumerate(recipe.blobs) if blob is not None), len(recipe.blobs))
        if not first or parts.source is not parts.file:  # it was kept whole, or is deflated
            return bytes(parts.file.read(0, parts.file.size)), b"".join(self._extents(made))
        return parts.file.head(parts.file.size), made.literal[: sum(recipe.lengths[:first])]

    def refers(self, ino: int, uids: Sought) -> bool:
        """Say whether an instance may hold any of these UIDs."""
        parts = Parts.open(self._archive, ino)
        return affected(parts.data, parts.part10, reader(parts), uids)

    def _made(self, parts: Parts, *changes: Changes) -> PutTogether | None:
        try:
            pieces = edit_in_turn(parts.data, parts.part10, reader(parts), changes)
        except Refused as error:
            raise Withheld(error.reason) from error
        return None if pieces is None else put_together(parts, pieces, coded=self._coded)

    def _header(self, ino: int, made: PutTogether) -> tuple[bytes, bytes]:
        """Compress a header against the base that the instance has; return base and body."""
        header = header_bases.header_of(made.recipe, made.literal)
        if len(header) > MAX_HEADER:
            raise Withheld("its header would be too long")
        with self._archive.view() as view:
            base = self._base(view.instance_inode(ino).base)
        body: bytes = base.compressor.compress(header)
        if base.decompressor.decompress(body, max_output_size=len(header)) != header:
            raise Withheld("its header cannot be kept exactly: please report it")
        return base.blob, body

    def _base(self, blob: bytes) -> header_bases.Base:
        found = self._bases.get(blob)
        if found is None:
            if blob == NO_BASE:
                found = header_bases.no_base()
            else:
                found = header_bases.make(blob, bytes(self._blob(BlobId(blob))))
            self._bases[blob] = found
            if len(self._bases) > _BASES_KEPT:
                self._bases.popitem(last=False)
        return found

    def _sha256(self, made: PutTogether) -> bytes:
        digest = hashlib.sha256()
        for extent in self._extents(made):
            digest.update(extent)
        return digest.digest()

    def _extents(self, made: PutTogether) -> Iterator[bytes | memoryview]:
        """Yield the bytes of a file, in order."""
        new = {blob.blob: blob for blob in made.blobs}
        literal = memoryview(made.literal)
        recipe = Recipe(made.recipe)
        for length, blob, at in zip(recipe.lengths, recipe.blobs, recipe.literal_starts, strict=True):
            data = literal[at : at + length] if blob is None else self._bulk(blob, new)
            if len(data) != length:
                raise Damaged("a part of an instance is not as long as its recipe says")
            yield data

    def _bulk(self, blob: BlobId, new: Mapping[bytes, NewBlob]) -> memoryview:
        found = new.get(blob)
        if found is None:
            return self._blob(blob)
        return codecs.decode(found.codec, found.stored, found.length, found.checks)

    def _blob(self, blob: BlobId) -> memoryview:
        store = self._archive.store
        with store.index.reading() as txn:
            location = store.locate(txn, blob)
        return store.blobs.whole(location)
