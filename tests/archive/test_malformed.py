"""A commit that dicomfs would not have written is named, and everything else is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.ingest import open_for_writing
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

METAS = {
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
