"""Copy a version from one archive into another: its blobs as they are stored, its base, its compressed header.

Nothing is encoded again. Everything is proved before it counts, since the other archive's packs may be hurt: what is
stored decodes to the SHA-256 of the blob, and all of it, in the order of the recipe, to that of the file.
"""

import hashlib
from functools import partial
from typing import NamedTuple

from isal.isal_zlib import crc32

from dicomfs.archive.archive import NO_BASE, Archive
from dicomfs.archive.levels import levels_of
from dicomfs.archive.reading import file_inode
from dicomfs.archive.splitting import Row
from dicomfs.archive.tables import InstanceInode
from dicomfs.errors import Damaged, NotFound
from dicomfs.store import codec as codecs
from dicomfs.store.location import Location
from dicomfs.store.recipe import BlobId
from dicomfs.store.store import Store
from dicomfs.store.writer import Writer


class Copied(NamedTuple):
    """A version whose bytes are in the archive, but for its row; the numbers are those of `Changing.replace`."""

    row: Row
    new_bulk: int
    new_stored: int
    new_base: int


class Copier:
    """Copies versions of one archive into the commit in the making of another. Belongs to one thread."""

    def __init__(self, source: Archive) -> None:
        self._source = source

    def copy(self, sha: str, writer: Writer) -> Copied:
        """Copy the version with this SHA-256; raise Damaged where its bytes are not those, NotFound."""
        source = self._source
        with source.view() as view:
            ino = view.ino_of_file(bytes.fromhex(sha))
            if ino is None:
                raise NotFound(f"there is no file with SHA-256 {sha}")
        inode, body = source.reading(partial(_header, ino))
        file = source.open_instance(ino)
        digest = hashlib.sha256()
        bulk = stored = 0
        literals = dict(file.literals())
        for start, end, blob in file.extents(0, file.size):
            if blob is None:
                digest.update(literals[start])
                continue
            plain, taken = self.blob(blob, writer)
            digest.update(plain)
            bulk += len(plain) if taken else 0
            stored += taken
            if len(plain) != end - start:
                raise Damaged(f"the file {sha} has a blob of another length than its recipe says")
        if digest.hexdigest() != sha or inode.sha256.hex() != sha:
            raise Damaged(f"the bytes of the file {sha} are not those that were imported")
        base = self.blob(BlobId(inode.base), writer, prefix=b"h/")[1] if inode.base != NO_BASE else 0
        row = Row(file.size, inode.sha256, inode.base, body, file.literal_length, levels_of(source, ino))
        return Copied(row, bulk, stored, base)

    def blob(self, blob: BlobId, writer: Writer, *, prefix: bytes = b"o/") -> tuple[memoryview, int]:
        """Copy a blob unless it is there; return what it is, and how many bytes were appended. Raise Damaged."""
        location, data = self._source.reading(partial(_stored, blob))
        plain = codecs.decode(location.codec, data, location.length, location.checks)
        if hashlib.sha256(plain).digest() != blob:
            raise Damaged(f"pack {location.pack:08d}: the bytes of blob {blob.hex()} do not have its SHA-256")
        added = writer.add_blob(
            blob, location.codec, location.length, data, crc32(data), location.checks, prefix=prefix
        )  # fmt: skip
        return plain, location.stored if added else 0


def _header(ino: int, store: Store) -> tuple[InstanceInode, bytes]:
    with store.index.reading() as txn:
        inode = file_inode(txn, store.index.tables["inode"], ino)
        place = store.commit_place(txn, inode.seq)
    return inode, store.read_body(place, inode.body_offset, inode.body_length)


def _stored(blob: BlobId, store: Store) -> tuple[Location, bytes]:
    location = store.find_one(blob)
    return location, store.packs.open(location.pack).read(location.offset, location.stored)
