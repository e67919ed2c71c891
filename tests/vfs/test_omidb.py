"""data/ of the layout `omidb` mirrors images/, and what it says follows from the archive."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Self

import pytest

from dicomfs.archive import attachments, documents, documents_omidb, omidb
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.clients import with_prefix
from dicomfs.archive.layouts import switch_off, switch_on
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import NotFound
from dicomfs.vfs import omidb_numbers as numbers
from dicomfs.vfs.node import ROOT, Attributes, Stale, waited
from dicomfs.vfs.tree import Tree
from tests.archive.importing import add
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPLATE = built_in()["omidb"]
DAY = "20240131"


class Shown:
    """The layout as a tree shows it."""

    def __init__(self, archive_path: Path, name: str = "omidb") -> None:
        self.archive = Archive.open(archive_path)
        self.tree = Tree(self.archive)
        self.name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tree.close()
        self.archive.close()

    def at(self, path: str) -> Any:
        """Return the attributes of what has this path below the layout's root, None where there is nothing."""
        found = self.tree.lookup(ROOT, self.name.encode())
        for name in path.split("/") if path else []:
            if found is None:
                return None
            above = found.ino
            found = waited(lambda above=above, name=name: self.tree.lookup(above, name.encode()))  # type: ignore[misc]
            if found is not None and path.startswith("data") and (found.is_directory or found.nlink == 1):
                assert self.tree.parent(found.ino) == above
        return found

    def read(self, path: str) -> bytes:
        """Read a file, which is as long as it is said to be."""
        found = self.at(path)
        file = self.tree.open(found.ino)
        text = bytes(file.read(0, found.size + 1))
        assert len(text) == found.size == file.size
        file.close()
        ready = waited(lambda: self.tree.open_ready(found.ino))
        assert ready is None or bytes(ready.read(0, found.size + 1)) == text
        return text

    def json(self, path: str) -> Any:
        """Read JSON."""
        return json.loads(self.read(path))

    def walk(self, ino: int, path: str = "") -> Iterator[tuple[str, Attributes]]:
        """Yield what is below a directory; each entry is what looking it up gives, and a listing goes on anywhere."""
        listed = waited(lambda: list(self.tree.entries(ino)))
        cookies = [entry[-1] for entry in listed]
        assert cookies == sorted(set(cookies))
        for at, cookie in enumerate(cookies):
            assert waited(lambda cookie=cookie: list(self.tree.entries(ino, cookie))) == listed[at + 1 :]  # type: ignore[misc]
        for name, child, is_directory, size, mtime_ns, nlink, _ in listed:
            found = Attributes(child, is_directory, size, mtime_ns, nlink)
            assert waited(lambda name=name: self.tree.lookup(ino, name)) == found  # type: ignore[misc]
            assert waited(lambda child=child: self.tree.attributes(child)) == found  # type: ignore[misc]
            below = f"{path}/{name.decode()}".lstrip("/")
            yield below, found
            if is_directory:
                yield from self.walk(child, below)

    def clients(self) -> list[str]:
        """Return the clients below data/."""
        data = self.at("data")
        return [name.decode() for name, *_ in waited(lambda: list(self.tree.entries(data.ino)))]


def assert_mirrors(shown: Shown) -> dict[str, Attributes]:
    """data/ has the directories of images/, a header for each image, and two documents that name just these."""
    images = dict(shown.walk(shown.at("images").ino))
    data = dict(shown.walk(shown.at("data").ino))
    headers = {path.removesuffix(".dcm") + ".json" for path, found in images.items() if not found.is_directory}
    directories = {path for path, found in images.items() if found.is_directory}
    listed = {f"{path}/{one}_{path}.json" for path in directories if "/" not in path for one in ("imagedb", "nbss")}
    assert set(data) == headers | directories | listed
    inodes = [found.ino for found in (*images.values(), *data.values())]
    assert len(set(inodes)) == len(inodes)
    for path, found in data.items():
        if path in directories:
            assert (found.mtime_ns, found.nlink) == (images[path].mtime_ns, images[path].nlink)
        elif path in headers:
            assert found.mtime_ns == images[path.removesuffix(".json") + ".dcm"].mtime_ns
            assert shown.json(f"data/{path}")["00020010"]["Value"]
    for client in (path for path in directories if "/" not in path):
        told = shown.json(f"data/{client}/imagedb_{client}.json")
        assert told["ClientID"] == client
        named = {
            f"{client}/{study}/{sop}.json"
            for study, about in told["STUDIES"].items()
            for key, series in about.items()
            if key not in ("StudyDate", "EpisodeID")
            for sop in series
        }
        assert named == {path for path in headers if path.startswith(f"{client}/")}
        nbss = shown.json(f"data/{client}/nbss_{client}.json")
        assert all(isinstance(nbss[about["EpisodeID"]], dict) for about in told["STUDIES"].values())
    return data


def test_an_empty_archive(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    with Shown(archive_path) as shown:
        assert [path for path, _ in shown.walk(shown.at("").ino)] == ["data"]
        assert shown.at("data").nlink == 2
        assert shown.at("").nlink == 3


def test_data_mirrors_images(archive_path: Path) -> None:
    add(archive_path, *(make_instance(number=number, series=series) for number in (1, 2) for series in (1, 2)))
    switch_on(archive_path, "omidb", TEMPLATE)
    add(archive_path, make_instance("MR", patient="optm7", patient_name="=山田^太郎", study=2, frames=2))
    add(archive_path, make_instance("SR", patient="optm7", study=3))
    add(archive_path, make_instance(number=1, seed="conflict"))
    add(archive_path, make_instance(number=2, seed="replaced"), on_conflict="replace")
    # Of the first study.
    add(archive_path, make_instance(number=9, attributes={"PatientID": "Z", "IssuerOfPatientID": "SITE"}))
    add(archive_path, make_instance(number=8, study=8, attributes={"PatientID": None, "StudyDate": None}))
    with Shown(archive_path) as shown:
        assert_mirrors(shown)
        assert shown.at("").nlink == 4
        assert shown.clients() == ["demd0000001", "optm7", "demd0000003", "demd0000004"]
        assert shown.json("data/demd0000001/imagedb_demd0000001.json")["Site"] == ""
        assert shown.json("data/demd0000003/imagedb_demd0000003.json")["Site"] == "SITE"
        told = shown.json("data/optm7/imagedb_optm7.json")
        study = uid("optm7", 2)
        assert told == {
            "ClientID": "optm7",
            "Site": "",
            "STUDIES": {
                study: {
                    "StudyDate": DAY, "EpisodeID": study, uid("optm7", 2, 1): {uid("optm7", 2, 1, 1): {}},
                },
                uid("optm7", 3): {
                    "StudyDate": DAY, "EpisodeID": uid("optm7", 3),
                    uid("optm7", 3, 1): {uid("optm7", 3, 1, 1): {}},
                },
            },
        }  # fmt: skip
        assert shown.json("data/optm7/nbss_optm7.json") == {
            study: {"EpisodeOpenedDate": DAY}, uid("optm7", 3): {"EpisodeOpenedDate": DAY},
        }  # fmt: skip
        header = shown.json(f"data/optm7/{study}/{uid('optm7', 2, 1, 1)}.json")
        assert header["00100010"]["Value"] == [{"Ideographic": "山田^太郎"}]


def test_names_that_are_none(archive_path: Path) -> None:
    add(archive_path, make_instance(patient="optm7"))
    switch_on(archive_path, "omidb", TEMPLATE)
    study, sop = uid("optm7", 1), uid("optm7", 1, 1, 1)
    with Shown(archive_path) as shown:
        for path in (
            "data/optm8", "data/OPTM7", "data/optm7/imagedb_optm8.json", "data/optm7/IMAGEDB_optm7.json",
            "data/optm7/imagedb_.json", f"data/optm7/{study}x", f"data/optm7/{study}/{sop}",
            f"data/optm7/{study}/.json",
            f"data/optm7/{study}/{sop}.dcm", f"data/optm7/{study}/{sop}.dcm.json", "data/imagedb_optm7.json",
            f"images/optm7/{study}/{sop}.json", "images/optm7/imagedb_optm7.json", "data/images", "images/data",
        ):  # fmt: skip
            assert shown.at(path) is None, path
        for ino in (numbers.inode(kind, number) for kind in range(8) for number in (0, 7, 1 << 30)):
            assert waited(lambda ino=ino: shown.tree.attributes(ino)) is None  # type: ignore[misc]
            assert waited(lambda ino=ino: list(shown.tree.entries(ino))) == []  # type: ignore[misc]
            assert shown.tree.parent(ino) is None
            with pytest.raises(NotFound):
                shown.tree.open(ino)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")  # which ACR-NEMA wrote
def test_a_study_without_a_date(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    for number, without in enumerate((("StudyDate",), ("StudyDate", "ContentDate")), 1):
        add(archive_path, make_instance(patient=f"optm{number}", attributes=dict.fromkeys(without)))
    add(archive_path, make_instance(patient="optm3", attributes={"StudyDate": "2024.02.03"}))
    add(archive_path, make_instance(patient="optm4", attributes={"StudyDate": "00120203"}))
    with Shown(archive_path) as shown:
        days = []
        for number in (1, 2, 3, 4):
            told = shown.json(f"data/optm{number}/imagedb_optm{number}.json")
            days += [about["StudyDate"] for about in told["STUDIES"].values()]
    assert days == [DAY, documents_omidb.STAND_IN, "20240203", "00120203"]


def test_an_attachment_is_shown_as_it_was_given(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    add(archive_path, make_instance(patient="optm1"), make_instance(patient="optm1", study=2))
    add(archive_path, make_instance(patient="A", attributes={"IssuerOfPatientID": "SITE"}))
    whole = b'{ "7":\n{"EpisodeOpenedDate": "2024-01-01", "SCREENING": {"L": {"DateTaken": "20240131"}}}, "x": 1.50}'
    attachments.attach(archive_path, "optm1", whole, "one.json")
    attachments.attach(archive_path, "A", b'{"7": {"EpisodeOpenedDate": "20250101"}}', "other.json")
    with Shown(archive_path) as shown:
        assert shown.read("data/optm1/nbss_optm1.json") == whole
        told = shown.json("data/optm1/imagedb_optm1.json")
        assert {about["EpisodeID"] for about in told["STUDIES"].values()} == {"7"}
        told = shown.json("data/demd0000002/imagedb_demd0000002.json")
        assert told["Site"] == "SITE"
        assert shown.json("data/demd0000002/nbss_demd0000002.json") == {
            "7": {"EpisodeOpenedDate": "20250101"}, uid("A", 1): {"EpisodeOpenedDate": DAY},
        }  # fmt: skip
        assert_mirrors(shown)
        before = shown.at("data/optm1/nbss_optm1.json")
    attachments.detach(archive_path, "optm1")
    with Shown(archive_path) as shown:
        assert set(shown.json("data/optm1/nbss_optm1.json")) == {uid("optm1", 1), uid("optm1", 2)}
        after = shown.at("data/optm1/nbss_optm1.json")
        assert after.ino != before.ino
        assert after.mtime_ns > before.mtime_ns
        assert waited(lambda: shown.tree.attributes(before.ino)) is None
        with pytest.raises(Stale):
            shown.tree.open(before.ino)


def everything(archive_path: Path) -> dict[str, tuple[Attributes, bytes]]:
    """Return all that there is below the layout."""
    with Shown(archive_path) as shown:
        return {
            path: (found, b"" if found.is_directory else shown.read(path))
            for path, found in shown.walk(shown.at("").ino)
        }


def test_it_is_the_same_after_everything(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    add(archive_path, *(make_instance(number=number, patient=patient) for number in (1, 2) for patient in "BA"))
    attachments.attach(archive_path, "A", b'{"7": {}}', "one.json")
    add(archive_path, make_instance(patient="A", number=2, seed="replaced"), on_conflict="replace")
    before = everything(archive_path)
    assert everything(archive_path) == before
    shutil.rmtree(archive_path / "cache")
    assert everything(archive_path) == before
    shutil.rmtree(archive_path / "index")
    assert reindex(archive_path).complete
    assert everything(archive_path) == before
    switch_off(archive_path, "omidb")
    switch_on(archive_path, "omidb", TEMPLATE)
    after = everything(archive_path)
    assert {path: text for path, (_, text) in after.items()} == {path: text for path, (_, text) in before.items()}
    switch_on(archive_path, "other", with_prefix(TEMPLATE, "optm"))
    with Shown(archive_path, "other") as shown:
        assert_mirrors(shown)
        assert shown.clients() == ["optm0000001", "optm0000002"]


def test_what_moved_to_another_client_leaves_nothing(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    add(archive_path, make_instance(patient="A"))
    attachments.attach(archive_path, "A", b'{"7": {}}', "one.json")
    add(archive_path, make_instance(patient="A", seed="b", attributes={"PatientID": "B"}), on_conflict="replace")
    with Shown(archive_path) as shown:
        assert_mirrors(shown)
        assert shown.at("data/demd0000001") is None
        assert len(shown.json("data/demd0000002/imagedb_demd0000002.json")["STUDIES"]) == 1


def test_headers_are_taken_over_from_the_bundle_before(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    cache = archive_path / "cache"

    def made() -> dict[int, int]:
        with Archive.open(archive_path) as archive:
            with archive.view() as view:
                (study,) = view.studies()
                path = documents.path(cache, "omidb", study.key, documents.study_stamp(view, study.key))
            documents_omidb.make_headers(archive, cache, (study.key,))
            assert [one for one in path.parent.iterdir() if one.name.startswith("omidb-")] == [path]
            from dicomfs.archive.bundle import Bundle

            return dict(omidb.Lengths(Bundle.open(path)))

    add(archive_path, make_instance(number=1), make_instance(number=2))
    first = made()
    add(archive_path, make_instance(number=3))
    read: list[int] = []
    header = documents_omidb._header
    monkeypatch.setattr(documents_omidb, "_header", lambda archive, ino: read.append(ino) or header(archive, ino))
    second = made()
    assert len(read) == 1
    assert first.items() < second.items()
    add(archive_path, make_instance(number=3, seed="x"), on_conflict="replace")
    third = made()
    assert len(third) == 3
    assert set(second) - set(third) == {read[0]}


def test_a_bundle_that_is_hurt_is_made_anew(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    add(archive_path, make_instance(patient="optm1"))
    before = everything(archive_path)
    for path in (archive_path / "cache" / "documents").rglob("*-*-*"):
        path.write_bytes(path.read_bytes()[:-9])
    assert everything(archive_path) == before


@pytest.mark.damaged
def test_what_is_hurt_is_left_out_and_comes_back(archive_path: Path) -> None:
    """An image whose header cannot be read has no JSON, an attachment that cannot be read is as none."""
    switch_on(archive_path, "omidb", TEMPLATE)
    for number in (1, 2):
        add(archive_path, make_instance(patient="optm1", number=number))
    document = json.dumps({"7": {"note": [f"{number}" * 9 for number in range(99)]}}).encode()
    attachments.attach(archive_path, "optm1", document, "one.json")
    packs = sorted((archive_path / "packs").iterdir())
    whole = [pack.read_bytes() for pack in packs]
    with Archive.open(archive_path) as archive, archive.view() as view:
        (last,) = (ino for ino in view.instances_where_uid(uid("optm1", 1, 1, 2)))
        inode = view.instance_inode(last)
        with archive.store.index.reading() as txn:
            place = archive.store.commit_place(txn, inode.seq)
    # The second image's header, and the document: the first entry of the last pack.
    for path, at in ((archive.store.packs.path(place.pack), place.body_offset + inode.body_offset), (packs[-1], 120)):
        data = bytearray(path.read_bytes())
        data[at : at + 30] = bytes(30)
        path.write_bytes(data)
    study = uid("optm1", 1)
    with Shown(archive_path) as shown:
        listed = [path for path, _ in shown.walk(shown.at("data").ino)]
        assert sorted(listed) == sorted(
            ["optm1", f"optm1/{study}", "optm1/imagedb_optm1.json", "optm1/nbss_optm1.json",
             f"optm1/{study}/{uid('optm1', 1, 1, 1)}.json"]
        )  # fmt: skip
        assert shown.at(f"data/optm1/{study}/{uid('optm1', 1, 1, 2)}.json") is None
        assert set(shown.json("data/optm1/nbss_optm1.json")) == {study}
        (about,) = shown.json("data/optm1/imagedb_optm1.json")["STUDIES"].values()
        assert len(about[uid("optm1", 1, 1)]) == 2
    for pack, data in zip(packs, whole, strict=True):
        pack.write_bytes(data)
    with Shown(archive_path) as shown:
        assert_mirrors(shown)
        assert set(shown.json("data/optm1/nbss_optm1.json")) == {"7", study}


def test_inode_numbers_say_what_they_are_of() -> None:
    for kind in range(6):
        for number in (1, 1024, (1 << 31) - 1, 1 << 39, (1 << 39) + 7):
            for version in (0, 1, numbers.VERSIONS - 1):
                ino = numbers.inode(kind, number, version)
                assert numbers.node(ino) == (kind, number, version)
                assert ino >> 56 == 4
    assert numbers.inode(0, 1 << 31) == numbers.inode(0, 1 << 40) == 0


@pytest.mark.corpus
def test_the_corpus(archive_path: Path, corpus: Path) -> None:
    from tests.archive.importing import run

    switch_on(archive_path, "omidb", TEMPLATE)
    run(archive_path, corpus, jobs=2)
    with Shown(archive_path) as shown:
        data = assert_mirrors(shown)
    assert sum(not found.is_directory for found in data.values()) > 600
