"""What was lost with a pack is not given out again, is told to later rebuilds, and is taken in when it is back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.floors import Gaps, _without, gaps
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import Damaged
from dicomfs.vfs.tree import Tree
from tests.archive.importing import add, contents, flip, packs, sha256, tables, tree
from tests.builders import make_instance

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.damaged


def archive_of(path: Path, *patients: str) -> Path:
    """Make an archive with a pack for each of these patients."""
    Archive.init(path)
    for patient in patients:
        add(path, make_instance(patient=patient))
    return path


def lose(archive: Path, number: int) -> Path:
    """Take a pack away, and return where it is."""
    pack = archive / "packs" / f"{number:08d}.zip"
    return pack.rename(archive.parent / f"away{number}.zip")


def known(archive: Path) -> tuple[int, Gaps]:
    with Archive.open(archive) as opened, opened.store.index.reading() as txn:
        last = opened.store.seq(txn)
        return last, gaps(opened.store, txn, last)


def numbers(archive: Path) -> dict[str, int]:
    """Return the inode of each file by its SHA-256."""
    return {shown.sha256: shown.ino for shown in tree(archive).values()}


def elsewhere(program: str, *arguments: object) -> None:
    """Run a program in a process of its own: an index may be open once in a process."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent.parent)


REINDEX = "import sys, pathlib; from dicomfs.archive.rebuild import reindex; reindex(pathlib.Path(sys.argv[1]))"
IMPORT = (
    "import sys, pathlib; from dicomfs.archive.ingest import ImportOptions, import_paths;"
    "import_paths(pathlib.Path(sys.argv[1]), [pathlib.Path(sys.argv[2])], ImportOptions(jobs=1))"
)


@pytest.mark.parametrize("times", [1, 2])
def test_nothing_is_given_out_again(tmp_path: Path, times: int) -> None:
    path = archive_of(tmp_path / "archive", "A", "B")
    before = numbers(path)
    lost_ino = max(before.values())
    lose(path, 2)

    report = reindex(path)

    assert not report.complete
    assert report.missing_commits == [2]
    for _ in range(times - 1):
        again = reindex(path)
        assert again.complete
        assert again.missing_commits == []
    assert known(path)[0] == 3
    add(path, make_instance(patient="C"))
    after = numbers(path)
    assert len(after) == 2
    assert min(ino for sha, ino in after.items() if sha not in before) > lost_ino
    assert [pack.name for pack in packs(path)] == ["00000001.zip", "00000003.zip", "00000004.zip"]
    checked = check(path, verify_files=True)
    assert checked.problems == []
    assert checked.notes == ["commit 2 is lost with a pack, as an earlier 'dicomfs reindex' told"]
    rebuilt = tables(path)
    shutil.rmtree(path / "index")
    assert reindex(path).complete
    assert tables(path) == rebuilt


def test_the_pack_that_told_is_lost_too(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "archive", "A", "B")
    lost_ino = max(numbers(path).values())
    lose(path, 2)
    reindex(path)
    lose(path, 3)
    assert reindex(path).missing_commits == [2, 3]
    add(path, make_instance(patient="C"))
    assert max(numbers(path).values()) > lost_ino
    assert [pack.name for pack in packs(path)] == ["00000001.zip", "00000004.zip", "00000005.zip"]
    assert check(path, verify_files=True).problems == []


@pytest.mark.parametrize("index", ["cut off", "garbage"])
def test_an_index_that_cannot_be_read(tmp_path: Path, index: str) -> None:
    """Nobody knows what it knew, so numbers go on far past all that is known."""
    path = archive_of(tmp_path / "archive", *"ABCDEFGH")
    lost_ino = max(numbers(path).values())
    lose(path, 8)
    data = path / "index" / "data.mdb"
    if index == "cut off":
        os.truncate(data, data.stat().st_size // 2 // 4096 * 4096)
    else:
        data.write_bytes(os.urandom(40_000))
    assert reindex(path).instances == 7
    add(path, make_instance(patient="new"))
    assert max(numbers(path).values()) > lost_ino + 1_000_000
    assert int(packs(path)[-1].stem) > 1000
    assert known(path)[0] > 1_000_000
    checked = check(path, verify_files=True)
    assert (checked.problems, checked.notes) == ([], [])
    count = len(packs(path))
    shutil.rmtree(path / "index")
    assert reindex(path).complete
    assert len(packs(path)) == count


def test_a_drive_is_given_nothing_that_is_not_there(tmp_path: Path) -> None:
    """A process that stays open, past the loss of a pack and an import of files that look alike."""
    path = archive_of(tmp_path / "archive", "A")
    one, other = (
        make_instance(patient="B", seed="same", attributes={"ContentTime": time}) for time in ("1001", "1002")
    )
    add(path, one)
    (tmp_path / "other").write_bytes(other)
    lost_ino = max(numbers(path).values())
    with Archive.open(path) as opened:
        shown = Tree(opened)
        assert shown.changes().complete
        file = opened.open_instance(lost_ino)
        assert bytes(file.read(0, file.size)) == one
        lose(path, 2)
        elsewhere(REINDEX, path)
        assert not shown.changes().complete
        assert shown.changes().complete
        elsewhere(IMPORT, path, tmp_path / "other")
        assert shown.changes().directories
        with opened.view() as view:
            found = {
                view.instance(ino).sha256.hex(): ino for ino in view.inodes(1023) if not view.node(ino).is_directory
            }
        file = opened.open_instance(found[sha256(other)])
        assert bytes(file.read(0, file.size)) == other
        assert sha256(one) not in found
        assert found[sha256(other)] != lost_ino


def test_a_pack_that_was_put_in_another_ones_place(tmp_path: Path) -> None:
    """A copy brought back over a pack that rotted: open files read the new one."""
    path = archive_of(tmp_path / "archive", "A")
    (pack,) = packs(path)
    good = pack.read_bytes()
    flip(pack, 200)
    (ino,) = numbers(path).values()
    with Archive.open(path) as opened:
        file = opened.open_instance(ino)
        with pytest.raises(Damaged):
            file.read(0, file.size)
        assert not opened.refresh()
        new = tmp_path / "new"
        new.write_bytes(good)
        new.rename(pack)
        assert not opened.refresh()
        assert sha256(bytes(file.read(0, file.size))) == sha256(make_instance(patient="A"))


@pytest.mark.parametrize("name", ["00000002.zip", "00000009.zip"])
def test_a_lost_pack_is_back(tmp_path: Path, name: str) -> None:
    path = archive_of(tmp_path / "archive", "A", "B")
    before = tree(path)
    away = lose(path, 2)
    reindex(path)
    add(path, make_instance(patient="C"))
    shutil.copy(away, path / "packs" / name)
    with pytest.raises(Damaged, match=r"holds commit 2, which was lost; run 'dicomfs reindex'"):
        add(path, make_instance(patient="D"))

    assert reindex(path).complete

    after = tree(path)
    assert before.items() <= after.items()
    assert len(after) == 3
    add(path, make_instance(patient="D"))
    checked = check(path, verify_files=True)
    assert (checked.problems, checked.notes) == ([], [])
    assert len(contents(path)) == 4


@pytest.mark.parametrize("lost", [1, 2])
def test_what_was_imported_again_meanwhile(tmp_path: Path, lost: int) -> None:
    """The names that were claimed twice are told apart, and every file is there under each of its numbers."""
    path = archive_of(tmp_path / "archive", "A", "B")
    before = tree(path)
    away = lose(path, lost)
    reindex(path)
    assert add(path, make_instance(patient="AB"[lost - 1]), make_instance(patient="C")).report.complete
    away.rename(path / "packs" / f"{lost:08d}.zip")
    assert reindex(path).complete
    after = tree(path)
    assert before.items() <= after.items()
    assert len(after) == 4
    assert sorted(shown.sha256 for shown in after.values()).count(sha256(make_instance(patient="AB"[lost - 1]))) == 2
    assert check(path, verify_files=True).problems == []
    shown = tables(path)
    shutil.rmtree(path / "index")
    reindex(path)
    assert tables(path) == shown


def test_a_copy_is_a_copy_of_the_record(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "archive", "A")
    twin = archive_of(tmp_path / "twin", "B")
    shutil.copy(packs(path)[0], path / "packs" / "00000002.zip")
    with pytest.raises(Damaged, match=r"00000002.zip holds commit 1, which another pack holds too; move the copy"):
        add(path, make_instance(patient="C"))
    assert any("move the copy" in problem for problem in reindex(path).problems)
    packs(path)[1].unlink()
    reindex(path)
    shutil.copy(packs(twin)[0], path / "packs" / "00000002.zip")
    with pytest.raises(Damaged, match=r"00000002.zip holds another commit 1 than 00000001.zip"):
        add(path, make_instance(patient="C"))
    assert any("they differ" in problem for problem in reindex(path).problems)


def test_an_index_knows_what_was_whole_once(tmp_path: Path) -> None:
    """A pack that rotted before it was sealed is not cut at the first wrong byte by a rebuild."""
    from dicomfs.store.writer import Writer

    path = archive_of(tmp_path / "archive", "A")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "_seal", lambda self: None)
        add(path, make_instance(patient="B"))
    pack = packs(path)[1]
    size = pack.stat().st_size
    flip(pack, 200)
    report = reindex(path)
    assert pack.stat().st_size == size
    assert any("00000002 is damaged" in problem for problem in report.problems)
    flip(pack, 200)
    assert add(path, make_instance(patient="C")).report.complete
    assert reindex(path).complete
    assert len(tree(path)) == 3
    assert check(path, verify_files=True).problems == []


@pytest.mark.parametrize(
    ("some", "others", "left"),
    [
        ([(1, 9)], [], [(1, 9)]),
        ([(1, 9)], [(1, 9)], []),
        ([(1, 9)], [(3, 4)], [(1, 2), (5, 9)]),
        ([(1, 9)], [(1, 4), (3, 5)], [(6, 9)]),
        ([(1, 9)], [(5, 20)], [(1, 4)]),
        ([(3, 4), (8, 9)], [(1, 3), (9, 9)], [(4, 4), (8, 8)]),
        ([(3, 4)], [(5, 9)], [(3, 4)]),
    ],
)
def test_ranges(some: Sequence[tuple[int, int]], others: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    assert _without(some, others) == left
