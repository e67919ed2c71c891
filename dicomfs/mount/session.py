"""Mount an archive as a drive, and unmount it: what the command line calls."""

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from dicomfs.archive.outcome import OnProgress
from dicomfs.mount import daemon, log, mountpoint
from dicomfs.mount.options import MountOptions


def mount(
    archive: Path,
    mountpoint_path: Path,
    options: MountOptions,
    *,
    foreground: bool,
    debug: bool,
    progress: Callable[[], AbstractContextManager[OnProgress | None]] = nullcontext,
) -> None:
    """Mount an archive; return when the drive is ready, in the foreground (or `debug`) when it is unmounted.

    An earlier state that has to be made is made before, with `progress` to be told of it. Raises MountError with the
    reason where that cannot be, and what Archive.open raises.
    """
    archive = Path(os.path.abspath(archive))
    directory = Path(os.path.abspath(mountpoint_path))
    if options.log is not None:
        options = replace(options, log=Path(os.path.abspath(options.log)))
    mountpoint.prepare(archive, directory, options)
    stay = foreground or debug
    as_of = None
    if options.as_of_ns is not None:
        from dicomfs.archive.earlier import prepare

        with progress() as on_progress:
            as_of = prepare(archive, options.as_of_ns, on_progress)

    def run(ready: Callable[[], None]) -> None:
        log.configure(options.log, foreground=stay, debug=debug)
        from dicomfs.mount import drive  # loads pyfuse3 and trio; LMDB and threads begin there, after the fork

        drive.run(archive, directory, options, ready, as_of=as_of, debug=debug)

    try:
        if stay:
            run(_tell_systemd)
        else:
            daemon.start(run)
    except BaseException:
        if as_of is not None and as_of.directory is not None:
            shutil.rmtree(as_of.directory, ignore_errors=True)
        raise


def unmount(mountpoint_path: Path) -> None:
    """Unmount a drive, dead or alive; raise MountError where that cannot be."""
    mountpoint.unmount(Path(os.path.abspath(mountpoint_path)))


def _tell_systemd() -> None:
    """Say that the drive is ready to a service manager that waits for it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as service:
        service.sendto(b"READY=1", address)
