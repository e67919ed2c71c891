"""Instances deleted and brought back: what is shown, under which names, and what the packs say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import layouts
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.query import Level, Query, matches
from dicomfs.errors import Refused, UsageError
from tests.archive.importing import add, tree, walk
from tests.archive.versions import change, delete, holds, restore
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from pathlib import Path


def shown(archive: Path) -> dict[str, tuple[int, str]]:
    """Return inode number and SHA-256 of every file, by its path in any tree."""
    with Archive.open(archive) as opened, opened.view() as view:
        roots = {"patients": 2} | {state.name: state.root for state in view.layouts() if state.on}
        return {
            f"{name}/{path}": (file.ino, file.sha256)
            for name, root in roots.items()
            for path, file in walk(view, root).items()
        }


def counts(archive: Path) -> tuple[int, int, int, int]:
    """Return how many patients, studies, series and instances are found by walking, as the sums say it too."""
    with Archive.open(archive) as opened:
        found = len(list(matches(opened, Query(Level.INSTANCE))))
        with opened.view() as view:
            patients = [patient.key for patient in view.patients()]
            studies = [study for key in patients for study in view.studies_of(key)]
            series = [one for study in studies for one in view.series_of(study.key)]
            totals = view.totals()
            assert sum(study.instances for study in studies) == sum(one.instances for one in series) == found
            assert sum(study.series for study in studies) == len(series)
            assert (totals.patients, totals.studies, totals.series) == (len(patients), len(studies), len(series))
            assert totals.instances - totals.earlier == found
        return len(patients), len(studies), len(series), found


@pytest.fixture
def filled(archive_path: Path) -> Path:
    """Two patients, three studies, in three layouts."""
    add(archive_path, *make_series(3), *make_series(2, study=2, modality="MR"))
    layouts.switch_on(archive_path, "icore", built_in()["icore"])
    layouts.switch_on(archive_path, "archive", built_in()["archive"])
    add(archive_path, *make_series(2, patient="DFS-2", patient_name="Roe^Richard"))
    return archive_path


@pytest.mark.parametrize("which", ["one", "series", "patient", "all"])
def test_what_was_deleted_comes_back_as_it_was(filled: Path, which: str) -> None:
    """Names, inode numbers and bytes; what is empty is not shown, and the sums agree."""
    before, sums = shown(filled), counts(filled)
    paths = sorted(tree(filled))
    chosen = {
        "one": paths[:1],
        "series": [path for path in paths if "_MR_" in path],
        "patient": [path for path in paths if path.startswith("DFS-2")],
        "all": paths,
    }[which]
    numbers = [tree(filled)[path].ino for path in chosen]
    delete(filled, *chosen)
    assert shown(filled) == {path: file for path, file in before.items() if file[0] not in numbers}
    assert counts(filled)[3] == sums[3] - len(chosen)
    with Archive.open(filled) as opened, opened.view() as view:
        assert not any(entry for entry in view.children(2, 0, 1, lambda _: None) if entry[0].startswith(b"DFS-2")) or (
            which in ("one", "series")
        )
        for ino in numbers:
            assert view.path(ino) == ""
            assert view.past(ino) is not None
    holds(filled)
    restore(filled, *numbers)
    assert shown(filled) == before
    assert counts(filled) == sums
    holds(filled)


def test_a_name_is_kept_for_what_was_deleted(archive_path: Path) -> None:
    add(archive_path, *make_series(2))
    first = next(path for path in tree(archive_path) if path.endswith("00001.dcm"))
    ino = tree(archive_path)[first].ino
    delete(archive_path, first)
    other = make_instance(number=1, attributes={"SOPInstanceUID": uid("another")})
    assert add(archive_path, other).outcomes == [Outcome.IMPORTED]
    assert first not in tree(archive_path)
    restore(archive_path, ino)
    assert tree(archive_path)[first].ino == ino
    assert len(tree(archive_path)) == 3
    holds(archive_path)


def test_what_arrives_again_is_refused_unless_asked_for(archive_path: Path) -> None:
    files = make_series(3)
    add(archive_path, *files)
    before = tree(archive_path)
    delete(archive_path, *before)
    assert tree(archive_path) == {}
    changed = make_instance(number=2, seed="another")
    done = add(archive_path, files[0], changed)
    assert done.outcomes == [Outcome.DELETED, Outcome.DELETED]
    assert not done.report.complete
    assert add(archive_path, *files, dry_run=True).outcomes == [Outcome.DELETED] * 3
    done = add(archive_path, *files, restore_deleted=True)
    assert done.outcomes == [Outcome.IMPORTED] * 3
    assert tree(archive_path) == before
    assert add(archive_path, *files).outcomes == [Outcome.PRESENT] * 3
    holds(archive_path)


def test_of_several_files_of_a_uid_the_next_is_current(archive_path: Path) -> None:
    first, second = make_instance(seed="first"), make_instance(seed="second")
    add(archive_path, first, second)
    files = tree(archive_path)
    plain = next(path for path in files if "~" not in path.rpartition("/")[2])
    (other,) = set(files) - {plain}
    delete(archive_path, plain)
    with Archive.open(archive_path) as opened, opened.view() as view:
        assert view.instance(files[other].ino).current
        series = view.instance(files[other].ino).series
        assert [one.ino for one in view.shown_instances(series)] == [files[other].ino]
    holds(archive_path)
    restore(archive_path, files[plain].ino)
    with Archive.open(archive_path) as opened, opened.view() as view:
        assert view.instance(files[plain].ino).current
        assert [one.ino for one in view.shown_instances(series)] == [files[plain].ino]
    holds(archive_path)


def test_a_replaced_version_comes_back_in_the_place_of_its_successor(archive_path: Path) -> None:
    layouts.switch_on(archive_path, "icore", built_in()["icore"])
    first, second = make_instance(seed="first"), make_instance(seed="second", patient_name="Doe^John")
    add(archive_path, first)
    before = shown(archive_path)
    ((ino, _),) = set(before.values())
    add(archive_path, second, on_conflict="replace")
    ((later, _),) = set(shown(archive_path).values())
    restore(archive_path, ino)
    assert shown(archive_path) == before
    with pytest.raises(Refused, match="shown already"):
        restore(archive_path, ino)
    restore(archive_path, later)
    assert {number for number, _ in shown(archive_path).values()} == {later}
    holds(archive_path)


def test_who_did_what_is_told(filled: Path) -> None:
    paths = sorted(tree(filled))
    seq = delete(filled, paths[0], paths[1])
    with Archive.open(filled) as opened, opened.view() as view:
        event = view.event(seq)
        assert (event.op, event.reason, event.counts) == ("delete", "wrong patient", {"deleted": 2})
        assert "@" in event.by
        assert event.time_ns == view.commit_time_ns
        (study,) = [key for key in (one.key for one in view.studies()) if seq in [e.seq for e in view.events_of(key)]]
        assert [one.op for one in view.events_of(study)] == ["import", "delete"]
        assert [one.op for one in view.events()].count("import") == 2


def patients(archive: Path) -> dict[str, list[int]]:
    """Return how many instances each study of each patient has, by Patient ID."""
    with Archive.open(archive) as opened, opened.view() as view:
        assert view.totals().patients == len(list(view.patients()))
        return {
            str(one.attributes["PatientID"]): [view.study(study.key).instances for study in view.studies_of(one.key)]
            for one in view.patients()
        }


def test_a_patient_whose_last_instance_an_import_replaces_is_gone(archive_path: Path) -> None:
    same = {"StudyInstanceUID": uid("study"), "SeriesInstanceUID": uid("series"), "SOPInstanceUID": uid("other")}
    first = make_instance(attributes={**same, "SOPInstanceUID": uid("one")})
    add(archive_path, first, make_instance(patient="DFS-2", attributes=same))
    assert patients(archive_path) == {"DFS-1": [2], "DFS-2": [2]}
    add(archive_path, make_instance(attributes=same, seed="new"), on_conflict="replace")
    assert patients(archive_path) == {"DFS-1": [2]}
    holds(archive_path)


def test_a_study_that_an_import_fills_again_is_of_those_it_names(archive_path: Path) -> None:
    """Not of those that it was of before all of it was deleted."""
    same = {"StudyInstanceUID": uid("study"), "SeriesInstanceUID": uid("series")}
    add(archive_path, make_instance(patient="DFS-2", patient_name="Roe^Jane", attributes=same))
    delete(archive_path, *tree(archive_path))
    assert patients(archive_path) == {}
    add(archive_path, make_instance(attributes={**same, "SOPInstanceUID": uid("another")}))
    assert patients(archive_path) == {"DFS-1": [1]}
    with Archive.open(archive_path) as opened:
        assert [match.patient.attributes["PatientID"] for match in matches(opened, Query(Level.STUDY))] == ["DFS-1"]
    holds(archive_path)


@pytest.mark.parametrize("reason", ["x" * 1001, "\udcff"])
def test_a_reason_is_a_text_of_some_length(archive_path: Path, reason: str) -> None:
    add(archive_path, make_instance())
    with pytest.raises(UsageError, match="a reason"):
        change(archive_path, "delete", lambda changing: changing.delete(1), reason)
    assert len(tree(archive_path)) == 1
    holds(archive_path)
