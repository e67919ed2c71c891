"""DICOM files made in code, so that a test shows its input: the same arguments always give the same bytes.

    make_instance(modality="MR", frames=3)              one Part 10 file
    make_series(20, series=2)                           the files of one series, in order
    write_study(directory, series=2, instances=10)      a study on disk, and what is where

UIDs follow from `patient`, `study`, `series` and `number`: equal arguments name the same thing.
Pixels look like a scan (a smooth body with noise), so that codecs see what they will see in use.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}

# SOP Class, bits, samples: what an instance of this modality is.
KINDS = {
    "CT": ("1.2.840.10008.5.1.4.1.1.2", 16, 1),
    "MR": ("1.2.840.10008.5.1.4.1.1.4", 16, 1),
    "US": ("1.2.840.10008.5.1.4.1.1.6.1", 8, 3),
    "SC": ("1.2.840.10008.5.1.4.1.1.7", 8, 1),
    "SR": ("1.2.840.10008.5.1.4.1.1.88.11", 0, 0),
}


def uid(*parts: object) -> str:
    """Return a UID that follows from `parts` (PS3.5 B.2: 2.25 and a UUID as an integer)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def pixels(frames: int, rows: int, columns: int, *, bits: int = 16, samples: int = 1, seed: str = "") -> bytes:
    """Return `frames` of a round body with noise, little endian."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    peak = 3000 if bits == 16 else 180
    body = np.clip(1 - x**2 - y**2, 0, 1) * peak
    noisy = body[None, :, :, None] + rng.normal(0, peak / 100, (frames, rows, columns, samples))
    return np.clip(noisy, 0, peak * 1.3).astype("<u2" if bits == 16 else "u1").tobytes()


def make_instance(
    modality: str = "CT",
    *,
    patient: str = "DFS-1",
    patient_name: str = "Doe^Jane",
    study: object = 1,
    series: object = 1,
    number: int = 1,
    frames: int = 1,
    rows: int = 64,
    columns: int = 64,
    transfer_syntax: str = ExplicitVRLittleEndian,
    seed: str | None = None,
    attributes: Mapping[str, object] | None = None,
    trailing: bytes = b"",
) -> bytes:
    """Return one Part 10 file.

    `seed` names the pixels (equal seeds: equal frames), by default those of this instance alone;
    `attributes` are set last, by keyword, and None removes one. Compressed transfer syntaxes get
    fragments that no decoder would like, one a frame.
    """
    sop_class, bits, samples = KINDS[modality]
    study_uid = uid(patient, study)
    series_uid = uid(patient, study, series)
    instance_uid = uid(patient, study, series, number)
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = instance_uid
    dataset.StudyDate = "20240131"
    dataset.StudyTime = "101500"
    dataset.ContentDate = "20240131"
    dataset.ContentTime = f"1016{number % 60:02d}"
    dataset.AccessionNumber = f"A{study}"[:16]
    dataset.Modality = modality
    dataset.Manufacturer = "dicomfs tests"
    dataset.StudyDescription = f"Study {study}"
    dataset.SeriesDescription = f"Series {series}"
    dataset.PatientName = patient_name
    dataset.PatientID = patient
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = series_uid
    dataset.StudyID = f"{study}"[:16]
    dataset.SeriesNumber = series if isinstance(series, int) else 1
    dataset.InstanceNumber = number
    if bits:
        _add_pixels(dataset, bits, samples, frames, rows, columns, transfer_syntax, seed or instance_uid)
    for keyword, value in (attributes or {}).items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", instance_uid)
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.file_meta.ImplementationClassUID = uid("dicomfs tests")
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue() + trailing


def _add_pixels(
    dataset: Dataset, bits: int, samples: int, frames: int, rows: int, columns: int, syntax: str, seed: str
) -> None:
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = "MONOCHROME2" if samples == 1 else "RGB"
    if samples > 1:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = bits
    dataset.BitsStored = 12 if bits == 16 else 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    raw = pixels(frames, rows, columns, bits=bits, samples=samples, seed=seed)
    native = syntax in NATIVE
    if syntax == ExplicitVRBigEndian and bits == 16:
        raw = np.frombuffer(raw, "<u2").astype(">u2").tobytes()
    if native:
        value = raw + b"\0" * (len(raw) % 2)
    else:
        size = len(raw) // frames
        scans = (raw[i * size : (i + 1) * size] for i in range(frames))
        value = encapsulate([b"\xff\xd8" + scan[: size // 4] + b"\xff\xd9" for scan in scans])
    dataset.add_new("PixelData", "OW" if native and (bits == 16 or syntax == ImplicitVRLittleEndian) else "OB", value)
    if not native:
        dataset["PixelData"].is_undefined_length = True


def make_series(count: int, modality: str = "CT", **arguments: object) -> list[bytes]:
    """Return the `count` files of one series; `arguments` are those of make_instance."""
    return [make_instance(modality, number=number, **arguments) for number in range(1, count + 1)]


def write_study(
    directory: Path, *, series: int = 1, instances: int = 4, modality: str = "CT", **arguments: object
) -> dict[Path, str]:
    """Write a study below `directory` and return the SHA-256 of each file, as hexadecimal digits."""
    written = {}
    for series_number in range(1, series + 1):
        folder = directory / f"series{series_number}"
        folder.mkdir(parents=True, exist_ok=True)
        files = make_series(instances, modality, series=series_number, **arguments)
        for number, content in enumerate(files, start=1):
            path = folder / f"IM{number:05d}"
            path.write_bytes(content)
            written[path] = hashlib.sha256(content).hexdigest()
    return written
