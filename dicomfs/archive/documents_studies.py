"""The bundle of the list of all studies: one query document, made of the catalog alone.

Pieces of some 256 studies are taken over from the bundle before it where nothing of their rows changed, so that
a list of 100,000 studies costs one scan of the rows and the pieces that did change.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from dicomfs.archive import bundle_writing, documents, documents_query, tables
from dicomfs.archive.archive import Viewing
from dicomfs.archive.bundle_writing import BundleWriter, ListPiece
from dicomfs.archive.documents_series import batches, list_end, list_piece, taken_over
from dicomfs.archive.tables import U64

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.bundle import Bundle

_PER_PIECE: Final = 256


class _Rows(Viewing):
    """A view that walks the rows of studies without reading all of them."""

    __slots__ = ()

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Walk number and fixed part of the studies with instances."""
        cursor = self._txn.cursor(db=self._tables["study"])
        if not cursor.first():
            return
        for key, value in cursor.iternext():
            if tables.STUDY.unpack_from(value)[2]:
                yield U64.unpack(key)[0], value[: tables.STUDY.size]

    def query(self, number: int) -> str:
        """Return a study's query object."""
        study = self.study(number)
        get, rows = self._txn.get, self._tables["series"]
        series = (
            get(U64.pack(series), db=rows) or bytes(tables.SERIES.size) for series in self._below("under", number)
        )
        # What replaced a series' last instance may lie in another series.
        filled = sum(1 for row in series if tables.SERIES.unpack_from(row)[1])
        return documents_query.study(study, self.patient(study.patient), filled, self.shown(number))


def make(archive: Archive, cache: Path) -> Path:
    """Make the bundle of the list if it is not there; raise StorageFull."""
    rows = _Rows(archive.store)
    with rows:
        path = documents.path(cache, "studies", documents.STUDIES, documents.studies_stamp(rows))
        if bundle_writing.is_there(path):
            return path
        before = bundle_writing.before(path)
        with BundleWriter(path) as writer:
            writer.add_list("studies", _pieces(rows, before))
            writer.commit()
    return path


def _pieces(view: _Rows, before: Bundle | None) -> Iterator[ListPiece]:
    earlier = {} if before is None else before.pieces()
    fixed: list[bytes] = []

    def numbers() -> Iterator[int]:
        for number, row in view.rows():
            fixed.append(U64.pack(number) + row)
            yield number

    first = True
    for batch in batches(numbers(), _PER_PIECE):
        known = sha256(b"".join((bytes([first]), *fixed))).digest()[:16]
        fixed.clear()
        kept = earlier.get(("studies", known))
        if kept is not None and before is not None:
            yield taken_over(before, kept, known)
        else:
            yield list_piece(map(view.query, batch), known, first=first)
        first = False
    yield list_end(empty=first)
