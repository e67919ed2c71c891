"""Any attribute of an instance, read from its stored header: for what the catalog does not hold."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicomfs.archive.archive import Archive

_LIMIT: Final = 1 << 24
"""Attributes further into a file than this are not looked for."""
_TAIL: Final = 64
# (7FE0,0008), (7FE0,0009) and (7FE0,0010) in both byte orders: all that has a tag below is before them.
_PIXEL_DATA: Final = tuple(
    pack(order + "HH", 0x7FE0, element) for element in (0x0008, 0x0009, 0x0010) for order in "<>"
)


def value_of(archive: Archive, ino: int, keyword: str) -> str | None:
    r"""Return an attribute's value as text, several joined by `\`; None where the file has none.

    `keyword` may be a tag, gggg,eeee. Raise UsageError for a keyword that is none, NotFound, Damaged.
    """
    return values_of(archive, ino, (keyword,))[0]


def values_of(archive: Archive, ino: int, keywords: Sequence[str]) -> list[str | None]:
    """Return the same of several attributes, in their order, reading the header once."""
    from dicomfs.dicom.values import texts_of

    file = archive.open_instance(ino)
    try:
        head = file.head(_LIMIT)
        found = texts_of(head, keywords)
        if None in found and len(head) < min(file.size, _LIMIT) and not _ends_at_pixels(head):
            # The first bulk value is not the pixels: a long private one, or the whole of a deflated file.
            found = texts_of(bytes(file.read(0, _LIMIT)), keywords)
    finally:
        file.close()
    return found


def _ends_at_pixels(head: bytes) -> bool:
    tail = head[-_TAIL:]
    return any(tag in tail for tag in _PIXEL_DATA)
