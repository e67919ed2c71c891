"""One frame of pixel data, decoded: by pydicom's decoders, or by imagecodecs where those need a library under the GPL.

pydicom decodes native pixels, RLE, JPEG-LS, JPEG 2000 and HTJ2K. JPEG of every process and JPEG XL go to imagecodecs:
Pillow knows neither 12 bits nor lossless JPEG, and with an Adobe marker gives other colours than it is asked for.
"""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from dicomfs.dicom.part10 import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.number]

JPEG: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (*range(50, 67), 70))
"""The processes of JPEG (PS3.5 A.4.1), those among them that the Standard has retired too."""
JPEG_XL: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112))
DEFLATED_FRAMES: Final = "1.2.840.10008.1.2.8.1"
"""Deflated Image Frame Compression (PS3.5 A.4.13): each frame is a deflate stream of native pixels."""

PLAIN_FRAMES: Final = "1.2.840.10008.1.2.1.98"
"""Encapsulated Uncompressed Explicit VR Little Endian (PS3.5 A.4.11): each frame is native pixels."""

_NATIVE: Final = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
_YBR: Final = ("YBR_FULL", "YBR_FULL_422")
_YBR_IN_JPEG: Final = (*_YBR, "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_JFIF, _ADOBE, _SOS = 0xE0, 0xEE, 0xDA


class CannotShow(Exception):
    """A frame cannot be shown; the message is our own words, and fit for a label."""


class Layout(NamedTuple):
    """How pixels are stored (PS3.3 C.7.6.3); `keyword` is that of the element that holds them."""

    keyword: str
    vr: str
    transfer_syntax: str
    samples: int
    photometric: str
    planar: int
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    offsets: tuple[bytes, bytes] | None
    """The extended offset table and its lengths."""

    def options(self) -> Mapping[str, object]:
        """Return what pydicom's decoders call these."""
        found: dict[str, object] = {
            "pixel_keyword": self.keyword,
            "pixel_vr": self.vr,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.photometric,
            "number_of_frames": self.frames,
            "rows": self.rows,
            "columns": self.columns,
            "bits_allocated": self.bits_allocated,
        }
        if self.keyword == "PixelData":
            found |= {"bits_stored": self.bits_stored, "pixel_representation": int(self.signed)}
        if self.samples > 1:
            found["planar_configuration"] = self.planar
        if self.offsets is not None:
            found["extended_offsets"] = self.offsets
        return found


class Decoded(NamedTuple):
    """The samples of a frame, rows by columns (by samples), and whether those are YCbCr."""

    pixels: "Pixels"
    ybr: bool = False


def decode(source: BinaryIO, layout: Layout, number: int) -> Decoded:
    """Decode frame `number`, counted from 1, from a file that stands at the first byte of the pixels' value.

    Raises CannotShow where nothing decodes it, and whatever a decoder may raise where the bytes are wrong.
    """
    if layout.transfer_syntax in JPEG:
        return _jpeg(_codestream(source, layout, number), layout)
    if layout.transfer_syntax in JPEG_XL:
        import imagecodecs

        # The codestream says what its colours are, and comes out as RGB.
        return Decoded(_as_stored(imagecodecs.jpegxl_decode(_codestream(source, layout, number), numthreads=1), layout))
    if layout.transfer_syntax in (DEFLATED_FRAMES, PLAIN_FRAMES):
        frame = _codestream(source, layout, number)
        native = layout._replace(transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN, frames=1, offsets=None)
        return decode(
            io.BytesIO(frame if layout.transfer_syntax == PLAIN_FRAMES else _inflated(frame, layout)), native, 1
        )
    if layout.bits_allocated == 1 and layout.samples == 1 and layout.transfer_syntax in _NATIVE:
        return _single_bits(source, layout, number)
    return _by_pydicom(source, layout, number)


def _single_bits(source: BinaryIO, layout: Layout, number: int) -> Decoded:
    """Unpack a frame of single bits, which follow each other through frames: pydicom stops at the last whole byte."""
    import numpy as np

    bits = layout.rows * layout.columns
    word, ahead = divmod((number - 1) * bits, 16)
    source.seek(2 * word, io.SEEK_CUR)
    packed = np.frombuffer(source.read(2 * -(-(ahead + bits) // 16)), np.uint8)
    if layout.vr == "OW" and layout.transfer_syntax == EXPLICIT_VR_BIG_ENDIAN:
        packed = packed[: packed.size // 2 * 2].view(np.uint16).byteswap().view(np.uint8)
    unpacked = np.unpackbits(packed, bitorder="little")[ahead : ahead + bits]
    return Decoded(unpacked.reshape(layout.rows, layout.columns))


def _by_pydicom(source: BinaryIO, layout: Layout, number: int) -> Decoded:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    uid = UID(layout.transfer_syntax)
    try:
        decoder = get_decoder(uid)
    except NotImplementedError as error:
        name = uid.name if uid.is_transfer_syntax else "this transfer syntax"
        raise CannotShow(f"there is no decoder for {name}") from error
    found, properties = decoder.as_array(source, index=number - 1, raw=True, **layout.options())  # type: ignore[arg-type]
    return Decoded(found, str(properties["photometric_interpretation"]) in _YBR)


def _codestream(source: BinaryIO, layout: Layout, number: int) -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(source, number - 1, number_of_frames=layout.frames, extended_offsets=layout.offsets)


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
