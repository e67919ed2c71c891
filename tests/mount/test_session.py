"""Mounting and unmounting: ready when it says so, clear when it cannot, clean when it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.errors import MountError
from dicomfs.mount import session
from dicomfs.mount.mountpoint import mounted_at
from tests.mount.conftest import CHECKOUT, SCRIPT, TIMEOUT_S, environment, mount_daemon, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted


@pytest.fixture
def daemon(imported: tuple[Path, object], tmp_path: Path) -> Iterator[Path]:
    """Return a drive mounted as users do it: by a process that has ended."""
    path = tmp_path / "drive"
    path.mkdir()
    done = mount_daemon(imported[0], path, "", tmp_path / "log")
    assert done.returncode == 0, done.stderr
    yield path
    subprocess.run(["umount", "-l", path], capture_output=True, timeout=TIMEOUT_S)


def daemon_of(mountpoint: Path) -> int:
    """Return the process that serves a drive, found by its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(mountpoint) in words and b"daemon" in words:
                return int(entry.name)
    raise AssertionError("no daemon")


def test_the_drive_is_ready_when_the_command_ends(daemon: Path) -> None:
    assert sum(path.is_file() for path in (daemon / "patients").rglob("*")) == 12


def test_the_daemon_holds_no_terminal_no_directory_and_no_file_of_its_caller(daemon: Path) -> None:
    process = Path(f"/proc/{daemon_of(daemon)}")
    assert os.readlink(process / "cwd") == "/"
    assert [os.readlink(process / "fd" / str(number)) for number in (0, 1, 2)] == [os.devnull] * 3
    status = (process / "stat").read_text().rpartition(")")[2].split()
    assert status[4] == "0", "it has a terminal"
    assert int(status[3]) != os.getsid(0)


def test_umount_takes_the_drive_away(daemon: Path) -> None:
    session.unmount(daemon)
    assert mounted_at(daemon) is None
    assert os.listdir(daemon) == []


def test_umount_of_a_drive_in_use_says_what_to_do(daemon: Path) -> None:
    with (
        open(next((daemon / "patients").rglob("*.dcm")), "rb"),
        pytest.raises(MountError, match=r"in use.*fuser -vm"),
    ):
        session.unmount(daemon)
    session.unmount(daemon)


def test_umount_of_what_is_no_drive_says_so(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="nothing is mounted"):
        session.unmount(tmp_path)
    with pytest.raises(MountError, match="not a dicomfs drive"):
        session.unmount(Path("/proc"))


def test_a_second_mount_of_the_same_place_is_refused(
    daemon: Path, imported: tuple[Path, object], tmp_path: Path
) -> None:
    done = mount_daemon(imported[0], daemon, "", tmp_path / "log2")
    assert done.returncode != 0
    assert "MountError" in done.stderr
    assert "mounted there already" in done.stderr
    assert "dicomfs umount" in done.stderr


@pytest.mark.parametrize("manner", ["daemon", "foreground"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("missing", "MountError: {place}: no such directory"),
        ("file", "MountError: {place}: is not a directory"),
        ("full", "MountError: {place}: is not empty"),
    ],
)
def test_a_place_that_cannot_be_mounted_on_is_refused(
    archive_path: Path, tmp_path: Path, place: str, said: str, manner: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    words = [sys.executable, "-c", SCRIPT, archive_path, tmp_path / place, "", tmp_path / "log", manner]
    done = run(*words, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith(said.format(place=tmp_path / place))


def test_a_directory_with_files_is_mounted_over_when_asked(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "hidden").touch()
    drive = mount_drive(archive_path, "nonempty", at=full)
    assert "hidden" not in os.listdir(full)
    drive.end()
    assert os.listdir(full) == ["hidden"]


def test_no_archive_is_an_error_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    done = mount_daemon(tmp_path / "nothing", tmp_path / "drive", "", tmp_path / "log")
    assert done.returncode != 0
    assert done.stderr.startswith("ArchiveMissing: ")
    assert mounted_at(tmp_path / "drive") is None


def test_an_unknown_view_names_those_that_exist(archive_path: Path, tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    done = mount_daemon(archive_path, tmp_path / "drive", "views=patients:holes", tmp_path / "log")
    assert done.stderr.startswith("UsageError: there is no view 'holes'")
    assert "patients" in done.stderr


def test_a_dead_drive_is_recovered_by_the_next_mount(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    first = mount_drive(imported[0], at=place)
    assert len(first.files()) == 12
    first.end(signal.SIGKILL)
    with pytest.raises(OSError, match="not connected"):
        os.listdir(place)
    second = mount_drive(imported[0], at=place)
    assert len(second.files()) == 12
    second.end()
    assert mounted_at(place) is None


def test_a_dead_drive_can_be_unmounted(imported: tuple[Path, object], mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(imported[0])
    drive.end(signal.SIGKILL)
    session.unmount(drive.path)
    assert mounted_at(drive.path) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_unmounts_cleanly(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive], number: signal.Signals
) -> None:
    drive = mount_drive(imported[0])
    assert len(drive.files()) == 12
    assert drive.end(number) == 0
    assert mounted_at(drive.path) is None
    assert os.listdir(drive.path) == []


def test_an_outside_umount_ends_the_process(imported: tuple[Path, object], mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(imported[0])
    run("umount", drive.path)
    assert drive.process.wait(TIMEOUT_S) == 0


def test_a_signal_during_reads_does_not_hang(imported: tuple[Path, object], mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(imported[0])
    paths = list(drive.files().values())
    begun = threading.Barrier(5, timeout=TIMEOUT_S)

    def read() -> None:
        begun.wait()
        try:
            while True:
                for path in paths:
                    descriptor = os.open(path, os.O_RDONLY)
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    while os.read(descriptor, 8192):
                        pass
                    os.close(descriptor)
        except OSError:
            pass

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    begun.wait()
    assert drive.end(signal.SIGTERM) == 0
    for reader in readers:
        reader.join(TIMEOUT_S)
        assert not reader.is_alive()
    assert mounted_at(drive.path) is None


HANGING = """
import pathlib, sys, threading
from dicomfs.vfs.plain import TextFile
TextFile.read_ready = lambda *_: None
TextFile.read = lambda *_: (pathlib.Path(sys.argv[4]).with_name("reading").touch(), threading.Event().wait())
"""


def test_a_signal_during_a_read_from_a_disk_that_hangs_does_not_hang(archive_path: Path, tmp_path: Path) -> None:
    place = tmp_path / "drive"
    place.mkdir()
    words = [sys.executable, "-c", HANGING + SCRIPT, archive_path, place, "", tmp_path / "log", "foreground"]
    process = subprocess.Popen(words, env=environment())
    reader = None
    try:
        while mounted_at(place) is None:
            assert process.poll() is None
        reader = subprocess.Popen(["cat", place / "README.txt"], stderr=subprocess.PIPE, text=True)
        while not (tmp_path / "reading").exists():
            assert reader.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
        assert reader.communicate(timeout=TIMEOUT_S)[1]
        assert mounted_at(place) is None
    finally:
        process.kill()
        if reader is not None:
            reader.kill()
        subprocess.run(["umount", "-l", place], capture_output=True, timeout=TIMEOUT_S)


def test_a_drive_over_its_own_archive_is_refused(archive_path: Path, tmp_path: Path) -> None:
    for place in (archive_path, tmp_path):
        done = mount_daemon(archive_path, place, "nonempty", tmp_path / "log")
        assert "would hide its own archive" in done.stderr


def test_a_drive_inside_its_own_archive_is_refused(archive_path: Path, tmp_path: Path) -> None:
    place = archive_path / "drive"
    place.mkdir()
    done = mount_daemon(archive_path, place, "", tmp_path / "log")
    assert "lies inside the archive" in done.stderr
    place.rmdir()


def test_a_kill_during_reads_hurts_nothing(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    for _ in range(3):
        drive = mount_drive(imported[0], at=place)
        reader = subprocess.Popen(
            ["sh", "-c", "while cat patients/*/*/*/* >/dev/null 2>&1; do :; done"], cwd=place, env=environment()
        )
        assert len(drive.files()) == 12
        drive.end(signal.SIGKILL)
        assert reader.wait(TIMEOUT_S) == 0
    drive = mount_drive(imported[0], at=place)
    assert all(len(path.read_bytes()) == os.stat(path).st_size for path in drive.files().values())


def test_mount_says_what_it_shows(imported: tuple[Path, object], mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(imported[0], "noexec")
    (line,) = (line for line in run("mount").stdout.splitlines() if f" on {drive.path} " in line)
    assert line.startswith(f"{imported[0]} on ")
    assert "type fuse.dicomfs" in line
    options = set(line.rpartition("(")[2].rstrip(")").split(","))
    assert {"ro", "nosuid", "nodev", "noexec", "default_permissions"} <= options
    assert "allow_other" not in options


def test_a_path_with_commas_spaces_and_letters_can_be_mounted(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    place = tmp_path / "a drive, größer\\"
    moved = tmp_path / "archiv, größer\\\t012"
    archive_path.rename(moved)
    drive = mount_drive(moved, at=place)
    found = mounted_at(place)
    assert found is not None
    # mount(8) takes a line of fstab for mounted if its source is the same to the byte.
    assert (found.type, found.source) == ("fuse.dicomfs", str(moved))
    drive.end()
    moved.rename(archive_path)


@pytest.mark.root
def test_read_ahead_is_as_asked(imported: tuple[Path, object], mount_drive: Callable[..., Drive]) -> None:
    def read_ahead(drive: Drive) -> int:
        device = os.stat(drive.path).st_dev
        return int(Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").read_text())

    assert read_ahead(mount_drive(imported[0])) == 1024
    assert read_ahead(mount_drive(imported[0], "readahead=256")) == 256


ORDINARY = """
import hashlib, os, sys
from pathlib import Path
from dicomfs.cli import main
from dicomfs.errors import MountError
from dicomfs.mount.mountpoint import mounted_at
from dicomfs.mount.options import parse
from dicomfs.mount.session import mount, unmount
base = Path(sys.argv[1])
drive = base / "drive"
try:
    mount(base / "archive", drive, parse(["allow_other"]), foreground=False, debug=False)
except MountError as error:
    print(error)
mount(base / "archive", drive, parse([]), foreground=False, debug=False)
files = sorted(path for path in (drive / "patients").rglob("*.dcm"))
print(len(files), os.stat(files[0]).st_uid, "quarantine" in os.listdir(drive))
for path in files:
    print(hashlib.sha256(path.read_bytes()).hexdigest())
unmount(drive)
print(os.listdir(drive))
# What keeps out even its own user can be mounted over, and unmounted, by the command line.
os.rename(base / "archive", base / "größer")
for options in (["-o", "uid=1,umask=077"], []):
    print(main(["mount", *options, str(base / "größer"), str(drive)]))
print(mounted_at(drive).source == str(base / "größer"), os.access(drive, os.R_OK))
print(main(["umount", str(drive)]))
"""
UNMOUNT = """
import sys
from dicomfs.cli import main
sys.exit(main(["umount", sys.argv[1]]))
"""
NOBODY = 65534


def test_an_ordinary_user_mounts_through_fusermount3(imported: tuple[Path, dict[Path, str]]) -> None:
    """Root alone may open /dev/fuse on some machines: the user gets a node of his own, in a private namespace."""
    if os.geteuid():
        pytest.skip("needs root, to become somebody else")
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if run(*become, sys.executable, "-c", "import dicomfs.mount.drive", check=False).returncode:
        pytest.skip(f"an ordinary user may not read {sys.executable} or {CHECKOUT}")
    base = Path(tempfile.mkdtemp(prefix="dicomfs-"))
    try:
        shutil.copytree(imported[0], base / "archive")
        (base / "drive").mkdir()
        os.mknod(base / "fuse", 0o020666, os.makedev(10, 229))
        os.chmod(base / "fuse", 0o666)
        for path in (base, *base.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        script = 'mount --bind "$1/fuse" /dev/fuse && shift && exec "$@"'
        done = run(
            *("unshare", "--mount", "sh", "-c", script, "sh", base),
            *(*become, sys.executable, "-c", ORDINARY, base),
        )
        lines = done.stdout.splitlines()
        if "user_allow_other" not in Path("/etc/fuse.conf").read_text().splitlines():
            assert "/etc/fuse.conf" in lines[0]
            assert "user_allow_other" in lines.pop(0)
        assert lines[0] == f"12 {NOBODY} True"
        assert sorted(lines[1:13]) == sorted(imported[1].values())
        assert lines[13:] == ["[]", "0", "1", "True False", "0"]
        assert "is mounted there already; unmount it: dicomfs umount" in done.stderr
    finally:
        shutil.rmtree(base)


@pytest.mark.root
def test_an_ordinary_user_is_told_whose_drive_it_is(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive]
) -> None:
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if run(*become, sys.executable, "-c", "import dicomfs.cli", check=False).returncode:
        pytest.skip(f"an ordinary user may not read {sys.executable} or {CHECKOUT}")
    drive = mount_drive(imported[0], "allow_other")
    done = run(*become, sys.executable, "-c", UNMOUNT, drive.path, check=False)
    assert done.returncode == 1
    assert done.stderr == f"dicomfs: {drive.path}: was mounted by root; only that user and root can unmount it\n"


@pytest.mark.root
def test_walking_and_reading_again_and_again_takes_no_more_memory(
    imported: tuple[Path, object], mount_drive: Callable[..., Drive]
) -> None:
    drive = mount_drive(imported[0])

    def walk() -> None:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        run(
            "sh",
            "-c",
            "ls -lR . >/dev/null && find . -type f -exec getfattr -d {} + >/dev/null && tar -cf - . | wc -c",
            cwd=drive.path,
        )

    for _ in range(3):
        walk()
    before = drive.resident_kib()
    for _ in range(12):
        walk()
    assert drive.resident_kib() - before < 2048


FAILING_LATE = """
import os, sys
from dicomfs.mount import daemon
def run(ready):
    ready()
    os.open(sys.argv[1], os.O_RDWR)
    os.open(sys.argv[2], os.O_WRONLY)
    raise RuntimeError("the drive ended by an error")
daemon.start(run)
"""


def test_a_drive_that_fails_later_writes_into_no_file(tmp_path: Path) -> None:
    """What it opened first may have got the number of the pipe on which it had said that it was ready."""
    victim, ended = tmp_path / "victim", tmp_path / "ended"
    victim.write_bytes(b"A" * 400)
    os.mkfifo(ended)
    run(sys.executable, "-c", FAILING_LATE, victim, ended)
    assert ended.read_bytes() == b""  # closed by the daemon's end
    assert victim.read_bytes() == b"A" * 400
