"""Parts of files made before they are asked for, by threads, in bounded memory."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

THREADS: Final = 2
MOST_BYTES: Final = 48 << 20
"""How much may lie ready or be ordered, all in all: what was ordered first is dropped."""
_QUEUE: Final = 8
"""How many windows may wait to be made."""


class Window:
    """A part [start, stop) of a file, made or in the making."""

    __slots__ = ("future", "left", "start", "stop")

    def __init__(self, start: int, stop: int, future: Future[memoryview]) -> None:
        self.start = start
        self.stop = stop
        self.left = stop - start
        """How many bytes nobody asked for yet."""
        self.future: Future[memoryview] | None = future
        """None once it was dropped."""


class Ahead:
    """Makes windows. May be shared by threads."""

    def __init__(self) -> None:
        self._windows: deque[Window] = deque()
        self._bytes = 0
        self._queued = 0
        self._lock = threading.RLock()  # a cancelled window tells so at once, in the thread that drops it
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def order(self, start: int, stop: int, make: Callable[[int, int], memoryview]) -> Window | None:
        """Have a window made, unless too many wait already."""
        with self._lock:
            if self._closed or self._queued >= _QUEUE:
                return None
            self._queued += 1
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ahead")
            future = self._threads.submit(make, start, stop)
            window = Window(start, stop, future)
            self._windows.append(window)
            self._bytes += stop - start
            while self._bytes > MOST_BYTES:
                self._drop(self._windows.popleft())
        future.add_done_callback(self._made)
        return window

    def _made(self, _: Future[memoryview]) -> None:
        with self._lock:
            self._queued -= 1

    def done(self, window: Window) -> None:
        """Drop a window that nobody will ask for again."""
        with self._lock:
            if window.future is not None:
                self._windows.remove(window)
                self._drop(window)

    def _drop(self, window: Window) -> None:
        if window.future is not None:
            window.future.cancel()
        window.future = None
        self._bytes -= window.stop - window.start

    def forget(self) -> None:
        """Drop everything, as the packs are no longer those it came from."""
        with self._lock:
            while self._windows:
                self._drop(self._windows.popleft())

    def close(self) -> None:
        """End the threads; whoever waits for a window that they had not begun makes it, and meets what there is."""
        self._closed = True
        self.forget()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
