"""The corpus as static DICOMweb, read by static-wado's rules: whole instances, true frames, its own hashes."""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import TYPE_CHECKING, NamedTuple

import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.documents import directory_name, uri
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.query import Query
from dicomfs.export_static import export_static
from tests.archive.importing import run
from tests.cli import static_reader as reader
from tests.cli.static_reader import Json, Study, dedup
from tests.same_values import differences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.corpus, pytest.mark.slow]

TEXT = {"AE", "AS", "CS", "DA", "LO", "SH", "TM", "UI", "US"}
UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
READ_OTHERWISE = {
    # Broken files, of which pydicom reads on where nothing can be followed any more, or stops before.
    "1.2.840.113619.2.284.3.17442826.413.1388989542.640",
    "1.2.840.113663.1500.1.341634990.3.1.20130730.83615.140",
    "1.2.826.0.1.3680043.8.498.91236739668987235199804639391516562109",
    # It has more pixels than its header tells of.
    "1.9.999.999.99.9.9999.9999.20030818153516",
    # Text in GB 2312, of which pydicom leaves the escape sequences.
    "1.2.276.0.7230010.3.1.4.1819218265.9224.1717183568.223",
}


class Exported(NamedTuple):
    """The corpus in an archive, and its tree."""

    archive: Archive
    root: Path

    def studies(self) -> list[str]:
        return sorted(path.name for path in (self.root / "studies").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    path = tmp_path_factory.mktemp("static")
    Archive.init(path / "archive")
    run(path / "archive", corpus, jobs=2)
    with Archive.open(path / "archive") as archive:
        report = export_static(archive, path / "tree", Query())
        assert (report.failed, report.present, report.stopped) == (0, 0, "")
        again = export_static(archive, path / "tree", Query())
        assert (again.written, again.removed, again.present) == (0, 0, report.written)
        yield Exported(archive, path / "tree")
    assert check(path / "archive", verify_files=True).problems == []


def metadata(exported: Exported, study: str) -> Iterator[tuple[str, str, Json]]:
    """Walk the documents of a study's series, and their instances."""
    for directory in sorted((exported.root / "studies" / study / "series").iterdir()):
        if directory.is_dir():
            for one in reader.load(directory / "metadata.gz"):
                name = directory_name(one["00080018"]["Value"][0])
                yield f"studies/{study}/series/{uri(directory.name)}", name, one


def test_all_are_there(exported: Exported) -> None:
    with exported.archive.view() as view:
        expected = {
            directory_name(str(study.attributes["StudyInstanceUID"])): view.shown(study.key) for study in view.studies()
        }
    listed = reader.load(exported.root / "studies/index.json.gz")
    assert {directory_name(one["0020000D"]["Value"][0]) for one in listed} == set(expected) == set(exported.studies())
    for one in listed:
        name = directory_name(one["0020000D"]["Value"][0])
        assert reader.load(exported.root / "studies" / name / "index.json.gz") == [one]
        assert one["00201208"]["Value"] == [expected[name]]
        assert one["00201206"]["Value"] == [len(reader.load(exported.root / f"studies/{name}/series/index.json.gz"))]
        assert len(list(metadata(exported, name))) == expected[name]
        assert (exported.root / "studies" / name / "thumbnail").read_bytes().startswith(b"\xff\xd8")


def test_lists_give_the_instances_back(exported: Exported) -> None:
    for name in exported.studies():
        study = Study(exported.root, name)
        expected = {
            (one["0020000E"]["Value"][0], one["00080018"]["Value"][0]): one for *_, one in metadata(exported, name)
        }
        assert {uids: study.rebuilt(one) for uids, one in study.instances.items()} == expected
        # A reader finds all in the index, and looks at no group file.
        assert study.read == ["index"]


def test_hashes_are_those_of_static_wado(exported: Exported) -> None:
    for name in exported.studies():
        study = Study(exported.root, name)
        (info,) = study.infos
        (group,) = study.groups.iterdir()
        items = reader.load(group)
        assert items == reader.load(study.directory / "deduplicated/index.json.gz")
        instances = [item for item in items if dedup(item, 0x12) == ["instance"]]
        assert dedup(info, 0x11) == [group.name.removesuffix(".gz")] == [reader.hash_of(instances)]
        assert set(dedup(info, 0x10)) == {digest for one in instances for digest in dedup(one, 0x11)}
        for item in items[1:]:
            assert dedup(item, 0x11) == [reader.hash_of(reader.before_hashing(item))]
            if dedup(item, 0x12) != ["instance"]:
                assert reader.load(study.bulk(dedup(item, 0x11)[0])) == item
        levels = [
            ("study", study.directory / "index.json.gz", ("00080061", "00201206", "00201208")),
            ("series", study.directory / "series/index.json.gz", ("00201209",)),
            *(("instance", path, ()) for path in study.directory.glob("series/*/instances/index.json.gz")),
        ]
        for kind, path, counted in levels:
            for one in reader.load(path):
                held = {tag: element for tag, element in one.items() if tag not in counted}
                assert dedup(held, 0x12) == [kind]
                assert dedup(held, 0x11) == [reader.hash_of(reader.bare(held))]


def test_every_way_leads_to_its_bytes(exported: Exported) -> None:
    values = frames = 0
    for name in exported.studies():
        for place, instance, one in metadata(exported, name):
            below = exported.root / "studies" / name / "series" / place.rpartition("/")[2]
            (own,) = reader.load(exported.root / f"{place}/instances/{instance}/metadata.gz")
            assert _without_ways(own) == _without_ways(one)
            ways = list(reader.bulk_uris(one))
            for (tag, way), (_, own_way) in zip(ways, reader.bulk_uris(own), strict=True):
                found = reader.resolved(exported.root, f"{place}/metadata", way)
                assert reader.resolved(exported.root, f"{place}/instances/{uri(instance)}/metadata", own_way) == found
                if way.endswith("/frames"):
                    assert found == below / "instances" / instance / "frames"
                    assert found.is_dir()
                    frames += 1
                else:
                    part = reader.part(found)
                    digest = hashlib.sha256(part.data).hexdigest()
                    bulk = exported.root / "studies" / name / "bulkdata"
                    assert found == bulk / digest[:2] / digest[2:4] / f"{digest[4:]}.mht.gz", tag
                    assert part.headers["content-type"] == "application/octet-stream"
                    values += 1
    assert frames > 300
    assert values > 20


def _without_ways(held: Json) -> Json:
    return {
        tag: {
            key: [_without_ways(item) for item in value] if key == "Value" and element["vr"] == "SQ" else value
            for key, value in element.items()
            if key != "BulkDataURI"
        }
        for tag, element in held.items()
    }


def test_values_and_frames_are_those_of_the_files(exported: Exported) -> None:
    compared = framed = 0
    objects: dict[str, dict[str, Json]] = {}
    for uids, data in shown(exported.archive):
        study, series, sop = map(directory_name, uids)
        below = f"studies/{study}/series/{series}"
        if below not in objects:
            objects[below] = {
                directory_name(one["00080018"]["Value"][0]): one
                for one in reader.load(exported.root / below / "metadata.gz")
            }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = pydicom.dcmread(io.BytesIO(data), force=True)
                compared += _compare(dataset, objects[below][sop])
        except (RecursionError, NotImplementedError, ValueError, EOFError, OSError):
            continue  # what pydicom cannot read
        framed += _compare_frames(dataset, exported.root / below / "instances" / sop)
    assert compared > 15_000
    assert framed > 500


def _compare(dataset: pydicom.Dataset, held: Json) -> int:
    compared = 0
    for element in dataset:
        tag = f"{int(element.tag):08X}"
        if element.VR not in TEXT or tag in ("00080005", "00083002") or tag[4:] == "0000" or element.is_empty:
            continue
        values = [element.value] if element.VM == 1 else list(element.value)
        texts = [str(value).strip() for value in values]
        if not all(text.isascii() and text.isprintable() for text in texts) or "Value" not in held[tag]:
            continue
        assert ["" if value is None else str(value).strip() for value in held[tag]["Value"]] == texts, tag
        compared += 1
    return compared


def _compare_frames(dataset: pydicom.Dataset, directory: Path) -> int:
    syntax = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    found = sorted((directory / "frames").glob("*"), key=lambda path: int(path.name.partition(".")[0]))
    if not found or "PixelData" not in dataset or syntax == ExplicitVRBigEndian:
        return 0
    suffixes = {path.name.partition(".")[2] for path in found}
    parts = [reader.part(path) for path in found]
    assert len({part.transfer_syntax for part in parts}) == 1
    assert suffixes == ({"mht.gz"} if parts[0].transfer_syntax in UNCOMPRESSED else {"mht"})
    assert [part.headers["content-location"] for part in parts] == [path.name for path in found]
    if not dataset["PixelData"].is_undefined_length:
        if dataset.BitsAllocated % 8 or len(dataset.PixelData) % len(parts[0].data) > 1:
            return 0
        joined = b"".join(part.data for part in parts)
        assert dataset.PixelData[: len(joined)] == joined
    else:
        assert {part.transfer_syntax for part in parts} <= {str(syntax), "1.2.840.10008.1.2.1"}
        frames = list(generate_frames(dataset.PixelData, number_of_frames=len(found)))
        if len(frames) == len(parts):
            assert all(frame.startswith(part.data) for part, frame in zip(parts, frames, strict=True))
    return len(parts)


@pytest.mark.filterwarnings("ignore")
def test_all_come_back(exported: Exported, archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    done = run(archive_path, exported.root, jobs=2, static_dicomweb=True)
    assert {result.outcome for result in done.results} == {Outcome.IMPORTED}
    with Archive.open(archive_path) as back:
        files = dict(shown(back))
    unlike: dict[str, set[str]] = {}
    compared = framed = 0
    for uids, data in shown(exported.archive):
        try:
            one, other = (pydicom.dcmread(io.BytesIO(each), force=True) for each in (data, files.pop(uids)))
            found = {difference[:11] for difference in differences(one, other, but=(0xFFFEE000,))}
        except (RecursionError, OSError):
            continue  # what pydicom cannot read
        compared += 1
        pixels = [frames(each) for each in (one, other)]
        if pixels[0] != pixels[1]:
            found.add("frames")
        framed += len(pixels[0])
        if found:
            unlike[uids[2]] = found
    assert files == {}
    assert unlike.keys() == READ_OTHERWISE
    assert compared > 500
    assert framed > 500


def shown(archive: Archive) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Walk what an archive shows: UIDs of study, series and instance, and the file."""
    with archive.view() as view:
        every = [
            (study, series, instance)
            for study in view.studies()
            for series in view.series_of(study.key)
            for instance in view.shown_instances(series.key)
        ]
    for levels in every:
        file = archive.open_instance(levels[2].ino)
        uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        yield (
            tuple(str(one.attributes[uid]) for one, uid in zip(levels, uids, strict=True)),
            bytes(file.read(0, file.size)),
        )
        file.close()


def frames(dataset: pydicom.Dataset) -> list[bytes]:
    """Return the frames of an instance, as far as they can be told apart, in little endian."""
    element = next((dataset[name] for name in PIXELS if dataset.get(name)), None)
    if element is None:
        return []
    value = bytes(element.value)
    if element.is_undefined_length:
        try:
            number = int(dataset.get("NumberOfFrames") or 1)
            return [frame.rstrip(b"\0") for frame in generate_frames(value, number_of_frames=number)]
        except ValueError:
            pass  # no fragments
    if dataset.file_meta.get("TransferSyntaxUID") == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        value = b"".join(value[at : at + 2][::-1] for at in range(0, len(value), 2))
    return [value.rstrip(b"\0")]
