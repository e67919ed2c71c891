"""One frame of pixel data, decoded: by pydicom's decoders, or by imagecodecs where those need a library under the GPL.

pydicom decodes native pixels, RLE, JPEG-LS, JPEG 2000 and HTJ2K. JPEG of every process and JPEG XL go to imagecodecs:
Pillow knows neither 12 bits nor lossless JPEG, and with an Adobe marker gives other colours than it is asked for.
"""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.dicom.part10 import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.number]

JPEG: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (*range(50, 67), 70))
"""The processes of JPEG (PS3.5 A.4.1), those among them that the Standard has retired too."""
JPEG_XL: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112))
DEFLATED_FRAMES: Final = "1.2.840.10008.1.2.8.1"
"""Deflated Image Frame Compression (PS3.5 A.4.13): each frame is a deflate stream of native pixels."""


_YBR: Final = ("YBR_FULL", "YBR_FULL_422")
_YBR_IN_JPEG: Final = (*_YBR, "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_JFIF, _ADOBE, _SOS = 0xE0, 0xEE, 0xDA


class CannotShow(Exception):
    """A frame cannot be shown; the message is our own words, and fit for a label."""


class Layout(NamedTuple):
    """How a frame is stored (PS3.3 C.7.6.3); `keyword` is that of the element that held it."""

    keyword: str
    transfer_syntax: str
    samples: int
    photometric: str
    planar: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    def options(self) -> Mapping[str, object]:
        """Return what pydicom's decoders call these."""
        found: dict[str, object] = {
            "pixel_keyword": self.keyword,
            "pixel_vr": "OW",
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.photometric,
            "number_of_frames": 1,
            "rows": self.rows,
            "columns": self.columns,
            "bits_allocated": self.bits_allocated,
        }
        if self.keyword == "PixelData":
            found |= {"bits_stored": self.bits_stored, "pixel_representation": int(self.signed)}
        if self.samples > 1:
            found["planar_configuration"] = self.planar
        return found


class Decoded(NamedTuple):
    """The samples of a frame, rows by columns (by samples), and whether those are YCbCr."""

    pixels: "Pixels"
    ybr: bool = False


def decode(frame: bytes, layout: Layout) -> Decoded:
    """Decode a frame as it is served (`frames`), so never in big endian.

    Raises CannotShow where nothing decodes it, and whatever a decoder may raise where the bytes are wrong.
    """
    if layout.transfer_syntax in JPEG:
        return _jpeg(frame, layout)
    if layout.transfer_syntax in JPEG_XL:
        import imagecodecs

        # The codestream says what its colours are, and comes out as RGB.
        return Decoded(_as_stored(imagecodecs.jpegxl_decode(frame, numthreads=1), layout))
    if layout.transfer_syntax == DEFLATED_FRAMES:
        native = layout._replace(transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN)
        return _by_pydicom(_inflated(frame, layout), native)
    return _by_pydicom(frame, layout)


def _by_pydicom(frame: bytes, layout: Layout) -> Decoded:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    uid = UID(layout.transfer_syntax)
    try:
        decoder = get_decoder(uid)
    except NotImplementedError as error:
        name = uid.name if uid.is_transfer_syntax else "this transfer syntax"
        raise CannotShow(f"there is no decoder for {name}") from error
    # As a file, and the frame by its number: pydicom then does not wonder about what may follow it.
    value = io.BytesIO(frame if decoder.is_native else encapsulate([frame], has_bot=False))
    found, properties = decoder.as_array(value, index=0, raw=True, **layout.options())  # type: ignore[arg-type]
    return Decoded(found, str(properties["photometric_interpretation"]) in _YBR)


def _inflated(stream: bytes, layout: Layout) -> bytes:
    """Return the pixels of a deflated frame, no more of them than there should be."""
    bits = layout.rows * layout.columns * layout.samples * layout.bits_allocated
    length = -(-bits // 8)
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream, length + length % 2)


def _jpeg(stream: bytes, layout: Layout) -> Decoded:
    import imagecodecs

    if layout.samples == 1:
        return Decoded(_as_stored(imagecodecs.jpeg8_decode(stream), layout))
    # Named alike, the colour spaces of the stream and of what comes out leave the samples as they are.
    found = imagecodecs.jpeg8_decode(stream, colorspace="YCBCR", outcolorspace="YCBCR")
    return Decoded(_as_stored(found, layout), _is_ybr(stream, layout.photometric))


def _as_stored(samples: "Pixels", layout: Layout) -> "Pixels":
    """Return what a codec gave as the values that were encoded: codecs know no sign, and no bits past those stored."""
    import numpy as np

    wanted = (layout.rows, layout.columns) if layout.samples == 1 else (layout.rows, layout.columns, layout.samples)
    if samples.shape != wanted:
        raise CannotShow("the codestream is of another size than its header says")
    if not layout.signed or samples.dtype.kind != "u":
        return samples
    signed = samples.view(np.dtype(f"i{samples.dtype.itemsize}"))
    unused = samples.dtype.itemsize * 8 - layout.bits_stored
    return signed << unused >> unused if unused > 0 else signed


def _is_ybr(stream: bytes, photometric: str) -> bool:
    """Say whether the three components of a JPEG stream are YCbCr: the stream knows better than the header.

    What was compressed by common software says so by an Adobe or JFIF marker, or by the components' names.
    """
    at, jfif = 2, False
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", stream, at + 2)
        body = stream[at + 4 : at + 2 + length]
        if marker == _ADOBE and body[:5] == b"Adobe" and len(body) >= 12:
            return body[11] != 0
        if marker == _JFIF and body[:4] == b"JFIF":
            jfif = True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if bytes(body[6::3][:3]).upper() == b"RGB":
                return False
            # Lossless JPEG (0xC3) has no colour transform: whoever wrote JFIF there wrote it out of habit.
            return photometric in _YBR_IN_JPEG or (jfif and marker != 0xC3)
        if marker == _SOS:
            break
        at += 2 + length
    return photometric in _YBR_IN_JPEG
