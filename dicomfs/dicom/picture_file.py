"""Pictures as files whose length is known before they are made."""

from typing import Final

THUMBNAIL_BYTES: Final = 16_384
"""How long every thumbnail is."""
LARGEST: Final = 1 << 26
"""A frame of more pixels is not rendered: its picture is a small one that says so."""
LABEL_ROWS: Final = 256
LABEL_COLUMNS: Final = 256
"""How large a picture is that stands for a frame which is too large, or has no size."""

_BLOCK: Final = 65_535
_AROUND: Final = 8 + (12 + 13) + 12 + 12 + 2 + 4
"""The signature, IHDR, IDAT, IEND, and what is before and after the blocks of a zlib stream."""


def rendered_size(rows: int, columns: int) -> tuple[int, int]:
    """Return (rows, columns) of the picture of a frame: its own, or those of a label where it cannot be so large."""
    if rows <= 0 or columns <= 0 or rows * columns > LARGEST:
        return LABEL_ROWS, LABEL_COLUMNS
    return rows, columns


def rendered_bytes(rows: int, columns: int, colour: bool) -> int:  # noqa: FBT001
    """Return how long the PNG of a frame is, whatever it shows.

    A frame without a size, or of more than LARGEST pixels, has the length of a grey label.
    """
    if (rows, columns) != rendered_size(rows, columns):
        rows, columns, colour = LABEL_ROWS, LABEL_COLUMNS, False
    raw = rows * (1 + columns * (3 if colour else 1))
    return _AROUND + raw + 5 * -(-raw // _BLOCK)
