"""The processes that make files of instances, seen from the writer: batches go out, files come back in order.

A thread for each process takes batches in the order in which they were given. What an instance does to its process
(it hangs, crashes, eats memory) is over with the process: the next one goes on after it, and it is withheld. Answers
wait in a stream for each batch, which holds so many bytes and no more.
"""

import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Generic, NamedTuple, Self, TypeAlias, TypeVar, cast

from dicomfs import errors
from dicomfs.archive.derive_worker import DERIVED, OUT_OF_MEMORY, Item, Sent
from dicomfs.archive.processes import END_TIMEOUT_S, OurProcess, Running
from dicomfs.errors import DicomfsError, Refused

TIME_S: Final = 60.0
"""How long one instance may take: a header of 30 KB takes a millisecond or two."""
MEMORY: Final = 2 << 30
"""And how much memory, besides its length."""
_START_S: Final = 60.0
_GRACE_S: Final = 5.0
"""How much longer than an instance may take is waited for a process that ends itself then."""
_HELD_BYTES: Final = 8 << 20
_TOO_LONG: Final = "takes too long"
_CRASHED: Final = "ends the process that does it"

Key = TypeVar("Key")
Made = TypeVar("Made")
Answer: TypeAlias = Made | str
"""A file, or why there is none."""


class Work(NamedTuple, Generic[Made]):
    """What such processes do."""

    purpose: str
    """What they are there to do: a verb."""
    doing: str
    """The same as it is done to an instance."""
    received: Callable[..., Made]
    """Makes what was made of what a process sent."""
    size: Callable[[Made], int]
    """Returns how many bytes are kept of it until it is taken."""


class Setting(NamedTuple, Generic[Made]):
    """What to make of instances, and by what."""

    archive: Path
    told: tuple[object, ...]
    """What a process is told first: plain values."""
    module: str
    """What it runs the main function of."""
    work: Work[Made]
    time_s: float = TIME_S
    memory: int = MEMORY


class _Stream(Generic[Made]):
    """Answers of one batch on their way from a thread to the writer."""

    def __init__(self, items: Sequence[Item], size: Callable[[Made], int]) -> None:
        self.items = items
        self._size = size
        self._answers: deque[tuple[Answer[Made], int]] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._closed = False

    def put(self, made: Answer[Made]) -> None:
        """Give an answer, and wait while there are too many that nobody took."""
        size = 0 if isinstance(made, str) else self._size(made)
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

    def get(self) -> Answer[Made]:
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


class Derivers(Generic[Key, Made]):
    """Some processes. Belongs to one thread; a context manager that leaves no process behind."""

    def __init__(self, setting: Setting[Made], jobs: int = 0) -> None:
        """Take up to `jobs` processes (0: one for each CPU), which are started when they are needed."""
        self._setting = setting
        self._most = jobs or os.cpu_count() or 1
        self._orders: queue.SimpleQueue[_Stream[Made] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._streams: deque[tuple[_Stream[Made], list[Key]]] = deque()
        self._running: Running[_Process[Made]] = Running()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for stream, _keys in self._streams:
            stream.close()
        self._running.close()
        for _thread in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join(END_TIMEOUT_S)

    def run(self, batches: Iterable[Sequence[tuple[Key, Item]]]) -> Iterator[tuple[Key, Answer[Made]]]:
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
        stream = _Stream([item for _, item in batch], self._setting.work.size)
        self._streams.append((stream, [key for key, _ in batch]))
        self._orders.put(stream)
        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name="deriver", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        """Do batches until there are no more: a thread of its own, with one process at a time."""
        process: _Process[Made] | None = None
        while (stream := self._orders.get()) is not None and not self._closed:
            try:
                process = self._do(process, stream)
            except Exception as error:  # noqa: BLE001 - the writer is told of it
                stream.fail(error)
                break
        if process is not None:
            self._running.end(process)

    def _do(self, process: "_Process[Made] | None", stream: _Stream[Made]) -> "_Process[Made] | None":
        """Do a batch, by as many processes as it takes; return the last of them."""
        done = 0
        tried = False
        while done < len(stream.items):
            if process is None:
                process = self._running.start(_Process(self._setting))
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
            self._running.end(process)
            process = None
            if self._closed:
                raise Refused(f"the processes that {self._setting.work.purpose} were ended")
            if tried or not reason.endswith(_CRASHED):
                stream.put(reason)
                done += 1
                tried = False
            else:
                tried = True  # it may have been killed by somebody else
        return process


class _Answer(NamedTuple, Generic[Made]):
    """What a process made of an instance; `lost` where the process is gone, or of no use any more, and why."""

    answer: Answer[Made]
    lost: bool = False


class _Process(OurProcess, Generic[Made]):
    """One process. Belongs to one thread, but for `kill`."""

    def __init__(self, setting: Setting[Made]) -> None:
        super().__init__(setting.module, [str(setting.archive)], setting.work.purpose)
        self._setting = setting
        self._doing = setting.work.doing

    def wait_until_ready(self) -> None:
        """Wait until it can be asked; raise what keeps it from that."""
        self._socket.settimeout(_START_S)
        try:
            self._channel.send(self._setting.told)
            kind, told = cast(tuple[str, str], self._channel.receive())
        except (EOFError, OSError) as error:
            raise Refused(f"a process to {self._setting.work.purpose} did not start to work") from error
        if kind:
            found = getattr(errors, kind, Refused)
            raise found(told) if issubclass(found, DicomfsError) else Refused(told)

    def ask(self, items: Sequence[Item]) -> Iterator[_Answer[Made]]:
        """Have a batch done; the last answer is the one with which the process was lost, if it was."""
        self._socket.settimeout(self._setting.time_s + _GRACE_S)
        try:
            self._channel.send((list(items), self._setting.time_s, self._setting.memory))
        except OSError:
            yield _Answer(f"{self._doing} {_CRASHED}", lost=True)
            return
        for _ in items:
            answer = self._receive()
            yield answer
            if answer.lost:
                return

    def _receive(self) -> _Answer[Made]:
        try:
            kind, *told = cast(Sent, self._channel.receive())
        except TimeoutError:
            self.kill()
            return _Answer(f"{self._doing} {_TOO_LONG}", lost=True)
        except (EOFError, OSError):
            return _Answer(self._why(), lost=True)
        if kind == DERIVED:
            return _Answer(self._setting.work.received(*told))
        return _Answer(str(told[0]), lost=kind == OUT_OF_MEMORY)

    def _why(self) -> str:
        """Say why it ended, as its exit status tells."""
        why = _TOO_LONG if self.status() == -signal.SIGALRM else _CRASHED
        return f"{self._doing} {why}"
