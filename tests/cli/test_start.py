"""The command line starts quickly, explains itself, and tells a wrong request from a failure."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import dicomfs
from dicomfs.cli.commands import _COMMANDS, cli

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Filled, Run

HEAVY = {"pydicom", "pyfuse3", "trio", "numpy", "lmdb", "zstandard", "isal", "rich"}


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help_loads_nothing_heavy(command: str) -> None:
    program = (
        "import sys; from dicomfs.cli import main; status = main(sys.argv[1:]);"
        "print('|'.join(m.partition('.')[0] for m in sys.modules), file=sys.stderr); sys.exit(status)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *([command] if command else []), "--help"], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Usage: dicomfs")
    assert not HEAVY & set(ended.stderr.strip().split("|"))


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_is_a_manual(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.status == 0
    assert "Example" in ended.out
    assert f"dicomfs {command}" in ended.out
    for line in ended.out.splitlines():
        assert len(line) <= 100


def test_help_of_all_lists_every_command(run: Run) -> None:
    ended = run("--help")
    assert ended.status == 0
    for command in _COMMANDS:
        assert f"\n  {command} " in ended.out


def test_version(run: Run) -> None:
    assert run("--version").out == f"dicomfs {dicomfs.__version__}\n"


def test_the_module_is_the_program() -> None:
    ended = subprocess.run([sys.executable, "-m", "dicomfs.cli", "--version"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, f"dicomfs {dicomfs.__version__}\n")


def test_an_interrupt_while_it_starts(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    path = [str(tmp_path), *sys.path]
    program = f"import sys; sys.path[:] = {path!r}; from dicomfs.cli import main; sys.exit(main(['stats']))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "dicomfs: interrupted\n")


def test_nothing_asked(run: Run) -> None:
    ended = run()
    assert ended.status == 2
    assert ended.out == ""
    assert "Usage: dicomfs" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate' (see"),
        (["improt", "x"], "No such command 'improt'; did you mean 'import'? (see dicomfs --help)"),
        (["query", "--frobnicate"], "No such option '--frobnicate'"),
        (["query"], "Missing option '--archive' / '-a'"),
        (["import", "-a", "x"], "Missing argument"),
        (["query", "-a", "x", "--level", "patient"], "'patient' is not one of"),
        (["import", "-a", "x", "--on-conflict", "skip", "--jobs", "0", "y"], "'--jobs'"),
        (["import", "-a", "x", "--on-conflict", "keep", "--skip-duplicates", "y"], "contradicts"),
        (["export", "-a", "x", "--output", "y"], "say what to export"),
        (["export", "-a", "x", "--all", "--patient-id", "1", "-o", "y"], "leave it out to export a part"),
        (["init"], "name one directory"),
        (["init", "a", "--path", "b"], "name one directory"),
        (["mount", "x"], "Missing argument 'MOUNTPOINT'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_requests(run: Run, arguments: list[str], message: str) -> None:
    ended = run(*arguments)
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err.startswith("dicomfs: ")
    assert ended.err.count("\n") == 1
    assert message in ended.err


@pytest.mark.parametrize(
    "arguments",
    [["query"], ["list"], ["stats"], ["check"], ["reindex"], ["export", "--all", "--output", "out"], ["import", "x"]],
    ids=" ".join,
)
def test_no_archive(run: Run, tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments, "--archive", tmp_path)
    assert ended.status == 3
    assert ended.out == ""
    assert ended.err.startswith(f"dicomfs: {tmp_path}: not a dicomfs archive")
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_instead_of_an_archive(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a directory").mkdir()
    for name, said in (
        ("missing", "no such directory"),
        ("file", "is not a directory, so not a dicomfs archive"),
        ("a directory", f"not a dicomfs archive; to make one there: dicomfs init '{tmp_path}/a directory'"),
    ):
        ended = run("stats", "-a", tmp_path / name)
        assert (ended.status, ended.err) == (3, f"dicomfs: {tmp_path}/{name}: {said}\n")


def test_the_archive_from_the_environment(run: Run, filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMFS_ARCHIVE", str(filled.path))
    assert run("query").status == 0


def test_completion_of_a_shell() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import sys; from dicomfs.cli import main; sys.exit(main())"],
        env={"_DICOMFS_COMPLETE": "bash_complete", "COMP_WORDS": "dicomfs im", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.stdout.strip() == "plain,import"


def test_options_have_help() -> None:
    context = cli.make_context("dicomfs", ["init", "x"])
    for name in _COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or getattr(parameter, "help", None), (name, parameter)
