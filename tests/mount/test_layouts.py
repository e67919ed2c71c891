"""Layouts on real drives: hard links of one another, there within a second, the same after everything."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.projects import Wanted, create
from tests.builders import write_study
from tests.mount.conftest import import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted

BY_UID = "data/{PatientID!plain|'UNKNOWN'}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
COUNTED = "DATE-{StudyDate}--{Modality}--PID-{PatientID}{study}/SER-{SeriesNumber}{series}/{n}.dcm"
COMMANDS = """
import sys
from pathlib import Path
from dicomfs.archive.layouts import switch_off, switch_on
from dicomfs.archive.rebuild import reindex
{"on": switch_on, "off": switch_off, "reindex": reindex}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
"""


def command(what: str, archive: Path, *arguments: str) -> None:
    """Switch a layout on or off in a process of its own."""
    run(sys.executable, "-c", COMMANDS, what, archive, *arguments)


def files(directory: Path) -> dict[str, int]:
    """Return every file below a directory with its inode number."""
    found = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, directory)] = os.stat(path).st_ino
    return found


def within_a_second(true: Callable[[], bool]) -> None:
    """Wait until something is so; a second is what is promised, and a busy machine gets some more."""
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_layouts_are_hard_links_of_one_another(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    archive, study = imported
    command("on", archive, "uids", BY_UID)
    command("on", archive, "counted", COUNTED)
    drive = mount_drive(archive)
    assert {"patients", "dicomweb", "uids", "counted", "README.txt"} <= set(os.listdir(drive.path))
    expected = sorted(files(drive.patients).values())
    assert len(expected) == len(study)
    for name in ("uids", "counted"):
        assert sorted(files(drive.path / name).values()) == expected
    one = next(path for path in (drive.path / "counted").rglob("1.dcm"))
    assert one.stat().st_nlink == 3
    size = sum(path.stat().st_size for path in study)
    used = run("du", "-s", "--block-size=1", *(drive.path / name for name in ("patients", "uids", "counted")), "-c")
    assert int(used.stdout.splitlines()[-1].split()[0]) < size * 1.5 + 1_000_000
    run("tar", "-C", drive.path, "-cf", tmp_path / "all.tar", "patients", "uids", "counted")
    assert (tmp_path / "all.tar").stat().st_size < size * 1.5 + 200_000
    alone = mount_drive(archive, "views=counted")
    assert set(os.listdir(alone.path)) == {"counted", "README.txt"}
    assert next(path for path in (alone.path / "counted").rglob("1.dcm")).stat().st_nlink == 1


def test_what_happens_to_a_layout_shows_on_a_running_drive(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    archive, _ = imported
    drive = mount_drive(archive)
    one = next(iter(drive.files().values()))
    assert one.stat().st_nlink == 1
    assert not (drive.path / "own").exists()
    command("on", archive, "own", COUNTED)
    within_a_second(lambda: "own" in os.listdir(drive.path))
    within_a_second(lambda: one.stat().st_nlink == 2)
    within_a_second(lambda: sorted(files(drive.path / "own").values()) == sorted(files(drive.patients).values()))
    before = files(drive.path / "own")
    import_into(archive, next(iter(write_study(tmp_path / "more", modality="MR", study=9, instances=3))).parent)
    within_a_second(lambda: len(files(drive.path / "own")) == len(before) + 3)
    after = files(drive.path / "own")
    assert before.items() <= after.items()
    command("off", archive, "own")
    within_a_second(lambda: "own" not in os.listdir(drive.path))
    within_a_second(lambda: one.stat().st_nlink == 1)
    command("on", archive, "own", COUNTED)
    within_a_second((drive.path / "own").exists)
    within_a_second(lambda: files(drive.path / "own") == after)
    shutil.rmtree(archive / "index")
    command("reindex", archive)
    assert files(mount_drive(archive).path / "own") == after
    within_a_second(lambda: files(drive.path / "own") == after)


def test_a_layout_that_is_named_may_go_and_come(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive]
) -> None:
    archive, _ = imported
    command("on", archive, "own", BY_UID)
    drive = mount_drive(archive, "views=patients:own")
    command("off", archive, "own")
    within_a_second(lambda: set(os.listdir(drive.path)) == {"patients", "README.txt"})
    command("on", archive, "other", BY_UID)
    command("on", archive, "own", BY_UID)
    within_a_second(lambda: set(os.listdir(drive.path)) == {"patients", "own", "README.txt"})


def test_the_index_of_the_archive_layout(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    """A program walks it and finds every file with its size, also after a further import."""
    archive, _ = imported
    command("on", archive, "archive", built_in()["archive"])
    drive = mount_drive(archive)
    assert sorted(os.listdir(drive.path / "archive")) == ["archive_index.json", "data"]

    def agrees() -> bool:
        with (drive.path / "archive" / "archive_index.json").open("rb") as file:
            text = file.read()
            assert os.fstat(file.fileno()).st_size == len(text)
        found = {
            one["filePath"]: one["fileSize"]
            for patient in json.loads(text)["patients"]
            for study in patient["studies"]
            for series in study["series"]
            for one in series["instances"]
        }
        data = drive.path / "archive" / "data"
        return found == {f"data/{path}": (data / path).stat().st_size for path in files(data)}

    assert agrees()
    import_into(archive, next(iter(write_study(tmp_path / "more", modality="MR", study=9, instances=3))).parent)
    within_a_second(lambda: len(files(drive.path / "archive" / "data")) == 15)
    within_a_second(agrees)


@pytest.mark.corpus
@pytest.mark.slow
def test_the_corpus_in_every_layout_at_once(
    archive_path: Path, corpus: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    """Every built-in layout, one of a user's and a project: hard links, one copy for `du`, and names that stay."""
    names = [name for name in built_in() if name != "patients"]
    for name in names:
        command("on", archive_path, name, built_in()[name])
    import_into(archive_path, corpus)
    command("on", archive_path, "counted", COUNTED)
    create(archive_path, Wanted(name="all", where=(("SOPInstanceUID", "*"),)))
    drive = mount_drive(archive_path)
    (project,) = (path.relative_to(drive.path) for path in (drive.path / "projects").glob("PHI_all_*"))
    trees = ["patients", *names, "counted", str(project)]
    shown = {tree: images(drive.path / tree) for tree in trees}
    expected = sorted(shown["patients"].values())
    assert len(expected) > 500
    for tree in trees:
        assert sorted(shown[tree].values()) == expected, tree
    used = run("du", "-sc", "--block-size=1", *(drive.path / tree for tree in trees)).stdout.splitlines()
    documents = sum(path.stat().st_size for path in (drive.path / "omidb" / "data").rglob("*.json"))
    assert int(used[-1].split()[0]) < int(used[0].split()[0]) * 1.02 + documents + (2 << 20)
    import_into(archive_path, next(iter(write_study(tmp_path / "more", study=9, instances=3))).parent)
    shutil.rmtree(archive_path / "index")
    command("reindex", archive_path)
    again = mount_drive(archive_path)
    for tree in trees:
        now = images(again.path / tree)
        assert shown[tree].items() <= now.items(), tree
        assert len(now) == len(shown[tree]) + (0 if tree == str(project) else 3)


def images(tree: Path) -> dict[str, int]:
    """Return the files of a tree that hold instances."""
    return {path: ino for path, ino in files(tree).items() if path.endswith(".dcm")}
