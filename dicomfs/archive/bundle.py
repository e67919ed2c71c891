"""Bundles: files of the cache that hold the documents of one series, of one study, or of the list of all studies.

    magic        16 bytes
    contents     documents (gzip members) and records, one after the other
    table        what is where; see `_Table`
    trailer      u64 offset and u64 length of the table, u32 CRC-32 of it, 4 bytes of magic

A bundle is written to a temporary name and renamed, so that nobody sees half of one; one that was cut off or
changed is found out by its trailer and the table's CRC, and is made anew. Documents bring their own CRC-32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias, overload

if TYPE_CHECKING:
    from dicomfs.dicom.model import BulkValue

Key: TypeAlias = tuple[str, int]


class Extent(NamedTuple):
    """Where a document lies in its bundle."""

    offset: int
    size: int


class Card(NamedTuple):
    """What a directory of an instance has to know of it."""

    ino: int
    name: str
    """The directory's name: the SOP Instance UID made legal."""
    mtime_ns: int
    frames: int
    single_stream: bool
    colour: bool
    rows: int
    columns: int
    kind: str
    """'image', 'none', 'pdf' or 'video'."""
    damaged: bool
    """Its header cannot be read: it is in no document, and has no frames and no bulk values."""
    bulk: tuple[BulkValue, ...]


class Hashed(NamedTuple):
    """A file bulkdata/<h0-3>/<h3-5>/<h5->.<ext> of a study."""

    sha256: str
    ext: str
    ino: int
    """The instance that has the value; 0 where the bundle itself has the bytes."""
    bulk: BulkValue | None
    extent: Extent | None


class Cards(Sequence[Card]):
    """The cards of a bundle in the order of its documents, decoded when asked for."""

    def __len__(self) -> int:
        raise NotImplementedError

    @overload
    def __getitem__(self, at: int) -> Card: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Card, ...]: ...
    def __getitem__(self, at: int | slice) -> Card | tuple[Card, ...]:
        """Return one card, or several."""
        raise NotImplementedError

    def names(self) -> Iterator[tuple[str, int, int]]:
        """Walk (name, ino, mtime_ns) of all cards, which is quicker than the cards themselves."""
        raise NotImplementedError

    def named(self, name: str) -> Card | None:
        """Return the card of the instance's directory that has this name."""
        raise NotImplementedError

    def of(self, ino: int) -> Card | None:
        """Return the card of an instance."""
        raise NotImplementedError


class Bundle:
    """One bundle, open for reading (mapped). May be shared by threads."""

    cards: Cards
    middle: int
    """The instance whose picture is the series'; 0 where there is none."""
    name: str
    """Of a study's bundle: the hash under which its deduplicated list is found; else ''."""

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Open a bundle; raise FileNotFoundError where there is none, Damaged where it is not whole."""
        raise NotImplementedError

    def get(self, key: Key) -> Extent | None:
        """Return where a document lies."""
        raise NotImplementedError

    def read(self, offset: int, size: int) -> memoryview:
        """Return bytes of the file, without a copy."""
        raise NotImplementedError

    def hashed(self, prefix: str = "") -> Iterator[Hashed]:
        """Walk the values and objects of a study whose SHA-256 begins with these hexadecimal digits, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget the file; bytes that were read stay good."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
