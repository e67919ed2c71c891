"""The list of all studies: made of the catalog alone, and of what it was before where nothing changed."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import documents, documents_studies
from dicomfs.archive.archive import Archive
from dicomfs.archive.bundle import Bundle
from dicomfs.archive.rebuild import reindex
from tests.archive.documents_of import make, parsed, value
from tests.archive.importing import add
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path


def listed(archive: Path, cache: Path) -> tuple[bytes, set[bytes]]:
    """Make the list; return it, and the digests of its pieces."""
    with Archive.open(archive) as opened:
        documents.make_studies(opened, cache)
        with opened.view() as view:
            bundle = Bundle.open(documents.path(cache, "studies", documents.STUDIES, documents.studies_stamp(view)))
    return bytes(bundle.document(("studies", 0))), {digest for _, digest in bundle.pieces()}


def test_pieces_are_taken_over(archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_studies, "_PER_PIECE", 8)
    asked: list[int] = []
    query = documents_studies._Rows.query

    def counted(view: documents_studies._Rows, number: int) -> str:
        asked.append(number)
        return query(view, number)

    monkeypatch.setattr(documents_studies._Rows, "query", counted)
    add(archive_path, *(make_instance("SR", study=number) for number in range(120)))
    _, before = listed(archive_path, tmp_path / "cache")
    assert len(asked) == 120
    assert 5 < len(before) < 40
    asked.clear()
    add(archive_path, make_instance("SR", study=60, number=2))
    document, after = listed(archive_path, tmp_path / "cache")
    assert len(asked) < 60
    assert len(before - after) == len(after - before) == 1
    assert document == listed(archive_path, tmp_path / "anew")[0]
    asked.clear()
    add(archive_path, make_instance("SR", study="new"))
    document, last = listed(archive_path, tmp_path / "cache")
    assert len(asked) < 60
    assert len(after - last) <= 1
    assert document == listed(archive_path, tmp_path / "anew again")[0]
    found = parsed(document)
    assert [value(one, "0020000D") for one in found] == [uid("DFS-1", number) for number in (*range(120), "new")]
    assert [value(one, "00201208") for one in found].count(2) == 1


def test_a_study_that_lost_its_last_instance_is_not_listed(archive_path: Path, tmp_path: Path) -> None:
    moved = uid("DFS-1", 1, 1, 1)
    add(archive_path, make_instance(), make_instance(study=2, number=2))
    elsewhere = make_instance(study=2, attributes={"SOPInstanceUID": moved, "SeriesInstanceUID": uid("DFS-1", 2, 1)})
    add(archive_path, elsewhere, on_conflict="replace")
    (study,) = parsed(listed(archive_path, tmp_path / "cache")[0])
    assert (value(study, "0020000D"), value(study, "00201206"), value(study, "00201208")) == (uid("DFS-1", 2), 1, 2)


def test_a_series_that_lost_its_last_instance_is_not_counted(archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, make_instance(), make_instance(series=2, number=2))
    moved = make_instance(series=2, attributes={"SOPInstanceUID": uid("DFS-1", 1, 1, 1)})
    add(archive_path, moved, on_conflict="replace")
    made = make(archive_path, tmp_path / "cache")
    (study,) = parsed(made["studies/index.json.gz"])
    assert (value(study, "00201206"), value(study, "00201208")) == (1, 2)
    (series,) = parsed(made[f"studies/{uid('DFS-1', 1)}/series/index.json.gz"])
    assert value(series, "0020000E") == uid("DFS-1", 1, 2)


def test_reindex_changes_nothing(archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, make_instance(), make_instance("MR", series=2), make_instance(study=2))
    before = make(archive_path, tmp_path / "cache")
    reindex(archive_path)
    assert make(archive_path, tmp_path / "cache") == make(archive_path, tmp_path / "anew") == before


def test_several_at_once(archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, *(make_instance(series=series, number=number) for series in (1, 2) for number in (1, 2, 3)))
    expected = make(archive_path, tmp_path / "alone")
    with Archive.open(archive_path) as opened:
        with opened.view() as view:
            (study,) = (study.key for study in view.studies())
        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(documents.make_study, opened, tmp_path / "cache", (study,)) for _ in range(8)]:
                done.result()
    assert make(archive_path, tmp_path / "cache") == expected


def test_a_maker_that_is_killed_leaves_nothing_that_is_taken_for_whole(archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, *(make_instance("SR", number=number) for number in range(1, 30)))
    expected = make(archive_path, tmp_path / "alone")
    program = """
import os, sys
from pathlib import Path
from dicomfs.archive import documents
from dicomfs.archive.archive import Archive
from dicomfs.archive.bundle_writing import BundleWriter
left = int(sys.argv[3])
write = BundleWriter.write
def dying(self, *parts):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    extent = write(self, *parts)
    self._file.flush()
    return extent
BundleWriter.write = dying
with Archive.open(Path(sys.argv[1])) as archive, archive.view() as view:
    documents.make_study(archive, Path(sys.argv[2]), (next(view.studies()).key,))
"""
    for writes in (0, 1, 50, 110, 118, 140):
        command = [sys.executable, "-c", program, str(archive_path), str(tmp_path / "cache"), str(writes)]
        assert subprocess.run(command).returncode in (0, 9)
        assert not [path for path in (tmp_path / "cache").rglob("series-*") if not _is_whole(path)]
    assert make(archive_path, tmp_path / "cache") == expected


def _is_whole(path: Path) -> bool:
    with Bundle.open(path) as bundle:
        return len(bundle.cards) == 29
