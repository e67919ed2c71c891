"""Projects on real drives: hard links or derived files, private where they must be, alone where they are shared."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import openpyxl
import pydicom
import pytest

from dicomfs.archive.rebuild import reindex
from dicomfs.vfs.node import PATIENTS, PROJECTS
from tests.archive.importing import add
from tests.builders import make_instance, write_study
from tests.mount.conftest import import_into, run
from tests.vfs.committed import Commit, Wanted, commit_project, instances, remove_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted

PHI, DEID = "PHI_heads_20240101-000000", "DeID_heads_20240101-000000"
NOBODY = 65534
DERIVED = [make_instance(patient="ANON-1", number=number, seed="made", rows=96, columns=96) for number in range(4)]


def phi(inodes: list[int]) -> Wanted:
    return Wanted(linked={f"images/DATE-1--PID-DFS-1/SER-1/{number}.dcm": ino for number, ino in enumerate(inodes, 1)})


def deid(inodes: list[int], start: int = 1, folder: str = "DATE-1/SER-1") -> Wanted:
    """Return a project that shows three instances as other bytes, and withholds a fourth."""
    *shown, last = inodes
    made = {f"{folder}/{number}.dcm": (ino, DERIVED[number % 4]) for number, ino in enumerate(shown, start)}
    return Wanted(derived=made, withheld={f"quarantine/{folder}/9.dcm": (last, "its pixels may show a name")})


@pytest.fixture
def made(imported: tuple[Path, object]) -> Path:
    """Return an archive with a project of each kind."""
    archive, _ = imported
    inodes = instances(archive)
    commit_project(archive, PHI, phi(inodes[:6]))
    commit_project(archive, DEID, deid(inodes[:4]), deid="basic")
    return archive


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a directory into which every user can look."""
    path = Path(tempfile.mkdtemp(prefix="dicomfs-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def below(directory: Path) -> dict[str, os.stat_result]:
    """Return the status of everything below a directory."""
    return {str(path.relative_to(directory)): path.lstat() for path in sorted(directory.rglob("*"))}


def numbers(directory: Path) -> dict[str, int]:
    """Return the inode numbers of everything below a directory."""
    return {path: status.st_ino for path, status in below(directory).items()}


def within_a_second(true: Callable[[], bool]) -> None:
    """Wait until something is so; a second is what is promised, and a busy machine gets some more."""
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_modes_keep_private_what_is(made: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    drive = mount_drive(made)
    expected = {
        "DATE-1": 0o755, "DATE-1/SER-1": 0o755, **{f"DATE-1/SER-1/{number}.dcm": 0o644 for number in (1, 2, 3)},
        "deid_metadata.xlsx": 0o644, "run.txt": 0o644, "linker.xlsx": 0o600, "metadata.xlsx": 0o600,
        "quarantine": 0o700, "quarantine/DATE-1": 0o700, "quarantine/DATE-1/SER-1": 0o700,
        "quarantine/DATE-1/SER-1/9.dcm": 0o644, "quarantine/DATE-1/SER-1/9.txt": 0o600,
    }  # fmt: skip
    for _ in range(2):  # as a listing tells it, then as the kernel has it
        found = below(drive.path / "projects" / DEID)
        assert {path: stat.S_IMODE(status.st_mode) for path, status in found.items()} == expected
    run("cp", "-a", drive.path / "projects" / DEID, tmp_path / "copy")
    copied = below(tmp_path / "copy")
    assert {path: stat.S_IMODE(status.st_mode) for path, status in copied.items()} == expected
    open_to_all = {stat.S_IMODE(status.st_mode) for status in below(drive.path / "projects" / PHI).values()}
    assert open_to_all == {0o755, 0o644}
    strict = mount_drive(made, "umask=077,fmask=0277")
    assert stat.S_IMODE((strict.path / "projects" / DEID / "linker.xlsx").stat().st_mode) == 0o400


def test_a_long_quarantine_is_listed_to_its_end(archive_path: Path, mount_drive: Callable[..., Drive]) -> None:
    add(archive_path, *(make_instance(number=number, rows=8, columns=8) for number in range(1, 201)))
    withheld = {f"quarantine/{number}.dcm": (ino, "why") for number, ino in enumerate(instances(archive_path), 1)}
    commit_project(archive_path, DEID, Wanted(withheld=withheld), deid="basic")
    quarantine = mount_drive(archive_path).path / "projects" / DEID / "quarantine"
    names = os.listdir(quarantine)
    assert len(names) == 400
    assert {stat.S_IMODE((quarantine / name).stat().st_mode) for name in names if name.endswith("txt")} == {0o600}
    assert {f"quarantine/{name}" for name in names if name.endswith("dcm")} == set(withheld)
    assert {name[:-4] for name in names if name.endswith("txt")} == {name[:-4] for name in names if "dcm" in name}


def test_members_are_hard_links_of_patients(made: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    drive = mount_drive(made)
    shown = sorted(status.st_ino for path, status in below(drive.path / "projects" / PHI).items() if ".dcm" in path)
    assert shown == sorted(path.stat().st_ino for path in drive.files().values())[:6]
    one = drive.path / "projects" / PHI / "images/DATE-1--PID-DFS-1/SER-1/1.dcm"
    twin = next(path for path in drive.files().values() if path.stat().st_ino == one.stat().st_ino)
    assert one.read_bytes() == twin.read_bytes()
    assert one.stat().st_nlink >= 2
    alone = sum(path.stat().st_blocks * 512 for path in drive.files().values())
    both = run("du", "-s", "--block-size=1", "-c", drive.patients, drive.path / "projects" / PHI).stdout
    assert int(both.splitlines()[-1].split()[0]) < alone + 200_000
    derived = (drive.path / "projects" / DEID / "DATE-1/SER-1/1.dcm").stat()
    assert derived.st_nlink == 1
    assert (drive.path / "projects" / DEID / "DATE-1/SER-1/1.dcm").read_bytes() == DERIVED[1]
    run("tar", "-C", drive.path, "-cf", tmp_path / "all.tar", "patients", f"projects/{PHI}")
    assert (tmp_path / "all.tar").stat().st_size < alone + 200_000


def test_rsync_copies_a_project_once(made: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    drive = mount_drive(made)
    command = ("rsync", "-aHi", f"{drive.path}/projects/", f"{tmp_path}/copy/")
    assert "linker.xlsx" in run(*command).stdout
    assert run(*command).stdout == ""
    again = mount_drive(made)
    shutil.rmtree(made / "cache")
    assert run("rsync", "-aHi", f"{again.path}/projects/", f"{tmp_path}/copy/").stdout == ""


@pytest.mark.root
def test_other_users_find_nothing_private(made: Path, public: Path, mount_drive: Callable[..., Drive]) -> None:
    def found_by_nobody(drive: Drive, path: str) -> str:
        become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        return run(*become, "find", drive.path / "projects" / path, "-type", "f", "-printf", "%P\\n").stdout

    shared = mount_drive(made, "allow_other", at=public / "shared")
    expected = {"deid_metadata.xlsx", "run.txt", *(f"DATE-1/SER-1/{number}.dcm" for number in (1, 2, 3))}
    assert set(found_by_nobody(shared, DEID).split("\n")) - {""} == expected
    assert {str(path) for path in below(shared.path / "projects" / DEID)} >= expected
    for path in ("linker.xlsx", "metadata.xlsx", "quarantine", "quarantine/DATE-1/SER-1/9.dcm"):
        assert not (shared.path / "projects" / DEID / path).exists()
    asked = mount_drive(made, "allow_other,private_tables", at=public / "asked")
    assert (asked.path / "projects" / DEID / "linker.xlsx").exists()
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    for path in ("linker.xlsx", "metadata.xlsx", "quarantine/DATE-1/SER-1/9.dcm", "quarantine/DATE-1/SER-1/9.txt"):
        refused = run(*become, "cat", asked.path / "projects" / DEID / path, check=False)
        assert "Permission denied" in refused.stderr
    assert run(*become, "cat", asked.path / "projects" / DEID / "run.txt").stdout


class _Handle(ctypes.Structure):
    """struct file_handle of FUSE (fuse_encode_fh): the node's number in two halves, then its generation."""

    _fields_ = (
        ("bytes", ctypes.c_uint), ("type", ctypes.c_int),
        ("high", ctypes.c_uint), ("low", ctypes.c_uint), ("generation", ctypes.c_uint),
    )  # fmt: skip


def open_by_number(drive: Drive, ino: int) -> int:
    """Open a node as a server of NFS does for a handle that somebody made up; return the error."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = _Handle(12, 0x81, ino >> 32, ino & 0xFFFFFFFF, 0)
    root = os.open(drive.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        opened = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        if opened < 0:
            return ctypes.get_errno()
        os.close(opened)
        return 0
    finally:
        os.close(root)


@pytest.mark.root
def test_a_drive_of_one_project_opens_nothing_else_by_number(made: Path, mount_drive: Callable[..., Drive]) -> None:
    everything = mount_drive(made)
    shared = mount_drive(made, f"allow_other,views=projects/{DEID}")
    assert set(os.listdir(shared.path)) == {"README.txt", "projects"}
    assert os.listdir(shared.path / "projects") == [DEID]
    inside = set(numbers(shared.path).values())
    outside = set(numbers(everything.path).values()) - inside - {shared.path.stat().st_ino}
    assert {PATIENTS, *(path.stat().st_ino for path in everything.files().values())} <= outside
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    for ino in inside - {PROJECTS}:
        assert open_by_number(shared, ino) == 0, ino
    for ino in outside:
        assert open_by_number(everything, ino) == 0, ino
        assert open_by_number(shared, ino) != 0, ino
    for name in ("patients", "dicomweb", "quarantine", f"projects/{PHI}", f"projects/{DEID}/linker.xlsx"):
        assert not (shared.path / name).exists()
    told = os.statvfs(shared.path)
    assert told.f_files == 3
    assert told.f_blocks * told.f_frsize < 4 * len(DERIVED[0])
    for path in shared.path.rglob("*.dcm"):
        assert os.listxattr(path) == []
        assert os.getxattr(path, "user.dicom.PatientID") == b"ANON-1"
        with pytest.raises(OSError, match="No data"):
            os.getxattr(path, "user.dicomfs.sha256")
    text = (shared.path / "README.txt").read_text()
    assert "patients/" not in text
    assert "projects/" in text


def test_projects_come_and_go_on_a_running_drive(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive]
) -> None:
    archive, _ = imported
    inodes = instances(archive)
    drive = mount_drive(archive)
    one = next(path for path in drive.files().values() if path.stat().st_ino == inodes[0])
    assert one.stat().st_nlink == 1
    readme = (drive.path / "README.txt").read_text()
    assert "projects" not in os.listdir(drive.path)
    assert not (drive.path / "projects").exists()
    root = commit_project(archive, PHI, phi(inodes[:6]))
    within_a_second((drive.path / "projects" / PHI).exists)
    assert os.listdir(drive.path / "projects") == [PHI]
    within_a_second(lambda: one.stat().st_nlink == 2)
    other = commit_project(archive, DEID, deid(inodes[:4]), deid="basic")
    within_a_second(lambda: set(os.listdir(drive.path / "projects")) == {PHI, DEID})
    within_a_second(lambda: one.stat().st_nlink == 3)  # what is withheld is the instance itself
    assert (drive.path / "projects").stat().st_nlink == 4
    held = (drive.path / "projects" / DEID / "DATE-1/SER-1/1.dcm").open("rb")
    remove_project(archive, other)
    within_a_second(lambda: os.listdir(drive.path / "projects") == [PHI])
    within_a_second(lambda: not (drive.path / "projects" / DEID).exists())  # the kernel is told after the listing
    with held:
        assert held.read() == DERIVED[1]
    remove_project(archive, root)
    within_a_second(lambda: "projects" not in os.listdir(drive.path))
    within_a_second(lambda: one.stat().st_nlink == 1)
    within_a_second(lambda: not (drive.path / "projects" / PHI).exists())  # the kernel is told after the listing
    assert (drive.path / "README.txt").read_text() == readme


def test_a_live_project_grows_and_a_static_one_does_not(made: Path, mount_drive: Callable[..., Drive]) -> None:
    inodes = instances(made)
    root = commit_project(made, "DeID_live_1", deid(inodes[:4]), deid="basic", live=True)
    drive = mount_drive(made, "allow_other,private_tables")
    live = drive.path / "projects" / "DeID_live_1"
    before, static = numbers(live), {name: numbers(drive.path / "projects" / name) for name in (PHI, DEID)}
    table = (live / "run.txt").stat()
    more = Commit(made, root)
    more.fill(deid(inodes[4:8], folder="DATE-2/SER-7"))
    more.done()
    within_a_second(lambda: "DATE-2" in os.listdir(live))
    within_a_second(lambda: (live / "run.txt").stat().st_ino != table.st_ino)
    after = numbers(live)
    kept = {path for path in before if "." not in path or path.endswith(".dcm")}
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    assert {f"DATE-2/SER-7/{number}.dcm" for number in (1, 2, 3)} <= set(after)
    assert "quarantine/DATE-2/SER-7/9.txt" in after
    assert {name: numbers(drive.path / "projects" / name) for name in (PHI, DEID)} == static


def test_what_is_replaced_leaves_a_live_project_with_its_reason(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    archive, _ = imported
    last = instances(archive)[-1]
    commit_project(archive, "DeID_live_1", deid([last]), deid="basic", live=True)
    drive = mount_drive(archive)
    quarantine = drive.path / "projects/DeID_live_1/quarantine/DATE-1/SER-1"
    assert {path.name for path in quarantine.iterdir()} == {"9.dcm", "9.txt"}
    assert (quarantine / "9.txt").stat().st_size
    other = pydicom.dcmread(quarantine / "9.dcm")
    other.PatientComments = "another one"
    (tmp_path / "other").mkdir()
    other.save_as(tmp_path / "other" / "1")
    import_into(archive, tmp_path / "other", on_conflict="replace")
    within_a_second(lambda: not (quarantine / "9.dcm").exists())
    within_a_second(lambda: not (quarantine / "9.txt").exists())
    within_a_second(lambda: not quarantine.exists())


def test_names_and_numbers_stay(made: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    drive = mount_drive(made)
    before = numbers(drive.path / "projects")
    import_into(made, next(iter(write_study(tmp_path / "more", modality="MR", study=9, instances=3))).parent)
    replaced = tmp_path / "replaced"
    replaced.mkdir()
    (replaced / "1").write_bytes(make_instance(number=1, seed="other"))
    import_into(made, replaced, on_conflict="replace")
    within_a_second(lambda: len(drive.files()) == 15)
    assert numbers(drive.path / "projects") == before
    assert numbers(mount_drive(made).path / "projects") == before
    shutil.rmtree(made / "index")
    shutil.rmtree(made / "cache")
    assert reindex(made).complete
    assert numbers(mount_drive(made).path / "projects") == before
    within_a_second(lambda: numbers(drive.path / "projects") == before)


CREATE = """
import json, sys
from pathlib import Path
from dicomfs.archive.projects import Wanted, create
archive, name, deid, live, *where = sys.argv[1:]
conditions = tuple(tuple(one.split("=")) for one in where)
done = create(Path(archive), Wanted(name=name, where=conditions, deid=deid, live=live == "live",
              headers=("SliceThickness",)))
print(done.state.directory, done.added, done.withheld)
"""


def create(archive: Path, name: str, *where: str, deid: str = "", live: bool = False) -> tuple[str, int, int]:
    """Make a project in a process of its own; return its directory, and how many files it shows and withholds."""
    words = (archive, name, deid, "live" if live else "static", *where)
    directory, added, withheld = run(sys.executable, "-c", CREATE, *words).stdout.split()
    return directory, int(added), int(withheld)


def test_an_import_goes_on_with_live_projects_alone(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    archive, _ = imported
    named = [create(archive, name, "Modality=CT", deid=deid, live=live)[0]
             for name, live in (("live", True), ("static", False)) for deid in ("", "basic")]  # fmt: skip
    drive = mount_drive(archive)

    def shown(name: str) -> dict[str, int]:
        found = numbers(drive.path / "projects" / name)
        return {path: ino for path, ino in found.items() if path.endswith(".dcm")}

    before = {name: shown(name) for name in named}
    assert {len(files) for files in before.values()} == {12}
    write_study(tmp_path / "more", study=7, instances=4)
    write_study(tmp_path / "other", modality="MR", study=8, instances=2)
    (tmp_path / "more" / "again").write_bytes(make_instance(number=1, seed="other"))
    import_into(archive, tmp_path / "more", tmp_path / "other", on_conflict="replace")
    for name in named[:2]:
        within_a_second(lambda name=name: len(shown(name)) == 16)  # type: ignore[misc]
        kept = before[name].items() & shown(name).items()
        assert len(kept) == 11
    for name in named[2:]:
        assert shown(name) == before[name]
    table = drive.path / "projects" / named[0] / "metadata.xlsx"
    within_a_second(lambda: openpyxl.load_workbook(table)["Series"].max_row == 4)


@pytest.mark.corpus
def test_the_corpus_in_projects_of_both_kinds(
    archive_path: Path, corpus: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    import_into(archive_path, corpus)
    drive = mount_drive(archive_path)
    phi, linked, _ = create(archive_path, "all", "PatientID=*")
    deid, made, withheld = create(archive_path, "all", "PatientID=*", deid="basic")
    within_a_second(lambda: "projects" in os.listdir(drive.path))
    within_a_second(lambda: sorted(os.listdir(drive.path / "projects")) == sorted((phi, deid)))
    originals = {path.stat().st_ino for path in drive.files().values()}
    shown = numbers(drive.path / "projects" / phi)
    assert {ino for path, ino in shown.items() if path.endswith(".dcm")} == originals
    assert len(originals) == linked == made + withheld
    assert re.fullmatch(
        r"images/DATE-[^/]*--PID-[^/]*/SER-[^/]*/\d+\.dcm", next(path for path in shown if ".dcm" in path)
    )
    derived = numbers(drive.path / "projects" / deid)
    files = {path: ino for path, ino in derived.items() if path.endswith(".dcm")}
    kept_back = {path for path in files if path.startswith("quarantine/")}
    assert len(kept_back) == withheld
    assert {f"{path[:-4]}.txt" for path in kept_back} == {
        path for path in derived if re.match("quarantine/.*txt", path)
    }
    assert {files[path] for path in kept_back} <= originals
    assert originals.isdisjoint(files[path] for path in files if path not in kept_back)
    assert {path for path in derived if "/" not in path and not path.startswith("DATE-")} == {
        "deid_metadata.xlsx", "header_extraction.xlsx", "linker.xlsx", "metadata.xlsx", "quarantine", "run.txt"
    }  # fmt: skip
    book = openpyxl.load_workbook(drive.path / "projects" / deid / "linker.xlsx")
    assert book["Instances"].max_row == 1 + made + withheld
    for path in set(files) - kept_back:
        dataset = pydicom.dcmread(drive.path / "projects" / deid / path, stop_before_pixels=True)
        assert dataset.PatientIdentityRemoved == "YES"
        assert os.getxattr(drive.path / "projects" / deid / path, "user.dicom.PatientID").decode() == dataset.PatientID
    command = ("rsync", "-aHi", f"{drive.path}/projects/", f"{tmp_path}/copy/")
    run(*command)
    assert run(*command).stdout == ""
    for name in (phi, deid):
        assert numbers(mount_drive(archive_path).path / "projects" / name) == {phi: shown, deid: derived}[name]
