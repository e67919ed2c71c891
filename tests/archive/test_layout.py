"""Layouts turn attributes into paths, and say what is wrong with a template and where."""

import pickle
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.keywords import CATALOG_KEYWORDS
from dicomfs.archive.layout import PATIENTS, Layout
from dicomfs.archive.layout_values import Value
from dicomfs.archive.names import component, digest
from dicomfs.errors import UsageError

IDENTITIES = ["P", "1.2", "1.2.3", "1.2.3.4"]
FULL: dict[str, Value] = {
    "PatientID": "DFS-0001",
    "PatientName": "Doe^Jane^Q^Dr^PhD",
    "StudyInstanceUID": "1.2",
    "StudyDate": "20040119",
    "StudyTime": "072730",
    "StudyDescription": "CHEST W/O CONTRAST",
    "SeriesInstanceUID": "1.2.3",
    "SeriesNumber": 2,
    "Modality": "CT",
    "SeriesDescription": "Axial 5.0",
    "SOPInstanceUID": "1.2.3.4",
    "InstanceNumber": 1,
}


def test_patients() -> None:
    assert PATIENTS.depth == 4
    assert PATIENTS.render(FULL, IDENTITIES) == [
        "DFS-0001_Doe_Jane_Q_Dr_PhD",
        "20040119_0727_CHEST W-O CONTRAST",
        "0002_CT_Axial 5.0",
        "00001.dcm",
    ]


def test_patients_with_nothing() -> None:
    assert PATIENTS.render({}, IDENTITIES) == [
        "NO-ID",
        "00000000",
        "UNKNOWN~" + digest("1.2.3"),
        "NO-NUMBER~" + digest("1.2.3.4") + ".dcm",
    ]


@pytest.mark.parametrize(
    ("level", "attributes", "expected"),
    [
        (0, {"PatientID": "A"}, "A"),
        (0, {"PatientName": "Doe^Jane"}, "NO-ID_Doe_Jane"),
        (0, {"PatientID": "..", "PatientName": "^^"}, "NO-ID"),
        (0, {"PatientID": "CON"}, "_CON"),
        (0, {"PatientID": "CON", "PatientName": "X"}, "CON_X"),
        (0, {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}, "NO-ID_Yamada_Tarou"),
        (0, {"PatientName": "=山田^太郎=やまだ^たろう"}, "NO-ID_山田_太郎"),
        (0, {"PatientName": "^^=="}, "NO-ID"),
        (0, {"PatientName": "==やまだ^たろう"}, "NO-ID_やまだ_たろう"),
        (1, {"StudyDate": "20040119", "StudyTime": "07"}, "20040119_0700"),
        (1, {"StudyDate": "20040119", "StudyTime": "0727"}, "20040119_0727"),
        (1, {"StudyDate": "20040119", "StudyTime": "072730.000000"}, "20040119_0727"),
        (1, {"StudyDate": "20040119", "StudyTime": "07:27:30"}, "20040119_0727"),
        (1, {"StudyDate": "20040119", "StudyTime": "noon"}, "20040119"),
        (1, {"StudyDate": "20040119", "StudyTime": "2507"}, "20040119"),
        (1, {"StudyDate": "20040119", "StudyID": "7"}, "20040119_7"),
        (1, {"StudyDate": "20040119", "StudyID": "7", "StudyDescription": "Knee"}, "20040119_Knee"),
        (1, {"StudyDescription": "CON"}, "00000000_CON"),
        (2, {"Modality": "MR"}, "MR"),
        (2, {"SeriesDescription": "Loc"}, "Loc"),
        (2, {"SeriesNumber": 3, "ProtocolName": "Head"}, "0003_Head"),
        (2, {"SeriesNumber": "12a", "Modality": "MR"}, "MR"),
        (2, {"SeriesNumber": 123456}, "123456"),
        (2, {"SeriesDescription": "a/b"}, "a-b"),
        (3, {"InstanceNumber": 0}, "00000.dcm"),
        (3, {"InstanceNumber": 1234567}, "1234567.dcm"),
        (3, {"InstanceNumber": "7"}, "00007.dcm"),
        (3, {"InstanceNumber": "x"}, "NO-NUMBER~" + digest("1") + ".dcm"),
        (3, {"InstanceNumber": "1\\2"}, "NO-NUMBER~" + digest("1") + ".dcm"),
    ],
)
def test_patients_level(level: int, attributes: dict[str, Value], expected: str) -> None:
    assert PATIENTS.render_level(level, attributes, "1") == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{PatientName.family_name}/{PatientName.given_name}", ["Doe", "Jane"]),
        ("{PatientName.name_prefix}-{PatientName.name_suffix}", ["Dr-PhD"]),
        ("{PatientName.ideographic|PatientName.alphabetic}", ["Doe_Jane_Q_Dr_PhD"]),
        ("{StudyDate:%Y}/{StudyDate:%Y-%m}/{StudyDate:%d.%m.%y}", ["2004", "2004-01", "19.01.04"]),
        ("{ContentDate|StudyDate:%Y}", ["2004"]),
        ("{ContentDate:%Y|'0000'}", ["0000"]),
        ("{StudyTime:%Hh%M}", ["07h27"]),
        ("{0010,0020}/{0008,103e}", ["DFS-0001", "Axial 5.0"]),
        ("{0009,1001}_{PatientID}", ["DFS-0001"]),
        ("%PatientID/%StudyInstanceUID/%Modality_%SeriesInstanceUID", ["DFS-0001", "1.2", "CT_1.2.3"]),
        ("/a/%PatientID/", ["a", "DFS-0001"]),
        ("100%_%Modality", ["100%_CT"]),
        ("DATE-{StudyDate}--{Modality}--PID-{PatientID}", ["DATE-20040119--CT--PID-DFS-0001"]),
        ("DATE-{StudyDate}--{BodyPartExamined}--PID-{PatientID}", ["DATE-20040119--PID-DFS-0001"]),
        ("{BodyPartExamined}_{Modality}_{StationName}", ["CT"]),
        ("SER-{SeriesNumber}/{SOPInstanceUID}.dcm", ["SER-2", "1.2.3.4.dcm"]),
        ("{SeriesDescription:.5}", ["Axial"]),
        ("{SeriesNumber:x}", ["2"]),
        ("{{{Modality}}}", ["{CT}"]),
        ("{ProtocolName|\"a+b's\"}", ["a+b's"]),
        ("{StationName | 'none'}", ["none"]),
        ("{StationName|''}x{Modality}", ["xCT"]),
        ("{StationName}.{BodyPartExamined}", ["UNKNOWN~" + digest("P")]),
        ("{Modality}.series/{InstanceNumber}.dcm", ["CT.series", "1.dcm"]),
        ("{PatientName.family_name!upper}_{Modality!lower}", ["DOE_ct"]),
        ("{StudyDescription!plain}", ["CHEST_W_O_CONTRAST"]),
        ("{StudyDescription!ctp}", ["CHEST_W_O_CONTRAST"]),
        ("{StudyDescription!plain:.7}", ["CHEST_W"]),
        ("{Modality='CT'?'images'|'other'}", ["images"]),
        ("{Modality!='C*'?'other'|Modality='m?'?'magnets'|PatientID}", ["DFS-0001"]),
        ("{StationName?'there'|'none'}/{Modality?PatientID!lower|'none'}", ["none", "dfs-0001"]),
        ("{StudyDate='2004'?'2004'|'x'}/{StudyDate='2005-'?'new'|'old'}", ["2004", "old"]),
        ("{StudyDescription='*/*'?'a'}/x", ["a", "x"]),
        ("{SeriesNumber='2.0'?'two'|'other'}", ["two"]),
        ("{Modality}{study}-{series}x", ["CT-x"]),
    ],
)  # fmt: skip
def test_templates(template: str, expected: list[str]) -> None:
    layout = Layout.parse(template)
    assert layout.depth == len(expected)
    assert layout.render(FULL, IDENTITIES[: layout.depth]) == expected


@pytest.mark.parametrize(
    ("template", "place", "reason"),
    [
        ("", None, "empty"),
        ("//", None, "empty"),
        ("{PatientsName}", 1, "did you mean PatientName"),
        ("x/{Nonsense}", 3, "'Nonsense' is not an attribute"),
        ("%Nonsense", 1, "'Nonsense' is not an attribute"),
        ("{__class__}", 1, "not an attribute"),
        ("{PatientID.__class__}", 1, "no part '__class__'"),
        ("{PatientName.nickname}", 1, "no part 'nickname'"),
        ("{PatientID[0]}", 1, "not an attribute"),
        ("{PatientID!r}", 1, "there is no !conversion 'r'; there are upper, lower, plain, ctp"),
        ("x{Modality='CT'?}", 2, "nothing after the condition on Modality"),
        ("x{Modality=CT?'a'}", 2, "not an attribute"),
        ("{StudyDate='soon'?'a'}", 1, "'soon' is no date"),
        ("{Modalty='CT'?'a'}", 1, "did you mean Modality"),
        ("{n:%Y}", 1, "no format for n"),
        ("{study}", 8, "a level without a name"),
        ("/".join("x" * 33), None, "more than 32 levels"),
        ("x" * 2001, None, "longer than 2000"),
        ("{0}", 1, "not an attribute"),
        ("{}", 1, "empty field"),
        ("{PatientID|}", 1, "empty field"),
        ("ab{PatientID", 3, "without its }"),
        ("ab}", 3, "without its {"),
        ("{PatientID{Modality}}", 11, "inside braces"),
        ("{PatientID|'x}", 1, "quote that is not closed"),
        ("{PatientID|'x'y}", 1, "after the closing quote"),
        ("{PatientID|'a/b'}", 1, "cannot be part of a file name"),
        ("a:b", 2, "':' cannot be part of a file name"),
        ("a\x1bb", 2, "cannot be part of a file name"),
        ("a//b", 3, "level without a name"),
        ("../{PatientID}", 3, "cannot be the name of a directory"),
        ("{PatientID:%Y}", 1, "no format for PatientID"),
        ("{StudyDate:%H}", 1, "no format for StudyDate"),
        ("{StudyDate:%Y/%m}", 1, "no format for StudyDate"),
        ("{InstanceNumber:999999d}", 1, "no format for InstanceNumber"),
        ("{PatientID:{Modality}}", 12, "inside braces"),
    ],
)
def test_mistakes(template: str, place: int | None, reason: str) -> None:
    with pytest.raises(UsageError) as raised:
        Layout.parse(template)
    message = str(raised.value)
    assert reason in message
    assert place is None or message.startswith(f"layout: character {place}: ")


def test_counters_show_the_number_that_they_are_given() -> None:
    layout = Layout.parse("SER-{SeriesNumber}/{n:03d}.dcm")
    assert layout.counts
    assert [layout.is_counted(level) for level in (0, 1)] == [False, True]
    assert layout.render_level(1, FULL, "1", 7) == "007.dcm"
    assert not PATIENTS.counts


@pytest.mark.parametrize(
    ("template", "changes", "same"),
    [
        ("{PatientID!plain}", {"PatientID": "DFS_0001"}, False),
        ("{PatientID!plain}", {"PatientName": "Roe"}, True),
        ("{PatientID!plain|'UNKNOWN'}", {"PatientID": ".."}, False),
        ("{PatientName!upper}", {"PatientName": "DOE^JANE^Q^DR^PHD"}, True),
        ("{PatientName}", {"PatientName": "Doe^Jane^Q^Dr^PhD^"}, True),
        ("{StudyDate:%Y}", {"StudyDate": "20041231"}, True),
        ("{StudyDate:%Y}{study}", {"StudyInstanceUID": "1.9"}, False),
        ("{StudyDate:%Y}{patient}", {"StudyInstanceUID": "1.9"}, True),
        ("{StudyDate:%Y}{patient}", {"IssuerOfPatientID": "other"}, False),
        ("{Modality}{series}", {"SeriesInstanceUID": "1.9"}, False),
        ("{Modality='CT'?'images'|'other'}", {"Modality": "MR"}, False),
        ("{Modality!='SR'?'images'|'other'}", {"Modality": "MR"}, True),
        ("{n}-{Modality}", {"n": 3}, True),
    ],
)
def test_who_shares_a_directory(template: str, changes: dict[str, Value], same: bool) -> None:
    layout = Layout.parse(template)
    assert (layout.identity(0, FULL) == layout.identity(0, FULL | changes)) is same


def test_further_keywords() -> None:
    layout = Layout.parse("{EchoTime}_{Modality}", ["EchoTime"])
    assert layout.render({"EchoTime": "2.5", "Modality": "MR"}, ["1"]) == ["2.5_MR"]


def test_travels_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(PATIENTS)) == PATIENTS


def test_every_catalog_keyword_is_known() -> None:
    for keyword in CATALOG_KEYWORDS:
        assert Layout.parse("{" + keyword + "}").render({keyword: "7"}, ["1"]) == ["7"]


values = st.integers() | st.text(max_size=80) | st.text("/\\.^=~- \0\u202eCONcon山", max_size=150)
# The first draw of any character builds Hypothesis' table of Unicode, which takes seconds on a busy machine.
unhurried = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@unhurried
@given(st.dictionaries(st.sampled_from(sorted(CATALOG_KEYWORDS)), values))
def test_hostile_values_stay_characters(attributes: dict[str, Value]) -> None:
    names = PATIENTS.render(attributes, IDENTITIES)
    for name in names:
        assert name
        assert component(name) == name
        assert len(name.encode()) <= 120
    assert names[-1].endswith(".dcm")


hostile = st.sampled_from(
    [
        "../../etc/passwd",
        "a/b\\c",
        "=1+cmd|' /C calc'!A0",
        "@SUM(A1)",
        "<script>alert(1)</script>",
        "\0\r\n\x1b[31m",
        "x" * 10_000,
    ]
)
pieces = st.sampled_from(
    ["{PatientID}", "{PatientName!upper}", "{StudyDescription!ctp|'none'}", "{SeriesDescription!plain}", "{n:03d}",
     "{study}", "{StudyDate:%Y}", "{Modality='C*'?PatientID|StudyID}", "{PatientName.family_name:.12}",
     "{client:demd}", "{{", " - ", ".", "~", "text"]
)  # fmt: skip


@unhurried
@given(
    st.lists(st.lists(pieces, min_size=1, max_size=5), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(sorted(CATALOG_KEYWORDS)), hostile | values),
)
def test_any_template_makes_legal_names_of_hostile_values(
    levels: list[list[str]], attributes: dict[str, Value]
) -> None:
    try:
        layout = Layout.parse("/".join("".join(level) for level in levels))
    except UsageError:
        return
    for level in range(layout.depth):
        for name in islice(layout.names(level, attributes, "an identity", 7), 3):
            assert component(name) == name
            assert name not in ("", ".", "..")
            assert len(name.encode()) <= 120


@pytest.mark.parametrize("name", sorted(built_in()))
@unhurried
@given(st.dictionaries(st.sampled_from(sorted(CATALOG_KEYWORDS)), hostile | values))
def test_built_in_layouts_make_legal_names_of_hostile_values(name: str, attributes: dict[str, Value]) -> None:
    layout = Layout.parse(built_in()[name])
    for shown in layout.render(attributes, [str(level) for level in range(layout.depth)]):
        assert component(shown) == shown
        assert shown
        assert len(shown.encode()) <= 120


@unhurried
@given(st.text("{}|'\"%:/.PatientIDModality<0d ^!=?n", max_size=40))
def test_any_template_parses_or_is_refused(text: str) -> None:
    try:
        layout = Layout.parse(text)
    except UsageError:
        return
    for name in layout.render(FULL, ["1"] * layout.depth):
        assert component(name) == name
        assert name
