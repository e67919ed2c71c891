"""The deduplicated format: what is taken apart comes back, and only equal things have equal hashes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.archive import deduplicated
from dicomfs.archive.deduplicated import GROUPS, canonical, elements, objects, rebuilt

GROUP_TAGS = sorted({tag for _, tags in GROUPS for tag in tags})
CREATOR = {"vr": "LO", "Value": ["dedupped"]}


def dumped(held: dict[str, Any]) -> str:
    """Return an instance's JSON object as the model writes it."""
    return json.dumps(dict(sorted(held.items())), ensure_ascii=False, separators=(",", ":"))


def back(text: str) -> dict[str, Any]:
    """Take an instance apart, through JSON, and put it together again."""
    *extracts, instance = objects(text)
    known = {one.hash: json.loads(one.text) for one in extracts}
    return rebuilt(json.loads(instance.text), known)


def block_of(text: str) -> str:
    """Return the number of the block that the format took in an object."""
    (tag,) = [tag for tag, element in json.loads(text).items() if element == CREATOR]
    return tag[6:]


values = st.one_of(
    st.text(max_size=12),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
)
element = st.one_of(
    st.builds(
        lambda vr, value: {"vr": vr, "Value": value}, st.sampled_from(["LO", "DS"]), st.lists(values, max_size=4)
    ),
    st.builds(lambda text: {"vr": "PN", "Value": [{"Alphabetic": text}]}, st.text(max_size=8)),
    st.just({"vr": "UI"}),
    st.just({"vr": "OW", "BulkDataURI": "bulkdata/abc/de/f.raw"}),
)
tags = st.one_of(
    st.sampled_from(GROUP_TAGS),
    st.sampled_from(["00080018", "0020000E", "00091010", "00091011", "00091012", "00090010", "00090011", "00091110"]),
    st.integers(0, 0xFFFFFFFF).map(lambda tag: f"{tag:08X}"),
)
instances = st.dictionaries(tags, element, max_size=30)


@given(instances)
def test_what_is_taken_apart_comes_back(held: dict[str, Any]) -> None:
    text = dumped(held)
    assert back(text) == json.loads(text)
    assert {tag: json.loads(one) for tag, one in elements(text).items()} == held


@given(instances)
def test_a_hash_is_that_of_the_canonical_object(held: dict[str, Any]) -> None:
    *extracts, instance = objects(dumped(held))
    for one in (*extracts, instance):
        found = json.loads(one.text)
        block = next(
            tag[6:] for tag, value in found.items() if found.get(f"0009{tag[6:]}11", {}).get("Value") == [one.hash]
        )
        assert found.pop(f"0009{block}11")["Value"] == [one.hash]
        assert found.pop(f"0009{block}12")["Value"] == [one.type]
        if one.type != "instance":
            del found[f"000900{block}"]
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        assert hashlib.sha256(canonical(text).encode("utf-8", "replace")).hexdigest() == one.hash


# RFC 8785, appendix B: doubles and how ECMAScript shows them.
NUMBERS = [
    ("0", "0"),
    ("-0.0", "0"),
    ("5e-324", "5e-324"),
    ("-5e-324", "-5e-324"),
    ("1.7976931348623157e+308", "1.7976931348623157e+308"),
    ("9007199254740992", "9007199254740992"),
    ("295147905179352830000.0", "295147905179352830000"),
    ("9.999999999999997e22", "9.999999999999997e+22"),
    ("1e23", "1e+23"),
    ("1.0000000000000001e23", "1.0000000000000001e+23"),
    ("999999999999999700000.0", "999999999999999700000"),
    ("1e21", "1e+21"),
    ("9.999999999999997e-7", "9.999999999999997e-7"),
    ("0.000001", "0.000001"),
    ("333333333.33333325", "333333333.33333325"),
    ("0.1234500", "0.12345"),
    ("-1.50e2", "-150"),
    ("1E-7", "1e-7"),
]


@pytest.mark.parametrize(("text", "shown"), NUMBERS)
def test_numbers_are_canonical(text: str, shown: str) -> None:
    assert canonical(f"[{text}]") == f"[{shown}]"


def test_what_no_double_holds_keeps_its_digits() -> None:
    assert canonical("[0.12345678901234567890]") != canonical("[0.12345678901234567891]")
    assert canonical("[12345678901234567890]") != canonical("[12345678901234567891]")
    assert canonical("[1e400]") != canonical("[1e401]")


def test_strings_and_keys_are_canonical() -> None:
    # RFC 8785 3.2.2.2 and 3.2.3.
    text = '{"vr":"LO","Value":["\\u20ac$\\u000F\\nA\'\\u0042\\u0022\\u005c\\\\\\"/",null,true]}'
    assert canonical(text) == '{"Value":["€$\\u000f\\nA\'B\\"\\\\\\\\\\"/",null,true],"vr":"LO"}'


def test_the_order_of_values_counts() -> None:
    # Of the reference implementation's faults the worst: sorted values hash alike, so one window becomes the other.
    one = {"00281050": {"vr": "DS", "Value": [40, 300]}, "00281051": {"vr": "DS", "Value": [400, 1500]}}
    other = {"00281050": {"vr": "DS", "Value": [300, 40]}, "00281051": {"vr": "DS", "Value": [1500, 400]}}
    assert objects(dumped(one))[3].hash != objects(dumped(other))[3].hash
    assert back(dumped(one)) == one
    assert back(dumped(other)) == other


def test_text_is_not_a_number() -> None:
    one, other = ({"00280010": {"vr": "US", "Value": [value]}} for value in (1, "1"))
    assert objects(dumped(one))[3].hash != objects(dumped(other))[3].hash


def test_a_block_that_is_taken_is_left_alone() -> None:
    held = {
        "00080018": {"vr": "UI", "Value": ["1.2.3"]},
        "00090010": {"vr": "LO", "Value": ["GEMS_IDEN_01"]},
        "00091011": {"vr": "LO", "Value": ["theirs"]},
        "00091012": {"vr": "LO", "Value": ["theirs too"]},
        # A block whose creator is missing is not free either.
        "00091110": {"vr": "UN", "InlineBinary": "AA=="},
    }
    instance = objects(dumped(held))[-1].text
    assert block_of(instance) == "12"
    assert json.loads(instance).items() >= held.items()
    assert back(dumped(held)) == held
    patient = objects(dumped(held))[0].text
    assert block_of(patient) == "10"


def test_a_file_that_brings_the_format_s_own_block() -> None:
    theirs = {
        "00080018": {"vr": "UI", "Value": ["1.2.3"]},
        "00090011": CREATOR,
        "00091110": {"vr": "LO", "Value": ["no hash"]},
        "00091111": {"vr": "LO", "Value": ["no hash"]},
        "00091112": {"vr": "LO", "Value": ["instance"]},
    }
    for held in (
        theirs,
        {tag.replace("11", "10", 1) if tag == "00090011" else tag: one for tag, one in theirs.items()},
    ):
        assert back(dumped(held)) == held


def test_no_block_is_free() -> None:
    held = {f"0009{block:04X}": {"vr": "LO", "Value": ["x"]} for block in range(0x10, 0x100)}
    held["00100010"] = {"vr": "PN", "Value": [{"Alphabetic": "A"}]}
    *_, instance = objects(dumped(held))
    assert "dedupped" not in instance.text
    assert back(dumped(held)) == held


def test_info_names_its_instances() -> None:
    info = deduplicated.info(["a" * 64, "b" * 64])
    found = json.loads(info.text)
    assert found["00091010"] == {"vr": "LO", "Value": ["a" * 64, "b" * 64]}
    assert found["00091011"] == {"vr": "LO", "Value": [info.hash]}
    assert found["00091012"] == {"vr": "LO", "Value": ["info"]}
    assert deduplicated.info(["b" * 64, "a" * 64]) == info
    assert deduplicated.info(["b" * 64]).hash != info.hash


@given(instances, st.sets(tags, max_size=20), st.booleans())
def test_known_texts_change_nothing(held: dict[str, Any], known: set[str], lying: bool) -> None:
    text = dumped(held)
    fields = {int(tag, 16): one + "x" * lying for tag, one in elements(text).items() if tag in known}
    assert objects(text, fields) == objects(text)


@given(instances, st.integers(1, 3))
def test_uris_lead_from_where_the_document_stands(held: dict[str, Any], depth: int) -> None:
    text = dumped(held)
    *extracts, instance = objects(text)
    known = {one.hash: json.loads(deduplicated.at_depth(one.text, depth)) for one in extracts}
    back = rebuilt(json.loads(deduplicated.at_depth(instance.text, depth)), known)
    assert back == json.loads(text.replace('"bulkdata/abc/de/f.raw"', f'"{"../" * depth}bulkdata/abc/de/f.raw"'))
    assert deduplicated.from_study(deduplicated.at_depth(text, depth)) == text


def test_what_only_looks_like_a_uri_is_left_alone() -> None:
    texts = ['"BulkDataURI":"', 'BulkDataURI":"../', '\\"BulkDataURI":"x', '{"BulkDataURI":"../../a"}', "BulkDataURI"]
    for text in texts:
        document = dumped({"00104000": {"vr": "LT", "Value": [text]}, "00102110": {"vr": "LO", "Value": [text, text]}})
        assert deduplicated.at_depth(document, 2) == document
        assert deduplicated.from_study(document) == document
