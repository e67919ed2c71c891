"""`dicomfs layout`: what is printed, what it changes, and what is refused."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.keywords import CATALOG_KEYWORDS
from dicomfs.archive.layout import Layout
from tests.builders import uid, write_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Filled, Run

COMMANDS = ["list", "show", "add", "remove", "preview"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_manual(run: Run, command: str) -> None:
    ended = run("layout", command, "--help")
    assert ended.status == 0
    assert "Example" in ended.out
    assert f"dicomfs layout {command}" in ended.out


def test_help_lists_the_attributes_that_layouts_can_use(run: Run) -> None:
    assert set(run("layout", "--help").out.split()) >= CATALOG_KEYWORDS


@pytest.mark.parametrize("name", built_in())
def test_what_comes_with_dicomfs_is_in_the_language(name: str) -> None:
    assert Layout.parse(built_in()[name]).depth >= 3


def test_add_list_show_remove(run: Run, archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source", instances=3)
    run("import", tmp_path / "source", "-a", archive_path)
    ended = run("layout", "add", "icore", "-a", archive_path)
    assert (ended.status, ended.out, ended.err) == (0, "icore: on, 3 files placed\n", "")
    template = "{Modality}/{SOPInstanceUID}.dcm"
    ended = run("layout", "add", "mine", template, "-a", archive_path, "--json")
    assert json.loads(ended.out) == {"name": "mine", "template": template, "placed": 3}
    listed = json.loads(run("layout", "list", "-a", archive_path, "--json").out)
    assert {one["name"]: one["status"] for one in listed} == {
        "patients": "on", "icore": "on", "mine": "on", "archive": "available", "omidb": "available",
    }  # fmt: skip
    assert run("layout", "show", "mine", "-a", archive_path).out == template + "\n"
    assert run("layout", "remove", "mine", "-a", archive_path).out == "mine: off\n"
    assert "mine      off" in run("layout", "list", "-a", archive_path).out
    ended = run("layout", "add", "mine", "-a", archive_path)  # it is known which template it had
    assert ended.out == "mine: on, 0 files placed\n"


def test_a_template_from_a_file(run: Run, archive_path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.layout").write_text("# By kind.\n{Modality}\n  /{n}.dcm\n")
    assert run("layout", "add", "mine", "--file", tmp_path / "mine.layout", "-a", archive_path).status == 0
    assert run("layout", "show", "mine", "-a", archive_path).out == "{Modality}/{n}.dcm\n"
    assert run("layout", "add", "x", "{n}", "--file", tmp_path / "mine.layout", "-a", archive_path).status == 2
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    assert run("layout", "add", "x", "--file", tmp_path / "bytes", "-a", archive_path).status == 2


def test_preview_shows_paths_and_changes_nothing(run: Run, filled: Filled) -> None:
    listed = run("layout", "list", "-a", filled.path, "--json").out
    ended = run("layout", "preview", "archive", "-a", filled.path, "--limit", 100, "--of-series", 100, "--json")
    found = json.loads(ended.out)
    assert len(found) == len(filled.sources) + 1
    assert len({one["path"] for one in found}) == len(found)
    assert len({one["ino"] for one in found}) == len(found)
    first = uid("DFS-1", 1, 1, 1)
    assert sum(one["path"].endswith(f"/{first}.dcm") for one in found) == 1
    ended = run("layout", "preview", "{Modality!lower}/{n:02d}.dcm", "-a", filled.path, "--of-series", 1)
    assert ended.out.splitlines() == ["ct/01.dcm", "ct/02.dcm", "mr/01.dcm"]
    assert run("layout", "list", "-a", filled.path, "--json").out == listed


def test_a_preview_is_what_comes(run: Run, archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source", instances=3, series=2)
    write_study(tmp_path / "other", instances=2, study=2)
    run("import", tmp_path / "source", tmp_path / "other", "-a", archive_path)
    ended = run("layout", "preview", "icore", "-a", archive_path, "--limit", 100, "--of-series", 100)
    run("layout", "add", "icore", "-a", archive_path)
    from dicomfs.archive.archive import Archive
    from tests.archive.importing import walk

    with Archive.open(archive_path) as opened, opened.view() as view:
        assert sorted(ended.out.splitlines()) == sorted(walk(view, view.layouts()[0].root))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "mine"], "there is no layout 'mine'; there are patients, archive, icore, omidb, or give a template"),
        (["add", "mine", "{Modalty}/{n}"], "layout: character 1: 'Modalty' is not an attribute that layouts can use"),
        (["add", "patients", "{n}"], "'patients' cannot be the name of a layout"),
        (["add", "a/b", "{n}"], "'a/b' cannot be the name of a layout"),
        (["add", "mine", "{KVP}/{n}"], "'KVP' is not an attribute that layouts can use; 'dicomfs layout --help' lists"),
        (["remove", "mine"], "no layout 'mine' is on"),
        (["remove", "patients"], "'patients' is always on"),
        (["show", "mine"], "there is no layout 'mine'"),
        (["preview"], "name a layout"),
        (["preview", "a}"], "a } without its {"),
        (["frobnicate"], "No such command"),
    ],
)
def test_mistakes(run: Run, archive_path: Path, arguments: list[str], message: str) -> None:
    ended = run("layout", *arguments, *(["-a", archive_path] if arguments != ["frobnicate"] else []))
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_no_archive(run: Run, tmp_path: Path) -> None:
    assert run("layout", "list", "-a", tmp_path / "missing").status == 3
    assert run("layout", "add", "icore", "-a", tmp_path / "missing").status == 3


@pytest.mark.parametrize("name", ["archive", "icore"])
def test_an_export_of_a_layout_holds_every_file_under_its_name(
    run: Run, archive_path: Path, tmp_path: Path, name: str
) -> None:
    written = write_study(tmp_path / "source", instances=3, series=2)
    run("import", tmp_path / "source", "-a", archive_path)
    output = tmp_path / "out"
    assert run("export", "-a", archive_path, "--all", "--layout", name, "-o", output).status == 2
    run("layout", "add", name, "-a", archive_path)
    assert run("export", "-a", archive_path, "--patient-id", "*", "--layout", name, "-o", output).status == 2
    ended = run("export", "-a", archive_path, "--all", "--layout", name, "-o", output)
    assert (ended.status, ended.err) == (0, "")
    files = {path for path in output.rglob("*") if path.is_file()}
    index = {output / "archive_index.json"} & files
    assert bool(index) is (name == "archive")
    assert sorted(written.values()) == sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files - index)
    ended = run("export", "-a", archive_path, "--all", "--layout", name, "-o", output)
    assert ended.out.startswith(f"{len(files)} files: 0 written (0 B), {len(files)} present")
