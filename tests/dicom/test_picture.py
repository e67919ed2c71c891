"""Pictures of frames: every value as the Standard's formulas give it, worked out by hand or by numpy."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from dicomfs.dicom.frames import find_frames
from dicomfs.dicom.part10 import locate
from dicomfs.dicom.picture import CannotShow, Picture
from tests.dicom.images import BIG, IMPLICIT, LITTLE, image, lut, picture, read_of, with_syntax

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = np.array([[0, 25, 50, 75, 100, 200]], np.uint16)


def shown(data: bytes, frame: int = 1) -> np.ndarray:
    return picture(data).frame(frame)


def greys(data: bytes, frame: int = 1) -> list[int]:
    return shown(data, frame).reshape(-1).tolist()


def why_not(data: bytes, frame: int = 1) -> str:
    with pytest.raises(CannotShow) as caught:
        shown(data, frame)
    return str(caught.value)


# Windows (PS3.3 C.11.2.1.2 and .3)


@pytest.mark.parametrize(
    ("function", "width", "expected"),
    [
        # ((x - 49.5) / 100 + 0.5) * 255
        (None, 101, [1, 65, 129, 193, 255, 255]),
        ("LINEAR", 101, [1, 65, 129, 193, 255, 255]),
        ("SOMETHING ELSE", 101, [1, 65, 129, 193, 255, 255]),
        # ((x - 50) / 100 + 0.5) * 255
        ("LINEAR_EXACT", 100, [0, 64, 128, 191, 255, 255]),
        # 255 / (1 + exp(-4 (x - 50) / 100))
        ("SIGMOID", 100, [30, 69, 128, 186, 225, 254]),
    ],
)
def test_voi_functions(function: str | None, width: int, expected: list[int]) -> None:
    given = {} if function is None else {"VOILUTFunction": function}
    assert greys(image(STEPS, WindowCenter=50, WindowWidth=width, **given)) == expected


def test_linear_window_of_one_is_a_threshold() -> None:
    assert greys(image(STEPS, WindowCenter=51, WindowWidth=1)) == [0, 0, 0, 255, 255, 255]


def test_first_of_several_windows_counts() -> None:
    data = image(STEPS, WindowCenter=[50, 1000], WindowWidth=[101, 2000], VOILUTFunction="LINEAR")
    assert greys(data) == [1, 65, 129, 193, 255, 255]


@pytest.mark.parametrize("width", [0, -5])
def test_window_without_width_is_none(width: int) -> None:
    assert greys(image(STEPS, WindowCenter=0, WindowWidth=width)) == [0, 32, 64, 96, 128, 255]


def test_window_narrower_than_one_is_taken_exactly() -> None:
    values = np.array([[0, 100, 200, 300, 400]], np.uint16)
    data = image(values, RescaleSlope="0.001", RescaleIntercept="0", WindowCenter="0.2", WindowWidth="0.4")
    assert greys(data) == [0, 64, 128, 191, 255]


def test_window_is_in_units_after_rescale() -> None:
    values = np.array([[0, 1024, 1074, 2024]], np.uint16)
    data = image(values, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=50, WindowWidth=101)
    # Hounsfield units -1024, 0, 50, 1000
    assert greys(data) == [0, 1, 129, 255]


def test_negative_slope_turns_the_picture_over() -> None:
    assert greys(image(STEPS, RescaleSlope=-1, RescaleIntercept=0)) == [255, 223, 191, 159, 128, 0]


def test_rescale_of_no_slope_is_none() -> None:
    assert greys(image(STEPS, RescaleSlope=0, RescaleIntercept=7)) == [0, 32, 64, 96, 128, 255]


def test_without_window_the_range_of_the_frame_counts() -> None:
    # x / 200 * 255
    assert greys(image(STEPS)) == [0, 32, 64, 96, 128, 255]


def test_frame_of_one_value_is_black() -> None:
    assert greys(image(np.full((2, 2), 77, np.uint16))) == [0, 0, 0, 0]


def test_monochrome1_is_inverted() -> None:
    data = image(STEPS, PhotometricInterpretation="MONOCHROME1", WindowCenter=50, WindowWidth=101)
    assert greys(data) == [254, 190, 126, 62, 0, 0]


def test_padding_is_left_out_of_the_range() -> None:
    values = np.array([[-2000, 0, 50, 100]], np.int16)
    assert greys(image(values, PixelPaddingValue=-2000)) == [0, 0, 128, 255]
    unsigned = image(values, PixelPaddingValue=-2000).replace(b"\x20\x01SS", b"\x20\x01US")
    assert greys(unsigned) == [0, 0, 128, 255]  # a common mistake
    limited = np.array([[-2000, -1500, 0, 50, 100]], np.int16)
    assert greys(image(limited, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1000)) == [0, 0, 0, 128, 255]
    assert greys(image(np.full((1, 2), -2000, np.int16), PixelPaddingValue=-2000)) == [0, 0]


def test_signed_values() -> None:
    values = np.array([[-100, -50, 0, 50, 100]], np.int16)
    assert greys(image(values, WindowCenter=0.5, WindowWidth=201)) == [0, 64, 128, 191, 255]


def test_unused_bits_do_not_count() -> None:
    # 12 bits stored, signed: 0xFFF is -1 whatever the four bits above it are (PS3.5 8.1.1)
    values = np.array([[0x0FFF, 0xFFFF, 0x0000, 0xF001]], np.uint16)
    data = image(values, BitsStored=12, HighBit=11, PixelRepresentation=1)
    assert greys(data) == [0, 0, 128, 255]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-32768, 32767), min_size=1, max_size=40),
    st.floats(-40000, 40000, width=32),
    st.floats(1, 70000, width=32),
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    st.sampled_from([(1, 0), (2, -1024), (0.5, 3), (-1, 10)]),
)
def test_any_window_as_numpy_has_it(
    values: list[int], centre: float, width: float, function: str, rescale: tuple[float, int]
) -> None:
    centre, width = float(f"{centre:.6g}"), float(f"{width:.6g}")
    data = image(
        np.array([values], np.int16), WindowCenter=centre, WindowWidth=width, VOILUTFunction=function,
        RescaleSlope=rescale[0], RescaleIntercept=rescale[1],
    )  # fmt: skip
    meant = np.array(values, float) * rescale[0] + rescale[1]
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            expected = 255 / (1 + np.exp(-4 * (meant - centre) / width))
    else:
        less = 1 if function == "LINEAR" else 0
        below = meant <= centre - less / 2 - (width - less) / 2
        above = meant > centre - less / 2 + (width - less) / 2
        ramp = np.full(meant.shape, 0.5) if width == less else (meant - (centre - less / 2)) / (width - less) + 0.5
        expected = np.where(below, 0, np.where(above, 1, ramp)) * 255
    assert greys(data) == np.floor(expected + 0.5).astype(int).tolist()


# Tables (PS3.3 C.11.1, C.11.2)


def test_voi_lut_comes_before_a_window() -> None:
    data = image(
        np.array([[0, 9, 10, 11, 12, 99]], np.uint16),
        VOILUTSequence=Items([lut(10, 12, [0, 1000, 4095])]), WindowCenter=50, WindowWidth=2,
    )  # fmt: skip
    # what is before the first entry and after the last is as they are; 1000 / 4095 * 255 = 62.3
    assert greys(data) == [0, 0, 0, 62, 255, 255]


def test_voi_lut_of_8_bits_with_many_entries() -> None:
    entries = [n // 4 for n in range(1024)]
    data = image(np.array([[0, 400, 1023, 60000]], np.uint16), VOILUTSequence=Items([lut(0, 8, entries)]))
    assert greys(data) == [0, 100, 255, 255]


def test_voi_lut_of_all_values() -> None:
    entries = [65535 - n for n in range(65536)]
    item = lut(0, 16, np.array(entries, "<u2").tobytes(), count=0)
    data = image(np.array([[0, 257, 65535]], np.uint16), VOILUTSequence=Items([item]))
    assert greys(data) == [255, 254, 0]


def test_voi_lut_in_big_endian() -> None:
    item = lut(0, 16, np.array([0, 257 * 7, 65535], ">u2").tobytes(), count=3)
    assert greys(image(np.array([[0, 1, 2]], np.uint16), syntax=BIG, VOILUTSequence=Items([item]))) == [0, 7, 255]


def test_voi_lut_that_begins_below_zero() -> None:
    data = image(np.array([[-3, -2, -1, 0, 5]], np.int16), VOILUTSequence=Items([lut(-2, 8, [10, 20, 30])]))
    assert greys(data) == [10, 10, 20, 30, 30]


def test_voi_lut_whose_first_value_was_written_unsigned() -> None:
    item = lut(0, 8, [10, 20, 30])
    item.add_new("LUTDescriptor", "US", [3, 0x10000 - 2, 8])
    data = image(np.array([[-3, -2, -1, 0, 5]], np.int16), VOILUTSequence=Items([item]))
    assert greys(data) == [10, 10, 20, 30, 30]


def test_modality_lut_comes_before_the_window() -> None:
    data = image(
        np.array([[0, 1, 2, 3]], np.uint16),
        ModalityLUTSequence=Items([lut(0, 16, [100, 0, 50, 25])]), WindowCenter=50, WindowWidth=101,
    )  # fmt: skip
    assert greys(data) == [255, 1, 129, 65]


def test_range_after_a_modality_lut() -> None:
    data = image(np.array([[0, 1, 2, 3]], np.uint16), ModalityLUTSequence=Items([lut(0, 16, [50, 0, 100, 25])]))
    assert greys(data) == [128, 0, 255, 64]


def test_empty_tables_are_passed_over() -> None:
    data = image(STEPS, VOILUTSequence=Items([Dataset()]), ModalityLUTSequence=Items([]))
    assert greys(data) == [0, 32, 64, 96, 128, 255]


# What values are made of


@pytest.mark.parametrize("syntax", [LITTLE, BIG, IMPLICIT])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_depths_and_byte_orders(kind: str, syntax: str) -> None:
    values = np.array([[0, 25, 50, 75, 100, 125]], kind)
    # x / 125 * 255, and the second frame is the first one reversed
    data = image(np.stack([values, values[:, ::-1]]), frames=2, syntax=syntax)
    assert greys(data, 1) == [0, 51, 102, 153, 204, 255]
    assert greys(data, 2) == [255, 204, 153, 102, 51, 0]


def test_bytes_of_big_endian_words() -> None:
    # 8 bits in OW: the bytes of each word are swapped, and frames begin within a word (PS3.5 8.1.2)
    values = np.array([[[0, 25, 50]], [[75, 100, 125]]], np.uint8)
    raw = np.frombuffer(values.tobytes(), "<u2").byteswap().tobytes()
    data = image(values, frames=2, syntax=BIG, value=raw, WindowCenter=50, WindowWidth=101)
    ob = data.index(b"\x7f\xe0\x00\x10OB")
    data = data[: ob + 4] + b"OW" + data[ob + 6 :]
    assert greys(data, 1) == [1, 65, 129]
    assert greys(data, 2) == [193, 255, 255]


def test_values_further_apart_than_a_table_is_long() -> None:
    values = np.array([[0, 1 << 30, 1 << 31, (1 << 32) - 1]], np.uint32)
    assert greys(image(values)) == [0, 64, 128, 255]
    assert greys(image(values, WindowCenter=str(1 << 31), WindowWidth=str(1 << 30))) == [0, 0, 128, 255]


def test_frame_of_many_strips() -> None:
    values = np.arange(1200 * 1200, dtype=np.uint32).reshape(1200, 1200)
    expected = np.floor(values / (1200 * 1200 - 1) * 255 + 0.5)
    assert np.array_equal(shown(image(values)), expected)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_floating_point_pixels(kind: str) -> None:
    values = np.array([[0.0, 0.25, np.nan, 1.0, np.inf, -np.inf]], kind)
    assert greys(image(values)) == [0, 64, 0, 255, 255, 0]


def test_single_bits_and_frames_that_begin_within_a_byte() -> None:
    bits = np.array([[[1, 0, 1], [0, 1, 1]], [[0, 0, 1], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]]], np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    data = image(bits, frames=3, value=packed, BitsAllocated=1, BitsStored=1, HighBit=0)
    for number in (1, 2, 3):
        # all ones are white, all zeros black, whatever else is there
        assert shown(data, number).tolist() == (bits[number - 1] * 255).tolist()


# Colours


RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)


def test_rgb_by_pixel_and_by_plane() -> None:
    assert shown(image(RGB)).tolist() == RGB.tolist()
    planes = RGB.transpose(2, 0, 1).tobytes()
    assert shown(image(RGB, value=planes, PlanarConfiguration=1)).tolist() == RGB.tolist()


@pytest.mark.parametrize("syntax", [LITTLE, BIG])
def test_rgb_of_16_bits_shows_the_upper_ones(syntax: str) -> None:
    deep = RGB.astype(np.uint16) * 256 + 200
    assert shown(image(deep, syntax=syntax)).tolist() == RGB.tolist()
    twelve = RGB.astype(np.uint16) * 16 + 15
    assert shown(image(twelve, BitsStored=12, HighBit=11)).tolist() == RGB.tolist()


def test_a_window_is_not_for_colours() -> None:
    assert shown(image(RGB, WindowCenter=10, WindowWidth=2)).tolist() == RGB.tolist()


def ybr(rgb: Sequence[float]) -> list[int]:
    """PS3.3 C.7.6.3.1.2."""
    r, g, b = rgb
    full = (
        0.2990 * r + 0.5870 * g + 0.1140 * b,
        -0.1687 * r - 0.3313 * g + 0.5000 * b + 128,
        0.5000 * r - 0.4187 * g - 0.0813 * b + 128,
    )
    return [min(255, max(0, round(value))) for value in full]


def test_ybr_full() -> None:
    converted = np.array([[ybr(pixel) for pixel in row] for row in RGB], np.uint8)
    found = shown(image(converted, PhotometricInterpretation="YBR_FULL")).astype(int)
    assert np.abs(found - RGB).max() <= 2  # three rounded numbers make three others
    assert found[1, 1].tolist() == [10, 20, 30]


def test_ybr_full_422() -> None:
    # two pixels share their colour: Y1 Y2 B R
    red, blue = ybr((200, 30, 40)), ybr((20, 60, 220))
    value = bytes([red[0], red[0], *red[1:], blue[0], blue[0], *blue[1:]])
    pixels = np.zeros((2, 2, 3), np.uint8)
    found = shown(image(pixels, value=value, PhotometricInterpretation="YBR_FULL_422")).astype(int)
    assert np.abs(found - [[(200, 30, 40)] * 2, [(20, 60, 220)] * 2]).max() <= 2


def palette(
    bits: int, first: int, red: bytes, green: bytes, blue: bytes, count: int, *, segmented: bool = False
) -> dict[str, object]:
    before = "Segmented" if segmented else ""
    found: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in (("Red", red), ("Green", green), ("Blue", blue)):
        found[f"{name}PaletteColorLookupTableDescriptor"] = [count, first, bits]
        found[f"{before}{name}PaletteColorLookupTableData"] = table
    return found


INDEXES = np.array([[0, 1, 2, 3]], np.uint8)


def test_palette_of_8_bits() -> None:
    colours = palette(8, 1, bytes([1, 2, 3, 0]), bytes([4, 5, 6, 0]), bytes([7, 8, 9, 0]), 3)
    # the first entry belongs to the value 1; the tables are filled up to an even length
    assert shown(image(INDEXES, **colours)).tolist() == [[[1, 4, 7], [1, 4, 7], [2, 5, 8], [3, 6, 9]]]


@pytest.mark.parametrize(("syntax", "order"), [(LITTLE, "<"), (BIG, ">")])
def test_palette_of_16_bits(syntax: str, order: str) -> None:
    tables = [np.array([value << 8 | 99 for value in row], f"{order}u2").tobytes() for row in ((1, 2), (3, 4), (5, 6))]
    colours = palette(16, 0, *tables, 2)
    assert shown(image(INDEXES, syntax=syntax, **colours)).tolist() == [[[1, 3, 5], [2, 4, 6], [2, 4, 6], [2, 4, 6]]]


def test_palette_of_16_bits_that_uses_only_8() -> None:
    tables = [np.array(row, "<u2").tobytes() for row in ((1, 2), (3, 4), (5, 6))]
    assert shown(image(INDEXES, **palette(16, 0, *tables, 2))).tolist()[0][:2] == [[1, 3, 5], [2, 4, 6]]


def test_palette_of_8_bits_for_deeper_values() -> None:
    table = bytes(n // 4 for n in range(1024))
    values = np.array([[0, 400, 1023, 60000]], np.uint16)
    found = shown(image(values, **palette(8, 0, table, table, table, 1024)))
    assert found[..., 0].tolist() == [[0, 100, 255, 255]]


def test_segmented_palette() -> None:
    # a discrete segment of one entry, then a linear one of four up to 0xFF00 (PS3.3 C.7.9.2)
    rising = struct.pack("<6H", 0, 1, 0, 1, 4, 0xFF00)
    flat = struct.pack("<6H", 0, 1, 0x8000, 1, 4, 0x8000)
    values = np.array([[0, 1, 2, 3, 4, 9]], np.uint8)
    found = shown(image(values, **palette(16, 0, rising, flat, rising, 5, segmented=True)))
    assert found[..., 0].tolist() == [[0, 0x3F, 0x7F, 0xBF, 0xFF, 0xFF]]
    assert found[..., 1].tolist() == [[0x80] * 6]


def test_palette_without_tables() -> None:
    assert why_not(image(INDEXES, PhotometricInterpretation="PALETTE COLOR")) == "its pixels cannot be decoded"


# Compressed pixels

y, x = np.mgrid[0:48, 0:64]
SMOOTH = np.stack([x * 4, y * 5, 255 - x * 2 - y], axis=-1).astype(np.uint8)
DEEP = (x * 60 + y * 3).astype(np.uint16)
FULL = {"WindowCenter": 2048, "WindowWidth": 4096}

BASELINE, LOSSLESS, EXTENDED = (f"1.2.840.10008.1.2.4.{number}" for number in (50, 70, 51))


def as_linear(values: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(((values.astype(float) - 2047.5) / 4095 + 0.5) * 255, 0, 255) + 0.5).astype(np.uint8)


def jpeg(mode: str, marker: str) -> bytes:
    """Return SMOOTH as JPEG of these components, marked as JFIF, by Adobe, or not at all."""
    space = "YCBCR" if mode == "ybr" else "RGB"
    stream = imagecodecs.jpeg8_encode(SMOOTH, level=98, colorspace="RGB", outcolorspace=space, subsampling="444")
    parts, at = [b"\xff\xd8"], 2
    markers = {
        "jfif": b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0",
        "adobe": b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([mode == "ybr"]),
        "none": b"",
    }
    parts.append(markers[marker])
    while stream[at + 1] != 0xDA:
        length = 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = bytearray(stream[at : at + length])
        if segment[1] == 0xC0:
            for component in range(3):  # numbers, so that they tell nothing of colours
                segment[10 + 3 * component] = component + 1
        if not 0xE0 <= segment[1] <= 0xEF:
            parts.append(bytes(segment))
        at += length
    scan = bytearray(stream[at:])
    for component in range(3):
        scan[5 + 2 * component] = component + 1
    return b"".join([*parts, scan])


@pytest.mark.parametrize(
    ("mode", "marker", "photometric"),
    [
        ("ybr", "none", "YBR_FULL_422"),
        ("ybr", "jfif", "YBR_FULL_422"),
        ("ybr", "jfif", "RGB"),  # the header is wrong: so much common software writes
        ("ybr", "adobe", "YBR_FULL_422"),
        ("ybr", "adobe", "RGB"),
        ("rgb", "none", "RGB"),
        ("rgb", "adobe", "RGB"),
        ("rgb", "adobe", "YBR_FULL_422"),
    ],
)
def test_colours_of_jpeg(mode: str, marker: str, photometric: str) -> None:
    data = image(SMOOTH, syntax=BASELINE, codestreams=[jpeg(mode, marker)], PhotometricInterpretation=photometric)
    assert np.abs(shown(data).astype(int) - SMOOTH).max() <= 6


def test_jpeg_of_12_bits() -> None:
    stream = imagecodecs.jpeg8_encode(DEEP, level=100, bitspersample=12)
    data = image(DEEP, syntax=EXTENDED, codestreams=[stream], BitsStored=12, HighBit=11, **FULL)
    assert np.abs(shown(data).astype(int) - as_linear(DEEP)).max() <= 1


@pytest.mark.parametrize("signed", [False, True])
def test_lossless_jpeg(signed: bool) -> None:
    values = DEEP.astype(np.int16) - 2000 if signed else DEEP
    stored = values.astype(np.uint16) & 0xFFF if signed else values
    stream = imagecodecs.jpeg8_encode(np.ascontiguousarray(stored), lossless=True, bitspersample=12)
    window = {"WindowCenter": 48, "WindowWidth": 4096} if signed else FULL
    data = image(values, syntax=LOSSLESS, codestreams=[stream], BitsStored=12, HighBit=11, **window)
    assert np.array_equal(shown(data), as_linear(DEEP))


def test_jpeg_xl() -> None:
    deep = image(
        DEEP, syntax="1.2.840.10008.1.2.4.110", codestreams=[imagecodecs.jpegxl_encode(DEEP, lossless=True)], **FULL
    )
    assert np.array_equal(shown(deep), as_linear(DEEP))
    colour = image(
        SMOOTH, syntax="1.2.840.10008.1.2.4.110", codestreams=[imagecodecs.jpegxl_encode(SMOOTH, lossless=True)]
    )
    assert np.array_equal(shown(colour), SMOOTH)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
def test_lossless_by_pydicom(syntax: str) -> None:
    from pydicom import dcmread

    for pixels, expected, more in ((DEEP, as_linear(DEEP), FULL), (SMOOTH, SMOOTH, {})):
        plain = dcmread(io.BytesIO(image(pixels, **more)))
        plain.compress(syntax, generate_instance_uid=False)
        buffer = io.BytesIO()
        plain.save_as(buffer)
        assert np.array_equal(shown(buffer.getvalue()), expected)


def test_deflated_frames() -> None:
    frames = [DEEP, DEEP[::-1]]
    streams = []
    for frame in frames:
        deflate = zlib.compressobj(wbits=-15)
        stream = deflate.compress(frame.tobytes()) + deflate.flush()
        streams.append(stream + b"\0" * (len(stream) % 2))
    data = image(np.stack(frames), frames=2, syntax="1.2.840.10008.1.2.8.1", codestreams=streams, **FULL)
    assert np.array_equal(shown(data, 2), as_linear(DEEP)[::-1])


def test_encapsulated_uncompressed_frames() -> None:
    streams = [DEEP.tobytes(), DEEP[::-1].tobytes()]
    data = image(np.stack([DEEP, DEEP]), frames=2, syntax="1.2.840.10008.1.2.1.98", codestreams=streams, **FULL)
    assert np.array_equal(shown(data, 2), as_linear(DEEP)[::-1])


def test_deflated_data_set() -> None:
    plain = image(STEPS)
    start = 132 + 12 + int.from_bytes(plain[140:144], "little")
    deflate = zlib.compressobj(wbits=-15)
    meta = with_syntax(plain, LITTLE, "1.2.840.10008.1.2.1.99")[: start + 2]
    assert greys(meta + deflate.compress(plain[start:]) + deflate.flush()) == [0, 32, 64, 96, 128, 255]


# Functional groups (PS3.3 C.7.6.16)


def group(**macros: Dataset) -> Dataset:
    found = Dataset()
    for keyword, item in macros.items():
        setattr(found, keyword, Items([item]))
    return found


def attributes(**values: object) -> Dataset:
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def test_each_frame_has_its_own_window() -> None:
    shared = group(
        PixelValueTransformationSequence=attributes(RescaleSlope=1, RescaleIntercept=-1000, RescaleType="HU"),
        FrameVOILUTSequence=attributes(WindowCenter=50, WindowWidth=101),
        PixelMeasuresSequence=attributes(PixelSpacing=[2, 1]),
    )
    own = group(FrameVOILUTSequence=attributes(WindowCenter=-950, WindowWidth=101))
    data = image(
        np.stack([STEPS, STEPS, STEPS + 1000]), frames=3, WindowCenter=0, WindowWidth=3,
        SharedFunctionalGroupsSequence=Items([shared]), PerFrameFunctionalGroupsSequence=Items([Dataset(), own]),
    )  # fmt: skip
    assert greys(data, 1) == [0] * 6
    assert greys(data, 2) == [1, 65, 129, 193, 255, 255]
    assert greys(data, 3) == [1, 65, 129, 193, 255, 255]
    assert picture(data).aspect(2) == 2


def test_shape_of_pixels() -> None:
    def aspect(**given: object) -> float:
        return picture(image(STEPS, **given)).aspect(1)

    assert aspect() == 1
    assert aspect(PixelAspectRatio=["2", "1"]) == 2
    assert aspect(PixelSpacing=["0.5", "1"]) == 0.5
    assert aspect(PixelSpacing=["1", "0"]) == 1
    assert aspect(PixelSpacing=["1000", "1"]) == 1
    assert aspect(PixelAspectRatio=["1", "1"], PixelSpacing=["3", "1"]) == 1


# What cannot be shown


def test_reasons() -> None:
    whole = image(SMOOTH, syntax=BASELINE, codestreams=[jpeg("ybr", "jfif")])
    assert why_not(whole, 2) == "there is no such frame"
    assert why_not(whole, 0) == "there is no such frame"
    assert why_not(whole.replace(b"\xff\xd8\xff", b"\xff\x00\xff")) == "its pixels cannot be decoded"
    other = image(SMOOTH[:40], syntax=BASELINE, codestreams=[jpeg("ybr", "jfif")])
    assert why_not(other) == "the codestream is of another size than its header says"
    assert why_not(image(STEPS)[:-2]) == "its pixels are not all there"
    video = image(SMOOTH, syntax="1.2.840.10008.1.2.4.102", codestreams=[b"video"])
    assert why_not(video).startswith("there is no decoder for MPEG-4 AVC/H.264 High Profile")
    assert (
        why_not(image(SMOOTH, syntax="1.2.3.4", codestreams=[b"what"]))
        == "there is no decoder for this transfer syntax"
    )
    assert why_not(image(STEPS, Rows=65535, Columns=65535)) == "the frame is too large"
    assert why_not(image(STEPS, BitsAllocated=12)) == "its pixels cannot be decoded"


@pytest.mark.parametrize("syntax", [LITTLE, BIG, IMPLICIT])
def test_sequences_that_pydicom_cannot_read_do_not_matter(syntax: str) -> None:
    whole = image(STEPS, syntax=syntax, WindowCenter=50, WindowWidth=101, PixelPaddingValue=7)
    order, implicit = (">" if syntax == BIG else "<"), syntax == IMPLICIT
    begin = struct.pack(
        f"{order}HHI" if implicit else f"{order}HH2sHI", 0x0040, 0x0275, *([] if implicit else [b"SQ", 0]), 0xFFFFFFFF
    )
    item = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0) + struct.pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0)
    at = whole.index(struct.pack(f"{order}HH", 0x7FE0, 0x0010))
    deep = whole[:at] + (begin + item) * 400 + ends * 400 + whole[at:]
    assert greys(deep) == [1, 65, 129, 193, 255, 255]


def test_object_without_pixels_needs_no_reason() -> None:
    data = image(STEPS)
    without = data[: data.index(b"\xe0\x7f\x10\x00OW")]
    assert why_not(without) == ""


def test_header_says_what_the_picture_is() -> None:
    found = picture(image(SMOOTH))
    assert (found.rows, found.columns, found.colour) == (48, 64, True)
    found = picture(image(INDEXES, PhotometricInterpretation="PALETTE COLOR"))
    assert (found.rows, found.columns, found.colour) == (1, 4, True)
    found = picture(image(STEPS))
    assert (found.rows, found.columns, found.colour) == (1, 6, False)
    found = picture(b"")
    assert (found.rows, found.columns, found.colour) == (0, 0, False)


WHOLE = [
    image(STEPS, VOILUTSequence=Items([lut(10, 12, [0, 1000, 4095])])),
    image(INDEXES, **palette(8, 1, bytes(4), bytes(4), bytes(4), 3)),
    image(SMOOTH, syntax=BASELINE, codestreams=[jpeg("ybr", "jfif")]),
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(WHOLE), st.integers(0, 100_000), st.binary(min_size=0, max_size=6))
def test_nothing_but_cannot_show_is_raised(whole: bytes, at: int, instead: bytes) -> None:
    """Files cut off, and files with other bytes somewhere in the header or the pixels."""
    at %= len(whole)
    for data in (whole[:at], whole[:at] + instead + whole[at + len(instead) :]):
        found = picture(data)
        found.aspect(1)
        try:
            pixels = found.frame(1)
        except CannotShow:
            continue
        else:
            assert pixels.shape == ((found.rows, found.columns, 3) if found.colour else (found.rows, found.columns))
            assert pixels.dtype == np.uint8


def test_frames_are_read_alone() -> None:
    frames = np.arange(100 * 64 * 64, dtype=np.uint16).reshape(100, 64, 64)
    native = image(frames, frames=100)
    streams = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(f & 0xFFF), lossless=True, bitspersample=12) for f in frames
    ]
    coded = image(frames, frames=100, syntax=LOSSLESS, codestreams=streams, BitsStored=12)
    for data in (native, coded):
        header = io.BytesIO(data)
        part10 = locate(data)
        assert part10 is not None
        read: list[int] = []

        def counted(start: int, end: int, data: bytes = data, read: list[int] = read) -> bytes:
            read.append(end - start)
            return data[start:end]

        found = Picture(header, data, part10, find_frames(data, part10, read_of(data)), counted)
        assert header.tell() < 2000 < len(data)
        assert np.array_equal(found.frame(50), shown(data, 50))
        assert sum(read) <= 64 * 64 * 2


def test_pillow_is_not_asked_to_guess() -> None:
    """What Pillow makes of a baseline stream with JFIF is what is shown: the same library, the same colours."""
    stream = jpeg("ybr", "jfif")
    theirs = np.asarray(Image.open(io.BytesIO(stream)).convert("RGB")).astype(int)
    data = image(SMOOTH, syntax=BASELINE, codestreams=[stream], PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(shown(data).astype(int) - theirs).max() <= 2
