"""Picture files: exactly as long as promised, valid by their grammars, and with the pixels that were given."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dicomfs.dicom import picture_file
from dicomfs.dicom.picture_file import LARGEST, THUMBNAIL_BYTES, png, rendered_bytes, rendered_size, thumbnail
from dicomfs.dicom.picture_label import GREY, labelled, title


def random_pixels(rows: int, columns: int, *, colour: bool) -> np.ndarray:
    shape = (rows, columns, 3) if colour else (rows, columns)
    return np.random.default_rng(rows * 7 + columns).integers(0, 256, shape, dtype=np.uint8)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_png_is_as_long_as_promised(rows: int, columns: int, colour: bool) -> None:
    pixels = random_pixels(rows, columns, colour=colour)
    data = png(pixels)
    assert len(data) == rendered_bytes(rows, columns, colour)
    found = opened(data)
    assert found.mode == ("RGB" if colour else "L")
    assert np.array_equal(np.asarray(found), pixels)


@pytest.mark.parametrize(("rows", "columns"), [(1, 65534), (1, 65535), (2, 65534), (257, 254), (1, 1)])
def test_png_at_the_ends_of_blocks(rows: int, columns: int) -> None:
    pixels = random_pixels(rows, columns, colour=False)
    data = png(pixels)
    assert len(data) == rendered_bytes(rows, columns, False)
    assert np.array_equal(np.asarray(opened(data)), pixels)


def test_png_is_one_valid_stream_to_the_last_byte() -> None:
    data = png(random_pixels(300, 300, colour=True))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, at, stream = [], 8, b""
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        kinds.append(kind)
        stream += body if kind == b"IDAT" else b""
        at += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    inflate = zlib.decompressobj()
    assert len(inflate.decompress(stream)) == 300 * 901
    assert inflate.eof
    assert inflate.unused_data == b""


def test_frames_without_a_size_or_too_large_have_that_of_a_label() -> None:
    label = rendered_bytes(256, 256, False)
    assert rendered_bytes(0, 0, False) == rendered_bytes(0, 5, True) == label
    assert rendered_bytes(65535, 65535, True) == label
    assert rendered_size(65535, 65535) == (256, 256)
    assert rendered_size(1 << 13, 1 << 13) == (1 << 13, 1 << 13)
    assert rendered_bytes(1 << 13, 1 << 13, False) > LARGEST
    assert len(png(labelled(256, 256, "CT", "the frame is too large"))) == label


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [
        (512, 512, (256, 256)),
        (1000, 500, (128, 256)),
        (100, 60, (60, 100)),
        (256, 256, (256, 256)),
        (1, 5000, (256, 1)),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_thumbnails_of_noise(rows: int, columns: int, size: tuple[int, int], colour: bool) -> None:
    data = thumbnail(random_pixels(rows, columns, colour=colour))
    assert len(data) == THUMBNAIL_BYTES
    found = opened(data)
    assert found.size == size
    assert found.mode == ("RGB" if colour else "L")
    assert abs(float(np.asarray(found).mean()) - 127.5) < 5


def test_thumbnail_shows_what_the_picture_does() -> None:
    pixels = np.zeros((1024, 512), np.uint8)
    pixels[:512, 256:] = 255
    pixels[512:, :256] = 100
    found = np.asarray(opened(thumbnail(pixels))).astype(int)
    assert found.shape == (256, 128)
    quarters = [found[:120, :56], found[:120, 72:], found[136:, :56], found[136:, 72:]]
    for part, value in zip(quarters, (0, 255, 100, 0), strict=True):
        assert np.abs(part - value).max() <= 3


def test_thumbnail_of_colours() -> None:
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[:200] = (200, 30, 60)
    pixels[200:] = (20, 60, 220)
    found = np.asarray(opened(thumbnail(pixels))).astype(int)
    assert np.abs(found[:110] - (200, 30, 60)).max() <= 8
    assert np.abs(found[146:] - (20, 60, 220)).max() <= 8


def test_pixels_that_are_not_square() -> None:
    assert opened(thumbnail(np.zeros((100, 100), np.uint8), 2.0)).size == (50, 100)
    assert opened(thumbnail(np.zeros((100, 100), np.uint8), 0.5)).size == (100, 50)
    assert opened(thumbnail(np.zeros((1000, 1000), np.uint8), 2.0)).size == (128, 256)


def test_comments_are_where_the_grammar_has_them() -> None:
    data = thumbnail(random_pixels(90, 40, colour=True))
    markers, at = [], 2
    while data[at + 1] != 0xDA:
        assert data[at] == 0xFF
        markers.append(data[at + 1])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    assert markers[:2] == [0xE0, 0xFE]
    assert 0xC0 in markers
    # in the scan only stuffed bytes, and at its end the end of the image
    scan = data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert scan.endswith(b"\xff\xd9")
    assert scan[:-2].count(b"\xff") == scan[:-2].count(b"\xff\0")


@pytest.mark.parametrize("missing", [0, 1, 2, 3, 4, 5, 100])
def test_any_length_can_be_filled_up(missing: int) -> None:
    made = io.BytesIO()
    Image.fromarray(random_pixels(60, 60, colour=False)).save(made, "JPEG", quality=90)
    jpeg = made.getvalue()
    room = THUMBNAIL_BYTES - missing - len(jpeg)
    long = jpeg[:20] + b"\xff\xfe" + (room - 2).to_bytes(2, "big") + bytes(room - 4) + jpeg[20:]
    filled = picture_file._filled_up(long)
    assert len(filled) == THUMBNAIL_BYTES
    assert np.array_equal(np.asarray(opened(filled)), np.asarray(opened(jpeg)))


def test_labels() -> None:
    found = labelled(256, 256, "SR\nComprehensive SR", "")
    assert found.shape == (256, 256)
    assert (found[0, 0], found[-1, -1]) == (GREY, GREY)
    assert int(found.max()) > 200
    assert 0.005 < float((found > 150).mean()) < 0.2
    other = labelled(256, 256, "SR\nComprehensive SR", "its pixels cannot be decoded")
    assert not np.array_equal(found, other)
    assert labelled(3, 5, "CT", "it takes too long", colour=True).shape == (3, 5, 3)
    large = labelled(1100, 2000, "CT", "it takes too long")
    assert large.shape == (1100, 2000)
    assert np.flatnonzero((large > 150).any(axis=1)).size > 60  # words grow with the picture


def test_titles_are_codes_and_names_of_the_standard() -> None:
    assert title("CT", "1.2.840.10008.5.1.4.1.1.2") == "CT\nCT Image"
    assert title("ECG", "1.2.3") == "ECG"
    assert title("Doe^Jane", "Doe") == "DICOM object"
    assert title("", "1.2.840.10008.1.2") == "DICOM object"
