"""Text in the DICOM JSON model: names, character sets, whatever bytes there are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom.charset import character_set
from dicomfs.dicom.model_values import string, value_json
from tests.dicom.build import EXPLICIT
from tests.dicom.build import part10 as file_of
from tests.dicom.model_shown import model_of, one, parsed, shown

NAMES = [
    pytest.param("ISO_IR 100", "Äneas^Rüdiger".encode("latin_1"), ["Äneas^Rüdiger"], id="Latin 1"),
    pytest.param("ISO_IR 144", "Люксембург".encode("iso8859_5"), ["Люксембург"], id="Cyrillic"),
    pytest.param("ISO_IR 192", "Wang^XiaoDong=王^小東".encode(), ["Wang^XiaoDong", "王^小東"], id="UTF-8"),
    pytest.param("GB18030", "Wang^Xiao=王^小东".encode("gb18030"), ["Wang^Xiao", "王^小东"], id="GB 18030"),
    pytest.param(
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        ["Yamada^Tarou", "山田^太郎", "やまだ^たろう"],
        id="Japanese, ISO 2022",
    ),
    pytest.param(
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        ["ﾔﾏﾀﾞ^ﾀﾛｳ", "山田^太郎", "やまだ^たろう"],
        id="Japanese, half width",
    ),
    pytest.param(
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        ["Hong^Gildong", "洪^吉洞", "홍^길동"],
        id="Korean",
    ),
]


@pytest.mark.parametrize(("charset", "name", "expected"), NAMES)
def test_names_are_in_utf8(charset: str, name: bytes, expected: list[str]) -> None:
    groups = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), expected, strict=False))
    read = shown(EXPLICIT.element(0x00080005, "CS", charset) + EXPLICIT.element(0x00100010, "PN", name))
    assert read["00100010"] == {"vr": "PN", "Value": [groups]}
    assert read["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"A^B", [{"Alphabetic": "A^B"}]),
        (b"A^B==", [{"Alphabetic": "A^B"}]),
        (b"=I", [{"Ideographic": "I"}]),
        (b"==P ", [{"Phonetic": "P"}]),
        (b"A\\\\B=C", [{"Alphabetic": "A"}, None, {"Alphabetic": "B", "Ideographic": "C"}]),
        (b"A=B=C=D", [{"Alphabetic": "A", "Ideographic": "B", "Phonetic": "C"}]),
        (b"^^^^", [{"Alphabetic": "^^^^"}]),
        (b"==", None),
    ],
)  # fmt: skip
def test_component_groups(name: bytes, expected: list[Any] | None) -> None:
    assert one(0x00100010, "PN", name) == ({"vr": "PN"} if expected is None else {"vr": "PN", "Value": expected})


def test_the_character_set_is_told_when_it_matters() -> None:
    assert "00080005" not in shown(EXPLICIT.element(0x00100010, "PN", "plain"))
    assert shown(EXPLICIT.element(0x00080005, "CS", "ISO_IR 100"))["00080005"]["Value"] == ["ISO_IR 192"]
    assert shown(EXPLICIT.element(0x00080005, "CS", ""))["00080005"]["Value"] == ["ISO_IR 192"]
    data = file_of(
        EXPLICIT.element(0x00080001, "UL", [1]) + EXPLICIT.identity() + EXPLICIT.element(0x00100010, "PN", b"\xc3\xa4")
    )
    made = model_of(data)
    assert parsed(made)["00080005"] == json.loads(made.fields[0x00080005]) == {"vr": "CS", "Value": ["ISO_IR 192"]}
    item = EXPLICIT.item(EXPLICIT.element(0x00080104, "LO", "ä".encode()))
    assert shown(EXPLICIT.sequence(0x00081032, [item]))["00080005"]["Value"] == ["ISO_IR 192"]


def test_items_take_over_the_character_set_or_have_their_own() -> None:
    own = EXPLICIT.element(0x00080005, "CS", "ISO_IR 144") + EXPLICIT.element(0x00080104, "LO", "Ф".encode("iso8859_5"))
    inherited = EXPLICIT.element(0x00080104, "LO", "ä".encode("latin_1"))
    data_set = EXPLICIT.element(0x00080005, "CS", "ISO_IR 100")
    data_set += EXPLICIT.sequence(0x00081032, [EXPLICIT.item(own), EXPLICIT.item(inherited)])
    assert shown(data_set)["00081032"]["Value"] == [
        {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}, "00080104": {"vr": "LO", "Value": ["Ф"]}},
        {"00080104": {"vr": "LO", "Value": ["ä"]}},
    ]


SETS = ["", "ISO_IR 13", "GB18030", "ISO 2022 IR 149", "\\ISO 2022 IR 87", "ISO_IR 192", "GBK"]


@given(st.binary(max_size=60), st.sampled_from(SETS), st.sampled_from(["PN", "LO", "CS", "UT", "DS", "IS"]))
def test_any_bytes_make_valid_text(value: bytes, charset: str, vr: str) -> None:
    json.loads(value_json(vr, value, character_set(charset.encode()), False).encode("utf-8"))


def test_surrogates_are_replaced() -> None:
    assert json.loads(string("a\ud800b")) == "a?b"
