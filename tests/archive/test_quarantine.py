"""Quarantine keeps the exact bytes of what was refused beside its reason, once, for its owner only."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import quarantine
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.quarantine import SourceLost
from tests.archive.importing import add, sha256, snapshot, tree
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path

CUT = make_instance()[:-700]


def test_the_same_file_is_kept_once(archive_path: Path) -> None:
    add(archive_path, CUT, CUT)
    before = snapshot(archive_path / "quarantine")
    assert set(before) == {f"{sha256(CUT)}.dcm", f"{sha256(CUT)}.txt"}
    assert add(archive_path, CUT).outcomes == [Outcome.QUARANTINED]
    assert snapshot(archive_path / "quarantine") == before


def test_a_whole_file_is_imported_beside_its_cut_off_copy(archive_path: Path) -> None:
    add(archive_path, CUT)
    assert add(archive_path, make_instance()).outcomes == [Outcome.IMPORTED]
    assert len(tree(archive_path)) == 1


def test_reasons_are_one_line_without_patients(archive_path: Path) -> None:
    refused = [
        CUT,
        make_instance(patient_name="Secret^Person", patient="SECRET-ID")[:700],
        make_instance(patient_name="Secret^Person", attributes={"StudyInstanceUID": None}),
    ]
    add(archive_path, *refused)
    for content in refused:
        reason = (archive_path / "quarantine" / f"{sha256(content)}.txt").read_text()
        assert reason.endswith("\n")
        assert len(reason.splitlines()) == 1
        assert len(reason) > 10
        assert "secret" not in reason.lower()


def test_only_its_owner_may_look(archive_path: Path) -> None:
    add(archive_path, CUT)
    for name in ("quarantine", "runs"):
        assert stat.S_IMODE((archive_path / name).stat().st_mode) == 0o700


def test_made_anew_where_it_was_removed(archive_path: Path) -> None:
    (archive_path / "quarantine").rmdir()
    add(archive_path, CUT)
    assert (archive_path / "quarantine" / f"{sha256(CUT)}.dcm").read_bytes() == CUT
    assert stat.S_IMODE((archive_path / "quarantine").stat().st_mode) == 0o700


def test_what_a_kill_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / ".new").write_bytes(b"half of an earlier file, and longer than this one is" * 900)
    (tmp_path / "source").write_bytes(CUT)
    quarantine.keep(tmp_path, str(tmp_path / "source"), "reason", sha256(CUT))
    assert {path.name for path in (tmp_path / "quarantine").iterdir()} == {f"{sha256(CUT)}.dcm", f"{sha256(CUT)}.txt"}
    assert (tmp_path / "quarantine" / f"{sha256(CUT)}.dcm").read_bytes() == CUT


@pytest.mark.parametrize("what", ["gone", "changed", "a directory"])
def test_a_source_that_is_not_what_it_was(tmp_path: Path, what: str) -> None:
    source = tmp_path / "source"
    if what == "changed":
        source.write_bytes(CUT + b"more")
    elif what == "a directory":
        source.mkdir()
    with pytest.raises(SourceLost):
        quarantine.keep(tmp_path, str(source), "reason", sha256(CUT))
    assert list((tmp_path / "quarantine").iterdir()) == []


@pytest.mark.parametrize("hurt", [b"", CUT[:-1] + b"!", None], ids=["emptied", "rotten", "without its reason"])
def test_a_kept_file_that_was_hurt_is_kept_again(archive_path: Path, hurt: bytes | None) -> None:
    add(archive_path, CUT)
    kept = archive_path / "quarantine" / f"{sha256(CUT)}.dcm"
    reason = kept.with_suffix(".txt").read_text()
    if hurt is None:
        kept.with_suffix(".txt").unlink()
    else:
        kept.write_bytes(hurt)
    assert add(archive_path, CUT).outcomes == [Outcome.QUARANTINED]
    assert kept.read_bytes() == CUT
    assert kept.with_suffix(".txt").read_text() == reason
