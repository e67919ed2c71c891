"""Archives that were changed apart are joined: either way round they show the same, and once is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.history import periods
from dicomfs.archive.merging import merge
from tests.archive.importing import add, tree
from tests.archive.merging import State, both, copied, edit, state
from tests.archive.versions import change, delete, holds, restore
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.merging import MergeReport

NAME, SEX, DATE = 0x00100010, 0x00100040, 0x00080020


def instance(number: int) -> str:
    return uid("DFS-1", 1, 1, number)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """An archive of four instances, and a copy of it."""
    first = tmp_path / "first"
    Archive.init(first)
    add(first, *make_series(4))
    return first, copied(first, "second")


def joined(one: Path, other: Path) -> tuple[Path, State, MergeReport]:
    """Merge either way, look that both show the same, and that merging again changes nothing."""
    first, second, report, opposite = both(one, other)
    found = state(first)
    assert found == state(second)
    assert {(c.kind, frozenset(v[:2] for v in c.versions)) for c in report.conflicts} == {
        (c.kind, frozenset(v[:2] for v in c.versions)) for c in opposite.conflicts
    }
    for archive, source in ((first, other), (second, one), (first, second), (second, first), (first, other)):
        again = merge(archive, source)
        assert again.commits == 0, again
        assert state(archive) == found
    holds(first)
    holds(second)
    return first, found, report


def test_a_copy_of_itself_has_nothing_new(two: tuple[Path, Path]) -> None:
    one, other = two
    edit(one, [instance(1)], set={NAME: ("Roe^Jane",)})
    before = state(one)
    assert merge(one, copied(one, "same")).commits == 0
    assert state(one) == before
    assert merge(one, other).commits == 0
    assert state(one) == before


def test_all_comes_over(two: tuple[Path, Path]) -> None:
    one, other = two
    add(one, *make_series(2, study=2, modality="MR"))
    add(other, *make_series(3, patient="DFS-2"))
    delete(other, next(path for path in sorted(tree(other)) if path.endswith("00004.dcm") and path.startswith("DFS-1")))
    edit(other, [instance(2)], "wrong sex", set={SEX: ("F",)})
    was = state(other)
    archive, found, report = joined(one, other)
    assert len(found.shown) == 4 + 2 + 3 - 1
    assert found.deleted == was.deleted == {instance(4)}
    assert found.shown[instance(2)] == was.shown[instance(2)]
    assert (report.copied, report.deleted, report.replaced, report.conflicts) == (4, 1, 1, [])
    with Archive.open(archive) as opened, opened.view() as view:
        merged = [one for event in view.events() for one in event.merged]
        assert {one.op for one in merged} == {"import", "edit", "delete"}
        assert {one.reason for one in merged if one.op == "edit"} == {"wrong sex"}
        # It took the place, and the name, of what it was made of.
        assert view.path(view.instances_where_uid(instance(2))[0]).endswith("00002.dcm")
    restored = merge_back(archive, instance(4))
    assert len(restored.shown) == len(found.shown) + 1


def merge_back(archive: Path, sop: str) -> State:
    """Restore what was deleted elsewhere."""
    with Archive.open(archive) as opened, opened.view() as view:
        numbers = view.instances_where_uid(sop)
    restore(archive, numbers[0])
    holds(archive)
    return state(archive)


def test_independent_edits_are_combined(two: tuple[Path, Path]) -> None:
    one, other = two
    uids = [instance(number) for number in (1, 2, 3)]
    edit(one, uids, set={NAME: ("Roe^Jane",)})
    edit(other, uids[:2], set={SEX: ("F",)})
    edit(one, uids[:1], empty=(DATE,))
    _, found, report = joined(one, other)
    assert report.conflicts == []
    assert report.combined == 2
    assert all(len(found.shown[sop]) == 1 for sop in uids)
    assert found.shown[uids[2]] == state(one).shown[uids[2]]


def test_history_says_which_version_is_shown_after_a_merge(two: tuple[Path, Path]) -> None:
    one, other = two
    edit(one, [instance(1)], set={NAME: ("Roe^Jane",)})
    edit(other, [instance(1)], set={SEX: ("F",)})
    for archive, source in ((one, other), (other, one)):
        merge(archive, source)
        with Archive.open(archive) as opened:
            found = periods(opened, instance(1))
        shown = state(archive).shown[instance(1)]
        assert [period.sha256 for period in found if period.state == "shown"] == list(shown)
        assert len(found) == 4


def test_the_same_edit_counts_once(two: tuple[Path, Path]) -> None:
    one, other = two
    edit(one, [instance(1)], "here", set={NAME: ("Roe^Jane",)})
    edit(other, [instance(1)], "there", set={NAME: ("Roe^Jane",)})
    _, found, report = joined(one, other)
    assert report.conflicts == []
    assert found.shown[instance(1)] == state(one).shown[instance(1)]


def test_contradicting_edits_are_for_a_person(two: tuple[Path, Path]) -> None:
    one, other = two
    edit(one, [instance(1)], set={NAME: ("Roe^Jane",), SEX: ("F",)})
    edit(other, [instance(1)], set={NAME: ("Poe^Jane",)})
    archive, found, report = joined(one, other)
    assert found.shown[instance(1)] == (*state(other).shown[instance(1)], *state(one).shown[instance(1)])
    (conflict,) = report.conflicts
    assert (conflict.kind, conflict.sop_instance_uid) == ("edited", instance(1))
    assert [(one.what, one.values) for one in conflict.differences] == [
        ("PatientName", (("set", "Poe^Jane"), ("set", "Roe^Jane")))
    ]
    assert [version.status for version in conflict.versions] == ["current", "shown"]
    # A person deletes one of the two, and that settles it in both.
    sha = conflict.versions[0].sha256
    with Archive.open(archive) as opened, opened.view() as view:
        ino = view.ino_of_file(bytes.fromhex(sha))
    assert ino is not None
    change(archive, "delete", lambda changing: changing.delete(ino))
    report = merge(other, archive)
    assert report.conflicts == []
    assert state(other) == state(archive)
    holds(other)


def test_an_edit_wins_over_a_delete(two: tuple[Path, Path]) -> None:
    one, other = two
    path = next(path for path in tree(other) if path.endswith("00001.dcm"))
    edit(one, [instance(1)], set={NAME: ("Roe^Jane",)})
    delete(other, path)
    _, found, report = joined(one, other)
    assert found.shown[instance(1)] == state(one).shown[instance(1)]
    (conflict,) = report.conflicts
    assert (conflict.kind, [version.status for version in conflict.versions]) == ("deleted", ["current", "deleted"])


def test_replaced_by_different_files(two: tuple[Path, Path]) -> None:
    one, other = two
    add(one, make_instance(seed="a"), on_conflict="replace")
    add(other, make_instance(seed="b"), on_conflict="replace")
    _, found, report = joined(one, other)
    assert found.shown[instance(1)] == (*state(other).shown[instance(1)], *state(one).shown[instance(1)])
    assert [conflict.kind for conflict in report.conflicts] == ["replaced"]


def test_two_that_never_met(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    Archive.init(one)
    Archive.init(other, codec="none")
    add(one, *make_series(3), make_instance(number=7, seed="a"))
    add(other, make_instance(number=7, seed="b"), *make_series(3), *make_series(2, patient="DFS-9"))
    _, found, report = joined(one, other)
    assert found.shown[instance(7)] == (*state(one).shown[instance(7)], *state(other).shown[instance(7)])
    assert [conflict.kind for conflict in report.conflicts] == ["files"]
    assert len(found.files) == 7


def test_restored_and_deleted_in_turn(two: tuple[Path, Path]) -> None:
    one, other = two
    edit(one, [instance(1)], set={NAME: ("Roe^Jane",)})
    assert merge(other, one).commits == 1
    with Archive.open(other) as opened, opened.view() as view:
        first = view.instances_where_uid(instance(1))[1]
    restore(other, first)
    archive, found, report = joined(one, other)
    assert found == state(other)
    assert report.restored == 1
    with Archive.open(archive) as opened, opened.view() as view:
        versions = view.instances_where_uid(instance(1))
    restore(archive, versions[1])
    assert merge(other, archive).commits == 1
    assert state(other) == state(archive) == state(one)._replace(files=state(archive).files)
