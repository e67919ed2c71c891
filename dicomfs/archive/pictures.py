"""The pictures of the cache: where they lie, how long they are, and how one is made from an instance of the archive.

    CACHE/pictures/<VERSION>/<inode number / 1024>/<inode number>-<frame>.jpg    a thumbnail
    CACHE/pictures/<VERSION>/<inode number / 1024>/<inode number>-<frame>.png    a rendered frame

How long a picture is follows from the instance's header alone, so that a directory is listed without making any.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomfs.dicom.picture_file import LARGEST, THUMBNAIL_BYTES, rendered_bytes

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive

__all__ = [
    "LARGEST",
    "RENDERED",
    "THUMBNAIL",
    "THUMBNAIL_BYTES",
    "is_colour",
    "label",
    "make",
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


def is_colour(samples_per_pixel: int, photometric_interpretation: str) -> bool:
    """Say whether the rendered frames of an instance have three samples: its own are, or it has a palette."""
    return samples_per_pixel >= 3 or photometric_interpretation.strip() == "PALETTE COLOR"


def make(archive: "Archive", cache: Path, args: tuple[int, ...]) -> None:
    """Make the picture (inode number, frame, kind) if it is not there.

    What cannot be shown gives a picture that says so. Raises Damaged where bytes of the archive cannot be had,
    NotFound and StorageFull.
    """
    raise NotImplementedError


def label(archive: "Archive", cache: Path, args: tuple[int, ...], reason: str) -> None:
    """Make the picture (inode number, frame, kind) that says why it is none, decoding nothing."""
    raise NotImplementedError
