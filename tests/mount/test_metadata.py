"""What a drive tells of its files: names, sizes, times, owners, inode numbers, links."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders import make_instance
from tests.mount.conftest import import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mount.conftest import Drive, Stocked

pytestmark = pytest.mark.mounted


def test_the_root_shows_the_views_and_tells_what_they_are(stocked: Stocked) -> None:
    assert sorted(os.listdir(stocked.path)) == ["README.txt", "dicomweb", "patients", "quarantine"]
    text = (stocked.path / "README.txt").read_text()
    assert len(text.splitlines()) <= 12
    assert "patients/" in text
    assert "dicomweb/" in text
    assert "quarantine/" in text
    assert os.stat(stocked.path / "README.txt").st_size == len(text.encode())


def test_quarantine_shows_each_refused_file_beside_its_reason(stocked: Stocked) -> None:
    names = sorted(os.listdir(stocked.path / "quarantine"))
    assert [Path(name).suffix for name in names] == [".dcm", ".txt"] * 2
    for name in names:
        shown = stocked.path / "quarantine" / name
        kept = stocked.archive / "quarantine" / name
        assert shown.read_bytes() == kept.read_bytes()
        assert os.stat(shown).st_size == os.stat(kept).st_size


def test_names_follow_the_default_layout(stocked: Stocked) -> None:
    patients = {path.split("/")[0] for path in stocked.files()}
    assert patients == {"DFS-1_Doe_Jane", "DFS-2_Doe_Jane"}
    assert (stocked.patients / "DFS-1_Doe_Jane/20240131_1015_Study 1/0001_CT_Series 1/00001.dcm").is_file()


def test_a_long_listing_agrees_with_stat(stocked: Stocked) -> None:
    listed = run("ls", "-lRA", "--time-style=+%s", stocked.path).stdout
    assert listed.count(".dcm") == len(stocked.digests) + 2
    for path in stocked.files().values():
        status = os.stat(path)
        assert status.st_size == len(path.read_bytes())
        assert status.st_blocks == -(-status.st_size // 512)
        assert stat.S_IMODE(status.st_mode) == 0o644
        assert status.st_nlink == 1


def test_find_and_du_see_every_file_and_its_size(stocked: Stocked) -> None:
    found = run("find", stocked.patients, "-type", "f").stdout.splitlines()
    assert sorted(found) == sorted(map(str, stocked.files().values()))
    total = sum(os.stat(path).st_size for path in stocked.files().values())
    told = int(run("du", "-sb", stocked.patients).stdout.split()[0])
    assert told == total
    assert run("du", "-s", "--block-size=512", stocked.patients).stdout.split()[0] == str(
        sum(os.stat(path).st_blocks for path in stocked.files().values())
    )


def test_directories_count_their_subdirectories_in_nlink(stocked: Stocked) -> None:
    for folder, directories, _ in os.walk(stocked.path):
        # 1 says that nobody counts.
        counted = 1 if "dicomweb" in Path(folder).parts else 2 + len(directories)
        assert os.stat(folder).st_nlink == counted, folder


def test_dot_and_dot_dot_are_listed_and_lead_where_they_should(stocked: Stocked) -> None:
    assert run("ls", "-a", stocked.patients).stdout.split("\n")[:2] == [".", ".."]
    patient = next(stocked.patients.iterdir())
    assert os.stat(f"{patient}/..").st_ino == os.stat(stocked.patients).st_ino
    inodes = run("ls", "-aif", patient).stdout.split()
    assert str(os.stat(patient).st_ino) in inodes


def test_inode_numbers_are_unique_and_survive_a_remount(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive]
) -> None:
    def inodes(drive: Drive) -> dict[str, int]:
        return {
            os.path.relpath(path, drive.path): os.lstat(path).st_ino
            for folder, directories, files in os.walk(drive.path)
            for path in (os.path.join(folder, name) for name in (*directories, *files))
        }

    drive = mount_drive(imported[0])
    before = inodes(drive)
    twice = [path for path in before if os.lstat(drive.path / path).st_nlink > 1 and not (drive.path / path).is_dir()]
    assert len(twice) % 2 == 0
    assert len(set(before.values())) == len(before) - len(twice) // 2
    drive.end()
    assert inodes(mount_drive(imported[0])) == before


def test_statfs_tells_the_size_of_what_is_shown_and_no_room(stocked: Stocked) -> None:
    told = os.statvfs(stocked.path)
    total = sum(os.stat(path).st_size for path in stocked.files().values())
    assert told.f_blocks * told.f_frsize == -(-total // told.f_frsize) * told.f_frsize
    assert told.f_bavail == told.f_bfree == told.f_ffree == 0
    assert told.f_files == len(stocked.digests)
    assert told.f_namemax == 255


def test_a_large_directory_is_listed_whole_and_once(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(1, 1501):
        (source / f"{number}").write_bytes(make_instance("SR", number=number))
    import_into(archive_path, source)
    drive = mount_drive(archive_path)
    (series,) = (path for path in drive.patients.glob("*/*/*"))
    names = os.listdir(series)
    assert sorted(names) == [f"{number:05d}.dcm" for number in range(1, 1501)]
    with os.scandir(series) as entries:
        assert sum(entry.is_file() for entry in entries) == 1500


@pytest.mark.root
def test_owner_and_mode_are_as_the_options_say(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive]
) -> None:
    drive = mount_drive(imported[0], "uid=1234,gid=2345,umask=027,fmask=077,allow_other")
    file, directory = os.stat(next(iter(drive.files().values()))), os.stat(drive.patients)
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (1234, 2345, 0o600)
    assert (directory.st_uid, directory.st_gid, stat.S_IMODE(directory.st_mode)) == (1234, 2345, 0o750)
    assert "quarantine" not in os.listdir(drive.path)


@pytest.mark.root
def test_views_chosen_by_name_are_shown_alone(imported: tuple[Path, object], mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(imported[0], "allow_other,views=quarantine")
    assert sorted(os.listdir(drive.path)) == ["README.txt", "quarantine"]


def test_an_empty_archive_is_a_drive_too(archive_path: Path, mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(archive_path)
    assert os.listdir(drive.patients) == []
    assert os.listdir(drive.path / "quarantine") == []
    assert os.stat(drive.patients).st_mtime > 1.7e9


class _Handle(ctypes.Structure):
    """struct file_handle (open_by_handle_at(2)) with the room that any filesystem may use."""

    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128))


@pytest.mark.root
def test_file_handles_open_after_the_kernel_forgot_the_names(stocked: Stocked) -> None:
    """It is what NFS servers do (nfs-ganesha, knfsd): lookup of `.` and `..`."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = next(iter(stocked.files().values()))
    whole = path.read_bytes()
    handle, mount_id = _Handle(bytes=128), ctypes.c_int()
    at_cwd = -100
    assert not libc.name_to_handle_at(at_cwd, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0)
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    root = os.open(stocked.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        opened = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        assert opened >= 0, os.strerror(ctypes.get_errno())
        with open(opened, "rb") as file:
            assert file.read() == whole
    finally:
        os.close(root)


def test_names_are_found_exactly_or_not_at_all(stocked: Stocked) -> None:
    file = next(iter(stocked.files().values()))
    assert not (file.parent / file.name.upper()).exists()
    assert not (stocked.path / "Patients").exists()
    assert not (stocked.path / "patients" / b"\xff\xfe".decode("utf-8", "surrogateescape")).exists()
    assert not (stocked.path / ("x" * 255)).exists()


def test_ls_asks_for_access_lists_once_and_then_no_more(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive]
) -> None:
    drive = mount_drive(imported[0], manner="debug")
    run("ls", "-lR", drive.path)
    drive.end()
    asked = [line for line in drive.log.read_text().splitlines() if " getxattr " in line]
    assert len(asked) <= 10


def test_a_second_look_costs_no_requests_for_attributes(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive]
) -> None:
    drive = mount_drive(imported[0], manner="debug")
    paths = list(drive.files().values())
    for _ in range(3):
        for path in paths:
            os.stat(path)
            path.read_bytes()
            (path.parent / ".hidden").exists()
    drive.end()
    log = drive.log.read_text()
    assert log.count(" getattr ") <= 5
    assert log.count(" flush ") == 1
    assert log.count(" read ") <= 4 * len(paths)
    assert log.count(" lookup ") <= 20
