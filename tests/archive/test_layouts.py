"""Layouts in an archive: names are claimed once, whatever is imported, taken off, killed or rebuilt meanwhile."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import ingest, layouts, placing
from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.layouts import layouts_of, switch_off, switch_on
from dicomfs.archive.names import component
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import UsageError
from tests.archive.importing import Shown, add, packs, run, tables, tree, walk
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

BY_UID = "data/{PatientID!plain|'UNKNOWN'}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
COUNTED = "DATE-{StudyDate}--{Modality}--PID-{PatientID}{study}/SER-{SeriesNumber}{series}/{n}.dcm"


def shown(archive: Path, name: str) -> dict[str, Shown]:
    """Return what a layout shows."""
    with Archive.open(archive) as opened, opened.view() as view:
        (state,) = (one for one in view.layouts() if one.name == name and one.on)
        return walk(view, state.root)


def inodes(files: dict[str, Shown]) -> list[int]:
    """Return the inode numbers of files."""
    return sorted(file.ino for file in files.values())


def numbered(archive: Path, *numbers: int, **kinds: object) -> None:
    """Import the instances with these numbers, in this order."""
    add(archive, *(make_instance(number=number, **kinds) for number in numbers))  # type: ignore[arg-type]


@pytest.mark.parametrize("template", [BY_UID, COUNTED])
def test_every_instance_is_in_every_layout_under_its_one_inode_number(archive_path: Path, template: str) -> None:
    numbered(archive_path, 2, 1)
    assert switch_on(archive_path, "own", template).instances == 2
    numbered(archive_path, 3, 2, modality="MR", study=2, frames=2)
    assert inodes(shown(archive_path, "own")) == inodes(tree(archive_path))
    assert len(tree(archive_path)) == 4
    assert switch_on(archive_path, "own", template).instances == 0


def test_names_are_those_of_the_template(archive_path: Path) -> None:
    switch_on(archive_path, "uids", BY_UID)
    numbered(archive_path, 1, patient="A/B")
    numbered(archive_path, 1, patient="A_B")
    numbered(archive_path, 1, patient="..")
    first, second, third = sorted(shown(archive_path, "uids"))
    assert first.split("/")[:2] == ["data", "A_B"]
    assert first.split("/")[-1] == uid("A/B", 1, 1, 1) + ".dcm"
    assert second.split("/")[1].startswith("A_B~")
    assert third.split("/")[1] == "UNKNOWN"


def test_counters_go_by_slices_and_go_on_after_the_last(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "COMMIT_BYTES", 1)  # a commit for each file
    switch_on(archive_path, "own", COUNTED)
    numbered(archive_path, 9, 3, 7)
    first = shown(archive_path, "own")
    names = {number: f"DATE-20240131--CT--PID-DFS-1/SER-1/{number}.dcm" for number in range(1, 6)}
    plain = {file.ino: path[-7:-4].lstrip("0/") for path, file in tree(archive_path).items()}
    assert [plain[first[names[number]].ino] for number in (1, 2, 3)] == ["3", "7", "9"]
    numbered(archive_path, 8, 1)
    second = shown(archive_path, "own")
    assert {path: second[path] for path in first} == first
    plain = {file.ino: path[-7:-4].lstrip("0/") for path, file in tree(archive_path).items()}
    assert [plain[second[names[number]].ino] for number in (4, 5)] == ["1", "8"]


def test_two_studies_that_look_the_same_have_a_directory_each(archive_path: Path) -> None:
    switch_on(archive_path, "own", COUNTED)
    numbered(archive_path, 1, study=1)
    numbered(archive_path, 1, study=2)
    first, second = sorted(shown(archive_path, "own"))
    assert first == "DATE-20240131--CT--PID-DFS-1/SER-1/1.dcm"
    assert second.startswith("DATE-20240131--CT--PID-DFS-1~")


@pytest.mark.parametrize("template", [BY_UID, COUNTED, "{Modality}/{StudyDate:%Y}/{SOPInstanceUID}.dcm", "{n}.dcm"])
def test_a_rebuild_gives_the_same(archive_path: Path, template: str) -> None:
    numbered(archive_path, 3, 1)
    switch_on(archive_path, "own", template)
    numbered(archive_path, 2, series=2)
    add(archive_path, make_instance(number=2, series=2, seed="conflict"))
    add(archive_path, make_instance(number=3, seed="replaced"), on_conflict="replace")
    switch_on(archive_path, "other", "{PatientID}/{InstanceNumber}")
    switch_off(archive_path, "other")
    before, index = shown(archive_path, "own"), tables(archive_path)
    assert inodes(before) == inodes(tree(archive_path))
    shutil.rmtree(archive_path / "index")
    assert reindex(archive_path).complete
    assert tables(archive_path) == index
    assert shown(archive_path, "own") == before


def test_layouts_applied_before_and_after_an_import_name_alike(tmp_path: Path) -> None:
    """But for inode numbers: what an import claims at once is what applying a layout later claims."""
    paths = []
    for early in (True, False):
        archive = tmp_path / f"archive{early}"
        Archive.init(archive)
        if early:
            switch_on(archive, "own", BY_UID)
        numbered(archive, 1, 2, patient="A/B")
        numbered(archive, 1, patient="A_B")
        add(archive, make_instance(number=1, patient="A_B", seed="conflict"))
        # A study whose files disagree on the patient.
        add(archive, make_instance(number=7, attributes={"PatientID": "Z"}), make_instance(number=8))
        if not early:
            switch_on(archive, "own", BY_UID)
        paths.append({path: file.sha256 for path, file in shown(archive, "own").items()})
        assert check(archive, verify_files=True).problems == []
    assert paths[0] == paths[1]
    assert {path.split("/")[1] for path in paths[0]} >= {"A_B", "Z", "DFS-1"}


@pytest.mark.parametrize("template", [BY_UID, COUNTED])
def test_what_replaces_another_has_its_name(archive_path: Path, template: str) -> None:
    switch_on(archive_path, "own", template)
    switch_on(archive_path, "uids", BY_UID)
    numbered(archive_path, 1, 2)
    before, named = shown(archive_path, "uids"), shown(archive_path, "own")
    add(archive_path, make_instance(number=1, seed="new"), on_conflict="replace")
    after = shown(archive_path, "uids")
    assert shown(archive_path, "own").keys() == named.keys()
    assert before.keys() == after.keys()
    assert sum(before[path] != after[path] for path in before) == 1
    assert inodes(shown(archive_path, "own")) == inodes(after)
    # And twice in one commit: the first replacement was never seen.
    versions = [make_instance(number=2, seed=seed) for seed in ("a", "b", "c")]
    add(archive_path, *versions, on_conflict="replace")
    assert shown(archive_path, "uids").keys() == before.keys()
    assert shown(archive_path, "own").keys() == named.keys()
    assert inodes(shown(archive_path, "own")) == inodes(shown(archive_path, "uids")) == inodes(tree(archive_path))


def test_a_layout_that_comes_back_has_its_names(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(archive_path, 2, 1)
    switch_on(archive_path, "own", COUNTED)
    before = shown(archive_path, "own")
    switch_off(archive_path, "own")
    numbered(archive_path, 4, 3)
    with Archive.open(archive_path) as opened:
        assert [state.on for state in layouts_of(opened)] == [False]
    with monkeypatch.context() as context:
        context.setattr(layouts._Applying, "apply", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            switch_on(archive_path, "own", COUNTED)
    assert check(archive_path).notes != []
    assert switch_on(archive_path, "own", COUNTED).instances == 2
    assert check(archive_path).notes == []
    after = shown(archive_path, "own")
    assert {path: after[path] for path in before} == before
    assert len(after) == 4
    with pytest.raises(UsageError, match="with another template"):
        switch_on(archive_path, "OWN", BY_UID)
    switch_off(archive_path, "own")
    assert switch_on(archive_path, "own", BY_UID).instances == 4


@pytest.mark.parametrize(
    "name", ["patients", "DICOMweb", "a/b", "", "..", "a:b", "a,b", "x" * 33, "ü", "-a", "README.txt"]
)
def test_names_that_no_layout_has(archive_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a layout"):
        switch_on(archive_path, name, BY_UID)


def test_mistakes_change_nothing(archive_path: Path) -> None:
    index = tables(archive_path)
    with pytest.raises(UsageError, match="character 1: "):
        switch_on(archive_path, "own", "{Nonsense}")
    with pytest.raises(UsageError, match="no layout 'own' is on"):
        switch_off(archive_path, "own")
    assert tables(archive_path) == index
    assert packs(archive_path) == []


@pytest.mark.parametrize("template", [BY_UID, COUNTED])
def test_applying_goes_on_where_it_was_stopped(
    archive_path: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "COMMIT_LINKS", 3)
    for series in (1, 2, 3):
        numbered(archive_path, 4, 1, 3, 2, series=series)

    placed = 0

    def place(self: layouts._Applying, *arguments: object, _place: object = layouts._Applying._place) -> None:
        nonlocal placed
        placed += 1
        if placed == 9:
            raise KeyboardInterrupt
        _place(self, *arguments)  # type: ignore[operator]

    monkeypatch.setattr(layouts._Applying, "_place", place)
    with pytest.raises(KeyboardInterrupt):
        switch_on(archive_path, "own", template)
    part = shown(archive_path, "own")
    assert 0 < len(part) < 12
    assert switch_on(archive_path, "own", template).instances == 12 - len(part)
    whole = shown(archive_path, "own")
    assert {path: whole[path] for path in part} == part
    assert inodes(whole) == inodes(tree(archive_path))


def test_a_template_of_a_later_version_stops_nobody(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_on(archive_path, "own", BY_UID)
    with monkeypatch.context() as context:
        context.setattr(placing, "parsed", lambda _: None)
        context.setattr(layouts, "parsed", lambda _: None)
        numbered(archive_path, 1)
    assert shown(archive_path, "own") == {}
    assert switch_on(archive_path, "own", BY_UID).instances == 1


def test_an_import_finishes_what_was_stopped(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(archive_path, 2, 1)
    with monkeypatch.context() as context:
        context.setattr(layouts._Applying, "apply", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            switch_on(archive_path, "own", BY_UID)
    assert shown(archive_path, "own") == {}
    assert check(archive_path).notes == ["layout own: was not applied to the end; run 'dicomfs layout add own'"]
    numbered(archive_path, 3)
    assert inodes(shown(archive_path, "own")) == inodes(tree(archive_path))


@pytest.mark.damaged
@pytest.mark.parametrize("lost", [1, 2, 3, 4, 5])
def test_what_a_lost_pack_took_gets_new_names(archive_path: Path, lost: int) -> None:
    numbered(archive_path, 1, 2)
    switch_on(archive_path, "own", BY_UID)
    numbered(archive_path, 3, 4)
    numbered(archive_path, 5, study=2)
    numbered(archive_path, 6, series=2)
    assert len(packs(archive_path)) == 5
    packs(archive_path)[lost - 1].unlink()
    reindex(archive_path)
    assert switch_on(archive_path, "own", BY_UID).instances >= 0
    numbered(archive_path, 7)
    assert inodes(shown(archive_path, "own")) == inodes(tree(archive_path))
    index = tables(archive_path)
    shutil.rmtree(archive_path / "index")
    reindex(archive_path)
    assert tables(archive_path).keys() == index.keys()
    assert tables(archive_path)["link"] == index["link"]
    # What was lost with the pack stays lost, but the catalog agrees with itself.
    assert [problem for problem in check(archive_path).problems if problem.kind not in ("instance", "pack")] == []


HOSTILE = [
    *(
        "../../etc",
        "..",
        ".",
        "a/b\\c",
        "CON",
        "nul.dcm",
        "=cmd|'/c calc'!A1",
        "<b>",
        "\x1b[2J",
        "a\u202eb",
        "~",
        "-rf",
    ),
    *("x" * 10_000, "山" * 60, "{n}", "%s", " ", "Z\u0301\u0327"),
]


def test_hostile_values_make_legal_names(archive_path: Path) -> None:
    switch_on(archive_path, "uids", BY_UID)
    switch_on(archive_path, "own", COUNTED)
    switch_on(
        archive_path, "text", "{PatientName}/{StudyDescription!ctp}/{SeriesDescription|'none'}/{n}_{PatientID!upper}"
    )
    for number, value in enumerate(HOSTILE):
        told = {"PatientID": value, "PatientName": value, "StudyDescription": value, "SeriesDescription": value}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom says what is wrong with them
            data = make_instance(number=number, study=number, series=number, attributes=told)
        add(archive_path, data)
    expected = inodes(tree(archive_path))
    assert len(expected) == len(HOSTILE)
    for name in ("uids", "own", "text"):
        files = shown(archive_path, name)
        assert inodes(files) == expected
        for path in files:
            for part in path.split("/"):
                assert component(part) == part
                assert len(part.encode()) <= 120


@pytest.mark.corpus
def test_the_corpus_in_three_layouts(archive_path: Path, corpus: Path) -> None:
    switch_on(archive_path, "uids", BY_UID)
    run(archive_path, corpus, jobs=2)
    switch_on(archive_path, "own", COUNTED)
    expected = inodes(tree(archive_path))
    assert inodes(shown(archive_path, "uids")) == inodes(shown(archive_path, "own")) == expected
