"""The JSON of a header: what `model` says and group 2, but nothing that is in bulk."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomfs.dicom.model import model
from dicomfs.dicom.model_header import header_json
from dicomfs.dicom.part10 import locate
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path


def header(data: bytes) -> dict[str, Any]:
    """Return the JSON of a file's header, which is ASCII."""
    part10 = locate(data)
    assert part10 is not None
    text = header_json(data, part10)
    assert text.isascii()
    return json.loads(text)


def without_bulk(found: Any) -> Any:
    """Return JSON without the attributes that refer to bulk."""
    if isinstance(found, list):
        return [without_bulk(one) for one in found]
    if isinstance(found, dict):
        kept = found.items()
        return {k: without_bulk(v) for k, v in kept if not (isinstance(v, dict) and "BulkDataURI" in v)}
    return found


def assert_as_the_model(data: bytes) -> dict[str, Any]:
    """The header is the model without bulk, with group 2 before it."""
    part10 = locate(data)
    assert part10 is not None
    found = header(data)
    plain = json.loads("".join(model(data, part10, "").pieces))
    assert {tag: told for tag, told in found.items() if not tag.startswith("0002")} == without_bulk(plain)
    assert list(found) == sorted(found)
    return found


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_group_2_is_there_and_pixels_are_not(syntax: str) -> None:
    data = make_instance(
        transfer_syntax=syntax, patient_name="Müller^Jörg=山田^太郎", attributes={"PatientComments": "𒀀"}
    )
    found = assert_as_the_model(data)
    assert found["00020010"] == {"vr": "UI", "Value": [syntax]}
    assert found["00020001"] == {"vr": "OB", "InlineBinary": "AAE="}
    assert found["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg", "Ideographic": "山田^太郎"}]
    assert found["00104000"]["Value"] == ["𒀀"]
    assert "7FE00010" not in found
    assert "00020000" not in found


def nested(*tags: int) -> bytes:
    """Return a file in whose sequence there are values in bulk, and what comes before and after them."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.4"
    items = []
    for tag in tags:
        item = Dataset()
        if tag & 1:
            item.Rows = 7
        item.add_new(0x00290010, "LO", "tests")
        for number in range(tag):
            item.add_new(0x00291000 + number, "OB", bytes(4000))
        if tag & 2:
            item.PixelData = bytes(4000)
            item["PixelData"].VR = "OB"
        items.append(item)
    dataset.add_new(0x00091000, "OB", b"\1" * 4000)
    dataset.IconImageSequence = items
    dataset.add_new(0x00880200, "SQ", [*items, Dataset()])
    dataset.PixelData = bytes(4000)
    dataset["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("tags", [(), (0,), (1,), (2,), (3,), (3, 0, 2), (7, 4, 1)])
def test_bulk_is_left_out_wherever_it_is(tags: tuple[int, ...]) -> None:
    found = assert_as_the_model(nested(*tags))
    assert "BulkDataURI" not in json.dumps(found)
    assert len(found["00880200"]["Value"]) == len(tags) + 1


def test_a_file_of_nothing_but_bulk() -> None:
    data = bytes(128) + b"DICM" + b"\x02\0\x10\0UI\x02\x001\0" + b"\x09\0\x00\x10OB\0\0\xa0\x0f\0\0" + bytes(4000)
    data += b"\xe0\x7f\x10\x00OW\0\0\xa0\x0f\0\0" + bytes(4000)
    assert set(assert_as_the_model(data)) == {"00020010"}


def test_a_file_without_meta_information_says_what_it_is_in() -> None:
    data = make_instance()
    data = data[data.index(b"\x08\0\x05\0CS") :]
    found = header(data)
    assert found["00020010"]["Value"] == [ExplicitVRLittleEndian]
    assert [tag for tag in found if tag.startswith("0002")] == ["00020010"]


@pytest.mark.corpus
def test_the_corpus(corpus: Path) -> None:
    seen = 0
    for path in sorted(corpus.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        part10 = locate(data)
        if part10 is None or part10.deflated:
            continue
        assert_as_the_model(data)
        seen += 1
    assert seen > 400
