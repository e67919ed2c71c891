"""Mark the blobs that something needs: what a recipe names, the base of a header, the document of an attachment.

Of each blob of the index the beginning of its SHA-256 is kept in memory, and one byte that says whether it is needed:
nine bytes in all, 90 MB for ten million blobs. Two blobs that begin alike are marked together, so that what is needed
is never taken for what is not. The header of every file is read and decoded once.
"""

from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from dicomfs.archive import tables
from dicomfs.archive.archive import NO_BASE, Archive
from dicomfs.archive.gc_forgetting import Forgetting
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.errors import Damaged
from dicomfs.store import location as locations
from dicomfs.store.index import Transaction
from dicomfs.store.location import Location
from dicomfs.store.recipe import BlobId, Recipe
from dicomfs.store.store import Store

if TYPE_CHECKING:
    import numpy.typing as npt

_BEGINNING: Final = 8
_AT_ONCE: Final = 4096
_FILES: Final = 1000


class Marks:
    """Which blobs of an index are needed. Belongs to one thread."""

    def __init__(self, store: Store, txn: Transaction) -> None:
        """Mark none."""
        import numpy as np

        cursor = txn.cursor(db=store.blob_table)
        keys = (key for key, _ in cursor.iternext(values=True)) if cursor.first() else iter(())
        beginnings = (int.from_bytes(key[:_BEGINNING], "big") for key in keys)
        self._known: npt.NDArray[np.uint64] = np.fromiter(beginnings, np.uint64)
        self._needed: npt.NDArray[np.bool_] = np.zeros(len(self._known), np.bool_)
        self._waiting: list[bytes] = []

    def mark(self, blobs: Collection[bytes]) -> None:
        """Mark blobs as needed; ones that the index does not know are nobody's to keep."""
        self._waiting += [blob[:_BEGINNING] for blob in blobs]
        if len(self._waiting) >= _AT_ONCE:
            self._settle()

    def _settle(self) -> None:
        import numpy as np

        wanted = np.unique(np.frombuffer(b"".join(self._waiting), ">u8").astype(np.uint64))
        self._waiting.clear()
        first = np.searchsorted(self._known, wanted, "left")
        self._needed[first[first < np.searchsorted(self._known, wanted, "right")]] = True
        # The first of those that begin alike is marked; all of them, where there are more.
        alike = np.flatnonzero(self._known[1:] == self._known[:-1])
        for at in alike:
            self._needed[at + 1] |= self._needed[at]

    def needs(self, blob: bytes) -> bool:
        """Say whether a blob is needed."""
        import numpy as np

        if self._waiting:
            self._settle()
        at = int(np.searchsorted(self._known, np.uint64(int.from_bytes(blob[:_BEGINNING], "big"))))
        return at < len(self._known) and bool(self._needed[at]) and self._begins_so(at, blob)

    def _begins_so(self, at: int, blob: bytes) -> bool:
        return int(self._known[at]) == int.from_bytes(blob[:_BEGINNING], "big")

    def walk(self, store: Store, txn: Transaction) -> Iterator[tuple[BlobId, Location]]:
        """Walk the blobs that are needed, in the order of the index that the marks were made for."""
        if self._waiting:
            self._settle()
        cursor = txn.cursor(db=store.blob_table)
        if cursor.first():
            for (key, value), needed in zip(cursor.iternext(), self._needed.tolist(), strict=True):
                if needed:
                    yield BlobId(key), locations.decode(value)


def mark(archive: Archive, forgotten: Forgetting, progress: OnProgress | None) -> Marks:
    """Mark what all files of the catalog need, earlier versions too but for those to be forgotten; raise Damaged."""
    store = archive.store
    with store.index.reading() as txn:
        marks = Marks(store, txn)
        total = sum(txn.stat(store.index.tables[table])["entries"] for table in ("instance", "source"))
    with archive.view() as view:
        marks.mark([bytes.fromhex(one.blob) for one in view.attachments() if one.is_there])
    for done, (ino, base) in enumerate(_files(archive)):
        if ino not in forgotten:
            marks.mark(needs(archive, ino))
            if base != NO_BASE:
                marks.mark([forgotten.base_of(base)])
        if progress is not None and done % 256 == 0:
            progress(Progress(done, total, 0, 0))
    return marks


def _files(archive: Archive) -> Iterator[tuple[int, bytes]]:
    """Walk the numbers and bases of all files in the order in which they came, some for each short transaction."""
    after = tables.FIRST_CLAIMED - 1
    while True:
        with archive.view() as view:
            found = list(islice(view.inodes(after), _FILES))
            nodes = ((ino, view.node(ino)) for ino in found)
            files = [(ino, view.file_inode(ino).base) for ino, node in nodes if node and not node.is_directory]
        if not found:
            return
        yield from files
        after = found[-1]


def needs(archive: Archive, ino: int) -> list[BlobId]:
    """Return the blobs that the recipe of a file names; raise Damaged."""
    header = archive.read_header(ino)
    if len(header) < 4:
        raise Damaged(f"inode {ino}: its header is cut off; run 'dicomfs check'")
    return Recipe(memoryview(header)[4 : 4 + int.from_bytes(header[:4], "little")]).blob_ids()
