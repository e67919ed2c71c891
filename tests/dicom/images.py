"""Images made in code, for tests of pictures: the pixels of an array, the attributes that are given."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from dicomfs.dicom import part10 as part10s
from dicomfs.dicom.encoding import EXPLICIT_LITTLE
from dicomfs.dicom.frames import Frames, Read, find_frames
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Sequence


LITTLE, BIG, IMPLICIT = ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian


def picture(data: bytes) -> Picture:
    """Return a Part 10 file as a picture; what is no DICOM at all has no header either."""
    part10 = part10s.locate(data)
    if part10 is None:
        return Picture(io.BytesIO(b""), b"", Part10(0, EXPLICIT_LITTLE, "", {}), Frames(), read_of(b""))
    if part10.deflated:
        data = bytes(part10s.inflated(data, part10.start))
        part10 = part10s.locate(data)
        assert part10 is not None
    return Picture(io.BytesIO(data), data, part10, find_frames(data, part10, read_of(data)), read_of(data))


def read_of(data: bytes) -> Read:
    """Return what reads ranges of bytes."""
    return lambda start, end: data[start:end]


def image(
    pixels: np.ndarray,
    *,
    syntax: str = LITTLE,
    frames: int = 1,
    codestreams: Sequence[bytes] | None = None,
    value: bytes | None = None,
    **attributes: object,
) -> bytes:
    """Return a Part 10 file of these pixels: (frames,) rows, columns (, samples).

    `codestreams` are the frames of an encapsulated transfer syntax, `value` is native pixel data of another form.
    Attributes are set last, by keyword; None removes one.
    """
    shape = pixels.shape[1:] if frames > 1 else pixels.shape
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = "2.25.1"
    dataset.StudyInstanceUID = "2.25.2"
    dataset.SeriesInstanceUID = "2.25.3"
    dataset.Modality = "OT"
    dataset.PatientName = "Somebody^Else"
    dataset.PatientID = "4711"
    dataset.SamplesPerPixel = 1 if len(shape) == 2 else shape[2]
    dataset.PhotometricInterpretation = "MONOCHROME2" if len(shape) == 2 else "RGB"
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, given in attributes.items():
        if given is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, given)
    if codestreams is not None:
        dataset.add_new("PixelData", "OB", encapsulate(list(codestreams)))
        dataset["PixelData"].is_undefined_length = True
    elif pixels.dtype.kind == "f":
        keyword = "FloatPixelData" if pixels.dtype.itemsize == 4 else "DoubleFloatPixelData"
        setattr(dataset, keyword, pixels.tobytes())
        del dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    else:
        order = ">" if syntax == BIG else "<"
        raw = value if value is not None else pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        narrow = pixels.dtype.itemsize == 1 and syntax != IMPLICIT
        dataset.add_new("PixelData", "OB" if narrow else "OW", raw + b"\0" * (len(raw) % 2))
    dataset.file_meta = FileMetaDataset()
    known = UID(syntax).is_transfer_syntax
    dataset.file_meta.TransferSyntaxUID = syntax if known else JPEGBaseline8Bit
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.file_meta.ImplementationClassUID = "2.25.4"
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    data = buffer.getvalue()
    return data if known else with_syntax(data, JPEGBaseline8Bit, syntax)


def with_syntax(data: bytes, old: str, new: str) -> bytes:
    """Return a Part 10 file that claims another transfer syntax, one that pydicom would not write."""
    element = b"\x02\x00\x10\x00UI"
    was, becomes = (uid.encode() + b"\0" * (len(uid) % 2) for uid in (old, new))
    changed = data.replace(
        element + len(was).to_bytes(2, "little") + was, element + len(becomes).to_bytes(2, "little") + becomes, 1
    )
    length = int.from_bytes(data[140:144], "little") + len(becomes) - len(was)
    return changed[:140] + length.to_bytes(4, "little") + changed[144:]


def lut(first: int, bits: int, entries: Sequence[int] | bytes, count: int | None = None) -> Dataset:
    """Return an item of a LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) if count is None else count, first, bits])
    if isinstance(entries, bytes):
        item.add_new("LUTData", "OW", entries)
    else:
        item.add_new("LUTData", "US", list(entries))
    return item
