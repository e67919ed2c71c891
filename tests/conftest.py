"""What every test may ask for: the corpus, and an archive that is checked to the last byte afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long anything takes is no test's business: machines are busy.
settings.register_profile("dicomfs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dicomfs")

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what only root can do: drop caches, remount, set the read-ahead of a device."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Return the directory of real DICOM files, which holds a MANIFEST.tsv."""
    path = Path(os.environ.get("DICOMFS_CORPUS") or CHECKOUT.parent / "shared" / "corpus")
    if not (path / "MANIFEST.tsv").is_file():
        pytest.skip(f"the corpus of real DICOM files is not at {path}; say where with DICOMFS_CORPUS")
    return path


@pytest.fixture
def archive_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a fresh archive; after the test, every byte of it must be as the catalog says.

    A test that hurts its archive on purpose is marked `damaged`, and says itself what is left.
    """
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.check import check

    path = tmp_path / "archive"
    Archive.init(path)
    yield path
    if request.node.get_closest_marker("damaged") is None:
        assert check(path, verify_files=True).problems == []
