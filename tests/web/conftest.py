"""Web servers as people start them, by `dicomfs serve`, and the archives that they show."""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pytest

from tests.builders import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT_S = 60
CHECKOUT = Path(__file__).resolve().parents[2]
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
"""prctl(2)."""
SLICES = 16
CT_NAME = "Doe^Jane"


def dicomfs(*arguments: object, status: int = 0) -> str:
    """Run a command of dicomfs in a process of its own; return what it printed."""
    command = [sys.executable, "-P", "-m", "dicomfs.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "DICOMFS_DEBUG": "0"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S * 3, env=environment)
    assert ended.returncode == status, ended.stderr
    return ended.stdout


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def type(self) -> str:
        """What it says that it is."""
        return self.headers.get("content-type", "")


class Serving:
    """`dicomfs serve` as a process: its address, and its end."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-P", "-m", "dicomfs.cli", "serve", "--port", "0", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "DICOMFS_DEBUG": "0"}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM)),  # noqa: PLW1509 - set, nothing else
        )
        # Whatever hangs, ends: the programs that it starts end with it.
        self._watchdog = threading.Timer(TIMEOUT_S * 10, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        try:
            self.url = self._address()
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def _address(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_S)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            raise AssertionError(f"no address: {self.process.communicate()[1]}")
        return re.fullmatch(r"DICOMweb: (http://127\.0\.0\.1:\d+)/dicomweb\n", line)[1]  # type: ignore[index]

    @property
    def dicomweb(self) -> str:
        """Where the tree is."""
        return f"{self.url}/dicomweb"

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Ask for a path below the server's root; names of headers are written with underscores."""
        request = urllib.request.Request(f"{self.url}/{path}", method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())

    def descendants(self) -> list[int]:
        """Return the processes that it started, and those that they did."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(path.parent.name)] = int(fields[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Tell it to end; return its exit status and what it wrote on stderr."""
        self._watchdog.cancel()
        self.process.send_signal(number)
        try:
            said = self.process.communicate(timeout=TIMEOUT_S)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, said

    def kill(self) -> None:
        """End it if it still is, whatever state it is in; what it started ends with it."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            assert self.end()[0] == 0


def until(true: Callable[[], bool], what: str, timeout_s: float = 10) -> None:
    """Wait for something that no event tells of; fail when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def ohif() -> Path:
    """Return the directory of OHIF's pages, fetched as people fetch it."""
    fetched = subprocess.run([CHECKOUT / "scripts" / "serve-ohif", "--fetch"], capture_output=True, text=True)
    assert fetched.returncode == 0, fetched.stderr
    return Path(fetched.stdout.strip())


# Hounsfield units, centre (x, y, z), half axes: bone, brain, ventricles, eyes, something that does not belong there.
ELLIPSOIDS = [
    (900, (0, 0, 0), (0.72, 0.92, 0.95)),
    (36, (0, 0, 0), (0.66, 0.86, 0.89)),
    (6, (-0.14, 0.05, 0.1), (0.09, 0.32, 0.35)),
    (6, (0.14, 0.05, 0.1), (0.09, 0.32, 0.35)),
    (22, (-0.3, -0.62, -0.45), (0.16, 0.16, 0.2)),
    (22, (0.3, -0.62, -0.45), (0.16, 0.16, 0.2)),
    (68, (0.4, 0.3, 0.05), (0.1, 0.13, 0.3)),
]


def ct_slice(number: int) -> bytes:
    """Return one slice of the series that is scrolled through: a section of a head, unlike every other."""
    rows = 256
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : rows * 1j]
    z = 2 * (number - 0.5) / SLICES - 1
    units = np.random.default_rng(number).normal(-1000, 4, (rows, rows))
    for density, (cx, cy, cz), (a, b, c) in ELLIPSOIDS:
        inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2 < 1
        units[inside] = density + np.random.default_rng(number).normal(0, 4, inside.sum())
    return make_instance(
        "CT", patient="DFS-WEB", patient_name=CT_NAME, number=number, rows=rows, columns=rows,
        attributes={
            "StudyDescription": "Head",
            "SeriesDescription": "Phantom",
            "FrameOfReferenceUID": "2.25.1",
            "ImagePositionPatient": [-128, -128, 10 * number],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
            "SliceThickness": 10,
            "RescaleIntercept": -1024,
            "RescaleSlope": 1,
            "RescaleType": "HU",
            "WindowCenter": 40,
            "WindowWidth": 120,
            "PixelData": np.clip(units + 1024, 0, 4095).astype("<u2").tobytes(),
        },
    )  # fmt: skip


@dataclass(frozen=True)
class Stocked:
    """A served archive of the whole corpus and a series of our own."""

    serving: Serving
    archive: Path
    corpus: Path

    def file(self, path: str) -> Path:
        """Return a file of the corpus."""
        found = self.corpus / path
        assert found.is_file(), path
        return found


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory, corpus: Path, ohif: Path) -> Iterator[Stocked]:
    """Return the corpus as people look at it: imported, mounted, served by nginx, with OHIF before it."""
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.check import check

    base = tmp_path_factory.mktemp("stocked")
    archive = base / "archive"
    own = base / "own"
    own.mkdir()
    for number in range(1, SLICES + 1):
        (own / f"{number}.dcm").write_bytes(ct_slice(number))
    Archive.init(archive)
    dicomfs("import", "-a", archive, own)
    dicomfs("import", "-a", archive, corpus, status=1)  # some are quarantined
    with Serving("-a", archive, "--ohif", ohif) as serving:
        yield Stocked(serving, archive, corpus)
    assert check(archive, verify_files=True).problems == []
