"""What one frame of an instance looks like as a viewer first shows it: 8 bits of grey, or of red, green and blue."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

from dicomfs.dicom import picture_colour, picture_window
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.frames import Frames, Read
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.picture_decode import CannotShow, Layout, decode
from dicomfs.dicom.picture_file import LARGEST
from dicomfs.dicom.walk import Walk
from dicomfs.errors import DicomfsError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydicom.dataset import Dataset

    Bytes = npt.NDArray[np.uint8]

__all__ = ["CannotShow", "Picture"]

_KEYWORDS: Final = (
    "EncapsulatedDocument",
    "MIMETypeOfEncapsulatedDocument",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "PixelAspectRatio",
    "BitsAllocated",
    "BitsStored",
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
)
"""Everything that the look of a frame depends on; the rest of the header is passed over."""
_OF_FRAMES: Final = ("FrameVOILUTSequence", "PixelValueTransformationSequence", "PixelMeasuresSequence")
"""Functional groups whose attributes take the place of the instance's own (PS3.3 C.7.6.16.2)."""
_PIXELS: Final = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_SPACINGS: Final = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing")
_LONGEST_PLAIN: Final = 1 << 17
"""A table of 16 bits takes as much."""
_MOST_STRETCHED: Final = 8.0
"""Pixels that claim to be longer or wider than this are taken to be square."""


class Picture:
    """An instance to be looked at. Belongs to one thread.

    Nothing is raised for one that is no image: it has no rows, no columns, and no frame to show.
    """

    def __init__(self, file: BinaryIO, data: Data, part10: Part10, frames: Frames, read: Read) -> None:
        """Read the header from a file of the instance's data, or from `data`, where bulk may be missing.

        `frames` and `read` are where its frames come from. Raises what the file does.
        """
        self._frames = frames
        self._read = read
        self._rules, self._keyword, self._trouble = _header(file, data, part10)
        self.rows = self._whole("Rows", 0)
        self.columns = self._whole("Columns", 0)
        self.samples = self._whole("SamplesPerPixel", 1)
        self.photometric = str(picture_window.first(self._rules, "PhotometricInterpretation") or "").strip()
        self.colour = picture_colour.is_colour(self.samples, self.photometric)

    @property
    def pdf(self) -> bytes | None:
        """The encapsulated document, if it is a PDF."""
        document = self._rules.get("EncapsulatedDocument")
        kind = str(picture_window.first(self._rules, "MIMETypeOfEncapsulatedDocument") or "").strip().lower()
        return document if kind == "application/pdf" and isinstance(document, bytes) else None

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
        """Return frame `number`, counted from 1: rows by columns, by 3 where `colour`.

        Raises CannotShow, and what `read` does.
        """
        if self._trouble or not self._keyword:
            raise CannotShow(self._trouble)
        try:
            with _quiet():
                return self._frame(number)
        except (CannotShow, DicomfsError):
            raise
        except MemoryError as error:
            raise CannotShow("it takes too much memory") from error
        except Exception as error:
            # pydicom and the codecs raise whatever they like where bytes are not what they should be.
            raise CannotShow("its pixels cannot be decoded") from error

    def _frame(self, number: int) -> "Bytes":
        if self.rows * self.columns > LARGEST:
            raise CannotShow("the frame is too large")
        if not self._frames.count:
            raise CannotShow("its pixels are not all there")
        if not 1 <= number <= self._frames.count:
            raise CannotShow("there is no such frame")
        layout = self._layout()
        decoded = decode(self._frames.frame(number, self._read), layout)
        expected = (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)
        if decoded.pixels.shape != expected:
            raise CannotShow("its pixels are of another size than its header says")
        if self.samples >= 3:
            return picture_colour.true_colour(decoded, layout.bits_stored)
        if self.colour:
            return picture_colour.palette_colour(decoded.pixels, self._rules)
        return picture_window.shown(decoded.pixels, self._rules_of(number), layout.bits_stored)

    def _layout(self) -> Layout:
        allocated = self._whole("BitsAllocated", 0)
        return Layout(
            keyword=self._keyword,
            transfer_syntax=self._frames.transfer_syntax,
            samples=self.samples,
            photometric=self.photometric or ("MONOCHROME2" if self.samples == 1 else "RGB"),
            planar=self._whole("PlanarConfiguration", 0),
            rows=self.rows,
            columns=self.columns,
            bits_allocated=allocated,
            bits_stored=self._whole("BitsStored", allocated),
            signed=self._whole("PixelRepresentation", 0) == 1,
        )

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


def _header(file: BinaryIO, data: Data, part10: Part10) -> tuple["Dataset", str, str]:
    """Read the attributes that count.

    Returns them, the keyword of the element with the pixels if there is one, and what is wrong with the header.
    """
    from pydicom.dataset import Dataset

    try:
        with _quiet():
            try:
                return *_read(file, part10), ""
            except (DicomfsError, MemoryError):
                raise
            except Exception:  # noqa: BLE001 - pydicom raises whatever it likes where bytes are not what they should be
                return *_read_plain(data, part10), ""
    except MemoryError:
        return Dataset(), "", "it takes too much memory"


def _read(file: BinaryIO, part10: Part10) -> tuple["Dataset", str]:
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    implicit, little = part10.encoding.implicit, not part10.encoding.big
    met = 0

    def stop(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal met
        met = int(tag)
        return met in _PIXELS

    file.seek(part10.start)
    tags = [Tag(keyword) for keyword in _KEYWORDS]
    rules = read_dataset(file, implicit, little, stop_when=stop, specific_tags=list(tags))
    rules.set_original_encoding(implicit, little)
    return rules, _PIXELS.get(met, "")


def _read_plain(data: Data, part10: Part10) -> tuple["Dataset", str]:
    """Return the attributes but for sequences: they may not end, or lie too deep in each other for pydicom."""
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag, Tag

    encoding = part10.encoding
    walk = Walk(data, part10.start, len(data), encoding, frozenset((*map(Tag, _KEYWORDS), *_PIXELS)))
    rules = Dataset()
    for tag, (number, start, end) in walk.found.items():
        vr = encoding.vr_names.get(number)
        if vr != "SQ" and tag not in _PIXELS and end - start <= _LONGEST_PLAIN:
            value = bytes(data[start:end])
            known = None if encoding.implicit else vr
            rules[tag] = RawDataElement(
                BaseTag(tag), known, end - start, value, start, encoding.implicit, not encoding.big
            )
    rules.set_original_encoding(encoding.implicit, not encoding.big)
    return rules, next((keyword for tag, keyword in _PIXELS.items() if tag in walk.found), "")


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
