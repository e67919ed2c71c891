"""What each rule of a profile does to an attribute, in data sets built here."""

import pytest
from pydicom import Dataset

from dicomfs.dicom.deidentify import Pseudonyms, Refused
from dicomfs.dicom.file_meta import IMPLEMENTATION_CLASS_UID
from tests.dicom.build import (
    BIG,
    BIG_UID,
    DEFLATED_UID,
    EXPLICIT,
    EXPLICIT_UID,
    IMPLICIT,
    IMPLICIT_UID,
    SERIES,
    SOP,
    STUDY,
    WRITERS,
    Writer,
    deflated,
    part10,
)
from tests.dicom.deid_files import IDENTITY, KEY, PSEUDONYMS, deidentified

CT = "1.2.840.10008.5.1.4.1.1.2"
Element = tuple[int, str, object]
WHO = PSEUDONYMS.patient(IDENTITY)
DAYS = PSEUDONYMS.days(IDENTITY)


def instance(*elements: bytes | Element, writer: Writer = EXPLICIT, sop_class: str = CT, modality: str = "CT",
             pixels: bytes = b"\1\2\3\4\5\6\7\0", transfer_syntax: str | None = None, after: bytes = b"",
             preamble: bytes = b"\0" * 128) -> bytes:  # fmt: skip
    """Build an image with more elements, given as bytes that begin with the tag or as what a writer takes."""
    rows: dict[int, bytes] = {}
    usual: list[Element] = [
        (0x00080016, "UI", sop_class), (0x00080018, "UI", SOP), (0x00080060, "CS", modality),
        (0x0020000D, "UI", STUDY), (0x0020000E, "UI", SERIES), (0x00280002, "US", 1), (0x00280004, "CS", "MONOCHROME2"),
        (0x00280010, "US", 2), (0x00280011, "US", 2), (0x00280100, "US", 16), (0x7FE00010, "OW", pixels),
    ]  # fmt: skip
    for element in [*usual, *elements]:
        if isinstance(element, bytes):
            order = "big" if writer.big else "little"
            tag = int.from_bytes(element[:2], order) << 16 | int.from_bytes(element[2:4], order)
            rows[tag] = element
        else:
            rows[element[0]] = writer.element(*element)  # type: ignore[arg-type]
    data_set = b"".join(rows[tag] for tag in sorted(rows)) + after
    syntax = transfer_syntax or writer.transfer_syntax
    return part10(deflated(data_set) if syntax == DEFLATED_UID else data_set, syntax, preamble=preamble)


def result(*elements: bytes | Element, profile: str = "basic", writer: Writer = EXPLICIT) -> Dataset:
    return deidentified(instance(*elements, writer=writer), profile).read()


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_patient_has_a_pseudonym(writer: Writer) -> None:
    found = result((0x00100010, "PN", "Doe^Jane"), (0x00100020, "LO", "4711"), writer=writer)
    assert found.PatientName == found.PatientID == WHO
    assert WHO.startswith("ANON-")


def test_a_patient_without_name_or_id_has_one_too() -> None:
    found = result()
    assert found.PatientName == found.PatientID == WHO


def test_what_was_done_is_said() -> None:
    found = result(profile="basic,modified-dates,clean-descriptors")
    assert found.PatientIdentityRemoved == "YES"
    assert found.LongitudinalTemporalInformationModified == "MODIFIED"
    assert list(found.DeidentificationMethod) == ["PS3.15 Annex E", "basic", "clean-descriptors", "modified-dates"]
    codes = [(item.CodeValue, item.CodingSchemeDesignator) for item in found.DeidentificationMethodCodeSequence]
    assert codes == [("113100", "DCM"), ("113105", "DCM"), ("113107", "DCM")]
    assert result().LongitudinalTemporalInformationModified == "REMOVED"
    assert result(profile="basic,full-dates").LongitudinalTemporalInformationModified == "UNMODIFIED"


def test_what_earlier_de_identification_said_is_replaced() -> None:
    found = result((0x00120063, "LO", "by Dr. Doe"), (0x00280303, "CS", "UNMODIFIED"))
    assert "Doe" not in str(found)
    assert found.LongitudinalTemporalInformationModified == "REMOVED"


def test_meta_information_is_made_here() -> None:
    meta = result().file_meta
    assert meta.MediaStorageSOPClassUID == CT
    assert meta.MediaStorageSOPInstanceUID == PSEUDONYMS.uid(SOP)
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert {element.keyword for element in meta} == {
        "FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID", "ImplementationVersionName",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("transfer_syntax", "writer", "expected"),
    [
        (EXPLICIT_UID, EXPLICIT, EXPLICIT_UID),
        (IMPLICIT_UID, IMPLICIT, IMPLICIT_UID),
        (BIG_UID, BIG, BIG_UID),
        (DEFLATED_UID, EXPLICIT, EXPLICIT_UID),
        (IMPLICIT_UID, EXPLICIT, EXPLICIT_UID),  # which is what the bytes are
        ("1.2.840.10008.1.2.4.50", EXPLICIT, EXPLICIT_UID),
    ],
)
def test_the_transfer_syntax_is_that_of_the_bytes(transfer_syntax: str, writer: Writer, expected: str) -> None:
    found = deidentified(instance(writer=writer, transfer_syntax=transfer_syntax)).read()
    assert found.file_meta.TransferSyntaxUID == expected
    assert found.PixelData == b"\1\2\3\4\5\6\7\0"
    assert found.Rows == 2


def test_uids_are_mapped_and_those_of_the_standard_are_not() -> None:
    reference = EXPLICIT.element(0x00081150, "UI", CT) + EXPLICIT.element(0x00081155, "UI", SOP)
    context = EXPLICIT.element(0x00080117, "UI", "1.2.840.10008.6.1.308") + EXPLICIT.element(0x0008010D, "UI", "1.2.3")
    found = result(
        EXPLICIT.sequence(0x00081140, [EXPLICIT.item(reference)]),
        EXPLICIT.sequence(0x00082228, [EXPLICIT.item(context)]),
        (0x00200052, "UI", "1.2.3"),
    )
    assert found.SOPClassUID == found.ReferencedImageSequence[0].ReferencedSOPClassUID == CT
    assert found.SOPInstanceUID == found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == PSEUDONYMS.uid(SOP)
    assert found.StudyInstanceUID == PSEUDONYMS.uid(STUDY)
    code = found.PrimaryAnatomicStructureSequence[0]
    assert code.ContextUID == "1.2.840.10008.6.1.308"
    assert code.ContextGroupExtensionCreatorUID == found.FrameOfReferenceUID == PSEUDONYMS.uid("1.2.3")


def test_uids_may_be_retained() -> None:
    found = result((0x00200052, "UI", "1.2.3"), profile="basic,retain-uids")
    assert found.SOPInstanceUID == found.file_meta.MediaStorageSOPInstanceUID == SOP
    assert found.FrameOfReferenceUID == "1.2.3"


def test_uids_that_are_not_legal_are_mapped_even_if_retained() -> None:
    for uid in ("1.2.x", "1", "1." * 33 + "1", "Jane"):
        found = result((0x00080018, "UI", uid), (0x00200052, "UI", uid), profile="basic,retain-uids")
        assert found.SOPInstanceUID == found.FrameOfReferenceUID == PSEUDONYMS.uid(uid)
        assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID


def test_numbers_that_join_studies_are_mapped() -> None:
    request = EXPLICIT.element(0x00080050, "SH", "A1 ")
    found = result(
        (0x00080050, "SH", "A1"), (0x00200010, "SH", "7"), EXPLICIT.sequence(0x00400275, [EXPLICIT.item(request)])
    )
    assert found.AccessionNumber == PSEUDONYMS.text("accession number", "A1")
    assert found.StudyID == PSEUDONYMS.text("study id", "7")
    assert "RequestAttributesSequence" not in found  # as the table says
    assert result((0x00080050, "SH", "")).AccessionNumber == ""


DATES = ((0x00080020, "DA", "20040119"), (0x00080030, "TM", "072730"), (0x0008002A, "DT", "20040119072730.5+0100"),
         (0x00100030, "DA", "19500101"), (0x00181012, "DA", "20040120"))  # fmt: skip


def test_dates_are_taken_out() -> None:
    found = result(*DATES)
    assert found.StudyDate == found.StudyTime == found.PatientBirthDate == ""
    assert found.AcquisitionDateTime == "19000101000000"
    assert "DateOfSecondaryCapture" not in found


def test_dates_are_moved_by_the_same_days() -> None:
    found = result(*DATES, profile="basic,modified-dates")
    assert found.StudyDate < "20040119"
    assert found.AcquisitionDateTime == f"{found.StudyDate}072730.5+0100"
    assert found.StudyTime == "072730"
    assert found.PatientBirthDate == ""  # which no option has


def test_dates_are_kept() -> None:
    found = result(*DATES, profile="basic,full-dates")
    assert (found.StudyDate, found.StudyTime) == ("20040119", "072730")
    assert found.AcquisitionDateTime == "20040119072730.5+0100"


@pytest.mark.parametrize("profile", ["basic,full-dates", "basic,modified-dates"])
@pytest.mark.parametrize("date", ["DOEJANE ", "20041301", "2004", "20040119Jane"])
def test_what_is_no_date_is_not_kept(profile: str, date: str) -> None:
    assert result((0x00080020, "DA", date), profile=profile).StudyDate == ""


def test_characteristics_may_be_retained() -> None:
    elements = (0x00101010, "AS", "061Y"), (0x00100040, "CS", "F"), (0x00101030, "DS", "70.5")
    assert "PatientAge" not in result(*elements)
    found = result(*elements, profile="basic,retain-patient-characteristics")
    assert (found.PatientAge, found.PatientSex, found.PatientWeight) == ("061Y", "F", 70.5)


def test_device_and_institution_may_be_retained() -> None:
    elements = (0x00081010, "SH", "CT7"), (0x00080080, "LO", "Clinic"), (0x00181000, "LO", "XY42")
    found = result(*elements)
    assert {found.StationName, found.InstitutionName, found.DeviceSerialNumber} == {"ANONYMIZED"}
    found = result(*elements, profile="basic,retain-device")
    assert (found.StationName, found.InstitutionName, found.DeviceSerialNumber) == ("CT7", "ANONYMIZED", "XY42")
    assert result(*elements, profile="basic,retain-institution").InstitutionName == "Clinic"


def test_dummies_stand_only_for_what_was_there() -> None:
    assert result((0x00081010, "SH", "")).StationName == ""


def test_names_nobody_listed_are_emptied() -> None:
    observer = EXPLICIT.element(0x00404037, "PN", "Roe^Rita") + EXPLICIT.element(0x0040A123, "PN", "Roe^Rita")
    found = result(
        (0x00189999, "PN", "Roe^Rita"),
        (0x00080301, "PN", "x"),
        EXPLICIT.sequence(0x00082228, [EXPLICIT.item(observer)]),
    )
    assert "Roe" not in str(found)


def test_kept_text_that_holds_the_name_is_emptied() -> None:
    elements = (0x00100010, "PN", "Doe^Jane"), (0x00100020, "LO", "K4711X")
    found = result(
        *elements, (0x00081090, "LO", "Scanner of Jane"), (0x00180024, "SH", "se K4711X"), (0x00080070, "LO", "ACME")
    )
    assert found.ManufacturerModelName == found.SequenceName == "ANONYMIZED"
    assert found.Manufacturer == "ACME"


def test_short_texts_that_people_type_are_replaced() -> None:
    elements = (
        (0x00100033, "LO", "Showa 25"),
        (0x00700081, "LO", "Nodule"),
        (0x00181003, "SH", "D7"),
        (0x00209056, "SH", "1"),
    )
    found = result(*elements)
    assert found.PatientBirthDateInAlternativeCalendar == found.ContentDescription == found.DeviceID == "ANONYMIZED"
    assert found.StackID == "1"
    assert result(*elements, profile="basic,clean-descriptors").ContentDescription == "Nodule"
    assert result(*elements, profile="basic,retain-device").DeviceID == "D7"


def test_codes_of_persons_and_issuers_become_dummies() -> None:
    code = EXPLICIT.element(0x00080100, "SH", "RR17") + EXPLICIT.element(0x00080104, "LO", "Roe, Rita")
    issuer = EXPLICIT.element(0x00400031, "UT", "St. Roe") + EXPLICIT.element(0x00400033, "CS", "DNS")
    performer, issuers = (
        EXPLICIT.sequence(tag, [EXPLICIT.item(item)]) for tag, item in ((0x00404009, code), (0x00080051, issuer))
    )
    found = result(performer, issuers, (0x00101022, "DS", "31.5"), (0x00102210, "CS", "BIPED"))
    assert "Roe" not in str(found)
    assert "RR17" not in str(found)
    assert found.IssuerOfAccessionNumberSequence[0].UniversalEntityIDType == "DNS"
    assert (found.PatientBodyMassIndex, found.AnatomicalOrientationType) == (None, "BIPED")
    kept = result((0x00101022, "DS", "31.5"), profile="basic,retain-patient-characteristics")
    assert kept.PatientBodyMassIndex == 31.5


def test_curves_overlays_and_group_lengths_are_left_out() -> None:
    found = result(
        (0x00080000, "UL", 40), (0x00080001, "UL", 40), (0x50003000, "OW", b"JaneDoe!"), (0x60000010, "US", 8),
        (0x60003000, "OW", b"JaneDoe!"), (0x60004000, "LT", "Jane Doe"), (0xFFFCFFFC, "OB", b"Jane Doe"),
        (0x00880200, "SQ", b""), (0x04000561, "SQ", b""), (0xFFFAFFFA, "SQ", b""),
    )  # fmt: skip
    assert all(0x0008 <= element.tag.group <= 0x7FE0 and element.tag.elem for element in found)
    assert not any(0x5000 <= element.tag.group < 0x7000 for element in found)
    assert b"Jane" not in deidentified(instance((0xFFFCFFFC, "OB", b"Jane Doe"))).data


def test_private_elements_are_left_out_unless_safe() -> None:
    private = (
        (0x00190010, "LO", "GEMS_ACQU_01"), (0x00191023, "DS", "1.5"), (0x001910FE, "LO", "Jane Doe"),
        (0x00210010, "LO", "Mine"), (0x00211001, "LO", "Jane Doe"), (0x00290011, "LO", "GEMS_ACQU_01"),
    )  # fmt: skip
    assert not any(element.tag.is_private for element in result(*private))
    found = result(*private, profile="basic,retain-safe-private")
    assert [element.tag for element in found if element.tag.is_private] == [0x00190010, 0x00191023]
    assert found[0x00191023].value == 1.5


def test_sequences_are_looked_into_at_every_depth() -> None:
    for writer in WRITERS:
        inner = writer.element(0x00080080, "LO", "Clinic") + writer.element(0x00080104, "LO", "Head")
        for undefined in (False, True):
            for _ in range(10):
                inner = writer.sequence(0x00082228, [writer.item(inner, undefined=undefined)], undefined=undefined)
            found = result(inner, writer=writer)
            for _ in range(10 if undefined is False else 20):
                found = found.PrimaryAnatomicStructureSequence[0]
            assert (found.InstitutionName, found.CodeMeaning) == ("ANONYMIZED", "Head")


def test_profiles_that_are_none_are_refused() -> None:
    from dicomfs.dicom.deidentify import Profile
    from dicomfs.errors import UsageError

    for text in ("", "full", "basic,clean-pixels", "basic,full-dates,modified-dates", "clean-graphics"):
        with pytest.raises(UsageError, match=r"basic|option|dates"):
            Profile.parse(text)
    profile = Profile.parse(" Basic, retain-uids,modified-dates,retain-uids")
    assert profile.text == "basic,modified-dates,retain-uids"
    assert Profile.parse(profile.text) == profile


def test_the_same_key_gives_the_same_bytes_and_another_others() -> None:
    file = instance((0x00100020, "LO", "4711"), *DATES, (0x00080050, "SH", "A1"))
    profile = "basic,modified-dates"
    assert deidentified(file, profile) == deidentified(file, profile, Pseudonyms(KEY))
    other = deidentified(file, profile, Pseudonyms(bytes(32))).read()
    same = deidentified(file, profile).read()
    for keyword in ("PatientID", "SOPInstanceUID", "StudyDate", "AccessionNumber"):
        assert same[keyword].value != other[keyword].value


def test_pseudonyms_are_what_they_were() -> None:
    """They are stable for ever: projects hold them."""
    pseudonyms = Pseudonyms(KEY)
    assert pseudonyms.patient("4711\0") == "ANON-EPE3EOZSBHTL"
    assert pseudonyms.uid("1.2.3") == "2.25.323208961630152450876443539203389659764"
    assert pseudonyms.text("accession number", "A1") == "P4MPPLLSDVX2ABP3"
    assert pseudonyms.days("4711\0") == -703


def test_pseudonyms_are_legal() -> None:
    for number in range(2000):
        pseudonyms = Pseudonyms(number.to_bytes(32, "big"))
        assert -3650 <= pseudonyms.days("a") < 0
        assert len(pseudonyms.uid("1.2")) <= 44
        assert len(pseudonyms.text("study id", "1")) == 16


def test_an_instance_that_names_no_kind_is_withheld() -> None:
    with pytest.raises(Refused, match="SOP class"):
        deidentified(instance(modality=""))
