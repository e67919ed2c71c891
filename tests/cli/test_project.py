"""`dicomfs project`: what is printed, what it changes, and what is refused."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import project_making
from tests.archive.importing import add
from tests.builders import make_instance, write_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

COMMANDS = ["create", "list", "show", "resume", "remove"]
CT = ("--where", "Modality=CT")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_manual(run: Run, command: str) -> None:
    ended = run("project", command, "--help")
    assert ended.status == 0
    assert "Example" in ended.out
    assert f"dicomfs project {command}" in ended.out


def test_create_list_show_remove(run: Run, archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source", instances=3)
    run("import", tmp_path / "source", "-a", archive_path)
    ended = run("project", "create", "chest", *CT, "--dry-run", "-a", archive_path)
    assert (ended.status, ended.out) == (0, "chest: 3 instances, 1 series, 1 study (nothing was changed)\n")
    assert run("project", "list", "-a", archive_path, "--json").out.strip() == "[]"
    ended = run("project", "create", "chest", *CT, "-a", archive_path)
    assert (ended.status, ended.err) == (0, "")
    assert re.fullmatch(r"projects/PHI_chest_\d{14}: 3 files added\n", ended.out)
    ended = run("project", "create", "chest", *CT, "--deid", "basic", "--live", "--json", "-a", archive_path)
    made = json.loads(ended.out)
    assert re.fullmatch(r"projects/DeID_chest_\d{14}", made.pop("directory"))
    assert made.pop("root") > 1024
    assert made == {"added": 3, "withheld": 0, "failed": 0}
    listed = json.loads(run("project", "list", "-a", archive_path, "--json").out)
    assert [(one["status"], one["deid"], one["files"], one["where"]) for one in listed] == [
        ("done", "", 3, ["Modality=CT"]), ("live", "basic", 3, ["Modality=CT"]),
    ]  # fmt: skip
    shown = run("project", "list", "-a", archive_path).out
    assert listed[1]["directory"] in shown
    directory = listed[1]["directory"]
    assert "deid: basic" in run("project", "show", directory, "-a", archive_path).out
    assert run("project", "show", "chest", "-a", archive_path).status == 2  # there are two
    assert run("project", "remove", directory, "-a", archive_path).out == f"projects/{directory}: removed\n"
    assert json.loads(run("project", "show", "chest", "-a", archive_path, "--json").out)["status"] == "done"
    ended = run("project", "remove", "nobody", "-a", archive_path)
    assert ended.status == 2
    assert "dicomfs project list" in ended.err


def test_what_is_withheld_is_told_without_values(run: Run, archive_path: Path) -> None:
    add(archive_path, make_instance(), make_instance(number=2, attributes={"BurnedInAnnotation": "YES"}))
    ended = run("project", "create", "own", *CT, "--deid", "basic", "-a", archive_path)
    assert ended.out.endswith(": 1 file added, 1 withheld (see quarantine/ in it)\n")
    ended = run("project", "show", "own", "-a", archive_path)
    assert "withheld, 1: text is burned into the pixels" in ended.out
    assert json.loads(run("project", "show", "own", "--json", "-a", archive_path).out)["reasons"].keys() != set()
    for value in ("DFS-1", "Doe", "20240131"):
        assert value not in ended.out


def test_of_a_list(run: Run, archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, make_instance(), make_instance(study=2), make_instance(patient="DFS-2", study=3))
    (tmp_path / "wanted.csv").write_text("Accession Number,MRN\nA1,DFS-1\nA3,\nA9,\n")
    ended = run("project", "create", "own", "--from-list", tmp_path / "wanted.csv", "--dry-run", "-a", archive_path)
    assert ended.out == (
        "own: 2 instances, 2 series, 2 studies; 1 row of the list found nothing (nothing was changed)\n"
    )
    ended = run("project", "create", "own", "--from-list", tmp_path / "wanted.csv", "-a", archive_path)
    assert ended.out.endswith(": 2 files added; 1 row of the list found nothing\n")
    (told,) = json.loads(run("project", "list", "-a", archive_path, "--json").out)
    assert (told["from_list"], told["queries"], told["failed"], told["files"]) == ("wanted.csv", 3, 1, 2)
    # A live one has what comes later, of the studies that the list names.
    run("project", "create", "more", "--from-list", tmp_path / "wanted.csv", "--live", "-a", archive_path)
    add(
        archive_path, make_instance(number=2), make_instance(patient="DFS-9", study=9), make_instance(study=2, number=7)
    )
    assert json.loads(run("project", "show", "more", "-a", archive_path, "--json").out)["files"] == 4
    assert json.loads(run("project", "show", "own", "-a", archive_path, "--json").out)["files"] == 2


def test_a_list_of_which_no_row_can_be_looked_for_is_not_everything(
    run: Run, archive_path: Path, tmp_path: Path
) -> None:
    add(archive_path, make_instance())
    (tmp_path / "wanted.csv").write_text("Accession Number,MRN\n,DFS-1\n")
    ended = run("project", "create", "own", "--from-list", tmp_path / "wanted.csv", *CT, "-a", archive_path)
    assert ended.status == 2
    assert run("project", "list", "-a", archive_path, "--json").out.strip() == "[]"


WRONG = {
    "a name": ("create", "a/b", *CT),
    "no condition": ("create", "own"),
    "a keyword": ("create", "own", "--where", "Modalty=CT"),
    "a profile": ("create", "own", *CT, "--deid", "thorough"),
    "an empty profile": ("create", "own", *CT, "--deid", ""),
    "a header": ("create", "own", *CT, "--header", "Nonsense"),
    "no list": ("create", "own", "--from-list", "/nowhere/list.csv"),
    "nothing to go on with": ("resume", "own"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_in_a_line_and_changes_nothing(run: Run, archive_path: Path, what: str) -> None:
    add(archive_path, make_instance())
    ended = run("project", *WRONG[what], "-a", archive_path)
    assert ended.status == 2
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    assert run("project", "list", "-a", archive_path, "--json").out.strip() == "[]"


def test_interrupted_and_resumed(run: Run, archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(archive_path, *(make_instance(number=number) for number in range(1, 7)))
    monkeypatch.setattr(project_making, "COMMIT_LINKS", 2)

    def stopping(self: project_making._Adding, _done: object = project_making._Adding._done) -> None:
        if self.added == 5:
            signal.raise_signal(signal.SIGINT)
        _done(self)  # type: ignore[operator]

    with monkeypatch.context() as context:
        context.setattr(project_making._Adding, "_done", stopping)
        ended = run("project", "create", "own", *CT, "-a", archive_path)
    assert ended.status == 130
    assert "run the same command again to go on" in ended.err
    assert "unfinished" in run("project", "list", "-a", archive_path).out
    ended = run("project", "resume", "own", "-a", archive_path)
    assert ended.out.endswith(": 2 files added\n")
    assert "done" in run("project", "list", "-a", archive_path).out
    assert run("project", "resume", "own", "-a", archive_path).status == 2


def test_an_import_tells_of_a_project_without_its_key(run: Run, archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, make_instance())
    run("project", "create", "own", *CT, "--deid", "basic", "--live", "-a", archive_path)
    next((archive_path / "projects").glob("*.key")).unlink()
    write_study(tmp_path / "source", study=2, instances=1)
    ended = run("import", tmp_path / "source", "-a", archive_path)
    assert ended.status == 0
    assert "is not up to date" in ended.err
    assert "dicomfs project resume" in ended.err
    assert len(json.loads(run("import", tmp_path / "source", "-a", archive_path, "--json").out)["warnings"]) == 1
