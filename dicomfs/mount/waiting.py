"""What pyfuse3 waits by: a stand-in for the parts of trio that stand in the way of every request.

pyfuse3's loop takes a lock, waits until the kernel has a request, gives the lock to another task and answers.
With trio's own lock and wait each of these is a round of trio's scheduler and an epoll(7): 45 to 70 µs a
request, of which answering is the smaller part. Both keep their contracts here, and cost less:

- The lock is not fair. Who comes back for it while it is free takes it, and whoever was called in the
  meantime parks again; so a worker goes on with the next request, and another one takes over exactly when
  it has to wait for something else.
- A wait looks first whether there is a request, then sleeps in poll(2) itself, no longer than PATIENCE_MS
  and never while a thread is at work for a request; only then it waits as trio does.

All the rest of the program gets its turn at least every PASS_S. pyfuse3 names the library it waits by as
`pyfuse3.trio`, and its own `pyfuse3.asyncio` takes that place in the same way.
"""

import contextlib
import logging
import select
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Final, ParamSpec, TypeVar

import pyfuse3
import trio

log = logging.getLogger(__name__)

THREADS: Final = 16
"""How many requests may be waiting for a disk or a decoder at once."""
MAKING: Final = 128
"""How many requests may be waiting for something that is made, apart from those: it may take minutes, and files can
be read meanwhile."""
TASKS: Final = 512
"""How many requests may be in progress at once. Those past it are not even heard, whatever they are about."""
PATIENCE_MS: Final = 2
"""How long trio's other tasks, and signals, may be left waiting for the sake of the next request."""
PASS_S: Final = 0.005
PASS_IN_COMPANY_S: Final = 0.0005
"""The same while threads are at work, whose results somebody waits for."""

P = ParamSpec("P")
T = TypeVar("T")


class Waiting:
    """The waits of one drive, and what pyfuse3 takes for trio. Belongs to the trio thread."""

    def __init__(self) -> None:
        self.lowlevel = _LowLevel()
        self._limiter = trio.CapacityLimiter(THREADS)
        self._making = trio.CapacityLimiter(MAKING)

    def take_over(self) -> bool:
        """Have pyfuse3 wait by this from its next session on; say whether it can be had."""
        if getattr(pyfuse3, "trio", None) is not trio:
            log.warning("pyfuse3 %s waits in a way that is not known here: the drive is slower", pyfuse3.__version__)
            return False
        vars(pyfuse3)["trio"] = self
        return True

    def give_back(self) -> None:
        """Have pyfuse3 wait by trio again."""
        if vars(pyfuse3).get("trio") is self:
            vars(pyfuse3)["trio"] = trio

    async def in_thread(self, function: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
        """Run what has to be waited for; it is given up only when the drive ends: a disk may hang, that must not."""
        return await self._run(self._limiter, partial(function, *arguments))

    async def made(self, make: Callable[[], object]) -> None:
        """Have something made that may take long, while others wait for threads and get them."""
        await self._run(self._making, make)

    async def _run(self, limiter: trio.CapacityLimiter, function: Callable[[], T]) -> T:
        low = self.lowlevel
        low.threads += 1
        try:
            return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)
        finally:
            low.threads -= 1

    async def until(self, coming: Future[T]) -> None:
        """Wait until something is made, or given up."""
        low = self.lowlevel
        made = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def tell(_: Future[T]) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(made.set)

        low.threads += 1
        try:
            coming.add_done_callback(tell)
            await made.wait()
        finally:
            low.threads -= 1

    def Lock(self) -> "Lock":  # noqa: N802 - trio's name
        """Make what pyfuse3 calls its lock."""
        return Lock()

    def __getattr__(self, name: str) -> object:
        """Have the rest of trio."""
        return getattr(trio, name)


class Lock:
    """A lock like trio's, with which nobody has to wait while it is free."""

    def __init__(self) -> None:
        self._held = False
        self._parked = trio.lowlevel.ParkingLot()
        self._called = False
        """Whether somebody was unparked that did not yet run."""

    async def __aenter__(self) -> None:
        while self._held:
            await self._parked.park()
            self._called = False
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        if self._parked and not self._called:
            # It runs when the scheduler is next entered: by then the lock is free, or somebody holds it who will call.
            self._called = True
            self._parked.unpark()


class _LowLevel:
    """trio.lowlevel with another way to wait for the one file descriptor of the session."""

    def __init__(self) -> None:
        self.threads = 0
        """How many threads are at work for requests."""
        self._fd = -1
        self._poll = select.poll()
        self._closing = False
        self._pass_s = 0.0

    async def wait_readable(self, fd: int) -> None:
        """Return when the session has a request, or is over."""
        if fd != self._fd:
            self._watch(fd)
        now = monotonic()
        if now > self._pass_s:
            await trio.lowlevel.checkpoint()
            self._pass_s = now + (PASS_IN_COMPANY_S if self.threads else PASS_S)
        if self._closing:
            raise trio.ClosedResourceError
        if not self._poll.poll(0 if self.threads else PATIENCE_MS):
            await trio.lowlevel.wait_readable(fd)
            self._pass_s = 0.0

    def notify_closing(self, fd: int) -> None:
        """End the wait, and every one that comes."""
        self._closing = True
        trio.lowlevel.notify_closing(fd)

    def _watch(self, fd: int) -> None:
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._fd = fd

    def __getattr__(self, name: str) -> object:
        """Have the rest of trio.lowlevel."""
        return getattr(trio.lowlevel, name)
