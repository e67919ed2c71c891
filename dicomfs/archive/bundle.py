"""Bundles: files of the cache that hold the documents of one series, of one study, or of the list of all studies.

    magic        8 bytes
    contents     documents (gzip members) and records, one after the other
    table        what is where, in the sections below
    trailer      u64 offset and u64 length of the table, u32 CRC-32 of it, 8 bytes of magic

The table's sections, integers little endian:

    head         u32 keys, u32 pieces, u32 cards, u32 values, u32 hashed, u32 bytes of texts,
                 u64 inode number of the middle instance, 32 s name, u8 whether something was missing
    keys         u8 kind, u64 number, u64 offset, u64 size; in the order of kind and number
    pieces       16 s digest, u8 kind, u64 offset, u32 size, u32 CRC-32, u64 length: the pieces of which lists are made
    cards        u64 ino, u64 mtime_ns, u32 frames, u8 flags, u16 rows, u16 columns, u8 kind, u32 and u16 name,
                 u32 first value, u32 values, 32 s DeduppedHash
    values       u32 and u16 name, 2 s VR, u64 start, u64 end, u8 swap, 32 s SHA-256 of the value, or zeros
    hashed       32 s SHA-256, u8 extension, u64 ino, then a value without SHA-256; in the order of SHA-256
    texts        UTF-8, named by offset and length

A bundle is written to a temporary name and renamed, so that nobody sees half of one (`bundle_writing`); one that was
cut off or changed is found out by its trailer and the table's CRC, and is made anew. Documents bring their own CRC.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias, overload

from isal.isal_zlib import crc32

from dicomfs.dicom.model import BulkValue
from dicomfs.errors import Damaged

if TYPE_CHECKING:
    from pathlib import Path

Key: TypeAlias = tuple[str, int]

KINDS: Final = (
    "metadata", "index", "instance", "dedup", "study", "series", "deduplicated", "studies", "list",
    "kept", "query", "objects", "omidb", "imagedb", "nbss", "past", "superseded",
)  # fmt: skip
"""What keys may begin with; kept, query, objects and past are records of whoever makes the next bundle."""
CARD_KINDS: Final = ("none", "image", "pdf", "video")
EXTENSIONS: Final = ("raw", "json.gz")

MAGIC: Final = b"dfsdocs\n"
TRAILER: Final = Struct("<QQI8s")
HEAD: Final = Struct("<IIIIIIQ32sB")
KEY: Final = Struct("<BQQQ")
PIECE: Final = Struct("<16sBQIIQ")
CARD: Final = Struct("<QQIBHHBIHII32s")
VALUE: Final = Struct("<IH2sQQB32s")
HASHED: Final = Struct("<32sBQIH2sQQB")
SINGLE_STREAM, COLOUR, DAMAGED = 1, 2, 4
NO_HASH: Final = bytes(32)


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


class PieceKept(NamedTuple):
    """A deflated piece of a list, to be taken over by the next bundle."""

    extent: Extent
    crc32: int
    length: int


class Cards(Sequence[Card]):
    """The cards of a bundle in the order of its documents, decoded when asked for. May be shared by threads."""

    def __init__(self, cards: memoryview, values: memoryview, texts: memoryview) -> None:
        self._cards = cards
        self._values = values
        self._texts = texts
        self._by_ino: dict[int, int] = {}
        self._by_name: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._cards) // CARD.size

    @overload
    def __getitem__(self, at: int) -> Card: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Card, ...]: ...
    def __getitem__(self, at: int | slice) -> Card | tuple[Card, ...]:
        """Return one card, or several."""
        numbers = range(len(self))[at]
        return self._card(numbers) if isinstance(numbers, int) else tuple(map(self._card, numbers))

    def names(self) -> Iterator[tuple[str, int, int]]:
        """Walk (name, ino, mtime_ns) of all cards, which is quicker than the cards themselves."""
        for ino, mtime_ns, _, _, _, _, _, at, length, *_ in CARD.iter_unpack(self._cards):
            yield _text(self._texts, at, length), ino, mtime_ns

    def named(self, name: str) -> Card | None:
        """Return the card of the instance's directory that has this name."""
        if not self._by_name:
            self._by_name = {known: number for number, (known, _, _) in enumerate(self.names())}
        number = self._by_name.get(name)
        return None if number is None else self._card(number)

    def of(self, ino: int) -> Card | None:
        """Return the card of an instance."""
        number = self._number(ino)
        return None if number is None else self._card(number)

    def hashes(self, ino: int) -> tuple[bytes, tuple[bytes, ...]]:
        """Return the DeduppedHash of an instance, and the SHA-256 of each of its bulk values (zeros: not known)."""
        number = self._number(ino)
        if number is None:
            return NO_HASH, ()
        *_, first, count, digest = CARD.unpack_from(self._cards, number * CARD.size)
        values = self._values[first * VALUE.size : (first + count) * VALUE.size]
        return digest, tuple(sha256 for *_, sha256 in VALUE.iter_unpack(values))

    def _number(self, ino: int) -> int | None:
        if not self._by_ino:
            self._by_ino = {known: number for number, (known, *_) in enumerate(CARD.iter_unpack(self._cards))}
        return self._by_ino.get(ino)

    def _card(self, number: int) -> Card:
        ino, mtime_ns, frames, flags, rows, columns, kind, at, length, first, count, _ = CARD.unpack_from(
            self._cards, number * CARD.size
        )
        values = self._values[first * VALUE.size : (first + count) * VALUE.size]
        return Card(
            ino, _text(self._texts, at, length), mtime_ns, frames, bool(flags & SINGLE_STREAM), bool(flags & COLOUR),
            rows, columns, CARD_KINDS[kind], bool(flags & DAMAGED),
            tuple(self._value(*value) for value in VALUE.iter_unpack(values)),
        )  # fmt: skip

    def _value(self, at: int, length: int, vr: bytes, start: int, end: int, swap: int, _: bytes) -> BulkValue:
        return BulkValue(_text(self._texts, at, length), vr.decode(), start, end, swap)


class Bundle:
    """One bundle, open for reading. May be shared by threads.

    It is read and not mapped: a page that a disk does not give, or a file that was cut off, would end the process.
    """

    def __init__(self, path: Path, fd: int) -> None:
        """Read the table of a bundle whose file descriptor is this one's from now on; raise Damaged."""
        self.path = path
        self._fd = fd
        self._known: dict[Key, Extent] = {}
        size = os.fstat(fd).st_size
        if size < len(MAGIC) + TRAILER.size or self.read(0, len(MAGIC)) != MAGIC:
            raise self._damaged()
        offset, length, crc, magic = TRAILER.unpack(self.read(size - TRAILER.size, TRAILER.size))
        if magic != MAGIC or offset < len(MAGIC) or offset + length + TRAILER.size != size:
            raise self._damaged()
        table = memoryview(self.read(offset, length))
        if length < HEAD.size or crc32(table) != crc:
            raise self._damaged()
        self.crc32: int = crc
        """Of the table: two bundles of one stamp that have the same are the same."""
        *counts, texts, middle, name, missing = HEAD.unpack_from(table)
        self.middle: int = middle
        """The instance whose picture is the series'; 0 where there is none."""
        self.name: str = "" if name == NO_HASH else name.hex()
        """Of a study's bundle: the hash under which its deduplicated list is found; else ''."""
        self.missing = bool(missing)
        """Whether an instance could not be read when it was made: it may be worth another attempt."""
        at = HEAD.size
        sections: list[memoryview] = []
        for count, record in zip(counts, (KEY, PIECE, CARD, VALUE, HASHED), strict=True):
            sections.append(table[at : at + count * record.size])
            at += count * record.size
        if at + texts != length:
            raise self._damaged()
        self._keys, self._pieces, cards, values, self._hashed = sections
        self._texts = table[at:]
        self.cards = Cards(cards, values, self._texts)

    def _damaged(self) -> Damaged:
        return Damaged(f"{self.path}: is cut off or changed; it may be deleted, and is made anew then")

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Open a bundle; raise FileNotFoundError where there is none, Damaged where it is not whole."""
        return cls(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def __del__(self) -> None:
        os.close(self._fd)

    def get(self, key: Key) -> Extent | None:
        """Return where a document lies."""
        if self._known:
            return self._known.get(key)
        wanted = KINDS.index(key[0]), key[1]
        at = bisect_left(range(len(self._keys) // KEY.size), wanted, key=self._key)
        if at * KEY.size == len(self._keys) or self._key(at) != wanted:
            return None
        _, _, offset, size = KEY.unpack_from(self._keys, at * KEY.size)
        return Extent(offset, size)

    def remember(self) -> None:
        """Read all keys at once, for who is going to ask for most of them."""
        self._known = {
            (KINDS[kind], number): Extent(offset, size) for kind, number, offset, size in KEY.iter_unpack(self._keys)
        }

    def _key(self, number: int) -> tuple[int, int]:
        kind, of = KEY.unpack_from(self._keys, number * KEY.size)[:2]
        return kind, of

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file; raise Damaged where they are not there."""
        try:
            data = os.pread(self._fd, size, offset)
            while len(data) < size and (more := os.pread(self._fd, size - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise Damaged(f"{self.path}: cannot be read ({error.strerror})") from error
        if len(data) < size:
            raise self._damaged()
        return data

    def read_ready(self, offset: int, size: int) -> memoryview | None:
        """Return the same if they are in memory, else None."""
        buffer = memoryview(bytearray(size))
        try:
            got = os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: a filesystem that cannot tell
            return None
        return buffer if got == size else None

    def document(self, key: Key) -> bytes:
        """Return a whole document; raise Damaged where the bundle has none such."""
        extent = self.get(key)
        if extent is None:
            raise self._damaged()
        return self.read(*extent)

    def pieces(self) -> dict[tuple[str, bytes], PieceKept]:
        """Return the pieces of which its lists are made, by the list's kind and their digest."""
        return {
            (KINDS[kind], digest): PieceKept(Extent(offset, size), crc, length)
            for digest, kind, offset, size, crc, length in PIECE.iter_unpack(self._pieces)
        }

    def hashed(self, prefix: str = "", start: str = "") -> Iterator[Hashed]:
        """Walk the values and objects of a study whose SHA-256 begins with these hexadecimal digits, in order.

        `start` are the digits after these from which on they are wanted.
        """
        first = bytes.fromhex((prefix + start + "0" * 64)[:64])
        count = len(self._hashed) // HASHED.size
        for number in range(bisect_left(range(count), first, key=self._sha256), count):
            found = self._file(number)
            if not found.sha256.startswith(prefix):
                return
            yield found

    def digits(self, prefix: str, length: int, first: int = 0) -> Iterator[int]:
        """Walk the numbers that so many digits after a prefix are, from the `first` on; each is a bisection."""
        while first < 1 << 4 * length:
            found = next(self.hashed(prefix, f"{first:0{length}x}"), None)
            if found is None:
                return
            digits = int(found.sha256[len(prefix) : len(prefix) + length], 16)
            yield digits
            first = digits + 1

    def _sha256(self, number: int) -> bytes:
        at = number * HASHED.size
        return bytes(self._hashed[at : at + 32])

    def _file(self, number: int) -> Hashed:
        sha256, ext, ino, at, length, vr, start, end, swap = HASHED.unpack_from(self._hashed, number * HASHED.size)
        if not ino:
            return Hashed(sha256.hex(), EXTENSIONS[ext], 0, None, Extent(start, end - start))
        value = BulkValue(_text(self._texts, at, length), vr.decode(), start, end, swap)
        return Hashed(sha256.hex(), EXTENSIONS[ext], ino, value, None)

    def close(self) -> None:
        """Be done with it: the file is closed when nobody has the bundle any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(texts: memoryview, at: int, length: int) -> str:
    return str(texts[at : at + length], "utf-8")
