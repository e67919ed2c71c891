"""The processes that decode ahead, seen from those who want it done."""

import contextlib
import mmap
import os
import socket
import threading
import weakref
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.errors import Damaged
from dicomfs.store import child
from dicomfs.store.location import Location

SLOT_BYTES: Final = 1 << 21
SLOTS: Final = 24
WARM_UP_BYTES: Final = 96 << 20
"""How much is left to the threads before processes are started: a study is copied before they are there."""
IDLE_S: Final = 60.0
"""After how long a process ends that has nothing to do."""
_END_TIMEOUT_S: Final = 5


class Part(NamedTuple):
    """Bytes [start, end) of a blob, wanted at an offset of the slot."""

    location: Location
    start: int
    end: int
    at: int


class Decoders:
    """Some processes, one for each thread that asks. May be shared by threads."""

    def __init__(self, packs: Path, most: int) -> None:
        """Take up to `most` processes for the packs of a directory."""
        self._packs = packs
        self._most = most
        self._asked = 0
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._decoders: list[_Decoder] = []
        self._memory_fd = -1
        self._memory: mmap.mmap | None = None
        self._free: deque[int] = deque()
        self._closed = False

    def run(self, length: int, parts: list[Part]) -> memoryview | None:
        """Return `length` bytes with all parts decoded to their places; None where no process can do it now.

        Raises Damaged. What lies between the parts is of any content. The memory is used again when the last
        view of it is gone.
        """
        if length > SLOT_BYTES:
            return None
        decoder = self._decoder(length)
        if decoder is None:
            return None
        taken = self._take(length)
        if taken is None:
            return None
        slot, view = taken
        told = decoder.ask(slot, parts)
        if told is None:
            return None
        if told:
            raise Damaged(told)
        return view

    def _take(self, length: int) -> tuple[int, memoryview] | None:
        """Return a free slot and its memory; it is free again when nobody refers to the memory any more."""
        import numpy as np

        if self._memory is None:
            return None
        try:
            slot = self._free.popleft()
        except IndexError:
            return None
        memory = np.frombuffer(self._memory, np.uint8, length, slot * SLOT_BYTES)
        weakref.finalize(memory, self._free.append, slot).atexit = False
        return slot, memory.data

    def _decoder(self, length: int) -> "_Decoder | None":
        """Return this thread's process, if it is ready."""
        found: _Decoder | None = getattr(self._mine, "decoder", None)
        if found is None or found.ended:
            with self._lock:
                self._asked += length
                if self._closed or self._asked <= WARM_UP_BYTES:
                    return None
                self._decoders = [one for one in self._decoders if not one.ended]
                if len(self._decoders) >= self._most:
                    return None
                try:
                    found = self._start()
                except OSError:  # no processes or memory to be had: the threads go on alone
                    self._asked = -64 * WARM_UP_BYTES
                    return None
            self._mine.decoder = found
        return found if found.is_ready() else None

    def _start(self) -> "_Decoder":
        if self._memory is None:
            self._memory_fd = os.memfd_create("dicomfs-decoded", os.MFD_CLOEXEC)
            os.ftruncate(self._memory_fd, SLOTS * SLOT_BYTES)
            self._memory = mmap.mmap(self._memory_fd, 0)
            self._free.extend(range(SLOTS))
        decoder = _Decoder(self._memory_fd, self._packs)
        self._decoders.append(decoder)
        return decoder

    def forget(self) -> None:
        """End the processes, as the packs that they have open are no longer there; new ones are started."""
        with self._lock:
            decoders, self._decoders = self._decoders, []
        for decoder in decoders:
            decoder.end()
        for decoder in decoders:
            decoder.join()

    def close(self) -> None:
        """End the processes for good."""
        self._closed = True
        self.forget()
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1


class _Decoder:
    """One process. Belongs to one thread, but for `end`."""

    def __init__(self, memory_fd: int, packs: Path) -> None:
        process, ours = child.start("dicomfs.store.decoder", memory_fd, [str(packs), str(IDLE_S)])
        # It ends by itself when it was idle, and somebody has to hear of it.
        self._waiting = threading.Thread(target=process.wait, name="decoder", daemon=True)
        self._waiting.start()
        self._connection = Connection(ours.detach())
        self._ready = False
        self.ended = False

    def is_ready(self) -> bool:
        """Say whether it can be asked."""
        if not self._ready and not self.ended:
            try:
                if self._connection.poll(0):
                    self._connection.recv()
                    self._ready = True
            except (EOFError, OSError):
                self.end()
        return self._ready and not self.ended

    def ask(self, slot: int, parts: list[Part]) -> str | None:
        """Have a job done; return what it says, None where it ended."""
        try:
            self._connection.send((slot, parts))
            told: str = self._connection.recv()
        except (EOFError, OSError):
            self.end()
            return None
        return told

    def end(self) -> None:
        """Tell it to end, which it does after the job in work; whoever waits for that hears that it ended."""
        self.ended = True
        # Not closed: a thread may be waiting there.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait until it has ended."""
        self._waiting.join(_END_TIMEOUT_S)
