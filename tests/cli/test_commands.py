"""Each command does what it says, prints what was asked for, and ends with the right status."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.cli.terminal import branches, shown, size_text
from tests.builders import make_instance, uid, write_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Filled, Run


def test_init(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "an archive"
    ended = run("init", "--path", path, "--codec", "none")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err.endswith(f"dicomfs import -a '{path}' FILES…\n")
    with Archive.open(path) as archive:
        assert archive.settings.codec == "none"


@pytest.mark.parametrize("force", [False, True])
def test_init_where_an_archive_is(run: Run, archive_path: Path, *, force: bool) -> None:
    ended = run("init", archive_path, *(["--force"] if force else []))
    assert ended.status == 2
    assert ended.err == f"dicomfs: {archive_path}: is a dicomfs archive already\n"


def test_init_in_a_directory_that_holds_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    assert run("init", tmp_path).status == 2
    assert run("init", tmp_path, "--force").status == 0
    assert (tmp_path / "file").read_text() == "kept"


def test_import_a_directory_twice(run: Run, archive_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_study(source, series=2, instances=3)
    (source / "notes.txt").write_text("not DICOM")
    ended = run("import", source, "-a", archive_path)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("7 files: 6 imported, 1 skipped; ")
    ended = run("import", source, "-a", archive_path, "--recursive", "--json")
    assert (ended.status, ended.err) == (0, "")
    report = json.loads(ended.out)
    assert (report["imported"], report["present"], report["skipped"], report["files"]) == (0, 6, 1, [])


def test_import_not_recursive(run: Run, archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source")
    report = json.loads(run("import", tmp_path / "source", "-a", archive_path, "--no-recursive", "--json").out)
    assert report["imported"] == 0


def test_import_what_is_refused(run: Run, archive_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "cut off").write_bytes(make_instance()[:-100])
    (source / "good").write_bytes(make_instance(number=2))
    (source / "text").write_text("not DICOM")
    ended = run("import", source, "-a", archive_path)
    assert ended.status == 1
    assert ended.err.startswith(f"quarantined: {source}/cut off: ")
    assert ended.err.count("\n") == 1
    assert "1 imported, 1 quarantined, 1 skipped" in ended.out


@pytest.mark.parametrize(("name", "outcome"), [("text", "skipped"), ("missing", "failed")])
def test_import_a_file_named_itself(run: Run, archive_path: Path, tmp_path: Path, name: str, outcome: str) -> None:
    (tmp_path / "text").write_text("not DICOM")
    ended = run("import", tmp_path / name, "-a", archive_path, "--json")
    assert ended.status == 1
    report = json.loads(ended.out)
    assert not report["complete"]
    (told,) = report["files"]
    assert (told["source"], told["outcome"]) == (str(tmp_path / name), outcome)
    assert told["reason"]


def test_import_tells_of_a_few_only(run: Run, archive_path: Path, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").write_bytes(make_instance(number=number)[:-100])
    ended = run("import", tmp_path, "-a", archive_path)
    assert ended.err.count("quarantined: ") == 20
    assert "and 10 more; see " in ended.err


def test_import_verbose(run: Run, archive_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2Jb").write_bytes(make_instance())
    ended = run("import", tmp_path, "-a", archive_path, "--verbose")
    assert ended.err == f"imported: {tmp_path}/a\\x1b[2Jb\n"


@pytest.mark.parametrize(
    ("options", "status", "shown_instances"),
    [
        ([], 0, 2),
        (["--on-conflict", "keep"], 0, 2),
        (["--on-conflict", "replace"], 0, 1),
        (["--on-conflict", "skip"], None, 1),
        (["--skip-duplicates"], None, 1),
        (["--on-conflict", "error"], 1, 1),
    ],
    ids=str,
)
def test_import_conflicts(
    run: Run, archive_path: Path, tmp_path: Path, options: list[str], status: int | None, shown_instances: int
) -> None:
    for seed in ("first", "second"):
        (tmp_path / "file").write_bytes(make_instance(seed=seed))
        ended = run("import", tmp_path / "file", "-a", archive_path, "--json", *options)
    assert status is None or ended.status == status
    report = json.loads(ended.out)
    assert report["conflict"] == 1
    assert len(report["files"]) == ("skip" not in "".join(options))
    found = json.loads(run("query", "-a", archive_path, "--level", "instance", "--json").out)
    assert len(found) == shown_instances
    expected = "second" if "replace" in options else "first"
    sha256 = hashlib.sha256(make_instance(seed=expected)).hexdigest()
    assert [one["sha256"] for one in found if one["current"]] == [sha256]


def test_import_tells_of_conflicts(run: Run, archive_path: Path, tmp_path: Path) -> None:
    for seed in ("first", "second"):
        (tmp_path / "file").write_bytes(make_instance(seed=seed))
        ended = run("import", tmp_path / "file", "-a", archive_path)
    assert ended.status == 0
    assert ended.err == f"conflict: {tmp_path}/file: kept beside an earlier file of the same SOP Instance UID\n"


def test_import_of_an_archive(run: Run, archive_path: Path, tmp_path: Path) -> None:
    Archive.init(tmp_path / "other")
    ended = run("import", tmp_path / "other", "-a", archive_path)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"dicomfs: {tmp_path}/other: is a dicomfs archive; mount it")


def test_dry_run_changes_nothing(run: Run, archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source")
    ended = run("import", tmp_path / "source", "-a", archive_path, "--dry-run")
    assert ended.status == 0
    assert "4 imported (nothing was changed)" in ended.out
    assert json.loads(run("stats", "-a", archive_path, "--json").out)["instances"] == 0


def test_query_table(run: Run, filled: Filled) -> None:
    ended = run("query", "-a", filled.path, "--patient-name", "DOE*")
    assert (ended.status, ended.err) == (0, "")
    header, line, row = ended.out.splitlines()
    assert header.split()[:2] == ["PatientName", "PatientID"]
    assert set(line) == {"-", " "}
    assert row.split() == ["Doe^Jane", "DFS-1", "2024-01-31", "CT", "Study", "1", "2", "7", uid("DFS-1", 1)]


def test_query_of_instances(run: Run, filled: Filled) -> None:
    ended = run("query", "-a", filled.path, "--level", "instance", "--study-uid", uid("DFS-1", 1), "--json")
    found = json.loads(ended.out)
    by_sha256 = {one["sha256"]: one for one in found}
    for path, sha256 in filled.sources.items():
        if "/1/" in str(path):
            assert by_sha256[sha256]["size"] == path.stat().st_size
    assert len(found) == 7
    assert {one["path"] for one in found if not one["current"]} == {one["path"] for one in found if "~" in one["path"]}
    assert len({one["ino"] for one in found}) == 7
    assert by_sha256[filled.sources[next(iter(filled.sources))]]["path"] == (
        "patients/DFS-1_Doe_Jane/20240131_1015_Study 1/0001_CT_Series 1/00001.dcm"
    )


def test_query_conditions_meet(run: Run, filled: Filled) -> None:
    def numbers(*options: str) -> list[int]:
        ended = run("query", "-a", filled.path, "--level", "instance", "--format", "json", *options)
        return sorted(one["InstanceNumber"] for one in json.loads(ended.out))

    assert numbers("--modality", "MR") == [1, 2]
    assert numbers("--modality", "mr", "--where", "InstanceNumber=2") == [2]
    assert numbers("--patient-id", "P-?", "--study-date", "20240101-20241231", "--accession-number", "A1") == [1, 2]
    assert numbers("--series-uid", uid("DFS-1", 1, 2)) == [1, 2, 3]
    assert numbers("--where", "Manufacturer=*tests", "--where", "PhotometricInterpretation=mono*") == [
        1, 1, 1, 1, 2, 2, 2, 3, 3,
    ]  # fmt: skip
    assert numbers("--patient-id", "nobody") == []


def test_query_finds_nothing(run: Run, filled: Filled) -> None:
    for output_format in ("table", "text"):
        ended = run("query", "-a", filled.path, "--patient-id", "nobody", "--format", output_format)
        assert (ended.status, ended.out, ended.err) == (0, "", "no study matches\n")
    assert run("query", "-a", filled.path, "--patient-id", "nobody", "--json").out == "[]\n"


@pytest.mark.parametrize("condition", ["NoSuchKeyword=1", "PatientID"])
def test_query_for_no_attribute(run: Run, filled: Filled, condition: str) -> None:
    ended = run("query", "-a", filled.path, "--where", condition)
    assert ended.status == 2
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["list", "--format", "table", "--show-instances"],
        ["list", "--json", "--show-instances"],
        ["query"],
        ["query", "--format", "text"],
        ["query", "--json", "--level", "instance"],
    ],
    ids=" ".join,
)
def test_hostile_values_cannot_harm_a_terminal(run: Run, filled: Filled, command: list[str]) -> None:
    ended = run(*command, "-a", filled.path)
    assert ended.status == 0
    assert "Evil" in ended.out
    assert not set(ended.out) & {"\x1b", "\x9b", "\u202e", "\r"}


def test_list_tree(run: Run, filled: Filled) -> None:
    ended = run("list", "-a", filled.path)
    lines = ended.out.splitlines()
    assert lines[0] == str(filled.path)
    assert lines[1] == "├── Doe^Jane [DFS-1]"
    assert lines[2].startswith("│   └── 2024-01-31 CT Study 1 (2 series, 7 files, ")
    assert lines[3].startswith("│       ├── 1 CT Series 1 (4 files) ")
    assert lines[4].startswith("│       └── 2 CT Series 2 (3 files) ")
    assert lines[5].startswith("└── Evil")
    assert len(lines) == 8
    assert len(run("list", "-a", filled.path, "--show-instances").out.splitlines()) == 8 + 9


def test_list_json(run: Run, filled: Filled) -> None:
    patients = json.loads(run("list", "-a", filled.path, "--json", "--show-instances").out)
    doe = patients[0]
    assert (doe["PatientID"], len(doe["studies"]), len(doe["studies"][0]["series"])) == ("DFS-1", 1, 2)
    series = doe["studies"][0]["series"][0]
    assert "PatientID" not in series
    assert {"SOPInstanceUID", "sha256", "size", "path"} <= set(series["instances"][0])
    patients = json.loads(run("list", "-a", filled.path, "--format", "json").out)
    assert "instances" not in patients[0]["studies"][0]["series"][0]


def test_list_table(run: Run, filled: Filled) -> None:
    assert len(run("list", "-a", filled.path, "--format", "table").out.splitlines()) == 2 + 2
    assert len(run("list", "-a", filled.path, "--format", "table", "--show-instances").out.splitlines()) == 2 + 9


def test_an_empty_archive(run: Run, archive_path: Path) -> None:
    assert run("list", "-a", archive_path).out == f"{archive_path}\n"
    assert run("list", "-a", archive_path, "--json").out == "[]\n"
    assert run("stats", "-a", archive_path).out.startswith("0 patients, 0 studies, 0 series, 0 instances\n")
    assert run("check", "-a", archive_path, "--verify-files").status == 0
    assert run("reindex", "-a", archive_path).status == 0


def test_stats(run: Run, filled: Filled) -> None:
    ended = run("stats", "-a", filled.path, "--json")
    found = json.loads(ended.out)
    assert (found["patients"], found["studies"], found["series"], found["instances"]) == (2, 2, 3, 9)
    files = [*filled.sources, next(iter(filled.sources)).parents[2] / "conflict"]
    assert found["bytes_in"] == sum(path.stat().st_size for path in files)
    saved = found["saved_by_deduplication"] + found["saved_by_compression"]
    assert found["bytes_in"] == found["bytes_stored"] + saved
    assert set(found["modalities"]) == {"CT", "MR"}
    assert sum(share["bytes_in"] for share in found["modalities"].values()) == found["bytes_in"]
    packs = (filled.path / "packs").glob("*.zip")
    assert found["packs_size"] == sum(pack.stat().st_size for pack in packs)
    text = run("stats", "-a", filled.path).out
    assert text.startswith("2 patients, 2 studies, 3 series, 9 instances\n")
    assert json.loads(run("stats", "-a", filled.path, "--format", "json").out) == found


def test_check(run: Run, filled: Filled) -> None:
    ended = run("check", "-a", filled.path)
    assert (ended.status, ended.err) == (0, "")
    assert f"{filled.path}: whole (1 pack, 9 files)" in ended.out
    report = json.loads(run("check", "-a", filled.path, "--verify-files", "--json").out)
    assert report["whole"]
    assert report["problems"] == []
    assert report["bytes_verified"] > 0


@pytest.mark.parametrize("as_json", [False, True])
def test_check_of_a_hurt_archive(run: Run, filled: Filled, tmp_path: Path, *, as_json: bool) -> None:
    path = tmp_path / "archive"
    shutil.copytree(filled.path, path)
    (pack,) = (path / "packs").glob("*.zip")
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        hurt = bytes([file.read(1)[0] ^ 1])
        file.seek(-1, os.SEEK_CUR)
        file.write(hurt)
    ended = run("check", "-a", path, "--verify-files", *(["--json"] if as_json else []))
    assert ended.status == 3
    if as_json:
        report = json.loads(ended.out)
        assert not report["whole"]
        assert report["problems"]
    else:
        assert " problem" in ended.out.splitlines()[-1]


def test_check_says_what_to_do_and_not_everything(run: Run, archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "source", series=1, instances=30)
    run("import", "-a", archive_path, tmp_path / "source")
    path = tmp_path / "a copy"
    shutil.copytree(archive_path, path)
    (pack,) = (path / "packs").glob("*.zip")
    data = bytearray(pack.read_bytes())
    end = data.rindex(b"c/")  # the commit, which stands behind all blobs
    data[2000:end:1000] = bytes(len(data[2000:end:1000]))
    pack.write_bytes(data)
    ended = run("check", "-a", path, "--verify-files")
    lines = ended.out.splitlines()
    assert ended.status == 3
    assert sum(line.startswith("instance 2.25.") for line in lines) == 20
    assert "instance: … and 10 more" in lines
    assert not any(line.startswith(("instance: instance", "index: index", "commit: commit")) for line in lines)
    assert any(f"dicomfs query -a '{path}' " in line for line in lines)
    assert "to do: put back the packs that are hurt, from a copy of the archive" in lines
    assert "30 files" in lines[-1]
    told = run("check", "-a", path, "--verify-files", "--verbose").out
    assert sum(line.startswith("instance 2.25.") for line in told.splitlines()) == 30


def test_check_of_a_hurt_index(run: Run, filled: Filled, tmp_path: Path) -> None:
    path = tmp_path / "a copy"
    shutil.copytree(filled.path, path)
    shutil.rmtree(path / "index")
    ended = run("check", "-a", path)
    assert ended.status == 3
    assert ended.out.startswith("index: ")
    assert f"dicomfs reindex -a '{path}'\n" in ended.out
    assert ended.out.count("dicomfs reindex") == 1


def test_reindex(run: Run, filled: Filled, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    shutil.copytree(filled.path, path)
    before = run("query", "-a", path, "--level", "instance", "--json").out
    shutil.rmtree(path / "index")
    ended = run("reindex", "-a", path, "--json")
    assert ended.status == 0
    assert json.loads(ended.out)["instances"] == 9
    assert run("query", "-a", path, "--level", "instance", "--json").out == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Doe^Jane", "Doe^Jane"),
        ("山田^太郎", "山田^太郎"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b", "\\x9b"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("\u2028", "\\u2028"),
    ],
)
def test_shown(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (999_949, "999.9 KB"), (999_950, "1.0 MB"), (1 << 60, "1152.9 PB")],
)
def test_size_text(size: int, expected: str) -> None:
    assert size_text(size) == expected


def test_branches() -> None:
    nodes = [(0, "a"), (1, "b"), (2, "c"), (2, "d"), (1, "e"), (0, "f"), (1, "g")]
    assert list(branches(nodes)) == [
        "├── a",
        "│   ├── b",
        "│   │   ├── c",
        "│   │   └── d",
        "│   └── e",
        "└── f",
        "    └── g",
    ]
