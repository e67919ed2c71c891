"""Exports of projects: what is private is left out, or its owner's alone."""

from __future__ import annotations

import stat
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.archive.importing import add
from tests.builders import make_instance
from tests.vfs.committed import Wanted, commit_project, instances

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

DEID = "DeID_heads_20240101-000000"
MADE = make_instance(patient="ANON-1", number=1, seed="made")
PUBLIC = {"DATE-1/1.dcm", "deid_metadata.xlsx", "run.txt"}
PRIVATE = {"linker.xlsx", "metadata.xlsx", "quarantine/2.dcm", "quarantine/2.txt"}


@pytest.fixture
def archive(archive_path: Path) -> Path:
    """Return an archive with two projects: one with its members as they are, and one de-identified."""
    add(archive_path, make_instance(number=1), make_instance(number=2))
    first, second = instances(archive_path)
    commit_project(archive_path, "PHI_hearts_20240101-000000", Wanted(linked={"images/1.dcm": first}))
    wanted = Wanted(derived={"DATE-1/1.dcm": (first, MADE)}, withheld={"quarantine/2.dcm": (second, "burned in")})
    commit_project(archive_path, DEID, wanted, deid="basic")
    return archive_path


def modes(directory: Path) -> dict[str, int]:
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode)
        for path in directory.rglob("*")
        if not path.is_dir()
    }


@pytest.mark.parametrize("name", ["heads", DEID])
def test_a_project_is_handed_over_without_what_is_private(run: Run, archive: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "out"
    ended = run("export", "-a", archive, "--project", name, "--output", output)
    assert (ended.status, ended.err) == (0, "")
    assert set(modes(output)) == PUBLIC
    assert not (output / "quarantine").exists()
    assert (output / "DATE-1/1.dcm").read_bytes() == MADE
    again = run("export", "-a", archive, "--project", name, "--output", output)
    assert "0 written" in again.out
    assert "3 present" in again.out


def test_what_is_private_is_written_for_its_owner_alone(run: Run, archive: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ended = run("export", "-a", archive, "--project", DEID, "--private-tables", "--manifest", "--output", output)
    assert (ended.status, ended.err) == (0, "")
    found = modes(output)
    assert set(found) == PUBLIC | PRIVATE | {"manifest.sha256"}
    assert {path for path, mode in found.items() if mode == 0o600} == PRIVATE
    assert stat.S_IMODE((output / "quarantine").stat().st_mode) == 0o700


def test_a_zip_of_what_is_private_is_its_owners_alone(run: Run, archive: Path, tmp_path: Path) -> None:
    for options, names, mode in (((), PUBLIC, 0o644), (("--private-tables",), PUBLIC | PRIVATE, 0o600)):
        target = tmp_path / f"{len(names)}.zip"
        assert run("export", "-a", archive, "--project", "heads", *options, "--zip", target).status == 0
        with zipfile.ZipFile(target) as file:
            assert set(file.namelist()) == names | {"manifest.sha256"}
        assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_layout_may_name_projects_too(run: Run, archive: Path, tmp_path: Path) -> None:
    assert run("export", "-a", archive, "--all", "--layout", "projects", "--output", tmp_path / "out").status == 0
    expected = {f"{DEID}/{path}" for path in PUBLIC}
    expected |= {f"PHI_hearts_20240101-000000/{path}" for path in ("images/1.dcm", "metadata.xlsx", "run.txt")}
    assert set(modes(tmp_path / "out")) == expected
    one = run("export", "-a", archive, "--all", "--layout", f"projects/{DEID}/quarantine", "--output", tmp_path / "no")
    assert one.status == 2
    assert not (tmp_path / "no").exists()


def test_what_makes_no_sense_is_refused(run: Run, archive: Path, tmp_path: Path) -> None:
    commit_project(archive, "DeID_heads_20240102-000000", Wanted(), deid="basic")
    for options, said in (
        (("--project", "other"), "there is no project 'other'"),
        (("--project", "heads"), "there are 2 projects"),
        (("--project", "hearts", "--all"), "--project is all of a project"),
        (("--project", "hearts", "--flatten"), "--project is all of a project"),
        (("--all", "--private-tables"), "--private-tables is for projects"),
    ):
        ended = run("export", "-a", archive, *options, "--output", tmp_path / "out")
        assert ended.status == 2, options
        assert said in ended.err
