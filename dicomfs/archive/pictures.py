"""The pictures of the cache: where they lie, how long they are, and how one is made from an instance of the archive.

    CACHE/pictures/<VERSION>/<inode number / 1024>/<inode number>-<frame>.jpg    a thumbnail
    CACHE/pictures/<VERSION>/<inode number / 1024>/<inode number>-<frame>.png    a rendered frame

How long a picture is follows from the instance's header alone, so that a directory is listed without making any.
What cannot be shown has a picture that says so. A file of another length than promised was cut off by a crash: who
finds one asks for it again.
"""

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.dicom.picture_colour import is_colour
from dicomfs.dicom.picture_file import LARGEST, THUMBNAIL_BYTES, rendered_bytes
from dicomfs.errors import StorageFull

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from _typeshed import WriteableBuffer

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.parts import Parts
    from dicomfs.dicom.picture import Picture

__all__ = [
    "LARGEST",
    "RENDERED",
    "THUMBNAIL",
    "THUMBNAIL_BYTES",
    "is_colour",
    "is_made",
    "label",
    "make",
    "middle",
    "path",
    "rendered_bytes",
]

THUMBNAIL: Final = 0
"""A JPEG of THUMBNAIL_BYTES bytes, at most 256 pixels long and wide; a smaller frame is not enlarged."""
RENDERED: Final = 1
"""A PNG of rendered_bytes(rows, columns, colour) bytes."""
VERSION: Final = 1
"""Raised when the same frame would give another picture."""


def path(cache: Path, ino: int, frame: int, kind: int) -> Path:
    """Return where a picture is when it was made; frames count from 1."""
    return cache / "pictures" / str(VERSION) / f"{ino >> 10:x}" / f"{ino}-{frame}.{'png' if kind else 'jpg'}"


def middle(frames: int) -> int:
    """Return the frame that stands for all in a thumbnail, counted from 1."""
    return (frames + 1) // 2 or 1


def is_made(where: Path, size: int) -> bool:
    """Say whether a picture is there, and as long as it was promised to be."""
    try:
        return where.stat().st_size == size
    except OSError:
        return False


def make(archive: "Archive", cache: Path, args: tuple[int, ...]) -> None:
    """Make the picture (inode number, frame, kind) if it is not there.

    (rows, columns, colour) may follow: they are what was promised, and count even where the header says otherwise.
    Raises Damaged where bytes of the archive cannot be had, NotFound and StorageFull. For one thread.
    """
    _make(archive, cache, args, "")


def label(archive: "Archive", cache: Path, args: tuple[int, ...], reason: str) -> None:
    """Make the picture (inode number, frame, kind, …) that says why it is none, decoding nothing."""
    _make(archive, cache, args, reason)


def temporary(where: Path, pid: int) -> Path:
    """Return the name under which a process writes a picture; it stays behind where the process is killed."""
    return where.with_name(f"{where.name}.{pid}.tmp")


class _Promised(NamedTuple):
    """The PNG that somebody counts on."""

    rows: int
    columns: int
    colour: bool


def _make(archive: "Archive", cache: Path, args: tuple[int, ...], reason: str) -> None:
    ino, frame, kind, *rest = args
    where = path(cache, ino, frame, kind)
    promised = _Promised(rest[0], rest[1], bool(rest[2])) if rest else None
    if kind == RENDERED and promised is None:
        picture = _opened(archive, ino)
        promised = _Promised(picture.rows, picture.columns, picture.colour)
    if is_made(where, THUMBNAIL_BYTES if kind == THUMBNAIL or promised is None else rendered_bytes(*promised)):
        return
    from dicomfs.dicom import picture_file

    found, aspect = None, 1.0
    if not reason:
        found, aspect, reason = _frame(archive, ino, frame, kind, promised)
    if kind == RENDERED:
        assert promised is not None
        _write(where, picture_file.png(_label(archive, ino, promised, reason) if found is None else found))
    elif found is None:
        _write(where, picture_file.thumbnail(_label(archive, ino, _Promised(0, 0, False), reason)))
    else:
        _write(where, picture_file.thumbnail(found, aspect))


def _frame(
    archive: "Archive", ino: int, frame: int, kind: int, promised: _Promised | None
) -> "tuple[npt.NDArray[np.uint8] | None, float, str]":
    """Return the pixels of a frame and how long they are for their width, or None and why it cannot be shown."""
    from dicomfs.dicom.picture import CannotShow
    from dicomfs.dicom.picture_pdf import first_page

    picture = _opened(archive, ino)
    try:
        if kind == THUMBNAIL and (pdf := picture.pdf) is not None:
            return first_page(pdf), 1.0, ""
        pixels = picture.frame(frame)
    except CannotShow as error:
        return None, 1.0, str(error)
    if kind == RENDERED and promised is not None and pixels.shape != (*promised[:2], 3)[: 3 if promised.colour else 2]:
        return None, 1.0, "its header says two things about its size"
    return pixels, picture.aspect(frame), ""


def _label(archive: "Archive", ino: int, promised: _Promised, reason: str) -> "npt.NDArray[np.uint8]":
    """Return a picture in words. What the object is, the catalog says: reading it may be what does not work."""
    from dicomfs.dicom.picture_file import rendered_size
    from dicomfs.dicom.picture_label import labelled, title

    with archive.view() as view:
        instance = view.instance(ino)
        series = view.series(instance.series)
    words = title(str(series.attributes.get("Modality", "")), str(instance.attributes.get("SOPClassUID", "")))
    rows, columns = rendered_size(promised.rows, promised.columns)
    colour = promised.colour and (rows, columns) == promised[:2]
    return labelled(rows, columns, words, reason, colour=colour)


_held: "list[tuple[Archive, int, Picture]]" = []
"""The instance opened last: all frames of one are mostly asked for one after the other, and its header may be long."""


def _opened(archive: "Archive", ino: int) -> "Picture":
    from dicomfs.archive.parts import Parts
    from dicomfs.dicom.picture import Picture

    for held, number, picture in _held:
        if held is archive and number == ino:
            return picture
    _held.clear()
    parts = Parts.open(archive, ino)
    file = io.BufferedReader(_Source(parts), _BUFFER)
    picture = Picture(file, parts.data, parts.part10, parts.frames, parts.read)
    _held.append((archive, ino, picture))
    return picture


_BUFFER: Final = 1 << 16


class _Source(io.RawIOBase):
    """The data of an instance as a file object. Belongs to one thread."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts
        self._size = len(parts.data)
        self._at = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another place; past the end there is nothing to read."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read up to as many bytes as there is room for."""
        with memoryview(buffer) as room:
            data = self._parts.read(self._at, min(self._at + len(room), max(self._size, self._at)))
            room[: len(data)] = data
        self._at += len(data)
        return len(data)


def _write(where: Path, data: bytes) -> None:
    """Put a picture where it belongs, so that nobody sees a part of one."""
    new = temporary(where, os.getpid())
    try:
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            new.rename(where)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
    except OSError as error:
        raise StorageFull(f"{where.parent}: a picture cannot be written there ({error.strerror})") from error
