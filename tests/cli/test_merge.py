"""`dicomfs merge`: what is printed, what is refused, and that other readers see exactly what both archives changed."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import pytest

from dicomfs.archive.archive import Archive
from tests.archive.importing import flip, packs, snapshot, tree
from tests.archive.merging import edit, state
from tests.archive.versions import delete, holds
from tests.builders import make_instance, write_study

if TYPE_CHECKING:
    from tests.cli.conftest import Run

NAME, SEX = 0x00100010, 0x00100040
NBSS = b'{"7": {"EpisodeOpenedDate": "20240101"}}\n'


@pytest.fixture
def other(run: Run, archive_path: Path, tmp_path: Path) -> Path:
    """Return a copy of an archive of three files, both to be changed."""
    write_study(tmp_path / "source", instances=3)
    run("import", tmp_path / "source", "-a", archive_path)
    return Path(shutil.copytree(archive_path, tmp_path / "other"))


def current(archive: Path, uid: str) -> bytes:
    """Return the file that is current."""
    with Archive.open(archive) as opened:
        with opened.view() as view:
            ino = view.instances_where_uid(uid)[0]
        file = opened.open_instance(ino)
        return bytes(file.read(0, file.size))


def dataset(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def test_help_is_a_manual(run: Run) -> None:
    ended = run("merge", "--help")
    assert ended.status == 0
    assert "Examples:" in ended.out
    assert "Layouts and projects stay" in " ".join(ended.out.split())


def test_both_edits_and_nothing_else(run: Run, archive_path: Path, other: Path) -> None:
    uids = sorted(state(archive_path).shown)
    before = dataset(current(archive_path, uids[0]))
    edit(archive_path, uids, set={NAME: ("Roe^Jane",)})
    edit(other, uids[:1], set={SEX: ("F",)})
    kept = snapshot(archive_path, but=["lock.mdb"])
    ended = run("merge", other, "-a", archive_path, "--dry-run")
    assert ended.status == 0, ended
    assert "1 file would be taken over, 1 would be made of edits of both" in ended.out
    assert snapshot(archive_path, but=["lock.mdb"]) == kept
    ended = run("merge", other, "-a", archive_path, "--reason", "ward round")
    assert ended.status == 0, ended
    assert "1 made of edits of both" in ended.out
    after = dataset(current(archive_path, uids[0]))
    changed = {element.tag for element in after if before.get(element.tag) != element}
    assert changed == {NAME, SEX, 0x04000561}
    assert (after.PatientName, after.PatientSex) == ("Roe^Jane", "F")
    assert len(after.OriginalAttributesSequence) == 2
    assert after.PixelData == before.PixelData
    with Archive.open(archive_path) as opened, opened.view() as view:
        (event,) = [one for one in view.events() if one.op == "merge"]
        assert (event.reason, [one.op for one in event.merged][:1]) == ("ward round", ["edit"])
    assert run("merge", other, "-a", archive_path).out.startswith("0 files taken over, 0 made")
    holds(archive_path)


def test_conflicts_are_listed(run: Run, archive_path: Path, other: Path) -> None:
    uids = sorted(state(archive_path).shown)
    edit(archive_path, uids[:1], "as called", set={NAME: ("Roe^Jane",)})
    edit(other, uids[:1], "as spelled", set={NAME: ("Poe^Jane",)})
    delete(other, next(path for path, file in tree(other).items() if file.sha256 in state(other).shown[uids[1]]))
    edit(archive_path, uids[1:2], set={SEX: ("F",)})
    ended = run("merge", other, "-a", archive_path, "--json", "--dry-run")
    assert ended.status == 1
    planned = json.loads(ended.out)
    ended = run("merge", other, "-a", archive_path)
    assert ended.status == 1
    lines = ended.out.splitlines()
    assert lines[0].split()[:2] == ["Conflict", "Kind"]
    assert "PatientName=Poe^Jane" in lines[2]
    assert "PatientName=Roe^Jane" in lines[3]
    assert "2 conflicts to be decided by you" in ended.err
    assert "dicomfs delete -a " in ended.err
    told = json.loads(run("merge", other, "-a", archive_path, "--json").out)
    assert told["conflicts"] == planned["conflicts"]
    first, second = sorted(told["conflicts"], key=lambda one: str(one["kind"]))
    assert (first["kind"], second["kind"]) == ("deleted", "edited")
    assert [one["reason"] for one in second["versions"]] == ["as spelled", "as called"]
    assert [one["status"] for one in first["versions"]] == ["current", "deleted"]
    holds(archive_path)


def test_attachments_and_quarantine_come_over(run: Run, archive_path: Path, other: Path, tmp_path: Path) -> None:
    for name, archive in (("a", archive_path), ("b", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nbss_DFS-1.json").write_bytes(NBSS.replace(b"7", name.encode()))
        assert run("attach", tmp_path / name / "nbss_DFS-1.json", "-a", archive).status == 0
        (tmp_path / name / "refused.dcm").write_bytes(make_instance(attributes={"SOPInstanceUID": None}))
        run("import", tmp_path / name / "refused.dcm", "-a", other)
    for one, two in ((archive_path, other), (other, archive_path)):
        ended = run("merge", two, "-a", one, "--json")
        assert ended.status == 0, ended
        assert json.loads(ended.out)["attachments"] == 1
        found = json.loads(run("attachments", "-a", one, "--json").out)
        assert [item["sha256"] for item in found if item["status"] == "shown"] == [
            item["sha256"] for item in json.loads(run("attachments", "-a", other, "--json").out)
            if item["status"] == "shown"
        ]  # fmt: skip
    assert sorted(os.listdir(archive_path / "quarantine")) == sorted(os.listdir(other / "quarantine"))
    assert len(os.listdir(other / "quarantine")) == 2
    for one, two in ((archive_path, other), (other, archive_path)):
        assert json.loads(run("merge", two, "-a", one, "--json").out)["commits"] == 0
        holds(one)


def test_what_is_refused(run: Run, archive_path: Path, other: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(archive_path)
    for same in (archive_path, link, archive_path / "."):
        ended = run("merge", same, "-a", archive_path)
        assert (ended.status, "is the archive itself" in ended.err) == (2, True)
    assert run("merge", tmp_path / "none", "-a", archive_path).status == 3
    settings = other / "dicomfs.toml"
    settings.write_text(settings.read_text().replace("format = 1", "format = 2"))
    ended = run("merge", other, "-a", archive_path)
    assert (ended.status, "has format 2" in ended.err) == (3, True)


def test_a_damaged_one_is_refused(run: Run, archive_path: Path, other: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "more", instances=3, study=2)
    run("import", tmp_path / "more", "-a", other)
    before = state(archive_path)
    last = packs(other)[-1]
    flip(last, 400)
    ended = run("merge", other, "-a", archive_path)
    assert ended.status == 3
    assert f"dicomfs check -a {other}" in ended.err
    assert f"-a {archive_path}" not in ended.err
    assert state(archive_path) == before
    holds(archive_path)


def test_it_may_lie_on_a_disk_that_is_read_only(run: Run, archive_path: Path, other: Path) -> None:
    uids = sorted(state(archive_path).shown)
    edit(other, uids[:1], set={SEX: ("F",)})
    before = snapshot(other)
    with tempfile.TemporaryDirectory(prefix="dicomfs-ro-") as name:
        bound = subprocess.run(["mount", "--bind", "-o", "ro", other, name], capture_output=True, text=True)
        if bound.returncode:
            pytest.skip(f"nothing can be mounted here: {bound.stderr.strip()}")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", name], check=True)
            assert run("merge", name, "-a", archive_path).status == 0
        finally:
            subprocess.run(["umount", name], check=True)
    assert snapshot(other) == before
    assert state(archive_path) == state(other)


def test_it_needs_no_index(run: Run, archive_path: Path, other: Path) -> None:
    uids = sorted(state(archive_path).shown)
    edit(other, uids[:1], set={SEX: ("F",)})
    wanted = state(other)
    shutil.rmtree(other / "index")
    before = snapshot(other)
    assert run("merge", other, "-a", archive_path).status == 0
    assert snapshot(other) == before
    assert state(archive_path) == wanted


def test_real_files(run: Run, archive_path: Path, corpus: Path, tmp_path: Path) -> None:
    """Two halves of the corpus, which never met, and an edit of each: all come over, bit for bit."""
    names = sorted(path for path in corpus.rglob("*") if path.is_file() and path.stat().st_size < 300_000)[:80]
    other = tmp_path / "other"
    run("init", other)
    for archive, chosen in ((archive_path, names[: len(names) * 2 // 3]), (other, names[len(names) // 3 :])):
        half = tmp_path / f"of_{archive.name}"
        half.mkdir()
        for number, path in enumerate(chosen):
            os.symlink(path, half / f"{number:04d}")
        run("import", half, "-a", archive)
        uids = sorted(state(archive).shown)
        for uid in (uids[0], uids[len(uids) // 2], uids[-1]):
            edit(archive, [uid], set={SEX: ("O",)})
    apart = state(archive_path), state(other)
    run("merge", other, "-a", archive_path)
    run("merge", archive_path, "-a", other)
    assert state(archive_path) == state(other)
    assert state(archive_path).files >= apart[0].files | apart[1].files
    for uid in apart[1].shown.keys() & state(archive_path).shown.keys():
        dataset(current(archive_path, uid))
    holds(archive_path)
    holds(other)
