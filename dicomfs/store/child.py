"""Start a process of our own that works for this one: a new interpreter with a socket to us and shared memory."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


def start(
    module: str, memory_fd: int, arguments: list[str], settings: Mapping[str, str] | None = None
) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Run main([SOCKET, MEMORY, *arguments]) of a module; return the process and our end of the socket.

    It inherits both file descriptors, by number. `settings` are environment variables where none are set yet.
    Raises OSError.
    """
    ours, theirs = socket.socketpair()
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    program = f"import sys; from {module} import main; main(sys.argv[1:])"
    # -P: what lies in the current directory must not be imported.
    command = [sys.executable, "-P", "-c", program, str(theirs.fileno()), str(memory_fd), *arguments]
    # Ctrl-C goes to the whole group of the terminal; we decide what it means. The process is in a group of
    # its own, and SIGINT never reaches it: it keeps the mask that it is born with.
    try:
        with theirs, _blocked(signal.SIGINT):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), memory_fd),
                env={**(settings or {}), **os.environ, "PYTHONPATH": path},
                process_group=0,
            )
    except OSError:
        ours.close()
        raise
    return process, ours


@contextlib.contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
