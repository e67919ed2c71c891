"""The machine that a benchmark runs on: what it is, and how it is brought into a known state."""

import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_PIECE = 4 << 20
_TICK_S = 0.05
_QUIET_TICKS = 2
_PATIENCE_S = 30.0
_CPUCLOCK_SCHED = 2
"""Of the kernel's linux/posix-timers.h."""

DROPS_CACHES = os.access("/proc/sys/vm/drop_caches", os.W_OK)
"""Only root may; others get a fresh mount for every run instead."""


def describe(work: Path) -> dict[str, object]:
    """Return what a reader needs to know of the machine."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory_mib": int(_field("/proc/meminfo", "MemTotal").split()[0]) >> 10,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": _filesystem(work),
        "load": [round(load, 1) for load in os.getloadavg()],
        "drops_caches": DROPS_CACHES,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0"


def _filesystem(place: Path) -> str:
    device = os.stat(place).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return "unknown"


def drop_caches() -> None:
    """Make the kernel forget pages, names and inodes, of every filesystem."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def files_below(*paths: Path) -> Iterator[Path]:
    """Walk files in the order of their names."""
    for path in paths:
        if path.is_file():
            yield path
            continue
        for directory, names, files in os.walk(path):
            names.sort()
            for name in sorted(files):
                yield Path(directory, name)


def warm(paths: Iterable[Path]) -> int:
    """Bring files into the page cache; return their bytes.

    What is compared is filesystems: each starts with its files in memory, or all would measure the disk.
    """
    buffer = bytearray(_PIECE)
    total = 0
    for path in files_below(*paths):
        fd = os.open(path, os.O_RDONLY)
        try:
            while got := os.readv(fd, [buffer]):
                total += got
        finally:
            os.close(fd)
    return total


PROGRAMS = ("cp", "dd", "find", "ls", "rsync", "sync")
"""What the probes run; dropping caches drops these and their libraries, too."""


def warm_programs() -> None:
    """Have the programs that the probes run in memory."""
    for program in PROGRAMS:
        subprocess.run([program, "--version"], check=True, stdout=subprocess.DEVNULL)


def forget_pages(paths: Iterable[Path]) -> None:
    """Drop files from the page cache, for a probe of the cold disk."""
    for path in files_below(*paths):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def _busy_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def settle(pids: Iterable[int]) -> None:
    """Wait until these processes have nothing to do: after a drop of caches a drive gets a flood of FORGET."""
    known = list(pids)
    deadline = time.monotonic() + _PATIENCE_S
    before, quiet = [_busy_ticks(pid) for pid in known], 0
    while quiet < _QUIET_TICKS and time.monotonic() < deadline:
        time.sleep(_TICK_S)
        now = [_busy_ticks(pid) for pid in known]
        quiet = quiet + 1 if now == before else 0
        before = now


def cpu_s(pid: int) -> float:
    """Return for how long a process has worked, all its threads, those that ended too (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def memory_mib(pid: int) -> dict[str, float]:
    """Return what a process has in memory: its own pages, and pages of files (which the kernel may drop)."""
    text = Path(f"/proc/{pid}/status").read_text()
    lines = (line.split() for line in text.splitlines() if line.startswith(("Rss", "VmRSS", "VmHWM")))
    return {fields[0].rstrip(":"): int(fields[1]) / 1024 for fields in lines}
