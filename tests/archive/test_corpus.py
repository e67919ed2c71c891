"""The corpus of real files: all of it in one import, every file accounted for and identical, again and again."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.rebuild import reindex
from tests.archive.importing import run, tables, tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.corpus, pytest.mark.slow]


def manifest(corpus: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of the corpus, by path."""
    with (corpus / "MANIFEST.tsv").open(newline="") as file:
        return {row["path"]: row["sha256"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}


def test_everything_in_one_import(corpus: Path, archive_path: Path) -> None:
    known = manifest(corpus)
    done = run(archive_path, corpus, jobs=2)

    assert done.report.stopped == ""
    told = {result.source.removeprefix(f"{corpus}/"): result for result in done.results}
    assert len(told) == len(done.results)
    assert set(known) <= set(told)
    assert all(told[path].sha256 == sha256 for path, sha256 in known.items())
    # What is beside the corpus itself (its manifest, its licences) is no DICOM.
    assert {told[path].outcome for path in set(told) - set(known)} <= {Outcome.SKIPPED}
    outcomes = Counter(told[path].outcome for path in known)
    assert outcomes[Outcome.FAILED] == 0
    assert outcomes[Outcome.IMPORTED] + outcomes[Outcome.CONFLICT] > 500
    assert outcomes.total() == len(known)

    kept = {Outcome.IMPORTED, Outcome.CONFLICT, Outcome.PRESENT}
    expected = {known[path] for path in known if told[path].outcome in kept}
    quarantined = {known[path] for path in known if told[path].outcome is Outcome.QUARANTINED}
    assert {path.stem for path in (archive_path / "quarantine").glob("*.dcm")} == quarantined
    for path in (archive_path / "quarantine").glob("*.dcm"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    assert_identical(archive_path, expected)

    before = tables(archive_path), tree(archive_path)
    again = run(archive_path, corpus, jobs=2)
    assert again.report.bytes_in == again.report.bytes_stored == 0
    assert again.report.outcomes[Outcome.IMPORTED] == again.report.outcomes[Outcome.CONFLICT] == 0
    assert again.report.outcomes[Outcome.PRESENT] == sum(outcomes[outcome] for outcome in kept)
    assert (tables(archive_path), tree(archive_path)) == before

    shutil.rmtree(archive_path / "index")
    assert reindex(archive_path).complete
    assert (tables(archive_path), tree(archive_path)) == before
    assert check(archive_path).problems == []


def assert_identical(archive: Path, expected: set[str]) -> None:
    shown = tree(archive)
    assert {file.sha256 for file in shown.values()} == expected
    assert len(shown) == len(expected)
    with Archive.open(archive) as opened:
        for path, one in shown.items():
            file = opened.open_instance(one.ino)
            digest = hashlib.sha256()
            # As the kernel reads it: what is ready at once, and what has to be waited for.
            for offset in range(0, file.size, 1 << 17):
                data = file.read_ready(offset, 1 << 17)
                digest.update(file.read(offset, 1 << 17) if data is None else data)
            assert (file.size, digest.hexdigest()) == (one.size, one.sha256), path
