"""Each import leaves a record: every input exactly once, what became of it, and the sums."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dicomfs.archive.outcome import FileResult, Outcome
from dicomfs.archive.runs import Run
from tests.archive.importing import add, run, sha256, write
from tests.builders import make_instance

if TYPE_CHECKING:
    import pytest

HEAD = ["outcome", "size", "sha256", "sop_instance_uid", "reason", "path"]


def table(directory: Path) -> list[list[str]]:
    text = (directory / "files.tsv").read_bytes().decode()
    assert all(character.isprintable() or character in "\t\n" for character in text)
    assert text.endswith("\n")
    head, *rows = [line.split("\t") for line in text[:-1].split("\n")]
    assert head == HEAD
    assert all(len(row) == len(HEAD) for row in rows)
    return rows


def unescaped(path: str) -> str:
    def character(match: re.Match[str]) -> str:
        named = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
        return named.get(match[1]) or chr(int(match[1][1:], 16))

    return re.sub(r"\\([tnr\\]|x..|u....|U........)", character, path)


def test_every_input_once(archive_path: Path, tmp_path: Path) -> None:
    files = {
        "imported": make_instance(number=1),
        "again": make_instance(number=1),
        "conflict": make_instance(number=1, seed="other"),
        "cut": make_instance(number=2)[:-600],
        "text": b"text",
        "below/empty": b"",
    }
    source = write(tmp_path / "source", files)
    os.mkfifo(source / "fifo")
    (source / "unreadable").symlink_to("/proc/self/mem")
    done = run(archive_path, source, tmp_path / "missing", jobs=2)
    assert done.report.run_directory is not None
    rows = table(done.report.run_directory)
    expected = [
        [result.outcome, str(result.size), result.sha256, result.sop_instance_uid, result.reason, result.source]
        for result in done.results
    ]
    assert rows == expected
    there = [str(path) for path in source.rglob("*") if not path.is_dir()]
    assert sorted(row[-1] for row in rows) == sorted([*there, str(tmp_path / "missing")])
    by_name = {Path(row[-1]).name: row for row in rows}
    for name, content in files.items():
        assert by_name[Path(name).name][1:3] == [str(len(content)), sha256(content)]


def test_paths_of_any_bytes(archive_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    names = [b"tab\there", b"line\nhere", b"return\rhere", b"back\\slash\\n", b"\xff\xfe", "Größe".encode()]
    # What a terminal would obey: controls of seven and eight bits, and marks that turn the text around.
    names += [
        "\x1b]0;owned\x07\x1b[2J\x7f\x9b2J".encode(),
        "\u202egpj\u2066\u2028\u200f\ufeff\U000e0041".encode(),
        b"\x9b2J",
    ]
    for name in names:
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(b"text")
    done = run(archive_path, source)
    assert done.report.run_directory is not None
    told = [os.fsencode(unescaped(row[-1])).rpartition(b"/")[2] for row in table(done.report.run_directory)]
    assert sorted(told) == sorted(names)


def test_the_log_has_the_sums(archive_path: Path) -> None:
    done = add(archive_path, make_instance(number=1), make_instance(number=2), b"text")
    assert done.report.run_directory is not None
    log = (done.report.run_directory / "import.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\dT\S+Z import began", log)
    assert "2 imported, 1 skipped" in log.splitlines()[-1]
    assert "Doe" not in log


def test_a_run_that_stopped_says_why(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomfs.errors import StorageFull
    from dicomfs.store.writer import Writer

    def full(self: Writer, *_: object) -> int:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(Writer, "commit", full)
    done = add(archive_path, make_instance(number=1), b"text")
    assert done.report.run_directory is not None
    assert "stopped: the disk is full" in (done.report.run_directory / "import.log").read_text()
    assert [row[0] for row in table(done.report.run_directory)] == ["failed", "skipped"]


def test_each_run_has_its_own(archive_path: Path) -> None:
    directories = [add(archive_path, make_instance(number=number)).report.run_directory for number in range(1, 4)]
    assert len(set(directories)) == 3
    assert sorted(directories) == directories == sorted((archive_path / "runs").iterdir())


def test_runs_of_one_moment_are_apart(tmp_path: Path) -> None:
    made = [Run(tmp_path) for _ in range(20)]
    assert len({one.directory for one in made}) == 20
    made[0].add(FileResult("x\ty", Outcome.SKIPPED, "reason", 1, "", ""))
    for one in made:
        one.close()
    assert table(made[0].directory) == [["skipped", "1", "", "", "reason", "x\\ty"]]
