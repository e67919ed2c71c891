"""Trees of UIDs: which instance has the place of its SOP Instance UID, and how many places there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicomfs.archive.archive import Archive
from dicomfs.archive.rebuild import reindex
from tests.archive.importing import add, sha256
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

STUDY, SERIES, SOP = uid("DFS-1", 1), uid("DFS-1", 1, 1), uid("DFS-1", 1, 1, 1)
FIRST, SECOND, THIRD = (make_instance(seed=seed, rows=40, columns=40) for seed in ("first", "second", "third"))
NEXT = make_instance(number=2)


def places(archive: Path) -> tuple[list[str], int, int]:
    """Return the SHA-256 of what the one series shows, and how many the study and the series say they show."""
    with Archive.open(archive) as opened, opened.view() as view:
        study = view.study_with_uid(STUDY)
        assert study is not None
        series = view.series_with_uid(study, SERIES)
        assert series is not None
        shown = list(view.shown_instances(series))
        for instance in shown:
            assert view.shown_with_uid(series, str(instance.attributes["SOPInstanceUID"])) == instance.ino
        return [instance.sha256.hex() for instance in shown], view.shown(study), view.shown(study, series)


def test_the_first_has_the_place(archive_path: Path) -> None:
    add(archive_path, FIRST, NEXT, SECOND)
    assert places(archive_path) == ([sha256(FIRST), sha256(NEXT)], 2, 2)
    add(archive_path, THIRD)
    assert places(archive_path) == ([sha256(FIRST), sha256(NEXT)], 2, 2)
    reindex(archive_path)
    assert places(archive_path) == ([sha256(FIRST), sha256(NEXT)], 2, 2)


def test_what_replaces_it_takes_the_place(archive_path: Path) -> None:
    add(archive_path, FIRST, SECOND)
    add(archive_path, THIRD, NEXT, on_conflict="replace")
    assert places(archive_path) == ([sha256(THIRD), sha256(NEXT)], 2, 2)
    reindex(archive_path)
    assert places(archive_path) == ([sha256(THIRD), sha256(NEXT)], 2, 2)


def test_another_series_is_another_place(archive_path: Path) -> None:
    elsewhere = make_instance(series=2, attributes={"SOPInstanceUID": SOP})
    add(archive_path, FIRST, elsewhere)
    assert places(archive_path) == ([sha256(FIRST)], 2, 1)


def test_what_is_not_there(archive_path: Path) -> None:
    add(archive_path, FIRST)
    with Archive.open(archive_path) as archive, archive.view() as view:
        study = view.study_with_uid(STUDY)
        assert study is not None
        series = view.series_with_uid(study, SERIES)
        assert series is not None
        assert view.study_with_uid(SERIES) is None
        assert view.series_with_uid(study, STUDY) is None
        assert view.shown_with_uid(series, STUDY) is None


def test_changes_name_studies_and_series(archive_path: Path) -> None:
    add(archive_path, FIRST, make_instance(study=2))
    with Archive.open(archive_path) as archive, archive.view() as view:
        before = view.seq
        study = view.study_with_uid(STUDY)
        assert study is not None
        series = view.series_with_uid(study, SERIES)
    add(archive_path, NEXT)
    with Archive.open(archive_path) as archive, archive.view() as view:
        changes = view.changes(before)
    assert changes.complete
    assert (changes.studies, changes.series) == ({study}, {series})
