"""Pictures of real files: which ones cannot be shown and why, and pixels as the Standard has them."""

from __future__ import annotations

import csv
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_modality_lut, pixel_array

from dicomfs.dicom.picture import CannotShow
from dicomfs.dicom.picture_file import THUMBNAIL_BYTES, png, rendered_bytes, thumbnail
from tests.dicom.images import picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.corpus

NOT_SHOWN = {
    # pixels that are cut off, or of no length
    "no-header_explicit(two-pass).dcm": "its pixels are not all there",
    "MR_truncated.dcm": "its pixels are not all there",
    "GH1146.dcm": "its pixels are not all there",
    # Pixel Data of two bytes, and no Rows and Columns
    "meta_missing_tsyntax.dcm": "its pixels are not all there",
    # 12 bits allocated, which PS3.5 8.1.1 does not have any more
    "GH340.dcm": "its pixels cannot be decoded",
    # two bytes where JPEG should be
    "genFile.dcm": "its pixels cannot be decoded",
    # a codestream with other bytes in it
    "JPEG2000-embedded-sequence-delimiter.dcm": "its pixels cannot be decoded",
}


def files(corpus: Path) -> Iterator[Path]:
    with (corpus / "MANIFEST.tsv").open() as manifest:
        for row in csv.DictReader(manifest, delimiter="\t"):
            yield corpus / row["path"]


def test_every_file_has_a_picture_or_a_reason(corpus: Path) -> None:
    not_shown, shown, without = {}, 0, 0
    for path in files(corpus):
        found = picture(path.read_bytes())
        try:
            pixels = found.frame(1)
        except CannotShow as error:
            if str(error):
                not_shown[path.name] = str(error)
            else:
                without += 1
                assert not has_pixels(path), path
            continue
        shown += 1
        assert len(png(pixels)) == rendered_bytes(found.rows, found.columns, found.colour), path
        small = thumbnail(pixels, found.aspect(1))
        assert len(small) == THUMBNAIL_BYTES, path
        assert max(Image.open(io.BytesIO(small)).size) <= 256, path
    assert not_shown == NOT_SHOWN
    assert shown > 400
    assert without > 50


def has_pixels(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        return any(tag in dataset for tag in (0x7FE00008, 0x7FE00009, 0x7FE00010))


def test_pixels_are_those_of_pydicom_through_the_formulas(corpus: Path) -> None:
    """Grey: the first window, linear, or the range; colour: as pydicom has it. The rest has tests of its own."""
    compared = {"window": 0, "range": 0, "colour": 0}
    for path in files(corpus):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours = picture(path.read_bytes())
            try:
                found = ours.frame(1)
            except CannotShow:
                continue
            try:
                dataset = pydicom.dcmread(path, force=True)
                pixels = pixel_array(dataset, index=0)
            except Exception:  # noqa: BLE001 - which is why there are other decoders
                continue
            if dataset.PhotometricInterpretation == "PALETTE COLOR":
                continue
            if ours.colour:
                if pixels.dtype == np.uint8:
                    assert np.array_equal(found, pixels), path
                    compared["colour"] += 1
                continue
            special = ("VOILUTSequence", "VOILUTFunction", "PixelPaddingValue", "SharedFunctionalGroupsSequence")
            if any(keyword in dataset for keyword in special) or dataset.BitsStored == 1:
                continue
            meant = apply_modality_lut(pixels, dataset).astype(float)
            expected, kind = windowed(dataset, meant)
            if dataset.PhotometricInterpretation == "MONOCHROME1":
                expected = 255 - expected
            assert np.abs(found - expected).max() <= 1, path
            compared[kind] += 1
    assert compared["window"] > 150
    assert compared["range"] > 20
    assert compared["colour"] > 20


def windowed(dataset: pydicom.Dataset, meant: np.ndarray) -> tuple[np.ndarray, str]:
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if isinstance(centre, pydicom.multival.MultiValue):
        centre, width = centre[0], width[0]
    if centre in (None, "") or width in (None, "") or width <= 0:
        low, high = meant.min(), meant.max()
        return (meant - low) / max(high - low, 1e-12) * 255, "range"
    less = 1 if width >= 1 else 0
    centre, width = float(centre) - less / 2, float(width) - less
    if not width:
        return np.where(meant > centre, 255, 0), "window"
    return np.clip((meant - centre) / width + 0.5, 0, 1) * 255, "window"
