"""The progress bar of long commands: drawn on a terminal's stderr, and nowhere else."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[int, int, int, int], None]


@contextmanager
def progress_bar(task: str) -> Iterator[Report | None]:
    """Yield a function (files done, files in all, bytes done, bytes in all), None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[files]}", markup=False),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        shown_task = bar.add_task(task, total=None, files="")

        def report(files_done: int, files_total: int, bytes_done: int, bytes_total: int) -> None:
            files = f"{files_done:,}/{files_total:,} files" if files_total else f"{files_done:,} files"
            bar.update(shown_task, completed=bytes_done, total=bytes_total or None, files=files)

        yield report
