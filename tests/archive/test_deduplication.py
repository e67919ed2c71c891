"""Equal bytes are kept once: frames across files and studies, headers against their series."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.outcome import Outcome
from tests.archive.importing import add, contents, packs
from tests.builders import make_instance, make_series, pixels, uid

if TYPE_CHECKING:
    from pathlib import Path

FRAMES, ROWS = 5, 48
FRAME = ROWS * ROWS * 2
JPEG = "1.2.840.10008.1.2.4.50"


def blobs(archive: Path) -> int:
    return sum(name.startswith("o/") for path in packs(archive) for name in zipfile.ZipFile(path).namelist())


def twins() -> tuple[bytes, list[bytes]]:
    """Return an enhanced multi-frame object, and the same frames as classic single-frame instances."""
    enhanced = make_instance("MR", frames=FRAMES, rows=ROWS, columns=ROWS, series=1, seed="scan")
    raw = pixels(FRAMES, ROWS, ROWS, seed="scan")
    classic = [
        make_instance(
            "MR", rows=ROWS, columns=ROWS, series=2, number=n + 1, attributes={"PixelData": raw[n * FRAME :][:FRAME]}
        )
        for n in range(FRAMES)
    ]
    return enhanced, classic


@pytest.mark.parametrize("order", ["enhanced first", "classic first", "one run", "two workers"])
def test_an_enhanced_object_shares_every_frame_with_its_classic_twins(archive_path: Path, order: str) -> None:
    enhanced, classic = twins()
    if order == "enhanced first":
        add(archive_path, enhanced)
        add(archive_path, *classic)
    elif order == "classic first":
        add(archive_path, *classic)
        add(archive_path, enhanced)
    else:
        add(archive_path, enhanced, *classic, jobs=1 + (order == "two workers"))
    assert blobs(archive_path) == FRAMES
    assert sorted(contents(archive_path).values()) == sorted([enhanced, *classic])
    with Archive.open(archive_path) as opened, opened.view() as view:
        totals = view.totals()
        assert totals.bulk_unique == FRAMES * FRAME
        assert totals.saved_by_deduplication == FRAMES * FRAME


def test_frames_are_shared_across_studies_and_codecs(archive_path: Path) -> None:
    """Another patient, another transfer syntax of the header: the frame is the same bytes."""
    files = [
        make_instance(patient=patient, seed="same", transfer_syntax=syntax)
        for patient, syntax in (("A", "1.2.840.10008.1.2"), ("B", "1.2.840.10008.1.2.1"), ("C", "1.2.840.10008.1.2.1"))
    ]
    add(archive_path, *files)
    assert blobs(archive_path) == 1
    assert sorted(contents(archive_path).values()) == sorted(files)


def test_fragments_are_shared(archive_path: Path) -> None:
    files = [make_instance("US", frames=3, patient=patient, seed="same", transfer_syntax=JPEG) for patient in "AB"]
    add(archive_path, *files)
    assert blobs(archive_path) == 3


def test_large_values_are_shared(archive_path: Path) -> None:
    value = {"ICCProfile": bytes(range(256)) * 5000}
    files = [make_instance("SC", number=number, rows=16, columns=16, attributes=value) for number in (1, 2)]
    add(archive_path, *files)
    assert blobs(archive_path) == 1


def test_equal_frames_of_one_file_are_one(archive_path: Path) -> None:
    frame = pixels(1, ROWS, ROWS, seed="x")
    content = make_instance("MR", frames=4, rows=ROWS, columns=ROWS, attributes={"PixelData": frame * 4})
    add(archive_path, content)
    assert blobs(archive_path) == 1
    assert list(contents(archive_path).values()) == [content]
    with Archive.open(archive_path) as opened, opened.view() as view:
        totals = view.totals()
        assert (totals.bulk_unique, totals.saved_by_deduplication) == (FRAME, 3 * FRAME)


def test_headers_of_a_series_are_small(archive_path: Path) -> None:
    """What repeats in every header of a series is stored once, over two imports as well."""
    private = {"ImageComments": "".join(chr(33 + n * n % 90) for n in range(9000))}
    files = make_series(40, rows=16, columns=16, attributes=private)
    add(archive_path, *files[:20])
    add(archive_path, *files[20:])
    with Archive.open(archive_path) as opened, opened.view() as view:
        totals = view.totals()
    assert totals.literal_in > 40 * 9000
    assert totals.headers_stored < totals.literal_in / 15
    bases = [name for path in packs(archive_path) for name in zipfile.ZipFile(path).namelist() if name[0] == "h"]
    assert len(bases) == 1


@pytest.mark.parametrize("on_conflict", ["skip", "error", "keep"])
def test_a_refused_file_leaves_no_bytes(archive_path: Path, on_conflict: str) -> None:
    add(archive_path, make_instance(rows=64, columns=64))
    before = sum(path.stat().st_size for path in packs(archive_path))
    other = make_instance(rows=64, columns=64, seed="other", attributes={"SeriesInstanceUID": uid("another")})
    assert add(archive_path, other, on_conflict=on_conflict).outcomes == [Outcome.CONFLICT]
    assert (sum(path.stat().st_size for path in packs(archive_path)) == before) == (on_conflict != "keep")


def test_the_base_of_a_refused_file_serves_the_next(archive_path: Path) -> None:
    """A worker makes a base with the first file it sees of a series; that one may be refused later."""
    add(archive_path, make_instance(number=1))
    refused = make_instance(number=1, seed="other", attributes={"SeriesInstanceUID": uid("new series")})
    kept = make_instance(number=2, attributes={"SeriesInstanceUID": uid("new series")})
    done = add(archive_path, refused, kept, on_conflict="skip")
    assert done.outcomes == [Outcome.CONFLICT, Outcome.IMPORTED]
    assert kept in contents(archive_path).values()
