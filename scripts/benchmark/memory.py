"""Memory of a virtual machine, touched before anything is measured: what the host has not backed yet is slow at first.

The first write to a page that the host has not given yet may cost seconds a GiB, and falls upon whichever contestant
comes first. Freed pages stay with the machine, unless its balloon driver reports them to the host.
"""

import subprocess
import sys
from pathlib import Path

from benchmark.measure import say, timed

_LEFT_MIB = 1024
"""What is left alone, for whatever else the machine does meanwhile."""
_LEAST_MIB = 256
_PATIENCE_S = 600.0
_REPORTING_ORDER = Path("/sys/module/page_reporting/parameters/page_reporting_order")
_KEEPING_ORDER = 10
"""Free blocks of this order and above go back to the host; below 10 that is most of what a benchmark frees."""

_TOUCH = """
import mmap, sys
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("1000")
POPULATE_WRITE = 23
held = mmap.mmap(-1, int(sys.argv[1]))
held.madvise(mmap.MADV_HUGEPAGE)
try:
    held.madvise(POPULATE_WRITE)
except OSError:
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
"""
"""Writes to every page, and is the first to be ended if that was too much. MADV_POPULATE_WRITE came with Linux 5.14."""


def _available_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 0


def warm() -> str:
    """Touch most of the free memory in a process of its own; return what was done."""
    mib = _available_mib() - _LEFT_MIB
    if mib < _LEAST_MIB:
        return "memory was not touched: little is free"
    say(f"touching {mib:,} MiB of memory (not with --no-warm-memory) …")
    command = [sys.executable, "-c", _TOUCH, str(mib << 20)]
    try:
        took = timed(lambda: subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE_S))
    except subprocess.SubprocessError as error:
        return f"memory was not touched: {error}"
    return f"{mib:,} MiB of memory touched beforehand, in {took:.0f} s"


def hint() -> str:
    """Say when the machine gives its free memory back to the host; '' when not."""
    try:
        order = int(_REPORTING_ORDER.read_text())
    except (OSError, ValueError):
        return ""
    if order >= _KEEPING_ORDER:
        return ""
    return (
        f"this machine gives free memory back to its host, which makes memory slow again ({_REPORTING_ORDER} "
        f"is {order}; {_KEEPING_ORDER} keeps more of it)"
    )
