"""Bundles: what is written is found again, and one that was cut off or changed is not taken for whole."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.archive import bundle_writing, documents_gzip
from dicomfs.archive.bundle import NO_HASH, Bundle, Card, Hashed
from dicomfs.archive.bundle_writing import BundleWriter, ListPiece
from dicomfs.dicom.model import BulkValue
from dicomfs.errors import Damaged, StorageFull

if TYPE_CHECKING:
    from pathlib import Path

VALUE = BulkValue("00091010", "OB", 100, 3000, 1)
NESTED = BulkValue("52009230.1.00209111.1.00281201", "OW", 1 << 33, (1 << 33) + 4096, 2)
PIXELS = BulkValue("7FE00010", "OW", 5000, 9000, 1)
CARDS = (
    Card(7, "1.2.3", 10**18, 40, single_stream=False, colour=True, rows=512, columns=65535, kind="image",
         damaged=False, bulk=(VALUE, NESTED, PIXELS)),
    Card(5, "Ü~hash", 1, 0, single_stream=False, colour=False, rows=0, columns=0, kind="none", damaged=True, bulk=()),
    Card(1 << 39, "1.2.4", 2, 1, single_stream=True, colour=False, rows=1, columns=1, kind="video", damaged=False,
         bulk=(PIXELS,)),
)  # fmt: skip
FIRST, SECOND = sha256(b"first").digest(), sha256(b"second").digest()


def write(path: Path) -> Path:
    """Write a bundle with something of everything."""
    with BundleWriter(path) as writer:
        writer.add(("instance", 7), b"instance seven")
        writer.add(("metadata", 7), b"")
        pieces = [documents_gzip.piece("[1,"), documents_gzip.piece("2]", last=True)]
        writer.add_list("metadata", [ListPiece(b"d" * 16, pieces[0]), ListPiece(b"", pieces[1])])
        writer.add_card(CARDS[0], FIRST, (SECOND, FIRST, NO_HASH))
        writer.add_card(CARDS[1], NO_HASH, ())
        writer.add_card(CARDS[2], SECOND, (NO_HASH,))
        writer.add_value(SECOND, 7, NESTED)
        writer.add_value(SECOND, 9, VALUE)
        writer.add_object(FIRST, b"object")
        writer.middle, writer.name = 7, FIRST.hex()
        writer.commit()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a bundle."""
    return write(tmp_path / "cache" / "documents" / "series-5-a.b")


def test_documents_are_found(path: Path) -> None:
    bundle = Bundle.open(path)
    assert bundle.document(("instance", 7)) == b"instance seven"
    assert bundle.document(("metadata", 7)) == b""
    assert documents_gzip.text(bundle.document(("metadata", 0))) == "[1,2]"
    for missing in (("instance", 6), ("instance", 8), ("studies", 0), ("metadata", 1 << 40), ("objects", 0)):
        assert bundle.get(missing) is None
        with pytest.raises(Damaged):
            bundle.document(missing)
    ((known, kept),) = bundle.pieces().items()
    assert known == ("metadata", b"d" * 16)
    piece = documents_gzip.piece("[1,")
    assert (bundle.read(*kept.extent), kept.crc32, kept.length) == (piece.data, piece.crc32, piece.length)
    assert (bundle.middle, bundle.name) == (7, FIRST.hex())


def test_cards_are_found(path: Path) -> None:
    cards = Bundle.open(path).cards
    assert tuple(cards) == cards[:] == CARDS
    assert (len(cards), cards[-1], cards[1:]) == (3, CARDS[2], CARDS[1:])
    assert [cards.named(card.name) for card in CARDS] == [cards.of(card.ino) for card in CARDS] == list(CARDS)
    assert cards.named("1.2") is None
    assert cards.of(6) is None
    assert list(cards.names()) == [(card.name, card.ino, card.mtime_ns) for card in CARDS]
    assert cards.hashes(7) == (FIRST, (SECOND, FIRST, NO_HASH))
    assert cards.hashes(5) == (NO_HASH, ())
    with pytest.raises(IndexError):
        cards[3]


def test_values_are_found_by_hash(path: Path) -> None:
    bundle = Bundle.open(path)
    found = sorted(
        (
            # The first instance that has a value stands for all.
            Hashed(SECOND.hex(), "raw", 7, NESTED, None),
            Hashed(FIRST.hex(), "json.gz", 0, None, next(bundle.hashed(FIRST.hex())).extent),
        )
    )
    assert list(bundle.hashed()) == found
    for one in found:
        for digits in (1, 3, 5, 63, 64):
            assert list(bundle.hashed(one.sha256[:digits])) == [one]
    assert list(bundle.hashed("fff")) == []
    extent = next(bundle.hashed(FIRST.hex())).extent
    assert extent is not None
    assert bundle.read(*extent) == b"object"


def test_the_same_is_written_twice(path: Path, tmp_path: Path) -> None:
    assert path.read_bytes() == write(tmp_path / "other").read_bytes()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = write(tmp_path / "a" / "b" / "series-1-a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(above.stat().st_mode) for above in (path.parent, path.parent.parent)] == [0o700, 0o700]


def test_every_cut_is_found_out(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not bundle_writing.is_there(path)
        with pytest.raises(Damaged):
            Bundle.open(path)
    path.write_bytes(whole)
    assert bundle_writing.is_there(path)


def test_every_change_of_the_table_is_found_out(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    table = int.from_bytes(whole[-28:-20], "little")
    for at in (*range(8), *range(table, len(whole))):
        whole[at] ^= 0x10
        path.write_bytes(whole)
        assert not bundle_writing.is_there(path)
        whole[at] ^= 0x10


def test_nothing_is_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "series-1-a"
    with BundleWriter(path) as writer:
        writer.add(("query", 0), b"x")
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_those_before_it_are_removed(tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("series-12-a", "study-1-a", ".series-1-a.0123", "series-1", "series-1-1a.0")]
    for other in others:
        other.write_bytes(b"")
    write(tmp_path / "series-1-a")
    abandoned = tmp_path / ".series-1-a.4567"
    abandoned.write_bytes(b"")
    os.utime(abandoned, (0, 0))
    write(tmp_path / "series-1-?")
    write(tmp_path / "series-1-b.2")
    assert {path.name for path in tmp_path.iterdir()} == {*(path.name for path in others), "series-1-b.2"}


def test_the_latest_whole_one_is_taken_over_from(tmp_path: Path) -> None:
    for age, name in enumerate(("series-1-new", "series-1-mid", "series-1-old", "series-11-x")):
        write(tmp_path / "elsewhere" / name).rename(tmp_path / name)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "series-1-new").write_bytes(b"cut off")
    before = bundle_writing.before(tmp_path / "series-1-next")
    assert before is not None
    assert before.path.name == "series-1-mid"
    assert bundle_writing.before(tmp_path / "series-2-next") is None
    assert bundle_writing.before(tmp_path / "nowhere" / "series-2-next") is None


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(StorageFull):
        BundleWriter(tmp_path / "cache" / "documents" / "series-1-a")


def test_bytes_that_were_read_stay_good(path: Path) -> None:
    with Bundle.open(path) as bundle:
        document = bundle.document(("instance", 7))
    path.unlink()
    assert document == b"instance seven"


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["metadata", "instance", "dedup"]), st.integers(0, 2**64 - 1)), st.binary(max_size=50)
    )
)
def test_any_keys(tmp_path_factory: pytest.TempPathFactory, documents: dict[tuple[str, int], bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "bundle"
    with BundleWriter(path) as writer:
        for key, document in documents.items():
            writer.add(key, document)
        writer.commit()
    bundle = Bundle.open(path)
    assert {key: bytes(bundle.document(key)) for key in documents} == documents
    bundle.remember()
    assert {key: bytes(bundle.document(key)) for key in documents} == documents
    assert bundle.get(("studies", 0)) is None


def test_directories_of_hashes_are_had_without_reading_what_is_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [sha256(b"%d" % number).digest() for number in range(2000)]
    path = tmp_path / "cache" / "study-5-a.b"
    with BundleWriter(path) as writer:
        for digest in digests:
            writer.add_value(digest, 7, NESTED)
        writer.commit()
    bundle = Bundle.open(path)
    names = [digest.hex() for digest in digests]
    assert list(bundle.digits("", 3)) == sorted({int(name[:3], 16) for name in names})
    assert list(bundle.digits("a1", 1)) == sorted({int(name[2], 16) for name in names if name.startswith("a1")})
    assert list(bundle.digits("", 3, 0x1000)) == []
    read: list[int] = []
    file = Bundle._file

    def counted(self: Bundle, number: int) -> Hashed:
        read.append(number)
        return file(self, number)

    monkeypatch.setattr(Bundle, "_file", counted)
    some = [digits for digits, _ in zip(bundle.digits("", 3, 0x800), range(10), strict=False)]
    assert some == [number for number in sorted({int(name[:3], 16) for name in names}) if number >= 0x800][:10]
    assert len(read) <= 11
