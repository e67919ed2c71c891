"""Mounted drives that a benchmark reads from: dicomfs, and the minimal filesystem in C."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmark import flat, machine
from benchmark.measure import Failed, Took

READ_AHEAD_KIB = 1024
"""What dicomfs sets for itself."""
KERNEL_READ_AHEAD_KIB = 128
_SOURCE = Path(__file__).with_name("cfs.c")
_PATIENCE_S = 60.0
_TICK_S = 0.002

DICOMFS = (sys.executable, "-m", "dicomfs.cli")


def dicomfs(*words: object) -> None:
    """Run a dicomfs command; it must succeed."""
    done = subprocess.run([*DICOMFS, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"dicomfs {words[0]}: {done.stderr.strip()}")


def build_cfs(work: Path) -> Path:
    """Compile cfs unless it is there; return the program."""
    program = work / "cfs"
    if not program.exists() or program.stat().st_mtime < _SOURCE.stat().st_mtime:
        asked = ["pkg-config", "--cflags", "--libs", "fuse3"]
        flags = subprocess.run(asked, capture_output=True, text=True, check=True)
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-o", program, _SOURCE, *shlex.split(flags.stdout)], check=True)
    return program


class Drive:
    """A drive whose process stays a child of the benchmark."""

    def __init__(
        self, name: str, command: Sequence[object], mountpoint: Path, backing: Sequence[Path], read_ahead_kib: int
    ) -> None:
        """`backing` are the files and directories whose bytes it serves."""
        self.name = name
        self.path = mountpoint
        self.backing = backing
        self._command = [str(word) for word in command]
        self._read_ahead_kib = read_ahead_kib
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmount()

    @property
    def pid(self) -> int:
        """The process that answers."""
        assert self._process is not None
        return self._process.pid

    def run_as(self, program: Sequence[str]) -> None:
        """Have dicomfs run by another program than its own: a profiler."""
        self._command[: len(DICOMFS)] = program

    def mount(self) -> None:
        """Start the process; return when the drive answers."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _PATIENCE_S
        while not os.path.ismount(self.path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.unmount()
                raise Failed(f"{self.name}: the drive did not start: {self._last_words()}")
            time.sleep(_TICK_S)
        os.listdir(self.path)
        # dicomfs sets it, too, as soon as it answers: wait until that is over.
        machine.settle([self.pid])
        self.set_read_ahead(self._read_ahead_kib)

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "without a word"

    def set_read_ahead(self, kib: int) -> None:
        """Set how far the kernel reads ahead; without root it is the kernel's own for every contestant."""
        device = os.stat(self.path).st_dev
        setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        if os.access(setting, os.W_OK):
            setting.write_text(str(kib))

    def unmount(self) -> None:
        """End the process, however it is."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if os.path.ismount(self.path):
            subprocess.run(["umount", "-l", self.path], check=False, capture_output=True)

    def make_cold(self) -> None:
        """Make the kernel forget this drive's pages, names and attributes, and have its backing files in memory."""
        if machine.DROPS_CACHES:
            machine.drop_caches()
        else:
            self.unmount()
            self.mount()
        machine.warm(self.backing)
        machine.warm_programs()
        machine.settle([self.pid])

    def cold(self, work: Callable[[], float]) -> Callable[[], float]:
        """Return a run that starts with nothing of the drive in the kernel."""

        def run() -> float:
            self.make_cold()
            before = machine.cpu_s(self.pid)
            took = work()
            return Took.with_cpu(took, machine.cpu_s(self.pid) - before)

        return run


def mount_command(archive: Path, mountpoint: Path, *options: str, view: str = "patients") -> list[object]:
    """Return the command that mounts an archive in the foreground, showing the one tree that cfs shows, too."""
    return [*DICOMFS, "mount", "--foreground", "-o", ",".join((f"views={view}", *options)), archive, mountpoint]


def dicomfs_drive(
    archive: Path,
    mountpoint: Path,
    *,
    name: str = "dicomfs",
    read_ahead_kib: int = READ_AHEAD_KIB,
    view: str = "patients",
) -> Drive:
    """Return an archive's drive, which shows one view."""
    command = mount_command(archive, mountpoint, f"readahead={read_ahead_kib}", view=view)
    return Drive(name, command, mountpoint, [archive / "packs", archive / "index"], read_ahead_kib)


def cfs_drive(
    work: Path,
    archive: Path,
    mountpoint: Path,
    *,
    name: str = "cfs",
    read_ahead_kib: int = READ_AHEAD_KIB,
    threads: int = 0,
) -> Drive:
    """Return the minimal C filesystem over the same packs, with the same tree."""
    program = build_cfs(work)
    described = archive.with_suffix(".flat")
    headers = described.with_suffix(".headers")
    index = archive / "index" / "data.mdb"
    if not described.exists() or described.stat().st_mtime_ns <= index.stat().st_mtime_ns:
        flat.write(archive, described)
    command = [program, "-t", threads, described, mountpoint]
    return Drive(name, command, mountpoint, [archive / "packs", described, headers], read_ahead_kib)


class Plain:
    """A directory of the disk's own filesystem, as a contestant."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cold(self, work: Callable[[], float]) -> Callable[[], float]:
        """Return a run that starts with the files in the page cache and nothing else known of them."""

        def run() -> float:
            machine.warm([self.path])
            machine.warm_programs()
            return work()

        return run
