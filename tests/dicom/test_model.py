"""The DICOM JSON model (PS3.18 Annex F) of data sets: what is in it, with which VR, and what is bulk."""

import base64
import json
import struct

import pytest

from dicomfs.dicom.model import INLINE, LUT_INLINE
from dicomfs.dicom.stride import LARGE
from tests.dicom.build import BIG, BIG_UID, EXPLICIT, IMPLICIT, JPEG_UID, Writer
from tests.dicom.build import part10 as file_of
from tests.dicom.model_shown import PREFIX, model_of, one, parsed, shown


def test_the_text_is_compact_and_ascending() -> None:
    data_set = EXPLICIT.element(0x00100020, "LO", "1") + EXPLICIT.element(0x00080060, "CS", "CT")
    made = model_of(file_of(data_set), "1.2")
    assert made.pieces == (
        '{"00080060":{"vr":"CS","Value":["CT"]},"00083002":{"vr":"UI","Value":["1.2"]},"00100020":{"vr":"LO","Value":["1"]}}',
    )
    assert made.fields[0x00080060] == '{"vr":"CS","Value":["CT"]}'
    assert list(made.fields) == [0x00080060, 0x00083002, 0x00100020]


def test_what_is_not_of_the_data_set_is_left_out() -> None:
    data_set = (
        EXPLICIT.element(0x00080000, "UL", [8])
        + EXPLICIT.element(0x00083002, "UI", "9.9")
        + EXPLICIT.element(0x00100000, "UL", [8])
        + EXPLICIT.sequence(0x00101002, [EXPLICIT.item(EXPLICIT.element(0x00100000, "UL", [8]))])
        + EXPLICIT.element(0xFFFCFFFC, "OB", bytes(100))
    )
    made = model_of(file_of(data_set), "1.2")
    assert parsed(made) == {
        "00083002": {"vr": "UI", "Value": ["1.2"]},
        "00101002": {"vr": "SQ", "Value": [{}]},
    }
    assert parsed(model_of(file_of(EXPLICIT.element(0x00083002, "UI", "9.9")), "")) == {}


def test_the_last_of_several_counts() -> None:
    assert shown(EXPLICIT.element(0x00100020, "LO", "1") * 2 + EXPLICIT.element(0x00100020, "LO", "2")) == {
        "00100020": {"vr": "LO", "Value": ["2"]}
    }


def test_the_order_of_windows_is_kept() -> None:
    def text(centers: str, widths: str) -> str:
        windows = EXPLICIT.element(0x00281050, "DS", centers) + EXPLICIT.element(0x00281051, "DS", widths)
        return "".join(model_of(file_of(EXPLICIT.identity() + windows)).pieces)

    first, second = text("40\\300", "400\\1500"), text("300\\40", "1500\\400")
    assert first != second
    assert json.loads(first)["00281050"]["Value"] == [40, 300]
    assert json.loads(second)["00281050"]["Value"] == [300, 40]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("writer", [EXPLICIT, IMPLICIT, BIG], ids=lambda writer: writer.name)
def test_sequences(writer: Writer, undefined: bool) -> None:
    def sequence(tag: int, *items: bytes) -> bytes:
        return writer.sequence(tag, [writer.item(item, undefined=undefined) for item in items], undefined=undefined)

    inner = sequence(0x00081199, writer.element(0x00081155, "UI", "1.2"))
    after = writer.element(0x00100020, "LO", "after")
    read = shown(sequence(0x00081115, inner, b"", b"") + sequence(0x00081140) + after, writer)
    assert read == {
        "00081115": {
            "vr": "SQ",
            "Value": [{"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]}}, {}, {}],
        },
        "00081140": {"vr": "SQ"},
        "00100020": {"vr": "LO", "Value": ["after"]},
    }


def test_private_blocks_keep_their_creators() -> None:
    data_set = (
        EXPLICIT.element(0x00090010, "LO", "VENDOR")
        + EXPLICIT.element(0x00090011, "LO", "dedupped")
        + EXPLICIT.element(0x00091010, "LO", "the vendor's")
        + EXPLICIT.element(0x00091110, "LO", "another's")
    )
    assert shown(data_set) == {
        "00090010": {"vr": "LO", "Value": ["VENDOR"]},
        "00090011": {"vr": "LO", "Value": ["dedupped"]},
        "00091010": {"vr": "LO", "Value": ["the vendor's"]},
        "00091110": {"vr": "LO", "Value": ["another's"]},
    }


@pytest.mark.parametrize("vr", ["OB", "OW", "OD", "OF", "OL", "OV", "UN"])
def test_binary_is_inline_up_to_a_limit(vr: str) -> None:
    assert len(base64.b64decode(one(0x00191001, vr, bytes(INLINE))["InlineBinary"])) == INLINE
    assert one(0x00191001, vr, bytes(INLINE + 8)) == {"vr": vr, "BulkDataURI": f"{PREFIX}bulkdata/00191001"}


def test_look_up_tables_are_inline_up_to_theirs() -> None:
    assert "InlineBinary" in one(0x00281201, "OW", bytes(LUT_INLINE))
    assert one(0x00281201, "OW", bytes(LUT_INLINE + 2)) == {"vr": "OW", "BulkDataURI": f"{PREFIX}bulkdata/00281201"}


def test_names_of_bulk_are_paths() -> None:
    lut = EXPLICIT.element(0x00281201, "OW", bytes(LUT_INLINE + 2))
    deep = EXPLICIT.sequence(0x00209111, [EXPLICIT.item(lut)])
    pixels = EXPLICIT.element(0x7FE00010, "OB", b"12")
    data = file_of(
        EXPLICIT.identity() + EXPLICIT.sequence(0x52009230, [EXPLICIT.item(), EXPLICIT.item(deep + pixels)]) + pixels
    )
    made = model_of(data)
    assert [(bulk.name, bulk.vr, data[bulk.start : bulk.end], bulk.swap) for bulk in made.bulk] == [
        ("52009230.2.00209111.1.00281201", "OW", bytes(LUT_INLINE + 2), 1),
        ("52009230.2.7FE00010", "OB", b"12", 1),
        ("7FE00010", "OB", b"12", 1),
    ]
    assert len(made.pieces) == 4
    assert not {0x52009230, 0x7FE00010} & made.fields.keys()
    item = parsed(made)["52009230"]["Value"][1]
    assert item["7FE00010"] == {"vr": "OB", "BulkDataURI": f"{PREFIX}bulkdata/52009230.2.7FE00010"}
    assert parsed(made)["7FE00010"]["BulkDataURI"] == f"{PREFIX}bulkdata/7FE00010"


@pytest.mark.parametrize(
    ("tag", "vr", "shown_vr", "swap"),
    [
        pytest.param(0x00420011, "OB", "OB", 1, id="document"),
        pytest.param(0x00204000, "LT", "LT", 1, id="text"),
        pytest.param(0x00100010, "PN", "UN", 1, id="name"),
        pytest.param(0x00280009, "AT", "UN", 2, id="tags"),
        pytest.param(0x00280010, "US", "US", 2, id="numbers"),
        pytest.param(0x00189073, "FD", "FD", 8, id="doubles"),
    ],
)
def test_large_values_of_any_vr_are_bulk(tag: int, vr: str, shown_vr: str, swap: int) -> None:
    """F.2.2 names the VRs that BulkDataURI is for; others are UN."""
    # In implicit VR any value may be as long; implicit VR big endian is nobody's transfer syntax, but files have it.
    for writer in (IMPLICIT, Writer("implicit big", BIG_UID, implicit=True, big=True)):
        data = file_of(writer.identity() + writer.element(tag, vr, bytes(LARGE + 8)), writer.transfer_syntax)
        made = model_of(data)
        assert parsed(made)[f"{tag:08X}"] == {"vr": shown_vr, "BulkDataURI": f"{PREFIX}bulkdata/{tag:08X}"}
        (bulk,) = made.bulk
        assert (bulk.vr, bulk.end - bulk.start) == (shown_vr, LARGE + 8)
        assert bulk.swap == (swap if writer.big else 1)
        assert one(tag, vr, bytes(16), writer)["vr"] == vr


@pytest.mark.parametrize(
    ("bits", "vr", "swap"), [(8, "OB", 1), (16, "OB", 2), (8, "OW", 2), (16, "OW", 2), (32, "OW", 4), (64, "OW", 8)]
)
def test_big_endian_pixels_say_how_to_turn_them(bits: int, vr: str, swap: int) -> None:
    data_set = BIG.identity() + BIG.image(2, 4, bits=bits) + BIG.element(0x7FE00010, vr, bytes(bits))
    (bulk,) = model_of(file_of(data_set, BIG.transfer_syntax)).bulk
    assert (bulk.name, bulk.vr, bulk.swap) == ("7FE00010", vr, swap)


def test_encapsulated_pixels_are_one_value() -> None:
    fragments = [b"a" * 300, b"b" * 20]
    table = struct.pack("<II", 0, 308)
    for closed in (True, False):
        data = file_of(EXPLICIT.identity() + EXPLICIT.encapsulated(fragments, table, closed=closed), JPEG_UID)
        (bulk,) = model_of(data).bulk
        expected = EXPLICIT.item(table) + b"".join(map(EXPLICIT.item, fragments))
        assert data[bulk.start : bulk.end] == expected
        assert bulk[:2] == ("7FE00010", "OB")
    empty = EXPLICIT.header(0x7FE00010, "OB", 0xFFFFFFFF) + EXPLICIT.end()
    assert shown(empty) == {"7FE00010": {"vr": "OB"}}


def test_pixels_in_implicit_vr_are_words() -> None:
    assert one(0x7FE00010, "OW", b"12345678", IMPLICIT) == {"vr": "OW", "BulkDataURI": f"{PREFIX}bulkdata/7FE00010"}
    assert one(0x7FE00010, "OW", b"", IMPLICIT) == {"vr": "OW"}
    assert one(0x60003000, "OW", b"12", IMPLICIT) == {"vr": "OW", "InlineBinary": "MTI="}
