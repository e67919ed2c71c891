"""Packs are plain ZIP files, and their entries are found again up to the first that is torn."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.errors import Damaged
from dicomfs.store import pack as packfile
from dicomfs.store.pack import Entry, PackWriter
from tests.store import shelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = [b"o/" + bytes([65 + n]) * 64 + suffix for n, suffix in enumerate((b"", b".zst", b".p2z"))]
CONTENTS = [b"a" * 10, b"b", random.Random(1).randbytes(150)]
HEADER = 30


def write(path: Path, items: list[tuple[bytes, bytes]], *, seal: bool = True) -> list[Entry]:
    writer = PackWriter(os.open(path, os.O_RDWR | os.O_CREAT))
    for name, data in items:
        writer.add(name, data)
    entries = writer.entries
    if seal:
        writer.seal()
    else:
        writer.sync()
    writer.close()
    return entries


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, list[Entry]]:
    """Return an unsealed pack of three entries."""
    path = tmp_path / "pack.zip"
    return path, write(path, list(zip(NAMES, CONTENTS, strict=True)), seal=False)


def scanned(path: Path, start: int = 0, *, verify: bool = True) -> list[Entry]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(packfile.scan(fd, start, verify=verify))
    finally:
        os.close(fd)


def directory(path: Path) -> list[Entry]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return packfile.directory(fd)
    finally:
        os.close(fd)


def faults(path: Path, end: int, *, sealed: bool = True) -> list[str]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(packfile.faults(fd, end, sealed=sealed))
    finally:
        os.close(fd)


def each_byte_changed(path: Path, first: int = 0) -> Iterator[int]:
    """Change one byte after the other, each for as long as the caller looks at it."""
    fd = os.open(path, os.O_RDWR)
    try:
        for at in range(first, path.stat().st_size):
            (byte,) = os.pread(fd, 1, at)
            os.pwrite(fd, bytes([byte ^ 0x11]), at)
            yield at
            os.pwrite(fd, bytes([byte]), at)
    finally:
        os.close(fd)


def test_python_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    write(path, list(zip(NAMES, CONTENTS, strict=True)))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [info.filename.encode() for info in archive.infolist()] == NAMES
        assert [archive.read(info) for info in archive.infolist()] == CONTENTS
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert not info.extra


def unzip(path: Path) -> str:
    if shutil.which("unzip") is None:
        pytest.skip("unzip is not installed")
    result = subprocess.run(["unzip", "-tq", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_unzip_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    write(path, list(zip(NAMES, CONTENTS, strict=True)))
    assert "No errors" in unzip(path)


def test_equal_input_gives_equal_packs(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, list(zip(NAMES, CONTENTS, strict=True)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


items = st.lists(
    st.tuples(
        st.text("abcdef0123456789/.", min_size=1, max_size=80).map(str.encode),
        st.binary(max_size=3000),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(items=items)
def test_both_ways_of_reading_agree(items: list[tuple[bytes, bytes]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("pack") / "pack.zip"
    entries = write(path, items)
    assert scanned(path) == entries == directory(path)
    content = path.read_bytes()
    for (name, data), entry in zip(items, entries, strict=True):
        assert entry.name == name
        assert content[entry.offset : entry.end] == data
        assert entry.crc == crc32(data)


def test_scan_of_a_sealed_pack_ends_at_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    entries = write(path, list(zip(NAMES, CONTENTS, strict=True)))
    fd = os.open(path, os.O_RDONLY)
    assert packfile.directory_start(fd) == entries[-1].end == scanned(path)[-1].end
    os.close(fd)


@pytest.mark.parametrize("verify", [True, False])
def test_cut_at_any_byte(small: tuple[Path, list[Entry]], verify: bool) -> None:
    """What is left of a torn entry is never taken for one."""
    path, entries = small
    for length in range(path.stat().st_size, -1, -1):
        os.truncate(path, length)
        assert scanned(path, verify=verify) == [entry for entry in entries if entry.end <= length]


def test_zeroed_from_any_byte(small: tuple[Path, list[Entry]]) -> None:
    """A file that has its length, but whose last pages never reached the disk."""
    path, entries = small
    content = path.read_bytes()
    for at in range(len(content)):
        zeroed = content[:at] + bytes(len(content) - at)
        path.write_bytes(zeroed)
        whole = 0
        while whole < len(entries) and zeroed[: entries[whole].end] == content[: entries[whole].end]:
            whole += 1
        assert scanned(path) == entries[:whole], at


def test_any_changed_byte(small: tuple[Path, list[Entry]]) -> None:
    """A changed byte ends the scan, or changes a name."""
    path, entries = small
    for at in each_byte_changed(path):
        found = scanned(path)
        number = next(n for n, entry in enumerate(entries) if at < entry.end)
        start = entries[number - 1].end if number else 0
        in_name = start + HEADER <= at < entries[number].offset
        if in_name:
            assert [entry[1:] for entry in found] == [entry[1:] for entry in entries]
            assert found[number].name != entries[number].name
        else:
            assert found == entries[:number], at


def test_scan_from_the_middle(small: tuple[Path, list[Entry]]) -> None:
    path, entries = small
    assert scanned(path, entries[0].end) == entries[1:]
    assert scanned(path, entries[0].end + 1) == []
    assert scanned(path, path.stat().st_size) == []
    assert scanned(path, path.stat().st_size + 100) == []


@settings(deadline=None)
@given(garbage=st.binary(max_size=200), honest=st.booleans())
def test_scan_of_garbage(garbage: bytes, honest: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("garbage") / "pack.zip"
    path.write_bytes((b"PK\3\4" if honest else b"") + garbage)
    for entry in scanned(path):
        assert 0 <= entry.offset <= entry.end <= path.stat().st_size


@pytest.mark.parametrize("cut", [1, 5, 21, 22, 23, 60])
def test_a_directory_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "pack.zip"
    write(path, list(zip(NAMES, CONTENTS, strict=True)))
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(Damaged):
        directory(path)


def test_any_changed_byte_of_the_directory(tmp_path: Path) -> None:
    """A directory with a changed byte is damage, or every entry is still found where it is."""
    path = tmp_path / "pack.zip"
    entries = write(path, list(zip(NAMES, CONTENTS, strict=True)))
    for at in each_byte_changed(path, entries[-1].end):
        with contextlib.suppress(Damaged):
            found = directory(path)
            assert found != entries
            assert len(found) == len(entries)
        assert faults(path, entries[-1].end), at


def test_faults_of_any_changed_byte(tmp_path: Path) -> None:
    """Every byte of a pack is covered, but for those of blobs, which have checks of their own."""
    path = tmp_path / "pack.zip"
    items = [*zip(NAMES, CONTENTS, strict=True), (b"c/0000000000000001.cat", b"record")]
    entries = write(path, items)
    assert faults(path, entries[-1].end) == []
    for at in each_byte_changed(path):
        of_a_blob = any(entry.offset <= at < entry.end for entry in entries[:-1])
        assert bool(faults(path, entries[-1].end)) != of_a_blob, at


def test_faults_of_any_changed_byte_without_a_directory(small: tuple[Path, list[Entry]]) -> None:
    path, entries = small
    assert faults(path, entries[-1].end, sealed=False) == []
    for at in each_byte_changed(path):
        of_a_name = any(entry.offset - len(entry.name) <= at < entry.offset for entry in entries)
        assert bool(faults(path, entries[-1].end, sealed=False)) != of_a_name, at


def test_go_on_after_a_crash(small: tuple[Path, list[Entry]]) -> None:
    path, entries = small
    with path.open("ab") as file:
        file.write(b"PK\3\4 torn")
    writer = PackWriter(os.open(path, os.O_RDWR))
    assert writer.position == path.stat().st_size
    writer.cut_back(entries[-1].end)
    writer.entries = scanned(path)
    writer.add(b"o/more", b"more")
    writer.seal()
    writer.close()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [info.filename.encode() for info in archive.infolist()] == [*NAMES, b"o/more"]


def test_cut_back_drops_what_was_not_written(tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    writer = PackWriter(os.open(path, os.O_RDWR | os.O_CREAT))
    writer.add(b"o/kept", b"kept")
    kept = writer.position
    writer.flush()
    writer.add(b"o/dropped", b"dropped")
    writer.cut_back(kept)
    writer.add(b"o/last", b"last")
    writer.seal()
    writer.close()
    assert (
        [entry.name for entry in directory(path)] == [b"o/kept", b"o/last"] == [entry.name for entry in scanned(path)]
    )


def test_buffers_are_written_whatever_their_number_and_size(tmp_path: Path) -> None:
    generator = random.Random(5)
    sizes = [generator.choice([0, 1, 100, 5_000]) for _ in range(2_500)] + [5 << 20, 3, 9 << 20]
    contents = [generator.randbytes(size) for size in sizes]
    path = tmp_path / "pack.zip"
    write(path, [(b"o/%d" % number, data) for number, data in enumerate(contents)])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [archive.read(info) for info in archive.infolist()] == contents


def test_more_entries_than_a_plain_zip_counts(tmp_path: Path) -> None:
    """A giant file of many small fragments is one commit, so its pack has them all: ZIP64."""
    path = tmp_path / "pack.zip"
    count = 65_540
    entries = write(path, [(b"o/%06d" % number, b"x") for number in range(count)])
    assert directory(path) == entries
    assert scanned(path, entries[-3].end, verify=False) == entries[-2:]
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == count
        assert archive.read("o/065539") == b"x"
    assert "No errors" in unzip(path)


@pytest.mark.parametrize("count", [65_534, 65_535, 65_536])
def test_around_the_limit(tmp_path: Path, count: int) -> None:
    path = tmp_path / "pack.zip"
    write(path, [(b"o/%05d" % number, b"") for number in range(count)])
    assert len(directory(path)) == count
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == count


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "pack.zip"
    (tmp_path / "pack.zip").unlink(missing_ok=True)


def test_offsets_past_4_gib(sparse: Path) -> None:
    """Entries that lie further in than 32 bits can say: the hole before them is one sparse entry after another."""
    path = sparse
    hole = (1 << 31) + 5
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    writer = PackWriter(fd)
    for number in range(2):
        # A hole is written as its header alone; its CRC is never computed here.
        header = packfile._LOCAL.pack(b"PK\3\4", 20, 0x800, 0, 0, 0x21, number, hole, hole, 6, 0)
        name = b"hole/%d" % number
        os.pwrite(fd, header + name, writer.position)
        offset = writer.position + len(header) + len(name)
        writer.entries.append(Entry(name, offset, hole, number))
        writer.position = writer._written = offset + hole
        os.ftruncate(fd, writer.position)
    assert writer.position > 1 << 32
    writer.add(b"o/far", b"far away")
    writer.add(b"o/further", b"further")
    writer.seal()
    writer.close()

    entries = directory(path)
    assert [entry.name for entry in entries] == [b"hole/0", b"hole/1", b"o/far", b"o/further"]
    assert scanned(path, verify=False) == entries
    with zipfile.ZipFile(path) as archive:
        assert archive.read("o/far") == b"far away"
        assert archive.read("o/further") == b"further"
    if shutil.which("unzip"):
        told = subprocess.run(["unzip", "-p", path, "o/further"], capture_output=True)
        assert (told.returncode, told.stdout) == (0, b"further")


def test_range_crc(tmp_path: Path) -> None:
    data = random.Random(6).randbytes(9_000_001)
    path = tmp_path / "file"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    for offset, length in ((0, len(data)), (1, 5 << 20), (len(data), 0), (len(data) - 1, 1)):
        assert packfile.range_crc(fd, offset, length) == crc32(data[offset : offset + length])
    assert packfile.range_crc(fd, len(data) - 1, 2) == -1
    os.close(fd)


def test_a_pack_of_the_store_is_a_zip(tmp_path: Path) -> None:
    root = shelf.make(tmp_path / "store")
    blobs = [shelf.coded(bytes(n for n in range(200)) * 40, width) for width in (None, 1, 2)][:2]
    shelf.fill(root, [(b"one", blobs), (b"two", [])])
    with zipfile.ZipFile(shelf.pack_path(root)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert names == [f"o/{blobs[0].blob.hex()}", "c/0000000000000001.cat", "c/0000000000000002.cat"]
