"""One patient's name, number and day in every value of the corpus' files, as each VR writes them: none comes out."""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import DataElement, Dataset, config, dcmread

from dicomfs.dicom.deid_profile import METHODS
from dicomfs.dicom.deidentify import Refused
from tests.dicom.deid_files import deidentified

NUMBER, DAY = "77123456", "19870613"
VALUES = {
    "AE": "ZEBULONQ", "CS": "ZEBULONQ", "DA": DAY, "DS": NUMBER, "DT": f"{DAY}101112", "IS": NUMBER,
    "LO": "a Zebulonq b", "LT": "ZEBULONQ.", "PN": "Zebulonq^X", "SH": "Zebulonq", "ST": "x Zebulonq",
    "UC": "zebulonq", "UI": f"1.2.826.0.1.{NUMBER}.7", "UR": f"http://zebulonq/{NUMBER}", "UT": "zebulonq",
}  # fmt: skip
SECRETS = (b"zebulonq", NUMBER.encode(), DAY.encode())
SPARED = {"TransferSyntaxUID", "SOPClassUID", "SpecificCharacterSet", "Modality", "PhotometricInterpretation",
          "NumberOfFrames", "RecognizableVisualFeatures", "ImageType"}  # fmt: skip
"""Without which nothing is made of a file."""
PROFILES = (
    "basic",
    ",".join(("basic", *(option for option in METHODS if option not in ("basic", "full-dates", "retain-uids")))),
)
LARGEST = 1 << 18

pytestmark = pytest.mark.corpus


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fill(found: Dataset) -> None:
    for element in list(found):
        if element.VR == "SQ":
            for item in element.value:
                fill(item)
        elif element.VR in VALUES and element.keyword not in SPARED:
            found[element.tag] = DataElement(element.tag, element.VR, VALUES[element.VR])


def filled(path: Path) -> bytes:
    """Return a file with the patient everywhere; b"" for what pydicom cannot read or write."""
    try:
        found = dcmread(path)
        fill(found)
        found.PatientName, found.PatientID = VALUES["PN"], NUMBER
        found.PatientBirthDate = found.StudyDate = DAY
        found.BurnedInAnnotation = "NO"
        found.ImageType = ["DERIVED", "PRIMARY"]
        written = io.BytesIO()
        found.save_as(written)
    except Exception:  # noqa: BLE001 - whatever it is, the file is of no use here
        return b""
    return written.getvalue()


@pytest.mark.parametrize("profile", PROFILES)
def test_who_is_in_every_value_is_in_none(corpus: Path, profile: str) -> None:
    results = 0
    for path in sorted(corpus.rglob("*")):
        if not path.is_file() or path.stat().st_size > LARGEST or not (file := filled(path)):
            continue
        try:
            own = deidentified(file, profile).own.lower()
        except Refused:
            continue
        results += 1
        assert not [secret for secret in SECRETS if secret in own], path
    assert results > 200
