"""The processes that make files of the cache, seen from those who want one made."""

import os
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias

Job: TypeAlias = tuple[str, tuple[int, ...]]
"""("picture", (inode number, frame, kind)), ("series", (number,)), ("study", (number,)) or ("studies", ())."""


class Makers:
    """Some processes that make what is asked for, one job each at a time. May be shared by threads.

    They start when they are needed, and end when there was nothing to do for a minute, when this process is gone,
    and at `close`. One that takes too long or too much memory is killed, and another takes its place.
    """

    def __init__(self, archive_path: Path, cache: Path, processes: int = 0) -> None:
        """Take up to `processes` processes (0: one for each CPU) for an archive, and for a directory to write to."""
        self._archive = archive_path
        self._cache = cache
        self._most = processes or os.cpu_count() or 1

    def make(self, job: Job) -> None:
        """Have a file made and wait until it is there; the same job asked for twice at once is done once.

        Raises Damaged, StorageFull, NotFound, and Refused where `close` came first.
        """
        self.submit(job).result()

    def submit(self, job: Job) -> "Future[None]":
        """Have a file made; the future is shared by all who ask for it, and not to be cancelled."""
        raise NotImplementedError

    def close(self) -> None:
        """End the processes at once; who waits for a job is told that it was not done."""
        raise NotImplementedError
