"""Frames are what pydicom finds, of 559 real files and of what those lack; and no file can do harm."""

from __future__ import annotations

import csv
import io
import random
import struct
import tracemalloc
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels.decoders import ExplicitVRBigEndianDecoder, ExplicitVRLittleEndianDecoder

from dicomfs.dicom import part10, walk
from dicomfs.dicom.describe import describe
from dicomfs.dicom.frames import MOST_FRAMES, Frames, find_frames
from dicomfs.dicom.split import LITERAL
from dicomfs.errors import NotFound
from tests.dicom import build
from tests.dicom.build import BIG, EXPLICIT, IMPLICIT, JPEG_UID, WRITERS, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RLE_UID = "1.2.840.10008.1.2.5"
UNCOMPRESSED_UID = "1.2.840.10008.1.2.1.98"
MPEG4_UID = "1.2.840.10008.1.2.4.102"
EXTENDED_OFFSETS, EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002


def skeleton(data: bytes) -> bytes:
    """Return a file as an archive has its header: with zeros where bulk lies."""
    spans = describe(data).spans
    return b"".join(data[one.start : one.end] if one.kind == LITERAL else bytes(one.end - one.start) for one in spans)


def frames_of(data: bytes) -> Frames:
    """Find frames in a whole file, and in its skeleton: they must be the same."""
    found = part10.locate(data)
    assert found is not None
    whole = find_frames(data, found, reader(data))
    header = skeleton(data)
    again = part10.locate(header)
    assert again is not None
    bare = find_frames(header, again, reader(data))
    assert told(bare) == told(whole)
    return bare


def reader(data: bytes) -> Callable[[int, int], bytes]:
    def read(start: int, end: int) -> bytes:
        assert 0 <= start <= end <= len(data)
        return data[start:end]

    return read


def told(frames: Frames) -> tuple[Any, ...]:
    numbers = range(1, min(frames.count, 2000) + 1)
    return (
        frames.count, frames.transfer_syntax, frames.media_type, frames.single_stream, frames.swap, frames.bit_packed,
        [frames.stretches(number) for number in numbers],
    )  # fmt: skip


def served(data: bytes) -> list[bytes]:
    """Return all frames of a file; what is told of them must be true."""
    frames = frames_of(data)
    found = []
    for number in range(1, frames.count + 1):
        frame = frames.frame(number, reader(data))
        assert len(frame) == frames.length(number)
        if frames.swap == 1 and not frames.bit_packed:
            assert frame == b"".join(data[start:end] for start, end in frames.ranges(number))
        found.append(frame)
    return found


def by_pydicom(data: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(io.BytesIO(data), force=True)


# The corpus ----------------------------------------------------------------------------------------

# (frames here, what pydicom says): where the two differ, and why.
DIFFERENT = {
    # no transfer syntax says what the fragment is
    "no-header_explicit(two-pass).dcm": (0, 1),
    # the value is shorter than the frame that the header describes
    "GH1146.dcm": (0, 1),
    "MR_truncated.dcm": (0, 1),
    # neither Rows nor Columns
    "meta_missing_tsyntax.dcm": (0, 1),
    # pydicom cannot read these, or gives up the pixels that have no delimiter
    "GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": (1, 0),
    "2026-05-06-Deeply-Nested-Sequence.dcm": (1, 0),
    "emri_small_jpeg_2k_lossless_too_short.dcm": (10, 0),
}


def files(corpus: Path) -> Iterator[tuple[str, bytes]]:
    with (corpus / "MANIFEST.tsv").open(newline="") as manifest:
        for row in csv.DictReader(manifest, delimiter="\t"):
            yield row["path"].rpartition("/")[2], (corpus / row["path"]).read_bytes()


def expected_frames(data: bytes) -> list[bytes]:
    """Return a file's frames as pydicom finds them; native ones are slices of the value."""
    try:
        data_set = by_pydicom(data)
    except (OSError, RecursionError):
        return []
    keyword = next((one for one in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if one in data_set), "")
    if not keyword or data_set[keyword].value is None:
        return [b""] if keyword else []
    pixels: bytes = data_set[keyword].value
    claimed = str(data_set.get("NumberOfFrames") or 1)
    count = int(claimed) if claimed.isdecimal() else 1  # one says '1A'
    if data_set[keyword].is_undefined_length:
        extended = (data_set.get("ExtendedOffsetTable"), data_set.get("ExtendedOffsetTableLengths"))
        offsets = extended if extended[0] else None
        return list(generate_frames(pixels, number_of_frames=count, extended_offsets=offsets))  # type: ignore[arg-type]
    if data_set.get("PhotometricInterpretation") == "YBR_FULL_422":
        length = data_set.Rows * data_set.Columns * 2 * data_set.BitsAllocated // 8
    else:
        length = len(pixels) // count
        if "Rows" in data_set:
            length = data_set.Rows * data_set.Columns * data_set.get("SamplesPerPixel", 1) * data_set.BitsAllocated // 8
    return [pixels[at : at + length] for at in range(0, count * length, length)]


@pytest.mark.corpus
@pytest.mark.filterwarnings("ignore")
def test_frames_are_what_pydicom_finds(corpus: Path) -> None:
    native = encapsulated = big = 0
    different = {}
    syntaxes = set()
    for name, data in files(corpus):
        found = part10.locate(data)
        if found is None or found.deflated:  # deflated ones: tests/archive/test_parts.py
            continue
        frames = frames_of(data)
        expected = expected_frames(data)
        if frames.single_stream:
            expected = [b"".join(expected)]
        if frames.count != len(expected):
            different[name] = (frames.count, len(expected))
            continue
        got = served(data)
        if frames.swap != 1:
            pixels = np.frombuffer(b"".join(got), f"<u{frames.swap}").reshape(-1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = by_pydicom(data).pixel_array
            np.testing.assert_array_equal(pixels, theirs.astype(f"<u{frames.swap}").reshape(-1))
            big += 1
            continue
        assert got == expected, name
        if frames.media_type == "application/octet-stream":
            native += len(got)
        else:
            encapsulated += len(got)
            syntaxes.add(frames.transfer_syntax)
    assert different == DIFFERENT
    assert native >= 400
    assert encapsulated >= 400
    assert len(syntaxes) >= 15
    assert big >= 1


@pytest.mark.corpus
@pytest.mark.filterwarnings("ignore")
def test_what_the_corpus_is_called(corpus: Path) -> None:
    kinds = set()
    for _, data in files(corpus):
        frames = frames_of(data)
        if frames.count:
            kinds.add((frames.transfer_syntax, frames.media_type))
            assert set(frames.transfer_syntax) <= set("0123456789.")
    named = {syntax: media for syntax, media in kinds if media != "application/octet-stream"}
    assert {media for _, media in kinds} >= {
        "application/octet-stream", "application/x-deflate", "image/jpeg", "image/jls", "image/jp2", "image/jphc",
        "image/jxl", "image/dicom-rle",
    }  # fmt: skip
    assert {one for one, _ in kinds} - set(named) == {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}


# Native --------------------------------------------------------------------------------------------


def native(writer: Writer, pixels: bytes, rows: int, columns: int, *, vr: str = "OW", tag: int = 0x7FE00010,
           after: bytes = b"", transfer_syntax: str | None = None, **image: Any) -> bytes:  # fmt: skip
    data_set = writer.identity() + writer.image(rows, columns, **image) + writer.element(tag, vr, pixels) + after
    return build.part10(data_set, transfer_syntax or writer.transfer_syntax)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
@pytest.mark.parametrize(("frames", "claimed"), [(1, None), (1, 1), (5, 5), (5, 3)])
def test_native_frames(writer: Writer, frames: int, claimed: int | None) -> None:
    samples = [random.Random(n).randbytes(40 * 50 * 2) for n in range(frames)]
    order = ">" if writer.big else "<"
    pixels = b"".join(np.frombuffer(one, "<u2").astype(f"{order}u2").tobytes() for one in samples)
    data = native(writer, pixels, 40, 50, frames=claimed)
    found = frames_of(data)
    assert served(data) == samples[: claimed or 1]
    assert found.transfer_syntax == (IMPLICIT if writer.implicit else EXPLICIT).transfer_syntax
    assert found.media_type == "application/octet-stream"
    assert not found.single_stream
    assert found.swap == (2 if writer.big else 1)


BIG_ENDIAN: dict[str, tuple[str, int, str, int, int]] = {
    "8 bits, OW": ("OW", 8, "u1", 1, 0x7FE00010),
    "8 bits, OB": ("OB", 8, "u1", 1, 0x7FE00010),
    "8 bits, RGB, OW": ("OW", 8, "u1", 3, 0x7FE00010),
    "16 bits": ("OW", 16, "u2", 1, 0x7FE00010),
    "16 bits, RGB": ("OW", 16, "u2", 3, 0x7FE00010),
    "32 bits": ("OW", 32, "u4", 1, 0x7FE00010),
    "float": ("OF", 32, "f4", 1, 0x7FE00008),
    "double": ("OD", 64, "f8", 1, 0x7FE00009),
}


@pytest.mark.parametrize("kind", BIG_ENDIAN.values(), ids=BIG_ENDIAN)
@pytest.mark.parametrize("shape", [(3, 5), (7, 7), (40, 60)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_big_endian_pixels_are_served_in_little_endian(
    kind: tuple[str, int, str, int, int], shape: tuple[int, int], count: int
) -> None:
    vr, bits, dtype, samples, tag = kind
    rows, columns = shape
    pixels = np.random.default_rng(1).integers(0, 250, (count, rows, columns, samples)).astype(f"<{dtype}")
    stored = pixels.astype(f">{dtype}").tobytes()
    stored += b"\0" * (len(stored) & 1)
    if (vr, bits) == ("OW", 8):
        stored = np.frombuffer(stored, "u2").byteswap().tobytes()
    interpretation = "RGB" if samples == 3 else "MONOCHROME2"
    data = native(BIG, stored, rows, columns, vr=vr, tag=tag, bits=bits, samples=samples, frames=count,
                  interpretation=interpretation)  # fmt: skip
    frames = frames_of(data)
    assert frames.transfer_syntax == EXPLICIT.transfer_syntax
    assert served(data) == [one.tobytes() for one in pixels]
    if tag == 0x7FE00010:
        theirs, _ = ExplicitVRBigEndianDecoder.as_array(
            stored, rows=rows, columns=columns, samples_per_pixel=samples, bits_allocated=bits, bits_stored=bits,
            pixel_representation=0, photometric_interpretation=interpretation, number_of_frames=count, pixel_vr=vr,
            pixel_keyword="PixelData", planar_configuration=0, raw=True,
        )  # fmt: skip
        ours = np.frombuffer(b"".join(served(data)), f"<{dtype}")
        np.testing.assert_array_equal(ours, theirs.reshape(-1))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (5, 7), (8, 8), (64, 33), (100, 101)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_bits_are_moved_to_where_bytes_begin(shape: tuple[int, int], count: int) -> None:
    rows, columns = shape
    bits = np.random.default_rng(2).integers(0, 2, (count, rows * columns), dtype="u1")
    stored = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    stored += b"\0" * (len(stored) & 1)
    data = native(EXPLICIT, stored, rows, columns, vr="OB", bits=1, frames=count)
    assert frames_of(data).bit_packed == (count > 1 and rows * columns % 8 > 0)
    got = served(data)
    assert len(got) == count
    # One by one, pydicom 3.0 cannot read frames of which the last byte is the next one's first.
    theirs, _ = ExplicitVRLittleEndianDecoder.as_array(
        stored, rows=rows, columns=columns, samples_per_pixel=1, bits_allocated=1, bits_stored=1,
        pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=count, pixel_vr="OB",
        pixel_keyword="PixelData",
    )  # fmt: skip
    for frame, expected in zip(got, theirs.reshape(count, -1), strict=True):
        ours = np.unpackbits(np.frombuffer(frame, "u1"), bitorder="little")
        np.testing.assert_array_equal(ours[: rows * columns], expected)
        if count > 1:
            assert not ours[rows * columns :].any()


def test_subsampled_frames_have_two_samples_a_pixel() -> None:
    samples = [random.Random(n).randbytes(20 * 30 * 2) for n in range(3)]
    image = {"bits": 8, "samples": 3, "frames": 3, "interpretation": "YBR_FULL_422"}
    assert served(native(EXPLICIT, b"".join(samples), 20, 30, vr="OB", **image)) == samples
    full = [random.Random(n).randbytes(20 * 30 * 3) for n in range(3)]
    assert served(native(EXPLICIT, b"".join(full), 20, 30, vr="OB", **image)) == full


@pytest.mark.parametrize(
    ("pixels", "image", "count"),
    [
        (b"", {}, 0),
        (bytes(3199), {}, 0),
        (bytes(3200), {}, 1),
        (bytes(9700), {"frames": 5}, 3),
        (bytes(9600), {"frames": 0}, 1),
        (bytes(9600), {"frames": 10**17}, 3),
        (bytes(9600), {"bits": 0}, 0),
        (bytes(9600), {"samples": 0}, 1),
        (bytes(9600), {"samples": 65535, "bits": 65535}, 0),
    ],
)
def test_no_more_frames_than_the_value_has(pixels: bytes, image: dict[str, Any], count: int) -> None:
    data = native(EXPLICIT, pixels, 40, 40, **image)
    assert len(served(data)) == count


def test_more_frames_than_there_can_be() -> None:
    data = native(EXPLICIT, bytes(1 << 20), 1, 1, bits=1, vr="OB", frames=1 << 23)
    found = part10.locate(data)
    assert found is not None
    tracemalloc.start()
    frames = find_frames(data, found, reader(data))
    assert frames.count == MOST_FRAMES
    assert frames.length(MOST_FRAMES) == 1
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_no_such_frame() -> None:
    frames = frames_of(native(EXPLICIT, bytes(3200), 40, 40))
    for number in (-1, 0, 2, 1 << 70):
        with pytest.raises(NotFound):
            frames.ranges(number)


@pytest.mark.parametrize(
    ("declared", "label"),
    [
        (JPEG_UID, EXPLICIT.transfer_syntax),
        (RLE_UID, EXPLICIT.transfer_syntax),
        ("1.2.3\r\nX: y", EXPLICIT.transfer_syntax),
        ("1.2.840.113619.5.2", "1.2.840.113619.5.2"),
    ],
)
def test_native_pixels_are_not_called_compressed(declared: str, label: str) -> None:
    assert frames_of(native(EXPLICIT, bytes(3200), 40, 40, transfer_syntax=declared)).transfer_syntax == label


def test_numbers_may_be_text() -> None:
    data_set = (
        EXPLICIT.identity()
        + EXPLICIT.element(0x00280002, "IS", "1 ")
        + EXPLICIT.element(0x00280008, "IS", " +02 ")
        + EXPLICIT.element(0x00280010, "UL", 40)
        + EXPLICIT.element(0x00280011, "US", 40)
        + EXPLICIT.element(0x00280100, "US", 16)
        + EXPLICIT.element(0x7FE00010, "OW", bytes(6400))
    )
    assert len(served(build.part10(data_set))) == 2


# Encapsulated --------------------------------------------------------------------------------------


def jpeg(number: int, length: int = 700) -> bytes:
    """Return what begins and ends as a JPEG stream does."""
    return (
        b"\xff\xd8\xff\xe0" + bytes(byte & 0x7F for byte in random.Random(number).randbytes(length - 6)) + b"\xff\xd9"
    )


def pieces(stream: bytes, length: int = 300) -> list[bytes]:
    """Return a stream in fragments."""
    return [stream[at : at + length] for at in range(0, len(stream), length)]


def encapsulated(value: bytes, frames: int | None, transfer_syntax: str = JPEG_UID, before: bytes = b"",
                 **image: Any) -> bytes:  # fmt: skip
    """Return a file whose pixel data are these items."""
    data_set = EXPLICIT.identity() + EXPLICIT.image(40, 50, bits=8, frames=frames, **image) + before + value
    return build.part10(data_set, transfer_syntax)


def u32(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


ONE, TWO, THREE = jpeg(1), jpeg(2, 650), jpeg(3, 1000)
ALL = [ONE, TWO, THREE]
CUT = [*pieces(ONE), *pieces(TWO), *pieces(THREE)]  # 3, 3 and 4 fragments
OFFSETS = (0, 700 + 24, 1350 + 48)
CUT_CASES: dict[str, tuple[list[bytes], bytes, int | None, list[bytes]]] = {
    "one fragment": ([ONE], b"", 1, [ONE]),
    "one fragment, no number": ([ONE], b"", None, [ONE]),
    "one fragment, three claimed": ([ONE], b"", 3, [ONE]),
    "no fragment": ([], b"", 1, []),
    "a fragment each": (ALL, b"", 3, ALL),
    "a fragment each, table": (ALL, u32(0, 708, 1366), 3, ALL),
    "a fragment each, wrong table": (ALL, u32(0, 7, 9), 3, ALL),
    "a fragment each, table of one": (ALL, u32(0), 3, ALL),
    "one frame of fragments": (pieces(ONE), b"", 1, [ONE]),
    "one frame of fragments, no number": (pieces(ONE), b"", None, [ONE]),
    "one frame of fragments, table": (pieces(ONE), u32(0), 1, [ONE]),
    "several each, table": (CUT, u32(*OFFSETS), 3, ALL),
    "several each, no table": (CUT, b"", 3, ALL),
    "several each, table past the end": (CUT, u32(0, 724, 1 << 31), 3, ALL),
    "several each, table in disorder": (CUT, u32(0, 1398, 724), 3, ALL),
    "several each, table of zeros": (CUT, u32(0, 0, 0), 3, ALL),
    "several each, table within a fragment": (CUT, u32(0, 725, 1398), 3, ALL),
    "several each, table too long": (CUT, u32(*OFFSETS, *range(1400, 1500)), 3, ALL),
    "several each, table of odd length": (CUT, u32(*OFFSETS) + b"\0\0", 3, ALL),
    "several each, no number, table": (CUT, u32(*OFFSETS), None, ALL),
    "several each, number lies, table": (CUT, u32(*OFFSETS), 7, ALL),
    "fewer than claimed": ([ONE, TWO], b"", 5, [ONE, TWO]),
    "no ends": ([bytes([n]) * 300 for n in (1, 2, 3)], b"", 2, [b"".join(bytes([n]) * 300 for n in (1, 2, 3))]),
}


@pytest.mark.parametrize("case", CUT_CASES.values(), ids=CUT_CASES)
def test_fragments_make_frames(case: tuple[list[bytes], bytes, int | None, list[bytes]]) -> None:
    fragments, table, claimed, expected = case
    data = encapsulated(EXPLICIT.encapsulated(fragments, table), claimed)
    frames = frames_of(data)
    assert served(data) == expected
    assert (frames.transfer_syntax, frames.media_type) == (JPEG_UID, "image/jpeg")


@pytest.mark.parametrize("fragments", [1, 2, 3])
@pytest.mark.parametrize("table", [True, False])
def test_what_pydicom_encapsulates(fragments: int, table: bool) -> None:
    value = encapsulate(ALL, fragments_per_frame=fragments, has_bot=table)
    data = encapsulated(EXPLICIT.header(0x7FE00010, "OB", build.UNDEFINED) + value + EXPLICIT.end(), 3)
    assert served(data) == list(generate_frames(value, number_of_frames=3)) == ALL


def test_a_writer_without_an_offset_table() -> None:
    value = EXPLICIT.header(0x7FE00010, "OB", build.UNDEFINED) + b"".join(map(EXPLICIT.item, ALL)) + EXPLICIT.end()
    assert served(encapsulated(value, 3)) == ALL


def test_a_writer_that_does_not_count_the_padding() -> None:
    odd = [ONE + b"\xff", TWO, THREE + b"\xff"]
    items = EXPLICIT.item() + b"".join(EXPLICIT.item(one) + b"\0" * (len(one) & 1) for one in odd)
    data = encapsulated(EXPLICIT.header(0x7FE00010, "OB", build.UNDEFINED) + items + EXPLICIT.end(), 3)
    assert served(data) == odd


def test_no_delimiter() -> None:
    assert served(encapsulated(EXPLICIT.encapsulated(ALL, closed=False), 3)) == ALL


def test_a_fragment_that_is_cut_off_is_none() -> None:
    data = encapsulated(EXPLICIT.encapsulated(ALL, closed=False), 3)
    assert served(data[:-1]) == ALL[:2]


EXTENDED: dict[str, tuple[bytes, bytes, list[bytes], list[bytes]]] = {
    "right": (u64(0, 709, 1368), u64(701, 651, 1001), ALL, ALL),
    "no lengths": (u64(0, 710, 1370), b"", ALL, ALL),
    "wrong offsets": (u64(0, 5, 1 << 63), u64(1, 2, 3), ALL, ALL),
    "wrong lengths": (u64(0, 710, 1370), u64(1 << 63, 0, 1 << 40), ALL, ALL),
    "too few": (u64(0), u64(700), ALL, ALL),
    "several fragments each": (u64(*OFFSETS), u64(700, 650, 1000), CUT, ALL),
    "odd": (b"\0\0\0", b"\1", ALL, ALL),
}


@pytest.mark.parametrize("case", EXTENDED.values(), ids=EXTENDED)
def test_extended_offset_tables(case: tuple[bytes, bytes, list[bytes], list[bytes]]) -> None:
    table, lengths, fragments, expected = case
    before = EXPLICIT.element(EXTENDED_OFFSETS, "OV", table)
    before += EXPLICIT.element(EXTENDED_LENGTHS, "OV", lengths) if lengths else b""
    assert served(encapsulated(EXPLICIT.encapsulated(fragments), 3, before=before)) == expected


def test_the_extended_offset_table_leaves_out_the_padding() -> None:
    odd = [jpeg(n, 701 + 2 * n) for n in range(5)]
    value, offsets, _ = encapsulate_extended(odd)
    lengths = u64(*map(len, odd))
    before = EXPLICIT.element(EXTENDED_OFFSETS, "OV", offsets) + EXPLICIT.element(EXTENDED_LENGTHS, "OV", lengths)
    data = encapsulated(EXPLICIT.header(0x7FE00010, "OB", build.UNDEFINED) + value + EXPLICIT.end(), 5, before=before)
    assert served(data) == list(generate_frames(value, extended_offsets=(offsets, lengths))) == odd


def test_rle_has_one_fragment_a_frame() -> None:
    frames = [u32(1, 64, *[0] * 14) + random.Random(n).randbytes(500) + b"\xff\xd9" for n in range(6)]
    assert served(encapsulated(EXPLICIT.encapsulated(frames), 6, RLE_UID)) == frames
    # More fragments than frames: each is one by PS3.5 A.4.2, whatever its last bytes are.
    assert served(encapsulated(EXPLICIT.encapsulated(frames), 4, RLE_UID)) == frames[:4]


@pytest.mark.parametrize(
    ("transfer_syntax", "media_type"),
    [
        *((f"1.2.840.10008.1.2.4.{one}", "video/mpeg") for one in ("100", "100.1", "101", "101.1")),
        *((f"1.2.840.10008.1.2.4.{one}", "video/mp4") for one in ("102", "103.1", "106", "106.1", "107", "108")),
    ],
)
@pytest.mark.parametrize("table", [b"", u32(*OFFSETS)], ids=["no table", "table"])
def test_a_video_is_one_stream(transfer_syntax: str, media_type: str, table: bytes) -> None:
    data = encapsulated(EXPLICIT.encapsulated(CUT, table), 300, transfer_syntax)
    frames = frames_of(data)
    assert (frames.count, frames.single_stream, frames.media_type) == (1, True, media_type)
    assert served(data) == [b"".join(CUT)]
    assert frames_of(encapsulated(EXPLICIT.encapsulated([]), 300, transfer_syntax)).count == 0


@pytest.mark.parametrize("transfer_syntax", [UNCOMPRESSED_UID, EXPLICIT.transfer_syntax])
def test_encapsulated_native_frames(transfer_syntax: str) -> None:
    frames = [random.Random(n).randbytes(40 * 50) for n in range(3)]
    data = encapsulated(EXPLICIT.encapsulated(frames), 3, transfer_syntax)
    assert served(data) == frames
    assert frames_of(data).transfer_syntax == EXPLICIT.transfer_syntax
    assert frames_of(data).media_type == "application/octet-stream"


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT.transfer_syntax, UNCOMPRESSED_UID, "1.2.3\r\nX: y"])
def test_fragments_of_nobody_knows_what_are_no_frames(transfer_syntax: str) -> None:
    assert frames_of(encapsulated(EXPLICIT.encapsulated(ALL), 3, transfer_syntax)).count == 0


def test_fragments_of_a_private_syntax_are_octets() -> None:
    frames = frames_of(encapsulated(EXPLICIT.encapsulated(ALL), 3, "1.2.3.4"))
    assert (frames.count, frames.transfer_syntax, frames.media_type) == (3, "1.2.3.4", "application/octet-stream")


def test_no_pixels() -> None:
    assert told(frames_of(build.part10(EXPLICIT.identity())))[:3] == (
        0, EXPLICIT.transfer_syntax, "application/octet-stream"
    )  # fmt: skip


@pytest.mark.parametrize("length", [300, 700, 70_000])
def test_very_many_fragments_are_found_within_one_blob(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MOST_FRAGMENTS", 10)
    frames = [jpeg(n, length) for n in range(30)]
    data = encapsulated(EXPLICIT.encapsulated(frames, u32(*range(0, 30 * (length + 8), length + 8))), 30)
    assert max(span.end - span.start for span in describe(data).spans) > 10 * length
    assert served(data) == frames


def test_a_frame_of_many_fragments_is_measured_without_walking_them(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of(encapsulated(EXPLICIT.encapsulated([b"ab"] * 5000), 1))
    monkeypatch.setattr(type(frames), "_stretches", lambda *_: pytest.fail("walked"))
    assert (frames.count, frames.pieces(1), frames.length(1)) == (1, 5000, 10_000)
    assert (frames.pieces(0), frames.pieces(2)) == (0, 0)
    for number in (0, 2):
        with pytest.raises(NotFound):
            frames.length(number)


def test_a_long_fragment_that_begins_with_zeros_is_told_from_a_table() -> None:
    table = u32(*range(0, 100 * 708, 708))
    assert served(encapsulated(EXPLICIT.encapsulated([jpeg(n) for n in range(100)], table), 100)) == [
        jpeg(n) for n in range(100)
    ]


# Hostile -------------------------------------------------------------------------------------------

SAMPLES = [
    encapsulated(EXPLICIT.encapsulated(CUT, u32(*OFFSETS)), 3),
    encapsulated(EXPLICIT.encapsulated(CUT), 3),
    encapsulated(
        EXPLICIT.encapsulated(ALL), 3,
        before=EXPLICIT.element(EXTENDED_OFFSETS, "OV", u64(0, 708, 1366))
        + EXPLICIT.element(EXTENDED_LENGTHS, "OV", u64(700, 650, 1000)),
    ),
    native(BIG, bytes(range(250)) * 60, 25, 25, bits=8, frames=24),
    native(EXPLICIT, bytes(range(250)) * 8, 25, 25, bits=1, frames=24),
    native(IMPLICIT, bytes(range(250)) * 60, 50, 50, frames=3),
    encapsulated(EXPLICIT.encapsulated([bytes(2000)] * 3), 3, UNCOMPRESSED_UID),
]  # fmt: skip


@st.composite
def hurt(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data) - 1) | st.integers(max(0, len(data) - 4000), len(data) - 1))
        data[at : at + 1] = draw(st.sampled_from([b"\0", b"\xff", b"\xfe\xff", b"\0\xe0", b"", b"\x7f"]))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=hurt())
def test_nothing_hurts(data: bytes) -> None:
    """Whatever a file says: each frame that is told of is there, and lies within the data."""
    found = part10.locate(data)
    if found is None or found.deflated:
        return
    frames = find_frames(data, found, reader(data))
    assert 0 <= frames.count <= MOST_FRAMES
    for number in {1, 2, 3, frames.count // 2, frames.count} & set(range(1, frames.count + 1)):
        assert all(0 <= start <= end <= len(data) for start, end in frames.ranges(number))
        assert len(frames.frame(number, reader(data))) == frames.length(number)


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_noise_in_the_pixel_data(data: bytes) -> None:
    hidden = encapsulated(EXPLICIT.header(0x7FE00010, "OB", build.UNDEFINED) + data, 3)
    assert len(served(hidden)) <= 3 + len(data) // 8


def test_deflated_data_sets_are_inflated_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    head = build.part10(b"", build.DEFLATED_UID)
    data_set = random.Random(1).randbytes(100_000) + bytes(9_000_000)
    file = head + build.deflated(data_set)
    assert part10.inflated(file, len(head)) == head + data_set
    assert part10.inflated(file[:-1000], len(head))[: len(head)] == head
    assert part10.inflated(head + zlib.compress(data_set), len(head)) == head + data_set
    assert part10.inflated(head + b"\xff" * 100, len(head)) == head
    monkeypatch.setattr(part10, "INFLATED_AT_MOST", 1_000_000)
    assert part10.inflated(file, len(head)) == head + data_set[:1_000_000]
