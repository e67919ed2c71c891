"""The processes that make derived files, seen from the writer: batches go out, files come back in order.

A thread for each process takes batches in the order in which they were given. What an instance does to its process
(it hangs, crashes, eats memory) is over with the process: the next one goes on after it, and it is withheld. Answers
wait in a stream for each batch, which holds so many bytes and no more.
"""

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Generic, NamedTuple, Self, TypeAlias, TypeVar, cast

from dicomfs import errors
from dicomfs.archive import derive_worker
from dicomfs.archive.channel import Channel
from dicomfs.archive.derive_worker import DERIVED, OUT_OF_MEMORY, TOO_MUCH, Item, Sent
from dicomfs.archive.deriving import Derived
from dicomfs.errors import DicomfsError, Refused
from dicomfs.store import child

TIME_S: Final = 60.0
"""How long one instance may take: a header of 30 KB takes a millisecond or two."""
MEMORY: Final = 2 << 30
"""And how much memory, besides its length."""
_START_S: Final = 60.0
_GRACE_S: Final = 5.0
"""How much longer than an instance may take is waited for a process that ends itself then."""
_END_TIMEOUT_S: Final = 5.0
_HELD_BYTES: Final = 8 << 20
_MODULE: Final = "dicomfs.archive.derive_worker"
_SETTINGS: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_TOO_LONG: Final = "de-identifying it takes too long"
_CRASHED: Final = "de-identifying it ends the process that does it"

Key = TypeVar("Key")
Made: TypeAlias = Derived | str
"""A file, or why there is none."""


class Setting(NamedTuple):
    """What to derive, and by what."""

    archive: Path
    profile: str
    key: bytes
    module: str = _MODULE
    """What a process runs the main function of."""
    time_s: float = TIME_S
    memory: int = MEMORY


class _Stream:
    """Answers of one batch on their way from a thread to the writer."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self._answers: deque[tuple[Made, int]] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._closed = False

    def put(self, made: Made) -> None:
        """Give an answer, and wait while there are too many that nobody took."""
        size = 0 if isinstance(made, str) else len(made.body) + sum(len(blob.stored) for blob in made.blobs)
        with self._changed:
            self._changed.wait_for(lambda: self._held < _HELD_BYTES or self._closed)
            self._answers.append((made, size))
            self._held += size
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Say why no more answers come."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def get(self) -> Made:
        """Take the next answer; wait for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._answers or self._error is not None)
            if not self._answers:
                assert self._error is not None
                raise self._error
            made, size = self._answers.popleft()
            self._held -= size
            self._changed.notify_all()
            return made

    def close(self) -> None:
        """Take no more answers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Derivers(Generic[Key]):
    """Some processes. Belongs to one thread; a context manager that leaves no process behind."""

    def __init__(self, setting: Setting, jobs: int = 0) -> None:
        """Take up to `jobs` processes (0: one for each CPU), which are started when they are needed."""
        self._setting = setting
        self._most = jobs or os.cpu_count() or 1
        self._orders: queue.SimpleQueue[_Stream | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._streams: deque[tuple[_Stream, list[Key]]] = deque()
        self._processes: set[_Process] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            processes = set(self._processes)
        for stream, _keys in self._streams:
            stream.close()
        for process in processes:
            process.kill()
        for _thread in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join(_END_TIMEOUT_S)

    def run(self, batches: Iterable[Sequence[tuple[Key, Item]]]) -> Iterator[tuple[Key, Made]]:
        """Have all done, in order: yield what was given beside each instance, and the file, or why there is none."""
        source = iter(batches)
        while True:
            while len(self._streams) < 2 * self._most and (batch := next(source, None)) is not None:
                self._give(batch)
            if not self._streams:
                return
            stream, keys = self._streams[0]
            for key in keys:
                yield key, stream.get()
            self._streams.popleft()

    def _give(self, batch: Sequence[tuple[Key, Item]]) -> None:
        stream = _Stream([item for _, item in batch])
        self._streams.append((stream, [key for key, _ in batch]))
        self._orders.put(stream)
        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name="deriver", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        """Do batches until there are no more: a thread of its own, with one process at a time."""
        process: _Process | None = None
        while (stream := self._orders.get()) is not None and not self._closed:
            try:
                process = self._do(process, stream)
            except Exception as error:  # noqa: BLE001 - the writer is told of it
                stream.fail(error)
                break
        if process is not None:
            self._end(process)

    def _do(self, process: "_Process | None", stream: _Stream) -> "_Process | None":
        """Do a batch, by as many processes as it takes; return the last of them."""
        done = 0
        tried = False
        while done < len(stream.items):
            if process is None:
                process = self._start()
            # After an instance that ended its process another one is asked for it, and for nothing else.
            wanted = stream.items[done : done + 1 if tried else None]
            reason = ""
            for made in process.ask(wanted):
                if made.lost:
                    reason = made.answer if isinstance(made.answer, str) else ""
                    break
                stream.put(made.answer)
                done += 1
                tried = False
            if not reason:
                continue
            self._end(process)
            process = None
            if self._closed:
                raise Refused("the processes that de-identify were ended")
            if tried or reason in (_TOO_LONG, TOO_MUCH):
                stream.put(reason)
                done += 1
                tried = False
            else:
                tried = True  # it may have been killed by somebody else
        return process

    def _start(self) -> "_Process":
        process = _Process(self._setting)
        with self._lock:
            self._processes.add(process)
            closed = self._closed
        if closed:
            process.kill()
        try:
            process.wait_until_ready()
        except DicomfsError:
            self._end(process)
            raise
        return process

    def _end(self, process: "_Process") -> None:
        process.end()
        with self._lock:
            self._processes.discard(process)


class _Answer(NamedTuple):
    """What a process made of an instance; `lost` where the process is gone, or of no use any more, and why."""

    answer: Made
    lost: bool = False


class _Process:
    """One process. Belongs to one thread, but for `kill`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        nothing = os.open(os.devnull, os.O_RDONLY)  # there is no memory to share
        try:
            self._process, self._socket = child.start(setting.module, nothing, [str(setting.archive)], _SETTINGS)
        except OSError as error:
            raise Refused(f"no process can be started to de-identify ({error.strerror})") from error
        finally:
            os.close(nothing)
        self._channel = Channel(self._socket)

    def wait_until_ready(self) -> None:
        """Wait until it can be asked; raise what keeps it from that."""
        self._socket.settimeout(_START_S)
        try:
            self._channel.send((self._setting.profile, self._setting.key))
            kind, told = cast(tuple[str, str], self._channel.receive())
        except (EOFError, OSError) as error:
            raise Refused("a process that de-identifies did not start to work") from error
        if kind:
            found = getattr(errors, kind, Refused)
            raise found(told) if issubclass(found, DicomfsError) else Refused(told)

    def ask(self, items: Sequence[Item]) -> Iterator[_Answer]:
        """Have a batch done; the last answer is the one with which the process was lost, if it was."""
        self._socket.settimeout(self._setting.time_s + _GRACE_S)
        try:
            self._channel.send((list(items), self._setting.time_s, self._setting.memory))
        except OSError:
            yield _Answer(_CRASHED, lost=True)
            return
        for _ in items:
            answer = self._receive()
            yield answer
            if answer.lost:
                return

    def _receive(self) -> _Answer:
        try:
            kind, *told = cast(Sent, self._channel.receive())
        except TimeoutError:
            self.kill()
            return _Answer(_TOO_LONG, lost=True)
        except (EOFError, OSError):
            return _Answer(self._why(), lost=True)
        if kind == DERIVED:
            return _Answer(derive_worker.received(*told))  # type: ignore[arg-type]  # as our own process sent it
        return _Answer(str(told[0]), lost=kind == OUT_OF_MEMORY)

    def _why(self) -> str:
        """Say why it ended, as its exit status tells."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process.wait(_END_TIMEOUT_S) == -signal.SIGALRM:
                return _TOO_LONG
        return _CRASHED

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._process.kill()

    def end(self) -> None:
        """End it and wait for that, but not for ever: a process that waits for a disk ends when it has it."""
        self._channel.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
