"""Real files, all of them: one import accounts for each, and gives each back, also from a rebuilt index.

Through a mount, and copied with cp and rsync, they are compared in tests/mount.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults.scene import assert_sound, catalog, dicomfs, digests

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.corpus

KEPT = {"imported", "present", "conflict"}


def run_table(archive: Path, number: int) -> dict[str, tuple[str, str]]:
    """Return what became of each input of a run: its outcome and SHA-256, by path."""
    run = sorted((archive / "runs").iterdir())[number]
    with (run / "files.tsv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = {row["path"]: (row["outcome"], row["sha256"]) for row in rows}
    assert len(found) == len(rows), "an input has two results"
    return found


def test_every_file_of_the_corpus(archive_path: Path, corpus: Path) -> None:
    with (corpus / "MANIFEST.tsv").open(newline="") as manifest:
        files = {str(corpus / row["path"]): row["sha256"] for row in csv.DictReader(manifest, delimiter="\t")}
    assert len(files) >= 559

    dicomfs("import", corpus, "-a", archive_path, status=1)  # some are quarantined

    results = run_table(archive_path, 0)
    assert files.keys() <= results.keys()
    assert set(results) == {str(path) for path in corpus.rglob("*") if path.is_file()}
    assert {path: results[path][1] for path in files} == files
    outcomes = Counter(results[path][0] for path in files)
    assert outcomes.keys() <= KEPT | {"quarantined", "skipped"}
    assert outcomes["imported"] > 500

    known = assert_sound(archive_path)
    assert digests(known) == sorted({digest for outcome, digest in results.values() if outcome in KEPT})
    refused = {digest for outcome, digest in results.values() if outcome == "quarantined"}
    kept = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in archive_path.glob("quarantine/*.dcm")}
    assert kept == {digest: digest for digest in refused}
    assert all((archive_path / "quarantine" / f"{digest}.txt").read_text().strip() for digest in refused)

    shutil.rmtree(archive_path / "index")
    dicomfs("reindex", "-a", archive_path)
    assert assert_sound(archive_path) == known

    packs = {path.name: path.stat().st_size for path in archive_path.glob("packs/*")}
    dicomfs("import", corpus, "-a", archive_path, status=1)
    again = run_table(archive_path, 1)
    assert again.keys() == results.keys()
    assert {again[path][0] for path, (outcome, _) in results.items() if outcome in KEPT} == {"present"}
    assert {path: again[path] for path, (outcome, _) in results.items() if outcome not in KEPT} == {
        path: result for path, result in results.items() if result[0] not in KEPT
    }
    assert {path.name: path.stat().st_size for path in archive_path.glob("packs/*")} == packs
    assert catalog(archive_path) == known
