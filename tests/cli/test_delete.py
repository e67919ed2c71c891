"""Delete, restore and history by command line, on real files, with pydicom as the reader of what is exported."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from dicomfs.archive.check import check
from dicomfs.archive.history import Asked, lines
from tests.archive.importing import add, sha256, tree
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

STUDY, SERIES, INSTANCE = uid("DFS-1", 1), uid("DFS-1", 1, 1), uid("DFS-1", 1, 1, 2)


@pytest.mark.parametrize("command", ["delete", "restore", "history"])
def test_help_is_a_manual(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.status == 0
    assert "Examples:" in ended.out
    assert f"dicomfs {command}" in ended.out


def exported(run: Run, archive: Path, target: Path) -> dict[str, str]:
    """Return what an export has: the SHA-256 of each file, and pydicom finds the UID that its metadata says."""
    assert run("export", "--all", "-o", target, "-a", archive).status == 0
    found: dict[str, str] = {}
    for path in sorted(target.rglob("*.dcm")):
        found[str(path.relative_to(target))] = hashlib.sha256(path.read_bytes()).hexdigest()
        data = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        assert data.get("SOPInstanceUID") is not None
    return found


def instances(run: Run, archive: Path, *conditions: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        run("query", "-a", archive, "--level", "instance", "--json", *conditions).out
    )
    return found


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_every_study_of_real_files_goes_and_comes_back(
    run: Run, archive_path: Path, tmp_path: Path, corpus: Path
) -> None:
    """One study by its UID, one by its series, one by its instances; then all of them by the commits' numbers."""
    run(
        "import",
        corpus / "neurolabusc+dcm_qa_ct",
        corpus / "pydicom+pydicom",
        "-a",
        archive_path,
        "--on-conflict",
        "replace",
    )
    before = exported(run, archive_path, tmp_path / "before")
    listed = run("list", "--show-instances", "--json", "-a", archive_path).out
    assert len(before) > 50
    for number, study in enumerate(json.loads(run("query", "--json", "-a", archive_path).out)[:12]):
        name = str(study["StudyInstanceUID"])
        mine = instances(run, archive_path, "--study-uid", name)
        keyword, option = (
            ("StudyInstanceUID", "--study-uid"), ("SeriesInstanceUID", "--series-uid"), ("SOPInstanceUID", "--sop-uid")
        )[number % 3]  # fmt: skip
        named = [word for one in sorted({str(one[keyword]) for one in mine}) for word in (option, one)]
        done = run("delete", *named, "--study-uid", name, "--reason", "a test", "--json", "-a", archive_path)
        assert (done.status, done.err) == (0, "")
        assert json.loads(done.out)["instances"] == len(mine)
        assert instances(run, archive_path, "--study-uid", name) == []
        assert name not in run("list", "-a", archive_path).out
        assert run("delete", *named, "--study-uid", name, "-a", archive_path).status == 1
    left = exported(run, archive_path, tmp_path / "left")
    assert left.items() < before.items()
    commits = [
        one["commit"] for one in json.loads(run("history", "--json", "-a", archive_path).out) if one["op"] == "delete"
    ]
    for commit in commits:
        ended = run("restore", "--undo", commit, "-a", archive_path)
        assert (ended.status, ended.err) == (0, "")
    assert exported(run, archive_path, tmp_path / "after") == before
    assert run("list", "--show-instances", "--json", "-a", archive_path).out == listed


def test_what_is_said_of_a_delete(run: Run, archive_path: Path) -> None:
    add(archive_path, *make_series(3), *make_series(1, patient="DFS-2"))
    assert run("delete", "--study-uid", STUDY, "-n", "-a", archive_path).out.startswith("would delete 3 instances in 1")
    assert len(tree(archive_path)) == 4
    ended = run("delete", "--study-uid", STUDY, "--reason", "sent by mistake", "-a", archive_path)
    assert "deleted 3 instances in 1 series of 1 study" in ended.out
    assert f"dicomfs restore -a {archive_path} --undo 2" in ended.out
    found = json.loads(run("stats", "--json", "-a", archive_path).out)
    assert (found["patients"], found["studies"], found["instances"]) == (1, 1, 1)
    assert found["earlier_versions"]["instances"] == 3
    assert "3 files, replaced or deleted and kept" in run("stats", "-a", archive_path).out
    assert "sent by mistake" in run("history", "-a", archive_path).out


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("delete",), 2, "--study-uid"),
        (("delete", "--patient-id", "DFS-1"), 2, "--study-uid"),
        (("delete", "--study-uid", "1.2.*"), 2, "wildcards"),
        (("delete", "--study-uid", "1.2.3"), 1, "no study 1.2.3"),
        (("delete", "--study-uid", STUDY, "--study-uid", "1.2.3"), 1, "no study 1.2.3"),
        (("delete", "--study-uid", STUDY, "--patient-id", "DFS-2"), 1, "of this patient"),
        (("delete", "--sop-uid", INSTANCE, "--series-uid", "1.2.3"), 1, "no series 1.2.3"),
        (("delete", "--study-uid", STUDY, "--reason", "x" * 1001), 2, "1000 characters"),
        (("restore", "--study-uid", STUDY), 1, "nothing of that is deleted"),
        (("restore", "--undo", "1"), 1, "deleted and replaced nothing"),
        (("restore", "--undo", "99"), 1, "no commit 99"),
        (("restore", "--undo", "9" * 30), 1, "no commit 99"),
        (("restore", "--undo", "1", "--study-uid", STUDY), 2, "name nothing else"),
        (("restore", "--study-uid", STUDY, "--version", "1"), 2, "--sop-uid"),
        (("restore", "--sop-uid", INSTANCE, "--version", "1"), 1, "shown already"),
        (("restore", "--sop-uid", INSTANCE, "--version", "2"), 1, "no version"),
        (("restore", "--sop-uid", INSTANCE, "--version", "xyz"), 2, "no version"),
        (("history", "--sop-uid", "1.2"), 1, "no instance 1.2"),
        (("history", "--patient-id", "DFS-9"), 1, "no patient"),
        (("history", "--since", "yesterday"), 2, "not a time"),
    ],
)
def test_mistakes_change_nothing(run: Run, archive_path: Path, words: tuple[str, ...], status: int, told: str) -> None:
    add(archive_path, *make_series(2), *make_series(1, patient="DFS-2"))
    before = tree(archive_path)
    ended = run(*words, "-a", archive_path)
    assert (ended.status, ended.out) == (status, "")
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert tree(archive_path) == before
    assert len(json.loads(run("history", "--json", "--all", "-a", archive_path).out)) == 1


def test_an_import_of_many_commits_is_one_line(run: Run, archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomfs.archive.ingest.COMMIT_S", 0.0)
    monkeypatch.setattr("dicomfs.archive.inputs.BATCH_FILES", 4)
    add(archive_path, *make_series(40, rows=8, columns=8))
    add(archive_path, make_instance(patient="DFS-2"))
    (first, second) = json.loads(run("history", "--json", "-a", archive_path).out)
    assert (first["counts"], second["counts"]) == ({"imported": 40}, {"imported": 1})
    assert first["commits"] == first["last_commit"] > 1
    assert (archive_path / "runs" / first["run"]).is_dir()
    every = json.loads(run("history", "--json", "--all", "-a", archive_path).out)
    assert len(every) == first["commits"] + 1
    since = json.loads(run("history", "--json", "--since", second["time"], "-a", archive_path).out)
    assert since == [second]
    until = json.loads(run("history", "--json", "--until", first["last_time"], "-a", archive_path).out)
    assert until == [first]


def test_versions_of_an_instance(run: Run, archive_path: Path) -> None:
    contents = [make_instance(number=2, seed=seed) for seed in ("a", "b", "c")]
    for content in contents:
        add(archive_path, content, on_conflict="replace")
    run("delete", "--sop-uid", INSTANCE, "-a", archive_path)
    run("restore", "--sop-uid", INSTANCE, "--version", sha256(contents[0])[:8], "-a", archive_path)
    found = json.loads(run("history", "--sop-uid", INSTANCE, "--json", "-a", archive_path).out)
    told = [(one["version"], one["from_commit"], one["to_commit"], one["state"]) for one in found]
    assert told == [(1, 1, 2, "replaced"), (2, 2, 3, "replaced"), (3, 3, 4, "deleted"), (1, 5, None, "shown")]
    assert [one["sha256"] for one in found] == [sha256(contents[at]) for at in (0, 1, 2, 0)]
    assert {one["ino"]: one["version"] for one in found}.keys() == {one["ino"] for one in found}
    assert [file.sha256 for file in tree(archive_path).values()] == [sha256(contents[0])]
    lines = run("history", "--sop-uid", INSTANCE, "-a", archive_path).out.splitlines()
    assert [line.split()[-1] for line in lines[2:]] == ["replaced", "replaced", "deleted", "shown"]
    ended = run("restore", "--undo", 2, "-a", archive_path)
    assert (ended.status, ended.out) == (1, "restored nothing\n")
    assert "it is shown again" in ended.err
    for uids, counts in (
        (
            ("--series-uid", SERIES),
            [{"imported": 1}, {"replaced": 1}, {"replaced": 1}, {"deleted": 1}, {"restored": 1}],
        ),
        (("--study-uid", STUDY), [{"imported": 1}, {"replaced": 1}, {"replaced": 1}, {"deleted": 1}, {"restored": 1}]),
    ):
        told = [one["counts"] for one in json.loads(run("history", *uids, "--json", "-a", archive_path).out)]
        assert told == counts


def test_undo_takes_back_what_a_commit_did_and_tells_of_the_rest(run: Run, archive_path: Path) -> None:
    add(archive_path, *make_series(4))
    add(
        archive_path,
        *(make_instance(number=number, seed=f"new{number}") for number in (1, 2, 3)),
        on_conflict="replace",
    )
    before = {file.sha256 for file in tree(archive_path).values()}
    add(archive_path, make_instance(number=1, seed="newer"), on_conflict="replace")
    run("delete", "--sop-uid", uid("DFS-1", 1, 1, 2), "-a", archive_path)
    ended = run("restore", "--undo", 2, "--json", "-a", archive_path)
    assert ended.status == 1
    done = json.loads(ended.out)
    assert done["instances"] == 1
    assert {one["reason"] for one in done["left"]} == {
        "what took its place was replaced since, by commit 3", "what took its place was deleted since, by commit 4"
    }  # fmt: skip
    assert len(before & {file.sha256 for file in tree(archive_path).values()}) == 1
    assert run("restore", "--undo", done["commit"], "-a", archive_path).status == 0
    assert check(archive_path, verify_files=True).problems == []


def test_two_issuers_of_one_uid(run: Run, archive_path: Path) -> None:
    """A study whose files name two patients: --patient-id takes those of one."""
    other = [make_instance(number=9, attributes={"PatientID": "X"})]
    add(archive_path, *make_series(2), *other)
    ended = run("delete", "--study-uid", STUDY, "--patient-id", "X", "--json", "-a", archive_path)
    assert json.loads(ended.out)["instances"] == 1
    assert [path.partition("_")[0] for path in tree(archive_path)] == ["DFS-1", "DFS-1"]
    ended = run("restore", "--study-uid", STUDY, "--patient-id", "X", "-a", archive_path)
    assert ended.status == 0
    assert len(tree(archive_path)) == 3


def test_nothing_is_read_as_a_whole(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come while commits are read, a few at a time."""
    from dicomfs.archive import history
    from dicomfs.archive.archive import Archive

    monkeypatch.setattr(history, "_AT_ONCE", 2)
    for number in range(1, 6):
        add(archive_path, make_instance(number=number, rows=8, columns=8))
    with Archive.open(archive_path) as opened:
        assert [line.event.seq for line in lines(opened, Asked())] == [1, 2, 3, 4, 5]


def test_one_of_two_versions_that_are_shown_is_deleted(run: Run, archive_path: Path) -> None:
    contents = [make_instance(number=2, seed=seed) for seed in ("a", "b")]
    for content in contents:
        add(archive_path, content, on_conflict="keep")
    before = tree(archive_path)
    assert len(before) == 2
    for words, status, told in (
        (("--sop-uid", INSTANCE, "--version", "3"), 1, "no version"),
        (("--study-uid", STUDY, "--version", "1"), 2, "--sop-uid"),
    ):
        ended = run("delete", *words, "-a", archive_path)
        assert ended.status == status
        assert told in ended.err
    chosen = ("--sop-uid", INSTANCE, "--version", sha256(contents[0])[:12])
    assert run("delete", *chosen, "-n", "-a", archive_path).out.startswith("would delete 1 instance in")
    assert run("delete", *chosen, "-a", archive_path).out.startswith("deleted 1 instance in")
    assert [file.sha256 for file in tree(archive_path).values()] == [sha256(contents[1])]
    assert "is shown" in run("delete", *chosen, "-a", archive_path).err
    assert run("restore", "--undo", 3, "-a", archive_path).status == 0
    assert tree(archive_path) == before
    assert not check(archive_path, verify_files=True).problems
