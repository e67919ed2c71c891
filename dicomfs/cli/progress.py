"""The progress bar of long commands: drawn on a terminal's stderr, and nowhere else."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicomfs.cli.terminal import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicomfs.archive.outcome import Progress


@contextmanager
def progress_bar(task: str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield the function that shows how far `task` is, None without a terminal.

    A task may have several phases: one begins where there is less done than before.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        drawn = bar.add_task(task, total=None, detail="")
        before = 0
        started = time.monotonic()

        def show(progress: Progress) -> None:
            nonlocal before, started
            if progress.files_done < before:
                bar.reset(drawn, detail="")
                started = time.monotonic()
            before = progress.files_done
            done, total = _measure(progress)
            detail = _detail(progress, time.monotonic() - started)
            bar.update(drawn, completed=done, total=total or None, detail=detail)

        yield show


def _measure(progress: Progress) -> tuple[int, int]:
    if progress.bytes_total:
        return progress.bytes_done, progress.bytes_total
    return progress.files_done, progress.files_total


def _detail(progress: Progress, seconds: float) -> str:
    total = f"/{progress.files_total:,}" if progress.files_total else ""
    detail = f"{progress.files_done:,}{total}"
    if progress.bytes_done and seconds > 0:
        detail += f", {size_text(progress.bytes_done)}, {size_text(int(progress.bytes_done / seconds))}/s"
    elif seconds > 0:
        detail += f", {progress.files_done / seconds:,.0f}/s"
    return detail
