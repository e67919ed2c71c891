"""Any attribute as text, of every VR, in every encoding, by keyword or tag."""

import subprocess
import sys

import pytest

from dicomfs.dicom.describe import describe
from dicomfs.dicom.values import keyword_tag, text_of, texts_of
from dicomfs.errors import UsageError
from tests.dicom.build import (
    BIG,
    DEFLATED_UID,
    EXPLICIT,
    IMPLICIT,
    IMPLICIT_UID,
    JPEG_UID,
    WRITERS,
    Value,
    Writer,
    deflated,
    part10,
)

by_name = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)

# keyword, VR, value, text
CASES = [
    ("RetrieveAETitle", "AE", " ARCHIVE", "ARCHIVE"),
    ("PatientAge", "AS", "031Y", "031Y"),
    ("FrameIncrementPointer", "AT", b"\x18\0\x63\x10\x18\0\x65\x10", "00181063\\00181065"),
    ("ImageType", "CS", "DERIVED \\PRIMARY", "DERIVED\\PRIMARY"),
    ("StudyDate", "DA", "20240131", "20240131"),
    ("SliceThickness", "DS", " 1.50 ", "1.50"),
    ("SliceThickness", "DS", "thick", "thick"),
    ("AcquisitionDateTime", "DT", "20240131120000.123 ", "20240131120000.123"),
    ("ExaminedBodyThickness", "FL", [0.1, -2.5, 1e30], "0.1\\-2.5\\1e+30"),
    ("ReferencePixelX0", "SL", [-5, 7], "-5\\7"),
    ("RealWorldValueSlope", "FD", [0.1, 3.0], "0.1\\3.0"),
    ("InstanceNumber", "IS", " 007", "007"),
    ("PatientComments", "LT", " two\\one \r\n", " two\\one"),
    ("PatientID", "LO", " 1\\2 ", " 1\\2"),
    ("PatientName", "PN", "Doe^Jane^^Dr.=x ", "Doe^Jane^^Dr.=x"),
    ("AccessionNumber", "SH", "A-1 ", "A-1"),
    ("TagAngleSecondAxis", "SS", [-7, 9], "-7\\9"),
    ("InstitutionAddress", "ST", "a\r\nb ", "a\r\nb"),
    ("StudyTime", "TM", "1200 ", "1200"),
    ("StudyInstanceUID", "UI", "1.2.3", "1.2.3"),
    ("StudyInstanceUID", "UI", b" 1.2.3 \0", "1.2.3"),
    ("RegionDataType", "US", 3, "3"),
    ("Rows", "US", [1, 2], "1\\2"),
    ("RegionFlags", "UL", [4_000_000_000], "4000000000"),
    ("SelectorSVValue", "SV", [-(1 << 60)], str(-(1 << 60))),
    ("SelectorUVValue", "UV", [1 << 63], str(1 << 63)),
    ("LongCodeValue", "UC", "code ", "code"),
    ("URNCodeValue", "UR", "urn:oid:1.2 ", "urn:oid:1.2"),
    ("TextValue", "UT", " text ", " text"),
    ("PatientID", "LO", "", ""),
    ("LUTData", "OW", b"\1\0\2\0", None),
    ("ICCProfile", "OB", b"text", None),
    ("Rows", "US", b"odd", "odd"),
    ("Rows", "US", b"\xff\x01\x02", None),
]


@by_name
@pytest.mark.parametrize(("keyword", "vr", "value", "text"), CASES, ids=lambda each: str(each)[:20])
def test_every_vr_has_its_text(writer: Writer, keyword: str, vr: str, value: Value, text: str | None) -> None:
    if vr == "AT" and writer.big:
        value = b"\0\x18\x10\x63\0\x18\x10\x65"
    data = part10(writer.identity() + writer.element(keyword_tag(keyword), vr, value), writer.transfer_syntax)
    assert text_of(data, keyword) == text


@by_name
def test_sequences_have_none_and_their_elements_are_not_found(writer: Writer) -> None:
    for undefined in (True, False):
        item = writer.item(writer.element(0x00100020, "LO", "inner "), undefined=undefined)
        sequence = writer.sequence(0x00081140, [item], undefined=undefined)
        data = part10(sequence + writer.identity(), writer.transfer_syntax)
        assert text_of(data, "ReferencedImageSequence") is None
        assert text_of(data, "PatientID") is None
        assert text_of(data, "StudyInstanceUID") is not None


def test_what_is_absent_is_none() -> None:
    assert text_of(part10(EXPLICIT.identity()), "PatientName") is None
    assert text_of(b"no DICOM", "PatientName") is None
    assert text_of(b"", "PatientName") is None
    assert text_of(part10(b"\xff\xff", DEFLATED_UID), "PatientName") is None


@pytest.mark.parametrize("spelling", ["PatientID", "00100020", "0010,0020", "(0010,0020)"])
def test_a_tag_may_be_written_in_any_form(spelling: str) -> None:
    assert keyword_tag(spelling) == 0x00100020
    assert text_of(part10(EXPLICIT.identity() + EXPLICIT.element(0x00100020, "LO", "7 ")), spelling) == "7"


@pytest.mark.parametrize("wrong", ["", "PatientsName", "patientid", "0010", "0010.0020", "001000200", "0010,002G"])
def test_what_is_no_keyword_is_the_users_error(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"neither a DICOM keyword.*nor a tag"):
        keyword_tag(wrong)


@by_name
def test_private_attributes_are_read_by_tag(writer: Writer) -> None:
    elements = (
        writer.element(0x00190010, "LO", "SIEMENS MR HEADER ")
        + writer.element(0x0019100C, "IS", "1000")  # B_value: known to pydicom's dictionary
        + writer.element(0x00291001, "LO", "text")  # without a creator
        + writer.element(0x00291002, "UN", b"\0\1\2\3")
    )
    data = part10(writer.identity() + elements, writer.transfer_syntax)
    assert text_of(data, "0019,0010") == "SIEMENS MR HEADER"
    assert text_of(data, "0019,100C") == "1000"
    assert text_of(data, "0029,1001") == "text"
    assert text_of(data, "0029,1002") is None


def test_un_is_read_by_the_dictionary() -> None:
    data = part10(EXPLICIT.identity() + EXPLICIT.element(0x00280010, "UN", b"\0\2"))
    assert text_of(data, "Rows") == "512"


def test_us_or_ss_follows_pixel_representation() -> None:
    for sign, text in ((0, "65535"), (1, "-1")):
        header = IMPLICIT.identity() + IMPLICIT.element(0x00280103, "US", sign)
        data = part10(header + IMPLICIT.element(0x00280106, "US", 65535), IMPLICIT_UID)
        assert text_of(data, "SmallestImagePixelValue") == text


def test_meta_information_is_read() -> None:
    data = part10(EXPLICIT.identity(), JPEG_UID)
    assert text_of(data, "TransferSyntaxUID") == JPEG_UID
    assert text_of(data, "MediaStorageSOPClassUID") == "1.2.840.10008.5.1.4.1.1.7"
    assert text_of(data, "FileMetaInformationGroupLength") is not None
    assert text_of(data, "SourceApplicationEntityTitle") is None


def test_the_head_of_a_file_is_enough() -> None:
    for pixels in (EXPLICIT.element(0x7FE00010, "OW", bytes(5000)), EXPLICIT.encapsulated([bytes(500)])):
        data = part10(EXPLICIT.identity() + EXPLICIT.element(0x00280010, "US", 7) + pixels)
        head = data[: describe(data).spans[0].end]
        assert text_of(head, "Rows") == "7"


def test_a_deflated_data_set_is_read() -> None:
    assert text_of(part10(deflated(EXPLICIT.identity("1.2")), DEFLATED_UID), "StudyInstanceUID") == "1.2"


def test_values_are_decoded_by_the_character_set() -> None:
    for writer in (EXPLICIT, IMPLICIT, BIG):
        data = part10(
            writer.element(0x00080005, "CS", "ISO_IR 101")
            + writer.element(0x00081030, "LO", "Żółw".encode("iso8859_2"))
            + writer.identity(),
            writer.transfer_syntax,
        )
        assert text_of(data, "StudyDescription") == "Żółw"


def test_the_last_of_two_equal_tags_counts() -> None:
    data = part10(EXPLICIT.element(0x00100020, "LO", "a ") + EXPLICIT.element(0x00100020, "LO", "b "))
    assert text_of(data, "PatientID") == "b"


def test_pydicom_is_not_loaded_for_the_catalogs_attributes() -> None:
    program = (
        "import sys; from dicomfs.dicom.describe import describe; from dicomfs.dicom.values import text_of;"
        f"data = {part10(EXPLICIT.identity())!r}; assert text_of(data, 'StudyInstanceUID') and describe(data);"
        "assert not {'pydicom', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_several_attributes_are_read_at_once() -> None:
    keywords = ["PatientID", "TransferSyntaxUID", "0019,100C", "PatientName", "0019,0010", "PatientID", "Rows"]
    private = EXPLICIT.element(0x00190010, "LO", "SIEMENS MR HEADER ") + EXPLICIT.element(0x0019100C, "UN", b"1000")
    elements = EXPLICIT.identity() + EXPLICIT.element(0x00100020, "LO", "7 ") + private
    for data in (part10(elements), part10(deflated(elements), DEFLATED_UID), b"no DICOM", b""):
        assert texts_of(data, keywords) == [text_of(data, keyword) for keyword in keywords]
    assert texts_of(part10(elements), keywords)[2:] == ["1000", None, "SIEMENS MR HEADER", "7", None]
    assert texts_of(part10(elements), []) == []
