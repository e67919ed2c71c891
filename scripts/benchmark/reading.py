"""Probes of reading: one large file, many readers, copies, a glance at many files."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmark import drives, machine
from benchmark.drives import Drive, Plain
from benchmark.measure import Failed, Run, compete, timed
from benchmark.stage import Stage, names

READERS = 8
_MIB = 1 << 20
_GLANCE = 4096


def run(*words: object) -> None:
    """Run a program whose output nobody wants."""
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sequential(path: Path) -> float:
    """Read a file from front to back."""
    return timed(lambda: run("dd", f"if={path}", "of=/dev/null", "bs=1M"))


def parallel(path: Path) -> float:
    """Read the parts of a file at the same time, each by a process of its own."""
    part = -(-os.stat(path).st_size // READERS // _MIB)
    commands = [
        ["dd", f"if={path}", "of=/dev/null", "bs=1M", f"count={part}", f"skip={number * part}"]
        for number in range(READERS)
    ]

    def work() -> None:
        readers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
        statuses = [reader.wait() for reader in readers]
        if any(statuses):
            raise Failed(f"{path}: cannot be read")

    return timed(work)


def glance(root: Path, files: list[str]) -> float:
    """Open each file and read its first 4 KiB."""
    paths = [os.path.join(root, name) for name in files]

    def work() -> None:
        for path in paths:
            fd = os.open(path, os.O_RDONLY)
            os.pread(fd, _GLANCE, 0)
            os.close(fd)

    return timed(work)


def read_all(paths: list[Path]) -> float:
    """Read files from front to back, one after the other."""
    buffer = bytearray(_MIB)

    def work() -> None:
        for path in paths:
            fd = os.open(path, os.O_RDONLY)
            while os.readv(fd, [buffer]):
                pass
            os.close(fd)

    return timed(work)


def _below(root: Path, wanted: Callable[[Path], bool]) -> Path:
    return next(path for path in machine.files_below(root / "patients") if wanted(path))


@contextmanager
def mounted(*chosen: Drive) -> Iterator[None]:
    """Mount drives, and unmount them whatever happens."""
    done: list[Drive] = []
    try:
        for drive in chosen:
            drive.mount()
            done.append(drive)
        yield
    finally:
        for drive in done:
            drive.unmount()


class _Scans:
    """The drives over one CT study and the multi-frame object."""

    def __init__(self, stage: Stage, *, threaded: bool = False) -> None:
        plain, fast = stage.archive("none"), stage.archive("fast")
        self.cfs = stage.cfs(plain)
        self.dicomfs = stage.dicomfs(plain)
        self.fast = stage.dicomfs(fast, "dicomfs-fast")
        self.drives = [self.cfs, self.dicomfs, self.fast]
        if threaded:
            self.threaded = stage.cfs(plain, "cfs-4-threads", threads=4)
            self.drives.append(self.threaded)

    def giant(self, drive: Drive) -> Path:
        """Return the multi-frame object on a drive."""
        return _below(drive.path, lambda path: "GIANT" in str(path))

    def study(self, drive: Drive) -> Path:
        """Return the directory of the CT study on a drive."""
        return _below(drive.path, lambda path: "CT00001" in str(path)).parent.parent


def probe_sequential(stage: Stage) -> None:
    """Read the multi-frame object, with our read-ahead and with the kernel's own."""
    scans = _Scans(stage)
    source = stage.giant
    size = source.stat().st_size / 1e6
    with mounted(*scans.drives):
        places = {drive: scans.giant(drive) for drive in scans.drives}

        def reading(drive: Drive, kib: int) -> Run:
            def work() -> float:
                drive.set_read_ahead(kib)
                return sequential(places[drive])

            return drive.cold(work)

        contestants = {"ext4": Plain(source).cold(lambda: sequential(source))}
        contestants |= {drive.name: reading(drive, drives.READ_AHEAD_KIB) for drive in scans.drives}
        if machine.DROPS_CACHES:
            contestants |= {
                f"{drive.name}, 128 KiB": reading(drive, drives.KERNEL_READ_AHEAD_KIB)
                for drive in (scans.cfs, scans.dicomfs)
            }
        compete(stage.results, "sequential", contestants, stage.rounds, work=size, per="MB")


def probe_parallel(stage: Stage) -> None:
    """Read the multi-frame object by eight readers at once."""
    scans = _Scans(stage, threaded=True)
    source = stage.giant
    with mounted(*scans.drives):
        places = {drive: scans.giant(drive) for drive in scans.drives}
        contestants = {"ext4": Plain(source).cold(lambda: parallel(source))}
        contestants |= {drive.name: drive.cold(partial(parallel, places[drive])) for drive in scans.drives}
        compete(stage.results, "parallel", contestants, stage.rounds, work=source.stat().st_size / 1e6, per="MB")


def _probe_copy(stage: Stage, probe: str, copy: Callable[[Path, Path], None]) -> None:
    scans = _Scans(stage)
    source = stage.ct_study
    size = sum(path.stat().st_size for path in machine.files_below(source)) / 1e6
    with mounted(*scans.drives):
        places = {drive: scans.study(drive) for drive in scans.drives}

        def copying(place: Path) -> float:
            took = timed(lambda: copy(place, target))
            stage.clear("copy")
            return took

        target = stage.fresh("copy")
        contestants = {"ext4": Plain(source).cold(lambda: copying(source))}
        contestants |= {drive.name: drive.cold(partial(copying, places[drive])) for drive in scans.drives}
        compete(stage.results, probe, contestants, stage.rounds, work=size, per="MB")


def probe_cp(stage: Stage) -> None:
    """Copy the CT study with cp -r."""
    _probe_copy(stage, "cp", lambda place, target: run("cp", "-r", place, target))


def probe_rsync(stage: Stage) -> None:
    """Copy the CT study with rsync -a."""
    _probe_copy(stage, "rsync", lambda place, target: run("rsync", "-a", f"{place}/", target))


def probe_open(stage: Stage) -> None:
    """Open files of the CT study and read 4 KiB of each."""
    scans = _Scans(stage)
    source = stage.ct_study
    with mounted(*scans.drives):
        places = {drive: scans.study(drive) for drive in scans.drives}
        files = {drive: names(place)[: stage.sizes.opened] for drive, place in places.items()}
        plain = names(source)[: stage.sizes.opened]
        contestants = {"ext4": Plain(source).cold(lambda: glance(source, plain))}
        contestants |= {drive.name: drive.cold(partial(glance, places[drive], files[drive])) for drive in scans.drives}
        compete(stage.results, "open", contestants, stage.rounds, work=len(plain), per="files")
