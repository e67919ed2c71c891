"""Where the time goes: a profile of an import, of cold reads, or of listings.

With py-spy it is a flame graph (SVG) and a tree in text of all processes involved, C code included where it can be
told; without, a table of cProfile, of the one process that matters.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmark import drives, flames, machine
from benchmark.listing import find, ls
from benchmark.measure import say
from benchmark.reading import glance, mounted, run, sequential
from benchmark.stage import Stage, names

_CPROFILE = """
import cProfile, pstats, sys
out = sys.argv[1]
sys.argv = ["dicomfs", *sys.argv[2:]]
from dicomfs.cli import main
profile = cProfile.Profile()
try:
    profile.runcall(main)
except SystemExit:
    pass
finally:
    with open(out, "w") as file:
        pstats.Stats(profile, stream=file).sort_stats("tottime").print_stats(60)
"""
_RATE = "250"
"""Samples a second: looking at C code stops the process for a moment each time."""


def _spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _run(out: Path, command: list[str]) -> None:
    with open(out.with_suffix(".log"), "w", encoding="utf-8") as log:
        subprocess.run(command, stdout=log, stderr=log, check=False)


def _import(out: Path, words: list[object]) -> Path:
    """Profile a dicomfs command from its start to its end, workers included."""
    spy, texts = _spy(), [str(word) for word in words]
    if spy is None:
        _run(out, [sys.executable, "-c", _CPROFILE, str(out.with_suffix(".txt")), *texts])
        return out.with_suffix(".txt")
    _run(out, [*_record(spy, out), "--native", "--subprocesses", "--", *drives.DICOMFS, *texts])
    return _shown(out)


def _record(spy: str, out: Path) -> list[str]:
    return [spy, "record", "--rate", _RATE, "--format", "raw", "--output", str(out.with_suffix(".folded"))]


def _shown(out: Path) -> Path:
    """Make what can be looked at of what was recorded."""
    with open(out.with_suffix(".folded"), encoding="utf-8") as recorded:
        calls = flames.fold(recorded)
    out.with_suffix(".svg").write_text(flames.svg(calls, out.name), encoding="utf-8")
    out.with_suffix(".txt").write_text(flames.text(calls), encoding="utf-8")
    return out.with_suffix(".txt")


def _drive(stage: Stage, out: Path, archive: Path, work: Callable[[Path], None]) -> Path:
    """Profile the process of a drive while `work` uses it; py-spy sees nothing of its start.

    It looks at the thread that holds the GIL alone, since it takes threads that wait for epoll or for work for busy.
    """
    spy = _spy()
    drive = stage.dicomfs(archive, "profiled")
    if spy is None:
        drive.run_as([sys.executable, "-c", _CPROFILE, str(out.with_suffix(".txt"))])
    with mounted(drive), open(out.with_suffix(".log"), "w", encoding="utf-8") as log:
        recorder = None
        if spy is not None:
            command = [*_record(spy, out), "--native", "--gil", "--pid", str(drive.pid)]
            recorder = subprocess.Popen(command, stdout=log, stderr=log)
            machine.settle([drive.pid])
        try:
            work(drive.path)
        finally:
            if recorder is not None:
                recorder.send_signal(signal.SIGINT)
                recorder.wait()
    return out.with_suffix(".txt") if spy is None else _shown(out)


def _forget() -> None:
    if machine.DROPS_CACHES:
        machine.drop_caches()


def profile_import(stage: Stage, out: Path) -> Path:
    """Import the CT studies and the MR files."""
    sources = [stage.ct, stage.mr]
    target = stage.fresh("import")
    drives.dicomfs("init", target)
    machine.warm(sources)
    kept = _import(out, ["import", "-a", target, *sources])
    stage.clear("import")
    return kept


def profile_read(stage: Stage, out: Path) -> Path:
    """Read the multi-frame object and the CT study, and glance at its files, each with nothing in the kernel."""
    archive = stage.archive("none")

    def work(mountpoint: Path) -> None:
        files = names(mountpoint)
        giant = next(name for name in files if "GIANT" in name)
        study = [name for name in files if "CT00001" in name]
        for _ in range(3):
            _cold(mountpoint, archive)
            sequential(mountpoint / giant)
            _cold(mountpoint, archive)
            run("cp", "-r", (mountpoint / study[0]).parent, stage.fresh("copy"))
            _cold(mountpoint, archive)
            glance(mountpoint, study)
        stage.clear("copy")

    return _drive(stage, out, archive, work)


def _cold(mountpoint: Path, archive: Path) -> None:
    _forget()
    machine.warm([archive])
    os.stat(mountpoint)


def profile_list(stage: Stage, out: Path) -> Path:
    """Walk the catalog with find and ls -lR."""
    archive = stage.catalog(stage.sizes.listed)

    def work(mountpoint: Path) -> None:
        for walk in (find, ls, find, ls):
            _cold(mountpoint, archive)
            walk(mountpoint / "patients")

    return _drive(stage, out, archive, work)


FAMILIES = {"import": profile_import, "read": profile_read, "list": profile_list}


def profile(stage: Stage, family: str) -> None:
    """Leave a profile in the work directory, and say where; print it."""
    directory = stage.work / "profiles"
    directory.mkdir(exist_ok=True)
    kept = FAMILIES[family](stage, directory / family)
    print(kept.read_text(encoding="utf-8"), end="")
    say(f"profile: {', '.join(str(path) for path in sorted(directory.glob(f'{family}.*')))}")
