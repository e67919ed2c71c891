"""Derived files are what their pieces say, whatever is taken over; whole blobs are taken over as blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.deriving import LEFT_OVER
from dicomfs.dicom import part10
from tests.archive.cutting_deriver import ALL, FRAMES_TURNED, WITHOUT_THE_LAST_BYTES, cut_up
from tests.archive.importing import add, packs
from tests.archive.project_scenes import create, read
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = range(1, 40)
EVERYTHING = (("PatientID", "*"),)
CUTTING = "tests.archive.cutting_deriver"


def taken(source: bytes) -> bytes:
    """Return the file that the pieces of an instance make."""
    return b"".join(one if isinstance(one, bytes) else source[one.start : one.end] for one in cut_up(source))


@pytest.mark.parametrize(
    "kind",
    [
        {"modality": "MR", "frames": 4, "rows": 200, "columns": 200},
        {"modality": "MR", "frames": 3, "rows": 40, "columns": 40},
        {"rows": 301, "columns": 333, "transfer_syntax": "1.2.840.10008.1.2.1.99"},
    ],
    ids=["long frames", "short frames", "deflated"],
)
def test_a_derived_file_is_what_its_pieces_say(archive_path: Path, kind: dict[str, object]) -> None:
    sources = [make_instance(number=number, **kind) for number in NUMBERS]  # type: ignore[arg-type]
    add(archive_path, *sources)
    root = create(archive_path, where=EVERYTHING, deid="basic", module=CUTTING).state.root
    with Archive.open(archive_path) as opened, opened.view() as view:
        shown = {view.instance(one.source).attributes["InstanceNumber"]: one for one in view.members(root)}
    assert [shown[number].reason for number in NUMBERS] == [""] * len(NUMBERS)
    for number, source in zip(NUMBERS, sources, strict=True):
        deflated = part10.locate(source)
        assert deflated is not None
        data = bytes(part10.inflated(source, deflated.start)) if "transfer_syntax" in kind else source
        assert read(archive_path, shown[number].shown) == taken(data)


def test_what_is_taken_over_whole_is_stored_once(archive_path: Path) -> None:
    add(archive_path, *(make_instance("MR", number=number, frames=4, rows=200, columns=200) for number in (1, 2, 3)))
    size = sum(pack.stat().st_size for pack in packs(archive_path))
    root = create(archive_path, where=EVERYTHING, deid="basic", module=CUTTING).state.root
    grown = sum(pack.stat().st_size for pack in packs(archive_path)) - size
    with Archive.open(archive_path) as opened:
        with opened.view() as view:
            shown = {view.instance(one.source).attributes["InstanceNumber"]: one for one in view.members(root)}
        blobs = {
            number: (opened.open_instance(one.source).blob_ids(), opened.open_instance(one.shown))
            for number, one in shown.items()
        }
    before, turned = blobs[FRAMES_TURNED]
    assert turned.blob_ids() == before[::-1]
    before, same = blobs[ALL]
    assert same.blob_ids() == before
    before, shorter = blobs[WITHOUT_THE_LAST_BYTES]
    assert shorter.blob_ids()[:3] == before[:3]
    assert len(shorter.blob_ids()) == 4  # what is left of the last frame is a blob of its own
    assert shorter.literal_length < LEFT_OVER
    assert grown < 80_000 + 4_000
