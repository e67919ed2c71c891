"""Pictures as files whose length is known before they are made: a JPEG is filled up, a PNG is not compressed.

    JPEG   SOI APP0 | COM: zeros | DQT SOF0 DHT SOS … EOI
    PNG    signature IHDR | IDAT: stored blocks of 65,535 bytes, each row after a zero | IEND

Comments stand before the frame header: past the last scan the grammar has no place for them (ITU-T T.81 B.2.4).
"""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

THUMBNAIL_BYTES: Final = 16_384
"""How long every thumbnail is."""
THUMBNAIL_SIDE: Final = 256
LARGEST: Final = 1 << 26
"""A frame of more pixels is not rendered: its picture is a small one that says so."""
LABEL_ROWS: Final = 256
LABEL_COLUMNS: Final = 256
"""How large the picture is that stands for a frame which is too large, or has no size."""

_BLOCK: Final = 65_535
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_AROUND: Final = len(_PNG) + (12 + 13) + 12 + 12 + 2 + 4
"""The signature, IHDR, IDAT, IEND, and what is before and after the blocks of a zlib stream."""
_QUALITIES: Final = (90, 85, 80, 75, 70, 60, 50, 40, 30, 20, 10, 5, 1)
_LONGEST_COMMENT: Final = 65_533


def rendered_size(rows: int, columns: int) -> tuple[int, int]:
    """Return (rows, columns) of the picture of a frame: its own, or those of a label where it cannot be so large."""
    if rows <= 0 or columns <= 0 or rows * columns > LARGEST:
        return LABEL_ROWS, LABEL_COLUMNS
    return rows, columns


def rendered_bytes(rows: int, columns: int, colour: bool) -> int:
    """Return how long the PNG of a frame is, whatever it shows.

    A frame without a size, or of more than LARGEST pixels, has the length of a grey label.
    """
    if (rows, columns) != rendered_size(rows, columns):
        rows, columns, colour = LABEL_ROWS, LABEL_COLUMNS, False
    raw = rows * (1 + columns * (3 if colour else 1))
    return _AROUND + raw + 5 * -(-raw // _BLOCK)


def png(pixels: "Bytes") -> bytes:
    """Return a PNG of rows by columns grey values, or by 3 of red, green and blue."""
    import numpy as np

    rows, columns = pixels.shape[:2]
    raw = np.zeros((rows, 1 + pixels.size // rows), np.uint8)
    raw[:, 1:] = pixels.reshape(rows, -1)
    stream = raw.data.cast("B")
    blocks: list[bytes | memoryview] = [b"\x78\x01"]
    for start in range(0, len(stream), _BLOCK):
        block = stream[start : start + _BLOCK]
        last = start + _BLOCK >= len(stream)
        blocks += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    blocks.append(struct.pack(">I", zlib.adler32(stream)))
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return b"".join([_PNG, *_chunk(b"IHDR", [header]), *_chunk(b"IDAT", blocks), *_chunk(b"IEND", [])])


def _chunk(kind: bytes, parts: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    crc = zlib.crc32(kind)
    for part in parts:
        crc = zlib.crc32(part, crc)
    return [struct.pack(">I", sum(map(len, parts))), kind, *parts, struct.pack(">I", crc)]


def thumbnail(pixels: "Bytes", aspect: float = 1.0) -> bytes:
    """Return a JPEG of THUMBNAIL_BYTES bytes that is at most 256 pixels long and wide.

    A smaller picture keeps its size, as file managers want it: they enlarge it themselves, or do not. Pixels that are
    `aspect` times as long as wide are made square, by making the picture smaller.
    """
    from PIL import Image

    rows, columns = pixels.shape[:2]
    high, wide = (rows, columns / aspect) if aspect > 1 else (rows * aspect, columns)
    scale = min(1.0, THUMBNAIL_SIDE / max(high, wide))
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    image = Image.fromarray(pixels)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    for quality in _QUALITIES:
        made = io.BytesIO()
        image.save(made, "JPEG", quality=quality)
        if made.tell() <= THUMBNAIL_BYTES:
            break
    return _filled_up(made.getvalue())


def _filled_up(jpeg: bytes) -> bytes:
    """Return a JPEG with as many comments as make it THUMBNAIL_BYTES bytes long."""
    start = 4 + int.from_bytes(jpeg[4:6], "big")  # past SOI and APP0
    missing = THUMBNAIL_BYTES - len(jpeg)
    parts = [jpeg[:start]]
    if 0 < missing < 4:
        # Too short for a comment: any marker may follow as many of these as one likes (ITU-T T.81 B.1.1.2).
        parts.append(b"\xff" * missing)
    elif missing:
        assert missing - 4 <= _LONGEST_COMMENT
        parts.append(b"\xff\xfe" + (missing - 2).to_bytes(2, "big") + bytes(missing - 4))
    return b"".join([*parts, jpeg[start:]])
