"""DICOM files to measure with: made from pydicom's samples, the same bytes every time.

    CT      512 x 512 slices of 16 bits (0.5 MiB), the head of CT_small.dcm and its anatomy, enlarged
    MR      96 x 96 slices of 16 bits (about 20 KB), from MR_small.dcm
    giant   one multi-frame object of as many CT frames as wanted

Every slice has its own UIDs and its own noise. The noise is that of a reconstructed scan (its neighbours
are correlated) and as strong as makes byte planes with zstd -1 reach what they reach on clinical CT:
0.40 to 0.45 of the input. What they did reach is measured (probe `stored`), not assumed.
"""

import copy
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID, EnhancedCTImageStorage, ExplicitVRLittleEndian

VERSION = 1
"""Raised when what is written here changes, so that older data are made anew."""

CT_SIDE = 512
MR_SIDE = 96
_FIELDS = 16
_CT_NOISE = 11.0
_MR_NOISE = 14.0
_MR_SHIFT = 3
_MR_AIR = 7
"""An MR image leaves much of the range of its samples unused, and is dark with a little noise around the body."""

Samples = NDArray[np.int16]
Make: TypeAlias = Callable[[Path], None]
"""Fills a directory that is not there yet."""


def uid(*parts: object) -> str:
    """Return a UID that follows from `parts`, always of 44 characters (PS3.5 B.2)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{10**38 + int.from_bytes(digest[:15], 'big') % 10**38}"


@cache
def _noise(side: int, strength: float) -> tuple[Samples, ...]:
    """Return fields of noise whose neighbours are correlated, as a reconstruction kernel makes them."""
    fields = []
    for number in range(_FIELDS):
        white = np.random.default_rng([side, number]).normal(0, 1, (side, side))
        smooth = white * 4
        for axis in (0, 1):
            smooth = smooth * 2 + np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis)
        smooth *= strength / smooth.std()
        fields.append(np.rint(smooth).astype(np.int16))
    return tuple(fields)


def sample(name: str) -> Dataset:
    """Return one of the files that pydicom brings."""
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return pydicom.dcmread(path)


def _enlarged(image: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Interpolate between the samples of a square image."""
    at = np.linspace(0, image.shape[0] - 1, side)
    low = np.minimum(at.astype(int), image.shape[0] - 2)
    part = at - low
    rows = image[low] * (1 - part)[:, None] + image[low + 1] * part[:, None]
    return np.asarray(rows[:, low] * (1 - part) + rows[:, low + 1] * part)


@cache
def _anatomy(name: str, side: int) -> Samples:
    dataset = sample(name)
    return np.asarray(_enlarged(dataset.pixel_array.astype(float), side).astype(np.int16))


@cache
def _inside(side: int) -> NDArray[np.bool_]:
    """Return the circle that a CT scanner reconstructs."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.asarray(x * x + y * y <= 1)


def ct_frame(seed: str) -> bytes:
    """Return the pixels of one CT slice; equal seeds, equal pixels."""
    return np.where(_inside(CT_SIDE), _slice("CT_small.dcm", CT_SIDE, _CT_NOISE, seed), 0).astype("<i2").tobytes()


def mr_frame(seed: str) -> bytes:
    """Return the pixels of one MR slice."""
    signal = _slice("MR_small.dcm", MR_SIDE, _MR_NOISE, seed) >> _MR_SHIFT
    background = _slice("MR_small.dcm", MR_SIDE, _MR_NOISE, f"{seed}/air") & _MR_AIR
    return np.where(_inside(MR_SIDE), np.maximum(signal, 0), background).astype("<i2").tobytes()


def _slice(sample: str, side: int, strength: float, seed: str) -> Samples:
    digest = hashlib.sha256(seed.encode()).digest()
    field = _noise(side, strength)[digest[0] % _FIELDS]
    rows, columns = int.from_bytes(digest[1:3]) % side, int.from_bytes(digest[3:5]) % side
    return np.asarray(_anatomy(sample, side) + np.roll(field, (rows, columns), (0, 1)))


class Template:
    """A file of which some values of fixed length are filled in for each instance."""

    def __init__(self, dataset: Dataset, marks: dict[str, str]) -> None:
        """`marks` are the texts that stand in the dataset for the values, by the name of the value."""
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        self._bytes = buffer.getvalue()
        self._places = {name: list(_places(self._bytes, mark.encode())) for name, mark in marks.items()}
        self._lengths = {name: len(mark) for name, mark in marks.items()}

    def fixed(self, filled: bytearray) -> "Template":
        """Return a template that has everything as it was filled in here, and can be filled in anew."""
        again = copy.copy(self)
        again._bytes = bytes(filled)  # noqa: SLF001 - it is one of us
        return again

    def fill(self, **values: str) -> bytearray:
        """Return the file with these values."""
        filled = bytearray(self._bytes)
        for name, value in values.items():
            length = self._lengths[name]
            text = value.encode().rjust(length)
            assert len(text) == length, name
            for place in self._places[name]:
                filled[place : place + length] = text
        return filled


def _places(data: bytes, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    assert at >= 0, mark
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


MARKS = {
    "instance": uid("mark", "instance"),
    "series": uid("mark", "series"),
    "study": uid("mark", "study"),
    "number": "987654",
    "position": "-9876.25",
    "time": "235958",
}


def _series_template(name: str, side: int, patient: str, description: str) -> Template:
    dataset = sample(name)
    dataset.PatientID, dataset.PatientName = patient, f"Bench^{patient}"
    dataset.StudyDescription, dataset.SeriesDescription, dataset.SeriesNumber = description, "AX 1.0", 1
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = MARKS["study"], MARKS["series"]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(MARKS["instance"])
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.ContentTime = MARKS["time"]
    dataset.add_new("InstanceNumber", "IS", MARKS["number"])
    dataset.add_new("SliceLocation", "DS", MARKS["position"])
    dataset.Rows = dataset.Columns = side
    for keyword in ("DataSetTrailingPadding", "SmallestImagePixelValue", "LargestImagePixelValue"):
        if keyword in dataset:
            del dataset[keyword]
    del dataset.PixelData
    return Template(dataset, MARKS)


def _pixel_data(length: int) -> bytes:
    """Return the head of the Pixel Data element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    return b"\xe0\x7f\x10\x00OW\x00\x00" + length.to_bytes(4, "little")


def write_series(
    directory: Path, sample: str, side: int, frame: Callable[[str], bytes], patient: str, count: int, *, files: str
) -> None:
    """Write one study of one series; `files` names them, by number."""
    directory.mkdir(parents=True)
    template = _series_template(sample, side, patient, f"{patient} follow-up")
    names = {"study": uid(patient, "study"), "series": uid(patient, "series")}
    for number in range(1, count + 1):
        head = template.fill(
            **names,
            instance=uid(patient, number),
            number=str(number),
            position=f"{number / 2:.2f}",
            time=f"10{number // 60 % 60:02d}{number % 60:02d}",
        )
        pixels = frame(f"{patient}/{number}")
        with open(directory / files.format(number), "wb", buffering=0) as file:
            os.writev(file.fileno(), [head, _pixel_data(len(pixels)), pixels])


def write_ct(directory: Path, studies: int, slices: int) -> None:
    """Write CT studies of so many slices each, a directory for each."""
    for study in range(1, studies + 1):
        place = directory / f"CT{study:03d}"
        write_series(place, "CT_small.dcm", CT_SIDE, ct_frame, f"CT{study:05d}", slices, files="IM{:06d}")


def write_mr(directory: Path, files: int, slices: int = 200) -> None:
    """Write small MR files, `slices` to a study."""
    for study, first in enumerate(range(0, files, slices), start=1):
        place = directory / f"MR{study:03d}"
        count = min(slices, files - first)
        write_series(place, "MR_small.dcm", MR_SIDE, mr_frame, f"MR{study:05d}", count, files="IM{:06d}")


def write_giant(directory: Path, frames: int) -> None:
    """Write one multi-frame object."""
    directory.mkdir(parents=True)
    dataset = sample("CT_small.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid("giant"))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("giant", "study"), uid("giant", "series")
    dataset.PatientID, dataset.PatientName = "GIANT", "Bench^Giant"
    dataset.Rows = dataset.Columns = CT_SIDE
    dataset.NumberOfFrames = frames
    del dataset.PixelData, dataset.DataSetTrailingPadding
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    with open(directory / "giant.dcm", "wb") as file:
        file.write(buffer.getvalue() + _pixel_data(frames * CT_SIDE * CT_SIDE * 2))
        file.writelines(ct_frame(f"giant/{number}") for number in range(frames))


def made(directory: Path, make: Make, **parameters: object) -> Path:
    """Return a directory that `make` filled, now or in an earlier run with the same parameters."""
    wanted = json.dumps({"version": VERSION, **parameters}, sort_keys=True)
    stamp = directory.with_name(f"{directory.name}.made")
    if not (stamp.is_file() and stamp.read_text() == wanted and directory.is_dir()):
        stamp.unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        make(directory)
        os.sync()
        stamp.write_text(wanted)
    return directory
