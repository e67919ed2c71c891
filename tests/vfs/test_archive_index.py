"""archive_index.json agrees with the tree beside it, and is made anew when that has changed."""

from __future__ import annotations

import json
import shutil
import stat
from typing import TYPE_CHECKING, Any, Self

import pytest

from dicomfs.archive import archive_index
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.layouts import switch_on
from dicomfs.vfs.node import ROOT, Stale, waited
from dicomfs.vfs.tree import Tree
from tests.archive.importing import add
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = b"archive_index.json"
KEYS = {
    "patients": {"patientName", "patientID", "studies"},
    "studies": {"studyInstanceUID", "studyDate", "studyDescription", "accessionNumber", "modality", "series"},
    "series": {"seriesInstanceUID", "seriesNumber", "seriesDescription", "modality", "instances"},
    "instances": {"sopInstanceUID", "sopClassUID", "instanceNumber", "filePath", "fileSize", "importDate"},
}


def on(archive_path: Path) -> None:
    """Switch the layout on."""
    switch_on(archive_path, "archive", built_in()["archive"])


class Shown:
    """The layout as a tree shows it."""

    def __init__(self, archive_path: Path) -> None:
        self.archive = Archive.open(archive_path)
        self.tree = Tree(self.archive)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tree.close()
        self.archive.close()

    def at(self, path: str) -> Any:
        """Return the attributes of what has this path below the layout's root."""
        found = self.tree.lookup(ROOT, b"archive")
        for name in path.split("/") if path else []:
            assert found is not None
            found = waited(lambda above=found, name=name: self.tree.lookup(above.ino, name.encode()))  # type: ignore[misc]
        return found

    def index(self) -> dict[str, Any]:
        """Read the index, whose size is what `stat` says."""
        found = self.at("archive_index.json")
        file = self.tree.open(found.ino)
        text = bytes(file.read(0, found.size + 1))
        file.close()
        assert len(text) == found.size
        return json.loads(text)

    def walk(self, ino: int, path: str = "") -> Iterator[str]:
        """Yield the paths of all files below a directory."""
        for name, child, is_directory, *_ in waited(lambda: list(self.tree.entries(ino))):
            below = f"{path}/{name.decode()}".lstrip("/")
            if is_directory:
                yield from self.walk(child, below)
            else:
                yield below


def instances(index: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all instances, each level with its keys and nothing empty."""
    for patient in index["patients"]:
        assert set(patient) == KEYS["patients"]
        assert patient["studies"]
        for study in patient["studies"]:
            assert set(study) == KEYS["studies"]
            assert study["series"]
            for series in study["series"]:
                assert set(series) == KEYS["series"]
                assert series["instances"]
                yield from series["instances"]


def assert_agrees(shown: Shown) -> dict[str, Any]:
    """The index names exactly the files of the tree, each with its size."""
    index = shown.index()
    found = list(instances(index))
    root = shown.at("")
    assert sorted(one["filePath"] for one in found) == sorted(set(shown.walk(root.ino)) - {NAME.decode()})
    assert index["fileCount"] == len(found)
    for one in found:
        assert set(one) == KEYS["instances"]
        assert shown.at(one["filePath"]).size == one["fileSize"]
        assert one["filePath"].endswith(f"/{one['sopInstanceUID']}.dcm") or "~" in one["filePath"]
    return index


def test_an_empty_archive(archive_path: Path) -> None:
    on(archive_path)
    with Shown(archive_path) as shown:
        index = shown.index()
    assert index["patients"] == []
    assert (index["fileCount"], index["version"]) == (0, "1.0")
    assert index["lastModified"] == index["creationDate"]


def test_it_agrees_with_the_tree(archive_path: Path) -> None:
    add(archive_path, *(make_instance(number=number, series=series) for number in (1, 2) for series in (1, 2)))
    on(archive_path)
    add(archive_path, make_instance("MR", patient="A/B", patient_name="=山田^太郎", study=2, frames=2))
    add(archive_path, make_instance(number=1, seed="conflict"))
    add(archive_path, make_instance(number=2, seed="replaced"), on_conflict="replace")
    add(archive_path, make_instance(number=9, attributes={"PatientID": "Z"}))  # of the first study
    with Shown(archive_path) as shown:
        index = assert_agrees(shown)
        mode = next((archive_path / "cache" / "indexes").iterdir()).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
    assert [patient["patientID"] for patient in index["patients"]] == ["DFS-1", "A/B", "Z"]
    assert [patient["patientName"] for patient in index["patients"]] == ["Doe^Jane", "=山田^太郎", "Doe^Jane"]
    study = index["patients"][1]["studies"][0]
    assert (study["studyInstanceUID"], study["modality"], study["studyDate"]) == (uid("A/B", 2), "MR", "20240131")
    assert index["lastModified"] >= index["creationDate"]


def test_it_is_made_anew_when_the_archive_changes(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomfs.vfs.archive_index.GRACE_S", 0.0)
    add(archive_path, make_instance(number=1))
    on(archive_path)
    with Shown(archive_path) as shown:
        assert shown.index()["fileCount"] == 1
        old = shown.at("archive_index.json")
        file = shown.tree.open(old.ino)
    # An index is open once in a process, so the writer gets it in between.
    add(archive_path, make_instance(number=2))
    assert json.loads(bytes(file.read(0, old.size)))["fileCount"] == 1
    file.close()
    with Shown(archive_path) as shown:
        assert assert_agrees(shown)["fileCount"] == 2
        assert shown.at("archive_index.json").ino != old.ino
        assert shown.tree.attributes(old.ino) is None
        with pytest.raises(Stale):
            shown.tree.open(old.ino)
        assert len(list((archive_path / "cache" / "indexes").iterdir())) == 1


def test_the_cache_may_go_at_any_time(archive_path: Path) -> None:
    add(archive_path, make_instance(number=1))
    on(archive_path)
    with Shown(archive_path) as shown:
        found = shown.at("archive_index.json")
        shutil.rmtree(archive_path / "cache" / "indexes")
        with pytest.raises(Stale):
            shown.tree.open(found.ino)
        assert shown.index()["fileCount"] == 1


def test_another_layout_of_the_name_has_none(archive_path: Path) -> None:
    add(archive_path, make_instance(number=1))
    switch_on(archive_path, "archive", "{n}.dcm")
    with Shown(archive_path) as shown:
        assert list(shown.walk(shown.at("").ino)) == ["1.dcm"]
        assert shown.at("archive_index.json") is None


def test_what_is_made_follows_from_the_catalog_alone(archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, *(make_instance(number=number) for number in range(1, 4)))
    on(archive_path)
    texts = []
    for name in ("one", "other"):
        cache = tmp_path / name
        cache.mkdir()
        with Archive.open(archive_path) as archive:
            with archive.view() as view:
                root = view.layouts()[0].root
            archive_index.make(archive, cache, (root,))
            archive_index.make(archive, cache, (root,))
        found = archive_index.made(cache, root)
        assert found is not None
        texts.append(found.path.read_bytes())
    assert texts[0] == texts[1]


@pytest.mark.corpus
def test_the_corpus(archive_path: Path, corpus: Path) -> None:
    from tests.archive.importing import run

    on(archive_path)
    run(archive_path, corpus, jobs=2)
    with Shown(archive_path) as shown:
        assert_agrees(shown)
