"""The command line as a test runs it, and an archive to ask about."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.ingest import ImportOptions, import_paths
from dicomfs.cli import main
from tests.builders import make_instance, write_study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


class Run(Protocol):
    """Runs a command line in this process."""

    def __call__(self, *arguments: object) -> Ended: ...


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("DICOMFS_ARCHIVE", raising=False)
    monkeypatch.setenv("DICOMFS_DEBUG", "0")

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


def spawn(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start `dicomfs` as a process of its own, with pipes for stdout and stderr."""
    command = [sys.executable, "-m", "dicomfs.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


HOSTILE = "Evil\x1b[2J\x9b31m^\u202eName"


@dataclass(frozen=True)
class Filled:
    """An archive with a few patients, and where its files came from (path: SHA-256)."""

    path: Path
    sources: dict[Path, str]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Return an archive that tests only read."""
    root = tmp_path_factory.mktemp("filled")
    source = root / "source"
    sources = write_study(source / "1", series=2, instances=3)
    sources |= write_study(source / "2", modality="MR", patient="P-2", patient_name=HOSTILE, instances=2)
    conflict = make_instance(number=1, seed="other")
    (source / "conflict").write_bytes(conflict)
    path = root / "archive"
    Archive.init(path)
    assert import_paths(path, [source], ImportOptions()).complete
    yield Filled(path, sources)
    assert check(path, verify_files=True).problems == []
