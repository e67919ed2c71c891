"""What people may ask for: settings, their values, and what a commit keeps of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom.edit_changes import MOST_SETTINGS, Changes
from dicomfs.dicom.edit_settings import parse_setting, parse_tag
from dicomfs.errors import UsageError
from tests.dicom.edit_files import TIME, changes


@pytest.mark.parametrize(
    ("setting", "tag", "values"),
    [
        ("PatientName=DOE^JANE", 0x00100010, ("DOE^JANE",)),
        ("0010,0010=山田^太郎=Yamada^Tarou", 0x00100010, ("山田^太郎=Yamada^Tarou",)),
        ("PatientBirthDate=19700131", 0x00100030, ("19700131",)),
        ("PatientBirthDate=", 0x00100030, ("",)),
        ("StudyTime=235960.5", 0x00080030, ("235960.5",)),
        ("AcquisitionDateTime=20260131120000.5+0100", 0x0008002A, ("20260131120000.5+0100",)),
        ("AcquisitionDateTime=202601", 0x0008002A, ("202601",)),
        ("PatientAge=034Y", 0x00101010, ("034Y",)),
        ("PatientSex=F", 0x00100040, ("F",)),
        ("PatientWeight=71.5", 0x00101030, ("71.5",)),
        ("PixelSpacing=0.5\\0.5", 0x00280030, ("0.5", "0.5")),
        ("InstanceNumber=-12", 0x00200013, ("-12",)),
        ("PatientComments=a\\b, c\nd", 0x00104000, ("a\\b, c\nd",)),
        ("OtherPatientNames=A^B\\C^D", 0x00101001, ("A^B", "C^D")),
        ("StudyInstanceUID=2.25.1", 0x0020000D, ("2.25.1",)),
        ("SmallestImagePixelValue=-5", 0x00280106, ("-5",)),
        ("FrameIncrementPointer=00181063", 0x00280009, ("00181063",)),
        ("RescaleSlope=1e-3", 0x00281053, ("1e-3",)),
        ("0019,1001=anything\\x", 0x00191001, ("anything", "x")),
    ],
)
def test_settings_are_read(setting: str, tag: int, values: tuple[str, ...]) -> None:
    assert parse_setting(setting) == (tag, values)


@pytest.mark.parametrize(
    "setting",
    [
        "PatientName", "NoSuchKeyword=1", "PatientName=" + "x" * 65, "PatientName=a^b^c^d^e^f", "PatientName=a=b=c=d",
        "PatientName=A\x1b$B", "PatientName=A\nB", "PatientName=\ud800", "PatientID=A\\B", "PatientID=" + "1" * 65,
        "PatientBirthDate=1970-01-31", "PatientBirthDate=19700231", "PatientBirthDate=20260101-20260102",
        "StudyTime=24", "StudyTime=12:00:00", "StudyTime=1", "AcquisitionDateTime=2019013", "PatientAge=34Y",
        "AcquisitionDateTime=20260231", "PatientSex=f", "PatientSex=Ä", "Modality=ABCDEFGHIJKLMNOPQ",
        "PatientWeight=1,5", "PatientWeight=nan", "PatientWeight=12345678901234567", "InstanceNumber=2147483648",
        "InstanceNumber=1.5", "StudyInstanceUID=1.02.3", "StudyInstanceUID=1." + "1" * 63, "StudyInstanceUID=1",
        "SOPInstanceUID=abc", "SmallestImagePixelValue=65536", "SmallestImagePixelValue=x",
        "FrameIncrementPointer=123", "PatientWeight=1\\2", "StationName=12345678901234567",
        "Rows=5", "BitsAllocated=8", "PhotometricInterpretation=RGB", "NumberOfFrames=2", "PixelData=1",
        "SpecificCharacterSet=ISO_IR 192", "MediaStorageSOPInstanceUID=1.2", "0002,0010=1.2", "0010,0000=4",
        "ReferencedStudySequence=1", "OriginalAttributesSequence=1", "SOPClassUID=1.2", "EncapsulatedDocument=x",
        "0019,0010=OWNER", "0019,0001=x", "0010,FFFF=x", "7FE1,0000=1", "FFFC,FFFC=1", "6000,0010=1",
        "PatientComments=" + "x" * 10241, "=x", "LUTData=1",
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_refused_without_its_value(setting: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_setting(setting)
    value = setting.partition("=")[2]
    assert len(value) < 6 or value not in str(raised.value)


def test_values_of_pixels_say_why() -> None:
    with pytest.raises(UsageError, match="pixels could not be read"):
        parse_setting("Rows=512")


def test_tags_are_read() -> None:
    assert parse_tag("StudyDescription") == parse_tag("0008,1030") == 0x00081030
    assert parse_tag("ReferencedStudySequence") == 0x00081110
    for name in ("Rows", "StudyInstanceUID", "SOPClassUID", "PixelData", "0019,0010", "0008,0000", "0002,0003"):
        with pytest.raises(UsageError):
            parse_tag(name)


WHOLE = changes(
    {0x00100010: ("Müller^José",), 0x00191001: ("1", "2")},
    empty=(0x00080050,),
    remove=(0x00081030, 0x00080090),
    uids={"1.2.3": "2.25.4", "not quite": "2.25.5"},
    reason="COERCE",
    system="dicomfs at home",
)


def test_changes_are_plain_values_and_back() -> None:
    said = json.loads(json.dumps(WHOLE.to_json()))
    again = Changes.from_json(said)
    assert again.to_json() == said == WHOLE.to_json()
    assert again.set == WHOLE.set
    assert WHOLE.date_time == b"20260131123456.789+0000"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("set", []), ("set", {"00100010": "DOE"}), ("set", {"100010": ["DOE"]}), ("set", {"0010001g": ["DOE"]}),
        ("set", {"00100010": []}), ("set", {"00100010": [1]}), ("set", {"00280010": ["1"]}), ("set", None),
        ("set", {"00080050": ["1"]}), ("set", {"00100030": ["DOE"]}), ("set", {"0020000D": [""]}),
        ("set", {"00100010": ["x" * 70000]}), ("set", {"0010000a": ["x"]}), ("set", {"00101001": ["A"] * 2000}),
        ("set", {f"0019{number:04X}": ["1"] for number in range(0x1000, 0x1001 + MOST_SETTINGS)}),
        ("empty", "00080050"), ("empty", ["00080050", "00080050"]), ("empty", ["0020000D"]), ("empty", [8]),
        ("remove", ["00080050"]), ("remove", ["00080005"]), ("uids", []), ("uids", {"1.2": "x"}), ("uids", {"": "1.2"}),
        ("uids", {"1.2": 3}), ("uids", {"1.2.840.10008.1.2": "1.2.3"}), ("uids", {"1.2.3": "1.2.840.10008.1.2"}),
        ("uids", {"1" * 200: "1.2.3"}), ("uids", {"1.2\\1.3": "1.2.3"}), ("reason", "BECAUSE"), ("reason", 1),
        ("time", "2026-01-31"), ("time", "2026-13-31T00:00:00Z"), ("time", "2026-01-31T00:00:61Z"),
        ("time", "2026-01-31T00:00:00+01:00"), ("time", "2026-01-31T24:00:00Z"), ("system", ""), ("system", "x" * 65),
        ("system", "é"), ("system", "a\\b"), ("system", " "), ("more", 1),
    ],
)  # fmt: skip
def test_nonsense_is_no_change(key: str, value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Changes.from_json(WHOLE.to_json() | {key: value})


def test_changes_need_all_keys() -> None:
    for key in WHOLE.to_json():
        said = WHOLE.to_json()
        del said[key]
        with pytest.raises(ValueError, match="keys"):
            Changes.from_json(said)
    for other in (None, [], "x", 1, {}):
        with pytest.raises(ValueError, match="keys"):
            Changes.from_json(other)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)))
def test_anything_else_is_a_value_error(said: object) -> None:
    for key in WHOLE.to_json():
        try:
            made = Changes.from_json(WHOLE.to_json() | {key: said})
        except ValueError:
            continue
        assert Changes.from_json(made.to_json()).to_json() == made.to_json()


def test_fractions_of_any_length_are_read() -> None:
    assert Changes(time="2026-01-31T12:34:56.123456789Z").date_time == b"20260131123456.123456+0000"
    assert Changes(time=TIME).to_json()["time"] == TIME
