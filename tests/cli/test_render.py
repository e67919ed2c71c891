"""`dicomfs render`: what it makes is what a drive shows, once; and it says what it could not make."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import documents, pictures
from dicomfs.archive.archive import Archive
from dicomfs.archive.bundle import Bundle, Card
from dicomfs.archive.ingest import ImportOptions, import_paths
from tests.builders import make_instance, uid, write_study
from tests.cli.conftest import spawn
from tests.cli.test_progress import on_a_terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


@pytest.fixture
def two_studies(archive_path: Path, tmp_path: Path) -> Path:
    """Return an archive of two CT series with two instances each, an MR of three frames, and an SR."""
    write_study(tmp_path / "ct", series=2, instances=2, study="one")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mr").write_bytes(make_instance("MR", study="two", series=1, frames=3))
    (other / "sr").write_bytes(make_instance("SR", study="two", series=2))
    assert import_paths(archive_path, [tmp_path / "ct", other], ImportOptions()).complete
    return archive_path


def cards(archive_path: Path) -> list[Card]:
    """Return what the series' bundles, which must be there, say of instances."""
    with Archive.open(archive_path) as archive, archive.view() as view:
        stamps = [
            (series.key, documents.series_stamp(view, series.key))
            for study in view.studies()
            for series in view.series_of(study.key)
        ]
    found: list[Card] = []
    for number, stamp in stamps:
        path = documents.path(archive_path / "cache", "series", number, stamp)
        if path.exists():
            found += Bundle.open(path).cards
    return found


def pictures_there(archive_path: Path) -> dict[str, int]:
    found = {}
    for path in (archive_path / "cache" / "pictures").rglob("*.*"):
        with contextlib.suppress(FileNotFoundError):  # a temporary name
            found[path.name] = path.stat().st_size
    return found


def test_everything_is_made_once(run: Run, two_studies: Path) -> None:
    ended = run("render", "-a", two_studies)
    assert (ended.status, ended.err) == (0, "")
    # two studies, four series, the list of studies; six thumbnails
    assert ended.out.startswith("7 documents, 6 pictures: 13 made, 0 present, ")
    found = cards(two_studies)
    assert len(found) == 6
    names = {pictures.path(two_studies, card.ino, pictures.middle(card.frames), 0).name for card in found}
    assert pictures_there(two_studies) == dict.fromkeys(names, pictures.THUMBNAIL_BYTES)
    ended = run("render", "-a", two_studies, "--jobs", 1)
    assert ended.out.startswith("7 documents, 6 pictures: 0 made, 13 present, ")


def test_frames_as_well(run: Run, two_studies: Path) -> None:
    ended = run("render", "-a", two_studies, "--rendered", "--json")
    assert ended.status == 0
    told = json.loads(ended.out)
    seconds = told.pop("seconds")
    assert seconds > 0
    # frames: four of CT, three of MR
    assert told == {
        "complete": True, "documents": 7, "pictures": 13, "made": 20, "present": 0, "failed": 0, "failures": [],
    }  # fmt: skip
    sizes = [size for name, size in pictures_there(two_studies).items() if name.endswith(".png")]
    assert sizes == [pictures.rendered_bytes(64, 64, False)] * 7


def test_one_study(run: Run, two_studies: Path) -> None:
    ended = run("render", "-a", two_studies, "--study-uid", uid("DFS-1", "two"))
    assert ended.status == 0
    assert ended.out.startswith("4 documents, 2 pictures: 6 made, ")
    ended = run("render", "-a", two_studies)
    assert ended.out.startswith("7 documents, 6 pictures: 7 made, 6 present, ")


def test_what_changed_is_made_anew(run: Run, two_studies: Path, tmp_path: Path) -> None:
    run("render", "-a", two_studies)
    more = tmp_path / "more.dcm"
    more.write_bytes(make_instance(study="one", series=1, number=3))
    run("import", "-a", two_studies, more)
    ended = run("render", "-a", two_studies)
    # its series, its study, the list, and its thumbnail
    assert ended.out.startswith("7 documents, 7 pictures: 4 made, 10 present, ")


def test_an_empty_archive(run: Run, archive_path: Path) -> None:
    ended = run("render", "-a", archive_path)
    assert ended.status == 0
    assert ended.out.startswith("1 document, 0 pictures: 1 made, ")


def test_no_such_study(run: Run, two_studies: Path) -> None:
    ended = run("render", "-a", two_studies, "--study-uid", "1.2.3")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "dicomfs: no study has the Study Instance UID 1.2.3\n"


def test_no_archive(run: Run, tmp_path: Path) -> None:
    assert run("render", "-a", tmp_path).status == 3


def test_a_cache_that_cannot_be_written(run: Run, two_studies: Path) -> None:
    (two_studies / "cache").rmdir()
    (two_studies / "cache").write_text("no directory")
    ended = run("render", "-a", two_studies)
    assert (ended.status, ended.out) == (1, "")
    assert "cache" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.damaged
def test_damage_is_told_and_the_rest_is_made(run: Run, two_studies: Path) -> None:
    run("render", "-a", two_studies)
    for path in (two_studies / "cache" / "pictures").rglob("*.jpg"):
        path.unlink()
    (pack,) = (two_studies / "packs").glob("*.zip")
    content = pack.read_bytes()
    pack.write_bytes(content[:300] + bytes(300) + content[600:])
    ended = run("render", "-a", two_studies)
    assert ended.status == 1
    assert " 1 failed, " in ended.out
    assert "7 documents, 6 pictures: 5 made, 7 present, 1 failed" in ended.out
    (line,) = ended.err.splitlines()
    assert line.startswith("instance ")


def test_a_bar_on_a_terminal(two_studies: Path) -> None:
    status, out, drawn = on_a_terminal("render", "-a", two_studies)
    assert status == 0
    assert "\x1b" not in out
    assert "rendering" in drawn
    assert "13/13" in drawn


def test_interrupted(archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source", instances=200, rows=8, columns=8)
    assert import_paths(archive_path, [tmp_path / "source"], ImportOptions()).complete
    process = spawn("render", "-a", archive_path, "--jobs", 1)
    try:
        deadline = time.monotonic() + 60
        while not pictures_there(archive_path):
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "dicomfs: interrupted; what was made is kept; run the same command again to go on"
