"""A ZIP file of an export: what every tool opens, the bytes of the archive, whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from calendar import timegm
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.ingest import ImportOptions, import_paths
from dicomfs.archive.query import Level, Query, matches
from dicomfs.manifest import NAME
from dicomfs.zip_file import ZipWriter
from tests.builders import make_instance, uid, write_study
from tests.cli.conftest import HOSTILE, spawn
from tests.cli.test_export import files, instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Filled, Run


def entries(path: Path) -> dict[str, str]:
    """Return the SHA-256 of every entry but the manifest, which must say the same."""
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
        assert names[-1] == NAME
        assert len(set(names)) == len(names)
        found = {name: hashlib.sha256(opened.read(name)).hexdigest() for name in names[:-1]}
        assert opened.read(NAME).decode() == "".join(f"{value}  {name}\n" for name, value in found.items())
    return found


TESTERS = {
    "unzip": ("unzip", "-tqq"),
    "bsdtar": ("bsdtar", "-xOf"),
    "7zz": ("7zz", "t", "-bso0"),
    "zip": ("zip", "-Tqq"),
}
EXTRACTORS = {
    "unzip": ("unzip", "-qq", "{path}", "-d", "{output}"),
    "bsdtar": ("bsdtar", "-xf", "{path}", "-C", "{output}"),
    "7zz": ("7zz", "x", "-bso0", "-o{output}", "{path}"),
}


def accepted(path: Path) -> int:
    """Have every tool that is installed test a ZIP file, and return how many did."""
    known = [command for name, command in TESTERS.items() if shutil.which(name)]
    for command in known:
        done = subprocess.run([*command, path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b""), command
    return len(known)


def checked(directory: Path) -> int:
    """Have sha256sum check the manifest of a directory, and return how many files it found right."""
    done = subprocess.run(["sha256sum", "--strict", "-c", NAME], cwd=directory, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.count(b": OK\n")


def test_everything(run: Run, filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.zip"
    ended = run("export", "-a", filled.path, "--all", "--zip", target)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("9 files: 9 written (")
    assert entries(target) == {one["path"].removeprefix("patients/"): one["sha256"] for one in instances(run, filled)}
    assert accepted(target) >= 1
    assert os.listdir(tmp_path) == ["out.zip"]
    assert run("export", "-a", filled.path, "--all", "--zip", tmp_path / "again.zip").status == 0
    assert (tmp_path / "again.zip").read_bytes() == target.read_bytes()
    monkeypatch.setattr("dicomfs.export_zip._WHOLE", 0)  # files are written in pieces
    monkeypatch.setattr("dicomfs.export_view._CHUNK", 1000)
    assert run("export", "-a", filled.path, "--all", "--zip", tmp_path / "pieces.zip").status == 0
    assert (tmp_path / "pieces.zip").read_bytes() == target.read_bytes()


@pytest.mark.parametrize("tool", EXTRACTORS)
def test_taken_out_it_is_the_export_to_a_directory(run: Run, filled: Filled, tmp_path: Path, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    run("export", "-a", filled.path, "--all", "--zip", tmp_path / "out.zip")
    run("export", "-a", filled.path, "--all", "-o", tmp_path / "plain", "--manifest")
    (tmp_path / "taken").mkdir()
    words = [word.format(path=tmp_path / "out.zip", output=tmp_path / "taken") for word in EXTRACTORS[tool]]
    subprocess.run(words, check=True, env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"})
    taken = files(tmp_path / "taken")
    assert taken == files(tmp_path / "plain")
    assert checked(tmp_path / "taken") == checked(tmp_path / "plain") == 9
    for name in taken:
        status, other = (tmp_path / "taken" / name).stat(), (tmp_path / "plain" / name).stat()
        assert status.st_mode & 0o777 == 0o644
        if name != NAME:
            assert int(status.st_mtime) == int(other.st_mtime)


@pytest.mark.parametrize("options", [("--study-uid", uid("P-2", 1)), ("--patient-id", "DFS-*"), ("--all", "--flatten")])
def test_a_part(run: Run, filled: Filled, tmp_path: Path, options: tuple[str, ...]) -> None:
    run("export", "-a", filled.path, *options, "-o", tmp_path / "plain")
    ended = run("export", "-a", filled.path, *options, "--zip", tmp_path / "out.zip")
    assert ended.status == 0
    assert entries(tmp_path / "out.zip") == files(tmp_path / "plain")


@pytest.mark.parametrize("layout", ["icore", "archive", "dicomweb", "patients/DFS-1_Doe_Jane"])
def test_views(run: Run, archive_path: Path, tmp_path: Path, layout: str) -> None:
    write_study(tmp_path / "source" / "1", series=2, instances=3)
    write_study(tmp_path / "source" / "2", patient="P-2", patient_name=HOSTILE)
    run("import", tmp_path / "source", "-a", archive_path)
    if layout in ("icore", "archive"):
        run("layout", "add", layout, "-a", archive_path)
    for options in (["--all"], ["--patient-id", "P-2"])[: 2 if layout == "dicomweb" else 1]:
        plain, target = tmp_path / f"plain{options[0]}", tmp_path / f"out{options[0]}.zip"
        ended = run("export", *options, "--layout", layout, "-a", archive_path, "-o", plain, "--manifest")
        assert (ended.status, ended.err) == (0, "")
        ended = run("export", *options, "--layout", layout, "-a", archive_path, "--zip", target)
        assert (ended.status, ended.err) == (0, "")
        found = files(plain)
        found.pop(NAME)
        assert entries(target) == found
        assert checked(plain) == len(found) >= 3
        assert accepted(target) >= 1
        ended = run("export", *options, "--layout", layout, "-a", archive_path, "-o", plain, "--manifest")
        assert f"{len(found)} present, 0 failed" in ended.out
        assert checked(plain) == len(found)


@pytest.mark.parametrize(
    "layout",
    ["patients/nobody", "patients/..", "patients/../dicomweb", "patients//", "patients/./x", "../x", "/", "/etc", ""],
)
@pytest.mark.parametrize("where", ["--zip", "--output"])
def test_a_directory_that_is_not_there(run: Run, filled: Filled, tmp_path: Path, layout: str, where: str) -> None:
    ended = run("export", "-a", filled.path, "--all", "--layout", layout, where, tmp_path / "x")
    if layout == "patients//":
        assert ended.status == 0
        return
    assert (ended.status, ended.out) == (2, "")
    assert "there is no view" in ended.err or f"the drive has no directory '{layout}'" in ended.err
    assert os.listdir(tmp_path) == []


def test_a_file_is_no_directory(run: Run, filled: Filled, tmp_path: Path) -> None:
    path = instances(run, filled)[0]["path"]
    ended = run("export", "-a", filled.path, "--all", "--layout", path, "-o", tmp_path / "x")
    assert ended.status == 2
    assert ended.err == f"dicomfs: '{path}' is a file of the drive; name a directory\n"


def a_file(path: Path) -> None:
    path.write_bytes(b"somebody's")


def a_dead_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [a_file, a_dead_link, Path.mkdir])
def test_nothing_is_overwritten(run: Run, filled: Filled, tmp_path: Path, make: object) -> None:
    assert callable(make)
    target = tmp_path / "out.zip"
    make(target)
    before = os.lstat(target)
    ended = run("export", "-a", filled.path, "--all", "--zip", target)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"dicomfs: {target}: is already there; remove it, or name another file\n"
    assert os.lstat(target) == before
    assert os.listdir(tmp_path) == ["out.zip"]


def test_somebody_else_was_quicker(filled: Filled, tmp_path: Path) -> None:
    from dicomfs.errors import UsageError
    from dicomfs.export_zip import zip_files

    target = tmp_path / "out.zip"
    with Archive.open(filled.path) as archive, pytest.raises(UsageError, match="is there by now"):
        zip_files(archive, target, Query(), on_result=lambda _: target.write_bytes(b"x") and None)
    assert target.read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["out.zip"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--all"], 2, "say where to write: --output DIR or --zip FILE"),
        (["--all", "--zip", "x.zip", "-o", "x"], 2, "say where to write: --output DIR or --zip FILE"),
        (["--all", "--zip", "no/x.zip"], 2, "no: is no directory; make it first"),
        (["--all", "--zip", "/proc/x.zip"], 1, "/proc/x.zip: No such file or directory; no ZIP file was written"),
        (["--patient-id", "nobody", "--zip", "x.zip"], 1, "nothing matches"),
    ],
)
def test_what_cannot_be(
    run: Run,
    filled: Filled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("export", "-a", filled.path, *options)
    assert (ended.status, ended.out) == (status, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_not_inside_the_archive(run: Run, filled: Filled) -> None:
    ended = run("export", "-a", filled.path, "--all", "--zip", filled.path / "packs" / "x.zip")
    assert ended.status == 2
    assert "lies inside the archive" in ended.err


def test_json(run: Run, filled: Filled, tmp_path: Path) -> None:
    ended = run("export", "-a", filled.path, "--all", "--zip", tmp_path / "x.zip", "--json", "-v")
    report = json.loads(ended.out)
    assert (report["written"], report["failed"], ended.err) == (9, 0, "")
    assert {one["path"] for one in report["files"]} == set(entries(tmp_path / "x.zip"))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a filesystem with little room."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small filesystem")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk(run: Run, filled: Filled, small: Path) -> None:
    ended = run("export", "-a", filled.path, "--all", "--zip", small / "x.zip")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"dicomfs: {small / 'x.zip'}: No space left on device; no ZIP file was written\n"
    assert os.listdir(small) == []


def test_a_full_disk_and_a_manifest(run: Run, filled: Filled, small: Path) -> None:
    ended = run("export", "-a", filled.path, "--all", "-o", small, "--manifest")
    assert ended.status == 1
    assert "No space left on device; once that is solved" in ended.err
    assert not [name for name in files(small) if name.endswith("-part") or name == NAME]


def test_without_hard_links(run: Run, filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert run("export", "-a", filled.path, "--all", "--zip", tmp_path / "x.zip").status == 0
    assert os.listdir(tmp_path) == ["x.zip"]
    assert len(entries(tmp_path / "x.zip")) == 9


@pytest.mark.parametrize("size", [0, 1 << 30])
def test_hurt_files_are_left_out(
    run: Run, filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A file that turns out to be hurt while it is written leaves nothing behind, wherever it is found out."""
    monkeypatch.setattr("dicomfs.export_zip._WHOLE", size)  # 0: files are streamed, in pieces
    monkeypatch.setattr("dicomfs.export_view._CHUNK", 1000)
    path = tmp_path / "archive"
    shutil.copytree(filled.path, path)
    (pack,) = (path / "packs").glob("*.zip")
    with pack.open("r+b") as file:
        file.seek(2000)
        file.write(bytes(500))
    target = tmp_path / "out.zip"
    ended = run("export", "-a", path, "--all", "--zip", target)
    assert ended.status == 1
    assert "failed: " in ended.err
    whole = {one["path"].removeprefix("patients/"): one["sha256"] for one in instances(run, filled)}
    assert entries(target).items() < whole.items()
    assert accepted(target) >= 1


def test_other_bytes_than_were_imported(
    run: Run, filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = instances(run, filled)[0]
    from dicomfs import export_view

    def wrong(archive: Archive, ino: int) -> bytes | None:
        return bytes(32) if ino == int(wanted["ino"]) else known(archive, ino)

    known = export_view.imported_sha256
    monkeypatch.setattr("dicomfs.export_zip.imported_sha256", wrong)
    ended = run("export", "-a", filled.path, "--all", "--zip", tmp_path / "out.zip")
    name = wanted["path"].removeprefix("patients/")
    assert ended.err.startswith(f"failed: {name}: the archive gave other bytes")
    assert len(entries(tmp_path / "out.zip").keys() - {name}) == 8


def test_a_patient_called_like_the_manifest(run: Run, archive_path: Path, tmp_path: Path) -> None:
    for number, patient in enumerate((NAME, "P-2")):
        (tmp_path / str(number)).write_bytes(make_instance(patient=patient, study=number))
    run("import", tmp_path / "0", tmp_path / "1", "-a", archive_path)
    run("layout", "add", "mine", "{PatientID}", "-a", archive_path)
    ended = run("export", "--all", "--layout", "mine", "-a", archive_path, "--zip", tmp_path / "x.zip")
    assert ended.status == 1
    assert list(entries(tmp_path / "x.zip")) == ["P-2"]
    ended = run("export", "--all", "--layout", "mine", "-a", archive_path, "-o", tmp_path / "x", "--manifest")
    assert ended.status == 2
    assert "a file of the archive has this name; export without --manifest" in ended.err
    assert files(tmp_path / "x")[NAME] == hashlib.sha256((tmp_path / "0").read_bytes()).hexdigest()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_nothing(archive_path: Path, tmp_path: Path, number: int, status: int) -> None:
    write_study(tmp_path / "source", instances=100, rows=8, columns=8)
    import_paths(archive_path, [tmp_path / "source"], ImportOptions())
    output = tmp_path / "output"
    output.mkdir()
    process = spawn("export", "-a", archive_path, "--all", "--zip", output / "x.zip", "-v")
    assert process.stderr is not None
    # A page takes forty of the hundred lines: it cannot end before it is listened to.
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    process.stderr.readline()
    assert [name.endswith("-part") for name in os.listdir(output)] == [True]
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == status
    assert "internal error" not in said
    assert ("no ZIP file was written" in said) is (number == signal.SIGINT)
    assert os.listdir(output) == []


MOMENTS = [
    (-1, timegm((1980, 1, 1, 0, 0, 0))),
    (0, timegm((1980, 1, 1, 0, 0, 0))),
    (timegm((2021, 2, 28, 23, 59, 59)), timegm((2021, 2, 28, 23, 59, 58))),
    (timegm((2107, 12, 31, 23, 59, 58)), timegm((2107, 12, 31, 23, 59, 58))),
    (timegm((2300, 1, 1, 0, 0, 0)), timegm((2107, 12, 31, 23, 59, 58))),
]


def test_times_and_numbers(tmp_path: Path) -> None:
    """More entries than the old end record can count, and times that the old fields cannot tell."""
    path = tmp_path / "many.zip"
    many = 65_535
    with path.open("w+b") as file, contextlib.closing(ZipWriter(file.fileno(), str(tmp_path))) as writer:
        for number, (moment, _) in enumerate(MOMENTS):
            writer.add(f"time{number}".encode(), moment * 10**9, b"x" * number)
        for number in range(many):
            writer.add(b"%d/\xc3\xa9" % number, 10**18, b"")
        writer.finish()
    with zipfile.ZipFile(path) as opened:
        found = opened.infolist()
        assert [timegm(one.date_time) for one in found[: len(MOMENTS)]] == [told for _, told in MOMENTS]
        assert found[-1].filename == f"{many - 1}/é"
        assert len(found) == many + len(MOMENTS)
        assert opened.testzip() is None
    assert accepted(path) >= 1


def test_nothing_is_left_of_an_entry_that_breaks_off(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(5000)
        raise OSError(errno.EIO, "broken")

    path = tmp_path / "x.zip"
    with path.open("w+b") as file, contextlib.closing(ZipWriter(file.fileno(), str(tmp_path))) as writer:
        writer.add(b"a", time.time_ns(), b"first")
        with pytest.raises(OSError, match="broken"):
            writer.add_long(b"b", time.time_ns(), 6000, broken())
        writer.add_long(b"c", time.time_ns(), 6, iter([b"las", b"t!!"]))
        writer.finish()
    with zipfile.ZipFile(path) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == {"a": b"first", "c": b"last!!"}
    assert accepted(path) >= 1


@pytest.mark.corpus
@pytest.mark.parametrize("layout", ["patients", "archive"])
def test_the_corpus(run: Run, archive_path: Path, tmp_path: Path, corpus: Path, layout: str) -> None:
    """Every entry has the bytes of a file of the corpus, and every file that was imported is an entry."""
    import_paths(archive_path, [corpus], ImportOptions())
    if layout == "archive":
        run("layout", "add", layout, "-a", archive_path)
    target = tmp_path / "out.zip"
    ended = run("export", "--all", "--layout", layout, "-a", archive_path, "--zip", target)
    assert (ended.status, ended.err) == (0, "")
    found = entries(target)
    index = found.pop("archive_index.json", None)
    assert (index is not None) is (layout == "archive")
    sources = {hashlib.sha256(path.read_bytes()).hexdigest() for path in corpus.rglob("*") if path.is_file()}
    with Archive.open(archive_path) as archive:
        imported = sorted(one.instance.sha256.hex() for one in matches(archive, Query(Level.INSTANCE)) if one.instance)
    assert sorted(found.values()) == imported
    assert len(imported) > 400
    assert set(imported) <= sources
    assert accepted(target) >= 1
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-qq", target, "-d", tmp_path / "taken"], check=True)
        assert checked(tmp_path / "taken") == len(found) + (index is not None)
