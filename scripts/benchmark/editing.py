"""Probes of edits: a name corrected in a long study, in time and in bytes."""

import os
from itertools import count
from pathlib import Path

from benchmark import drives, machine
from benchmark.importing import output
from benchmark.measure import Figure, compete, timed
from benchmark.reading import run
from benchmark.stage import Stage
from dicomfs.archive.archive import Archive


def _stored(archive: Path) -> tuple[int, int]:
    """Return how many bytes packs and index take."""
    packs = sum(path.stat().st_size for path in machine.files_below(archive / "packs"))
    return packs, os.stat(archive / "index" / "data.mdb").st_blocks * 512


def probe_edit(stage: Stage) -> None:
    """Correct the patient's name in a long CT study; the bar is a copy of the study with cp -r."""
    source = stage.ct_long
    files = stage.sizes.ct_studies * stage.sizes.ct_slices
    archive = stage.fresh("edit")
    drives.dicomfs("init", archive)
    drives.dicomfs("import", "-a", archive, source)
    with Archive.open(archive) as opened, opened.view() as view:
        came = view.totals().bytes_in
    names, before = count(1), _stored(archive)
    grown: list[tuple[float, float]] = []

    def edit() -> float:
        nonlocal before
        machine.warm([archive / "packs"])
        name = f"PatientName=CORRECTED^N{next(names)}"
        took = timed(lambda: drives.dicomfs("edit", "-a", archive, "--where", "Modality=CT", "--set", name))
        now = _stored(archive)
        grown.append(((now[0] - before[0]) / came, (now[1] - before[1]) / came))
        before = now
        return took

    def copy(target: Path) -> None:
        run("cp", "-r", source, target)
        run("sync", "-f", target)

    contestants = {"cp": output(stage, source, copy, lambda _: None), "dicomfs": edit}
    compete(stage.results, "edit", contestants, stage.rounds, work=files, per="files")
    stage.results.add(Figure("edit-grown", "packs", [packs for packs, _ in grown], unit="of the study"))
    stage.results.add(Figure("edit-grown", "index", [index for _, index in grown], unit="of the study"))
    stage.clear("edit")
