"""Instances opened to be taken apart: the header in place, the bulk had by reading, the frames found."""

from __future__ import annotations

import gc
import resource
import weakref
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicomfs.archive.archive import Archive
from dicomfs.archive.parts import Parts
from dicomfs.dicom import part10
from dicomfs.dicom.describe import describe
from dicomfs.dicom.frames import find_frames
from dicomfs.dicom.split import LITERAL
from dicomfs.errors import Damaged, NotFound
from tests.archive.importing import add, packs
from tests.builders import make_instance
from tests.dicom import build
from tests.dicom.build import EXPLICIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def inodes(archive: Archive) -> list[int]:
    with archive.view() as view:
        return [ino for ino in view.inodes(1023) if (node := view.node(ino)) is not None and not node.is_directory]


def opened(archive: Archive) -> Iterator[tuple[Parts, bytes]]:
    """Open every instance; it must be the same whether it is ready or not."""
    for ino in inodes(archive):
        parts = Parts.open(archive, ino)
        content = bytes(parts.file.read(0, parts.file.size))
        ready = Parts.open_ready(archive, ino)
        if ready is not None:
            assert bytes(ready.data) == bytes(parts.data)
            assert ready.part10 == parts.part10
            assert ready.frames.count == parts.frames.count
        yield parts, content


def fill_cache(archive: Path) -> None:
    for pack in packs(archive):
        pack.read_bytes()


def frames(parts: Parts) -> list[bytes]:
    return [parts.frames.frame(number, parts.read) for number in range(1, parts.frames.count + 1)]


MANY = {
    "CT": make_instance(rows=512, columns=512),
    "small": make_instance(rows=16, columns=16),
    "multi-frame": make_instance(frames=20, rows=96, columns=96),
    "big endian": make_instance(transfer_syntax=ExplicitVRBigEndian),
    "JPEG": make_instance(transfer_syntax="1.2.840.10008.1.2.4.50", frames=3),
    "SR": make_instance("SR"),
    "trailing": make_instance(trailing=bytes(range(256)) * 5000),
}


def test_the_header_is_in_place_and_bulk_is_had_by_reading(archive_path: Path) -> None:
    add(archive_path, *MANY.values(), jobs=1)
    fill_cache(archive_path)
    seen = set()
    with Archive.open(archive_path) as archive:
        for parts, content in opened(archive):
            seen.add(content)
            assert len(parts.data) == parts.file.size == parts.source.size == len(content)
            assert parts.part10 == part10.locate(content)
            for kind, start, end, _ in describe(content).spans:
                if kind == LITERAL:
                    assert bytes(parts.data[start:end]) == content[start:end]
            assert bytes(parts.read(0, len(content))) == content
            assert bytes(parts.read(100, 5000)) == content[100:5000]
            assert bytes(parts.read(len(content), len(content) + 5)) == b""
            found = part10.locate(content)
            assert found is not None
            whole = find_frames(content, found, lambda start, end, content=content: content[start:end])
            assert frames(parts) == [
                whole.frame(number, lambda start, end, content=content: content[start:end])
                for number in range(1, whole.count + 1)
            ]
    assert seen == set(MANY.values())


def test_what_is_in_memory_is_ready(archive_path: Path) -> None:
    add(archive_path, MANY["CT"])
    fill_cache(archive_path)
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        parts = Parts.open_ready(archive, ino)
        assert parts is not None
        assert parts.frames.count == 1
        assert parts.frames is parts.frames
        with pytest.raises(NotFound):
            Parts.open_ready(archive, ino + 1)
        with pytest.raises(NotFound):
            Parts.open(archive, ino + 1)


def test_deflated_data_sets_are_inflated(archive_path: Path) -> None:
    plain = make_instance(frames=3)
    deflated = make_instance(frames=3, number=2, seed="other", transfer_syntax=DeflatedExplicitVRLittleEndian)
    add(archive_path, plain, deflated)
    with Archive.open(archive_path) as archive:
        first, second = inodes(archive)
        assert Parts.open_ready(archive, second) is None
        parts = Parts.open(archive, second)
        assert bytes(parts.file.read(0, parts.file.size)) == deflated
        whole = part10.locate(deflated)
        assert whole is not None
        assert bytes(parts.data) == bytes(part10.inflated(deflated, whole.start))
        assert bytes(parts.read(0, len(parts.data))) == bytes(parts.data)
        assert not parts.part10.deflated
        assert parts.part10.transfer_syntax == DeflatedExplicitVRLittleEndian
        assert parts.frames.transfer_syntax == "1.2.840.10008.1.2.1"
        assert len(frames(parts)) == 3
        assert [len(frame) for frame in frames(parts)] == [len(frame) for frame in frames(Parts.open(archive, first))]


def test_a_bomb_is_inflated_as_far_as_it_may(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set = EXPLICIT.identity() + EXPLICIT.image(1000, 1000, bits=8, frames=40)
    data_set += EXPLICIT.element(0x7FE00010, "OB", bytes(40_000_000))
    add(archive_path, build.part10(b"", build.DEFLATED_UID) + build.deflated(data_set))
    monkeypatch.setattr(part10, "INFLATED_AT_MOST", 1 << 20)
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        parts = Parts.open(archive, ino)
        assert len(parts.data) < (1 << 20) + 1000
        assert parts.frames.count == 0  # the value goes past the end of what there is


def test_a_file_that_was_kept_whole(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The importer keeps a file whole whose header would be too large."""
    streams = [b"\xff\xd8" + bytes([n]) * 996 + b"\xff\xd9" for n in range(3)]
    private = b"".join(EXPLICIT.element(0x00291000 + n, "OB", bytes([n]) * 1_000_000) for n in range(40))
    data_set = EXPLICIT.identity() + EXPLICIT.image(9, 9, bits=8, frames=3) + private + EXPLICIT.encapsulated(streams)
    content = build.part10(data_set, build.JPEG_UID)
    add(archive_path, content)
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        assert not list(archive.open_instance(ino).literals())
        assert Parts.open_ready(archive, ino) is None
        ((parts, _),) = opened(archive)
        assert bytes(parts.data) == content
        assert frames(parts) == streams
        monkeypatch.setattr("dicomfs.archive.parts._WHOLE_AT_MOST", 1 << 20)
        parts = Parts.open(archive, ino)
        assert len(parts.data) == len(content)
        assert parts.frames.count == 0


def test_the_pixels_take_no_memory(archive_path: Path) -> None:
    """120 MB of pixels, opened 100 times."""
    add(archive_path, make_instance(frames=60, rows=1000, columns=1000))
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        held = [Parts.open(archive, ino) for _ in range(100)]
        assert {parts.frames.count for parts in held} == {60}
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_what_is_opened_is_let_go(archive_path: Path) -> None:
    add(archive_path, MANY["CT"])
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        parts = Parts.open(archive, ino)
        view = memoryview(parts.data)
        gone = weakref.ref(parts)
        del parts
        gc.collect()
        assert gone() is None
        assert view[128:132] == b"DICM"


@pytest.mark.parametrize(("count", "ready"), [(20, True), (200, False)])
def test_frame_ends_that_have_to_be_read(archive_path: Path, count: int, ready: bool) -> None:
    """Several fragments a frame without a table: where frames end is in the bulk. Many are for a thread."""
    stream = [b"\xff\xd8" + bytes([n]) * 996 + b"\xff\xd9" for n in range(count)]
    cut = [one[at : at + 500] for one in stream for at in (0, 500)]
    data_set = EXPLICIT.identity() + EXPLICIT.image(9, 9, bits=8, frames=count) + EXPLICIT.encapsulated(cut)
    add(archive_path, build.part10(data_set, build.JPEG_UID))
    fill_cache(archive_path)
    with Archive.open(archive_path) as archive:
        ((parts, _),) = opened(archive)
        assert frames(parts) == stream
        (ino,) = inodes(archive)
        assert (Parts.open_ready(archive, ino) is not None) == ready


@pytest.mark.damaged
def test_damage_is_told_where_the_damaged_bytes_are_needed(archive_path: Path) -> None:
    content = make_instance(transfer_syntax="1.2.840.10008.1.2.4.50")
    add(archive_path, content)
    (pack,) = packs(archive_path)
    held = bytearray(pack.read_bytes())
    (span,) = (one for one in describe(content).spans if one.kind != LITERAL)
    at = held.index(content[span.start : span.end])
    held[at + 5] ^= 1
    pack.write_bytes(held)
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        parts = Parts.open(archive, ino)
        assert parts.frames.count == 1
        assert parts.frames.length(1) == span.end - span.start
        with pytest.raises(Damaged):
            frames(parts)


@pytest.mark.damaged
def test_damage_where_frames_end_concerns_the_frames_alone(archive_path: Path) -> None:
    cut = [b"\xff\xd8" + b"1" * 998, b"2" * 998 + b"\xff\xd9", b"\xff\xd8" + b"3" * 996 + b"\xff\xd9"]
    data_set = EXPLICIT.identity() + EXPLICIT.image(9, 9, bits=8, frames=2) + EXPLICIT.encapsulated(cut)
    add(archive_path, build.part10(data_set, build.JPEG_UID))
    (pack,) = packs(archive_path)
    held = bytearray(pack.read_bytes())
    held[held.index(b"2" * 998)] ^= 1
    pack.write_bytes(held)
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        for parts in (Parts.open(archive, ino), Parts.open_ready(archive, ino)):
            assert parts is not None
            assert bytes(parts.data[128:132]) == b"DICM"
            with pytest.raises(Damaged):
                _ = parts.frames
