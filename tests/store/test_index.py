"""The index as a file: cut off, out of reach, out of memory; and who may read it."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dicomfs.errors import Damaged, Refused, StorageFull
from dicomfs.store.index import Index
from dicomfs.store.store import Store
from tests.store import shelf

if TYPE_CHECKING:
    from pathlib import Path


def commit_some(root: Path, count: int = 40) -> Path:
    shelf.fill(root, [(b"{}", [shelf.coded(b"%d" % (number * 97 + one)) for one in range(count)]) for number in (1, 2)])
    return root / "index" / "data.mdb"


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("writable", [False, True])
def test_cut_off(tmp_path: Path, part: float, writable: bool) -> None:
    """Touching a page that is not there would end the process."""
    root = shelf.make(tmp_path / "store")
    data = commit_some(root)
    pages = data.stat().st_size // 4096
    os.truncate(data, max(2, int(pages * part)) * 4096)
    with pytest.raises(Damaged, match="cut off; run 'dicomfs reindex'"):
        Store(root, shelf.TABLES, writable=writable)


def test_the_file_is_as_long_as_it_says(tmp_path: Path) -> None:
    """LMDB leaves out a page at the end that one transaction took and gave back."""
    index = Index(tmp_path, ["table"], writable=True)
    table = index.tables["table"]
    for size in range(1, 120):
        txn = index.begin(write=True)
        for number in range(size):
            txn.put(b"%d" % number, b"x" * 900, db=table)
        for number in range(size):
            txn.delete(b"%d" % number, db=table)
        index.commit(txn)
        pages = index._env.info()["last_pgno"] + 1
        assert (tmp_path / "data.mdb").stat().st_size >= pages * 4096
    index.close()
    Index(tmp_path, ["table"], writable=False).close()


def test_open_twice(tmp_path: Path) -> None:
    index = Index(tmp_path, ["table"], writable=True)
    with pytest.raises(Refused, match="open already"):
        Index(tmp_path, ["table"], writable=False)
    index.close()


LIMITED = """
import os, resource, sys, pathlib
from dicomfs.errors import Refused
from dicomfs.store.index import Index
limit = getattr(resource, sys.argv[2])
import lmdb
if sys.argv[2] == "RLIMIT_NOFILE":
    kept = []
    resource.setrlimit(limit, (64, 64))
    try:
        while True:
            kept.append(os.open("/", os.O_RDONLY))
    except OSError:
        os.close(kept.pop())
else:
    resource.setrlimit(limit, (1 << 32, 1 << 32))
try:
    Index(pathlib.Path(sys.argv[1]), ["table"], writable=False)
except Refused as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("limit", "reason"), [("RLIMIT_NOFILE", "Too many open files"), ("RLIMIT_AS", "Cannot allocate memory")]
)
def test_what_the_system_lacks_is_no_damage(tmp_path: Path, limit: str, reason: str) -> None:
    assert hasattr(resource, limit)
    Index(tmp_path, ["table"], writable=True).close()
    command = [sys.executable, "-c", LIMITED, str(tmp_path), limit]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert reason in told
    assert "reindex" not in told


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    from tests.faults.scene import disk

    with disk(2) as place:
        index = Index(place, ["table"], writable=True)
        txn = index.begin(write=True)
        for number in range(4000):
            txn.put(b"%d" % number, b"x" * 900, db=index.tables["table"])
        with pytest.raises(StorageFull, match="full"):
            index.commit(txn)
        txn.abort()
        index.close()


@pytest.mark.parametrize(("directory", "files"), [(0o700, 0o600), (0o750, 0o640), (0o2770, 0o660)])
def test_who_may_enter_the_directory_may_use_what_is_in_it(tmp_path: Path, directory: int, files: int) -> None:
    root = tmp_path / "store"
    for name in ("packs", "index"):
        (root / name).mkdir(parents=True)
        (root / name).chmod(directory)
    before = os.umask(0o022)
    try:
        Store(root, shelf.TABLES, writable=True).close()
        commit_some(root)
    finally:
        os.umask(before)
    for path in (*(root / "packs").iterdir(), *(root / "index").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == files, path
