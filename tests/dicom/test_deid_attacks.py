"""Ways by which identifiers came out of de-identified instances, each found by trying: none of them leads out now."""

from struct import pack

import pytest

from dicomfs.dicom.deidentify import Refused
from tests.dicom.build import EXPLICIT, JPEG_UID
from tests.dicom.deid_files import deidentified
from tests.dicom.test_deid_hostile import codestream, compressed, jpeg, segment
from tests.dicom.test_deid_rules import instance

NAME = (0x00100010, "PN", "Doe^Jane")
PATIENT_ID = (0x00100020, "LO", "K4711X99")
MODEL = 0x00081090
UTF_8 = (0x00080005, "CS", "ISO_IR 192")
TEXT = b"DOE JANE, BORN IN 1964, "
UTF_16 = "DOE JANE".encode("utf-16-le")


def said(*elements: tuple[int, str, str | bytes], profile: str = "basic") -> bytes:
    return deidentified(instance(*elements), profile).own


@pytest.mark.parametrize(
    "code",
    ["DOE JANE", "K4711X99", "Doe.Jane", "DOEJANE"],
)
@pytest.mark.parametrize("tag", [0x00080008, 0x00281090, 0x00089007])
def test_codes_that_hold_identifiers_are_left_out(tag: int, code: str) -> None:
    own = said(NAME, PATIENT_ID, (tag, "CS", f"ORIGINAL\\{code}\\AXIAL"))
    assert b"ORIGINAL\\ANONYMIZED\\AXIAL" in own
    assert code.encode() not in own


def test_terms_of_the_standard_stay_whatever_people_are_called() -> None:
    own = said((0x00100010, "PN", "Original^Seg^Axial"), (0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"))
    assert b"ORIGINAL\\PRIMARY\\AXIAL" in own


@pytest.mark.parametrize("vr", ["LO", "UN", "OB", "CS", "ST", "UT", "SH"])
def test_names_and_ids_are_known_whatever_their_vr(vr: str) -> None:
    assert b"Jane" not in said((0x00100010, vr, "Doe^Jane"), (MODEL, "LO", "for Jane"))
    assert b"K4711" not in said((0x00100020, vr, "K4711X99"), (MODEL, "LO", "for K4711X99"))


def test_a_long_name_is_known() -> None:
    assert b"Jane" not in said((0x00100010, "PN", "Doe^Jane" + " " * 2000), (MODEL, "LO", "for Jane"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("山田^太郎", "太郎 1"), ("Yamada^Tarou=山田^太郎", "山田太郎"), ("金^正恩", "金正恩"), ("Doe^Jane", "DOEJANE"),
        ("Doe^Jane", "janedoe"), ("Doe^Jane", "Ja\u200bne Do\u00ade"), ("Doe^Jane", "J.a.n.e D-o-e"),
        ("Müller^A", "MUELLER"),
    ],
)  # fmt: skip
def test_kept_text_holds_no_name_however_it_is_written(name: str, text: str) -> None:
    own = said(UTF_8, (0x00100010, "PN", name.encode()), (MODEL, "LO", text.encode()))
    assert text.encode() not in own


def test_kept_text_holds_no_number_however_it_is_written() -> None:
    for number, text in (("12-34-56", "no 123456"), ("123456", "12 34-56"), ("K4711X99", "K.4711.X99")):
        assert text.encode() not in said((0x00100020, "LO", number), (MODEL, "LO", text))


def test_kept_values_hold_no_day_that_is_taken_out() -> None:
    for profile in ("basic", "basic,modified-dates"):
        for vr, value in (("DA", "20040119"), ("DT", "20040119101112+0100")):
            tag = 0x00080020 if vr == "DA" else 0x0008002A
            for text in ("v20040119", "2004-01-19"):
                assert text.encode() not in said((tag, vr, value), (MODEL, "LO", text), profile=profile)
            assert b"20040119" not in said((tag, vr, value), (0x00200011, "IS", "20040119"), profile=profile)
    assert b"v20040119" in said((0x00080020, "DA", "20040119"), (MODEL, "LO", "v20040119"), profile="basic,full-dates")


def test_numbers_are_no_ids() -> None:
    for tag, vr in ((0x00200011, "IS"), (0x00180050, "DS")):
        assert b"47114711" not in said((0x00100020, "LO", "47114711"), (tag, vr, "47114711"))
        assert b"4711" in said((0x00100020, "LO", "4711"), (tag, vr, "4711"))


def test_text_is_not_taken_for_numbers() -> None:
    table = EXPLICIT.element(0x00283006, "US", TEXT * 2)
    assert TEXT not in deidentified(instance(EXPLICIT.sequence(0x00283010, [EXPLICIT.item(table)]))).own


@pytest.mark.parametrize(("tag", "vr"), [(0x00282000, "OB"), (0x00281201, "OW"), (0x56000020, "OF")])
def test_large_text_is_not_taken_for_samples(tag: int, vr: str) -> None:
    found = deidentified(instance((tag, vr, TEXT * 50_000)))
    assert TEXT not in found.data
    found = deidentified(instance((0x00282000, "OB", b"\0" + TEXT * 50_000 + b"\0")))
    assert TEXT not in found.data


@pytest.mark.parametrize(
    "stream",
    [
        jpeg(segment(0xFE, UTF_16)), jpeg(segment(0xE1, UTF_16)), jpeg(segment(0xFE, b"DOE")),
        jpeg(segment(0xFE, b"OpenJPEG Doe Jane 19640217")), jpeg(segment(0xFE, b"Jane Doe JPEG codec")),
        jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + TEXT * 3)), jpeg(after=b"DOE JANE IS ILL\xff\xd9"),
        jpeg(after=TEXT * 20 + b"\xff\xd9"), jpeg()[:-2] + TEXT,
    ],
)  # fmt: skip
def test_jpeg_with_text_is_withheld(stream: bytes) -> None:
    with pytest.raises(Refused):
        deidentified(compressed(stream))


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        ("1.2.840.10008.1.2.4.90", codestream(segment(0x64, b"\0\0" + UTF_16))),
        ("1.2.840.10008.1.2.4.110", b"\xff\x0a" + bytes(30) + TEXT),
        ("1.2.840.10008.1.2.4.110", TEXT),
        ("1.2.840.10008.1.2.5", pack("<II", 1, 96) + bytes(56) + TEXT[:-1].ljust(32) + bytes(16)),
        ("1.2.840.10008.1.2.1.98", bytes(8) + TEXT),
    ],
)  # fmt: skip
def test_other_streams_with_text_are_withheld(syntax: str, stream: bytes) -> None:
    with pytest.raises(Refused):
        deidentified(compressed(stream, syntax=syntax))


def test_more_pictures_than_frames_are_withheld() -> None:
    rle = pack("<II", 1, 64) + bytes(56) + bytes(16)
    for syntax, stream in ((JPEG_UID, jpeg()), ("1.2.840.10008.1.2.5", rle)):
        deidentified(compressed(stream, syntax=syntax))
        deidentified(compressed(stream, stream, syntax=syntax, frames=2))
        with pytest.raises(Refused, match="more compressed"):
            deidentified(compressed(stream, stream, syntax=syntax))


@pytest.mark.parametrize(
    ("tag", "vr"),
    [(0x00181803, "LO"), (0x00720008, "LO"), (0x0072006F, "UC"), (0x0074100C, "LO"), (0x30020020, "SH")],
)
def test_short_texts_that_name_somebody_or_something_are_replaced(tag: int, vr: str) -> None:
    assert b"Roe, Rita" not in said((tag, vr, "Roe, Rita"))


def test_kept_text_holds_no_address_and_no_uid() -> None:
    for tag, vr, value in (
        (0x00101040, "LO", "5 Elm Street"),
        (0x00102154, "SH", "+49 30 123456"),
        (0x0020000D, "UI", "1.2.840.4711.11.99.1"),
        (0x00181000, "LO", "SN-471147"),
    ):
        assert value.encode() not in said((tag, vr, value), (MODEL, "LO", f"at {value}"))


@pytest.mark.parametrize("text", [b"Ja\x1b[ne Do\x1b[e", b"Ja\x85ne", b"Ja\x1b(Bne"])
def test_text_with_controls_is_not_kept(text: bytes) -> None:
    assert b"Ja" not in said(NAME, (MODEL, "LO", text)).partition(b"ANON-")[2]


def test_safe_private_elements_have_the_vr_that_is_known() -> None:
    creator = (0x00190010, "LO", "GEMS_ACQU_01")
    profile = "basic,retain-safe-private"
    assert b"0.51" in said(creator, (0x00191023, "DS", "0.51"), profile=profile)
    for vr in ("LO", "OB", "OW"):
        assert b"Roe" not in said(creator, (0x00191023, vr, b"\0Roe^Rita "), profile=profile)


@pytest.mark.parametrize("frames", ["+2", "2.0", "1\\2", "x"])
def test_a_number_of_frames_that_is_none_is_not_taken_for_one(frames: str) -> None:
    with pytest.raises(Refused, match="frames"):
        deidentified(instance((0x00280008, "IS", frames), pixels=bytes(16)))
