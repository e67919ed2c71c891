"""Files of a static DICOMweb tree: opened without ever leaving it, unpacked within limits.

Names in documents are hostile. A path is walked component by component, none of which may be a link, from the directory
that the user named; so nothing in the tree leads out of it.

    multipart   --BOUNDARY CRLF header CRLF … CRLF CRLF payload CRLF --BOUNDARY-- [CRLF]

The boundary is told nowhere but in the first line; the payload ends at the last CRLF with the same line. Of the two
forms of the end that are found, both are read.
"""

import errno
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

from dicomfs.errors import UsageError

PIECE: Final = 1 << 20
LONGEST_VALUE: Final = 512 << 20
"""A bulk value is read into memory, up to so many bytes."""
LONGEST_DOCUMENT: Final = 1 << 30
LONGEST_FRAME: Final = (1 << 32) - (1 << 16)
"""A fragment has a length of 32 bits."""
_HEAD: Final = 1 << 13
_TAIL: Final = 1 << 12
"""The end of a multipart file is at most as long as its head: boundaries have 70 characters, RFC 2046 5.1.1."""
_GZIP: Final = b"\x1f\x8b"
_BLANK_LINE: Final = b"\r\n\r\n"
_SYNTAX: Final = re.compile(rb"transfer-syntax\s*=\s*\"?([0-9.]{1,64})\"?", re.IGNORECASE)


class Unusable(Exception):
    """A file of the tree cannot be used; the text tells which and why."""


class Absent(Unusable):
    """A file of the tree is not there."""


class Entry(NamedTuple):
    """An entry of a directory."""

    name: str
    is_directory: bool
    is_link: bool


class Payload(NamedTuple):
    """What a file holds: the transfer syntax that its part's header tells or "", and its bytes."""

    syntax: str
    pieces: Iterator[bytes]


class Tree:
    """A directory that is read, and nothing outside of it; a context manager. Paths are relative to it."""

    def __init__(self, root: str) -> None:
        try:
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{root}: cannot be read: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def entries(self, path: str) -> list[Entry]:
        """Return the entries of a directory in the order of their names; none where there is no such directory.

        Temporary names of both writers are left out.
        """
        try:
            fd = self._open(path, os.O_DIRECTORY)
        except Absent:
            return []
        try:
            with os.scandir(fd) as found:
                entries = [
                    Entry(entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink())
                    for entry in found
                    if entry.name != "temp" and not entry.name.startswith("tempFile-")
                ]
        except OSError as error:
            raise Unusable(f"{path} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        return sorted(entries)

    def mtime_ns(self, path: str) -> int:
        """Return the time of change of a file, 0 where it cannot be told."""
        try:
            fd = self._open(path, 0)
        except Unusable:
            return 0
        try:
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)

    def document(self, path: str) -> str:
        """Return the text of a document, unpacked."""
        try:
            return b"".join(_limited(self._pieces(path), path, LONGEST_DOCUMENT)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unusable(f"{path} is no UTF-8") from error

    def value(self, path: str) -> bytes:
        """Return the payload of a file."""
        return b"".join(_limited(self.payload(path).pieces, path, LONGEST_VALUE))

    def payload(self, path: str) -> Payload:
        """Open a file that may be packed and may be multipart; what is wrong with its end is told at its end."""
        pieces = self._pieces(path)
        head = b""
        for piece in pieces:
            head += piece
            if len(head) >= _HEAD:
                break
        line = head.find(b"\r\n")
        blank = head.find(_BLANK_LINE)
        if not head.startswith(b"--") or not 2 < line <= _HEAD or blank < 0 or b":" not in head[line:blank]:
            if path.endswith((".mht", ".mht.gz")):
                raise Unusable(f"{path} is not multipart")
            return Payload("", _chained(head, pieces))
        syntax = _SYNTAX.search(head, line, blank)
        end = b"\r\n" + head[:line]
        payload = _until_end(_chained(head[blank + len(_BLANK_LINE) :], pieces), end, path)
        return Payload(syntax[1].decode("ascii") if syntax else "", payload)

    def _pieces(self, path: str) -> Iterator[bytes]:
        fd = self._open(path, 0)
        return _read(fd, path)

    def _open(self, path: str, flags: int) -> int:
        """Open a file or a directory, component by component."""
        fd = os.dup(self._root)
        *directories, last = path.split("/")
        try:
            for number, name in enumerate((*directories, last)):
                if name in ("", ".", "..") or "\0" in name:
                    raise Unusable("a path leads out of the tree, or nowhere")
                directory = number < len(directories)
                wanted = os.O_DIRECTORY if directory else flags | os.O_NONBLOCK
                inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | wanted, dir_fd=fd)
                os.close(fd)
                fd = inner
            if not flags and not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unusable(f"{path} is no file")
        except OSError as error:
            os.close(fd)
            if error.errno == errno.ENOENT:
                raise Absent(f"{path} is missing") from error
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Unusable(f"{path} is a link, or no directory, and is not followed") from error
            raise Unusable(f"{path} cannot be read: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise
        return fd


def require_trees(roots: Sequence[Path]) -> None:
    """Raise UsageError where a path is not the root of a static DICOMweb tree."""
    for root in roots:
        try:
            is_tree = stat.S_ISDIR(os.stat(root / "studies").st_mode)
        except OSError:
            is_tree = False
        if not is_tree:
            raise UsageError(f"{root}: has no directory 'studies': name the root of a static DICOMweb tree")


def is_name(text: str) -> bool:
    """Say whether a text may be one component of a path."""
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text


def _read(fd: int, path: str) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked if it is named so and is gzip: what fetched a tree may have unpacked it."""
    with os.fdopen(fd, "rb", buffering=0) as file:
        try:
            first = file.read(PIECE) or b""
            if path.endswith(".gz") and first.startswith(_GZIP):
                yield from _unpacked(first, file.read, path)
                return
            while first:
                yield first
                first = file.read(PIECE) or b""
        except OSError as error:
            raise Unusable(f"{path} cannot be read: {error.strerror}") from error


def _unpacked(first: bytes, read: Callable[[int], bytes | None], path: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj(zlib.MAX_WBITS + 16)
    try:
        given = first
        while given:
            while given and not inflater.eof:
                yield inflater.decompress(given, PIECE)
                given = inflater.unconsumed_tail
            if inflater.eof:
                given = inflater.unused_data or read(PIECE) or b""
                if given:  # another member
                    inflater = zlib.decompressobj(zlib.MAX_WBITS + 16)
            else:
                given = read(PIECE) or b""
    except zlib.error as error:
        raise Unusable(f"{path} is damaged: it cannot be unpacked") from error
    if not inflater.eof:
        raise Unusable(f"{path} is damaged: it ends too early")


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _until_end(pieces: Iterator[bytes], end: bytes, path: str) -> Iterator[bytes]:
    """Yield what comes before the last `end`, which is near the end of the file."""
    kept = b""
    for piece in pieces:
        kept += piece
        if len(kept) > _TAIL + len(end):
            yield kept[: -_TAIL - len(end)]
            kept = kept[-_TAIL - len(end) :]
    at = kept.rfind(end)
    if at < 0:
        raise Unusable(f"{path} is damaged: its multipart end is missing")
    yield kept[:at]


def _limited(pieces: Iterator[bytes], path: str, most: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise Unusable(f"{path} is longer than {most:,} bytes when it is unpacked")
        yield piece
