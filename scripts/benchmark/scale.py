"""Probes of a large catalog: how soon a drive answers, and how soon a query."""

import json
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmark import drives, machine
from benchmark.catalog import PER_PATIENT, PER_SERIES, PER_STUDY, patient_id
from benchmark.measure import Figure, Run, compete, timed
from benchmark.reading import run
from benchmark.stage import Stage
from dicomfs.archive.archive import Archive

_QUERIES = 50

_PYDICOM = """
import os, sys
import pydicom
source, wanted = sys.argv[1:]
found = set()
for directory, _, names in os.walk(source):
    for name in names:
        dataset = pydicom.dcmread(os.path.join(directory, name), stop_before_pixels=True)
        if dataset.PatientID == wanted:
            found.add(dataset.StudyInstanceUID)
assert found
"""


def _start(stage: Stage, archive: Path, *, cold: bool) -> Run:
    def one() -> float:
        mountpoint = stage.mountpoint("start")
        mountpoint.mkdir(parents=True, exist_ok=True)
        if cold:
            machine.forget_pages([archive])
        else:
            machine.warm([archive / "index"])

        def work() -> None:
            drives.dicomfs("mount", archive, mountpoint)
            run("ls", mountpoint / "patients")

        try:
            return timed(work)
        finally:
            if os.path.ismount(mountpoint):
                drives.dicomfs("umount", mountpoint)

    return one


def probe_start(stage: Stage) -> None:
    """Mount catalogs of growing size and list the patients."""
    contestants: dict[str, Run] = {}
    for instances in stage.sizes.growth:
        archive = stage.catalog(instances)
        contestants[f"{instances}"] = _start(stage, archive, cold=False)
        contestants[f"{instances}, cold disk"] = _start(stage, archive, cold=True)
    compete(stage.results, "start", contestants, stage.rounds)


def _studies_of(archive: Archive, wanted: str) -> None:
    with archive.view() as view:
        studies = [view.study(key) for key in view.studies_where("PatientID", wanted)]
    assert studies


def probe_query(stage: Stage) -> None:
    """Ask for the studies of one patient, by PatientID."""
    largest = stage.sizes.growth[-1]
    for instances in stage.sizes.growth:
        archive = stage.catalog(instances)
        patients = -(-instances // (PER_SERIES * PER_STUDY * PER_PATIENT))
        asked = [patient_id(number) for number in random.Random(2).choices(range(patients), k=_QUERIES)]
        with Archive.open(archive) as opened:
            _studies_of(opened, asked[0])
            took = [timed(partial(_studies_of, opened, wanted)) for wanted in asked]
        stage.results.add(Figure("query", f"{instances}", took))
    archive = stage.catalog(largest)
    wanted = patient_id(0)

    def command() -> float:
        words = [*drives.DICOMFS, "query", "-a", str(archive), "--patient-id", wanted, "--json"]
        return timed(lambda: json.loads(subprocess.run(words, capture_output=True, check=True).stdout))

    compete(stage.results, "query", {f"{largest}, command line": command}, stage.rounds)
    source = stage.ct
    files = stage.sizes.ct_studies * stage.sizes.ct_slices

    def pydicom() -> float:
        machine.warm([source])
        return timed(lambda: run(sys.executable, "-c", _PYDICOM, source, "CT00001"))

    compete(stage.results, "query", {f"{files}, pydicom": pydicom}, 1, warm_up=False)
