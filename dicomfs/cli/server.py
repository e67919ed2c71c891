"""nginx over a tree for as long as a command runs, and the drive that shows the tree."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomfs.cli.children import Child, Ended, Ending
from dicomfs.cli.nginx import configuration
from dicomfs.cli.terminal import note
from dicomfs.errors import DicomfsError, MountError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicomfs.cli.nginx import Site

_START_S: Final = 60.0
"""How long a drive or nginx may take until it answers."""


def serve(
    archive: Path, tree: Path | None, nginx: str, site: Callable[[Path], Site], ready: Callable[[], None]
) -> None:
    """Serve a tree, or the archive's own through a private drive, and call `ready`; return when told to end.

    Raises MountError and DicomfsError where one of the two does not start, or ends by itself.
    """
    with Ending() as ending, _private_directory() as directory, ExitStack() as children, suppress(Ended):
        served = site(tree or directory / "drive" / "dicomweb")
        (directory / "nginx.conf").write_text(configuration(served), encoding="utf-8")
        drive = None if tree else _mounted(archive, directory, ending, children)
        server = _listening(nginx, served.port, directory, ending, children)
        ready()
        ending.wait(None, server.pidfd, *([drive.pidfd] if drive else []))
        if server.has_ended():
            raise DicomfsError(f"nginx ended: {server.said()}")
        raise MountError("the drive was unmounted; so there is nothing to serve")


@contextmanager
def _private_directory() -> Iterator[Path]:
    """Make a directory that nobody else may enter, and take it away, with any drive that is left in it."""
    from dicomfs.mount.mountpoint import detach, mounted_at

    directory = Path(tempfile.mkdtemp(prefix="dicomfs-serve-"))
    drive = directory / "drive"
    try:
        yield directory
    finally:
        if mounted_at(drive):  # its process was killed
            detach(drive)
        if mounted_at(drive):
            note(f"{drive}: a dead drive is left there")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _mounted(archive: Path, directory: Path, ending: Ending, children: ExitStack) -> Child:
    drive = directory / "drive"
    drive.mkdir()
    command = [sys.executable, "-P", "-m", "dicomfs.cli", "mount", "--foreground", "-o", "views=dicomweb,noxattr"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind("")  # the kernel finds it a name (unix(7))
        address = "@" + service.getsockname()[1:].decode("ascii")
        package = str(Path(__file__).resolve().parents[2])
        variables = {
            "NOTIFY_SOCKET": address,
            "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
        }
        child = Child([*command, str(archive), str(drive)], directory / "drive.log", variables)
        children.callback(child.end)
        ready = ending.wait(_START_S, service.fileno(), child.pidfd)
    if child.has_ended() or not ready:
        raise MountError(child.said().removeprefix("dicomfs: ") or "the drive did not get ready")
    return child


def _listening(nginx: str, port: int, directory: Path, ending: Ending, children: ExitStack) -> Child:
    command = [nginx, "-p", f"{directory}/", "-c", f"{directory}/nginx.conf", "-e", "stderr", "-g", "daemon off;"]
    child = Child(command, directory / "nginx.log")
    children.callback(child.end)
    deadline = time.monotonic() + _START_S
    while not _answers(port):
        if child.has_ended() or time.monotonic() > deadline:
            raise DicomfsError(f"nginx does not start: {child.said()}")
        ending.wait(0.02, child.pidfd)
    return child


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
