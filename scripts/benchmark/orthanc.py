"""Probe against Orthanc's WebDAV drive: runs the script that measures it, with a dicomfs drive as a further root.

The script is not part of this project: DICOMFS_PEER names it. It works in a network namespace of its own,
so Orthanc is seen by nobody. It needs root, Orthanc, davfs2 and rclone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmark import drives, machine
from benchmark.measure import Figure, compete, say, timed
from benchmark.stage import Stage

_CHECKOUT = Path(__file__).resolve().parents[2]
_PROGRAMS = ("Orthanc", "mount.davfs", "rclone", "unshare", "ip")
_ROUNDS = "3"


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
for pack in "$PEER"/archive/packs/*; do dd if="$pack" iflag=nocache count=0 status=none; done
mkdir -p "$PEER/drive"
"$PY" -m dicomfs.cli mount --foreground -o views=patients "$PEER/archive" "$PEER/drive" </dev/null >"$PEER/log" 2>&1 &
echo $! >"$PEER/drive.pid"
until mountpoint -q "$PEER/drive"; do sleep 0.01; done
ls "$PEER/drive" >/dev/null
"""
"""Makes a drive cold as the script does it for Orthanc: a fresh mount, its files out of the page cache."""


def probe_orthanc(stage: Stage) -> None:
    """Run the same probes on Orthanc's WebDAV drive (takes a quarter of an hour)."""
    hindrance = _hindrance()
    if hindrance:
        stage.results.note(f"orthanc was not measured: {hindrance}")
        return
    peer = stage.work / "peer"
    peer.mkdir(exist_ok=True)
    shutil.rmtree(peer / "archive", ignore_errors=True)
    (peer / "drive.pid").unlink(missing_ok=True)
    run = peer / "run"
    environment = {**os.environ, "WORK": str(run), "PY": sys.executable, "PEER": str(peer), "REPS": _ROUNDS}
    environment["REMOUNT_dicomfs"] = REMOUNT
    (peer / "drive").mkdir(exist_ok=True)
    say(f"orthanc: {_script()}")
    with open(peer / "output", "w", encoding="utf-8") as output:
        command = ["bash", str(_script()), f"dicomfs={peer / 'drive'}/patients"]
        try:
            status = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
        finally:
            _end(peer / "drive.pid")
    if status:
        stage.results.note(f"orthanc: the script ended with status {status}; see {peer / 'output'}")
    _take(stage, run / "results.jsonl")
    _import(stage, run / "data")


def _end(held: Path) -> None:
    """End the last drive, which lives in a namespace that nothing else holds."""
    try:
        pid = int(held.read_text())
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        pass


def _take(stage: Stage, path: Path) -> None:
    """Keep the script's figures: cold and warm seconds of each probe, identical files, imports."""
    found: dict[tuple[str, str], list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        held = json.loads(line)
        target, probe = held.get("target", ""), held.get("probe", "")
        if "cold_s" in held and probe != "by-patients find then ls-lR":
            found.setdefault((f"orthanc-{probe}", target), []).append(held["cold_s"])
            found.setdefault((f"orthanc-{probe}", f"{target}, warm"), []).append(held["warm_s"])
        elif probe == "exact":
            different = held["files"] - held["identical"] + held["errors"] + held["wrong_size"]
            stage.results.add(Figure("orthanc-different", target, [different], unit="files"))
            stage.results.note(f"{target}: {held['identical']} of {held['files']} files identical")
        elif probe == "import" and target == "orthanc" and "per_s" in held and not held["compression"]:
            name = "orthanc" if "1 keepalive" in held["how"] else "orthanc, 4 connections"
            figure = Figure("orthanc-import", name, [held["s"]], work=held["n"], per="files")
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

    compete(stage.results, "orthanc-import", {"dicomfs": one}, stage.rounds, work=files, per="files")
    came = sum(path.stat().st_size for path in machine.files_below(data))
    stored = sum(path.stat().st_size for path in machine.files_below(stage.work / "output" / "import" / "packs"))
    stage.results.add(Figure("orthanc-stored", "dicomfs", [stored / came], unit="of input"))
    stage.clear("import")
