"""A commit that dicomfs would not have written is named, and everything else is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.ingest import open_for_writing
from dicomfs.archive.project_definition import Definition, to_json
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import Damaged
from dicomfs.store.writer import Writer
from tests.archive.importing import add, tree
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path

EMPTY: dict[str, object] = {
    name: [] for name in ("patients", "studies", "series", "study_patients", "directories", "instances")
}
ROW = [2001, 2, 3, 2, "x", 1, "ab" * 32, "00" * 32, 0, 1, 0, 0, 0, 0, 0]

ROOT = 3000
DEFINITION = to_json(Definition("own", "2024-01-01T00:00:00Z", "20240101000000"))
PROJECT: dict[str, object] = {**EMPTY, "projects": [[ROOT, "PHI_own", DEFINITION]]}
DERIVED = [3001, ROOT, 1030, ROOT, "1.dcm", 1, "ab" * 32, "00" * 32, 0, 1, 0, 0]


def project(directory: object = "PHI_own", root: object = ROOT, **changes: object) -> bytes:
    """Return a commit that makes a project with such a definition."""
    return json.dumps({**EMPTY, "projects": [[root, directory, {**DEFINITION, **changes}]]}).encode()


METAS = {
    "a definition is none": json.dumps({**EMPTY, "projects": [[ROOT, "PHI_own", 7]]}).encode(),
    "a definition lacks all": json.dumps({**EMPTY, "projects": [[ROOT, "PHI_own", {}]]}).encode(),
    "a version without end": project(version=float("inf")),
    "a condition is none": project(where=[["Modality"]]),
    "a condition is a number": project(where=[["Rows", 7]]),
    "a query is too short": project(queries=[["A1"]]),
    "a row that failed is none": project(failed=[["x", "y", "z"]]),
    "a project is the root": project(root=1),
    "a project without end": project(root=1 << 70),
    "a project's name is a surrogate": project(directory="\ud800"),
    "a derived file is too short": json.dumps({**PROJECT, "derived": [DERIVED[:5]]}).encode(),
    "a derived file without hash": json.dumps({**PROJECT, "derived": [[*DERIVED[:6], "zz", *DERIVED[7:]]]}).encode(),
    "a derived file beyond all": json.dumps({**PROJECT, "derived": [[1 << 70, *DERIVED[1:]]]}).encode(),
    "a reason is a number": json.dumps({**PROJECT, "withheld": [[1030, ROOT, 5]]}).encode(),
    "a removed project is text": json.dumps({**PROJECT, "projects_off": ["x"]}).encode(),
    "no JSON": b"{",
    "no object": b"[]",
    "nested": b"[" * 200_000,
    "a table is missing": b'{"patients":[]}',
    "a table is no list": json.dumps({**EMPTY, "patients": 7}).encode(),
    "a row is too short": json.dumps({**EMPTY, "patients": [[1]]}).encode(),
    "no hexadecimal": json.dumps({**EMPTY, "directories": [[2000, "zz", 2, "x"]]}).encode(),
    "an empty key": json.dumps({**EMPTY, "directories": [[2000, "", 2, "x"]]}).encode(),
    "too large a number": json.dumps({**EMPTY, "directories": [[1 << 70, "ab" * 16, 2, "x"]]}).encode(),
    "a negative number": json.dumps({**EMPTY, "directories": [[-1, "ab" * 16, 2, "x"]]}).encode(),
    "text for a number": json.dumps({**EMPTY, "directories": [["a", "ab" * 16, 2, "x"]]}).encode(),
    "attributes are missing": json.dumps({**EMPTY, "instances": [[*ROW, {}]]}).encode(),
    "attributes are no object": json.dumps({**EMPTY, "instances": [[*ROW, 5]]}).encode(),
    "a surrogate": json.dumps({**EMPTY, "directories": [[2000, "ab" * 16, 2, "\ud800"]]}).encode(),
    "floors are none": json.dumps({**EMPTY, "floors": 1}).encode(),
    "floors beyond all": json.dumps(
        {**EMPTY, "floors": {"next": 1 << 60, "pack": 1, "lost": [], "unused": []}}
    ).encode(),
    "floors are no ranges": json.dumps(
        {**EMPTY, "floors": {"next": 1, "pack": 1, "lost": [[3, 1]], "unused": []}}
    ).encode(),
}


@pytest.mark.damaged
@pytest.mark.parametrize("meta", METAS)
def test_a_commit_that_is_none_of_ours(tmp_path: Path, meta: str) -> None:
    path = tmp_path / "archive"
    Archive.init(path)
    add(path, make_instance(patient="A"))
    store = open_for_writing(path)
    writer = Writer(store)
    writer.add_body(b"x")
    writer.commit(METAS[meta])
    writer.close()
    store.close()
    add(path, make_instance(patient="B"))

    report = reindex(path)

    assert [problem for problem in report.problems if "00000002" in problem and "commit 2" in problem]
    assert not report.complete
    assert len(tree(path)) == 2
    assert any("commit 2" in problem.what for problem in check(path).problems)
    assert add(path, make_instance(patient="C")).report.complete
    assert len(tree(path)) == 3


@pytest.mark.damaged
def test_a_writer_that_finds_one(tmp_path: Path) -> None:
    """It names the commit, and does nothing."""
    path = tmp_path / "archive"
    Archive.init(path)
    store = open_for_writing(path)
    writer = Writer(store)
    writer.add_body(b"x")
    writer.commit(b"[]")
    writer.close()
    store.close()
    (path / "index" / "data.mdb").unlink()
    with pytest.raises(Damaged, match="commit 1"):
        add(path, make_instance())
