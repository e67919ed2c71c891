"""Pictures of the cache: of an archive's instances, as long as promised, and never half of one."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dicomfs.archive import pictures
from dicomfs.archive.archive import Archive
from dicomfs.archive.pictures import RENDERED, THUMBNAIL, THUMBNAIL_BYTES, rendered_bytes
from dicomfs.dicom.picture_file import png, thumbnail
from dicomfs.dicom.picture_label import GREY, labelled
from dicomfs.errors import Damaged, NotFound, StorageFull
from tests.archive.importing import add, packs, tree
from tests.builders import make_instance
from tests.dicom.images import image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RAMP = (np.arange(512 * 400, dtype=np.uint32).reshape(512, 400) % 4096).astype(np.uint16)
SQUARES = np.kron(np.array([[0, 255], [128, 64]], np.uint8), np.ones((300, 300), np.uint8))


class Filled:
    """An archive, and the directory of its pictures."""

    def __init__(self, path: Path, cache: Path) -> None:
        self.path = path
        self.cache = cache

    def add(self, content: bytes) -> int:
        before = {shown.ino for shown in tree(self.path).values()}
        add(self.path, content)
        (ino,) = {shown.ino for shown in tree(self.path).values()} - before
        return ino

    def make(self, *args: int) -> bytes:
        with Archive.open(self.path) as archive:
            pictures.make(archive, self.cache, args)
        ino, frame, kind, *_ = args
        return pictures.path(self.cache, ino, frame, kind).read_bytes()


@pytest.fixture
def filled(archive_path: Path, tmp_path: Path) -> Iterator[Filled]:
    found = Filled(archive_path, tmp_path / "cache")
    yield found
    assert not list(found.cache.rglob("*.tmp"))


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_thumbnail_of_known_pixels(filled: Filled) -> None:
    data = filled.make(filled.add(image(SQUARES, WindowCenter=128, WindowWidth=256)), 1, THUMBNAIL)
    assert len(data) == THUMBNAIL_BYTES
    found = opened(data).astype(int)
    assert found.shape == (256, 256)
    assert [int(found[y, x]) for y in (0, 255) for x in (0, 255)] == pytest.approx([0, 255, 128, 64], abs=3)
    assert found.mean() == pytest.approx(SQUARES.mean(), abs=1)
    assert (found.min(), found.max()) == (0, 255)


def test_rendered_frame_is_every_pixel(filled: Filled) -> None:
    ino = filled.add(image(np.stack([RAMP, 4095 - RAMP]), frames=2, WindowCenter=2048, WindowWidth=4096))
    for frame, values in ((1, RAMP), (2, 4095 - RAMP)):
        data = filled.make(ino, frame, RENDERED)
        assert len(data) == rendered_bytes(512, 400, False)
        expected = np.floor(values.astype(float) / 4095 * 255 + 0.5)
        assert np.array_equal(opened(data), expected)


def test_colours(filled: Filled) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    data = filled.make(filled.add(image(pixels)), 1, RENDERED)
    assert len(data) == rendered_bytes(60, 50, True)
    assert np.array_equal(opened(data), pixels)
    assert pictures.is_colour(3, "RGB")
    assert pictures.is_colour(1, "PALETTE COLOR ")
    assert not pictures.is_colour(1, "MONOCHROME1")


def test_objects_without_pixels_have_a_picture_in_words(filled: Filled) -> None:
    ino = filled.add(make_instance("SR"))
    data = filled.make(ino, 1, THUMBNAIL)
    assert data == thumbnail(labelled(256, 256, "SR\nBasic Text SR", ""))
    assert len(filled.make(ino, 1, RENDERED)) == rendered_bytes(0, 0, False)


PAGE = b"""%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 200 400]/Contents 4 0 R>> endobj
4 0 obj <</Length 27>> stream
1 0 0 rg 0 200 100 200 re f
endstream endobj
trailer <</Root 1 0 R>>
%%EOF
"""


def document(content: bytes) -> bytes:
    return make_instance(
        "SR",
        attributes={
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1",
            "MIMETypeOfEncapsulatedDocument": "application/pdf",
            "EncapsulatedDocument": content + b" " * (len(content) % 2),
        },
    )


@pytest.mark.parametrize("length", [0, 3 << 20])
def test_thumbnail_of_a_pdf_is_its_first_page(filled: Filled, length: int) -> None:
    """Short enough for the header, and so long that it is kept as bulk."""
    found = opened(filled.make(filled.add(document(PAGE + b"%" * length)), 1, THUMBNAIL)).astype(int)
    assert found.shape == (256, 128, 3)  # the upper left quarter of the page is red
    assert np.abs(found[20:100, 10:50] - (255, 0, 0)).max() <= 8
    assert np.abs(found[20:100, 80:120] - (255, 255, 255)).max() <= 8
    assert np.abs(found[150:] - (255, 255, 255)).max() <= 8


def test_a_broken_pdf_has_a_picture_in_words(filled: Filled) -> None:
    data = filled.make(filled.add(document(b"%PDF-1.4 and no more")), 1, THUMBNAIL)
    assert data == thumbnail(labelled(256, 256, "SR\nEncapsulated PDF", "its first page cannot be shown"))


def test_broken_codestreams_have_a_picture_in_words(filled: Filled) -> None:
    ino = filled.add(make_instance("CT", transfer_syntax="1.2.840.10008.1.2.4.70", frames=2))
    for frame in (1, 2):
        assert filled.make(ino, frame, THUMBNAIL) == thumbnail(
            labelled(256, 256, "CT\nCT Image", "its pixels cannot be decoded")
        )
        data = filled.make(ino, frame, RENDERED)
        assert len(data) == rendered_bytes(64, 64, False)
        assert int(opened(data)[-1, -1]) == GREY


def test_what_was_promised_counts(filled: Filled) -> None:
    """Somebody was told that the picture is so long, by a reading of the header that is not ours."""
    ino = filled.add(image(SQUARES))
    data = filled.make(ino, 1, RENDERED, 600, 600, 1)
    assert len(data) == rendered_bytes(600, 600, True)
    words = labelled(600, 600, "OT\nSecondary Capture Image", "its header says two things about its size", colour=True)
    assert data == png(words)
    assert filled.make(ino, 1, RENDERED, 600, 600, 0) == filled.make(ino, 1, RENDERED)


def test_a_picture_is_made_once(filled: Filled) -> None:
    ino = filled.add(image(SQUARES))
    filled.make(ino, 1, THUMBNAIL)
    where = pictures.path(filled.cache, ino, 1, THUMBNAIL)
    before = where.stat()
    filled.make(ino, 1, THUMBNAIL)
    assert (where.stat().st_ino, where.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("kind", [THUMBNAIL, RENDERED])
def test_what_a_crash_cut_off_is_made_anew(filled: Filled, kind: int) -> None:
    ino = filled.add(image(SQUARES))
    data = filled.make(ino, 1, kind)
    where = pictures.path(filled.cache, ino, 1, kind)
    os.truncate(where, 100)
    assert not pictures.is_made(where, len(data))
    assert filled.make(ino, 1, kind) == data
    assert pictures.is_made(where, len(data))


def test_pictures_are_the_owners_alone(filled: Filled) -> None:
    ino = filled.add(image(SQUARES))
    filled.make(ino, 1, THUMBNAIL)
    where = pictures.path(filled.cache, ino, 1, THUMBNAIL)
    assert where.stat().st_mode & 0o777 == 0o600
    assert where.parent.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_written(filled: Filled) -> None:
    ino = filled.add(image(SQUARES))
    filled.cache.write_bytes(b"no directory")
    with pytest.raises(StorageFull, match="cannot be written"):
        filled.make(ino, 1, THUMBNAIL)


def test_no_such_instance(filled: Filled) -> None:
    with pytest.raises(NotFound):
        filled.make(99_999, 1, THUMBNAIL)


@pytest.mark.damaged
def test_damage_of_the_archive_is_no_picture(filled: Filled) -> None:
    """The pack may be put back, and then the picture is what it should be."""
    ino = filled.add(image(RAMP))
    (pack,) = packs(filled.path)
    content = pack.read_bytes()
    pack.write_bytes(content[:200] + bytes(200) + content[400:])
    with pytest.raises(Damaged):
        filled.make(ino, 1, THUMBNAIL)
    assert not pictures.path(filled.cache, ino, 1, THUMBNAIL).exists()
    pack.write_bytes(content)
    assert filled.make(ino, 1, THUMBNAIL) != thumbnail(labelled(256, 256, "OT\nSecondary Capture Image", ""))


def test_label_decodes_nothing(filled: Filled) -> None:
    ino = filled.add(image(SQUARES))
    with Archive.open(filled.path) as archive:
        pictures.label(archive, filled.cache, (ino, 1, RENDERED), "it takes too long")
    data = pictures.path(filled.cache, ino, 1, RENDERED).read_bytes()
    assert data == png(labelled(600, 600, "OT\nSecondary Capture Image", "it takes too long"))


def test_middle_frame() -> None:
    assert [pictures.middle(frames) for frames in (0, 1, 2, 3, 100)] == [1, 1, 1, 2, 50]
