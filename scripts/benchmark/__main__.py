"""The benchmark's command line: which probes, how large, where, and what to leave behind."""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmark import (
    collecting,
    editing,
    exporting,
    importing,
    layouts,
    listing,
    machine,
    memory,
    orthanc,
    peer,
    profiles,
    reading,
    report,
    scale,
    web,
)
from benchmark.measure import Failed, Results, say
from benchmark.stage import FULL, QUICK, TINY, Stage

PROBES: dict[str, Callable[[Stage], None]] = {
    "sequential": reading.probe_sequential,
    "parallel": reading.probe_parallel,
    "cp": reading.probe_cp,
    "rsync": reading.probe_rsync,
    "open": reading.probe_open,
    "find": listing.probe_find,
    "ls": listing.probe_ls,
    "wide": listing.probe_wide,
    "series": listing.probe_series,
    "import-ct": importing.probe_import_ct,
    "import-mr": importing.probe_import_mr,
    "stored": importing.probe_stored,
    "start": scale.probe_start,
    "query": scale.probe_query,
    "growth": listing.probe_growth,
    "layout": layouts.probe_layout,
    "layout-list": layouts.probe_layout_list,
    "export": exporting.probe_export,
    "edit": editing.probe_edit,
    "deid": exporting.probe_deid,
    "gc": collecting.probe_gc,
    "web": web.probe_web,
    "documents": web.probe_documents,
    "static-dicomweb": web.probe_reference,
    "thumbnail": web.probe_pictures,
    "orthanc": orthanc.probe_orthanc,
    "script": peer.probe_script,
}
"""In the order in which they run."""
_ASKED_FOR = {"script"}
"""These run only when they are named."""

_WORK = Path("/var/tmp/dicomfs-bench")


def _arguments() -> argparse.Namespace:
    probes = "\n".join(f"  {name:12} {(probe.__doc__ or '').splitlines()[0]}" for name, probe in PROBES.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure dicomfs against the disk's own filesystem and the least that libfuse can do.",
        epilog=f"probes:\n{probes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("probes", nargs="*", metavar="PROBE", help="run these only")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="small data: a few minutes, figures that mean less")
    parser.add_argument(
        "--tiny", action="store_true", help="a handful of files, caches left alone: does everything work?"
    )
    parser.add_argument(
        "--no-warm-memory", action="store_true", help="do not touch free memory first (a minute on a virtual machine)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--work", type=Path, default=_WORK, help=f"where data and archives lie (default: {_WORK})")
    parser.add_argument("--clean", action="store_true", help="remove the work directory's data in the end")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw a plot of each family there")
    parser.add_argument("--from", type=Path, dest="earlier", metavar="FILE", help="show these results, measure nothing")
    parser.add_argument("--profile", choices=profiles.FAMILIES, help="leave a profile instead of figures")
    chosen = parser.parse_args()
    unknown = set(chosen.probes) - set(PROBES)
    if unknown:
        parser.error(f"unknown probe: {', '.join(sorted(unknown))}; known are {', '.join(PROBES)}")
    return chosen


def _measure(chosen: argparse.Namespace, stage: Stage) -> None:
    results = stage.results
    directory = stage.work / "results"
    directory.mkdir(exist_ok=True)
    kept = directory / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    if chosen.quick or chosen.tiny:
        results.note(
            "small data: what is done once for each program weighs more than it should; targets are for full size"
        )
    if not (chosen.no_warm_memory or chosen.tiny):
        results.machine["memory"] = memory.warm()
        if hint := memory.hint():
            results.note(hint)
    if not machine.DROPS_CACHES:
        results.note("drives were mounted anew for each run instead of dropping caches; one read-ahead only")
    for name, probe in PROBES.items():
        if name in chosen.probes or (not chosen.probes and name not in _ASKED_FOR):
            try:
                probe(stage)
            except (Failed, OSError, subprocess.CalledProcessError) as error:
                results.note(f"{name} failed: {error}")
            results.sizes = stage.describe()
            kept.write_text(report.document(results), encoding="utf-8")
    say(f"kept as {kept}")


def main() -> None:
    """Run what the command line asks for."""
    chosen = _arguments()
    # A benchmark that is told to end unmounts its drives first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = chosen.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if chosen.tiny:
        machine.DROPS_CACHES = False
    sizes = TINY if chosen.tiny else QUICK if chosen.quick else FULL
    if chosen.earlier:
        results = Results.decode(chosen.earlier.read_text(encoding="utf-8"))
    elif chosen.profile:
        profiles.profile(Stage(work, sizes, Results({}, {}, chosen.rounds)), chosen.profile)
        return
    else:
        results = Results(machine.describe(work), {}, chosen.rounds)
        _measure(chosen, Stage(work, sizes, results))
        if chosen.clean:
            for name in ("source", "archives", "output", "drives"):
                shutil.rmtree(work / name, ignore_errors=True)
    if chosen.plots:
        from benchmark import plots

        plots.draw(results, chosen.plots)
    print(report.document(results) if chosen.json else report.table(results))


if __name__ == "__main__":
    main()
