"""From the end of a command to its exit status and its one line on stderr: decided here, once.

0    all that was asked was done
1    a part was refused or failed; the message or the report says which
2    the request itself is wrong
3    the archive is damaged, or there is none
130  interrupted from the keyboard
141  nobody reads our output any more (as if ended by SIGPIPE)
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

import dicomfs
from dicomfs.cli.commands import NobodyReads, cli
from dicomfs.cli.terminal import shown
from dicomfs.errors import DicomfsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

PARTIAL = 1
_USAGE = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141


class Interrupted(KeyboardInterrupt):
    """The keyboard's interrupt, with what the user should know about it."""


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return the exit status; every message has been printed."""
    for stream in (sys.stdout, sys.stderr):
        _tolerant(stream)
    try:
        status = cli.main(arguments, prog_name="dicomfs", standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001  the last place to turn an error into words
        return _report(error)
    except KeyboardInterrupt as error:
        return _interrupted(error)
    return status if isinstance(status, int) else 0


def _tolerant(stream: TextIO) -> None:
    # A name that the terminal's encoding lacks must not end a listing.
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors="backslashreplace")


def _report(error: Exception) -> int:
    if isinstance(error, click.Abort):
        return _interrupted(error.__cause__)
    if isinstance(error, NobodyReads | BrokenPipeError):
        _abandon(sys.stdout)
        return _BROKEN_PIPE
    if _debugging():
        traceback.print_exception(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return _USAGE
    if isinstance(error, click.ClickException):
        _say(_click_message(error))
        return _USAGE
    if isinstance(error, DicomfsError):
        _say(str(error))
        return error.exit_status
    if isinstance(error, OSError) and error.strerror:
        _say(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return PARTIAL
    _say(_bug(error))
    return PARTIAL


def _interrupted(error: BaseException | None) -> int:
    _say(f"interrupted; {error}" if isinstance(error, Interrupted) and str(error) else "interrupted")
    return _INTERRUPTED


def _click_message(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if isinstance(context, click.Context) else "dicomfs"
    return f"{message} (see {path} --help)"


def _bug(error: Exception) -> str:
    # The message of an unforeseen error may quote a patient's data: only its type and place are told.
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}dicomfs{os.sep}" in frame.filename]
    frame = (ours or frames)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"internal error: {type(error).__name__} at {place} in {frame.name} (dicomfs {dicomfs.__version__},"
        f" Python {python}); please report this line. DICOMFS_DEBUG=1 shows more, maybe with patient data"
    )


def _debugging() -> bool:
    return os.environ.get("DICOMFS_DEBUG", "") not in ("", "0")


def _say(message: str) -> None:
    try:
        sys.stderr.write(f"dicomfs: {shown(message)}\n")
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)  # nobody listens; the status still tells


def _abandon(stream: TextIO) -> None:
    # Python flushes its streams once more when it ends, and would change the status if it cannot.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
