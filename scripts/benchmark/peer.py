"""Probe by another's script, which measures Orthanc's WebDAV drive: dicomfs is given to it as a further root.

The script is not part of this project: DICOMFS_PEER names it. It works in a network namespace of its own,
so Orthanc is seen by nobody. It needs root, Orthanc, davfs2 and rclone. Its contestants do not take turns;
the probe `orthanc` asks the same questions, and lets them.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmark import drives, machine
from benchmark.measure import Figure, compete, say, timed
from benchmark.stage import Stage

_CHECKOUT = Path(__file__).resolve().parents[2]
_PROGRAMS = ("Orthanc", "mount.davfs", "rclone", "unshare", "ip")
_ROUNDS = "3"
_PATIENCE_S = 10.0
_TICK_S = 0.2


def _script() -> Path:
    return Path(os.environ.get("DICOMFS_PEER") or _CHECKOUT.parent / "shared/reference/tools/peer_orthanc.sh")


def _hindrance() -> str:
    """Say why the probe cannot run; '' when it can."""
    if not _script().is_file():
        return f"there is no {_script()}; say where the script is with DICOMFS_PEER"
    if os.geteuid() != 0:
        return "it takes root"
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


REMOUNT = """
set -e
if [ -s "$PEER/drive.pid" ]; then
    kill "$(cat "$PEER/drive.pid")" || true
    while mountpoint -q "$PEER/drive"; do sleep 0.01; done
fi
if [ ! -e "$PEER/archive/dicomfs.toml" ]; then
    rm -rf "$PEER/archive"
    "$PY" -m dicomfs.cli init "$PEER/archive"
    "$PY" -m dicomfs.cli import -a "$PEER/archive" "$WORK/data"
fi
for file in "$PEER"/archive/packs/* "$PEER"/archive/index/*; do dd if="$file" iflag=nocache count=0 status=none; done
mkdir -p "$PEER/drive"
"$PY" -m dicomfs.cli mount --foreground -o views=patients "$PEER/archive" "$PEER/drive" </dev/null >"$PEER/log" 2>&1 &
echo $! >"$PEER/drive.pid"
until mountpoint -q "$PEER/drive"; do sleep 0.01; done
ls "$PEER/drive" >/dev/null
"""
"""Makes a drive cold as the script does it for Orthanc: a fresh mount, its files out of the page cache."""


def probe_script(stage: Stage) -> None:
    """Run a script that measures Orthanc's drive (DICOMFS_PEER; a quarter of an hour)."""
    hindrance = _hindrance()
    if hindrance:
        stage.results.note(f"the script did not measure Orthanc: {hindrance}")
        return
    peer = stage.work / "peer"
    peer.mkdir(exist_ok=True)
    shutil.rmtree(peer / "archive", ignore_errors=True)
    (peer / "drive.pid").unlink(missing_ok=True)
    run = peer / "run"
    environment = {**os.environ, "WORK": str(run), "PY": sys.executable, "PEER": str(peer), "REPS": _ROUNDS}
    environment["REMOUNT_dicomfs"] = REMOUNT
    (peer / "drive").mkdir(exist_ok=True)
    say(f"script: {_script()}")
    with open(peer / "output", "w", encoding="utf-8") as output:
        command = ["bash", str(_script()), f"dicomfs={peer / 'drive'}/patients"]
        script = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            status = script.wait()
        finally:
            _end(peer / "run", script)
    if status:
        stage.results.note(f"script: it ended with status {status}; see {peer / 'output'}")
    _take(stage, run / "results.jsonl")
    _import(stage, run / "data")


def _end(place: Path, script: "subprocess.Popen[bytes]") -> None:
    """End what the script has left or is doing: all that works below its directory, in a network that is not ours."""
    ours, marked = os.readlink("/proc/self/ns/net"), os.fsencode(f"WORK={place}")
    script.terminate()
    script.wait()
    deadline = time.monotonic() + _PATIENCE_S
    while left := list(_processes(ours, marked)):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(_TICK_S)


def _processes(our_network: str, marked: bytes) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                if os.readlink(f"{entry.path}/ns/net") == our_network:
                    continue
                if marked in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
            except OSError:
                continue


def _take(stage: Stage, path: Path) -> None:
    """Keep the script's figures: cold and warm seconds of each probe, identical files, imports."""
    found: dict[tuple[str, str], list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        held = json.loads(line)
        target, probe = held.get("target", ""), held.get("probe", "")
        if "cold_s" in held and probe != "by-patients find then ls-lR":
            found.setdefault((f"script-{probe}", target), []).append(held["cold_s"])
            found.setdefault((f"script-{probe}", f"{target}, warm"), []).append(held["warm_s"])
        elif probe == "exact":
            different = held["files"] - held["identical"] + held["errors"] + held["wrong_size"]
            stage.results.add(Figure("script-different", target, [different], unit="files"))
            stage.results.note(f"script, {target}: {held['identical']} of {held['files']} files identical")
        elif probe == "import" and target == "orthanc" and "per_s" in held and not held["compression"]:
            name = "orthanc" if "1 keepalive" in held["how"] else "orthanc, 4 connections"
            figure = Figure("script-import", name, [held["s"]], work=held["n"], per="files")
            stage.results.add(figure)
    for (probe, target), values in sorted(found.items()):
        stage.results.add(Figure(probe, target, values))


def _import(stage: Stage, data: Path) -> None:
    """Import the script's data, which it only reads."""
    files = sum(1 for _ in machine.files_below(data))

    def one() -> float:
        target = stage.fresh("import")
        drives.dicomfs("init", target)
        machine.warm([data])
        return timed(lambda: drives.dicomfs("import", "-a", target, data))

    compete(stage.results, "script-import", {"dicomfs": one}, stage.rounds, work=files, per="files")
    came = sum(path.stat().st_size for path in machine.files_below(data))
    stored = sum(path.stat().st_size for path in machine.files_below(stage.work / "output" / "import" / "packs"))
    stage.results.add(Figure("script-stored", "dicomfs", [stored / came], unit="of input"))
    stage.clear("import")
