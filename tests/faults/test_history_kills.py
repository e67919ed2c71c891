"""kill -9 of what changes an archive: all of a command was done or nothing, nothing is lost, and it can be done again.

DICOMFS_KILLS says how many random moments, of all commands together; `scripts/prove-history N` is the long form.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from tests.archive.history_model import seen
from tests.archive.history_steps import HAS_GC, HAS_MERGE
from tests.builders import make_series, uid, write_study
from tests.faults.scene import dicomfs, kill, start

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("DICOMFS_KILLS", "12"))
EDITED = ("edit", "--study-uid", uid("DFS-1", 1), "--set", "PatientName=Roe^Richard", "--set", "StudyDescription=Knee")
RENAMED = ("edit", "--study-uid", uid("DFS-1", 1), "--new-study-uid", uid("renamed"))
DELETED = ("delete", "--study-uid", uid("DFS-1", 1), "--reason", "wrong patient")
RESTORED = ("restore", "--series-uid", uid("DFS-2", 2, 1))
COMMANDS = {
    "edit": EDITED,
    "change UIDs": RENAMED,
    "delete": DELETED,
    "restore": RESTORED,
    "import": ("import", "--on-conflict", "replace", "{more}"),
    **({"gc": ("gc",)} if HAS_GC else {}),
    **({"forget": ("gc", "--forget-older-than", "{limit}")} if HAS_GC else {}),
    **({"merge": ("merge", "{other}")} if HAS_MERGE else {}),
}


class Known(NamedTuple):
    """What there is of a version."""

    sop_instance_uid: str
    is_shown: bool
    said: str
    """A hash of what pydicom sees of it: its bytes hold the time of an edit."""


class Scene(NamedTuple):
    """An archive, and what commands name."""

    archive: Path
    places: dict[str, str]


def everything(archive: Path) -> list[Known]:
    """Read every version, earlier ones too, compare it with its SHA-256, and return what there is."""
    found = []
    with Archive.open(archive) as opened, opened.view() as view:
        for ino in view.inodes():
            node = view.node(ino)
            if node is None or node.is_directory:
                continue
            file = opened.open_instance(ino)
            data = bytes(file.read(0, file.size + 1))
            file.close()
            inode = view.instance_inode(ino)
            assert hashlib.sha256(data).digest() == inode.sha256
            said, pixels = seen(data)
            text = json.dumps([said, pixels], sort_keys=True)
            uid = str(view.attributes_of(inode.series, ino)["SOPInstanceUID"])
            found.append(Known(uid, inode.parent != tables.NOWHERE, hashlib.sha256(text.encode()).hexdigest()))
    return sorted(found)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Return an archive of several packs with versions, deleted ones too, and another one that was changed apart."""
    base = tmp_path_factory.mktemp("history")
    archive, other, more = base / "archive", base / "other", base / "more"
    dicomfs("init", archive)
    for number, (patient, study) in enumerate((("DFS-1", 1), ("DFS-1", 3), ("DFS-2", 2))):
        source = base / f"source{number}"
        write_study(source, series=2, instances=8, rows=64, columns=64, patient=patient, study=study)
        dicomfs("import", source, "-a", archive)
    dicomfs("layout", "add", "icore", "-a", archive)
    dicomfs("edit", "--series-uid", uid("DFS-1", 3, 1), "--set", "SeriesDescription=Scout", "-a", archive)
    dicomfs("delete", "--series-uid", uid("DFS-1", 3, 2), "-a", archive)
    limit = time.time_ns()
    dicomfs("delete", "--series-uid", uid("DFS-2", 2, 1), "-a", archive)
    shutil.copytree(archive, other)
    dicomfs("edit", "--series-uid", uid("DFS-1", 1, 1), "--set", "PatientSex=F", "-a", other)
    dicomfs("delete", "--series-uid", uid("DFS-2", 2, 2), "-a", other)
    dicomfs("restore", "--series-uid", uid("DFS-1", 3, 2), "-a", other)
    more.mkdir()
    new = make_series(12, rows=64, columns=64, seed="again", patient_name="Doe^Janet")
    for number, data in enumerate([*new, *make_series(6, rows=64, columns=64, patient="DFS-3", study=9)]):
        (more / f"{number:04d}").write_bytes(data)
    text = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(limit // 10**9))}.{limit % 10**9:09d}Z"
    assert check(archive, verify_files=True).problems == []
    return Scene(archive, {"more": str(more), "other": str(other), "limit": text})


def changed(archive: Path) -> tuple[int, ...]:
    """Return what is different once a command has begun to write."""
    return tuple(sorted(path.stat().st_mtime_ns for path in (archive / "packs").iterdir() if path.exists()))


def killed(archive: Path, words: list[str], takes_s: float, moments: random.Random) -> bool:
    """Start a command and kill it at a random moment; say whether it still ran."""
    before = changed(archive)
    process = start(*words, "-a", archive)
    # One in two at any time of its life; the others when it has begun to write.
    if moments.random() < 0.5:
        delay_s = moments.uniform(takes_s / 4, takes_s)
    else:
        delay_s = moments.uniform(0, takes_s / 8)
        while process.poll() is None and changed_or_gone(archive) == before:
            pass
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        kill(process)
        return True
    process.communicate()
    return False


def changed_or_gone(archive: Path) -> tuple[int, ...]:
    """Return the same, () while packs are being replaced."""
    try:
        return changed(archive)
    except FileNotFoundError:
        return ()


@pytest.mark.slow
@pytest.mark.timeout(240 + 30 * KILLS)
@pytest.mark.parametrize("what", COMMANDS)
def test_killed_at_random_moments(scene: Scene, tmp_path: Path, what: str) -> None:
    seed = int(os.environ.get("DICOMFS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"DICOMFS_SEED={seed}")
    moments = random.Random(f"{what} {seed}")
    words = [word.format(**scene.places) for word in COMMANDS[what]]
    archive = tmp_path / "archive"
    shutil.copytree(scene.archive, archive)
    before = everything(archive)
    begun = time.monotonic()
    dicomfs(*words, "-a", archive, status=None)
    takes_s = time.monotonic() - begun
    after = everything(archive)
    assert (before == after) == (what == "gc")
    shutil.rmtree(archive)
    left = []
    for _ in range(-(-KILLS // len(COMMANDS))):
        running = False
        while not running:
            if archive.exists():
                shutil.rmtree(archive)
            shutil.copytree(scene.archive, archive)
            running = killed(archive, words, takes_s, moments)
            # Whoever reads sees all of it or nothing, before anybody mends anything.
            found = everything(archive)
            assert found in (before, after)
            assert check(archive, verify_files=True).problems == []
            assert running or found == after
        left.append(found == after)
        again = dicomfs(*words, "-a", archive, status=None)
        assert everything(archive) == after, (again.returncode, again.stdout, again.stderr)
        assert check(archive, verify_files=True).problems == []
        dicomfs("reindex", "-a", archive)
        assert everything(archive) == after
    print(f"{len(left)} kills in {what} of {takes_s:.2f} s; it was done in {sum(left)}")
