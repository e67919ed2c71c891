"""What the tests of faults start from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.builders import write_study


class Source(NamedTuple):
    """A directory of DICOM files, and the SHA-256 of each, sorted."""

    path: Path
    digests: list[str]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return 240 files of three studies, so that an import of them takes many small commits."""
    path = tmp_path_factory.mktemp("source")
    written = {}
    for study in (1, 2):
        written |= write_study(path / f"CT{study}", series=4, instances=25, rows=96, columns=96, study=study)
    written |= write_study(path / "MR", modality="MR", series=2, instances=20, rows=80, columns=80, study=3, frames=2)
    return Source(path, sorted(written.values()))


@pytest.fixture(scope="session")
def small_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return 12 files of two series."""
    path = tmp_path_factory.mktemp("small")
    return Source(path, sorted(write_study(path, series=2, instances=6, rows=128, columns=128, study=7).values()))
