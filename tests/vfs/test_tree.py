"""The tree by itself: every node is found the same way from every side."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from dicomfs.errors import NotFound, UsageError
from dicomfs.vfs.node import DICOMWEB, DICOMWEB_STUDIES, PATIENTS, QUARANTINE, README, ROOT
from dicomfs.vfs.web_numbers import is_web
from tests.builders import make_instance, write_study
from tests.vfs.conftest import add

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicomfs.vfs.tree import Tree
    from tests.vfs.conftest import Plant, Stock


def walk(tree: Tree, ino: int = ROOT, path: str = "") -> Iterator[tuple[str, int, bool]]:
    for name, child, is_directory, *_ in list(tree.entries(ino)):
        below = f"{path}/{name.decode()}"
        yield below, child, is_directory
        if is_directory:
            yield from walk(tree, child, below)


def read(tree: Tree, ino: int) -> bytes:
    file = tree.open(ino)
    try:
        return bytes(file.read(0, file.size))
    finally:
        file.close()


def test_listing_lookup_and_attributes_agree_on_every_node(stock: Stock, plant: Plant) -> None:
    tree = plant(stock.archive)
    pending = [ROOT]
    seen = set()
    while pending:
        parent = pending.pop()
        cookies = []
        for name, ino, is_directory, size, mtime_ns, nlink, cookie in list(tree.entries(parent)):
            listed = (ino, is_directory, size, mtime_ns, nlink, False)
            assert tree.attributes(ino) == tree.lookup(parent, name) == listed
            assert tree.lookup(ino, b".") == listed
            if is_directory or nlink == 1 or parent == PATIENTS:  # a document with two names has one parent of two
                assert tree.lookup(ino, b"..") == tree.attributes(parent)
                assert tree.parent(ino) == parent
                assert ino not in seen
            seen.add(ino)
            cookies.append(cookie)
            if is_directory:
                pending.append(ino)
        assert cookies == sorted(set(cookies))
    assert len(seen) > 20


def test_files_hold_what_was_imported(stock: Stock, plant: Plant) -> None:
    tree = plant(stock.archive)
    found = [
        hashlib.sha256(read(tree, ino)).hexdigest()
        for path, ino, is_directory in walk(tree)
        if path.startswith("/patients/") and not is_directory
    ]
    assert sorted(found) == sorted(stock.written.values())


def test_a_file_opened_without_waiting_is_the_same(stock: Stock, plant: Plant) -> None:
    tree = plant(stock.archive)
    for _, ino, is_directory in walk(tree):
        if not is_directory:
            whole = read(tree, ino)
            file = tree.open_ready(ino)
            assert file is None or bytes(file.read(0, file.size)) == whole
    assert tree.open_ready(README) is not None


def test_sizes_are_those_of_the_bytes(stock: Stock, plant: Plant) -> None:
    tree = plant(stock.archive)
    for _, ino, is_directory in walk(tree):
        found = tree.attributes(ino)
        assert found is not None
        if not is_directory:
            assert found.size == len(read(tree, ino)) == tree.open(ino).size


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_listing_goes_on_from_any_cookie(stock: Stock, plant: Plant, size: int) -> None:
    tree = plant(stock.archive)
    for directory in [ROOT, QUARANTINE, *(ino for _, ino, is_directory in walk(tree) if is_directory)]:
        whole = list(tree.entries(directory))
        pieces, cookie = [], 0
        while piece := [entry for _, entry in zip(range(size), tree.entries(directory, cookie), strict=False)]:
            pieces += piece
            cookie = piece[-1][-1]
        assert pieces == whole


def test_directories_link_to_their_subdirectories(stock: Stock, plant: Plant) -> None:
    tree = plant(stock.archive)
    for directory in [ROOT, *(ino for _, ino, is_directory in walk(tree) if is_directory)]:
        found = tree.attributes(directory)
        assert found is not None
        # Those of UIDs say that nobody counts, as on filesystems whose directories have no links.
        counted = 2 + sum(entry[2] for entry in tree.entries(directory))
        assert found.nlink == (1 if directory in (DICOMWEB, DICOMWEB_STUDIES) or is_web(directory) else counted)


def test_numbers_that_are_no_nodes_are_not_found(stock: Stock, plant: Plant) -> None:
    tree = plant(stock.archive)
    for ino in (5, 1000, 1023, 999_999, 1 << 40, 1 << 56, (1 << 63) - 1):
        if tree.parent(ino) is None:
            assert tree.lookup(ino, b"..") is None
        assert tree.attributes(ino) is None
        assert tree.lookup(ino, b"x") is None
        assert tree.lookup(ino, b".") is None
        assert list(tree.entries(ino)) == []
        assert tree.xattr_names(ino) == []
        assert tree.xattr(ino, b"user.dicomfs.sha256") is None
        with pytest.raises(NotFound):
            tree.open(ino)


def test_the_views_are_those_named(stock: Stock, plant: Plant) -> None:
    assert [entry[1] for entry in plant(stock.archive).entries(ROOT)] == [PATIENTS, DICOMWEB, README, QUARANTINE]
    assert [entry[1] for entry in plant(stock.archive, ["patients"]).entries(ROOT)] == [PATIENTS, README]
    quarantined = next(iter(plant(stock.archive).entries(QUARANTINE)))
    assert plant(stock.archive, ["patients"]).lookup(ROOT, b"quarantine") is None
    assert plant(stock.archive, ["patients"]).attributes(quarantined[1]) is None
    with pytest.raises(UsageError, match=r"no view 'dates'; the views are: patients, dicomweb, quarantine.*layout add"):
        plant(stock.archive, ["dates"])


def test_extended_attributes_that_are_listed_have_values(stock: Stock, plant: Plant) -> None:
    tree = plant(stock.archive)
    ino = next(ino for path, ino, is_directory in walk(tree) if path.endswith("/00002.dcm"))
    names = tree.xattr_names(ino)
    assert len(names) == 5
    assert all(tree.xattr(ino, name) for name in names)
    assert tree.xattr(ino, b"user.dicomfs.sha256") == hashlib.sha256(read(tree, ino)).hexdigest().encode()
    assert tree.xattr(ino, b"user.dicom.Rows") in (b"96", b"64")
    assert tree.xattr(ino, b"user.dicom.NoSuchKeyword") is None
    assert tree.xattr(ino, b"user.dicom.\xff") is None
    assert tree.xattr(ino, b"user.other") is None


def test_statistics_count_what_is_shown(stock: Stock, plant: Plant) -> None:
    tree = plant(stock.archive)
    files = [ino for path, ino, is_directory in walk(tree) if path.startswith("/patients/") and not is_directory]
    assert tree.statistics() == (len(files), sum(len(read(tree, ino)) for ino in files))


def test_a_patient_that_the_study_disagrees_on_is_the_files_own(stock: Stock, plant: Plant, tmp_path: Path) -> None:
    for number, patient in enumerate(("A", "B"), start=1):
        content = make_instance(patient="same", study=9, number=number, attributes={"PatientID": patient})
        (tmp_path / f"{patient}.dcm").write_bytes(content)
    add(stock.archive.path, tmp_path / "A.dcm", tmp_path / "B.dcm")
    tree = plant(stock.archive)
    with stock.archive.view() as view:
        told = {
            str(instance.attributes["InstanceNumber"]): tree.xattr(instance.ino, b"user.dicom.PatientID")
            for study in view.studies()
            if len(study.patients) == 2
            for series in view.series_of(study.key)
            for instance in view.instances_of(series.key)
        }
    assert told == {"1": b"A", "2": b"B"}


def test_changes_name_the_directories_touched_and_the_names_removed(stock: Stock, plant: Plant, tmp_path: Path) -> None:
    tree = plant(stock.archive)
    before = {path: ino for path, ino, _ in walk(tree)}
    assert tree.changes() == (set(), [], True)
    write_study(tmp_path / "new", series=3, instances=1, study=1)
    (tmp_path / "new" / "series3" / "again").write_bytes(make_instance(seed="other"))
    add(stock.archive.path, tmp_path / "new", on_conflict="replace")
    found = tree.changes()
    study = before["/patients/DFS-1_Doe_Jane/20240131_1015_Study 1"]
    first = before["/patients/DFS-1_Doe_Jane/20240131_1015_Study 1/0001_CT_Series 1"]
    assert {ROOT, PATIENTS, study, first} <= set(found.directories)
    assert (first, b"00001.dcm") in found.removed
    assert found.complete
    assert tree.changes() == (set(), [], True)


def test_changes_too_far_back_make_everything_be_forgotten(stock: Stock, plant: Plant, tmp_path: Path) -> None:
    tree = plant(stock.archive)
    tree._catalog.seq = -1
    write_study(tmp_path / "new", instances=1, patient="DFS-3")
    add(stock.archive.path, tmp_path / "new")
    found = tree.changes()
    assert not found.complete
    assert (ROOT, b"patients") in found.removed
    assert {ROOT, PATIENTS} <= set(found.directories)
