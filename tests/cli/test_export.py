"""An export is the readable tree in a real directory: exact, resumable, and never over anybody's file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.query import Level, Query, matches
from dicomfs.export import export
from tests.builders import uid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Filled, Run


def files(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if not path.is_dir()
    }


def instances(run: Run, filled: Filled, *options: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        run("query", "-a", filled.path, "--level", "instance", "--json", *options).out
    )
    return found


def test_everything(run: Run, filled: Filled, tmp_path: Path) -> None:
    output = tmp_path / "a" / "b"
    ended = run("export", "-a", filled.path, "--all", "--output", output)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("9 files: 9 written (")
    expected = {one["path"].removeprefix("patients/"): one["sha256"] for one in instances(run, filled)}
    assert files(output) == expected
    assert set(filled.sources.values()) < set(expected.values())


def test_times_are_those_of_the_drive(filled: Filled, tmp_path: Path) -> None:
    with Archive.open(filled.path) as archive:
        export(archive, tmp_path, Query())
        for match in matches(archive, Query(Level.INSTANCE)):
            assert match.instance is not None
            path = tmp_path / match.path.removeprefix("patients/")
            assert path.stat().st_mtime_ns == match.instance.mtime_ns
            with archive.view() as view:
                node = view.node(match.instance.ino)
                while node is not None and path != tmp_path:
                    assert path.stat().st_mtime_ns == node.mtime_ns
                    node, path = view.node(node.parent), path.parent


@pytest.mark.parametrize(
    ("option", "value", "query", "count"),
    [
        ("--study-uid", uid("P-2", 1), "--study-uid", 2),
        ("--series-uid", uid("DFS-1", 1, 2), "--series-uid", 3),
        ("--patient-id", "dfs-*", "--patient-id", 7),
    ],
)
def test_a_part(run: Run, filled: Filled, tmp_path: Path, option: str, value: str, query: str, count: int) -> None:
    assert run("export", "-a", filled.path, option, value, "-o", tmp_path / "out").status == 0
    expected = {one["path"].removeprefix("patients/"): one["sha256"] for one in instances(run, filled, query, value)}
    assert len(expected) == count
    assert files(tmp_path / "out") == expected


def test_flatten(run: Run, filled: Filled, tmp_path: Path) -> None:
    assert run("export", "-a", filled.path, "--all", "-o", tmp_path, "--flatten").status == 0
    found = files(tmp_path)
    assert len(found) == 9
    for one in instances(run, filled):
        if one["current"]:
            assert found[one["SOPInstanceUID"] + ".dcm"] == one["sha256"]
        else:
            (name,) = (name for name in found if name.startswith(one["SOPInstanceUID"] + "~"))
            assert found[name] == one["sha256"]


def test_again_and_after_an_interruption(run: Run, filled: Filled, tmp_path: Path) -> None:
    run("export", "-a", filled.path, "--all", "-o", tmp_path)
    before = files(tmp_path)
    lost = min(before)
    (tmp_path / lost).unlink()
    # What a kill leaves behind.
    (one,) = (one for one in instances(run, filled) if one["path"] == f"patients/{lost}")
    (tmp_path / lost).with_name(f".{one['ino']}.dicomfs-part").write_bytes(b"half")
    report = json.loads(run("export", "-a", filled.path, "--all", "-o", tmp_path, "--json").out)
    assert (report["written"], report["present"], report["failed"]) == (1, 8, 0)
    assert files(tmp_path) == before


def other_bytes(path: Path) -> None:
    path.write_bytes(b"somebody's")


def same_size(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def link_to_itself(path: Path) -> None:
    real = path.with_suffix(".real")
    path.rename(real)
    path.symlink_to(real)


def dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [other_bytes, same_size, link_to_itself, dead_link, directory, fifo])
def test_nothing_is_overwritten(run: Run, filled: Filled, tmp_path: Path, change: object) -> None:
    assert callable(change)
    run("export", "-a", filled.path, "--all", "-o", tmp_path)
    name = min(files(tmp_path))
    change(tmp_path / name)
    before = os.lstat(tmp_path / name)
    ended = run("export", "-a", filled.path, "--all", "-o", tmp_path)
    assert ended.status == 1
    assert ended.err.startswith(f"failed: {name}: ")
    assert ended.out == "9 files: 0 written (0 B), 8 present, 1 failed\n"
    after = os.lstat(tmp_path / name)
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


def test_a_power_cut_leaves_no_name_without_its_bytes(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is given only to what is on the disk, and at the end all names are."""
    synced: dict[int, int] = {}
    unsafe: list[str] = []
    sync, link = os.fdatasync, os.link

    def fdatasync(fd: int) -> None:
        sync(fd)
        synced[os.fstat(fd).st_ino] = os.fstat(fd).st_size

    def named(part: str, path: str) -> None:
        status = os.stat(part)
        if synced.get(status.st_ino) != status.st_size:
            unsafe.append(path)
        link(part, path)
        synced.pop(os.stat(os.path.dirname(path)).st_ino, None)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "link", named)
    with Archive.open(filled.path) as archive:
        assert export(archive, tmp_path / "out", Query()).written == 9
    assert unsafe == []
    below = list((tmp_path / "out").rglob("*"))
    assert len(below) > 9
    assert {path.stat().st_ino for path in (tmp_path / "out", *below)} <= set(synced)


def test_a_file_where_a_directory_must_be(run: Run, filled: Filled, tmp_path: Path) -> None:
    (tmp_path / "DFS-1_Doe_Jane").write_text("in the way")
    ended = run("export", "-a", filled.path, "--all", "-o", tmp_path)
    assert ended.status == 1
    assert ended.out.endswith(", 7 failed\n")
    assert len(files(tmp_path)) == 1 + 2


@pytest.mark.parametrize("below", ["", "exported", "packs/x"])
def test_not_inside_the_archive(run: Run, filled: Filled, tmp_path: Path, below: str) -> None:
    (tmp_path / "link").symlink_to(filled.path)
    for root in (filled.path, tmp_path / "link"):
        ended = run("export", "-a", filled.path, "--all", "-o", root / below)
        assert ended.status == 2
        assert "lies inside the archive" in ended.err


def test_nothing_matches(run: Run, filled: Filled, tmp_path: Path) -> None:
    ended = run("export", "-a", filled.path, "--patient-id", "nobody", "-o", tmp_path / "out")
    assert (ended.status, ended.out, ended.err) == (1, "", "nothing matches\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["/dev/null", "a file"])
def test_an_output_that_is_no_directory(run: Run, filled: Filled, tmp_path: Path, output: str) -> None:
    (tmp_path / "a file").touch()
    ended = run("export", "-a", filled.path, "--all", "-o", tmp_path / output)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"dicomfs: {tmp_path / output}: is not a directory; name one to write to\n"


@pytest.mark.parametrize("output", ["/proc/dicomfs", "/dev/null/x"])
def test_an_output_that_cannot_be(run: Run, filled: Filled, output: str) -> None:
    ended = run("export", "-a", filled.path, "--all", "-o", output)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(f"dicomfs: {output}: ")
    assert ended.err.count("\n") == 1


def no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_without_hard_links(run: Run, filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # FAT and exFAT sticks, and some network shares.
    monkeypatch.setattr(os, "link", no_links)
    assert run("export", "-a", filled.path, "--all", "-o", tmp_path).status == 0
    found = files(tmp_path)
    assert len(found) == 9
    assert not any(name.endswith("-part") for name in found)
    monkeypatch.setattr("dicomfs.export._present", lambda *_: None)  # somebody else was quicker
    ended = run("export", "-a", filled.path, "--all", "-o", tmp_path)
    assert ended.out == "9 files: 0 written (0 B), 0 present, 9 failed\n"
    assert files(tmp_path) == found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small filesystem")
def test_a_full_disk(run: Run, filled: Filled, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", small], check=True)
    try:
        ended = run("export", "-a", filled.path, "--all", "-o", small)
        assert ended.status == 1
        assert ended.out.endswith(" present, 0 failed\n")
        assert ended.err.startswith("stopped: ")
        assert ended.err.endswith("No space left on device; once that is solved, run the same command again to go on\n")
        assert ended.err.count("\n") == 1
        found = files(small)
        assert f": {len(found)} written" in ended.out
    finally:
        subprocess.run(["umount", small], check=True)
    whole = {one["path"].removeprefix("patients/"): one["sha256"] for one in instances(run, filled)}
    assert found.items() <= whole.items()
    assert len(found) < 9


def test_hurt_files_are_not_exported(run: Run, filled: Filled, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    shutil.copytree(filled.path, path)
    (pack,) = (path / "packs").glob("*.zip")
    with pack.open("r+b") as file:
        # Inside the first blobs, which lie at the front of a pack.
        file.seek(2000)
        file.write(bytes(500))
    ended = run("export", "-a", path, "--all", "-o", tmp_path / "out")
    assert ended.status == 1
    assert "failed: " in ended.err
    whole = {one["path"].removeprefix("patients/"): one["sha256"] for one in instances(run, filled)}
    assert files(tmp_path / "out").items() < whole.items()
