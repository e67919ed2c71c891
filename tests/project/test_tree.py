"""What is tracked: nothing of one machine, modules of one subject, and documents that tell the truth."""

import ast
import re
import subprocess
from pathlib import Path

import click
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted((CHECKOUT / "dicomfs").rglob("*.py"))
PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


@pytest.mark.parametrize(
    "pattern",
    [
        r"/(work|farm)/[a-z]|/root/\.|/home/[a-z]+/",
        r"(pypi|pythonhosted|npmjs|debian)\.(org|com)",
        r"--(extra-)?index-url|--trusted-host",
    ],
    ids=["machine paths", "registry hosts", "registry options"],
)
def test_nothing_of_one_machine(pattern: str) -> None:
    me = f":!{name(Path(__file__).resolve())}"
    found = subprocess.run(
        ["git", "grep", "-nIE", "-e", pattern, "--", ".", me], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (1, "")


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_module_is_one_subject(module: Path) -> None:
    source = module.read_text()
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring
    assert len(source.splitlines()) <= 400


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page: Path) -> None:
    named = re.findall(r"`((?:dicomfs|docs|scripts|tests|\.ci)/[\w./-]*\w)(?:::\w+)?/?`", page.read_text())
    assert [path for path in named if not (CHECKOUT / path).exists()] == []


def invocations(page: Path) -> list[list[str]]:
    """Return the words of each `dicomfs COMMAND …` line in the page's blocks of commands."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = [re.sub(r"^(\$|sudo|\s)+", "", line) for line in text.splitlines()]
    return [line.split("#")[0].split() for line in lines if re.match(r"dicomfs( |$)", line)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_shown_commands_exist(page: Path) -> None:
    from dicomfs.cli.commands import cli

    for words in invocations(page):
        command: click.Command = cli
        for word in words[1:]:
            if not isinstance(command, click.Group) or word.startswith("-") or not word.islower():
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"{name(page)} shows {word}"
            command = found
        options = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)} - {"--help", "--version"}
        assert used <= options, f"{name(page)} shows {' '.join(words)}"


def test_readme_shows_commands() -> None:
    assert len(invocations(CHECKOUT / "README.md")) >= 8
