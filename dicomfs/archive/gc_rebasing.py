"""Compress headers against another base where theirs tells what is to be forgotten.

The base of a series is the header of the file that came first. When that is forgotten its base has to go too, so every
header that needs it is compressed once more: against that of the first file of them that stays.
"""

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from isal.isal_zlib import crc32

from dicomfs.archive import header_bases, tables
from dicomfs.archive.archive import NO_BASE, Archive
from dicomfs.archive.header_bases import Base
from dicomfs.archive.tables import U64
from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.repack import Fresh

_OPEN: Final = 16
"""So many bases are held in memory, each up to a megabyte."""


class _New(NamedTuple):
    """What takes the place of a base."""

    blob: bytes
    """NO_BASE where headers stand alone from now on."""
    ino: int
    """The file of whose header it is made."""
    is_new: bool
    """Whether the archive does not have it yet."""


class Rebasing:
    """Which bases have to go, and what takes their places. Belongs to one thread."""

    def __init__(self, archive: Archive, forgotten: Iterable[int]) -> None:
        """Look for the bases that were made of these files; raise Damaged."""
        self._archive = archive
        self._new: dict[bytes, _New] = {}
        self._open: OrderedDict[bytes, Base] = OrderedDict()
        self.commits: set[int] = set()
        """The commits that have headers to be compressed once more."""
        numbers = frozenset(forgotten)
        bases = {base for base in map(self._as_base, numbers) if self._is_known(base)}
        users: defaultdict[bytes, list[tuple[int, int]]] = defaultdict(list)
        for ino, base, seq in self._files() if bases else ():
            if base in bases and ino not in numbers:
                users[base].append((ino, seq))
        for base, files in users.items():
            new = self._first(base, [ino for ino, _ in files])
            if new.blob != base:
                self._new[base] = new
                self.commits.update(seq for _, seq in files)

    def _files(self) -> Iterable[tuple[int, bytes, int]]:
        store = self._archive.store
        with store.index.reading() as txn:
            cursor = txn.cursor(db=store.index.tables["inode"])
            for key, value in cursor.iternext() if cursor.first() else ():
                if value[0] in (tables.INSTANCE, tables.DERIVED):
                    inode = tables.InstanceInode.parse(value)
                    yield U64.unpack(key)[0], inode.base, inode.seq

    def _as_base(self, ino: int) -> bytes:
        return header_bases.blob_id(self._literals(ino))

    def _literals(self, ino: int) -> bytes:
        return header_bases.parts_of(self._archive.read_header(ino))[1]

    def _is_known(self, blob: bytes) -> bool:
        store = self._archive.store
        with store.index.reading() as txn:
            return txn.get(blob, db=store.blob_table) is not None

    def _first(self, base: bytes, files: list[int]) -> _New:
        for ino in files:
            literals = self._literals(ino)
            if header_bases.can_be_base(literals):
                blob = header_bases.blob_id(literals)
                return _New(blob, ino, not self._is_known(blob))
        return _New(base if not files else NO_BASE, 0, False)

    def base_of(self, base: bytes) -> bytes:
        """Return the base that headers have instead of this one: itself mostly."""
        return self._new[base].blob if base in self._new else base

    def header(self, ino: int, base: bytes) -> tuple[bytes, bytes, Fresh | None]:
        """Return the base and the compressed header of a file whose base has to go, and the base if it brings it."""
        new = self._new[base]
        header = self._archive.read_header(ino)
        held = self._opened(new)
        body: bytes = held.compressor.compress(header)
        if held.decompressor.decompress(body, max_output_size=len(header)) != header:
            raise Damaged(f"the header of inode {ino} cannot be compressed anew exactly: please report it")
        return new.blob, body, self._fresh(new) if new.is_new and ino == new.ino else None

    def _opened(self, new: _New) -> Base:
        if new.blob == NO_BASE:
            return header_bases.no_base()
        found = self._open.get(new.blob)
        if found is None:
            found = self._open[new.blob] = header_bases.make(new.blob, self._literals(new.ino))
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return found

    def _fresh(self, new: _New) -> Fresh:
        literals = self._literals(new.ino)
        stored: bytes = header_bases.no_base().compressor.compress(literals)
        assert hashlib.sha256(literals).digest() == new.blob
        crc = crc32(stored)
        return Fresh(header_bases.blob_id(literals), codecs.ZSTD, len(literals), stored, crc)
