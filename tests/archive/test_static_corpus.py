"""The corpus through both of the reference's forms and back: every frame, and every element but for what they lose."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicomfs.archive.outcome import Outcome
from tests.archive.importing import contents, run
from tests.same_values import differences, same_bytes
from tests.static_trees import write_v1, write_v2

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from pathlib import Path

    from pydicom.dataset import Dataset

pytestmark = [pytest.mark.corpus, pytest.mark.slow]


NONE_SUCH = frozenset((0xFFFEE000, 0x00091105))
"""An item outside of a sequence, and a DS that is no number: no JSON says these."""
FIRST_ONLY = {*NONE_SUCH, 0x00280009}
"""The first writer keeps but the first tag of an AT."""
UIDS = (0x0020000D, 0x0020000E, 0x00080018)


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content), force=True)


def fitting(corpus: Path) -> dict[str, bytes]:
    """Return the files that our writers of trees may take, one for each SOP Instance UID."""
    found: dict[str, bytes] = {}
    with (corpus / "MANIFEST.tsv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    for path in paths:
        content = (corpus / path).read_bytes()
        try:
            dataset = pydicom.dcmread(io.BytesIO(content), force=True, stop_before_pixels=True)
            syntax = dataset.file_meta.TransferSyntaxUID
            known = all(dataset.get_item(tag).VR != "UN" for tag in UIDS)
            uids = [str(dataset[tag].value) for tag in UIDS]
        except Exception:  # noqa: BLE001 - pydicom on files that nobody should have written
            continue
        fits = syntax not in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian) and uids[2] not in found
        if fits and known and all(uids):
            found[uids[2]] = content
    return found


@pytest.mark.parametrize(("write", "lost"), [(write_v1, FIRST_ONLY), (write_v2, NONE_SUCH)])
@pytest.mark.filterwarnings("ignore")
def test_there_and_back(
    write: Callable[[Path, Iterable[bytes], list[bytes]], None],
    lost: Container[int],
    corpus: Path,
    archive_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    given = fitting(corpus)
    left_out: list[bytes] = []
    write(tmp_path / "tree", given.values(), left_out)
    given = {sop: content for sop, content in given.items() if content not in left_out}
    done = run(archive_path, tmp_path / "tree", jobs=2, static_dicomweb=True)
    refused = {r.source.rpartition("/")[2]: r.told for r in done.results if r.outcome is not Outcome.IMPORTED}
    shown = {str((one := read(content)).SOPInstanceUID): one for content in contents(archive_path).values()}
    unlike = {}
    for sop, content in given.items():
        if sop in refused:
            continue
        original = read(content)
        found = differences(original, shown[sop], lost)
        if "PixelData" in original and not same_bytes(original, shown[sop]):
            found.append("pixels")
        if found:
            unlike[sop] = found
    assert len(given) > 450
    assert unlike == {}
    assert refused == {}
