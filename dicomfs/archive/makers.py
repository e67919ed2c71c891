"""The processes that make files of the cache, seen from those who want one made.

A thread for each process takes jobs in the order in which they were asked for. What a job does to its process (it
hangs, crashes, eats memory) is over with the process; a picture is then made by the next one, which says in words why
there is none.
"""

import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, cast

from dicomfs import errors
from dicomfs.archive import pictures
from dicomfs.archive.processes import END_TIMEOUT_S, OurProcess, Running
from dicomfs.errors import Damaged, DicomfsError, Refused

Job: TypeAlias = tuple[str, tuple[int, ...]]
"""("picture", (inode number, frame, kind)), ("series", (number,)), ("study", (number,)) or ("studies", ()),
("archive_index", (root of a layout,)), ("project_table", (root of a project, kind of file)), ("omidb", (number of a
study,)) or ("client", (its directory's number,)).

A picture's arguments may go on with (rows, columns, colour): what was promised to whom it is for.
"""

IDLE_S: Final = 60.0
"""After how long a process ends that has nothing to do."""
_START_S: Final = 60.0
_GRACE_S: Final = 5.0
"""How much longer than a job may take is waited for a process that ends itself then."""
_GIB: Final = 1 << 30
_MAKER: Final = "dicomfs.archive.maker"

_TOO_LONG: Final = "it takes too long"
_TOO_MUCH: Final = "it takes too much memory"
_ENDED: Final = "the processes that make files of the cache were ended"
_CRASHED: Final = "its decoder crashed"


class Limits(NamedTuple):
    """What a job may take: time, and memory that is not of a file."""

    time_s: float
    memory: int


LIMITS: Final[Mapping[str, Limits]] = {
    "picture": Limits(20.0, 4 * _GIB),
    # A row for each of a million instances, with its header read.
    "project_table": Limits(3600.0, 4 * _GIB),
}
_OF_DOCUMENTS: Final = Limits(600.0, 4 * _GIB)


class Makers:
    """Some processes that make what is asked for, one job each at a time. May be shared by threads.

    They start when they are needed, and end when there was nothing to do for a minute, when this process is gone,
    and at `close`. One that takes too long or too much memory is killed, and another takes its place.
    """

    def __init__(
        self,
        archive_path: Path,
        cache: Path,
        processes: int = 0,
        *,
        state: Path | None = None,
        idle_s: float = IDLE_S,
        limits: Mapping[str, Limits] = LIMITS,
        module: str = _MAKER,
    ) -> None:
        """Take up to `processes` processes (0: one for each CPU) for an archive, and for a directory to write to.

        `state` is where the earlier state of the archive lies that they read, if they do (`Archive.open_state`).
        `module` is what a process runs the main function of.
        """
        self._arguments = [str(path) for path in (archive_path, cache, state) if path is not None]
        self._cache = cache
        self._most = processes or os.cpu_count() or 1
        self._idle_s = idle_s
        self._limits = limits
        self._module = module
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._futures: dict[Job, Future[None]] = {}
        self._threads: set[threading.Thread] = set()
        self._waiting = 0
        self._running: Running[_Process] = Running()
        self._closed = False

    def make(self, job: Job) -> None:
        """Have a file made and wait until it is there; the same job asked for twice at once is done once.

        Raises Damaged, StorageFull, NotFound, and Refused where `close` came first.
        """
        self.submit(job).result()

    def submit(self, job: Job) -> "Future[None]":
        """Have a file made; the future is shared by all who ask for it, and cannot be cancelled."""
        with self._changed:
            if self._closed:
                raise Refused(_ENDED)
            future = self._futures.get(job)
            if future is not None:
                return future
            future = self._futures[job] = Future()
            future.set_running_or_notify_cancel()
            # Somebody looks at a picture; documents of a long series may take minutes.
            (self._queue.appendleft if job[0] == "picture" else self._queue.append)(job)
            if self._waiting < len(self._queue) and len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name="maker", daemon=True)
                self._threads.add(thread)
                thread.start()
            self._changed.notify()
            return future

    def close(self) -> None:
        """End the processes at once; who waits for a job is told that it was not done."""
        with self._changed:
            self._closed = True
            queued = [self._futures.pop(job) for job in self._queue]
            self._queue.clear()
            threads = set(self._threads)
            self._changed.notify_all()
        for future in queued:
            future.set_exception(Refused(_ENDED))
        self._running.close()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(END_TIMEOUT_S)

    def _work(self) -> None:
        """Do jobs until there are none for a while: a thread of its own, with one process at a time."""
        process: _Process | None = None
        while True:
            job = self._next(0 if process is None else self._idle_s)
            if job is not None:
                process, error = self._do(process, job)
                with self._changed:
                    future = self._futures.pop(job)
                future.set_exception(error) if error is not None else future.set_result(None)
            elif process is not None:
                self._running.end(process)
                process = None
            else:
                return

    def _next(self, time_s: float) -> Job | None:
        """Return the next job; None where there is none for so long. A thread that does not wait is then not needed."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._queue or self._closed, time_s)
            self._waiting -= 1
            if self._queue:
                return self._queue.popleft()
            if not time_s:
                self._threads.discard(threading.current_thread())
            return None

    def _do(self, process: "_Process | None", job: Job) -> "tuple[_Process | None, Exception | None]":
        """Do a job; return the process for the next one, if there is one left, and what was wrong."""
        name, args = job
        limits = self._limits.get(name, _OF_DOCUMENTS)
        reason = ""
        while True:
            try:
                fresh = process is None or process.ended
                if process is None or process.ended:
                    process = self._start(process)
                failed = process.ask(name, args, reason, limits)
            except Exception as error:  # noqa: BLE001 - whoever asked is told of it
                return None, error
            if not process.ended:
                return process, None if failed is None else _error(*failed)
            self._running.end(process)
            if name == "picture":
                _remove_rest(self._cache, args, process.pid)
            kind, told = failed or ("", "")
            if failed is None or kind:  # it had answered, and ended after that
                return None, None if failed is None else _error(kind, told)
            if self._closed:
                return None, Refused(_ENDED)
            if not fresh and told != _TOO_LONG:
                process = None  # it may have been killed before it had heard of this job
                continue
            if name != "picture" or reason:
                return None, Damaged(f"the process that made {name} {args} was ended: {told}")
            process, reason = None, told

    def _start(self, before: "_Process | None") -> "_Process":
        if before is not None:
            self._running.end(before)
        return self._running.start(_Process(self._module, self._arguments))


class _Process(OurProcess):
    """One process. Belongs to one thread, but for `kill`."""

    def __init__(self, module: str, arguments: list[str]) -> None:
        super().__init__(module, arguments, "make files of the cache")
        self._told = False

    @property
    def ended(self) -> bool:
        """Say whether there is no use in asking it any more."""
        return self._told or self._process.poll() is not None

    def wait_until_ready(self) -> None:
        """Wait until it can be asked; raise what keeps it from that."""
        failed = self._receive(_START_S)
        if failed is not None:
            raise _error(failed[0] or "Refused", failed[1] if failed[0] else "a process did not start to work")

    def ask(self, name: str, args: tuple[int, ...], reason: str, limits: Limits) -> tuple[str, str] | None:
        """Have a job done; return the name of an error and its text, an empty name where the process ended by it."""
        with contextlib.suppress(ConnectionError):
            self._channel.send((name, args, reason, limits.time_s, limits.memory))
        return self._receive(limits.time_s + _GRACE_S)

    def _receive(self, time_s: float) -> tuple[str, str] | None:
        self._socket.settimeout(time_s)
        try:
            kind, told = cast(tuple[str, str], self._channel.receive())
        except TimeoutError:
            self.kill()
            self._told = True
            return "", _TOO_LONG
        except (EOFError, OSError):
            self._told = True
            return "", self._why()
        if kind == "MemoryError":
            self._told = True
            return "", _TOO_MUCH
        return (kind, told) if kind else None

    def _why(self) -> str:
        """Say why it ended, as its exit status tells."""
        status = self.status()
        if status == -signal.SIGALRM:
            return _TOO_LONG
        if status == -signal.SIGKILL:  # by the kernel, that is: it had no memory left
            return _TOO_MUCH
        return _CRASHED

    def end(self) -> None:
        """End it and wait for that."""
        self._told = True
        super().end()


def _error(kind: str, told: str) -> DicomfsError:
    found = getattr(errors, kind, Damaged)
    return found(told) if isinstance(found, type) and issubclass(found, DicomfsError) else Damaged(told)


def _remove_rest(cache: Path, args: tuple[int, ...], pid: int) -> None:
    """Remove what a killed process may have left of a picture."""
    ino, frame, kind = args[:3]
    with contextlib.suppress(OSError):
        pictures.temporary(pictures.path(cache, ino, frame, kind), pid).unlink()
