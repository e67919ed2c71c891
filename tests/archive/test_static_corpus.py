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
from tests.static_trees import V1, V2, write_v1, write_v2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pydicom.dataset import Dataset

pytestmark = [pytest.mark.corpus, pytest.mark.slow]


NONE_SUCH = frozenset((0xFFFEE000, 0x00091105))
"""An item outside of a sequence, and a DS that is no number: no JSON says these."""
LOST = {V1: {*NONE_SUCH, 0x00280009}, V2: NONE_SUCH}
"""The first writer keeps the first tag of an AT alone."""


UIDS = (0x0020000D, 0x0020000E, 0x00080018)


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content), force=True)


def fitting(corpus: Path, writer: type[V1 | V2], scratch: Path) -> dict[str, bytes]:
    """Return the files that our writers of trees can take, one for each SOP Instance UID."""
    found: dict[str, bytes] = {}
    with (corpus / "MANIFEST.tsv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    for path in paths:
        content = (corpus / path).read_bytes()
        try:
            dataset = read(content)
            syntax = dataset.file_meta.TransferSyntaxUID
            known = all(dataset.get_item(tag).VR != "UN" for tag in UIDS)
            uids = [str(dataset[tag].value) for tag in UIDS]
            if (
                syntax in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
                or uids[2] in found
                or not all((known, *uids))
            ):
                continue
            writer(scratch, content).object()
        except Exception:  # noqa: BLE001 - pydicom on files that nobody should have written
            continue
        found[uids[2]] = content
    return found


@pytest.mark.parametrize(("write", "writer"), [(write_v1, V1), (write_v2, V2)])
@pytest.mark.filterwarnings("ignore")
def test_there_and_back(
    write: Callable[[Path, Iterable[bytes]], None],
    writer: type[V1 | V2],
    corpus: Path,
    archive_path: Path,
    tmp_path: Path,
) -> None:
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    given = fitting(corpus, writer, tmp_path / "scratch")
    write(tmp_path / "tree", given.values())
    done = run(archive_path, tmp_path / "tree", jobs=2, static_dicomweb=True)
    refused = {r.source.rpartition("/")[2]: r.told for r in done.results if r.outcome is not Outcome.IMPORTED}
    shown = {str((one := read(content)).SOPInstanceUID): one for content in contents(archive_path).values()}
    unlike = {}
    for sop, content in given.items():
        original = read(content)
        if sop in refused:
            continue
        found = differences(original, shown[sop], LOST[writer])
        if "PixelData" in original and not same_bytes(original, shown[sop]):
            found.append("pixels")
        if found:
            unlike[sop] = found
    assert len(given) > 450
    assert unlike == {}
    assert refused == {}
