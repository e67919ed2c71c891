"""The JSON model of every real instance, against pydicom's: every difference is explained here."""

import base64
import csv
import io
import json
import random
import warnings
from pathlib import Path
from struct import pack, unpack
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement

from dicomfs.dicom import part10
from dicomfs.dicom.describe import Verdict, describe
from dicomfs.dicom.model import INLINE, LUT_INLINE, BulkValue, model
from tests.dicom.model_shown import PREFIX, SERVED, assert_valid, model_of, skeleton

pytestmark = pytest.mark.corpus

# File name -> path of the attribute -> why pydicom's JSON is not ours. Nothing else may differ.
DIFFERENT = {
    "chrGB2312.dcm": {"00100010": "pydicom leaves the escape sequences of GB 2312 in the text"},
    "GH179B.dcm": {"00280120": "VRs and lengths are wrong from here on: pydicom raises when it reads the element"},
    "GH195.dcm": {"00091105": "'1.9.10.0' is no DS, so pydicom raises: F.2.3 allows a string"},
    "i100270.MRDC.79": {"00431080": "a private DS that is text, so pydicom raises: F.2.3 allows strings"},
    "badVR.dcm": {"00280008": "'1A' is no IS, so pydicom raises: F.2.3 allows a string"},
    "RI6XDosiGap.dcm": {"50003000": "pydicom leaves the VR 'OB or OW', which is none: it is OW, PS3.5 A.1"},
    # An item without the sequence that it should be in: its elements are read by us, as by the import, and by pydicom
    # taken for the value of an element (FFFE,E000), which no data set can have (PS3.5 7.5).
    "GH364.dcm": dict.fromkeys(
        ("FFFEE000", "00186012", "00186014", "00186016", "00186018", "0018601A", "0018601C", "0018601E", "00186024",
         "00186026", "0018602C", "0018602E"),
        "an item without its sequence",
    ),
}  # fmt: skip
# Files that pydicom raises for, whatever is asked of them.
UNREADABLE = {
    "GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": OSError,  # undefined lengths in big endian
    "2026-05-06-Deeply-Nested-Sequence.dcm": RecursionError,
}


def by_pydicom(data: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(io.BytesIO(data), force=True)


def inflated(data: bytes) -> bytes:
    file = part10.locate(data)
    assert file is not None
    if not file.deflated:
        return data
    content = part10.inflate(data, file.start)
    assert content is not None
    return data[: file.start] + content.data


class Compared:
    """One file's JSON beside pydicom's data set; `differences` has the paths of attributes that differ."""

    def __init__(self, path: str, data: bytes) -> None:
        self.data = inflated(data)
        made = model_of(skeleton(data) if self.data == data else self.data)
        self.bulk = {value.name: value for value in made.bulk}
        assert len(self.bulk) == len(made.bulk), path
        self.text = PREFIX.join(made.pieces)
        self.seen: set[str] = set()
        self.differences: dict[str, tuple[object, object]] = {}
        ours = json.loads(self.text, parse_constant=_no_constant)
        for tag, text in made.fields.items():
            assert json.loads(text) == ours[f"{tag:08X}"], (path, tag)
        assert ours.keys() - {f"{tag:08X}" for tag in made.fields} == {
            tag for tag in ours if any(name.startswith(tag) for name in self.bulk)
        }, path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = by_pydicom(data)
            assert ours.pop("00083002") == {"vr": "UI", "Value": [SERVED]}
            self.data_set("", ours, theirs, outermost=True)
        assert self.seen == self.bulk.keys(), path

    def data_set(self, path: str, ours: dict[str, Any], theirs: Dataset, *, outermost: bool = False) -> None:
        assert list(ours) == sorted(ours), path
        ascii_only = self.text.isascii()
        for tag in theirs.keys():  # noqa: SIM118 (iterating a Dataset makes every element of it)
            key = f"{int(tag):08X}"
            if tag.element == 0 or tag.group in (0, 2) or key in ("FFFCFFFC", "00083002"):
                assert key not in ours
                continue
            if key == "00080005":
                assert ours.pop(key) == {"vr": "CS", "Value": ["ISO_IR 192"]}
                continue
            if key not in ours:
                self.differences[path + key] = ("missing", None)
                continue
            try:
                element = theirs[tag]
            except Exception as trouble:  # noqa: BLE001 (pydicom raises whatever it likes)
                self.differences[path + key] = (ours.pop(key), trouble)
                continue
            self.element(path + key, ours.pop(key), element)
        if outermost and "00080005" in ours:
            assert not ascii_only
            ours.pop("00080005")
        for key, value in ours.items():
            self.differences[path + key] = (value, "missing")

    def element(self, path: str, ours: dict[str, Any], theirs: DataElement) -> None:
        if theirs.VR == "SQ":
            items = ours.get("Value", [])
            if ours["vr"] != "SQ" or len(items) != len(theirs.value):
                self.differences[path] = (ours, theirs.value)
                return
            assert "Value" not in ours or items  # PS3.18 F.2.5: empty elements have no Value
            for number, (mine, other) in enumerate(zip(items, theirs.value, strict=True), 1):
                self.data_set(f"{path}.{number}.", mine, other)
            return
        if "BulkDataURI" in ours:
            uri = ours["BulkDataURI"]
            assert uri == f"{PREFIX}bulkdata/{path}"
            bulk = self.bulk[path]
            self.seen.add(path)
            assert bulk.vr == ours["vr"]
            assert ours.keys() == {"vr", "BulkDataURI"}
            if ours["vr"] != theirs.VR or not self.same_bulk(bulk, theirs):
                self.differences[path] = (ours, theirs.VR)
            return
        if "InlineBinary" in ours:
            value = base64.b64decode(ours["InlineBinary"], validate=True)
            assert 0 < len(value) <= (LUT_INLINE if path[-8:].startswith("0028") else INLINE)
        try:
            expected = as_json(theirs)
        except Exception as trouble:  # noqa: BLE001
            expected = {"raised": trouble}
        if normal(ours) != normal(expected):
            self.differences[path] = (ours, expected)

    def same_bulk(self, bulk: BulkValue, theirs: DataElement) -> bool:
        raw = self.data[bulk.start : bulk.end]
        if isinstance(theirs.value, bytes):
            return raw == theirs.value
        if isinstance(theirs.value, str):
            return raw.decode("latin_1").rstrip(" \0") == theirs.value
        return False


def as_json(element: DataElement) -> dict[str, Any]:
    return json.loads(json.dumps(element.to_json_dict(None, 0)))


def _no_constant(token: str) -> None:
    raise AssertionError(f"{token} is not JSON")


def normal(attribute: dict[str, Any]) -> object:
    """Return what two JSON attributes that mean the same have in common.

    pydicom keeps insignificant blanks (PS3.5 6.2), writes "" for empty values of several (null in PS3.18 F.2.5) and
    empty component groups of names, and gives FL with the digits of a double. IS, SV and UV may be strings.
    """
    vr = attribute.get("vr")
    values = attribute.get("Value")
    if values is None:
        return attribute
    shown = [_normal_value(vr, value) for value in values]
    if shown == [None]:
        return {"vr": vr}
    return {"vr": vr, "Value": shown}


def _normal_value(vr: object, value: Any) -> object:
    if isinstance(value, dict):
        groups = {name: group.rstrip(" ") for name, group in value.items() if group and group.strip(" ")}
        return groups or None
    if isinstance(value, str):
        text = value.strip(" \0\t\r\n") if vr not in ("LT", "ST", "UT") else value
        if vr in ("IS", "SV", "UV") and text.lstrip("-").isdigit():
            return int(text)
        return text or None
    if vr == "FL" and value is not None:
        return unpack("<f", pack("<f", value))
    return value


def test_every_instance_is_what_pydicom_says(corpus: Path) -> None:
    with (corpus / "MANIFEST.tsv").open(newline="") as manifest:
        paths = [row["path"] for row in csv.DictReader(manifest, delimiter="\t")]
    unexplained: dict[str, dict[str, tuple[object, object]]] = {}
    unused = {(name, attribute) for name, attributes in DIFFERENT.items() for attribute in attributes}
    unreadable = dict(UNREADABLE)
    count = 0
    for path in paths:
        data = (corpus / path).read_bytes()
        if describe(data).verdict != Verdict.DICOM:
            continue
        name = Path(path).name
        count += 1
        if name in UNREADABLE:
            assert_valid(data)
            with pytest.raises(unreadable.pop(name)):
                by_pydicom(data)
            continue
        found = Compared(path, data).differences
        known = DIFFERENT.get(name, {})
        if left := {attribute: found[attribute] for attribute in found.keys() - known.keys()}:
            unexplained[path] = left
        unused -= {(name, attribute) for attribute in found}
    assert unexplained == {}
    assert unused == set()
    assert unreadable == {}
    assert count >= 500


def test_hurt_files_are_valid_and_read_nothing_that_is_bulk(corpus: Path) -> None:
    """Three versions of every small file with bytes changed, cut out or doubled: the same ones every time."""
    chance = random.Random(18)
    with (corpus / "MANIFEST.tsv").open(newline="") as manifest:
        paths = [row["path"] for row in csv.DictReader(manifest, delimiter="\t") if int(row["bytes"]) < 40_000]
    for path in paths:
        whole = (corpus / path).read_bytes()
        for _ in range(3):
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 8)):
                at = chance.randrange(min(len(data), 6000) or 1)
                data[at : at + chance.choice((0, 1, 20))] = whole[at : at + chance.choice((0, 1, 40))] or b"\xff"
            assert_valid(bytes(data))
            file = part10.locate(data)
            if file is not None and not file.deflated and part10.locate(skeleton(data)) == file:
                assert model(skeleton(data), file, SERVED) == model(bytes(data), file, SERVED), path
