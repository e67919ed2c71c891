"""VRs that the file does not tell, or tells wrongly: implicit VR, UN, VRs that do not exist."""

import base64
import struct
from typing import Any

import pytest

from tests.dicom.build import BIG, EXPLICIT, IMPLICIT, Writer
from tests.dicom.model_shown import one, shown


@pytest.mark.parametrize(("sign", "vr", "number"), [(0, "US", 65535), (1, "SS", -1), (None, "US", 65535)])
def test_pixel_representation_decides(sign: int | None, vr: str, number: int) -> None:
    padding = IMPLICIT.element(0x00280120, "US", [65535])
    data_set = b"" if sign is None else IMPLICIT.element(0x00280103, "US", [sign])
    read = shown(data_set + padding + IMPLICIT.sequence(0x52009230, [IMPLICIT.item(padding)]), IMPLICIT)
    assert read["00280120"] == read["52009230"]["Value"][0]["00280120"] == {"vr": vr, "Value": [number]}


def test_look_up_tables_in_implicit_vr() -> None:
    def of(entries: int) -> dict[str, Any]:
        lut = IMPLICIT.element(0x00283002, "US", [entries, 0xFFFF, 16]) + IMPLICIT.element(
            0x00283006, "US", [7] * entries
        )
        data_set = IMPLICIT.element(0x00280103, "US", [1]) + IMPLICIT.sequence(0x00283010, [IMPLICIT.item(lut)])
        item: dict[str, Any] = shown(data_set, IMPLICIT)["00283010"]["Value"][0]
        return item

    assert of(1) == {"00283002": {"vr": "SS", "Value": [1, -1, 16]}, "00283006": {"vr": "US", "Value": [7]}}
    assert of(2)["00283006"] == {"vr": "OW", "InlineBinary": base64.b64encode(b"\7\0\7\0").decode()}
    descriptor = EXPLICIT.element(0x00281101, "SS", [-32768, -1, 16])
    assert shown(descriptor)["00281101"] == {"vr": "SS", "Value": [32768, -1, 16]}


def test_private_vrs_in_implicit_vr() -> None:
    """The private dictionary tells by the creator's name; what it does not know is UN."""
    data_set = (
        IMPLICIT.element(0x00090001, "LO", "xx")
        + IMPLICIT.element(0x00190010, "LO", "GEMS_ACQU_01")
        + IMPLICIT.element(0x00190011, "LO", "nobody knows")
        + IMPLICIT.element(0x00191002, "SL", [-5])
        + IMPLICIT.element(0x00191102, "SL", [-5])
        + IMPLICIT.element(0x00191202, "SL", [-5])
        + IMPLICIT.element(0x00100099, "LO", "ab")
    )
    five = base64.b64encode(struct.pack("<i", -5)).decode()
    assert shown(data_set, IMPLICIT) == {
        "00090001": {"vr": "UN", "InlineBinary": "eHg="},
        "00100099": {"vr": "UN", "InlineBinary": "YWI="},
        "00190010": {"vr": "LO", "Value": ["GEMS_ACQU_01"]},
        "00190011": {"vr": "LO", "Value": ["nobody knows"]},
        "00191002": {"vr": "SL", "Value": [-5]},
        "00191102": {"vr": "UN", "InlineBinary": five},
        "00191202": {"vr": "UN", "InlineBinary": five},
    }


@pytest.mark.parametrize("writer", [EXPLICIT, BIG], ids=["little", "big"])
def test_unknown_is_known_better(writer: Writer) -> None:
    """UN of known attributes is read as such, in little endian (PS3.5 6.2.2)."""
    reference = IMPLICIT.element(0x00081155, "UI", "1.2")
    data_set = (
        writer.element(0x00081140, "UN", IMPLICIT.item(reference))
        + writer.sequence(0x00081199, [IMPLICIT.item(reference)], vr="UN")
        + writer.element(0x00100020, "UN", b"id")
        + writer.element(0x00189004, "UN", b"")
        + writer.element(0x00280010, "UN", b"\2\1")
        + writer.element(0x00291010, "UN", b"\2\1")
    )
    undefined = writer.header(0x00291011, "UN", 0xFFFFFFFF) + IMPLICIT.item(reference) + writer.end()
    read = shown(data_set + undefined, writer)
    items = [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]
    assert read == {
        "00081140": {"vr": "SQ", "Value": items},
        "00081199": {"vr": "SQ", "Value": items},
        "00100020": {"vr": "LO", "Value": ["id"]},
        "00189004": {"vr": "CS"},
        "00280010": {"vr": "US", "Value": [258]},
        "00291010": {"vr": "UN", "InlineBinary": "AgE="},
        "00291011": {"vr": "SQ", "Value": items},
    }


def test_no_sequence_where_the_dictionary_errs() -> None:
    assert one(0x00081140, "UN", b"no items") == {"vr": "UN", "InlineBinary": base64.b64encode(b"no items").decode()}
    assert one(0x00081140, "SQ", b"no items", IMPLICIT)["vr"] == "UN"


def test_vrs_that_do_not_exist() -> None:
    data_set = (
        EXPLICIT.tag(0x00080060) + b"??\2\0CT"
        + EXPLICIT.element(0x00100020, "LO", "id")
        + EXPLICIT.tag(0x00191001) + b"zz\2\0ab"
        + EXPLICIT.element(0x00280010, "US", [5])
    )  # fmt: skip
    assert shown(data_set) == {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100020": {"vr": "LO", "Value": ["id"]},
        "00191001": {"vr": "UN", "InlineBinary": "YWI="},
        "00280010": {"vr": "US", "Value": [5]},
    }


def test_implicit_vr_within_explicit() -> None:
    item = EXPLICIT.item(IMPLICIT.element(0x00081150, "UI", "1.2") + IMPLICIT.element(0x00081155, "UI", "1.3"))
    assert shown(EXPLICIT.sequence(0x00081140, [item]))["00081140"]["Value"] == [
        {"00081150": {"vr": "UI", "Value": ["1.2"]}, "00081155": {"vr": "UI", "Value": ["1.3"]}}
    ]
