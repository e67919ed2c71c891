"""`dicomfs attach`, `dicomfs attachments` and `dicomfs layout add --prefix`: what is printed, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.nbss import MAX_BYTES
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

NBSS = b'{"7": {"EpisodeOpenedDate": "20240101"}}\n'


@pytest.fixture
def nbss(run: Run, archive_path: Path, tmp_path: Path) -> Path:
    """Return a document; the archive holds files of the patients A, of two issuers, and B."""
    (tmp_path / "source").mkdir()
    for name, patient, attributes in (("1", "A", {}), ("2", "A", {"IssuerOfPatientID": "X"}), ("3", "B", {})):
        (tmp_path / "source" / name).write_bytes(make_instance(patient=patient, study=name, attributes=attributes))
    run("import", tmp_path / "source", "-a", archive_path)
    (tmp_path / "nbss_b.json").write_bytes(NBSS)
    return tmp_path / "nbss_b.json"


@pytest.mark.parametrize("command", ["attach", "attachments"])
def test_help_is_a_manual(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.status == 0
    assert "Examples:" in ended.out
    assert f"dicomfs {command}" in ended.out


def test_attach_list_print_remove(run: Run, archive_path: Path, nbss: Path) -> None:
    ended = run("attach", nbss, "--patient-id", "B", "-a", archive_path)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("attached, version ")
    first = int(ended.out.split()[-1])
    assert run("attach", nbss, "--patient-id", "B", "-a", archive_path).out == "attached already\n"
    second = json.loads(run("attach", nbss, "--patient-id", "A", "--issuer", "X", "-a", archive_path, "--json").out)
    assert [(one["file"], one["status"]) for one in second] == [(str(nbss), "attached")]
    nbss.write_bytes(b"{}")
    run("attach", nbss, "--patient-id", "B", "-a", archive_path)
    assert run("attach", "--remove", "--patient-id", "B", "-a", archive_path).out.startswith("removed, version ")
    assert run("attach", "--remove", "--patient-id", "B", "-a", archive_path).out == "nothing was attached\n"
    ended = run("attachments", "-a", archive_path)
    lines = ended.out.splitlines()
    assert lines[0].split() == ["Version", "Time", "Status", "PatientID", "Kind", "File", "Bytes"]
    assert [line.split()[2] for line in lines[2:]] == ["earlier", "shown", "earlier", "removed"]
    assert ended.err == "4 versions\n"
    found = json.loads(run("attachments", "--patient-id", "B", "-a", archive_path, "--json").out)
    assert [(one["number"], one["status"], one["size"]) for one in found] == [
        (first, "earlier", len(NBSS)), (found[1]["number"], "earlier", 2), (found[2]["number"], "removed", 0),
    ]  # fmt: skip
    assert (found[0]["name"], found[0]["issuer"]) == ("nbss_b.json", "")
    done = subprocess.run(
        [sys.executable, "-m", "dicomfs.cli", "attachments", "--print", str(first), "-a", str(archive_path)],
        capture_output=True, env={**os.environ, "DICOMFS_DEBUG": "0"}, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, NBSS)
    assert run("attachments", "--print", found[2]["number"], "-a", archive_path).status == 1
    assert run("attachments", "--print", 1, "-a", archive_path).status == 1


def test_an_archive_without_any(run: Run, archive_path: Path) -> None:
    ended = run("attachments", "-a", archive_path)
    assert (ended.status, ended.out, ended.err) == (0, "", "0 versions\n")
    assert run("attachments", "-a", archive_path, "--json").out == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("attach",),
        ("attach", "--patient-id", "B"),
        ("attach", "--remove"),
        ("attach", "FILE"),  # of a patient b, whom the archive does not know
        ("attach", "FILE", "FILE", "--patient-id", "B"),
        ("attach", os.devnull),
        ("attach", "FILE", "--patient-id", "B", "--remove"),
        ("attach", "FILE", "--patient-id", "nobody"),
        ("attach", "FILE", "--patient-id", "A"),
        ("attach", "FILE", "--patient-id", ""),
        ("attach", "FILE", "--patient-id", "B", "--issuer", "Y"),
        ("attach", "no-such-file", "--patient-id", "B"),
        ("attach", ".", "--patient-id", "B"),
        ("attach", os.devnull, "--patient-id", "B"),
        ("attach", "/dev/zero", "--patient-id", "B"),
        ("attachments", "--issuer", "X"),
        ("attachments", "--print", "0"),
        ("attachments", "--print", "7", "--json"),
        ("attachments", "--patient-id", "nobody"),
        ("layout", "add", "omidb", "--prefix", "opt"),
        ("layout", "add", "icore", "--prefix", "optm"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_changes_nothing(
    run: Run, archive_path: Path, nbss: Path, arguments: tuple[str, ...]
) -> None:
    words = [str(nbss) if word == "FILE" else word for word in arguments]
    ended = run(*words, "-a", archive_path) if len(words) > 1 else run(*words)
    assert ended.status == 2
    assert "Traceback" not in ended.err
    assert "nobody" not in ended.err
    assert run("attachments", "-a", archive_path).err == "0 versions\n"


@pytest.mark.parametrize("number", [7, 1 << 64, 1 << 99])
def test_a_version_that_is_not_there(run: Run, archive_path: Path, number: int) -> None:
    ended = run("attachments", "--print", number, "-a", archive_path)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"dicomfs: there is no attachment {number}; see 'dicomfs attachments'\n"


def test_a_document_says_where_it_is_wrong(run: Run, archive_path: Path, nbss: Path) -> None:
    nbss.write_text('{\n "7": {,}\n}')
    ended = run("attach", nbss, "--patient-id", "B", "-a", archive_path)
    assert (ended.status, "line 2, column 8" in ended.err) == (2, True)
    nbss.write_bytes(b" " * MAX_BYTES + b"{}")
    assert "longer than" in run("attach", nbss, "--patient-id", "B", "-a", archive_path).err


def test_the_prefix_of_clients(run: Run, archive_path: Path, nbss: Path, tmp_path: Path) -> None:
    ended = run("layout", "add", "omidb", "--prefix", "optm", "-a", archive_path)
    assert (ended.status, ended.out) == (0, "omidb: on, 3 files placed\n")
    assert "{client:optm}" in run("layout", "show", "omidb", "-a", archive_path).out
    run("attach", nbss, "--patient-id", "B", "-a", archive_path)
    output = tmp_path / "out"
    ended = run("export", "--all", "--layout", "omidb", "-o", output, "-a", archive_path)
    assert ended.status == 0
    found = sorted(path.name for path in (output / "images").iterdir())
    assert found == sorted(path.name for path in (output / "data").iterdir())
    assert found == ["optm0000001", "optm0000002", "optm0000003"]
    told = json.loads((output / "data" / found[2] / f"nbss_{found[2]}.json").read_text())
    study = uid("B", "3")
    assert set(told) == {"7"}
    header = output / "data" / found[2] / study / f"{uid('B', '3', 1, 1)}.json"
    assert json.loads(header.read_text())["00100020"]["Value"] == ["B"]
    again = run("export", "--all", "--layout", "omidb", "-o", output, "-a", archive_path)
    assert " 0 written" in again.out + again.err
    mine = run("layout", "add", "mine", "{client}/{SOPInstanceUID}.dcm", "--prefix", "abcd", "-a", archive_path)
    assert mine.status == 0
    assert run("layout", "show", "mine", "-a", archive_path).out == "{client:abcd}/{SOPInstanceUID}.dcm\n"


def test_what_is_no_file_keeps_nobody_waiting(run: Run, archive_path: Path, nbss: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        ended = run("attach", "--patient-id", "B", path, "-a", archive_path)
        assert ended.status == 2
        assert ("is not a file" if path.is_fifo() else "Is a directory") in ended.err
    assert run("attach", "--patient-id", "B", nbss, "-a", archive_path).status == 0


def test_many_at_once(run: Run, archive_path: Path, nbss: Path, tmp_path: Path) -> None:
    """Whose each is says its name; what is refused is told, and keeps nothing else from being attached."""
    (tmp_path / "NBSS_B.json").write_bytes(NBSS)
    (tmp_path / "nbss_none.json").write_bytes(NBSS)
    (tmp_path / "nbss_A.json").write_bytes(b"[]")
    files = [tmp_path / name for name in ("nbss_none.json", "nbss_A.json", "NBSS_B.json", "no_such.json")]
    before = len(list((archive_path / "packs").iterdir()))
    ended = run("attach", *files, "-a", archive_path)
    assert (ended.status, ended.out) == (1, "4 documents: 1 attached, 0 already, 3 refused\n")
    assert [line.partition(": ")[0] for line in ended.err.splitlines()] == [str(files[at]) for at in (0, 1, 3)]
    assert ended.err.count(str(files[3])) == 1
    found = json.loads(run("attachments", "-a", archive_path, "--json").out)
    assert [(one["patient_id"], one["name"]) for one in found] == [("B", "NBSS_B.json")]
    assert len(list((archive_path / "packs").iterdir())) == before + 1
    (tmp_path / "nbss_A.json").write_bytes(NBSS)
    ended = run("attach", files[1], files[2], "--issuer", "X", "-a", archive_path)
    assert ended.out == "2 documents: 1 attached, 0 already, 1 refused\n"
    assert run("attach", files[2], "-a", archive_path).out == "attached already\n"
