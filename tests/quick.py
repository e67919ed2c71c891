"""Processes of our own that start in a moment: forks of one that has imported everything, instead of new interpreters.

They run the same code, each in a process of its own; only the second that an interpreter takes to start is saved, of
which a long random walk has thousands. `processes` has `dicomfs.store.child` use them; `start` runs any function, in a
session of its own, so that it can be killed with all that it started.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicomfs.store import child

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MODULES = (
    "dicomfs.archive.worker", "dicomfs.archive.derive_worker", "dicomfs.archive.editing_worker",
    "dicomfs.archive.maker", "dicomfs.archive.ingest", "dicomfs.archive.rebuild", "dicomfs.store.decoder",
)  # fmt: skip
_CHECKOUT = Path(__file__).resolve().parents[1]


class Process:
    """A process that was forked; what is used of subprocess.Popen."""

    def __init__(self, nursery: _Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        self._end = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        with self._lock:
            if self.returncode is None:
                waiting = select.poll()
                waiting.register(self._end, select.POLLIN)
                if not waiting.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired("a fork", timeout or 0)
                self.returncode = self._nursery.reap(self.pid)
                os.close(self._end)
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        with self._lock:
            if self.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._end, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class _Nursery:
    """The process that has imported everything, seen from ours."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, (str(_CHECKOUT), os.environ.get("PYTHONPATH"))))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from tests.quick import serve; serve({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                process_group=0,
            )
        self._lock = threading.Lock()

    def fork(self, asked: Mapping[str, Any], files: Sequence[int]) -> Process:
        """Have a process forked that inherits these files."""
        with self._lock:
            socket.send_fds(self._ours, [json.dumps(asked).encode()], files)
            return Process(self, int(self._ours.recv(64)))

    def reap(self, pid: int) -> int:
        """Return with what one that is over ended."""
        with self._lock:
            self._ours.send(json.dumps({"reap": pid}).encode())
            return int(self._ours.recv(64))

    def end(self) -> None:
        """End it."""
        self._ours.close()
        self._process.wait()


_nurseries: list[_Nursery] = []
_lock = threading.Lock()


def _get() -> _Nursery:
    with _lock:
        if not _nurseries:
            _nurseries.append(_Nursery())
        return _nurseries[0]


def end() -> None:
    """End what was started for this module."""
    with _lock:
        while _nurseries:
            _nurseries.pop().end()


def start(module: str, function: str, *arguments: object) -> Process:
    """Run a function with arguments that JSON has, in a session of its own."""
    return _get().fork({"module": module, "function": function, "arguments": arguments, "session": True}, [])


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Have all processes that dicomfs starts in this one be forks."""

    def start_fork(
        module: str, memory_fd: int, arguments: list[str], settings: Mapping[str, str] | None = None
    ) -> tuple[Process, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            asked = {"module": module, "function": "main", "arguments": arguments, "session": False}
            return _get().fork(asked, [theirs.fileno(), memory_fd]), ours

    before = child.start
    child.start = start_fork  # type: ignore[assignment]
    try:
        yield
    finally:
        child.start = before


def serve(number: int) -> None:
    """Be the process that is forked."""
    for module in _MODULES:
        importlib.import_module(module)
    ours = socket.socket(fileno=number)
    while True:
        message, files, _, _ = socket.recv_fds(ours, 1 << 16, 2)
        if not message:
            return
        asked = json.loads(message)
        if "reap" in asked:
            _, status = os.waitpid(asked["reap"], 0)
            ours.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if not pid:
            ours.close()
            _become(asked, files)
        for file in files:
            os.close(file)
        ours.send(str(pid).encode())


def _become(asked: dict[str, Any], files: list[int]) -> None:
    status = 1
    try:
        os.setsid() if asked["session"] else os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        function = getattr(importlib.import_module(asked["module"]), asked["function"])
        if files:
            function([*map(str, files), *asked["arguments"]])
        else:
            function(*asked["arguments"])
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
