"""What is left of text that is to be cleaned, and what text is kept as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom import deid_dates
from dicomfs.dicom.deid_text import Known
from dicomfs.dicom.deid_values import is_character_set, is_legal, may_be
from tests.dicom.build import EXPLICIT
from tests.dicom.deid_files import deidentified
from tests.dicom.test_deid_rules import CT, instance, result


def known() -> Known:
    found = Known()
    found.name("Müller^Anna-Lena^Li^^Dr.=山田^太郎")
    found.number("K-4711")
    found.number("7")
    found.phrase("City Hospital")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "CT Thorax",
        "MR Head T2 ax 3mm",
        "Brain-MRA",
        "PET/CT, TUMOR SKULL TO THIGH",
        "Gated 0.5 sec",
        "ep2d_diff_64",
        "Schädel nativ",
    ],
)
def test_plain_descriptions_stay(text: str) -> None:
    assert known().cleaned(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Thorax Müller",
        "thorax MULLER",
        "MUELLER anna",
        "Thorax_Anna_Lena",
        "ANNALENA",
        "Thorax Li",
        "山田 胸部",
        "for Dr Jones",
        "Mr. Jones",
        "Jones^Bob",
        "case K-4711",
        "xk-4711y",
        "City Hospital scan",
        "at CITY HOSPITAL",
        "born 1950",
        "patient Jones",
        "Tel. 12",
        "12 March 2004",
        "0341 97 17 000",
        "+49 341 9717000",
        "1 555 123 4567",
        "name: x",
        "case 7",
        "x" * 129,
        "",
        "19500101",
    ],
)
def test_descriptions_about_somebody_are_emptied(text: str) -> None:
    assert known().cleaned(text) == ""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Thorax 20040119 nativ", "Thorax nativ"),
        ("Thorax 19.01.2004", "Thorax"),
        ("Knee 2004-01-19 left", "Knee left"),
        ("Foot 07:27:30", "Foot"),
        ("no 123456", "no"),
        ("from a.b@c.de now", "from now"),
        ("see http://x.y/z there", "see there"),
        ("uid 1.2.840.113619.2 x", "uid x"),
        ("acc X123456Y end", "acc end"),
        ("since 1998", "since"),
    ],
)
def test_numbers_and_addresses_are_taken_out(text: str, left: str) -> None:
    assert known().cleaned(text) == left


def test_kept_text_may_not_hold_names_or_numbers() -> None:
    for text in ("Anna", "scanner of MÜLLER", "MULLERs", "no k-4711", "a@b", "ftp://x"):
        assert known().within(text)
    for text in ("Li", "Siemens", "syngo MR B17", "7", "SOMATOM Definition"):
        assert not known().within(text)


NAME = (0x00100010, "PN", "Doe^Jane")


def test_descriptors_are_cleaned_by_option() -> None:
    elements = (
        NAME,
        (0x00081030, "LO", "CT Thorax"),
        (0x0008103E, "LO", "Thorax for Jane"),
        (0x00204000, "LT", "Thorax 20040119"),
    )
    found = result(*elements, profile="basic,clean-descriptors")
    assert found.StudyDescription == "CT Thorax"
    assert "SeriesDescription" not in found
    assert found.ImageComments == "Thorax"
    assert "StudyDescription" not in result(*elements)


def test_the_character_set_goes_with_the_text_that_stays() -> None:
    elements = (0x00080005, "CS", "ISO_IR 192"), (0x00081030, "LO", "Schädel nativ".encode())
    found = result(*elements, profile="basic,clean-descriptors")
    assert found.StudyDescription == "Schädel nativ"
    assert found.PatientID.isascii()


def test_reports_are_cleaned_by_option() -> None:
    element = EXPLICIT.element
    person = element(0x0040A040, "CS", "PNAME") + element(0x0040A123, "PN", "Roe^Rita")
    text = element(0x0040A040, "CS", "TEXT") + element(0x0040A160, "UT", "A nodule of 5 mm")
    about = element(0x0040A040, "CS", "TEXT") + element(0x0040A160, "UT", "Rita has a nodule")
    when = element(0x0040A040, "CS", "DATE") + element(0x0040A121, "DA", "20040119")
    uid = element(0x0040A040, "CS", "UIDREF") + element(0x0040A124, "UI", "1.2.3")
    content = EXPLICIT.sequence(0x0040A730, [EXPLICIT.item(item) for item in (person, text, about, when, uid)])
    file = instance(NAME, content, sop_class="1.2.840.10008.5.1.4.1.1.88.33", modality="SR")
    found = deidentified(file, "basic,clean-structured-content,modified-dates").read().ContentSequence
    assert str(found[0].PersonName) == "ANONYMIZED"
    assert found[1].TextValue == "A nodule of 5 mm"
    assert found[2].TextValue == "ANONYMIZED"
    assert found[3].Date < "20040119"
    assert found[4].UID.startswith("2.25.")
    # In an image it goes, as the Basic Profile has it, with dummies of all that is in it.
    image = deidentified(instance(NAME, content, sop_class=CT)).read()
    assert "Rita" not in str(image)


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("DA", "20040301", "20040229"),
        ("DA", "2004.03.01", "20040229"),
        ("DA", "20040301-20040302", "20040229-20040301"),
        ("DA", "-20040301", "-20040229"),
        ("DA", r"20040301\20040101", r"20040229\20031231"),
        ("DA", r"20040301\X", ""),
        ("DA", "00010101", ""),
        ("DA", "20040230", ""),
        ("DA", "", ""),
        ("DT", "20040301", "20040229"),
        ("DT", "20040301072730.123456-0500", "20040229072730.123456-0500"),
        ("DT", "2004", ""),
        ("DT", "200403", ""),
        ("DT", "20040301072730Jane", ""),
    ],
)
def test_dates_are_moved(vr: str, value: str, expected: str) -> None:
    assert deid_dates.moved(vr, value, -1) == expected


@given(st.dates(), st.dates(), st.integers(-3650, -1))
def test_intervals_stay(first: object, second: object, days: int) -> None:
    moved = [deid_dates.moved("DA", str(day).replace("-", ""), days) for day in (first, second)]
    if all(moved):
        assert (moved[0] < moved[1]) is (str(first) < str(second))


@given(st.text(max_size=40), st.sampled_from(("DA", "DT", "TM")), st.integers(-3650, -1))
def test_what_is_moved_or_kept_is_digits(text: str, vr: str, days: int) -> None:
    for new in (deid_dates.kept(vr, text), deid_dates.moved(vr, text, days) if vr != "TM" else ""):
        assert not any(map(str.isalpha, new))


@pytest.mark.parametrize(
    ("vr", "value", "legal"),
    [
        ("DS", rb"1.5\-2e-3\ 3 ", True),
        ("DS", b"1.5 mm", False),
        ("DS", b"1" * 33, False),
        ("IS", b"-12", True),
        ("IS", b"1.0", False),
        ("CS", b"HEAD_1", True),
        ("CS", b"Head", True),
        ("CS", b"Doe^Jane", False),
        ("AS", b"012Y", True),
        ("AS", b"12", False),
        ("UI", b"1.2.3\0", True),
        ("UI", b"1.2.x", False),
        ("US", b"\1\0\2\0", True),
        ("US", b"\1", False),
        ("OW", b"\1\2", True),
        ("OW", b"JANE DOE", False),
        ("DA", b"20040119", True),
        ("DA", b"Doe", False),
        ("TM", b"07", True),
        ("TM", b"0727", True),
        ("TM", b"25", False),
        ("XX", b"1", False),
    ],
)
def test_values_are_what_their_vr_says(vr: str, value: bytes, legal: bool) -> None:
    assert is_legal(vr, value) is legal


def test_character_sets_are_terms_of_the_standard() -> None:
    for value in (b"ISO_IR 100", rb"\ISO 2022 IR 87", b"GB18030", b"ISO 2022 IR 6\\ISO 2022 IR 149 ", b"ISO IR 192"):
        assert is_character_set(value)
    for value in (b"Jane", b"ISO_IR Jane", b"ISO_IR 100\\Jane", b"\xff"):
        assert not is_character_set(value)


def test_text_is_not_taken_for_samples() -> None:
    assert may_be("SH", "LO")
    assert may_be("UN", "OW")
    assert may_be("OB", "OW")
    assert not may_be("LT", "OB")
    assert not may_be("US", "LO")
