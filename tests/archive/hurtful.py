"""Runs as a maker process whose jobs hurt it: which way, the number in the place of a picture's frame says.

dicomfs.archive.makers.Makers(…, module="tests.archive.hurtful")
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

from dicomfs.archive import maker, pictures

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.archive import Archive

SLEEPS, HOLDS_THE_LOCK, ABORTS, FAULTS, EATS_IN_PYTHON, KILLED, LEAVES_A_REST, RAISES, STOPS = range(901, 910)


def picture(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make a picture, or do harm."""
    _, frame, *_ = args
    if frame == LEAVES_A_REST:
        where = pictures.path(cache, *args[:3])
        where.parent.mkdir(parents=True, exist_ok=True)
        pictures.temporary(where, os.getpid()).write_bytes(b"half of a pict")
    if frame in (SLEEPS, LEAVES_A_REST):
        time.sleep(1000)
    if frame == HOLDS_THE_LOCK:
        re.match("(a+)+$", "a" * 60 + "b")  # which no other thread of the process survives either
    if frame == ABORTS:
        os.abort()
    if frame == FAULTS:
        os.kill(os.getpid(), signal.SIGSEGV)
    if frame == EATS_IN_PYTHON:
        hold = [bytearray(1 << 24) for _ in range(1 << 16)]
        raise AssertionError(len(hold))
    if frame == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if frame == STOPS:
        os.kill(os.getpid(), signal.SIGSTOP)
    if frame == RAISES:
        raise ValueError("Doe^Jane")
    pictures.make(archive, cache, args)


def document(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Write down that it ran, and go on when the file `go` is there; series 0 hangs, series 1 eats memory."""
    if args and args[0] == 0:
        time.sleep(1000)
    if args and args[0] == 1:
        picture(archive, cache, (0, EATS_IN_PYTHON, 0))
    with open(cache / "ran", "a") as file:
        file.write(f"{os.getpid()} {args}\n")
    while not (cache / "go").exists():
        time.sleep(0.005)


def main(arguments: list[str]) -> None:
    """Work as the real one does."""
    maker.main(arguments, {"picture": picture, "series": document})
