"""The benchmark works: every probe runs on a handful of files, and its drives show what the archives hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "scripts")))}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.mounted,
    pytest.mark.skipif(shutil.which("cc") is None, reason="the C filesystem needs a compiler"),
]

FIGURES = {
    "sequential": {"ext4", "cfs", "dicomfs", "dicomfs-fast"},
    "parallel": {"ext4", "cfs", "cfs-4-threads", "dicomfs", "dicomfs-fast"},
    "cp": {"ext4", "cfs", "dicomfs", "dicomfs-fast"},
    "rsync": {"ext4", "cfs", "dicomfs", "dicomfs-fast"},
    "open": {"ext4", "cfs", "dicomfs", "dicomfs-fast"},
    "find": {"ext4", "cfs", "dicomfs"},
    "ls": {"ext4", "cfs", "dicomfs"},
    "wide": {"cfs", "dicomfs"},
    "series": {"5 instances", "20 instances"},
    "import-ct": {"ext4", "dicomfs", "dicomfs-fast", "pydicom"},
    "import-mr": {"ext4", "dicomfs", "dicomfs-fast", "pydicom"},
    "stored": {"CT", "MR"},
    "start": {"100", "200"},
    "query": {"100", "200", "200, command line", "6, pydicom"},
    "edit": {"cp", "dicomfs"},
    "layout": {"ext4", "icore", "archive"},
    "layout-stored": {"icore, index", "icore, packs", "archive, index", "archive, packs"},
    "layout-find": {"ext4, icore", "dicomfs, icore", "ext4, archive", "dicomfs, archive"},
    "layout-ls": {"ext4, icore", "dicomfs, icore", "ext4, archive", "dicomfs, archive"},
    "export": {"ext4, cp", "dicomfs, ZIP", "dicomfs-fast, directory", "dicomfs-fast, ZIP"},
    "gc": {"ext4, cp", "dicomfs"},
    "growth": {"cfs, 100", "cfs, 200", "dicomfs, 100", "dicomfs, 200"},
}

BESIDE_ORTHANC = {
    "orthanc-find": {"ext4", "dicomfs-fast", "davfs2", "davfs2, warm"},
    "orthanc-rand-200x4k-big": {"ext4", "dicomfs-fast", "davfs2"},
    "orthanc-import": {"orthanc", "orthanc, 4 connections", "dicomfs-fast"},
    "orthanc-stored": {"orthanc", "dicomfs-fast"},
}


def bench(work: Path, *words: str) -> str:
    command = [sys.executable, "-m", "benchmark", "--tiny", "--rounds", "1", "--work", str(work), *words]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=280).stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a work directory that the tests share; no drive may be left below it."""
    path = tmp_path_factory.mktemp("bench")
    yield path
    assert str(path) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture(scope="module")
def results(work: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of a run of all probes, by probe."""
    held = json.loads(bench(work, "--json"))
    assert held["machine"]["cores"] >= 1
    found: dict[str, list[dict[str, Any]]] = {}
    for figure in held["figures"]:
        found.setdefault(figure["probe"], []).append(figure)
    return found


@pytest.mark.parametrize("probe", FIGURES)
def test_probe(results: dict[str, list[dict[str, Any]]], probe: str) -> None:
    assert FIGURES[probe] <= {figure["contestant"] for figure in results[probe]}
    assert all(value > 0 for figure in results[probe] for value in figure["values"])


@pytest.mark.skipif(
    shutil.which("Orthanc") is None or shutil.which("mount.davfs") is None, reason="no Orthanc, no davfs2"
)
def test_beside_orthanc(results: dict[str, list[dict[str, Any]]]) -> None:
    for probe, contestants in BESIDE_ORTHANC.items():
        assert contestants <= {figure["contestant"] for figure in results[probe]}
    assert {figure["contestant"]: figure["values"] for figure in results["orthanc-different"]} == {
        "dicomfs-fast": [0],
        "davfs2": [0],
    }


def test_one_probe_alone(work: Path) -> None:
    shown = bench(work, "open")
    kept = max((work / "results").iterdir())

    assert "time at most 2.5 of cfs" in shown
    assert "| find" not in shown
    assert bench(work, "--from", str(kept)) == shown
    told = json.loads(bench(work, "--from", str(kept), "--json"))["targets"]
    assert [(demand["probe"], demand["bound"], demand["verdict"] in {"met", "MISSED"}) for demand in told] == [
        ("open", 2.5, True)
    ]


def test_the_c_filesystem_shows_the_same(work: Path) -> None:
    script = """
import subprocess, sys
from pathlib import Path
from benchmark import stage
from benchmark.measure import Results
from benchmark.reading import mounted
here = stage.Stage(Path(sys.argv[1]), stage.TINY, Results({}, {}, 1))
archive = here.archive("none")
drives = [here.cfs(archive), here.dicomfs(archive)]
tell = ["find", ".", "-printf", "%P %y %s %T@ %n %i\\n"]
with mounted(*drives):
    subprocess.run(["diff", "-r", *(drive.path for drive in drives)], check=True)
    told = [subprocess.run(tell, cwd=drive.path, capture_output=True, check=True).stdout for drive in drives]
assert sorted(told[0].splitlines()) == sorted(told[1].splitlines()) and b"patients/CT00001" in told[0]
"""
    subprocess.run([sys.executable, "-c", script, str(work)], env=ENVIRONMENT, check=True, timeout=120)


def test_the_catalog_is_an_archive_like_any_other(work: Path) -> None:
    script = """
import sys
from pathlib import Path
from benchmark import catalog
from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.dicom.describe import describe
path = Path(sys.argv[1], "checked")
catalog.build(path, catalog.clinic(130))
assert check(path, verify_files=True).problems == []
with Archive.open(path) as archive, archive.view() as view:
    assert view.totals().instances == 130 and view.totals().series == 3
    for study in view.studies():
        for series in view.series_of(study.key):
            for instance in view.instances_of(series.key):
                file = archive.open_instance(instance.ino)
                told = describe(bytes(file.read(0, file.size))).attributes
                assert (told.study, told.series, told.instance) == (
                    study.attributes, series.attributes, instance.attributes)
"""
    subprocess.run([sys.executable, "-c", script, str(work)], env=ENVIRONMENT, check=True, timeout=120)
