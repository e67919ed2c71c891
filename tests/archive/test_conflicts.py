"""Different files of one SOP Instance UID: which is shown, which is current, and that no byte of any is lost."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.outcome import Outcome
from tests.archive.importing import add, contents, sha256, tree
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

IMPORTED, PRESENT, CONFLICT = Outcome.IMPORTED, Outcome.PRESENT, Outcome.CONFLICT
SOP = uid("DFS-1", 1, 1, 1)
FIRST, SECOND, THIRD = (make_instance(seed=seed, rows=40, columns=40) for seed in ("first", "second", "third"))


def in_order(archive: Path) -> list[tuple[bytes, bool]]:
    """Return the files of the UID, the current one first, and whether each says that it is current."""
    held = contents(archive)
    with Archive.open(archive) as opened, opened.view() as view:
        return [(held[ino], view.instance(ino).current) for ino in view.instances_where_uid(SOP)]


def shown(archive: Path) -> dict[str, str]:
    """Return the names in the one directory of instances, and the SHA-256 of each file."""
    return {path.rpartition("/")[2]: file.sha256 for path, file in tree(archive).items()}


@pytest.mark.parametrize("runs", ["one run", "three runs"])
def test_keep(archive_path: Path, runs: str) -> None:
    """The first stays current under its name, the others lie beside it for ever."""
    files = (FIRST, SECOND, THIRD)
    groups = [files] if runs == "one run" else [(one,) for one in files]
    outcomes = list(itertools.chain.from_iterable(add(archive_path, *group).outcomes for group in groups))
    assert outcomes == [IMPORTED, CONFLICT, CONFLICT]
    assert in_order(archive_path) == [(FIRST, True), (SECOND, False), (THIRD, False)]
    names = shown(archive_path)
    assert names.pop("00001.dcm") == sha256(FIRST)
    assert set(names.values()) == {sha256(SECOND), sha256(THIRD)}
    assert all(name.startswith("00001~") and name.endswith(".dcm") for name in names)


@pytest.mark.parametrize("runs", ["one run", "three runs"])
def test_replace(archive_path: Path, runs: str) -> None:
    """The last is current under the plain name; the earlier ones are in no tree, and are read by inode number."""
    files = (FIRST, SECOND, THIRD)
    groups = [files] if runs == "one run" else [(one,) for one in files]
    for group in groups:
        done = add(archive_path, *group, on_conflict="replace")
        assert done.report.complete
    assert in_order(archive_path) == [(THIRD, True), (SECOND, False), (FIRST, False)]
    assert shown(archive_path) == {"00001.dcm": sha256(THIRD)}
    with Archive.open(archive_path) as opened, opened.view() as view:
        _, *earlier = view.instances_where_uid(SOP)
        assert [view.path(ino) for ino in earlier] == ["", ""]
        (study,) = view.studies()
        (series,) = view.series_of(study.key)
        assert (study.instances, study.size) == (series.instances, series.size) == (1, len(THIRD))
        assert len(list(view.instances_of(series.key))) == 3
        totals = view.totals()
        assert (totals.instances, totals.bytes_in) == (3, len(FIRST + SECOND + THIRD))


@pytest.mark.parametrize("on_conflict", ["skip", "error"])
def test_not_imported(archive_path: Path, on_conflict: str) -> None:
    add(archive_path, FIRST)
    done = add(archive_path, SECOND, make_instance(number=2), SECOND, on_conflict=on_conflict)
    assert done.outcomes == [CONFLICT, IMPORTED, CONFLICT]
    assert all("not imported" in result.reason for result in done.results if result.outcome is CONFLICT)
    # To skip them is what was asked for.
    assert done.report.not_imported == (2 if on_conflict == "error" else 0)
    assert done.report.complete == (on_conflict == "skip")
    assert in_order(archive_path) == [(FIRST, True)]
    assert len(tree(archive_path)) == 2


def test_outcomes_and_sums(archive_path: Path) -> None:
    done = add(archive_path, FIRST, SECOND, on_conflict="keep")
    assert done.report.outcomes == {IMPORTED: 1, CONFLICT: 1}
    assert done.report.bytes_in == len(FIRST) + len(SECOND)
    assert done.report.complete
    assert [result.sop_instance_uid for result in done.results] == [SOP, SOP]


def test_an_earlier_version_comes_back(archive_path: Path) -> None:
    """Replaced by mistake: the same bytes, imported again to replace, are current again."""
    add(archive_path, FIRST)
    for one in (SECOND, FIRST):
        assert add(archive_path, one, on_conflict="replace").outcomes == [CONFLICT]
    assert in_order(archive_path)[0] == (FIRST, True)
    assert shown(archive_path) == {"00001.dcm": sha256(FIRST)}
    assert add(archive_path, FIRST, on_conflict="replace").outcomes == [PRESENT]


def test_what_an_instance_says_otherwise_than_its_study_is_found(archive_path: Path) -> None:
    """A corrected file, and one that disagrees: the catalog tells each as it is, and finds the study by both."""
    corrected = make_instance(attributes={"PatientName": "Roe^Jane", "Modality": "PT", "StudyDescription": "Other"})
    add(archive_path, FIRST, make_instance(number=2))
    add(archive_path, corrected, on_conflict="replace")
    with Archive.open(archive_path) as opened, opened.view() as view:
        (study,) = view.studies()
        for field, value in (("PatientName", "roe*"), ("PatientName", "doe*"), ("Modality", "PT"), ("Modality", "CT")):
            assert view.studies_where(field, value) == {study.key}, value
        assert study.mixed
        assert study.modalities == ("CT", "PT")
        told = view.instance(view.instances_where_uid(SOP)[0]).attributes
        assert (told["PatientName"], told["Modality"], told["StudyDescription"]) == ("Roe^Jane", "PT", "Other")
        other = view.instance(view.instances_where_uid(uid("DFS-1", 1, 1, 2))[0]).attributes
        assert "PatientName" not in other


@pytest.mark.parametrize("on_conflict", ["keep", "skip", "error"])
def test_again_is_present(archive_path: Path, on_conflict: str) -> None:
    """Bytes that are there in any version are present, unless they are to replace."""
    add(archive_path, FIRST, SECOND, on_conflict="replace")
    add(archive_path, THIRD)
    before = in_order(archive_path)
    done = add(archive_path, THIRD, FIRST, SECOND, on_conflict=on_conflict)
    assert done.outcomes == [PRESENT] * 3
    assert done.report.complete
    assert in_order(archive_path) == before


def test_keep_then_replace(archive_path: Path) -> None:
    """It takes the place of the current one, and leaves the one beside it alone."""
    add(archive_path, FIRST, SECOND)
    beside = {name: digest for name, digest in shown(archive_path).items() if "~" in name}
    add(archive_path, THIRD, on_conflict="replace")
    assert shown(archive_path) == {"00001.dcm": sha256(THIRD), **beside}
    assert in_order(archive_path) == [(THIRD, True), (SECOND, False), (FIRST, False)]


def test_replaced_by_a_file_that_belongs_elsewhere(archive_path: Path) -> None:
    """Another series, another number: the tree shows it where it belongs, and nothing where the old one was."""
    elsewhere = make_instance(series=2, number=7, attributes={"SOPInstanceUID": SOP})
    other = make_instance(number=2)
    add(archive_path, FIRST, other)
    add(archive_path, elsewhere, on_conflict="replace")
    assert {path.split("/", 2)[2]: file.sha256 for path, file in tree(archive_path).items()} == {
        "0001_CT_Series 1/00002.dcm": sha256(other),
        "0002_CT_Series 2/00007.dcm": sha256(elsewhere),
    }
    with Archive.open(archive_path) as opened, opened.view() as view:
        (study,) = view.studies()
        assert study.instances == 2
        assert [series.instances for series in view.series_of(study.key)] == [1, 1]
        instances = [one for series in view.series_of(study.key) for one in view.instances_of(series.key)]
        assert [instance.current for instance in instances] == [False, True, True]
        assert view.studies_where("Modality", "CT") == {study.key}


def test_replaced_with_the_name_of_another(archive_path: Path) -> None:
    """In the same directory it keeps the name of the one it replaces, whatever its own number says."""
    renumbered = make_instance(attributes={"InstanceNumber": 2}, seed="renumbered")
    other = make_instance(number=2)
    add(archive_path, FIRST, other)
    add(archive_path, renumbered, on_conflict="replace")
    assert shown(archive_path) == {"00001.dcm": sha256(renumbered), "00002.dcm": sha256(other)}


def test_changes_tell_a_mounted_drive(archive_path: Path) -> None:
    add(archive_path, FIRST, make_instance(number=2))
    with Archive.open(archive_path) as opened, opened.view() as view:
        seq = view.seq
        nothing = view.changes(seq)
    add(archive_path, SECOND, on_conflict="replace")
    with Archive.open(archive_path) as opened, opened.view() as view:
        changes = view.changes(seq)
        (new, old) = view.instances_where_uid(SOP)
        directory = view.node(new).parent
        assert view.node(old).parent == 0
    assert (nothing.directories, nothing.removed, nothing.complete) == (frozenset(), (), True)
    assert changes.complete
    assert changes.removed == ((directory, b"00001.dcm"),)
    # Every directory up to the root has this commit's time.
    assert directory in changes.directories
    assert {1, 2} <= changes.directories
