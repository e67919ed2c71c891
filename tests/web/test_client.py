"""dicomweb-client, which we did not write, against nginx over a drive of the corpus; pydicom says what is right."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicomfs.archive.documents import directory_name
from tests.builders import uid
from tests.web.conftest import SLICES, Stocked, dicomfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The corpus holds much that pydicom warns of.
pytestmark = [pytest.mark.mounted, pytest.mark.corpus, pytest.mark.filterwarnings("ignore")]

WANTED = 50
RELABELLED = {"1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}
"""Big endian and deflated frames are served plain, in little endian."""
NOT_DECODED = {
    f"1.2.840.10008.1.2.{number}" for number in ("4.51", "4.53", "4.55", "4.57", "4.70", "4.110", "4.111", "8.1")
}
"""pydicom alone has no decoder for these, or none for 12 bits: there, frames must be the fragments themselves."""


def is_uid(uid: str) -> bool:
    """Say whether a client that goes by UIDs finds it: what is none (PS3.5 9.1) is not its directory's name either."""
    return directory_name(uid) == uid


@pytest.fixture(scope="module")
def client(stocked: Stocked) -> DICOMwebClient:
    return DICOMwebClient(stocked.serving.dicomweb, permissive_uid=True)  # the corpus has longer ones, and hashes


class Known(NamedTuple):
    """What dicomfs query and the corpus's manifest say of an instance that the tree shows."""

    study: str
    series: str
    instance: str
    transfer_syntax: str
    size: int
    path: Path


@pytest.fixture(scope="module")
def known(stocked: Stocked) -> list[Known]:
    """Return every current instance of the corpus."""
    with (stocked.corpus / "MANIFEST.tsv").open(newline="") as manifest:
        rows = csv.DictReader(manifest, delimiter="\t", quoting=csv.QUOTE_NONE)
        paths = {row["sha256"]: stocked.corpus / row["path"] for row in rows}
    found = json.loads(dicomfs("query", "-a", stocked.archive, "--study-uid", "*", "--level", "instance", "--json"))
    current = [one for one in found if one["current"]]
    assert len(current) > 500
    return [
        Known(
            one["StudyInstanceUID"], one["SeriesInstanceUID"], one["SOPInstanceUID"],
            one.get("TransferSyntaxUID", ""), one["size"], paths[one["sha256"]],
        )
        for one in current if one["sha256"] in paths
    ]  # fmt: skip


@pytest.fixture(scope="module")
def named(known: list[Known]) -> list[Known]:
    """Return those that a client finds by their UIDs."""
    found = [one for one in known if all(map(is_uid, one[:3]))]
    assert len(known) - len(found) < 5
    return found


@pytest.fixture(scope="module")
def metadata(client: DICOMwebClient) -> dict[str, dict[str, Any]]:
    """Return what the studies' metadata say of each instance."""
    studies = filter(is_uid, [value(study, "0020000D") for study in client.search_for_studies()])
    return {value(item, "00080018"): item for study in studies for item in client.retrieve_study_metadata(study)}


def value(item: dict[str, Any], tag: str) -> Any:
    return item[tag]["Value"][0]


def test_search_and_metadata_of_every_study(client: DICOMwebClient, known: list[Known]) -> None:
    studies = client.search_for_studies(get_remaining=True)
    own = uid("DFS-WEB", 1)
    assert Counter(value(study, "0020000D") for study in studies) == Counter({one.study for one in known} | {own})
    found = set()
    for study in studies:
        study_uid = value(study, "0020000D")
        if not is_uid(study_uid):
            continue
        assert client.search_for_studies(search_filters={"StudyInstanceUID": study_uid}) == [study]
        all_series = client.search_for_series(study_uid)
        assert value(study, "00201206") == len(all_series)
        instances = 0
        for series in all_series:
            series_uid = value(series, "0020000E")
            if not is_uid(series_uid):
                continue
            listed = [value(one, "00080018") for one in client.search_for_instances(study_uid, series_uid)]
            assert value(series, "00201209") == len(listed)
            described = client.retrieve_series_metadata(study_uid, series_uid)
            assert [value(item, "00080018") for item in described] == listed
            found.update((study_uid, series_uid, instance) for instance in listed)
            instances += len(listed)
        assert value(study, "00201208") == instances == len(client.retrieve_study_metadata(study_uid))
    expected = {one[:3] for one in known if is_uid(one.study) and is_uid(one.series)}
    assert found == expected | {(own, uid("DFS-WEB", 1, 1), uid("DFS-WEB", 1, 1, n)) for n in range(1, SLICES + 1)}


def test_metadata_is_the_file(client: DICOMwebClient, named: list[Known]) -> None:
    for one in named[:: len(named) // 40]:
        item = client.retrieve_instance_metadata(one.study, one.series, one.instance)
        served = Dataset.from_json({tag: element for tag, element in item.items() if "BulkDataURI" not in element})
        source = pydicom.dcmread(one.path, force=True)
        for keyword in ("PatientID", "StudyDate", "Modality", "InstanceNumber", "Rows", "PixelSpacing", "ImageType"):
            assert served.get(keyword) == source.get(keyword), keyword
        assert str(served.get("PatientName")) == str(source.get("PatientName"))


def read(path: Path) -> Dataset:
    """Return what pydicom reads from a file, nothing where it cannot."""
    try:
        return pydicom.dcmread(path, force=True)
    except Exception:  # noqa: BLE001 - whatever it is that it stumbles over
        return Dataset()


def reference(source: Dataset) -> list[np.ndarray] | None:
    """Return the frames as pydicom decodes them from the file; None where it cannot."""
    try:
        pixels = source.pixel_array
    except Exception:  # noqa: BLE001 - whatever it is that it stumbles over
        return None
    return [pixels] if int(source.get("NumberOfFrames") or 1) == 1 else list(pixels)


def one_frame(source: Dataset, frame: bytes, transfer_syntax: UID) -> Dataset:
    """Return the image that a served frame is, described by the attributes of its source."""
    served = Dataset()
    served.update(source.group_dataset(0x0028))
    served.NumberOfFrames = 1
    served.file_meta = FileMetaDataset()
    served.file_meta.TransferSyntaxUID = transfer_syntax
    [keyword] = {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(source.dir())
    if transfer_syntax.is_compressed:
        served.PixelData = encapsulate([frame])
        served["PixelData"].VR = "OB"
    else:
        setattr(served, keyword, frame + b"\0" * (len(frame) % 2))
        if keyword == "PixelData":
            served["PixelData"].VR = "OW"
    return served


def chosen(known: list[Known]) -> Iterator[tuple[Known, Dataset, list[np.ndarray] | None]]:
    """Yield instances with pixels, at least WANTED: in turn one of each transfer syntax, small ones first.

    What pydicom cannot decode is taken only where it can decode none of its transfer syntax.
    """
    kinds: dict[str, list[Known]] = defaultdict(list)
    for one in sorted(known, key=lambda one: (one.size, one.instance)):
        kinds[one.transfer_syntax].append(one)
    taken: Counter[str] = Counter()
    undecodable: dict[str, tuple[Known, Dataset]] = {}
    queues = {kind: iter(instances) for kind, instances in kinds.items()}
    while queues and (taken.total() < WANTED or undecodable.keys() & queues.keys()):
        for kind, queue in list(queues.items()):
            for one in queue:
                source = read(one.path)
                if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(source.dir()):
                    continue
                frames = reference(source)
                if frames is None:
                    undecodable.setdefault(kind, (one, source))
                    continue
                undecodable.pop(kind, None)
                taken[kind] += 1
                yield one, source, frames
                break
            else:
                del queues[kind]
    for one, source in undecodable.values():
        yield one, source, None


def test_frames(
    stocked: Stocked, client: DICOMwebClient, named: list[Known], metadata: dict[str, dict[str, Any]]
) -> None:
    """All frames of instances of every transfer syntax are, decoded, what pydicom decodes from the file."""
    seen: Counter[str] = Counter()
    undecoded = set()
    for one, source, frames in chosen(named):
        seen[one.transfer_syntax] += 1
        syntax = UID(value(metadata[one.instance], "00083002"))
        assert syntax == (ExplicitVRLittleEndian if one.transfer_syntax in RELABELLED else one.transfer_syntax)
        place = f"dicomweb/studies/{one.study}/series/{one.series}/instances/{one.instance}/frames"
        head = stocked.serving.get(f"{place}/1").body.split(b"\r\n\r\n")[0].split(b"\r\n")[1]
        assert re.fullmatch(f"Content-Type: [a-z]+/[a-z0-9-]+; transfer-syntax={re.escape(syntax)}", head.decode())
        count = int(source.get("NumberOfFrames") or 1)
        fragments = []
        if frames is None:
            undecoded.add(syntax)
            fragments = list(generate_frames(source.PixelData, number_of_frames=count))
        for number in range(1, count + 1):
            [frame] = client.retrieve_instance_frames(one.study, one.series, one.instance, [number])
            if frames is None:
                assert bytes(frame) == fragments[number - 1], (one.path, number)
                continue
            decoded = one_frame(source, bytes(frame), syntax).pixel_array
            assert np.array_equal(decoded, frames[number - 1]), (one.path, number)
    assert seen.total() - len(undecoded) >= WANTED
    assert {one.transfer_syntax for one in named if "7FE00010" in metadata[one.instance]} == seen.keys()
    assert undecoded <= NOT_DECODED


def test_bulk_data(client: DICOMwebClient, metadata: dict[str, dict[str, Any]], named: list[Known]) -> None:
    """What a BulkDataURI leads to, from where the document stands, is the element's value in the file."""
    fetched: Counter[str] = Counter()
    for one in named[::4]:
        source = read(one.path)
        for tag, element in metadata[one.instance].items():
            held = source.get(int(tag, 16))
            # pydicom leaves big endian values as they are; the tree turns them.
            if "BulkDataURI" not in element or held is None or one.transfer_syntax == ExplicitVRBigEndian:
                continue
            address = urljoin(f"{client.base_url}/studies/{one.study}/metadata", element["BulkDataURI"])
            [content] = client.retrieve_bulkdata(address)
            assert bytes(content) == held.value, (one.path, tag)
            assert client._http_get(address, headers={"Accept": "*/*"}).content == held.value
            fetched[element["vr"]] += 1
    assert fetched["OW"] > 10
    assert fetched["OB"] > 10


def test_whole_instances(client: DICOMwebClient, named: list[Known]) -> None:
    for one in named[:: len(named) // 20]:
        answer = client._http_get(
            f"{client.base_url}/studies/{one.study}/series/{one.series}/instances/{one.instance}",
            headers={"Accept": 'multipart/related; type="application/dicom"'},
        )
        [part] = client._decode_multipart_message(answer, stream=False)
        assert bytes(part) == one.path.read_bytes()
        assert pydicom.dcmread(io.BytesIO(part), force=True).SOPInstanceUID == one.instance
