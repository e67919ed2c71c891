"""Importing a file again mends its blobs: nobody is told `present` of bytes that cannot be read back."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from dicomfs.archive.check import check
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.rebuild import reindex
from tests.archive.importing import add, contents
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FIRST = make_instance(number=1)
TWIN = make_instance(number=9, seed=uid("DFS-1", 1, 1, 1))  # another instance of the same pixels


def hurt(archive: Path, kind: str) -> None:
    """Flip a bit in the middle of the first entry of a kind: o, h or c."""
    pack = archive / "packs" / "00000001.zip"
    with zipfile.ZipFile(pack) as entries:
        entry = next(entry for entry in entries.infolist() if entry.filename.startswith(f"{kind}/"))
    data = bytearray(pack.read_bytes())
    # The body of a commit record, which holds the headers, is its last part.
    part = entry.file_size // 2 if kind != "c" else entry.file_size - 20
    data[entry.header_offset + 30 + len(entry.filename) + part] ^= 1
    pack.write_bytes(data)


def test_a_damaged_blob_is_mended_by_its_file(archive_path: Path) -> None:
    add(archive_path, FIRST)
    hurt(archive_path, "o")
    assert check(archive_path, verify_files=True).problems
    done = add(archive_path, FIRST)
    assert done.outcomes == [Outcome.PRESENT]
    assert "repaired" in done.results[0].reason
    assert check(archive_path, verify_files=True).problems == []
    assert list(contents(archive_path).values()) == [FIRST]
    assert add(archive_path, FIRST).results[0].reason == ""
    reindex(archive_path)
    assert list(contents(archive_path).values()) == [FIRST]


def test_a_damaged_blob_is_mended_by_another_file_of_the_same_frame(archive_path: Path) -> None:
    add(archive_path, FIRST)
    hurt(archive_path, "o")
    assert add(archive_path, TWIN).outcomes == [Outcome.IMPORTED]
    assert sorted(contents(archive_path).values()) == sorted([FIRST, TWIN])


def test_a_damaged_base_stops_nobody(archive_path: Path, request: pytest.FixtureRequest) -> None:
    request.applymarker("damaged")
    add(archive_path, FIRST)
    hurt(archive_path, "h")
    done = add(archive_path, FIRST, TWIN, make_instance(number=2))
    assert done.outcomes == [Outcome.FAILED, Outcome.IMPORTED, Outcome.IMPORTED]
    assert "damaged" in done.results[0].reason


def test_a_damaged_header_is_told(archive_path: Path, request: pytest.FixtureRequest) -> None:
    request.applymarker("damaged")
    add(archive_path, FIRST)
    hurt(archive_path, "c")
    assert add(archive_path, FIRST).outcomes == [Outcome.FAILED]
