"""A commit record inside the bytes of an imported file is never taken for one, whatever a crash left around it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest
from isal.isal_zlib import crc32

from dicomfs.errors import Damaged
from dicomfs.store import commit as commits
from dicomfs.store import pack as packfile
from dicomfs.store.pack import Entry
from dicomfs.store.replay import find, replay
from dicomfs.store.store import Store
from dicomfs.store.writer import Writer
from tests.store import shelf

if TYPE_CHECKING:
    from pathlib import Path

ROOM = bytes(range(256)) * 40
_HEADER = 30 + 66


class Planted(NamedTuple):
    """A store whose last blob holds a record, and where that blob's entry begins in pack 2."""

    root: Path
    at: int
    content: bytes


def entry(name: bytes, data: bytes) -> bytes:
    return packfile._local_header(crc32(data), len(data), len(name)) + name + data


def record(seq: int, start: int) -> bytes:
    return entry(commits.name(seq), commits.encode(seq, start, 1, [], b'{"planted":1}', [])[1])


def plant(root: Path, content: bytes, *, first: bool) -> Planted:
    """Leave what a writer leaves that was killed after a blob, in a pack of its own or past a commit."""
    shelf.make(root)
    shelf.fill(root, [(b"{}", [shelf.coded(b"one" * 100)])])
    store, _ = shelf.open_healed(root)
    writer = Writer(store)
    at = 0
    if not first:
        shelf.commit(store, writer, [shelf.coded(b"two" * 100)], b"{}")
        at = shelf.pack_path(root, 2).stat().st_size
    one = shelf.coded(content)
    writer.add_blob(one.blob, one.codec, one.length, one.stored, crc32(content), one.checks)
    writer.flush()
    writer.txn.abort()
    store.close()
    return Planted(root, at, content)


def assert_not_folded(planted: Planted, *, seq: int, cut: bool) -> None:
    """Heal one copy, rebuild another: the record is in neither."""
    again = shelf.copy(planted.root, planted.root.with_name("again"))
    size = shelf.pack_path(planted.root, 2).stat().st_size
    if cut:
        store, _ = shelf.open_healed(planted.root)
        assert sorted(shelf.dump(store)["note"]) == [n.to_bytes(8, "big") for n in range(1, seq + 1)]
        store.close()
    else:
        with pytest.raises(Damaged, match="00000002"):
            shelf.open_healed(planted.root)
        assert shelf.pack_path(planted.root, 2).stat().st_size == size

    shutil.rmtree(again / "index")
    (again / "index").mkdir()
    store = Store(again, shelf.TABLES, new_index=again / "index")
    found = find(store)
    replay(store, found, lambda *commit: shelf.note(store, *commit))
    assert [one.seq for one in found.entries] == list(range(1, seq + 1))
    assert sorted(shelf.dump(store)["note"]) == [n.to_bytes(8, "big") for n in range(1, seq + 1)]
    assert bool(found.problems) == (not cut)
    assert (2 in found.torn) == cut
    store.close()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("start", ["of the commit", "of the entry", "far"])
@pytest.mark.parametrize("left", ["whole", "cut in it", "cut after it"])
def test_in_a_blob(tmp_path: Path, first: bool, start: str, left: str) -> None:
    seq = 1 if first else 2
    scouted = plant(tmp_path / "scout", ROOM, first=first).at
    begins = {"of the commit": scouted, "of the entry": scouted + _HEADER + 300, "far": 1 << 50}[start]
    fake = record(seq + 1, begins)
    planted = plant(tmp_path / "store", ROOM[:300] + fake + ROOM, first=first)
    assert planted.at == scouted
    path = shelf.pack_path(planted.root, 2)
    if left != "whole":
        with path.open("r+b") as file:
            file.truncate(planted.at + _HEADER + 300 + len(fake) + (-5 if left == "cut in it" else 50))
    assert_not_folded(planted, seq=seq, cut=True)


def test_a_chain_of_entries_in_a_blob(tmp_path: Path) -> None:
    """With offsets that are right, as whoever imports the first file of a pack can know them."""
    at = _HEADER + 100
    inner = entry(b"o/" + b"ab" * 32, b"a blob")
    planted = plant(tmp_path / "store", ROOM[:100] + inner + record(2, at) + ROOM, first=True)
    assert_not_folded(planted, seq=1, cut=True)


def test_a_central_directory_at_the_end(tmp_path: Path) -> None:
    """The pack ends where an imported file has the end of a pack: with the directory of its own entries."""
    before, body = ROOM[:200], commits.encode(2, 0, 1, [], b'{"planted":1}', [])[1]
    fake = entry(commits.name(2), body)
    data_at = _HEADER + len(before) + 30 + 22
    entries = [
        Entry(b"o/" + b"cd" * 32, _HEADER, len(before), crc32(before)),
        Entry(commits.name(2), data_at, len(body), crc32(body)),
    ]
    ending = packfile._directory(entries, _HEADER + len(before) + len(fake))
    planted = plant(tmp_path / "store", before + fake + ending + ROOM, first=True)
    with shelf.pack_path(planted.root, 2).open("r+b") as file:
        file.truncate(_HEADER + len(before) + len(fake) + len(ending))
        assert packfile.directory(file.fileno()) == entries
    assert_not_folded(planted, seq=1, cut=True)


def test_nothing_is_cut_in_doubt(tmp_path: Path) -> None:
    """A power cut took the blob's header: the record may be a commit, so it is neither folded nor cut off."""
    planted = plant(tmp_path / "store", ROOM[:300] + record(2, 150) + ROOM, first=True)
    with shelf.pack_path(planted.root, 2).open("r+b") as file:
        file.write(bytes(_HEADER))
    assert_not_folded(planted, seq=1, cut=False)


def test_a_lost_header_alone_is_no_doubt(tmp_path: Path) -> None:
    planted = plant(tmp_path / "store", ROOM, first=True)
    with shelf.pack_path(planted.root, 2).open("r+b") as file:
        file.write(bytes(_HEADER))
    assert_not_folded(planted, seq=1, cut=True)


def test_the_search_ends(tmp_path: Path) -> None:
    """Headers that claim much, one inside the other, cost no more than reading the pack again."""
    size = 1 << 20
    path = tmp_path / "pack"
    name = commits.name(2)
    pieces, at = [], 0
    while at + 2 * _HEADER < size:
        length = size - at - 30 - len(name)
        pieces.append(packfile._local_header(1, length, len(name)) + name)
        at += len(pieces[-1])
    path.write_bytes(b"".join(pieces).ljust(size, b"\0"))
    with path.open("rb") as file:
        found = list(packfile.search(file.fileno(), 0, rb"c/[0-9a-f]{16}\.cat"))
    assert found == [None]


@pytest.mark.parametrize("at", range(30))
def test_any_byte_of_a_header_may_be_hurt(tmp_path: Path, at: int) -> None:
    """The walk goes on to the next entry."""
    root = shelf.make(tmp_path / "store")
    shelf.fill(root, [(b"{}", [shelf.coded(b"one" * 100), shelf.coded(b"two" * 100, 2), shelf.coded(b"3" * 100)])])
    path = shelf.pack_path(root)
    with path.open("r+b") as file:
        whole = packfile.walk(file.fileno(), 0)
        second = whole.entries[0].end
        file.seek(second + at)
        (byte,) = file.read(1)
        file.seek(second + at)
        file.write(bytes([byte ^ 0x15]))
        file.flush()
        hurt = packfile.walk(file.fileno(), 0)
    assert whole.end == hurt.end == "whole"
    assert [one[1:3] for one in hurt.entries] == [one[1:3] for one in whole.entries]
    assert len(whole.entries) == 4
