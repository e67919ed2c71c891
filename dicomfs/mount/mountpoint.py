"""The directory that a drive is mounted on: whether it can be, whether one is there, and taking it away."""

import contextlib
import ctypes
import errno
import os
import pwd
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.errors import MountError
from dicomfs.mount.options import MountOptions

TYPE: Final = "fuse.dicomfs"
_DEVICE: Final = "/dev/fuse"
_CONFIGURATION: Final = "/etc/fuse.conf"
_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
"""umount2(2)."""
_USER_ID: Final = re.compile(rb"(?:^|,)user_id=(\d+)").search


class Mounted(NamedTuple):
    """A line of /proc/self/mountinfo (proc(5)), as far as it matters here."""

    mountpoint: str
    type: str
    source: str
    user_id: int | None
    """Who mounted it; None where the filesystem does not say."""


def mounted_at(mountpoint: Path) -> Mounted | None:
    """Return what is mounted on a directory, without touching it: a dead drive would answer nothing."""
    wanted = os.path.realpath(mountpoint)
    found = None
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields, _, rest = line.partition(b" - ")
            here = _unescape(fields.split(b" ")[4])
            if here == wanted:
                kind, source, options = rest.split(b" ")[:3]
                user = _USER_ID(options)
                # The last one lies on top.
                found = Mounted(here, kind.decode(), _unescape(source), int(user[1]) if user else None)
    return found


def _unescape(field: bytes) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    for code in (b"040", b"011", b"012", b"134"):
        field = field.replace(b"\\" + code, bytes([int(code, 8)]))
    return os.fsdecode(field)


def prepare(archive: Path, mountpoint: Path, options: MountOptions) -> None:
    """Make sure that a drive can be mounted here; take away a dead one. Raise MountError."""
    _check_permission(options)
    wanted = os.path.realpath(mountpoint)
    held = os.path.realpath(archive)
    shared = os.path.commonpath([wanted, held])
    if shared == wanted:
        raise MountError(f"{mountpoint}: a drive there would hide its own archive; name another directory")
    if shared == held:
        raise MountError(f"{mountpoint}: lies inside the archive; name a directory outside it")
    there = mounted_at(mountpoint)
    try:
        os.statvfs(mountpoint)  # never answered from a cache, unlike stat
    except FileNotFoundError as error:
        raise MountError(f"{mountpoint}: no such directory; make it: mkdir -p {_quoted(mountpoint)}") from error
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise MountError(f"{mountpoint}: cannot mount there ({error.strerror})") from error
        if there is None or there.type != TYPE:
            raise MountError(
                f"{mountpoint}: another program's drive died there; "
                f"take it away: fusermount3 -u -z {_quoted(mountpoint)}"
            ) from error
        detach(mountpoint)
        there = mounted_at(mountpoint)
    if there is not None and there.type == TYPE:
        raise MountError(
            f"{mountpoint}: a drive of {there.source} is mounted there already; "
            f"unmount it: dicomfs umount {_quoted(mountpoint)}"
        )
    _check_directory(mountpoint, options)


def _check_directory(mountpoint: Path, options: MountOptions) -> None:
    try:
        names = os.listdir(mountpoint)
    except NotADirectoryError as error:
        raise MountError(f"{mountpoint}: is not a directory; name one to mount on") from error
    except OSError as error:
        raise MountError(f"{mountpoint}: cannot mount there ({error.strerror})") from error
    if names and not options.nonempty:
        raise MountError(
            f"{mountpoint}: is not empty, and mounting would hide its files; "
            "name an empty directory, or use '-o nonempty'"
        )


def _check_permission(options: MountOptions) -> None:
    if not os.path.exists(_DEVICE):
        raise MountError(f"{_DEVICE} does not exist: load the kernel's FUSE module with 'modprobe fuse'")
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is not installed: install the package 'fuse3', or mount as root")
    if (options.allow_other or options.allow_root) and not _user_allow_other():
        name = "allow_other" if options.allow_other else "allow_root"
        raise MountError(
            f"'{name}' is for root alone unless {_CONFIGURATION} has a line 'user_allow_other': "
            f"add it, or leave out '-o {name}'"
        )


def _user_allow_other() -> bool:
    try:
        with open(_CONFIGURATION, encoding="utf-8", errors="replace") as file:
            return any(line.strip() == "user_allow_other" for line in file)
    except OSError:
        return False


def explain(mountpoint: Path, said: str) -> MountError:
    """Return the error for a mount that libfuse or fusermount3 refused, from what it said."""
    reason = " ".join(said.replace("fusermount3:", " ").split()) or "the kernel refused it"
    if "/dev/fuse" in said and ("ermission" in said or "not permitted" in said):
        reason = f"this user may not open {_DEVICE}; ask root to allow it ('chmod 666 {_DEVICE}' or its group)"
    return MountError(f"{mountpoint}: cannot mount: {reason}")


def unmount(mountpoint: Path) -> None:
    """Unmount a drive, dead or alive; raise MountError where there is none, or where it is in use."""
    there = mounted_at(mountpoint)
    if there is None:
        raise MountError(f"{mountpoint}: nothing is mounted there")
    if there.type != TYPE:
        raise MountError(
            f"{mountpoint}: a filesystem of type {there.type} is mounted there, not a dicomfs drive; use umount(8)"
        )
    said = _fusermount(mountpoint, "-u")
    if said and os.geteuid() == 0:
        said = _umount2(mountpoint, 0)
    if not said:
        return
    if "busy" in said:
        raise MountError(
            f"{mountpoint}: in use; end the programs that have files open or work in it "
            f"(this names them: fuser -vm {_quoted(mountpoint)}), then unmount again"
        )
    if there.user_id is not None and os.geteuid() not in (0, there.user_id):
        raise MountError(f"{mountpoint}: was mounted by {_user(there.user_id)}; only that user and root can unmount it")
    raise MountError(f"{mountpoint}: cannot unmount: {said}")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def abort(mountpoint: Path) -> None:
    """End all requests in progress on a drive of this process, with an error for whoever waits for them.

    A process with a thread that waits for the kernel, which waits for a request that nobody answers any more,
    never ends: the connection has to. Root may ask for that; others by the control filesystem, where it is mounted.
    """
    if os.geteuid() == 0:
        _umount2(mountpoint, _MNT_FORCE)  # "busy", but its requests are ended by then
        return
    with contextlib.suppress(OSError):
        device = os.minor(os.lstat(mountpoint).st_dev)
        Path(f"/sys/fs/fuse/connections/{device}/abort").write_text("1")


def detach(mountpoint: Path) -> None:
    """Take away a drive, whoever still has files open on it."""
    said = _fusermount(mountpoint, "-u", "-z")
    if said and os.geteuid() == 0:
        said = _umount2(mountpoint, _MNT_DETACH)
    if said:
        raise MountError(f"{mountpoint}: a dead drive is mounted there and cannot be taken away: {said}")


def _fusermount(mountpoint: Path, *arguments: str) -> str:
    """Return what fusermount3 has against it, '' if nothing."""
    try:
        done = subprocess.run(
            ["fusermount3", *arguments, "--", str(mountpoint)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return "fusermount3 is not installed: install the package 'fuse3'"
    if not done.returncode:
        return ""
    return " ".join(done.stderr.replace("fusermount3:", " ").split()) or "fusermount3 failed"


def _umount2(mountpoint: Path, flags: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if not libc.umount2(os.fsencode(mountpoint), flags):
        return ""
    return os.strerror(ctypes.get_errno())
