"""Static DICOMweb trees of the reference's two writers: files rebuilt of them say what the originals said.

`samples/static-v1.zip` was made by running static-wado-creator 1.7.6 on the files that are in it as `originals`; the
other trees are written by `tests/static_trees.py`.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import pytest

from dicomfs.archive.outcome import Outcome
from tests.archive.importing import Done, contents, run, tables, tree
from tests.same_values import differences, same_bytes, same_pixels
from tests.static_trees import hash_of, hashed_path, write_v1, write_v2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydicom.dataset import Dataset

SAMPLE = Path(__file__).parent / "samples" / "static-v1.zip"
SYNTAX = 0x00020010


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def take(archive: Path, *trees: Path, **options: object) -> Done:
    return run(archive, *trees, static_dicomweb=True, **options)


def rebuilt(archive: Path) -> dict[str, Dataset]:
    """Return the data sets of an archive by SOP Instance UID."""
    datasets = [read(content) for content in contents(archive).values()]
    return {str(dataset.SOPInstanceUID): dataset for dataset in datasets}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("static")
    with zipfile.ZipFile(SAMPLE) as packed:
        packed.extractall(directory)
    return directory


@pytest.fixture
def originals(sample: Path) -> dict[str, Dataset]:
    return {path.stem: pydicom.dcmread(path) for path in (sample / "originals").iterdir()}


def test_the_hashes_are_those_of_the_reference(sample: Path) -> None:
    extract = {
        "00080020": {"vr": "DA", "Value": ["20040119"]},
        "00080030": {"vr": "TM", "Value": ["072730"]},
        "00080050": {"vr": "SH"},
        "00081030": {"vr": "LO", "Value": ["e+1"]},
        "0020000D": {"vr": "UI", "Value": ["1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"]},
        "00200010": {"vr": "SH", "Value": ["1CT1"]},
    }
    assert hash_of(extract) == "98c29e7e1b21705c093c9e220f75e601a73148675f7af97218b8b0e8ef03bbeb"
    assert hashed_path("1.2.276.0.7230010.3.1.2.296485376.1.1521713414.1800996") == "2c9/fdb"
    assert hashed_path("1.3.6.1.4.1.5962.1.2.4.20040826185059.5457") == "154/580"
    studies = [path.parent for path in (sample / "v1u" / "studies").glob("*/*/*/series")]
    assert studies
    assert all(f"{path.parent.parent.name}/{path.parent.name}" == hashed_path(path.name) for path in studies)


LOST = {"odd": (0x00280009,)}


def test_what_the_reference_wrote_is_what_it_was_given(
    archive_path: Path, sample: Path, originals: dict[str, Dataset]
) -> None:
    done = take(archive_path, sample / "v1", jobs=2)
    shown = rebuilt(archive_path)
    told = {result.sop_instance_uid: result for result in done.results if result.sop_instance_uid}
    refused = {Path(result.source).name: result for result in done.results if not result.sop_instance_uid}
    for name, original in originals.items():
        sop = str(original.SOPInstanceUID)
        if name in ("bits", "rejected"):
            continue
        assert told[sop].outcome is Outcome.IMPORTED, name
        assert differences(original, shown[sop], LOST.get(name, ())) == [], name
        assert name == "video" or same_pixels(original, shown[sop]), name
        assert Path(told[sop].source).name == sop
        assert told[sop].source.startswith(f"{sample}/v1/studies/")
        equipment = shown[sop].get("ContributingEquipmentSequence", [])
        assert [item.Manufacturer for item in equipment] == ["dicomfs"] * (name != "report")
    # What no tool could get back: the reference cut off the last three of 75 bits.
    assert refused[str(originals["bits"].SOPInstanceUID)].outcome is Outcome.FAILED
    assert refused[str(originals["bits"].SOPInstanceUID)].reason.endswith("9 bytes, and its header calls for 10")
    assert refused[str(originals["rejected"].SOPInstanceUID)].outcome is Outcome.SKIPPED
    assert same_bytes(originals["video"], shown[str(originals["video"].SOPInstanceUID)])
    # The report has its original beside it, so that is what was imported.
    files = {result.sha256 for result in done.results}
    assert {
        result.remarks for result in done.results if result.sop_instance_uid == str(originals["report"].SOPInstanceUID)
    } == {()}
    assert len(files) > 15
    big = shown[str(originals["big"].SOPInstanceUID)]
    assert big.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert done.report.remarks["rebuilt"] == 18
    assert not done.report.complete

    before = tables(archive_path), tree(archive_path)
    again = take(archive_path, sample / "v1")
    assert again.report.outcomes[Outcome.PRESENT] == 19
    assert (tables(archive_path), tree(archive_path)) == before
    assert not (archive_path / "cache" / "static-import").exists()


@pytest.mark.parametrize(
    ("name", "stems"),
    [
        pytest.param("v1u", ["odd", "grey1", "pdf", "frames", "text-latin1"], id="hashed paths, URIs with a prefix"),
        pytest.param("v1i", ["grey2", "odd", "text-greek", "big", "rgb"], id="instances that no list has taken in"),
        pytest.param("v1s", ["grey1", "fragments"], id="bare codestreams"),
    ],
)
def test_other_forms_of_the_reference(
    name: str, stems: list[str], archive_path: Path, sample: Path, originals: dict[str, Dataset]
) -> None:
    done = take(archive_path, sample / name)
    assert done.outcomes == [Outcome.IMPORTED] * len(stems)
    assert done.report.complete
    shown = rebuilt(archive_path)
    for stem in stems:
        one = shown[str(originals[stem].SOPInstanceUID)]
        assert differences(originals[stem], one, LOST.get(stem, ())) == [], stem
        assert same_pixels(originals[stem], one), stem


@pytest.mark.parametrize("write", [write_v1, write_v2])
def test_both_writers_of_ours(
    write: Callable[[Path, Iterable[bytes]], None],
    archive_path: Path,
    tmp_path: Path,
    sample: Path,
    originals: dict[str, Dataset],
) -> None:
    given = {name: one for name, one in originals.items() if name not in ("big", "bits")}
    (archive_path / "cache" / "static-import").mkdir(parents=True)
    (archive_path / "cache" / "static-import" / "0.dcm").write_bytes(b"of an import that was killed")
    write(tmp_path / "tree", ((sample / "originals" / f"{name}.dcm").read_bytes() for name in given))
    done = take(archive_path, tmp_path / "tree", jobs=2)
    assert done.outcomes == [Outcome.IMPORTED] * len(given), [result.told for result in done.results]
    shown = rebuilt(archive_path)
    for name, original in given.items():
        one = shown[str(original.SOPInstanceUID)]
        lost = LOST.get(name, ()) if write is write_v1 else ()
        assert differences(original, one, lost) == [], name
        assert same_bytes(original, one) if name == "video" else same_pixels(original, one), name


def test_series_say_the_same_as_lists(
    archive_path: Path, tmp_path: Path, sample: Path, originals: dict[str, Dataset]
) -> None:
    """Where lists are gone, the metadata of series are left, with what the writer strews into blocks of others."""
    root = tmp_path / "tree"
    shutil.copytree(sample / "v1" / "studies", root / "studies", ignore=shutil.ignore_patterns("deduplicated"))
    done = take(archive_path, root, jobs=2)
    # The rejected one is nowhere but in lists: its frames are left.
    failed = {Path(result.source).name: result.reason for result in done.results if result.outcome is Outcome.FAILED}
    assert failed.keys() == {str(originals[name].SOPInstanceUID) for name in ("rejected", "bits")}
    assert "no metadata" in failed[str(originals["rejected"].SOPInstanceUID)]
    shown = rebuilt(archive_path)
    for name in originals.keys() - {"rejected", "bits"}:
        one = shown[str(originals[name].SOPInstanceUID)]
        assert differences(originals[name], one, LOST.get(name, ())) == [], name
    assert shown[str(originals["odd"].SOPInstanceUID)][0x0009, 0x1011].value == "vendors own"
