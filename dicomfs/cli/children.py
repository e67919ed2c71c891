"""Programs that a command starts, watches and ends: none outlives it, however it ends."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GRACE_S: Final = 8.0
"""How long a program may take to end once it was told to; a drive gives its requests three seconds."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1
"""prctl(2)."""
_LIBC: Final = ctypes.CDLL(None)


class Ended(Exception):
    """We were told to end."""


class Ending:
    """Hears Ctrl-C and signals that tell us to end, without interrupting anything; for the main thread."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._heard: socket.socket

    def __enter__(self) -> Self:
        self._heard, told = socket.socketpair()
        self._stack.enter_context(self._heard)
        self._stack.enter_context(told)
        told.setblocking(False)
        self._stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(told.fileno()))
        for number in _SIGNALS:
            self._stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait(self, timeout_s: float | None, *others: int) -> list[int]:
        """Wait for one of these file descriptors; return those that can be read. Raises Ended."""
        heard = self._heard.fileno()
        ready, _, _ = select.select([heard, *others], [], [], timeout_s)
        if heard in ready:
            raise Ended
        return ready


class Child:
    """A program that we started, with all that it starts itself. What it says goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None) -> None:
        self._log = log
        with log.open("wb") as said:
            # A group of its own: Ctrl-C goes to all of the terminal's, and it is for us to end them in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, **(variables or {})},
                process_group=0,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - we have one thread
            )
        self.pidfd = os.pidfd_open(self._process.pid)

    def said(self) -> str:
        """Return the last lines of what it said, as one."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return "; ".join(text.split("\n")[-6:]).strip("; ")

    def has_ended(self) -> bool:
        """Say whether it is no more."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Tell it to end, and see that it does."""
        try:
            if not self.has_ended():
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(GRACE_S)
            with suppress(ProcessLookupError):  # the group lives as long as any of its processes
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        finally:
            os.close(self.pidfd)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
