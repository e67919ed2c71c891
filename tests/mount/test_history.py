"""What is deleted leaves every tree of a mounted drive within a second, and comes back as it was."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive.archive import Archive
from tests.builders import make_instance, uid, write_study
from tests.mount.conftest import import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted

VISIBLE_S = 1.0
LATE_S = 5.0
"""What a busy machine may add before a test gives up."""
_LIST = re.compile(r".*/deduplicated/[0-9a-f]{64}\.gz").fullmatch
STUDY, OTHER = uid("DFS-1", 1), uid("DFS-2", 2)


class Seen(NamedTuple):
    """A file or a directory of the drive."""

    ino: int
    sha256: str


def dicomfs(*words: object) -> None:
    """Run a command line in a process of its own, as another user of the archive would."""
    run(sys.executable, "-m", "dicomfs.cli", *words)


def everything(drive: Path) -> dict[str, Seen]:
    """Return everything that a drive shows, but for what names the drive or the time."""
    found: dict[str, Seen] = {}
    for folder, _, names in os.walk(drive):
        found[os.path.relpath(folder, drive)] = Seen(os.stat(folder).st_ino, "")
        for name in names:
            path = Path(folder, name)
            found[str(path.relative_to(drive))] = Seen(
                path.stat().st_ino, hashlib.sha256(path.read_bytes()).hexdigest()
            )
    return found


def told(found: dict[str, Seen]) -> dict[str, str]:
    """Return what each path leads to, but for what says when it was made, when files came, or what was before."""
    dated = (".xlsx", "run.txt", "archive_index.json", "/deduplicated.gz")
    return {path: "" if path.endswith(dated) or _LIST(path) else seen.sha256 for path, seen in found.items()}


@pytest.fixture
def stocked(archive_path: Path, tmp_path: Path) -> Path:
    """Return an archive with two studies, layouts, and projects of which one is live and one is frozen."""
    write_study(tmp_path / "ct", series=2, instances=3, rows=32, columns=32)
    write_study(tmp_path / "mr", modality="MR", instances=2, rows=32, columns=32, patient="DFS-2", study=2)
    import_into(archive_path, tmp_path / "ct", tmp_path / "mr")
    for name in ("archive", "icore", "omidb"):
        dicomfs("layout", "add", name, "-a", archive_path)
    dicomfs("project", "create", "own", "--where", "Modality=*", "--live", "-a", archive_path)
    dicomfs("project", "create", "given", "--where", "Modality=*", "--deid", "basic", "-a", archive_path)
    return archive_path


def seconds_until(holds: Callable[[], bool]) -> float:
    """Return how long it took until something held."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < VISIBLE_S + LATE_S
        time.sleep(0.005)
    return time.monotonic() - begin


def left(drive: Path, paths: list[str]) -> list[str]:
    """Return those paths that are there after all."""
    begin = time.monotonic()
    while True:
        found = [path for path in paths if (drive / path).exists()]
        if not found or time.monotonic() - begin >= VISIBLE_S:
            return found


@pytest.mark.parametrize(
    "named",
    [
        ("--study-uid", OTHER),
        ("--series-uid", uid("DFS-1", 1, 2)),
        ("--sop-uid", uid("DFS-1", 1, 1, 2)),
        ("--study-uid", STUDY, "--study-uid", OTHER),
    ],
    ids=["study", "series", "instance", "all"],
)
def test_what_is_deleted_is_nowhere_and_comes_back(
    stocked: Path, mount_drive: Callable[..., Drive], named: tuple[str, ...]
) -> None:
    """A drive that knew everything shows what one shows that knows nothing yet."""
    drive = mount_drive(stocked).path
    before = everything(drive)
    (bulk, *_) = [path for path in before if path.startswith("patients/") and path.endswith(".dcm")]
    size = os.statvfs(drive).f_files
    uids = {word for word in named if not word.startswith("--")}
    documents = (path for path in before if path.startswith("dicomweb/") and path.endswith("/metadata.gz"))
    victim = next(path for path in documents if any(one in path for one in uids)).rpartition("/")[0]
    dicomfs("delete", *named, "--reason", "a test", "-a", stocked)
    assert seconds_until(lambda: not (drive / victim).exists()) < VISIBLE_S
    fresh = everything(mount_drive(stocked).path)
    # Lists that were superseded stay readable for a day, by their names alone.
    gone = sorted(path for path in before.keys() - fresh.keys() if not _LIST(path))
    assert gone
    assert left(drive, gone) == []
    after = everything(drive)
    assert told(after) == told(fresh)
    assert os.statvfs(drive).f_files < size
    files = [path for path in gone if path.endswith(".dcm")]
    assert {path.split("/")[0] for path in files} >= {"patients", "archive", "icore", "omidb", "projects"}
    dicomfs("restore", *named, "-a", stocked)
    assert seconds_until((drive / victim).exists) < VISIBLE_S
    seconds_until(lambda: all((drive / path).exists() for path in gone))
    back = everything(drive)
    assert told(back) == told(before)
    assert {path: seen for path, seen in back.items() if path.endswith(".dcm")} == {
        path: seen for path, seen in before.items() if path.endswith(".dcm")
    }
    assert back[str(Path(bulk).parent)] == before[str(Path(bulk).parent)]


def test_who_has_a_file_open_reads_on(stocked: Path, mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(stocked).path
    paths = [drive / path for path in everything(drive) if path.endswith(".dcm")]
    contents = [path.read_bytes() for path in paths]
    files = [path.open("rb", buffering=0) for path in paths]
    half = [file.read(300) for file in files]
    directory = os.open(paths[0].parent, os.O_RDONLY)
    dicomfs("delete", "--study-uid", STUDY, "--study-uid", OTHER, "-a", stocked)
    seconds_until(lambda: not any(path.exists() for path in paths))
    for path, content, file, begun in zip(paths, contents, files, half, strict=True):
        with pytest.raises(FileNotFoundError):
            os.stat(path)
        assert begun + file.read() == content
        assert os.fstat(file.fileno()).st_size == len(content)
        file.close()
    assert os.listdir(directory) == []
    os.close(directory)
    assert os.listdir(drive / "patients") == []
    dicomfs("restore", "--undo", _last(stocked), "-a", stocked)
    assert seconds_until(lambda: all(path.exists() for path in paths)) < VISIBLE_S
    assert [path.read_bytes() for path in paths] == contents


def test_an_earlier_version_comes_back_on_a_drive(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    old, new = make_instance(seed="old"), make_instance(seed="new", trailing=b"\0\0")
    for name, content in (("old", old), ("new", new)):
        (tmp_path / name).write_bytes(content)
        import_into(archive_path, tmp_path / name, on_conflict="replace")
    drive = mount_drive(archive_path)
    (path,) = drive.files().values()
    assert path.read_bytes() == new
    dicomfs("restore", "--sop-uid", uid("DFS-1", 1, 1, 1), "--version", 1, "-a", archive_path)
    assert seconds_until(lambda: path.stat().st_size == len(old)) < VISIBLE_S
    assert path.read_bytes() == old
    dicomfs("restore", "--undo", _last(archive_path), "-a", archive_path)
    assert seconds_until(lambda: path.stat().st_size == len(new)) < VISIBLE_S
    assert path.read_bytes() == new


def _last(archive: Path) -> int:
    """Return the number of the last commit that deleted or restored something."""
    with Archive.open(archive) as opened, opened.view() as view:
        return max(event.seq for event in view.events() if event.op in ("delete", "restore"))
