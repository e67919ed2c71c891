"""docs/format.md is a promise: the program on the page gets every file back without dicomfs."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import zstandard

from dicomfs.archive import settings
from dicomfs.archive.archive import Archive
from dicomfs.errors import ArchiveMissing, UsageError
from tests.archive.importing import add, contents, packs, sha256, tables, tree
from tests.archive.project_scenes import create
from tests.archive.versions import delete, restore
from tests.builders import make_instance, make_series

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format.md"
FILES = [
    *make_series(4, rows=32, columns=32),
    *make_series(3, "US", series=2, rows=33, columns=31),
    make_instance("MR", series=3, frames=5),
    make_instance("SR", series=4),
    make_instance("US", series=5, frames=3, transfer_syntax="1.2.840.10008.1.2.4.50"),
    make_instance(series=6, transfer_syntax="1.2.840.10008.1.2.1.99"),
    make_instance("SC", series=7, rows=5, columns=5, trailing=b"x" * 70_000),
    make_instance("CT", series=8, rows=301, columns=333),
    make_instance("US", series=9, rows=333, columns=501),
    make_instance(number=1, seed="other"),
]


@pytest.fixture(params=["fast", "none"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    Archive.init(path, codec=request.param)
    add(path, *FILES[:6])
    add(path, *FILES[6:], on_conflict="replace")
    return path


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_program_on_the_page(filled: Path, tmp_path: Path) -> None:
    """By itself: dicomfs is nowhere to be imported from."""
    (program,) = programs()
    assert "dicomfs" not in program
    assert len(program.splitlines()) <= 64
    create(filled, deid="basic")
    gone = sorted(tree(filled).items())[:3]
    delete(filled, *(path for path, _ in gone))
    restore(filled, gone[1][1].ino)
    script, output = tmp_path / "program.py", tmp_path / "output"
    script.write_text(program, encoding="utf-8")
    output.mkdir()
    told = subprocess.run([sys.executable, "-I", script, filled, output], capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    expected = contents(filled)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == {
        f"{ino}.dcm": content for ino, content in expected.items()
    }
    with Archive.open(filled) as opened, opened.view() as view:
        derived = {ino for ino in expected if view.source_of(ino) is not None}
        past = {ino for ino in expected.keys() - derived if view.past(ino) is not None}
    assert len(past) == 3
    assert set(map(int, told.stdout.split(":")[1].split())) == past
    assert len(derived) >= 5
    assert sorted(content for ino, content in expected.items() if ino not in derived) == sorted(FILES)


def test_the_program_reads_a_pack_without_directory(filled: Path, tmp_path: Path) -> None:
    """What the page says of an unsealed pack: it can be read entry by entry from its start."""
    pack = packs(filled)[0].read_bytes()
    found, at = {}, 0
    while pack[at : at + 4] == b"PK\3\4":
        length, name_length = struct.unpack_from("<I", pack, at + 18)[0], struct.unpack_from("<H", pack, at + 26)[0]
        name = pack[at + 30 : at + 30 + name_length].decode()
        found[name] = pack[at + 30 + name_length :][:length]
        at += 30 + name_length + length
    with zipfile.ZipFile(packs(filled)[0]) as archive:
        assert found == {name: archive.read(name) for name in archive.namelist()}


def test_names_of_entries_are_hashes_of_plain_bytes(filled: Path) -> None:
    for path in packs(filled):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            assert names[-1].startswith("c/")
            for name in names:
                kind, _, rest = name.partition("/")
                assert kind in ("o", "h", "c")
                data = archive.read(name)
                if kind == "c":
                    assert re.fullmatch(r"[0-9a-f]{16}\.cat", rest)
                    assert data[:4] == b"DCAT"
                elif rest.endswith(".zst"):
                    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as frames:
                        assert sha256(frames.read()) == rest[:64]
                elif "." not in rest:
                    assert sha256(data) == rest


def test_the_records_are_as_the_page_says(filled: Path) -> None:
    previous = 0
    for path in packs(filled):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename[0] != "c":
                    continue
                record = archive.read(info)
                magic, version, zero, seq, start, _, blobs, meta, body = struct.unpack_from("<4sHHQQQIIQ", record)
                assert (magic, version, zero, seq) == (b"DCAT", 1, 0, previous + 1)
                assert info.filename == f"c/{seq:016x}.cat"
                assert len(record) == 48 + blobs + meta + body
                assert start == 0
                document = json.loads(zstandard.ZstdDecompressor().decompress(record[48 + blobs : 48 + blobs + meta]))
                assert set(document) == {
                    "op", "by", "run", "patients", "studies", "series", "study_patients", "directories", "instances",
                }  # fmt: skip
                assert document["op"] == "import"
                assert all(len(row) == 16 for row in document["instances"])
                previous = seq
    assert previous == 2


def test_the_records_of_a_project_are_as_the_page_says(filled: Path) -> None:
    create(filled, where=(("PatientID", "*"),), deid="basic")
    rows: dict[str, list[list[object]]] = {}
    with zipfile.ZipFile(packs(filled)[2]) as archive:
        for name in filter(lambda name: name[0] == "c", archive.namelist()):
            record = archive.read(name)
            blobs, meta = struct.unpack_from("<II", record, 32)
            document = json.loads(zstandard.ZstdDecompressor().decompress(record[48 + blobs : 48 + blobs + meta]))
            assert document["op"] == "project"
            assert document["instances"] == []
            for key in document.keys() - {"op", "by"}:
                rows.setdefault(key, []).extend(document[key])
    lengths = {"projects": 3, "derived": 12, "folders": 4, "placed": 2, "links": 4, "withheld": 3}
    assert {key: len(found[0]) for key, found in rows.items() if found} == lengths
    ((root, name, definition),) = rows["projects"]
    assert str(name).startswith("DeID_own_")
    assert set(definition) == {
        "name", "created", "timestamp", "where", "live", "deid", "headers", "source", "queries", "failed", "key",
        "version",
    }  # fmt: skip
    assert {row[1] for row in rows["derived"]} == {root}


def test_the_settings_are_readable(filled: Path) -> None:
    text = (filled / "dicomfs.toml").read_text(encoding="utf-8")
    held = tomllib.loads(text)
    assert held["format"] == 1
    assert held["hash"] == "sha256"
    assert set(held) == {"format", "archive_id", "created", "hash", "codec", "boundary"}
    read = settings.read(filled)
    assert (read.archive_id, read.codec, read.boundary) == (held["archive_id"], held["codec"], held["boundary"])
    # And it tells a person how to do without us.
    for word in ("unzip", "zstd", "SHA-256", "recipe"):
        assert word in text


def test_archives_differ(tmp_path: Path) -> None:
    made = []
    for name in "ab":
        Archive.init(tmp_path / name)
        made.append(settings.read(tmp_path / name))
    assert made[0].archive_id != made[1].archive_id
    assert made[0].boundary != made[1].boundary


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace("format = 1", "format = 2"), "format 2"),
        (lambda text: text.replace("format = 1", "format = 'x'"), "lacks"),
        (lambda text: text.replace("codec", "codex"), "codec"),
        (lambda text: text + "[[[", "damaged"),
        (lambda text: "\udcff" + text, "damaged"),
        (lambda text: "", "lacks"),
    ],
)
def test_settings_of_another_kind(archive_path: Path, damage: object, told: str) -> None:
    path = archive_path / "dicomfs.toml"
    text = path.read_text()
    path.write_text(damage(text), errors="surrogateescape")
    with pytest.raises(ArchiveMissing, match=told):
        Archive.open(archive_path)
    path.write_text(text)


@pytest.mark.parametrize("force", [False, True])
def test_init_where_something_is(tmp_path: Path, force: bool) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "mine").write_text("kept")
    if force:
        Archive.init(place, force=True)
        assert (place / "mine").read_text() == "kept"
        Archive.open(place).close()
    else:
        with pytest.raises(UsageError, match="not empty"):
            Archive.init(place)
        assert [path.name for path in place.iterdir()] == ["mine"]


def test_init_twice(archive_path: Path) -> None:
    before = tables(archive_path)
    for force in (False, True):
        with pytest.raises(UsageError, match="archive already"):
            Archive.init(archive_path, force=force)
    assert tables(archive_path) == before


def test_init_with_an_unknown_codec(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="codec"):
        Archive.init(tmp_path / "archive", codec="gzip")
    # And it leaves nothing that would be in the way of a second try.
    Archive.init(tmp_path / "archive")


def test_init_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="not a directory"):
        Archive.init(tmp_path / "file")


def test_codec_none_stores_plain(tmp_path: Path) -> None:
    Archive.init(tmp_path / "archive", codec="none")
    add(tmp_path / "archive", *make_series(2))
    with zipfile.ZipFile(packs(tmp_path / "archive")[0]) as archive:
        blobs = [name for name in archive.namelist() if name.startswith("o/")]
    assert len(blobs) == 2
    assert all(re.fullmatch("o/[0-9a-f]{64}", name) for name in blobs)


def test_codecs_of_frames(archive_path: Path) -> None:
    """16-bit frames as byte planes, 8-bit ones as they are; fragments are never compressed again."""
    add(archive_path, make_instance("CT"), make_instance("SC"), *FILES[9:10])
    with zipfile.ZipFile(packs(archive_path)[0]) as archive:
        suffixes = sorted(Path(name).suffix for name in archive.namelist() if name.startswith("o/"))
    assert suffixes == ["", "", "", ".p2z", ".zst"] or suffixes == ["", "", "", "", ".p2z"]
