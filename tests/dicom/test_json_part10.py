"""DICOM JSON to bytes: what `model_values` writes comes back, and what is no DICOM JSON is refused."""

from __future__ import annotations

import json
import math
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom.charset import character_set
from dicomfs.dicom.describe import describe
from dicomfs.dicom.json_part10 import Source, part10
from dicomfs.dicom.json_pixels import Frames, Unfit, plan
from dicomfs.dicom.json_text import text_of
from dicomfs.dicom.json_values import NOT_FINITE, NoValue, Number, value_bytes
from dicomfs.dicom.model_values import value_json

EXPLICIT = "1.2.840.10008.1.2.1"
SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "UV": 8, "SV": 8, "AT": 4, "OB": 1, "OW": 2, "OV": 8, "UN": 1}


def loads(text: str) -> Any:
    return json.loads(text, parse_float=Number, parse_constant=Number)


def encode(vr: str, text: str) -> bytes:
    return text.encode()


def silent(what: str) -> None:
    raise AssertionError(what)


@given(st.sampled_from(sorted(SIZES)), st.binary(max_size=64))
def test_binary_values_come_back(vr: str, value: bytes) -> None:
    value = value[: len(value) // SIZES[vr] * SIZES[vr]]
    assert value_bytes(vr, loads(value_json(vr, value, character_set(b""), False)), encode, silent) == value


@given(st.sampled_from(["FL", "FD"]), st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_floats_come_back(vr: str, numbers: list[float]) -> None:
    value = b"".join(pack("<f" if vr == "FL" else "<d", number) for number in numbers)
    assert value_bytes(vr, loads(value_json(vr, value, character_set(b""), False)), encode, silent) == value


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("DS", b"1.50\\-0.1\\1e-7"),
        ("DS", b"\\2"),
        ("IS", b"-12\\0"),
        ("CS", b"ORIGINAL\\PRIMARY\\\\AXIAL"),
        ("PN", "A^B=王=x".encode()),
        ("PN", b"A^B\\=I"),
        ("LT", b"a\\b"),
        ("UI", b"1.2.3"),
        ("UC", b"a\\b"),
    ],
)
def test_texts_come_back(vr: str, value: bytes) -> None:
    shown = loads(value_json(vr, value, character_set(b"ISO_IR 192"), False))
    assert value_bytes(vr, shown, encode, silent) == value


@pytest.mark.parametrize(
    ("vr", "element", "value"),
    [
        ("AT", '{"Value":[1577059]}', b"\x18\x00\x63\x10"),
        ("AT", '{"Value":["0018106a"]}', b"\x18\x00\x6a\x10"),
        ("DA", '{"Value":[""]}', b""),
        ("PN", '{"Value":[]}', b""),
        ("PN", '{"Value":[{"Alphabetic":"A=B=C"}]}', b"A=B=C"),
        ("SS", '{"Value":[65535]}', b"\xff\xff"),
        ("DS", '{"Value":["1.0"]}', b"1.0"),
        ("SV", '{"Value":["9007199254740993"]}', pack("<q", 9007199254740993)),
    ],
)
def test_what_the_writers_make_of_it(vr: str, element: str, value: bytes) -> None:
    assert value_bytes(vr, loads(element), encode, silent) == value


def test_what_json_cannot_say_is_told_of() -> None:
    told: list[str] = []
    value = value_bytes("FD", loads('{"Value":[null]}'), encode, told.append)
    assert value == pack("<d", math.nan)
    assert value_bytes("DS", loads('{"Value":[null]}'), encode, told.append) == b""
    assert told == [NOT_FINITE, NOT_FINITE]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([Number("1.5"), Number("NaN")]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Alphabetic", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)
VRS = st.sampled_from(["SQ", "PN", "US", "FD", "AT", "DS", "IS", "LO", "UI", "OB", "UN", "OB|OW", "", "\x02"])
ELEMENT = st.fixed_dictionaries({}, optional={"vr": VRS | JSON, "Value": JSON, "InlineBinary": JSON}) | JSON
TAGS = st.sampled_from(
    ["00080005", "00080018", "0020000D", "0020000E", "00280010", "00280011", "00280100", "00280008", "00280004",
     "7FE00010", "00091001", "00090010", "0018A001", "FFFEE000", "00020010", "00081110", "zz"]
)  # fmt: skip
RECORD = st.dictionaries(TAGS, ELEMENT | st.just({"vr": "SQ", "Value": [{"00080018": {"vr": "UI"}}]}), max_size=6)


@given(RECORD, st.booleans(), st.sampled_from([False, True, None]))
def test_anything_is_a_file_or_is_refused(record: Any, first_writer: bool, big_endian: bool | None) -> None:
    try:
        text = text_of(record, first_writer=first_writer)
        source = Source(text, lambda _, __: b"", big_endian, lambda _: None)
        made = part10(record, EXPLICIT, {}, source, "rebuilt")
    except NoValue:
        return
    described = describe(made.head + made.tail)
    assert described.spans[-1].end == len(made.head + made.tail)


@given(RECORD, st.booleans(), st.sampled_from([EXPLICIT, "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.50", "x"]))
def test_any_frames_have_a_plan_or_are_refused(record: Any, first_writer: bool, syntax: str) -> None:
    record = {**record, "7FE00010": {"vr": "OW"}, "00083002": {"vr": "UN"}}
    try:
        found = plan(record, Frames(syntax, 1, lambda: b"\xff\xd8\xff\xf7\0", lambda: 5), first_writer=first_writer)
    except Unfit:
        return
    assert found.frames == 1
