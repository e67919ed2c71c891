"""The catalog's attributes: what is a number, what is text, what is absent."""

import pytest

from dicomfs.dicom.attributes import TABLE, Attributes, Value
from dicomfs.dicom.describe import describe
from tests.dicom.build import EXPLICIT, WRITERS, Writer, part10
from tests.dicom.build import Value as Raw

by_name = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)


def read(writer: Writer, *elements: tuple[int, str, Raw]) -> Attributes:
    data_set = b"".join(writer.element(*element) for element in elements)
    attributes = describe(part10(data_set + writer.identity(), writer.transfer_syntax)).attributes
    assert attributes is not None
    return attributes


@by_name
def test_every_attribute_is_at_its_level(writer: Writer) -> None:
    values: dict[str, Value] = {"UI": "1.2.3", "US": 7, "IS": 7, "DA": "20240131", "TM": "1200"}
    uids = {0x00080016, 0x00080018, 0x0020000D, 0x0020000E}  # which every instance has
    elements = [(tag, vr, values.get(vr, "text")) for tag, _, _, vr in sorted(TABLE) if tag not in uids]
    attributes = read(writer, *((tag, vr, str(value) if vr == "IS" else value) for tag, vr, value in elements))
    levels = (attributes.patient, attributes.study, attributes.series, attributes.instance)
    for tag, level, keyword, vr in TABLE:
        assert keyword in levels[level]
        assert tag in uids or levels[level][keyword] == values.get(vr, "text")
    assert sum(map(len, levels)) == len(TABLE) + 1
    assert attributes.instance["TransferSyntaxUID"] == writer.transfer_syntax


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("IS", "12", 12),
        ("IS", " 0012 ", 12),
        ("IS", "-3", -3),
        ("IS", "+3", 3),
        ("IS", "1.0 ", "1.0"),
        ("IS", "1_000 ", "1_000"),
        ("IS", "1\\2 ", "1\\2"),
        ("IS", "first ", "first"),
        ("IS", "9" * 30, "9" * 30),
        ("IS", "", None),
        ("IS", "  ", None),
        ("US", 5, 5),
        ("UL", 70_000, 70_000),
        ("US", [5, 6], "5\\6"),
        ("UN", "7 ", 7),
        ("LO", "7 ", "7"),
        ("SS", [], None),
    ],
)
def test_numbers_are_numbers_only_when_they_are(vr: str, value: Raw, expected: Value | None) -> None:
    assert read(EXPLICIT, (0x00200013, vr, value)).instance.get("InstanceNumber") == expected


def test_a_malformed_element_degrades_alone() -> None:
    attributes = read(
        EXPLICIT,
        (0x00280010, "US", b"\1\2\3"),
        (0x00080020, "DA", "yesterday "),
        (0x00080030, "TM", b"\xff\xfe"),
        (0x00100010, "OB", b"Doe^Jane"),
        (0x00080060, "CS", "MR"),
    )
    assert "Rows" not in attributes.instance
    assert attributes.study["StudyDate"] == "yesterday"
    assert attributes.study["StudyTime"] == "ÿþ"
    assert "PatientName" not in attributes.patient
    assert attributes.series["Modality"] == "MR"


def test_names_keep_their_separators_and_lose_their_padding() -> None:
    attributes = read(EXPLICIT, (0x00100010, "PN", "Doe^Jane^^Dr.=i=p \0"), (0x00080090, "PN", "^^ "))
    assert attributes.patient["PatientName"] == "Doe^Jane^^Dr.=i=p"
    assert attributes.study["ReferringPhysicianName"] == "^^"


def test_missing_and_empty_attributes_are_absent() -> None:
    attributes = read(EXPLICIT, (0x00100020, "LO", ""), (0x00100010, "PN", "   "), (0x00100040, "CS", b"\0\0"))
    assert attributes.patient == {}
    assert attributes.study.keys() == {"StudyInstanceUID"}
    assert attributes.series.keys() == {"SeriesInstanceUID"}
    assert attributes.instance.keys() == {"SOPInstanceUID", "SOPClassUID", "TransferSyntaxUID"}
