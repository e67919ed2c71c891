"""Values in the DICOM JSON model: PS3.18 F.2.3 to F.2.7, VR by VR."""

import base64
import json
import math
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom.charset import character_set
from dicomfs.dicom.model_values import swapped, value_json
from tests.dicom.build import BIG, EXPLICIT, Writer
from tests.dicom.build import part10 as file_of
from tests.dicom.model_shown import PREFIX, model_of, one, parsed


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        pytest.param("CS", "ORIGINAL\\PRIMARY\\AXIAL", ["ORIGINAL", "PRIMARY", "AXIAL"], id="several"),
        pytest.param("CS", "\\A \\", [None, "A", None], id="empty ones of several"),
        pytest.param("LO", "\\", [None, None], id="several, all empty"),
        pytest.param("DS", "1\\\\3", [1, None, 3], id="empty number of several"),
        pytest.param("LO", " leading and trailing  ", [" leading and trailing"], id="blanks of LO"),
        pytest.param("SH", b"nul\0", ["nul"], id="NUL padding"),
        pytest.param("UI", b"1.2.3\0", ["1.2.3"], id="UI padding"),
        pytest.param("DA", "20010203", ["20010203"], id="date"),
        pytest.param("LT", "a\\b \r\n c\\ ", ["a\\b \r\n c\\"], id="backslashes in LT"),
        pytest.param("ST", "C:\\dir\\", ["C:\\dir\\"], id="backslashes in ST"),
        pytest.param("UT", " \\\\server\\x\r\n", [" \\\\server\\x\r\n"], id="backslashes and line end in UT"),
        pytest.param("UR", "http://a/\\b ", ["http://a/\\b"], id="backslash in UR"),
        pytest.param("UC", "a\\b", ["a", "b"], id="UC has several"),
        pytest.param("LO", b'\x01"\x7f\x1f/', ['\x01"\x7f\x1f/'], id="control characters"),
        pytest.param("US", [0, 65535], [0, 65535], id="US"),
        pytest.param("SS", [-1], [-1], id="SS"),
        pytest.param("UL", [4294967295], [4294967295], id="UL"),
        pytest.param("SL", [-2147483648], [-2147483648], id="SL"),
        pytest.param("FL", [0.1, 1.5, 3.4028234663852886e38], [0.1, 1.5, 3.4028235e38], id="FL, shortest"),
        pytest.param("FD", [0.1, 1e-300, 5e-324], [0.1, 1e-300, 5e-324], id="FD"),
        pytest.param("SV", [-(2**63), -5], [str(-(2**63)), -5], id="SV, exact"),
        pytest.param("UV", [2**64 - 1, 2**53 - 1, 2**53], [str(2**64 - 1), 2**53 - 1, str(2**53)], id="UV, exact"),
        pytest.param("AS", "042Y", ["042Y"], id="age"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("writer", [EXPLICIT, BIG], ids=["little", "big"])
def test_values(vr: str, value: Any, expected: list[Any], writer: Writer) -> None:
    assert one(0x00191001, vr, value, writer) == {"vr": vr, "Value": expected}


@pytest.mark.parametrize("vr", ["CS", "PN", "DS", "IS", "US", "AT", "FD", "OB", "OW", "UN", "UT", "SQ", "SV"])
def test_empty_elements_have_no_value(vr: str) -> None:
    assert one(0x00191001, vr, b"") == {"vr": vr}


@pytest.mark.parametrize("vr", ["CS", "PN", "DS", "LO", "UT", "UI"])
def test_blank_elements_have_no_value(vr: str) -> None:
    assert one(0x00191001, vr, b"    ") == {"vr": vr}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", "1"), ("-0", "-0"), ("+1", "1"), (".5", "0.5"), ("-.5", "-0.5"), ("1.", "1"), ("007", "7"),
        ("-07.50", "-7.50"), ("1.000000000000000000001", "1.000000000000000000001"),
        ("1e5", "1e5"), ("1E+05", "1E+05"), ("+1.e-3", "1e-3"), ("0.10", "0.10"),
        (" 40 ", "40"), ("00", "0"), ("0e0", "0e0"),
        ("1e400", '"1e400"'), ("NaN", '"NaN"'), ("Infinity", '"Infinity"'), ("-inf", '"-inf"'), ("1,5", '"1,5"'),
        (".", '"."'),
        ("1 2", '"1 2"'), ("1_0", '"1_0"'), ("0x1", '"0x1"'), ("1e", '"1e"'), ("0e1111", '"0e1111"'),
        ("9" * 65, '"' + "9" * 65 + '"'),
        ("1e99999999999", '"1e99999999999"'), ("\u0661", '"\u0661"'),
    ],
)  # fmt: skip
def test_decimal_strings_are_numbers_only_when_they_are(text: str, expected: str) -> None:
    made = value_json("DS", text.encode(), character_set(b"ISO_IR 192"), False)
    assert made == f'{{"vr":"DS","Value":[{expected}]}}'
    json.loads(made)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", "12"), ("+12", "12"), ("-012", "-12"), ("000", "0"), ("-0", "0"), ("1.0", "1"), ("1.5", '"1.5"'),
        ("1e3", '"1e3"'),
        ("1A", '"1A"'), ("9007199254740991", "9007199254740991"), ("9007199254740992", '"9007199254740992"'),
        ("-99999999999999999999", '"-99999999999999999999"'), ("9" * 5000, '"' + "9" * 5000 + '"'),
    ],
)  # fmt: skip
def test_integer_strings_are_numbers_only_when_they_are(text: str, expected: str) -> None:
    made = value_json("IS", text.encode(), character_set(b""), False)
    assert made == f'{{"vr":"IS","Value":[{expected}]}}'
    json.loads(made)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_singles_are_exact_and_short(number: float) -> None:
    raw = struct.pack("<f", number)
    (shown,) = json.loads(value_json("FL", raw, character_set(b""), False))["Value"]
    assert struct.pack("<f", shown) == raw
    assert len(repr(abs(shown)).split("e")[0].replace(".", "").strip("0")) <= 9


@given(st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_doubles_are_exact(number: float, big: bool) -> None:
    raw = struct.pack(">d" if big else "<d", number)
    (shown,) = json.loads(value_json("FD", raw, character_set(b""), big))["Value"]
    assert struct.pack("<d", shown) == struct.pack("<d", number)


@given(st.text(alphabet=st.sampled_from("0123456789+-.eE "), max_size=20))
def test_decimal_strings_keep_their_number(text: str) -> None:
    made = json.loads(value_json("DS", text.encode(), character_set(b""), False))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    (found,) = made.get("Value", [None])
    # Four digits of exponent are more than doubles have, and not every reader of JSON takes any number of them.
    if math.isfinite(number) and not re.search("e[+-]?[0-9]{4}", text, re.IGNORECASE):
        assert found == number
        assert not isinstance(found, str)
    else:
        assert found == (text.strip() or None)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("vr", "width"), [("FL", 4), ("FD", 8)])
def test_what_is_not_finite_is_bulk(number: float, vr: str, width: int) -> None:
    for writer in (EXPLICIT, BIG):
        data = file_of(writer.identity() + writer.element(0x00189073, vr, [1.0, number]), writer.transfer_syntax)
        made = model_of(data)
        assert parsed(made)["00189073"] == {"vr": vr, "BulkDataURI": f"{PREFIX}bulkdata/00189073"}
        (bulk,) = made.bulk
        little = swapped(data[bulk.start : bulk.end], bulk.swap)
        assert little == EXPLICIT.value(vr, [1.0, number])
        assert bulk.swap == (width if writer.big else 1)
        assert 0x00189073 not in made.fields


@pytest.mark.parametrize("writer", [EXPLICIT, BIG], ids=["little", "big"])
def test_tags_are_hexadecimal(writer: Writer) -> None:
    tags = writer.tag(0x00181063) + writer.tag(0x7FE0ABCD)
    assert one(0x00280009, "AT", tags, writer) == {"vr": "AT", "Value": ["00181063", "7FE0ABCD"]}


@pytest.mark.parametrize(("vr", "value"), [("US", b"abc"), ("FD", b"abcd"), ("AT", b"ab"), ("UL", b"abcdef")])
@pytest.mark.parametrize("writer", [EXPLICIT, BIG], ids=["little", "big"])
def test_what_does_not_fit_its_vr_is_unknown(vr: str, value: bytes, writer: Writer) -> None:
    expected = {"vr": "UN", "InlineBinary": base64.b64encode(value).decode()}
    assert one(0x00191001, vr, value, writer) == expected


@pytest.mark.parametrize(
    ("vr", "little", "big"),
    [
        ("OB", b"12345678", b"12345678"), ("UN", b"12345678", b"12345678"), ("OW", b"12345678", b"21436587"),
        ("OL", b"12345678", b"43218765"), ("OF", b"12345678", b"43218765"), ("OD", b"12345678", b"87654321"),
        ("OV", b"12345678", b"87654321"),
    ],
)  # fmt: skip
def test_inline_binary_is_little_endian(vr: str, little: bytes, big: bytes) -> None:
    expected = {"vr": vr, "InlineBinary": base64.b64encode(little).decode()}
    assert one(0x00191001, vr, little) == expected
    assert one(0x00191001, vr, big, BIG) == expected


@given(st.binary(max_size=40), st.sampled_from([1, 2, 4, 8]))
def test_swapping_twice_is_nothing(value: bytes, sample: int) -> None:
    assert swapped(swapped(value, sample), sample) == value
