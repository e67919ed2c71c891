"""The DICOMweb tree of the corpus: every document whole, every bulk value where a document says, counts that agree."""

from __future__ import annotations

import gzip
import io
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urljoin

import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian

from dicomfs.archive.archive import Archive
from dicomfs.archive.documents import directory_name
from dicomfs.vfs.node import ROOT
from tests.archive.importing import run
from tests.vfs.conftest import PatientTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = [pytest.mark.corpus, pytest.mark.slow]

BASE = "http://localhost/"
UNREADABLE = {
    "1.2.276.0.7230010.3.1.4.1787205428.2345.1071048146.1": "bytes after the pixel data, which pydicom takes for a tag",
    "2.25.17780500243836338": "sequences so deep that pydicom's recursion ends",
}
"""What pydicom cannot read, and why."""
WIDTHS = {"OW": 2, "US": 2, "SS": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8, "UL": 4, "FL": 4, "FD": 8, "AT": 2}


class Grown(NamedTuple):
    """The tree of the whole corpus, and what is in it by path."""

    archive: Archive
    tree: PatientTree
    files: Mapping[str, int]
    directories: Mapping[str, int]

    def read(self, path: str) -> bytes:
        return read(self.tree, self.files[path])

    def find(self, path: str) -> int | None:
        """Return the node that a path leads to, listed or not."""
        ino = ROOT
        for name in path.strip("/").split("/"):
            found = self.tree.lookup(ino, unquote(name).encode())
            if found is None:
                return None
            ino = found.ino
        return ino


def read(tree: PatientTree, ino: int) -> bytes:
    file = tree.open(ino)
    try:
        whole = bytes(file.read(0, file.size + 1))
    finally:
        file.close()
    found = tree.attributes(ino)
    assert found is not None
    assert len(whole) == file.size == found.size
    return whole


def walk(tree: PatientTree, ino: int, path: str) -> Iterator[tuple[str, int, bool]]:
    for name, child, is_directory, *_ in list(tree.entries(ino)):
        below = f"{path}/{name.decode()}"
        yield below, child, is_directory
        if is_directory:
            yield from walk(tree, child, below)


@pytest.fixture(scope="module")
def grown(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    path = tmp_path_factory.mktemp("dicomweb") / "archive"
    Archive.init(path)
    run(path, corpus, jobs=2)
    with Archive.open(path) as archive:
        tree = PatientTree(archive, ["dicomweb"])
        try:
            root = tree.lookup(ROOT, b"dicomweb")
            assert root is not None
            nodes = list(walk(tree, root.ino, "dicomweb"))
            files = {path: ino for path, ino, is_directory in nodes if not is_directory}
            yield Grown(archive, tree, files, {path: ino for path, ino, is_directory in nodes if is_directory})
        finally:
            tree.close()


def documents(grown: Grown) -> Iterator[tuple[str, Any]]:
    for path in grown.files:
        if path.endswith(".gz") and "/bulkdata/" not in path:
            yield path, json.loads(gzip.decompress(grown.read(path)))


def elements(dataset: Mapping[str, Any], above: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Walk the elements of an object, each with its path: tags, and numbers of items."""
    for tag, element in dataset.items():
        yield (*above, tag), element
        if element["vr"] == "SQ":
            for number, item in enumerate(element.get("Value", [])):
                yield from elements(item, (*above, tag, number))


def test_every_document_is_json_of_the_size_it_has(grown: Grown) -> None:
    seen = 0
    for path, document in documents(grown):
        seen += 1
        assert isinstance(document, list), path
        for one in document:
            keys = list(one)
            assert keys == sorted(keys), path
            assert all(re.fullmatch("[0-9A-F]{8}", key) for key in keys), path
        plain = grown.find(path.removesuffix(".gz"))
        if plain is not None and path.removesuffix(".gz") not in grown.directories:
            assert json.loads(read(grown.tree, plain)) == document
    assert seen > 1500


def test_documents_are_the_same_when_they_are_made_again(grown: Grown, tmp_path: Path) -> None:
    before = {path: grown.read(path) for path in grown.files if path.endswith(".gz")}
    other = PatientTree(grown.archive, ["dicomweb"])
    other._web._shelf._cache = tmp_path  # type: ignore[union-attr] # nothing is in it
    try:
        from dicomfs.archive.makers import Makers

        other._web._shelf._makers = Makers(grown.archive.path, tmp_path)  # type: ignore[union-attr] # as above
        for path, data in before.items():
            assert read(other, grown.files[path]) == data, path
    finally:
        other.close()


def test_counts_agree_at_all_levels(grown: Grown) -> None:
    held = {path: document for path, document in documents(grown) if path.endswith(("index.json.gz", "metadata.gz"))}
    listed = held["dicomweb/studies/index.json.gz"]
    assert len(listed) == len({path for path in grown.directories if path.count("/") == 2})
    total = 0
    for study in listed:
        place = f"dicomweb/studies/{directory_name(study['0020000D']['Value'][0])}"
        assert held[f"{place}/index.json.gz"] == [study]
        series_list = held[f"{place}/series/index.json.gz"]
        assert study["00201206"]["Value"] == [len(series_list)]
        instances = 0
        for series in series_list:
            below = f"{place}/series/{directory_name(series['0020000E']['Value'][0])}"
            found = held[f"{below}/instances/index.json.gz"]
            whole = held[f"{below}/metadata.gz"]
            names = [one["00080018"]["Value"][0] for one in whole]
            assert series["00201209"]["Value"] == [len(found)] == [len(whole)]
            assert [one["00080018"]["Value"][0] for one in found] == names
            assert {f"{below}/instances/{directory_name(name)}" for name in names} == {
                path for path in grown.directories if re.fullmatch(re.escape(below) + "/instances/[^/]+", path)
            }
            instances += len(found)
            for name, one in zip(map(directory_name, names), whole, strict=True):
                (own,) = held[f"{below}/instances/{name}/metadata.gz"]
                assert own.keys() == one.keys()
                frames = [path for path in grown.files if path.startswith(f"{below}/instances/{name}/frames/")]
                pictures = [path for path in grown.files if path.startswith(f"{below}/instances/{name}/rendered/")]
                assert len([path for path in pictures if "." not in path.rpartition("/")[2]]) == len(frames)
        assert study["00201208"]["Value"] == [instances]
        assert len(held[f"{place}/metadata.gz"]) == instances
        total += instances
    with grown.archive.view() as view:
        assert total == sum(view.shown(study.key) for study in view.studies())


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of what pydicom makes of the corpus
def test_every_bulk_value_is_the_elements(grown: Grown) -> None:
    """By RFC 3986 from where the document stands; the bytes are those of the element in the source file."""
    compared = 0
    for path, document in documents(grown):
        if "deduplicated" in path:
            continue
        url = BASE + path.removesuffix(".gz")
        for one in document:
            source = None
            for place, element in elements(one):
                uri = element.get("BulkDataURI")
                if uri is None:
                    continue
                target = urljoin(url, uri).removeprefix(BASE)
                assert unquote(target) in grown.files, (path, place, uri)
                name = one["00080018"]["Value"][0]
                if not re.fullmatch(".*/instances/[^/]+/metadata.gz", path) or name in UNREADABLE:
                    continue
                source = source or source_of(grown, one)
                compared += 1
                expected = value_of(source, place)
                fetched = grown.read(unquote(target))
                assert fetched == expected, (path, place, len(fetched), len(expected))
    assert compared > 500


def source_of(grown: Grown, one: Mapping[str, Any]) -> pydicom.Dataset:
    study, series, name = (one[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    with grown.archive.view() as view:
        number = view.series_with_uid(view.study_with_uid(study) or 0, series)
        ino = view.shown_with_uid(number or 0, name)
    assert ino is not None
    file = grown.archive.open_instance(ino)
    return pydicom.dcmread(io.BytesIO(bytes(file.read(0, file.size))), force=True)


def value_of(source: pydicom.Dataset, place: tuple[str | int, ...]) -> bytes:
    dataset: Any = source
    for tag, number in zip(place[:-1:2], place[1:-1:2], strict=True):
        dataset = dataset[int(str(tag), 16)].value[number]
    element = dataset.get_item(int(str(place[-1]), 16))
    value: bytes = element.value
    if source.original_encoding[1] is False or source.file_meta.get("TransferSyntaxUID") == ExplicitVRBigEndian:
        width = WIDTHS.get(str(element.VR), 1)
        value = b"".join(value[at : at + width][::-1] for at in range(0, len(value), width))
    return value


def test_deduplicated_lists_lead_to_their_values(grown: Grown) -> None:
    seen = 0
    for path, document in documents(grown):
        if "/deduplicated" not in path:
            continue
        url = BASE + path.removesuffix(".gz")
        for one in document:
            for place, element in elements(one):
                if "BulkDataURI" in element:
                    seen += 1
                    target = unquote(urljoin(url, element["BulkDataURI"]).removeprefix(BASE))
                    assert target in grown.files, (path, place, element)
    assert seen > 500
