"""`dicomfs import --format static-dicomweb` as people type it, and of what `dicomfs export` itself writes."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pydicom

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from tests.archive.importing import add, contents
from tests.builders import make_instance
from tests.same_values import differences, same_pixels
from tests.static_trees import write_v1

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

BITS = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": bytes(range(33, 42)) + b"\5"}
"""75 bits, so that frames begin within bytes."""
SMALL = {"rows": 8, "columns": 8}


def test_statuses(run: Run, tmp_path: Path, archive_path: Path) -> None:
    root = tmp_path / "tree"
    write_v1(root, [make_instance("CT", number=number, patient_name="Böhm^Jörg", **SMALL) for number in (1, 2)])
    command = ("import", "-a", archive_path, "--format", "static-dicomweb", root)

    dry = run(*command, "--dry-run")
    assert (dry.status, contents(archive_path)) == (0, {})
    assert dry.out.startswith("2 files: 2 imported (nothing was changed)")

    first = run(*command)
    assert first.status == 0
    assert "2 times: rebuilt" in first.out
    assert "2 times: text that had been read as Latin 1 has its bytes again" in first.out
    assert "Böhm" not in first.out + first.err
    table = next((archive_path / "runs").glob("*/files.tsv")).read_text()
    assert "rebuilt; text that had been" in table
    assert f"\t{root}/studies/" in table

    again = json.loads(run(*command, "--json", "--verbose").out)
    assert (again["present"], again["complete"]) == (2, True)
    assert {file["reason"].partition(";")[0] for file in again["files"]} == {"rebuilt"}

    next(root.rglob("frames/1.mht.gz")).unlink()
    hurt = run(*command)
    assert hurt.status == 1
    assert "its frames are missing" in hurt.err

    wrong = run("import", "-a", archive_path, "--format", "static-dicomweb", root / "studies")
    assert wrong.status == 2
    assert "has no directory 'studies'" in wrong.err


def test_what_export_writes(run: Run, tmp_path: Path, archive_path: Path) -> None:
    given = [
        make_instance("CT", patient_name="Böhm^Jörg=王", transfer_syntax="1.2.840.10008.1.2", **SMALL),
        make_instance("MR", study=2, transfer_syntax="1.2.840.10008.1.2.2", **SMALL),
        make_instance("US", study=3, frames=3, transfer_syntax="1.2.840.10008.1.2.4.50", **SMALL),
        make_instance("SR", study=4),
        make_instance("SC", study=5, rows=5, columns=5, frames=3, attributes=BITS),
    ]
    add(archive_path, *given)
    assert run("export", "-a", archive_path, "--all", "--layout", "dicomweb", "--output", tmp_path / "web").status == 0
    other = tmp_path / "other"
    Archive.init(other)
    done = run("import", "-a", other, "--format", "static-dicomweb", tmp_path / "web")
    assert (done.status, done.err) == (0, "")
    assert check(other, verify_files=True).problems == []
    made = {str(one.SOPInstanceUID): one for one in map(read, contents(other).values())}
    assert len(made) == len(given)
    for original in map(read, given):
        one = made[str(original.SOPInstanceUID)]
        assert differences(original, one) == []
        assert same_pixels(original, one)
        assert one.file_meta.ImplementationVersionName == "DICOMFS"


def read(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(content))
