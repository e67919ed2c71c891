"""Probes of importing: time against a plain copy, and bytes stored against bytes in."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmark import drives, machine
from benchmark.measure import Figure, Run, compete, say, timed
from benchmark.reading import run
from benchmark.stage import Stage
from dicomfs.archive.archive import Archive

_CHECKOUT = Path(__file__).resolve().parents[2]

PYDICOM = """
import os, sys
import pydicom
source, target = sys.argv[1:]
for directory, _, names in os.walk(source):
    for name in names:
        dataset = pydicom.dcmread(os.path.join(directory, name))
        place = os.path.join(target, dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID)
        os.makedirs(place, exist_ok=True)
        dataset.save_as(os.path.join(place, f"{dataset.SOPInstanceUID}.dcm"))
"""
"""What people do without an archive: read each file, write it where it belongs. Bytes may change by it."""


def output(stage: Stage, source: Path, work: Callable[[Path], object], before: Callable[[Path], None]) -> Run:
    """Return a run that fills a fresh directory from files in memory, and takes it away afterwards."""

    def one() -> float:
        target = stage.fresh("import")
        before(target)
        os.sync()
        machine.warm([source])
        took = timed(lambda: work(target))
        stage.clear("import")
        return took

    return one


def _nothing(_target: Path) -> None:
    pass


def _copied(source: Path) -> Callable[[Path], None]:
    def work(target: Path) -> None:
        run("cp", "-r", source, target)
        run("sync", "-f", target)

    return work


def _with_pydicom(source: Path) -> Callable[[Path], None]:
    def work(target: Path) -> None:
        run(sys.executable, "-c", PYDICOM, source, target)
        run("sync", "-f", target)

    return work


def _imported(source: Path) -> Callable[[Path], None]:
    return lambda target: drives.dicomfs("import", "-a", target, source)


def _new_archive(codec: str) -> Callable[[Path], None]:
    return lambda target: drives.dicomfs("init", "--codec", codec, target)


def _probe_import(stage: Stage, probe: str, source: Path, files: int) -> None:
    contestants = {
        "ext4": output(stage, source, _copied(source), _nothing),
        "dicomfs": output(stage, source, _imported(source), _new_archive("none")),
        "dicomfs-fast": output(stage, source, _imported(source), _new_archive("fast")),
    }
    compete(stage.results, probe, contestants, stage.rounds, work=files, per="files")
    slow = {"pydicom": output(stage, source, _with_pydicom(source), _nothing)}
    compete(stage.results, probe, slow, 1, work=files, per="files", warm_up=False)


def probe_import_ct(stage: Stage) -> None:
    """Import the CT studies; a copy with cp -r and sync is the bar."""
    _probe_import(stage, "import-ct", stage.ct, stage.sizes.ct_studies * stage.sizes.ct_slices)


def probe_import_mr(stage: Stage) -> None:
    """Import many small MR files."""
    _probe_import(stage, "import-mr", stage.mr, stage.sizes.mr_files)


def corpus() -> Path | None:
    """Return the directory of real files, where there is one."""
    place = Path(os.environ.get("DICOMFS_CORPUS") or _CHECKOUT.parent / "shared" / "corpus")
    return place if (place / "MANIFEST.tsv").is_file() else None


def probe_stored(stage: Stage) -> None:
    """Tell what packs take, as a part of what was imported."""
    sources = {"CT": stage.ct, "MR": stage.mr}
    real = corpus()
    if real is None:
        stage.results.note("no corpus of real files: bytes stored were measured for made ones alone (DICOMFS_CORPUS)")
    else:
        sources["corpus"] = real
    for name, source in sources.items():
        target = stage.fresh("import")
        drives.dicomfs("init", target)
        # Status 1 says that some files were refused, as some of any real collection are.
        subprocess.run([*drives.DICOMFS, "import", "-a", target, source], check=False, capture_output=True)
        with Archive.open(target) as archive, archive.view() as view:
            came = view.totals().bytes_in
        packs = sum(path.stat().st_size for path in machine.files_below(target / "packs"))
        refused = sum(path.stat().st_size for path in machine.files_below(target / "quarantine"))
        index = os.stat(target / "index" / "data.mdb").st_blocks * 512
        stage.results.add(Figure("stored", name, [packs / came], unit="of input"))
        stage.results.add(Figure("stored", f"{name}, with index", [(packs + index) / came], unit="of input"))
        stage.results.note(
            f"stored {name}: {came / 1e6:.1f} MB in, packs {packs / 1e6:.1f} MB, index {index / 1e6:.1f} MB, "
            f"refused {refused / 1e6:.1f} MB"
        )
        stage.clear("import")
    say("")
