"""Real drives for tests: each is mounted by a process of its own, and gone when its test is over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders import make_instance, write_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT_S = 60
CHECKOUT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from pathlib import Path
from dicomfs.errors import DicomfsError
from dicomfs.mount.options import parse
from dicomfs.mount.session import mount
archive, mountpoint, options, log, manner = sys.argv[1:]
try:
    mount(Path(archive), Path(mountpoint), parse([options], log=Path(log)),
          foreground=manner == "foreground", debug=manner == "debug")
except DicomfsError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def environment(**variables: str) -> dict[str, str]:
    """Return what a mount process needs to find dicomfs."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8", **variables}


def run(*command: object, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program that looks at a drive; a drive that hangs fails the test."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment(), **options)
    if check:
        assert done.returncode == 0, f"{words}: {done.stderr}"
    return done


def mount_daemon(archive: Path, mountpoint: Path, options: str, log: Path) -> subprocess.CompletedProcess[str]:
    """Mount as the command line does: the process ends when the drive is ready."""
    return run(sys.executable, "-c", SCRIPT, archive, mountpoint, options, log, "daemon", check=False)


class Drive:
    """A drive whose process stays a child of the test."""

    def __init__(self, archive: Path, path: Path, options: str, log: Path, manner: str = "foreground") -> None:
        self.archive = archive
        self.path = path
        self.log = log
        self.patients = path / "patients"
        path.mkdir(exist_ok=True)
        notify = log.with_suffix(".socket")
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
            service.bind(str(notify))
            service.settimeout(0.2)
            self.process = subprocess.Popen(
                [sys.executable, "-c", self.script(), str(archive), str(path), options, str(log), manner],
                env=environment(NOTIFY_SOCKET=str(notify)),
                stderr=subprocess.PIPE,
                text=True,
            )
            self._wait_until_ready(service)
        self._watchdog = threading.Timer(0, self.process.kill)
        self.watch()

    def watch(self) -> None:
        """Kill the process in a while: a test that waits for a drive that hangs can only be freed from outside."""
        self._watchdog.cancel()
        self._watchdog = threading.Timer(TIMEOUT_S * 2, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def script(self) -> str:
        """Return what the process runs."""
        return SCRIPT

    def _wait_until_ready(self, service: socket.socket) -> None:
        for _ in range(TIMEOUT_S * 5):
            try:
                assert service.recv(64) == b"READY=1"
                return
            except TimeoutError:
                assert self.process.poll() is None, self.process.communicate()[1]
        raise AssertionError("the drive did not get ready")

    def files(self) -> dict[str, Path]:
        """Return every DICOM file by its path below patients/."""
        found = {}
        for folder, _, names in os.walk(self.patients):
            for name in names:
                path = Path(folder, name)
                found[str(path.relative_to(self.patients))] = path
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell the process to end, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(TIMEOUT_S)
        self._watchdog.cancel()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return status

    def resident_kib(self) -> int:
        """Return how much memory the process has that is its own."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("RssAnon")))


@pytest.fixture
def mount_drive(tmp_path: Path) -> Iterator[Callable[..., Drive]]:
    """Return a function that mounts an archive; what it mounted is unmounted after the test."""
    drives: list[Drive] = []

    def mount(archive: Path, options: str = "", *, at: Path | None = None, manner: str = "foreground") -> Drive:
        number = len(drives)
        drive = Drive(archive, at or tmp_path / f"drive{number}", options, tmp_path / f"log{number}", manner)
        drives.append(drive)
        return drive

    yield mount
    end_all(drives)


def end_all(drives: list[Drive]) -> None:
    """End these drives whatever state they are in, and see that none met an error of its own."""
    for drive in drives:
        try:
            drive.end()
        except subprocess.TimeoutExpired:
            drive.end(signal.SIGKILL)
            raise
        finally:
            subprocess.run(["umount", "-l", drive.path], capture_output=True, timeout=TIMEOUT_S)
    for drive in drives:
        assert "internal error" not in drive.log.read_text(), drive.log.read_text()


def import_into(archive: Path, *paths: Path, on_conflict: str = "keep") -> None:
    """Import files in a process of its own, as another user of the archive would."""
    script = (
        "import sys; from pathlib import Path\n"
        "from dicomfs.archive.ingest import ImportOptions, import_paths\n"
        "report = import_paths(Path(sys.argv[1]), [Path(path) for path in sys.argv[3:]],"
        " ImportOptions(on_conflict=sys.argv[2], jobs=1))\n"
        "assert not report.stopped, report.stopped\n"
    )
    run(sys.executable, "-c", script, archive, on_conflict, *paths)


@pytest.fixture
def study(tmp_path: Path) -> dict[Path, str]:
    """Return a study on disk, twelve files of two series: path and SHA-256."""
    return write_study(tmp_path / "study", series=2, instances=6, rows=96, columns=96)


@pytest.fixture
def imported(archive_path: Path, study: dict[Path, str]) -> tuple[Path, dict[Path, str]]:
    """Return an archive that holds a study, and the study."""
    import_into(archive_path, next(iter(study)).parent.parent)
    return archive_path, study


class Stocked(Drive):
    """A drive over an archive with something of everything, shared by the tests of a module."""

    digests: list[str]


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stocked]:
    """Return a mounted archive of two patients and several modalities, and two files in quarantine."""
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.check import check

    base = tmp_path_factory.mktemp("stocked")
    source = base / "source"
    written = {
        **write_study(source / "ct", series=3, instances=20, rows=128, columns=128),
        **write_study(source / "mr", modality="MR", series=2, instances=3, frames=8, patient="DFS-2", study=2),
        **write_study(source / "us", modality="US", instances=2, rows=256, columns=256, patient="DFS-2", study=3),
        **write_study(source / "sr", modality="SR", instances=2, patient="DFS-2", patient_name="山田^太郎", study=4),
    }
    for number, cut in enumerate((900, 950)):
        (source / f"cut{number}").write_bytes(make_instance(number=99 + number)[:-cut])
    Archive.init(base / "archive")
    import_into(base / "archive", source)
    drive = Stocked(base / "archive", base / "drive", "", base / "log")
    drive.digests = sorted(written.values())
    yield drive
    end_all([drive])
    assert check(base / "archive", verify_files=True).problems == []
