"""Write a bundle: contents as they come, the table at the end, and the name last."""

from __future__ import annotations

import contextlib
import os
import time
from secrets import token_hex
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from isal.isal_zlib import crc32

from dicomfs.archive import bundle as form
from dicomfs.archive.bundle import EXTENSIONS, KINDS, NO_HASH, Bundle, Card, Extent
from dicomfs.archive.documents_gzip import HEADER, Sum
from dicomfs.errors import Damaged, StorageFull

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from dicomfs.archive.bundle import Key
    from dicomfs.archive.documents_gzip import Piece
    from dicomfs.dicom.model import BulkValue

_ABANDONED_S: Final = 3600
"""A temporary file of this age belongs to a process that is gone."""


class ListPiece(NamedTuple):
    """A piece of a list, and the digest of what its text follows from."""

    digest: bytes
    piece: Piece


class BundleWriter:
    """One bundle on its way: `commit` gives it its name, anything else leaves no file. Belongs to one thread."""

    def __init__(self, path: Path) -> None:
        """Begin a bundle; raise StorageFull where that is not possible."""
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{token_hex(8)}")
        self._keys: list[tuple[int, int, int, int]] = []
        self._pieces: list[bytes] = []
        self._cards: list[bytes] = []
        self._values: list[bytes] = []
        self._hashed: list[bytes] = []
        self._texts = bytearray()
        self._known: dict[str, tuple[int, int]] = {}
        self._at = 0
        self.middle = 0
        self.name = ""
        self.missing = False
        try:
            _make_directory(path.parent)
            fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _explain(path, error) from error
        self._file = open(fd, "wb", buffering=1 << 18)  # noqa: SIM115 - `__exit__` closes it
        self.write(form.MAGIC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)

    def write(self, *parts: bytes | memoryview) -> Extent:
        """Write bytes; return where they lie."""
        at = self._at
        try:
            for part in parts:
                self._file.write(part)
                self._at += len(part)
        except OSError as error:
            raise _explain(self._path, error) from error
        return Extent(at, self._at - at)

    def add(self, key: Key, document: bytes | memoryview) -> None:
        """Write a document or a record."""
        self._keys.append((KINDS.index(key[0]), key[1], *self.write(document)))

    def add_list(self, kind: str, pieces: Iterable[ListPiece], of: int = 0) -> None:
        """Write a document made of pieces; the next bundle may take over those that have a digest."""
        number = KINDS.index(kind)
        start, _ = self.write(HEADER)
        whole = Sum()
        for digest, (data, crc, length) in pieces:
            extent = self.write(data)
            whole.add(crc, length)
            if digest:
                self._pieces.append(form.PIECE.pack(digest, number, *extent, crc, length))
        self.write(whole.trailer())
        self._keys.append((number, of, start, self._at - start))

    def add_card(self, card: Card, own: bytes, hashes: Iterable[bytes]) -> None:
        """Add an instance's card, with its DeduppedHash and the SHA-256 of each of its bulk values."""
        self.missing |= card.damaged
        flags = (
            card.single_stream * form.SINGLE_STREAM | card.colour * form.COLOUR | card.damaged * form.DAMAGED
        )  # fmt: skip
        self._cards.append(
            form.CARD.pack(
                card.ino, card.mtime_ns, card.frames, flags, card.rows, card.columns, form.CARD_KINDS.index(card.kind),
                *self._text(card.name), len(self._values), len(card.bulk), own,
            )
        )  # fmt: skip
        for value, digest in zip(card.bulk, hashes, strict=True):
            self._values.append(form.VALUE.pack(*self._value(value), digest))

    def add_value(self, digest: bytes, ino: int, value: BulkValue) -> None:
        """Add a bulk value that is known by its SHA-256."""
        self._hashed.append(form.HASHED.pack(digest, EXTENSIONS.index("raw"), ino, *self._value(value)))

    def add_object(self, digest: bytes, document: bytes) -> None:
        """Write an object of the deduplicated format, which is known by its DeduppedHash."""
        at, size = self.write(document)
        self._hashed.append(form.HASHED.pack(digest, EXTENSIONS.index("json.gz"), 0, 0, 0, b"", at, at + size, 1))

    def commit(self, path: Path | None = None) -> None:
        """Write the table and give the bundle its name, or another in the same directory.

        Those of the same number and an earlier stamp are removed.
        """
        path = path or self._path
        table = self._table()
        offset, length = self.write(table)
        self.write(form.TRAILER.pack(offset, length, crc32(table), form.MAGIC))
        try:
            self._file.close()
            os.rename(self._temporary, path)
        except OSError as error:
            raise _explain(path, error) from error
        _remove_others(path)

    def _table(self) -> bytes:
        sections = [
            [form.KEY.pack(*key) for key in sorted(self._keys)],
            self._pieces,
            self._cards,
            self._values,
            # By SHA-256 and extension; of those that several instances have, the first in the order of documents.
            list({record[:33]: record for record in reversed(self._hashed)}.values()),
        ]
        sections[-1].sort()
        name = bytes.fromhex(self.name) if self.name else NO_HASH
        head = form.HEAD.pack(*map(len, sections), len(self._texts), self.middle, name, self.missing)
        return b"".join([head, *(b"".join(section) for section in sections), self._texts])

    def _value(self, value: BulkValue) -> tuple[int, int, bytes, int, int, int]:
        return *self._text(value.name), value.vr.encode(), value.start, value.end, value.swap

    def _text(self, text: str) -> tuple[int, int]:
        found = self._known.get(text)
        if found is None:
            encoded = text.encode("utf-8", "replace")
            found = self._known[text] = len(self._texts), len(encoded)
            self._texts += encoded
        return found


def before(*paths: Path) -> Bundle | None:
    """Return the latest whole bundle of these kinds and numbers, to take over from."""
    for earlier in sorted((one for path in paths for one in _same(path)), key=_changed, reverse=True):
        with contextlib.suppress(OSError, Damaged):
            return Bundle.open(earlier)
    return None


def remove(path: Path) -> None:
    """Remove the bundles of the same kind and number."""
    for one in _same(path):
        with contextlib.suppress(OSError):
            os.unlink(one)


def is_there(path: Path) -> bool:
    """Say whether this very bundle is there and whole."""
    try:
        Bundle.open(path).close()
    except (OSError, Damaged):
        return False
    return True


def _same(path: Path) -> list[Path]:
    """Return the bundles of the same kind and number; a directory holds those of few numbers."""
    start = path.name.rpartition("-")[0] + "-"
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    return [path.with_name(name) for name in names if name.startswith(start)]


def _remove_others(path: Path) -> None:
    for other in _same(path):
        # Who was slow must not remove what was made of a later state meanwhile.
        if other != path and _age(other) <= _age(path):
            with contextlib.suppress(OSError):
                os.unlink(other)
    start = "." + path.name.rpartition("-")[0] + "-"
    for name in os.listdir(path.parent):
        left = path.with_name(name)
        if name.startswith(start) and time.time() - _changed(left) > _ABANDONED_S:
            with contextlib.suppress(OSError):
                os.unlink(left)


def _age(path: Path) -> int:
    """Return the number that every stamp begins with, and that rises with every change."""
    try:
        return int(path.name.rpartition("-")[2].partition(".")[0], 16)
    except ValueError:
        return 0


def _changed(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _make_directory(path: Path) -> None:
    """Make a directory and those above it that are not there, for nobody else's eyes."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def _explain(path: Path, error: OSError) -> StorageFull:
    return StorageFull(f"{path}: cannot be written ({error.strerror}); it is part of a cache, which needs room")
