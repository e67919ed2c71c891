"""What commits say of projects, folded: live and from the packs, while instances are replaced and packs are lost."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest
import zstandard

from dicomfs.archive.archive import NO_BASE, Archive
from dicomfs.archive.by_project import Member
from dicomfs.archive.check import check
from dicomfs.archive.fold import Fold
from dicomfs.archive.fold_projects import DerivedRow
from dicomfs.archive.ingest import open_for_writing
from dicomfs.archive.project_definition import Definition, to_json
from dicomfs.archive.rebuild import reindex
from dicomfs.archive.records import Records
from dicomfs.archive.tables import DERIVED, NOWHERE, ROOT_PROJECTS
from dicomfs.errors import NotFound
from dicomfs.store import recipe
from dicomfs.store.writer import Writer
from tests.archive.importing import add, packs, tables, tree
from tests.archive.project_scenes import below
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"what was made of it"


def make(archive: Path, *, live: bool = False, done: bool = True, name: str = "DeID_own") -> tuple[int, int]:
    """Commit a project of the first three instances: one linked, one derived, one withheld; return root and derived."""
    first, second, third = sorted(file.ino for file in tree(archive).values())[:3]
    store = open_for_writing(archive)
    writer = Writer(store)
    records, fold = Records(), Fold(store, writer.txn, writer.seq, 1_700_000_000 * 10**9)
    root = fold.next
    definition = to_json(Definition("own", "2024-01-01T00:00:00Z", "20240101-000000", (("Modality", "CT"),), live))
    records.projects.append((root, name, definition))
    fold.project(root, name, definition)
    folder = (fold.next, f"{root:032x}", root, "quarantine")
    records.folders.append(folder)
    fold.folder(*folder)
    for ino, parent, shown in ((first, root, "1.dcm"), (third, folder[0], "3.dcm")):
        records.links.append((ino, root, parent, shown))
        fold.link(ino, root, parent, shown)
    records.withheld.append((third, root, "it is burned in"))
    fold.withheld(third, root, "it is burned in")
    words = recipe.encode([(len(CONTENT), None)])
    header = len(words).to_bytes(4, "little") + words + CONTENT
    body = zstandard.compress(header)
    row = DerivedRow(
        fold.next, root, second, root, "2.dcm", len(CONTENT), hashlib.sha256(header).hexdigest(), NO_BASE.hex(),
        writer.add_body(body), len(body), len(CONTENT), 0,
    )  # fmt: skip
    records.derived.append(row)
    fold.derived(row)
    if done:
        records.placed.append((root, fold.next - 1))
        fold.placed(root, fold.next - 1)
    fold.finish("project", "somebody")
    writer.commit(records.encode("project", "somebody"), 1_700_000_000 * 10**9)
    writer.close()
    store.close()
    return root, row.ino


def same_from_packs(archive: Path) -> None:
    """The index that the packs give is the one that is there."""
    index = tables(archive)
    shutil.rmtree(archive / "index")
    assert reindex(archive).complete
    assert tables(archive) == index


@pytest.fixture
def filled(archive_path: Path) -> Path:
    add(archive_path, *(make_instance(number=number) for number in (1, 2, 3, 4)))
    return archive_path


def test_a_project_is_read_as_it_was_made(filled: Path) -> None:
    before = tables(filled)
    root, derived = make(filled)
    first, second, third, fourth = sorted(file.ino for file in tree(filled).values())
    assert below(filled, ROOT_PROJECTS) == {
        "DeID_own/1.dcm": first, "DeID_own/2.dcm": derived, "DeID_own/quarantine/3.dcm": third
    }  # fmt: skip
    with Archive.open(filled) as opened, opened.view() as view:
        (state,) = view.projects()
        assert state == view.project(root)
        assert (state.on, state.through, state.directory) == (True, derived, "DeID_own")
        assert state.definition.where == (("Modality", "CT"),)
        assert list(view.members(root)) == [
            Member(first, first, ""), Member(second, derived, ""), Member(third, third, "it is burned in")
        ]  # fmt: skip
        assert [member.source for member in view.members(root, first)] == [second, third]
        assert view.member(root, fourth) is None
        assert view.source_of(derived) == (second, root)
        assert view.source_of(second) is None
        assert view.path(derived) == "projects/DeID_own/2.dcm"
        assert view.file_inode(derived).kind == DERIVED
        with pytest.raises(NotFound):
            view.instance(derived)
        with pytest.raises(NotFound):
            view.project(first)
        node = view.child(root, b"2.dcm")
        assert node is not None
        assert (node.ino, node.is_directory, node.size) == (derived, False, len(CONTENT))
        assert view.node(derived) == node
        assert bytes(opened.open_instance(derived).read(0, 100)) == CONTENT
    after = tables(filled)
    for table in ("sop", "file", "find", "instance", "series", "study", "under", "hidden"):
        assert after[table] == before[table]
    same_from_packs(filled)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("done", [False, True])
def test_what_is_replaced(filled: Path, *, live: bool, done: bool) -> None:
    """A finished project that is not live keeps what it shows."""
    root, derived = make(filled, live=live, done=done)
    before = below(filled, ROOT_PROJECTS)
    for number in (1, 2, 3):
        add(filled, make_instance(number=number, seed="new"), on_conflict="replace")
    keeps = done and not live
    after = below(filled, ROOT_PROJECTS)
    if keeps:
        assert after == before
    else:  # a live one has the new versions, since it asks for all of the modality
        assert not set(before.values()) & set(after.values())
        assert len(after) == (3 if live and done else 0)
    with Archive.open(filled) as opened, opened.view() as view:
        assert len(list(view.members(root))) == (3 if keeps else len(after))
        assert (view.file_inode(derived).parent == NOWHERE) is not keeps
        assert bytes(opened.open_instance(derived).read(0, 100)) == CONTENT
    same_from_packs(filled)


def test_a_project_that_was_removed_is_shown_no_more(filled: Path) -> None:
    root, _ = make(filled)
    _remove(filled, root)
    assert below(filled, ROOT_PROJECTS) == {}
    with Archive.open(filled) as opened, opened.view() as view:
        assert [state.on for state in view.projects()] == [False]
        assert view.changes(view.seq - 1).removed == ((ROOT_PROJECTS, b"DeID_own"),)
    add(filled, *(make_instance(number=number, seed="new") for number in (1, 2)), on_conflict="replace")
    assert below(filled, ROOT_PROJECTS) == {}
    make(filled)
    assert len(below(filled, ROOT_PROJECTS)) == 3
    same_from_packs(filled)


def _remove(archive: Path, root: int) -> None:
    store = open_for_writing(archive)
    writer = Writer(store)
    records, fold = Records(), Fold(store, writer.txn, writer.seq, 1_700_000_001 * 10**9)
    records.projects_off.append(root)
    fold.project_off(root)
    fold.finish("project", "somebody")
    writer.commit(records.encode("project", "somebody"), 1_700_000_001 * 10**9)
    writer.close()
    store.close()


@pytest.mark.damaged
@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_with_a_lost_pack_what_is_left_is_shown(archive_path: Path, lost: int) -> None:
    add(archive_path, make_instance(number=1), make_instance(number=2))
    add(archive_path, make_instance(number=3))
    make(archive_path)
    make(archive_path, name="DeID_other")
    kept = packs(archive_path)[lost]
    content = kept.read_bytes()
    kept.unlink()
    assert not reindex(archive_path).complete
    shown = below(archive_path, ROOT_PROJECTS)
    assert len(shown) == {0: 2, 1: 4, 2: 3, 3: 3}[lost]
    assert [problem for problem in check(archive_path).problems if problem.kind not in ("instance", "pack")] == []
    # Another project takes its name and its numbers come after; the lost pack comes back.
    add(archive_path, *(make_instance(number=number, patient=uid(1)) for number in (7, 8, 9)))
    make(archive_path)
    kept.write_bytes(content)
    reindex(archive_path)
    assert len(below(archive_path, ROOT_PROJECTS)) == 9
    assert [problem for problem in check(archive_path).problems if problem.kind not in ("instance", "pack")] == []
