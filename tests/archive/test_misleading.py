"""An archive that somebody made to mislead: its names lead nowhere but into the tree."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.names import possible
from dicomfs.archive.query import Query
from dicomfs.archive.tables import CHILD, DIRECTORY_INODE, INSTANCE_INODE, U64
from dicomfs.errors import Damaged
from dicomfs.export import export
from dicomfs.store.store import Store
from dicomfs.vfs.node import FIRST_CLAIMED
from dicomfs.vfs.tree import Tree
from tests.archive.importing import add
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.damaged

HOSTILE = {
    "a way out": b"../../../evil.dcm",
    "an absolute path": b"/tmp/evil.dcm",
    "the parent": b"..",
    "the directory": b".",
    "nothing": b"",
    "NUL": b"a\0b",
    "too long": b"x" * 256,
}


def rename(archive: Path, name: bytes) -> int:
    """Give the one instance of an archive another name, wherever its index has it; return its inode number."""
    store = Store(archive, tables.TABLES, writable=True)
    inode, child, names = (store.index.tables[table] for table in ("inode", "child", "name"))
    txn = store.index.begin(write=True)
    cursor = txn.cursor(db=inode)
    cursor.last()
    key, value = cursor.item()
    parent = INSTANCE_INODE.unpack_from(value)[1]
    txn.put(key, value[: INSTANCE_INODE.size] + name, db=inode)
    entry = txn.get(U64.pack(parent) + key, db=child)
    assert entry is not None
    txn.put(U64.pack(parent) + key, entry[: CHILD.size] + name, db=child)
    txn.put(tables.name_key(parent, name), key, db=names)
    txn.commit()
    store.close()
    return int(U64.unpack(key)[0])


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_that_no_file_can_have(
    archive_path: Path, tmp_path: Path, name: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    add(archive_path, make_instance(modality="SR"))
    ino = rename(archive_path, name)
    output = tmp_path / "a" / "b" / "c" / "output"
    before = sorted(path for path in tmp_path.rglob("*") if archive_path not in path.parents)
    with Archive.open(archive_path) as archive:
        with archive.view() as view, pytest.raises(Damaged, match="run 'dicomfs check'") as caught:
            view.path(ino)
        assert "evil" not in str(caught.value)
        with pytest.raises(Damaged):
            export(archive, output, Query())
        tree = Tree(archive)
        with archive.view() as view:
            node = view.node(ino)
        assert node is not None
        with caplog.at_level(logging.WARNING, "dicomfs"):
            assert list(tree.entries(node.parent)) == []
            assert list(tree.entries(node.parent)) == []
        assert [record.message.split(":")[0] for record in caplog.records] == [f"inode {ino} is not shown"]
        assert name in (b".", b"..") or tree.lookup(node.parent, name) is None
    caplog.clear()
    assert sorted(path for path in tmp_path.rglob("*") if archive_path not in path.parents) == before


def test_names_that_files_can_have() -> None:
    for name in (b"a", b"...", b"..a", b".a", b"a\n", b"\xff", b"x" * 255):
        assert possible(name), name


@pytest.mark.timeout(30)
def test_a_directory_that_is_its_own_ancestor(archive_path: Path) -> None:
    add(archive_path, make_instance(modality="SR"))
    store = Store(archive_path, tables.TABLES, writable=True)
    inode = store.index.tables["inode"]
    txn = store.index.begin(write=True)
    cursor = txn.cursor(db=inode)
    cursor.set_range(U64.pack(FIRST_CLAIMED))
    key, value = cursor.item()
    kind, _, *rest = DIRECTORY_INODE.unpack_from(value)
    name = value[DIRECTORY_INODE.size :]
    txn.put(key, DIRECTORY_INODE.pack(kind, U64.unpack(key)[0], *rest) + name, db=inode)
    txn.commit()
    store.close()
    with Archive.open(archive_path) as archive, archive.view() as view, pytest.raises(Damaged, match="place"):
        view.path(U64.unpack(key)[0])
