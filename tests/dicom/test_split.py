"""Spans: frames, fragments and large values are kept apart, everything else stays in the header stream."""

import pytest

from dicomfs.dicom.describe import describe
from dicomfs.dicom.encoding import EXPLICIT_LITTLE
from dicomfs.dicom.split import FRAGMENT, FRAME, LITERAL, VALUE, Span
from dicomfs.dicom.walk import Walk
from tests.dicom.build import (
    BIG,
    DEFLATED_UID,
    EXPLICIT,
    IMPLICIT,
    JPEG_UID,
    UNDEFINED,
    WRITERS,
    Writer,
    deflated,
    part10,
)
from tests.dicom.tiles import assert_tiles

MIB = 1 << 20
by_name = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)


def bulk(data: bytes) -> list[Span]:
    spans = describe(data).spans
    assert_tiles(spans, data)
    return [span for span in spans if span.kind != LITERAL]


def contents(data: bytes, kind: int) -> list[bytes]:
    return [data[span.start : span.end] for span in bulk(data) if span.kind == kind]


def image(writer: Writer, pixels: bytes, *, vr: str = "OW", **geometry: object) -> bytes:
    header = writer.identity() + writer.image(**geometry)  # type: ignore[arg-type]
    return part10(header + writer.element(0x7FE00010, vr, pixels), writer.transfer_syntax)


@by_name
@pytest.mark.parametrize(
    ("geometry", "frame", "sample_bytes"),
    [
        ({"rows": 32, "columns": 32, "bits": 16}, 2048, 2),
        ({"rows": 64, "columns": 32, "bits": 8}, 2048, 1),
        ({"rows": 16, "columns": 32, "bits": 32}, 2048, 4),
        ({"rows": 16, "columns": 16, "bits": 64}, 2048, 8),
        ({"rows": 32, "columns": 32, "bits": 8, "samples": 3, "interpretation": "RGB"}, 3072, 1),
        ({"rows": 32, "columns": 32, "bits": 8, "samples": 3, "interpretation": "YBR_FULL_422"}, 2048, 1),
        ({"rows": 128, "columns": 128, "bits": 1}, 2048, 1),
        ({"rows": 32, "columns": 64, "bits": 12}, 3072, 1),
    ],
    ids=["16 bit", "8 bit", "32 bit", "64 bit", "RGB", "4:2:2", "1 bit", "12 bit packed"],
)
def test_each_native_frame_is_a_span(writer: Writer, geometry: dict[str, int], frame: int, sample_bytes: int) -> None:
    frames = [bytes([number]) * frame for number in range(5)]
    data = image(writer, b"".join(frames), frames=5, **geometry)
    assert contents(data, FRAME) == frames
    assert {span.sample_bytes for span in bulk(data)} == {sample_bytes}


@pytest.mark.parametrize(("tag", "size"), [(0x7FE00008, 4), (0x7FE00009, 8)], ids=["float", "double"])
def test_float_pixels_are_framed_by_their_own_width(tag: int, size: int) -> None:
    frames = [bytes([number]) * 1024 * size for number in range(3)]
    header = EXPLICIT.identity() + EXPLICIT.image(32, 32, bits=0, frames=3)
    data = part10(header + EXPLICIT.element(tag, "OF" if size == 4 else "OD", b"".join(frames)))
    assert contents(data, FRAME) == frames
    assert {span.sample_bytes for span in bulk(data)} == {size}


# (length of the value, declared frames) -> lengths of the spans, for frames of 2,048 bytes
@pytest.mark.parametrize(
    ("length", "frames", "expected"),
    [
        (2048 * 3, None, [2048] * 3),
        (2048 * 3, 7, [2048] * 3),
        (2048 * 3, 1, [2048] * 3),
        (2048 * 3 + 2, 3, [2048] * 3),
        (2048 * 3 + 1500, 3, [2048] * 3 + [1500]),
        (2000, 1, [2000]),
        (1024, 1, [1024]),
        (1022, 1, []),
        (0, 1, []),
    ],
)
def test_a_wrong_number_of_frames_loses_no_pixel(length: int, frames: int | None, expected: list[int]) -> None:
    data = image(EXPLICIT, b"\7" * length, rows=32, columns=32, frames=frames)
    assert [len(pixels) for pixels in contents(data, FRAME)] == expected


@pytest.mark.parametrize(
    "geometry",
    [
        {"rows": 8, "columns": 8, "frames": 32},
        {"rows": 0, "columns": 64},
        {"rows": 65535, "columns": 65535},
        {"rows": 99, "columns": 99, "bits": 1},
        {"rows": 32, "columns": 32, "bits": 0},
    ],
    ids=["small frames", "no rows", "larger than the value", "frames end within bytes", "no bits"],
)
def test_pixels_that_have_no_frames_worth_it_are_one_span(geometry: dict[str, int]) -> None:
    pixels = b"\1\2" * 2048
    assert contents(image(EXPLICIT, pixels, **geometry), FRAME) == [pixels]


def test_pixels_without_any_geometry_are_one_span() -> None:
    data = part10(EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OW", b"\1\2" * 2048))
    assert bulk(data) == [Span(FRAME, len(data) - 4096, len(data), 1)]


@pytest.mark.parametrize("table", [b"", bytes(4) + b"\0\4\0\0"], ids=["empty table", "table"])
def test_each_fragment_is_a_span(table: bytes) -> None:
    fragments = [b"a" * 300, b"b" * 255, b"c" * 256, b"", b"d" * 5000]
    data = part10(EXPLICIT.identity() + EXPLICIT.encapsulated(fragments, table), JPEG_UID)
    assert contents(data, FRAGMENT) == [b"a" * 300, b"c" * 256, b"d" * 5000]


def test_the_offset_table_stays_in_the_header_unless_it_is_large() -> None:
    small, large = bytes(4000), bytes(MIB + 4)
    for table in (small, large):
        data = part10(EXPLICIT.identity() + EXPLICIT.encapsulated([b"x" * 400], table), JPEG_UID)
        assert contents(data, FRAGMENT) == [b"x" * 400]
        assert contents(data, VALUE) == [table] * (table is large)


def test_a_missing_offset_table_costs_no_fragment() -> None:
    stream = b"\xff\xd8\xff\xe0" + b"x" * 400
    pixels = EXPLICIT.header(0x7FE00010, "OB", UNDEFINED) + EXPLICIT.item(stream) + EXPLICIT.end()
    assert contents(part10(EXPLICIT.identity() + pixels, JPEG_UID), FRAGMENT) == [stream]


def test_elements_after_the_pixels_are_walked() -> None:
    for pixels in (EXPLICIT.element(0x7FE00010, "OW", b"p" * 2000), EXPLICIT.encapsulated([b"p" * 2000])):
        data = part10(EXPLICIT.identity() + pixels + EXPLICIT.element(0xFFFCFFFC, "OB", b"z" * (MIB + 2)))
        assert [len(text) for text in contents(data, FRAME) + contents(data, FRAGMENT)] == [2000]
        assert contents(data, VALUE) == [b"z" * (MIB + 2)]


BULK = b"\5" * (MIB + 2)


@by_name
@pytest.mark.parametrize("undefined", [True, False], ids=["undefined", "defined"])
def test_large_values_are_spans_at_any_depth(writer: Writer, undefined: bool) -> None:
    inner = writer.element(0x00091010, "OB", BULK) + writer.element(0x00091011, "LO", "after ")
    nested = writer.sequence(0x00081140, [writer.item(), writer.item(inner, undefined=undefined)], undefined=undefined)
    outer = writer.sequence(0x00081115, [writer.item(nested, undefined=undefined)] * 2, undefined=undefined)
    data = part10(outer + writer.identity() + writer.element(0x00420011, "OB", BULK), writer.transfer_syntax)
    assert describe(data).verdict == "DICOM"
    assert contents(data, VALUE) == [BULK] * 3


def test_a_value_of_exactly_1_mib_stays_in_the_header() -> None:
    assert bulk(part10(EXPLICIT.identity() + EXPLICIT.element(0x00420011, "OB", BULK[:MIB]))) == []


def test_a_large_sequence_is_not_bulk_itself() -> None:
    item = EXPLICIT.item(EXPLICIT.element(0x00204000, "LT", "x" * 1000))
    assert bulk(part10(EXPLICIT.sequence(0x00081115, [item] * 3000) + EXPLICIT.identity())) == []
    one = EXPLICIT.item(EXPLICIT.element(0x00204000, "LT", "x" * 1000) * 3000)
    assert bulk(part10(EXPLICIT.sequence(0x00081115, [one]) + EXPLICIT.identity())) == []


def test_pixels_of_an_icon_are_no_frames_of_the_image() -> None:
    icon = EXPLICIT.image(32, 32, bits=8) + EXPLICIT.element(0x7FE00010, "OW", b"i" * 1024)
    compressed = EXPLICIT.encapsulated([b"i" * 1024])
    for content in (icon, compressed):
        sequence = EXPLICIT.sequence(0x00880200, [EXPLICIT.item(content, undefined=True)], undefined=True)
        pixels = EXPLICIT.element(0x7FE00010, "OW", b"p" * 2048)
        data = part10(EXPLICIT.identity() + EXPLICIT.image(32, 32) + sequence + pixels)
        assert contents(data, FRAME) == [b"p" * 2048]
        assert contents(data, FRAGMENT) == []


def test_un_of_undefined_length_holds_implicit_elements() -> None:
    for writer in (EXPLICIT, IMPLICIT):  # and explicit ones, where writers did not know
        content = IMPLICIT.item(writer.element(0x00091010, "OB", BULK), undefined=True) + IMPLICIT.end()
        data = part10(EXPLICIT.header(0x00080006, "UN", UNDEFINED) + content + EXPLICIT.identity())
        assert describe(data).verdict == "DICOM"
        assert contents(data, VALUE) == [BULK]


def test_items_may_fall_into_implicit_vr() -> None:
    item = IMPLICIT.item(IMPLICIT.element(0x00091010, "OB", BULK), undefined=True)
    data = part10(EXPLICIT.sequence(0x00080006, [item], undefined=True) + EXPLICIT.identity())
    assert describe(data).verdict == "DICOM"
    assert contents(data, VALUE) == [BULK]


@pytest.mark.parametrize("length", [1500, 3 * MIB], ids=["small", "large"])
def test_a_deflated_data_set_is_one_value(length: int) -> None:
    stream = deflated(EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OW", b"p" * length))
    data = part10(stream, DEFLATED_UID)
    assert contents(data, VALUE) == [stream]
    assert describe(data).verdict == "DICOM"


def test_what_is_no_dicom_is_one_span() -> None:
    assert describe(b"").spans == []
    assert describe(b"text").spans == [Span(LITERAL, 0, 4, 1)]
    assert describe(b"x" * (MIB + 1)).spans == [Span(VALUE, 0, MIB + 1, 1)]


def test_a_large_tail_that_is_not_understood_is_a_value() -> None:
    data = part10(EXPLICIT.identity())
    assert bulk(data + bytes(MIB + 1)) == [Span(VALUE, len(data), len(data) + MIB + 1, 1)]
    assert bulk(data + bytes(MIB)) == []


def test_a_container_that_is_not_understood_costs_only_itself() -> None:
    wrong = [EXPLICIT.item(b"\xaa" * (2 * MIB)), EXPLICIT.item(BIG.element(9, "OB", b""))]
    broken = EXPLICIT.sequence(0x00080006, wrong)
    data = part10(broken + EXPLICIT.identity() + EXPLICIT.element(0x00420011, "OB", BULK))
    assert describe(data).verdict == "DICOM"
    assert contents(data, VALUE) == [b"\xaa" * (2 * MIB), BULK]


def test_more_fragments_than_are_kept_apart_become_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomfs.dicom.walk.MOST_FRAGMENTS", 10)
    item = b"\xfe\xff\x00\xe0\x00\x01\x00\x00" + bytes(256)
    head = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0"
    data = head + item * 27 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    walk = Walk(data, 0, len(data), EXPLICIT_LITTLE)
    assert walk.fault is None
    assert len(walk.bulk) <= 11
    assert (walk.bulk[0].start, walk.bulk[-1].end) == (len(head) + 8, len(head) + 27 * len(item))
