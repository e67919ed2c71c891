"""A small cohort, like the one that Orthanc's drive is measured with: 1025 files of 753 MB in full size.

    P01 … P08    2 studies of 2 series of 32 CT slices each, 512 x 512 of 16 bits; names of many scripts
    P08          P01 de-identified: the same pixels under other UIDs
    P09          one multi-frame object of 400 such frames, 210 MB

The pixels are CT_small.dcm of pydicom, tiled, with white noise: harder to compress than what `scans` makes.
The same bytes every time.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from benchmark.scans import Samples, sample, uid

NAMES = (
    "Doe^John",
    "MÜLLER^Jürgen",
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "O'Brien^Pat/Ricia",
    "Doe^John",
    "Smith^Ann. ",
    "Łukasz^Żółć",
    "ANON^08",
)
STUDIES, SERIES = 2, 2
"""Of each patient, and of each study."""
COPIED_FROM = {8: 1}
"""The patient whose pixels another one has."""
STUDY_PATIENT, GIANT_PATIENT = "P02", "P09"
_NOISE = 8.0
_TILES = 4


def study_uid(patient: int, study: int) -> str:
    """Return the UID of a study."""
    return uid("cohort", patient, study)


def giant_uids() -> tuple[str, str, str]:
    """Return the UIDs of study, series and instance of the multi-frame object."""
    return study_uid(9, 1), uid("cohort", 9, 1, 1), uid("cohort", 9, 1, 1, 1)


def _tiled() -> Samples:
    tile: Samples = sample("CT_small.dcm").pixel_array.astype(np.int16)
    return np.tile(tile, (_TILES, _TILES))


def _pixels(tiled: Samples, seed: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, _NOISE, tiled.shape)
    return bytes((tiled + np.rint(noise).astype(np.int16)).astype("<i2").tobytes())


def _dataset(patient: int, study: int, series: int, instance: int) -> Dataset:
    dataset = sample("CT_small.dcm")
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PatientID = f"P{patient:02d}"
    dataset.PatientName = NAMES[patient - 1] if patient <= len(NAMES) else "Big^One"
    dataset.StudyInstanceUID = study_uid(patient, study)
    dataset.SeriesInstanceUID = uid("cohort", patient, study, series)
    dataset.SOPInstanceUID = UID(uid("cohort", patient, study, series, instance))
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = str(study), series, instance
    dataset.StudyDate, dataset.StudyTime = f"2024{study:02d}{patient:02d}", "101500"
    dataset.StudyDescription = "CT thorax/abdomen" if study == 1 else "CT follow-up"
    dataset.SeriesDescription = "AX 5.0 B30f"
    dataset.SliceLocation = 5.0 * instance
    dataset.ImagePositionPatient = [-125, -125, 5.0 * instance]
    dataset.Rows = dataset.Columns = 128 * _TILES
    del dataset.DataSetTrailingPadding
    return dataset


def _write(directory: Path, dataset: Dataset, pixels: bytes) -> None:
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    place = directory / dataset.PatientID / dataset.StudyInstanceUID / dataset.SeriesInstanceUID
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{dataset.SOPInstanceUID}.dcm").write_bytes(buffer.getbuffer())


def _slices(slices: int) -> Iterator[tuple[int, int, int, int]]:
    for patient in range(1, len(NAMES) + 1):
        for study in range(1, STUDIES + 1):
            for series in range(1, SERIES + 1):
                for number in range(1, slices + 1):
                    yield patient, study, series, number


def write(directory: Path, slices: int, frames: int) -> None:
    """Write the cohort: so many slices a series, so many frames in the multi-frame object."""
    tiled = _tiled()
    for patient, study, series, number in _slices(slices):
        seen = COPIED_FROM.get(patient, patient)
        seed = (seen * STUDIES * SERIES + study * SERIES + series) * 1000 + number
        _write(directory, _dataset(patient, study, series, number), _pixels(tiled, seed))
    giant = _dataset(9, 1, 1, 1)
    giant.SOPClassUID, giant.NumberOfFrames = EnhancedCTImageStorage, frames
    _write(directory, giant, b"".join(_pixels(tiled, 900_000 + number) for number in range(frames)))
