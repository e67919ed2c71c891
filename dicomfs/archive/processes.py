"""Processes of our own that do one thing after another for this one, seen from both sides.

Here one is started, killed and waited for, and an interpreter becomes such a process by `begin`. What the two say to
each other, and what is made of one that crashes or takes too long, is the business of those who use them.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from typing import Final, Generic, TypeVar

from dicomfs.archive.channel import Channel
from dicomfs.errors import DicomfsError, Refused
from dicomfs.store import child

END_TIMEOUT_S: Final = 5.0
_SETTINGS: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_FIRST_TO_GO: Final = "500"


class OurProcess:
    """One process. Belongs to one thread, but for `kill`."""

    def __init__(self, module: str, arguments: list[str], purpose: str) -> None:
        """Run a module's main function; raise Refused, with the purpose, where no process can be started."""
        nothing = os.open(os.devnull, os.O_RDONLY)  # there is no memory to share
        try:
            self._process, self._socket = child.start(module, nothing, arguments, _SETTINGS)
        except OSError as error:
            raise Refused(f"no process can be started to {purpose} ({error.strerror})") from error
        finally:
            os.close(nothing)
        self._channel = Channel(self._socket)
        self.pid = self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until it can be asked; raise what keeps it from that."""
        raise NotImplementedError

    def status(self) -> int | None:
        """Return with what exit status it ended, None where it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(END_TIMEOUT_S)
        return None

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._process.kill()

    def end(self) -> None:
        """End it and wait for that, but not for ever: a process that waits for a disk ends when it has it."""
        self._channel.close()
        if self.status() is None:
            self._process.kill()


P = TypeVar("P", bound=OurProcess)


class Running(Generic[P]):
    """The processes of a pool that run now. May be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[P] = set()
        self._closed = False

    def start(self, process: P) -> P:
        """Take up a process and wait until it can be asked; one that comes after `close` is killed."""
        with self._lock:
            self._processes.add(process)
            closed = self._closed
        if closed:
            process.kill()
        try:
            process.wait_until_ready()
        except DicomfsError:
            self.end(process)
            raise
        return process

    def end(self, process: P) -> None:
        """End one and wait for it."""
        process.end()
        with self._lock:
            self._processes.discard(process)

    def close(self) -> None:
        """Kill all, and those that are to come."""
        with self._lock:
            self._closed = True
            processes = set(self._processes)
        for process in processes:
            process.kill()


def begin(arguments: list[str]) -> Channel:
    """Become a process that works for another: quiet, ended with it, by alarms, and before it when memory runs out."""
    end = socket.socket(fileno=int(arguments[0]))
    os.close(int(arguments[1]))
    _be_quiet()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # When the machine has no memory left, this goes before the drive that it works for.
    _try_write("/proc/self/oom_score_adj", _FIRST_TO_GO)
    threading.Thread(target=_end_with, args=(end.fileno(),), daemon=True).start()
    return Channel(end)


def _be_quiet() -> None:
    """Let nothing that a library has to say reach a log: it may be values of patients."""
    if os.environ.get("DICOMFS_DEBUG") == "1":
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


def _end_with(number: int) -> None:
    """End this process when the other side is gone: a job in work is not wanted any more."""
    gone = select.poll()
    gone.register(number, 0)  # a hang-up is told in any case
    gone.poll()
    os._exit(1)


def _try_write(path: str, text: str) -> None:
    """Write to a file of the kernel, if it may be written."""
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        pass
