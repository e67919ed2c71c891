"""Probes of what leaves an archive: exports to a directory and to a ZIP file, and de-identified reads."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmark import drives, machine
from benchmark.drives import Drive
from benchmark.measure import Failed, Run, compete, timed
from benchmark.reading import mounted, read_all, run
from benchmark.stage import Stage

_PATIENT = "CT00001"
"""Whose study the archives of scans have, beside the multi-frame object."""


def _output(stage: Stage, source: Path, work: Callable[[Path], object]) -> Run:
    """Return a run that makes a file or directory of files in memory, and takes it away afterwards."""

    def one() -> float:
        directory = stage.fresh("export")
        directory.mkdir()
        os.sync()
        machine.warm([source])
        took = timed(lambda: work(directory / "out"))
        stage.clear("export")
        return took

    return one


def _zipped(source: Path) -> Callable[[Path], None]:
    def work(target: Path) -> None:
        run("zip", "-0", "-q", "-r", target.with_suffix(".zip"), source)
        run("sync", "-f", target.parent)

    return work


def _copied(source: Path) -> Callable[[Path], None]:
    def work(target: Path) -> None:
        run("cp", "-r", source, target)
        run("sync", "-f", target)

    return work


def _exported(archive: Path, option: str) -> Callable[[Path], None]:
    return lambda target: drives.dicomfs("export", "-a", archive, "--patient-id", _PATIENT, option, target)


def probe_export(stage: Stage) -> None:
    """Export the CT study to a directory and to a ZIP file; cp and zip -0 of the same files are the bar."""
    source = stage.ct_study
    contestants = {"ext4, cp": _output(stage, source, _copied(source))}
    if shutil.which("zip"):
        contestants["ext4, zip -0"] = _output(stage, source, _zipped(source))
    else:
        stage.results.note("no zip program: an export to a ZIP file has nothing to be compared with")
    for codec, name in (("none", "dicomfs"), ("fast", "dicomfs-fast")):
        archive = stage.archive(codec)
        contestants[f"{name}, directory"] = _output(stage, archive, _exported(archive, "--output"))
        contestants[f"{name}, ZIP"] = _output(stage, archive, _exported(archive, "--zip"))
    size = sum(path.stat().st_size for path in machine.files_below(source)) / 1e6
    compete(stage.results, "export", contestants, stage.rounds, work=size, per="MB")


def probe_deid(stage: Stage) -> None:
    """Read a de-identified project of the CT study; the study itself is the bar."""
    archive = stage.project
    if archive is None:
        stage.results.note("dicomfs makes no projects: reading de-identified files was not measured")
        return
    drive = stage.dicomfs(archive, view="patients:projects")
    with mounted(drive):
        places = {"identified": _files(drive, "patients"), "de-identified": _files(drive, "projects")}
        counts = {name: len(paths) for name, paths in places.items()}
        if len(set(counts.values())) != 1:
            raise Failed(f"the project has other files than the archive: {counts}")
        size = sum(path.stat().st_size for path in places["identified"]) / 1e6
        contestants = {name: drive.cold(partial(read_all, paths)) for name, paths in places.items()}
        compete(stage.results, "deid", contestants, stage.rounds, work=size, per="MB")


def _files(drive: Drive, view: str) -> list[Path]:
    return [path for path in machine.files_below(drive.path / view) if path.suffix == ".dcm"]
