"""Commands that change an archive, told in JSON, so that a process of its own can do one and be killed in it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from dicomfs.archive import deleting
from dicomfs.archive.deleting import delete, restore
from dicomfs.archive.editing_file import replace_with
from dicomfs.archive.editing_plan import Asked
from dicomfs.archive.editing_run import Options, edit_instances
from dicomfs.archive.editing_selection import Selection as Chosen
from dicomfs.archive.ingest import ImportOptions, import_paths
from dicomfs.archive.rebuild import reindex
from dicomfs.archive.selection import Selection
from dicomfs.store import writer

WRITER_STEPS = ("before record", "written", "synced", "indexed")
GC_STEPS = ("packs", "index", "intent", "named", "swapped", "done")


def perform(archive: Path, op: str, told: dict[str, Any]) -> Any:
    """Do a command; return what it returns."""
    if op == "import":
        results: list[Any] = []
        options = ImportOptions(jobs=1, on_conflict=told["on_conflict"], restore_deleted=told["restore_deleted"])
        import_paths(archive, [Path(told["path"])], options, on_result=results.append)
        return results
    if op == "edit":
        asked = {**told["asked"], "set": {int(tag): tuple(values) for tag, values in told["asked"]["set"].items()}}
        return edit_instances(archive, Chosen(**_tuples(told["chosen"])), Asked(**_tuples(asked)), _options(told))
    if op == "replace":
        return replace_with(
            archive, Chosen(**_tuples(told["chosen"])), Path(told["path"]), _options(told), set_uids=False
        )
    if op == "delete":
        return delete(archive, Selection(**_tuples(told["chosen"])), "not wanted")
    if op == "restore":
        return restore(archive, Selection(**_tuples(told["chosen"])), told["version"])
    if op == "undo":
        return deleting.undo(archive, told["seq"])
    if op == "gc":
        from dicomfs.archive import gc

        return gc.collect(archive, forget_before_ns=told["forget_before_ns"])
    if op == "merge":
        from dicomfs.archive import merging

        return merging.merge(archive, Path(told["path"]))
    assert op == "reindex"
    return reindex(archive)


def _tuples(told: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}


def _options(told: dict[str, Any]) -> Options:
    return Options(jobs=1, reason=told.get("reason", ""))


def main(archive: str, op: str, told: dict[str, Any], step: str = "", commit: int = 0) -> None:
    """Do a command, and die at a step: of gc, or of the writer's commit with this number."""

    def at(name: str) -> None:
        if name == step:
            os.killpg(0, signal.SIGKILL)

    if step in GC_STEPS:
        from dicomfs.archive import gc

        collect = gc.collect
        gc.collect = lambda *arguments, **options: collect(*arguments, faults=at, **options)  # type: ignore[assignment]
    elif step:
        begin = writer.Writer.__init__

        def stopping(self: writer.Writer, store: Any, faults: Any = None) -> None:
            begin(self, store, lambda name: at(name) if self.seq == commit else None)

        writer.Writer.__init__ = stopping  # type: ignore[method-assign]
    perform(Path(archive), op, told)
