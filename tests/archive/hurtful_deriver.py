"""Runs as a process that de-identifies, and is hurt by some instances: which way, their InstanceNumber says.

dicomfs.archive.projects.create(…, module="tests.archive.hurtful_deriver")
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

from dicomfs.archive import derive_worker
from dicomfs.dicom.describe import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dicomfs.archive.deriving import Engine, Taken
    from dicomfs.dicom.encoding import Data
    from dicomfs.dicom.part10 import Part10

SLEEPS, HOLDS_THE_LOCK, ABORTS, EATS, RAISES, LIES = range(901, 907)


def engine(profile: str, key: bytes) -> Engine:
    """De-identify, or do harm."""
    inner = derive_worker.engine(profile, key)

    def made(data: Data, part10: Part10, read: Callable[[int, int], bytes], identity: str) -> Sequence[bytes | Taken]:
        described = describe(data)
        assert described.attributes is not None
        number = described.attributes.instance.get("InstanceNumber")
        if number == SLEEPS:
            time.sleep(1000)
        if number == HOLDS_THE_LOCK:
            re.match("(a+)+$", "a" * 60 + "b")
        if number == ABORTS:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == EATS:
            hold = [bytearray(1 << 24) for _ in range(1 << 16)]
            raise AssertionError(len(hold))
        if number == RAISES:
            raise ValueError("Doe^Jane")
        if number == LIES:
            return [b"no DICOM"]
        return inner(data, part10, read, identity)

    return made


def main(arguments: list[str]) -> None:
    """Work as the real one does."""
    derive_worker.main(arguments, engine)
