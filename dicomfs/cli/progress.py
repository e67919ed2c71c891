"""The progress bar of long commands: drawn on a terminal's stderr, and nowhere else."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicomfs.archive.outcome import Progress


@contextmanager
def progress_bar(task: str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield the function that shows how far `task` is, None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[files]}", markup=False),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task(task, total=None, files="")

        def show(progress: Progress) -> None:
            done, total = progress.files_done, progress.files_total
            files = f"{done:,}/{total:,} files" if total else f"{done:,} files"
            bar.update(shown, completed=progress.bytes_done, total=progress.bytes_total or None, files=files)

        yield show
