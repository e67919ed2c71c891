"""Files composed of instances: exact at every offset, of the size that was told, ready where their bytes are."""

from __future__ import annotations

import gzip
import io
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGBaseline8Bit

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.parts import Parts
from dicomfs.dicom.model import BulkValue
from dicomfs.dicom.part10 import DEFLATED
from dicomfs.dicom.stretch import Stretch
from dicomfs.errors import NotFound
from dicomfs.vfs.composed import (
    MANY,
    Composed,
    bulk_file,
    frame_file,
    frame_size,
    gzipped_file,
    gzipped_size,
    part10_file,
    part10_size,
    pixeldata_file,
    pixeldata_size,
)
from dicomfs.vfs.plain import TextFile
from tests.archive.importing import add, packs, run
from tests.builders import make_instance
from tests.dicom import build
from tests.dicom.build import BIG, EXPLICIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicomfs.vfs.node import OpenFile

BOUNDARY = "dicomfs-0123456789abcdef"


def inodes(archive: Archive) -> list[int]:
    with archive.view() as view:
        return [ino for ino in view.inodes(1023) if (node := view.node(ino)) is not None and not node.is_directory]


def assert_is(file: OpenFile, expected: bytes, reads: list[tuple[int, int]]) -> None:
    """Read a file as a kernel may: whole, in slices, what is ready and what is not."""
    assert file.size == len(expected)
    for offset, size in reads:
        wanted = expected[offset : offset + size]
        ready = file.read_ready(offset, size)
        assert ready is None or bytes(ready) == wanted
        assert bytes(file.read(offset, size)) == wanted
    assert bytes(file.read(0, len(expected) + 1)) == expected
    for offset in range(0, len(expected), 1 << 17):
        data = file.read_ready(offset, 1 << 17)
        if data is None and (coming := file.coming(offset, 1 << 17)) is not None:
            coming.result()
            data = file.read_ready(offset, 1 << 17)
        if data is None:
            data = file.read(offset, 1 << 17)
        assert bytes(data) == expected[offset : offset + (1 << 17)]


def multipart(kind: str, content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def some_reads(chance: random.Random, size: int) -> list[tuple[int, int]]:
    starts = [0, 1, 60, 200, size // 2, size - 70, size - 3, size, size + 10]
    return [(max(0, start), chance.choice([1, 5, 100, 4096, 1 << 17])) for start in starts]


# Everything, in the corpus --------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.slow
def test_every_file_of_the_corpus(corpus: Path, archive_path: Path) -> None:
    """Every frame of every instance, the whole instance and the aliases in gzip, through an archive."""
    run(archive_path, corpus, jobs=2)
    for pack in packs(archive_path):
        pack.read_bytes()
    chance = random.Random(4)
    total = ready = deflated = 0
    with Archive.open(archive_path) as archive:
        for ino in inodes(archive):
            parts = Parts.open(archive, ino)
            ready += Parts.open_ready(archive, ino) is not None
            frames = parts.frames
            content = bytes(parts.file.read(0, parts.file.size))
            whole = part10_file(parts, BOUNDARY)
            kind = f"application/dicom; transfer-syntax={parts.part10.transfer_syntax}"
            assert part10_size(parts, BOUNDARY) == whole.size
            assert bytes(whole.read(0, whole.size)) == multipart(kind, content)
            data = bytes(parts.read(0, len(parts.data)))
            kind = f"{frames.media_type}; transfer-syntax={frames.transfer_syntax}"
            for number in range(1, frames.count + 1):
                frame = frames.frame(number, lambda start, end, data=data: data[start:end])
                expected = multipart(kind, frame)
                file = frame_file(parts, number, BOUNDARY)
                assert frame_size(parts, number, BOUNDARY) == len(expected)
                assert_is(file, expected, some_reads(chance, file.size) if number < 20 else [])
                if number < 3:
                    zipped = gzipped_file(frame_file(parts, number, BOUNDARY))
                    assert zipped.size == gzipped_size(file.size)
                    member = bytes(zipped.read(0, zipped.size))
                    assert gzip.decompress(member) == expected
                    assert_is(zipped, member, some_reads(chance, zipped.size))
                file.close()
                total += 1
            if frames.count and parts.part10.transfer_syntax in DEFLATED:
                joined = b"".join(frames.frame(number, parts.read) for number in range(1, frames.count + 1))
                assert joined == dcmread(io.BytesIO(content)).PixelData
                deflated += 1
            if frames.count:
                for number in (0, frames.count + 1):
                    with pytest.raises(NotFound):
                        frame_file(parts, number, BOUNDARY)
    assert total >= 800
    assert ready >= 400
    assert deflated >= 1


# One by one ----------------------------------------------------------------------------------------


def big_bytes(count: int, length: int) -> bytes:
    """Return big endian 8-bit frames of odd length in words (OW)."""
    pixels = random.Random(5).randbytes(count * length)
    pixels += b"\0" * (len(pixels) & 1)
    return b"".join(pixels[at : at + 2][::-1] for at in range(0, len(pixels), 2))


BOUND = [b"\xff\xd8" + random.Random(n).randbytes(3994).replace(b"\xff", b"\0") + b"\xff\xd9" for n in range(4)]
CUT = [one[at : at + 1500] for one in BOUND for at in range(0, len(one), 1500)]
INSTANCES = {
    "CT": make_instance(rows=512, columns=512),
    "frames": make_instance(frames=12, rows=300, columns=200, number=2),
    "big endian": make_instance(number=3, frames=3, rows=255, columns=255, transfer_syntax=ExplicitVRBigEndian),
    "deflated": make_instance(
        number=4, frames=2, rows=200, columns=200, transfer_syntax=DeflatedExplicitVRLittleEndian
    ),
    "one fragment each": make_instance(number=5, frames=4, transfer_syntax=JPEGBaseline8Bit),
    "fragments": build.part10(
        EXPLICIT.identity(sop="2.25.6") + EXPLICIT.image(9, 9, bits=8, frames=4) + EXPLICIT.encapsulated(CUT),
        build.JPEG_UID,
    ),
    "bits": build.part10(
        EXPLICIT.identity(sop="2.25.7")
        + EXPLICIT.image(101, 103, bits=1, frames=5)
        + EXPLICIT.element(0x7FE00010, "OB", random.Random(1).randbytes(-(-101 * 103 * 5 // 16) * 2))
    ),
    "words of bytes": build.part10(
        BIG.identity(sop="2.25.8")
        + BIG.image(51, 53, bits=8, frames=5)
        + BIG.element(0x7FE00010, "OW", big_bytes(5, 51 * 53)),
        build.BIG_UID,
    ),
    "video": build.part10(
        EXPLICIT.identity(sop="2.25.9")
        + EXPLICIT.image(9, 9, bits=8, frames=90)
        + EXPLICIT.encapsulated([random.Random(1).randbytes(200_000), random.Random(2).randbytes(200_001)]),
        "1.2.840.10008.1.2.4.102",
    ),
}


@pytest.fixture(scope="module", params=["fast", "none"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    path = tmp_path_factory.mktemp("composed") / "archive"
    Archive.init(path, codec=request.param)
    add(path, *INSTANCES.values())
    for pack in packs(path):
        pack.read_bytes()
    with Archive.open(path) as opened:
        yield opened
    assert check(path, verify_files=True).problems == []


each = pytest.mark.parametrize("name", INSTANCES)


def by_name(archive: Archive, name: str) -> Parts:
    """Return an instance, opened anew."""
    for ino in inodes(archive):
        parts = Parts.open(archive, ino)
        if parts.file.size == len(INSTANCES[name]) and bytes(parts.file.read(0, parts.file.size)) == INSTANCES[name]:
            return parts
    raise AssertionError(name)


ranges = st.tuples(st.integers(0, 600_000) | st.integers(0, 3000), st.integers(0, 600_000) | st.integers(0, 300))


@each
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_slice_of_a_frame(archive: Archive, name: str, data: st.DataObject) -> None:
    parts = by_name(archive, name)
    number = data.draw(st.integers(1, parts.frames.count))
    kind = f"{parts.frames.media_type}; transfer-syntax={parts.frames.transfer_syntax}"
    expected = multipart(kind, parts.frames.frame(number, parts.read))
    assert frame_size(parts, number, BOUNDARY) == len(expected)
    reads = data.draw(st.lists(ranges, max_size=5))
    file = frame_file(parts, number, BOUNDARY)
    assert_is(file, expected, reads)
    zipped = gzipped_file(file)
    member = bytes(zipped.read(0, zipped.size))
    assert gzip.decompress(member) == expected
    assert_is(gzipped_file(frame_file(parts, number, BOUNDARY)), member, reads)
    file.close()


@each
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_any_slice_of_a_bulk_value(archive: Archive, name: str, data: st.DataObject) -> None:
    parts = by_name(archive, name)
    start = data.draw(st.integers(0, len(parts.data)))
    end = data.draw(st.integers(start, len(parts.data)))
    swap = data.draw(st.sampled_from([1, 2, 4, 8]))
    raw = bytes(parts.read(start, end))
    whole = len(raw) // swap * swap
    expected = b"".join(raw[at : at + swap][::-1] for at in range(0, whole, swap)) + raw[whole:]
    assert_is(bulk_file(parts, BulkValue("7FE00010", "OW", start, end, swap)), expected, data.draw(st.lists(ranges)))


@each
def test_the_whole_instance(archive: Archive, name: str) -> None:
    parts = by_name(archive, name)
    expected = multipart(f"application/dicom; transfer-syntax={parts.part10.transfer_syntax}", INSTANCES[name])
    assert part10_size(parts, BOUNDARY) == len(expected)
    assert_is(part10_file(parts, BOUNDARY), expected, some_reads(random.Random(1), len(expected)))


def test_a_video_is_one_file(archive: Archive) -> None:
    parts = by_name(archive, "video")
    stream = random.Random(1).randbytes(200_000) + random.Random(2).randbytes(200_001)
    assert pixeldata_size(parts) == len(stream)
    assert_is(pixeldata_file(parts), stream, some_reads(random.Random(1), len(stream)))
    with pytest.raises(NotFound):
        pixeldata_file(by_name(archive, "CT"))
    with pytest.raises(NotFound):
        pixeldata_size(by_name(archive, "bits"))


def test_odd_frames_of_big_endian_words(archive: Archive) -> None:
    parts = by_name(archive, "words of bytes")
    pixels = random.Random(5).randbytes(5 * 51 * 53)
    frames = [parts.frames.frame(number, parts.read) for number in range(1, 6)]
    assert frames == [pixels[at : at + 51 * 53] for at in range(0, len(pixels), 51 * 53)]


def test_the_middle_of_a_frame_is_passed_through(archive: Archive) -> None:
    parts = by_name(archive, "CT")
    file = frame_file(parts, 1, BOUNDARY)
    ((start, end),) = parts.frames.ranges(1)
    head = bytes(file.read(0, file.size)).index(b"\r\n\r\n") + 4
    for offset, size in ((0, 1), (5000, 4000), (end - start - 100, 100)):
        found = file.read_ready(head + offset, size)
        beneath = parts.file.read_ready(start + offset, size)
        assert isinstance(found, memoryview)
        assert isinstance(beneath, memoryview)
        assert found.obj is beneath.obj
        assert found == INSTANCES["CT"][start + offset : start + offset + size]


def test_who_reads_on_finds_the_next_bytes_made(archive: Archive) -> None:
    parts = by_name(archive, "frames")
    coded = archive.settings.codec != "none"
    file = part10_file(parts, BOUNDARY)
    assert file.coming(0, 1 << 17) is None
    file.read(0, 1 << 17)
    file.read(1 << 17, 1 << 17)
    future = file.coming(1 << 18, 1 << 17)
    assert (future is not None) == coded
    if future is not None:
        future.result()
        expected = bytes(part10_file(parts, BOUNDARY).read(1 << 18, 1 << 17))
        found = file.read_ready(1 << 18, 1 << 17)
        assert found is not None
        assert bytes(found) == expected
    file.close()
    assert file.coming(1 << 18, 1 << 17) is None


def test_prefetch_makes_the_frame_that_is_opened(archive: Archive) -> None:
    parts = by_name(archive, "CT")
    file = frame_file(parts, 1, BOUNDARY)
    file.prefetch()
    ((start, end),) = parts.frames.ranges(1)
    future = parts.file.coming(start, end - start)
    assert (future is not None) == (archive.settings.codec != "none")
    if future is not None:
        future.result()
        assert file.read_ready(0, file.size) is not None
    file.close()
    assert parts.file.coming(start, 10) is None


def test_closing_one_frame_leaves_what_others_read(archive: Archive) -> None:
    if archive.settings.codec == "none":
        pytest.skip("nothing is made ahead")
    parts = by_name(archive, "frames")
    first, second = frame_file(parts, 1, BOUNDARY), part10_file(parts, BOUNDARY)
    second.prefetch()
    first.close()
    assert parts.file.coming(0, 10) is not None
    second.close()
    assert parts.file.coming(0, 10) is None


def test_nothing_but_what_was_asked_for() -> None:
    empty = Composed([])
    assert (empty.size, empty.read(0, 10), empty.read_ready(5, 10), empty.coming(0, 1)) == (0, b"", b"", None)
    empty.prefetch()
    empty.close()
    text = Composed([b"", b"ab", b"", b"cde", b""])
    assert_is(text, b"abcde", [(offset, size) for offset in range(7) for size in range(7)])


def test_very_many_pieces_are_put_together_by_a_thread() -> None:
    text = b"".join(b"%d," % number for number in range(3 * MANY))
    file = Composed([b"%d," % number for number in range(3 * MANY)])
    assert file.read_ready(0, len(text)) is None
    assert file.coming(0, len(text)) is None
    assert file.read_ready(100, 100) == text[100:200]
    assert_is(file, text, [(offset, size) for offset in (0, 1, 500, len(text)) for size in (0, 1, 300, 5000)])


def test_ranges_of_parts_are_pieces(archive: Archive) -> None:
    parts, other = by_name(archive, "CT"), by_name(archive, "deflated")
    pieces = [b"<", (parts, 128, 132), (other, 10, 10), b"|", (other, 128, 132), b">"]
    assert_is(Composed(pieces), b"<DICM|DICM>", [(offset, size) for offset in range(12) for size in range(12)])


# gzip ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_534, 65_535, 65_536, 131_070, 131_071, 200_000])
def test_stored_blocks(size: int) -> None:
    content = random.Random(size).randbytes(size)
    file = gzipped_file(TextFile(content))
    assert file.size == gzipped_size(size)
    member = bytes(file.read(0, file.size))
    assert len(member) == file.size
    assert gzip.decompress(member) == content
    edges = sorted(
        {max(0, edge + near) for edge in (0, 10, 15, 65_550, 65_555, 131_090, file.size) for near in range(-9, 9)}
    )
    reads = [(offset, size) for offset in edges for size in (1, 4, 9, 70_000)]
    assert_is(gzipped_file(TextFile(content)), member, reads)


def test_the_tail_waits_for_the_sum() -> None:
    file = gzipped_file(TextFile(b"x" * 100))
    assert file.read_ready(0, 50) is not None
    assert file.read_ready(0, file.size) is None
    assert file.read_ready(0, file.size - 8) is not None
    whole = file.read(0, file.size)
    assert file.read_ready(0, file.size) == whole
    file.prefetch()
    file.close()


# Stretches -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(data=st.data())
def test_any_part_of_a_stretch(data: st.DataObject) -> None:
    """Bit by bit: each swap reversed, counted from the start, then `bits` bits from `skip` on."""
    raw = data.draw(st.binary(min_size=1, max_size=64))
    start = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(start, len(raw)))
    swap = data.draw(st.sampled_from([1, 2, 4, 8]))
    total = 8 * (end - start)
    skip = data.draw(st.integers(0, min(total, 15)))
    bits = data.draw(st.integers(0, total - skip))
    stretch = Stretch(start, end, swap, skip, bits) if data.draw(st.booleans()) else Stretch(start, end, swap)
    value = raw[start:end]
    whole = len(value) // swap * swap
    turned = b"".join(value[at : at + swap][::-1] for at in range(0, whole, swap)) + value[whole:]
    if stretch.bits >= 0:
        number = int.from_bytes(turned, "little") >> skip & (1 << bits) - 1
        turned = number.to_bytes((bits + 7) // 8, "little")
    assert stretch.length == len(turned)
    first = data.draw(st.integers(0, len(turned)))
    last = data.draw(st.integers(first, len(turned)))
    begin, stop = stretch.source(first, last)
    assert start <= begin
    assert stop <= end
    assert bytes(stretch.served(raw[begin:stop], first, last)) == turned[first:last]
