"""What one frame of an instance looks like as a viewer first shows it: 8 bits of grey, or of red, green and blue."""

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from dicomfs.dicom import picture_colour, picture_window
from dicomfs.dicom.part10 import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    locate,
)
from dicomfs.dicom.picture_decode import CannotShow, Layout, decode
from dicomfs.dicom.picture_file import LARGEST

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydicom.dataset import Dataset

    Bytes = npt.NDArray[np.uint8]

__all__ = ["CannotShow", "Picture"]

_KEYWORDS: Final = (
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelAspectRatio",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
"""Everything that the look of a frame depends on; the rest of the header is passed over."""
_OF_FRAMES: Final = ("FrameVOILUTSequence", "PixelValueTransformationSequence", "PixelMeasuresSequence")
"""Functional groups whose attributes take the place of the instance's own (PS3.3 C.7.6.16.2)."""
_PIXELS: Final = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_SPACINGS: Final = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing")
_EXPLICIT: Final = frozenset(vr + b"\0\0" for vr in (b"OB", b"OW", b"OF", b"OD", b"UN"))
_NATIVE: Final = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    "1.2.840.10008.1.2.1.99",  # which was inflated before
)
_META_BYTES: Final = 1 << 16
_INFLATED: Final = 1 << 30
"""So much of a deflated data set is looked at."""
_MOST_STRETCHED: Final = 8.0
"""Pixels that claim to be longer or wider than this are taken to be square."""


class Picture:
    """An instance opened to be looked at; the file must stay open. Belongs to one thread.

    Nothing is raised for a file that is no image, or no DICOM file: it has no rows, no columns, and no frame to show.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._rules, self._source, self._trouble = _header(file)
        self._at = self._source.tell()
        self.rows = self._whole("Rows", 0)
        self.columns = self._whole("Columns", 0)
        self.samples = self._whole("SamplesPerPixel", 1)
        self.photometric = str(picture_window.first(self._rules, "PhotometricInterpretation") or "").strip()
        self.colour = picture_colour.is_colour(self.samples, self.photometric)

    def aspect(self, number: int) -> float:
        """Return how much longer than wide the pixels of a frame are."""
        try:
            with _quiet():
                rules = self._rules_of(number)
                found = next(filter(None, (_pair(rules, keyword) for keyword in _SPACINGS)), 1.0)
        except Exception:  # noqa: BLE001 - pydicom raises whatever it likes; and it is about the shape of a thumbnail
            return 1.0
        return found if 1 / _MOST_STRETCHED <= found <= _MOST_STRETCHED else 1.0

    def frame(self, number: int) -> "Bytes":
        """Return frame `number`, counted from 1: rows by columns, by 3 where `colour`; raise CannotShow."""
        if self._trouble:
            raise CannotShow(self._trouble)
        try:
            with _quiet():
                return self._frame(number)
        except CannotShow:
            raise
        except MemoryError as error:
            raise CannotShow("it takes too much memory") from error
        except Exception as error:
            # pydicom and the codecs raise whatever they like where bytes are not what they should be.
            raise CannotShow("its pixels cannot be decoded") from error

    def _frame(self, number: int) -> "Bytes":
        layout = self._layout()
        if self.rows * self.columns > LARGEST:
            raise CannotShow("the frame is too large")
        if not 1 <= number <= layout.frames:
            raise CannotShow("there is no such frame")
        decoded = decode(self._source, layout, number)
        expected = (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)
        if decoded.pixels.shape != expected:
            raise CannotShow("its pixels are of another size than its header says")
        if self.samples >= 3:
            return picture_colour.true_colour(decoded, layout.bits_stored)
        if self.colour:
            return picture_colour.palette_colour(decoded.pixels, self._rules)
        return picture_window.shown(decoded.pixels, self._rules_of(number), layout.bits_stored)

    def _layout(self) -> Layout:
        """Return how the pixels are stored; the file then stands at the first byte of their value."""
        little = self._rules.original_encoding[1] is not False
        self._source.seek(self._at)
        head = self._source.read(8)
        keyword = _PIXELS.get(_tag(head, little=little))
        if keyword is None:
            raise CannotShow("")
        # The bytes decide, as in the rest of the header: no value has an odd length such as these would be.
        implicit = head[4:8] not in _EXPLICIT
        if not implicit:
            self._source.read(4)  # the length, after two reserved bytes (PS3.5 7.1.2)
        allocated = self._whole("BitsAllocated", 0)
        return Layout(
            keyword=keyword,
            vr="OW" if implicit else head[4:6].decode(),
            transfer_syntax=_found_syntax(self._rules, implicit=implicit, little=little),
            samples=self.samples,
            photometric=self.photometric or ("MONOCHROME2" if self.samples == 1 else "RGB"),
            planar=self._whole("PlanarConfiguration", 0),
            frames=max(self._whole("NumberOfFrames", 1), 1),
            rows=self.rows,
            columns=self.columns,
            bits_allocated=allocated,
            bits_stored=self._whole("BitsStored", allocated),
            signed=self._whole("PixelRepresentation", 0) == 1,
            offsets=self._offsets(),
        )

    def _offsets(self) -> tuple[bytes, bytes] | None:
        offsets, lengths = self._rules.get("ExtendedOffsetTable"), self._rules.get("ExtendedOffsetTableLengths")
        return (offsets, lengths) if isinstance(offsets, bytes) and isinstance(lengths, bytes) else None

    def _rules_of(self, number: int) -> "Dataset":
        """Return the attributes that apply to a frame: its own before the shared ones before the instance's."""
        from pydicom.dataset import Dataset

        shared = self._rules.get("SharedFunctionalGroupsSequence") or ()
        each = self._rules.get("PerFrameFunctionalGroupsSequence") or ()
        groups = [*shared[:1], *each[number - 1 : number]]
        if not groups:
            return self._rules
        found = Dataset()
        found.update(self._rules)
        found.set_original_encoding(*self._rules.original_encoding)
        for group in groups:
            for keyword in _OF_FRAMES:
                for item in (group.get(keyword) or ())[:1]:
                    found.update(item)
        return found

    def _whole(self, keyword: str, absent: int) -> int:
        found = picture_window.number(self._rules, keyword)
        return absent if found is None else int(found)


def _header(file: BinaryIO) -> tuple["Dataset", BinaryIO, str]:
    """Read the attributes that count.

    Returns them, the file that stands where the pixels begin, and what is wrong where nothing can be shown.
    """
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    try:
        with _quiet():
            part10 = locate(file.read(_META_BYTES))
            if part10 is None:
                return Dataset(), file, "it is no DICOM file"
            if part10.deflated:
                file = _inflated(file, part10.start)
            file.seek(0)
            rules = dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
    except MemoryError:
        return Dataset(), file, "it takes too much memory"
    except Exception:  # noqa: BLE001 - pydicom raises whatever it likes where bytes are not what they should be
        return Dataset(), file, "its header cannot be read"
    return rules, file, ""


def _inflated(file: BinaryIO, start: int) -> BinaryIO:
    """Return the data set of a deflated file; its meta information is not needed any more."""
    file.seek(start)
    stream = file.read()
    # Raw deflate by PS3.5 A.5; with the head of zlib or gzip in the files of some.
    for window_bits in (-zlib.MAX_WBITS, zlib.MAX_WBITS + 32):
        with suppress(zlib.error):
            return io.BytesIO(zlib.decompressobj(window_bits).decompress(stream, _INFLATED))
    raise CannotShow("its header cannot be read")


def _found_syntax(rules: "Dataset", *, implicit: bool, little: bool) -> str:
    """Return the transfer syntax of the pixels; of native ones the one that the header was found to be in."""
    meta = getattr(rules, "file_meta", {})
    declared = str(meta.get("TransferSyntaxUID", "") or "")
    if declared not in ("", *_NATIVE):
        return declared
    if implicit:
        return IMPLICIT_VR_LITTLE_ENDIAN
    return EXPLICIT_VR_LITTLE_ENDIAN if little else EXPLICIT_VR_BIG_ENDIAN


def _tag(head: bytes, *, little: bool) -> int:
    if len(head) < 8:
        return 0
    group, element = struct.unpack_from("<HH" if little else ">HH", head)
    return int(group << 16 | element)


def _pair(rules: "Dataset", keyword: str) -> float | None:
    """Return the first of two positive numbers, which concerns rows, divided by the second."""
    value = rules.get(keyword)
    if value is None or isinstance(value, str) or len(value) != 2:
        return None
    down, across = (float(str(one)) for one in value)
    found = down / across if across else 0.0
    return found if math.isfinite(found) and found > 0 else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what pydicom has to say about odd values out of everywhere: it may tell the values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
