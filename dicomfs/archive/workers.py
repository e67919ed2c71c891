"""The worker processes of an import, seen from the coordinator: batches go out, chunks come back in order."""

import contextlib
import mmap
import os
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, cast

from dicomfs.archive.channel import Channel, wait
from dicomfs.archive.worker import RING_BYTES, Chunk, Item, files_told, received
from dicomfs.errors import DicomfsError
from dicomfs.store import child

_AHEAD: Final = 6
"""How many batches a worker holds: one in work, and more to go on with while this process waits for the disk.
All of them must fit the buffer of a socket, or both ends would wait for each other."""
_END_TIMEOUT_S: Final = 10


class WorkerLost(DicomfsError):
    """A worker process ended before its work did."""


_SETTINGS: Final = {
    # Stored bytes, planes and decoded bytes come and go with every blob. Without these malloc gives their pages
    # back each time, and a worker spends a sixth of its time on page faults.
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}


class Answer(NamedTuple):
    """Part of the answer to one batch, with the memory that its items refer to; `last` where it ends the batch."""

    items: list[Item]
    memory: memoryview
    last: bool


class _Worker:
    def __init__(self, memory_fd: int, start: int, archive: Path, codec: str, *, dry_run: bool) -> None:
        arguments = [str(start), str(archive), codec, "1" if dry_run else "0"]
        self.process, ours = child.start("dicomfs.archive.worker", memory_fd, arguments, _SETTINGS)
        self.channel = Channel(ours)
        self.batches: deque[Sequence[str]] = deque()
        self.chunks: deque[Chunk] = deque()
        self.answered = 0
        """How many files of the batch in work were told of."""

    def reading(self) -> str:
        """Return the first file that was not told of."""
        batch = self.batches[sum(last for _, _, last in self.chunks)]
        return batch[min(self.answered, len(batch) - 1)]


class Workers:
    """Some worker processes. Belongs to one thread; a context manager that leaves no process behind."""

    def __init__(self, archive: Path, codec: str, jobs: int, *, dry_run: bool) -> None:
        memory_fd = os.memfd_create("dicomfs-import", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory_fd, jobs * RING_BYTES)
            self._map = mmap.mmap(memory_fd, 0)
            self._memory = memoryview(self._map)
            self._workers = [
                _Worker(memory_fd, start, archive, codec, dry_run=dry_run)
                for start in range(0, jobs * RING_BYTES, RING_BYTES)
            ]
        finally:
            os.close(memory_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            if kind is not None or worker.batches:
                worker.process.terminate()  # what it is working on is not wanted any more
            else:
                self._send(worker, ("end",))
            worker.channel.close()
        for worker in self._workers:
            try:
                worker.process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        # An error on its way up may still hold slices of the memory: it then goes with the last of them.
        with contextlib.suppress(BufferError):
            self._memory.release()
            self._map.close()

    def run(self, batches: Iterable[Sequence[str]]) -> Iterator[Answer]:
        """Have all batches done; give the answers in the order of the batches.

        An answer's memory is used again when the next one is asked for.
        """
        source = iter(batches)
        order: deque[_Worker] = deque()
        for _ in range(_AHEAD):
            for worker in self._workers:
                self._give(worker, source, order)
        while order:
            worker = order[0]
            while not worker.chunks:
                self._receive()
            has_bytes, items, last = worker.chunks.popleft()
            start = self._workers.index(worker) * RING_BYTES
            with self._memory[start : start + RING_BYTES] as memory:
                yield Answer(received(items), memory, last)
            if has_bytes:
                self._send(worker, ("free",))
            if last:
                worker.batches.popleft()
                order.popleft()
                self._give(worker, source, order)

    def _give(self, worker: _Worker, source: Iterator[Sequence[str]], order: deque[_Worker]) -> None:
        batch = next(source, None)
        if batch is not None:
            worker.batches.append(batch)
            order.append(worker)
            self._send(worker, ("files", batch))

    def _receive(self) -> None:
        by_channel = {worker.channel: worker for worker in self._workers}
        for ready in wait(list(by_channel)):
            worker = by_channel[ready]
            try:
                chunk = cast(Chunk, ready.receive())
                worker.chunks.append(chunk)
                worker.answered = 0 if chunk[2] else worker.answered + files_told(chunk[1])
            except (EOFError, ConnectionError) as error:
                raise self._died(worker) from error

    def _send(self, worker: _Worker, message: tuple[object, ...]) -> None:
        try:
            worker.channel.send(message)
        except ConnectionError as error:
            if message[0] == "files":
                raise self._died(worker) from error

    def _died(self, worker: _Worker) -> WorkerLost:
        status = worker.process.wait()
        return WorkerLost(
            f"the worker process that was reading {worker.reading()}, or a file soon after it, ended unexpectedly "
            f"(status {status}); what was committed is safe: run the import again, and without that file if it recurs"
        )
