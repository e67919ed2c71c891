"""Leave the terminal: run something in a process of its own, and wait only until it is ready."""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Final

from dicomfs import errors
from dicomfs.errors import DicomfsError, MountError

_READY: Final = b"ready"


def start(run: Callable[[Callable[[], None]], None]) -> None:
    """Run `run(ready)` in a daemon; return when it calls `ready`, raise the error that it ended with before.

    The daemon holds neither the terminal nor any open file nor the working directory of the caller.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _become_daemon(run, writer)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as pipe:
        report = pipe.read()
    if report != _READY:
        raise _error(report)


def _become_daemon(run: Callable[[Callable[[], None]], None], writer: int) -> None:
    """Run in a grandchild of the caller, whose session has no terminal and can get none; never return."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        writer = _close_inherited(writer)
    except OSError as error:
        os.write(writer, _report(error))
        os._exit(1)
    status = 1
    caller = _Caller(writer)
    try:
        run(lambda: caller.tell(_READY))
        status = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller waits to be told
        caller.tell(_report(error))
    finally:
        os._exit(status)


def _close_inherited(writer: int) -> int:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    moved = os.dup2(writer, 3, inheritable=False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    return moved


class _Caller:
    """Who waits to be told how it went: once, for then the number of the pipe belongs to another file."""

    def __init__(self, writer: int) -> None:
        self._writer: int | None = writer

    def tell(self, report: bytes) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with contextlib.suppress(OSError):  # the caller is gone
            os.write(writer, report)
        os.close(writer)


def _report(error: BaseException) -> bytes:
    if isinstance(error, DicomfsError):
        return json.dumps([type(error).__name__, str(error)]).encode()
    return json.dumps(["MountError", f"the mount process failed: {type(error).__name__}: {error}"]).encode()


def _error(report: bytes) -> DicomfsError:
    if not report:
        return MountError("the mount process ended before the drive was ready; its log may tell why")
    name, message = json.loads(report)
    kind = getattr(errors, name, MountError)
    found = kind(message)
    assert isinstance(found, DicomfsError)
    return found
