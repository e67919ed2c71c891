"""Orthanc and its WebDAV drive under davfs2, in a network of their own.

Orthanc cannot be bound to an address, so it gets a network namespace whose one interface is the loopback: nobody
else reaches it. Drives are mounted from within that network, and seen by everybody.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmark import machine
from benchmark.measure import Failed

PROGRAMS = ("Orthanc", "mount.davfs", "unshare", "nsenter", "ip")
"""What has to be there, besides root's rights."""
_PORT = 8942
_PATIENCE_S = 60.0
_TICK_S = 0.02
_USER = "davfs2"
"""To whom mount.davfs changes; its cache has to be theirs."""

_ORTHANC = {
    "HttpPort": _PORT,
    "RemoteAccessAllowed": False,
    "AuthenticationEnabled": False,
    "DicomServerEnabled": False,
    "WebDavEnabled": True,
    "KeepAlive": True,
    "TcpNoDelay": True,
    "HttpCompressionEnabled": False,
    "SaveJobs": False,
    "Plugins": [],
}
"""The rest is as Orthanc has it; so files are synced as they are stored (SyncStorageArea)."""

_DAVFS = {
    "use_locks": 0,
    "ask_auth": 0,
    "cache_size": 4096,
    "table_size": 4096,
    "dir_refresh": 300,
    "file_refresh": 300,
    "gui_optimize": 0,
    "delay_upload": 0,
    # Kernels from 6.16 on ask for more of a directory at once than fits into 16 KiB, the default: EINVAL.
    "buf_size": 128,
}

_ANSWERS = """
import http.client, sys, time
deadline = time.monotonic() + 60
while True:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
        connection.request("GET", "/system")
        sys.exit(connection.getresponse().status != 200)
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
"""

_UPLOAD = """
import http.client, os, socket, sys, threading, time
port, connections, root = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
waiting = sorted((os.path.join(place, name) for place, _, names in os.walk(root) for name in names), reverse=True)
refused = []
def work():
    server = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    server.connect()
    server.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        try:
            path = waiting.pop()
        except IndexError:
            return
        with open(path, "rb") as file:
            server.request("POST", "/instances", file.read(), {"Content-Type": "application/dicom"})
        answer = server.getresponse()
        answer.read()
        if answer.status != 200:
            refused.append(path)
threads = [threading.Thread(target=work) for _ in range(connections)]
started = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(time.perf_counter() - started)
sys.exit(len(refused) > 0 or len(waiting) > 0)
"""
"""Sends every file once, over connections that are kept; tells the seconds that it took."""


def hindrance() -> str:
    """Say why there can be no Orthanc; '' when there can."""
    if os.geteuid() != 0:
        return "it takes root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)} (packages orthanc, davfs2, iproute2)" if missing else ""


class Orthanc:
    """A server with a storage of its own below a directory, from `with` to its end."""

    def __init__(self, place: Path) -> None:
        """Whatever is below `place` is removed."""
        self._place = place
        self.storage = place / "storage"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        shutil.rmtree(self._place, ignore_errors=True)
        self.storage.mkdir(parents=True)
        configuration = self._place / "orthanc.json"
        told = {**_ORTHANC, "StorageDirectory": str(self.storage), "IndexDirectory": str(self.storage)}
        configuration.write_text(json.dumps(told), encoding="utf-8")
        command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec Orthanc "$0"', str(configuration)]
        with open(self._place / "orthanc.log", "wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_for_network()
            self.inside([sys.executable, "-c", _ANSWERS, str(_PORT)])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _wait_for_network(self) -> None:
        ours = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + _PATIENCE_S
        while os.readlink(self._network) == ours:
            if time.monotonic() > deadline:
                raise Failed("orthanc: no network of its own")
            time.sleep(_TICK_S)

    @property
    def _network(self) -> str:
        assert self._process is not None
        return f"/proc/{self._process.pid}/ns/net"

    def _end(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def inside(self, command: Sequence[str]) -> str:
        """Run a program that shares the server's network; it must succeed."""
        words = ["nsenter", f"--net={self._network}", *command]
        # There is no proxy in there, whatever is said outside.
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        done = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"{command[0]} beside orthanc: {done.stderr.strip()[-300:]}")
        return done.stdout

    def upload(self, source: Path, *, connections: int) -> float:
        """Send all files below a directory; return the seconds."""
        return float(self.inside([sys.executable, "-c", _UPLOAD, str(_PORT), str(connections), str(source)]))


class DavDrive:
    """Orthanc's drive, mounted by davfs2 with an empty cache."""

    name = "davfs2"

    def __init__(self, server: Orthanc, place: Path) -> None:
        """`place` is a directory of its own for the mountpoint and the settings."""
        self._server = server
        # Not there: the user that mount.davfs changes to need not be able to reach it.
        self._cache = Path(f"/var/tmp/dicomfs-bench-davfs2-{os.getpid()}")
        self._settings = place / "davfs2.conf"
        self.path = place / "drive"

    def mount(self) -> None:
        """Mount it, its cache empty."""
        self._wait_for_end()
        shutil.rmtree(self._cache, ignore_errors=True)
        self._cache.mkdir()
        shutil.chown(self._cache, "root", _USER)
        self._cache.chmod(0o775)
        self.path.mkdir(parents=True, exist_ok=True)
        told = {**_DAVFS, "cache_dir": self._cache}
        self._settings.write_text("".join(f"{name} {value}\n" for name, value in told.items()))
        self._settings.chmod(0o600)
        address = f"http://127.0.0.1:{_PORT}/webdav/"
        self._server.inside(["mount.davfs", address, str(self.path), "-o", f"conf={self._settings}"])

    def unmount(self) -> None:
        """Unmount it; its process takes two more seconds to end, without doing anything."""
        # Not by davfs2's own umount, which takes three.
        if os.path.ismount(self.path):
            subprocess.run(["umount", "-i", self.path], check=True, capture_output=True)

    def _wait_for_end(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        pids = list(self._pids())
        while any(os.path.exists(f"/proc/{pid}") for pid in pids):
            if time.monotonic() > deadline:
                raise Failed("davfs2: it does not end")
            time.sleep(_TICK_S)

    def close(self) -> None:
        """Unmount it, and wait until that is over."""
        self.unmount()
        self._wait_for_end()
        shutil.rmtree(self._cache, ignore_errors=True)

    def _pids(self) -> Iterator[int]:
        """Find who answers, or has answered, for this mountpoint."""
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                try:
                    words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if words[0].endswith(b"mount.davfs") and os.fsencode(self.path) in words:
                    yield int(entry.name)

    def renew(self) -> None:
        """Mount it anew, what the server reads out of the page cache."""
        self.unmount()
        machine.forget_pages([self._server.storage])
        self.mount()
