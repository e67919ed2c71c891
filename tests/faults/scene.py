"""Real programs to kill and real disks to fill: what the tests of faults have in common.

Programs run as a user runs them, each in a process group of its own, so that a whole import can be killed
at once. What an archive holds is read by the library, past the program that was hurt.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DICOMFS = (sys.executable, "-m", "dicomfs.cli")

# The same program with small batches and commits, so that a short import makes many.
COMMITTING_OFTEN = """
import sys
from dicomfs.archive import ingest, inputs
ingest.COMMIT_BYTES, inputs.BATCH_FILES = 100_000, 8
from dicomfs.cli import main
sys.exit(main())
"""
# And with an end of itself, and of its workers, at one step of one commit.
STOPPING = (
    """
import os, signal, sys
from dicomfs.store import writer
step, commit = sys.argv.pop(1), int(sys.argv.pop(1))
begin = writer.Writer.__init__
def stop_there(self, store, faults=None):
    def at(name):
        if name == step and self.seq == commit:
            os.killpg(0, signal.SIGKILL)
    begin(self, store, at)
writer.Writer.__init__ = stop_there
"""
    + COMMITTING_OFTEN
)


class Instance(NamedTuple):
    """One instance as the catalog has it."""

    ino: int
    size: int
    sha256: str


def dicomfs(*arguments: object, status: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end and expect this exit status (None: any)."""
    told = {**os.environ, **environment}
    result = subprocess.run([*DICOMFS, *map(str, arguments)], capture_output=True, text=True, timeout=240, env=told)
    shown = f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr, shown
    if status is not None:
        assert result.returncode == status, shown
    return result


def start(*arguments: object, command: Sequence[str] = DICOMFS) -> subprocess.Popen[str]:
    """Start one command in a session of its own."""
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_import(source: Path, archive: Path, *options: str, often: bool = True) -> subprocess.Popen[str]:
    """Start an import, by default one that commits often."""
    command = (sys.executable, "-c", COMMITTING_OFTEN) if often else DICOMFS
    return start("import", source, "-a", archive, *options, command=command)


def import_until(step: str, commit: int, source: Path, archive: Path) -> None:
    """Import, and die at this step of this commit."""
    stopping = (sys.executable, "-c", STOPPING, step, str(commit))
    process = start("import", source, "-a", archive, command=stopping)
    output = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output


def kill(process: subprocess.Popen[str]) -> None:
    """Kill -9 a command with all its worker processes, and wait for its end."""
    for pid in (process.pid, *members(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def members(session: int) -> list[int]:
    """Return the processes of a session that still live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return sorted(found)


def catalog(archive: Path) -> dict[str, Instance]:
    """Return what the catalog says: every instance by its path below the mount."""
    found = {}
    with Archive.open(archive) as opened, opened.view() as view:
        for study in view.studies():
            for series in view.series_of(study.key):
                for one in view.instances_of(series.key):
                    path = view.path(one.ino)
                    assert path not in found
                    found[path] = Instance(one.ino, one.size, one.sha256.hex())
    return found


def assert_reads_back(archive: Path) -> dict[str, Instance]:
    """Read every instance and compare it with its SHA-256; return the catalog."""
    known = catalog(archive)
    with Archive.open(archive) as opened:
        for path, one in known.items():
            file = opened.open_instance(one.ino)
            content = file.read(0, one.size + 1)
            file.close()
            assert len(content) == one.size, path
            assert hashlib.sha256(content).hexdigest() == one.sha256, path
    return known


def assert_sound(archive: Path) -> dict[str, Instance]:
    """Check everything that a check can, read everything back, and return the catalog."""
    assert check(archive, verify_files=True).problems == []
    return assert_reads_back(archive)


def digests(known: Mapping[str, Instance]) -> list[str]:
    """Return the SHA-256 of every instance, sorted."""
    return sorted(one.sha256 for one in known.values())


@contextlib.contextmanager
def disk(megabytes: int) -> Iterator[Path]:
    """Give an ext4 filesystem of this size, in a file; skip where one may not be mounted."""
    with tempfile.TemporaryDirectory(prefix="dicomfs-disk-") as name:
        image, place = Path(name, "image"), Path(name, "disk")
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m0", "-O", "^has_journal", image], check=True)
        mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no loop device: {mounted.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def drive(archive: Path, *options: str) -> Iterator[Path]:
    """Mount an archive; unmount it at the end, whatever has become of the mount."""
    with tempfile.TemporaryDirectory(prefix="dicomfs-drive-") as name:
        dicomfs("mount", archive, name, *options)
        try:
            yield Path(name)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", "-q", name])


def sha256_of_tree(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory, by path, read as a program would."""
    found = {}
    for folder, _, names in os.walk(directory, onerror=_fail):
        for name in names:
            path = Path(folder, name)
            with path.open("rb") as file:
                found[str(path.relative_to(directory))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _fail(error: OSError) -> None:
    raise error
