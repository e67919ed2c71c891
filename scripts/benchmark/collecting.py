"""The probe of `gc`: packs of many imports become one, against a plain copy of the same packs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmark import drives, machine
from benchmark.measure import Run, compete, timed
from benchmark.reading import run
from benchmark.stage import Stage


def _on_a_copy(stage: Stage, archive: Path, work: Callable[[Path], object]) -> Run:
    """Return a run on a fresh copy of an archive in memory, which is taken away afterwards."""

    def one() -> float:
        target = stage.fresh("gc")
        shutil.copytree(archive, target)
        os.sync()
        machine.warm([target / "packs"])
        took = timed(lambda: work(target))
        stage.clear("gc")
        return took

    return one


def _copied(archive: Path) -> None:
    run("cp", "-r", archive / "packs", archive / "copy")
    run("sync", "-f", archive / "copy")


def _collected(archive: Path) -> None:
    drives.dicomfs("gc", "-a", archive)


def probe_gc(stage: Stage) -> None:
    """Merge the packs of an import for each CT study; cp of the packs is the bar, which proves nothing.

    Packs of plain samples are as long as packs get, so those of the default codec are merged.
    """
    archive = stage.scattered("fast")
    size = sum(path.stat().st_size for path in machine.files_below(archive / "packs")) / 1e6
    contestants = {"ext4, cp": _on_a_copy(stage, archive, _copied), "dicomfs": _on_a_copy(stage, archive, _collected)}
    compete(stage.results, "gc", contestants, stage.rounds, work=size, per="MB")
