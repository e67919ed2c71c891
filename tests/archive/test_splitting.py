"""Splitting: the pieces of every file make the file again, whatever the walker made of it."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.archive import splitting
from dicomfs.archive.archive import NO_BASE
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.splitting import Row, Splitter
from dicomfs.dicom.describe import Described, describe
from dicomfs.dicom.split import FRAGMENT, FRAME, LITERAL, VALUE, Span
from dicomfs.store import codec as codecs
from dicomfs.store.recipe import MAX_BLOB, BlobId, Recipe
from tests.builders import make_instance, make_series

if TYPE_CHECKING:
    from pathlib import Path

JPEG = "1.2.840.10008.1.2.4.50"
DEFLATED = "1.2.840.10008.1.2.1.99"


class Held:
    """Takes what a splitter gives, as an archive would, and gives files back."""

    def __init__(self) -> None:
        self.stored: dict[bytes, tuple[int, int, bytes, codecs.Checks]] = {}
        self.bases: dict[bytes, bytes] = {}
        self.rows: list[Row] = []
        self.outcomes: list[tuple[Outcome, str, int, bytes]] = []
        self.calls: list[str] = []
        self.files: set[bytes] = set()
        self.of_series: tuple[bytes, bytes] | None = None

    def begin(self, sha256: bytes, sop_instance_uid: str) -> None:
        self.calls.append("begin")

    def blob(
        self, blob: BlobId, codec: int, length: int, stored: bytes | memoryview, crc: int, checks: codecs.Checks
    ) -> None:
        self.calls.append("blob")
        assert length <= MAX_BLOB
        self.stored[blob] = codec, length, bytes(stored), checks

    def base(self, blob: BlobId, codec: int, length: int, stored: bytes) -> None:
        self.calls.append("base")
        self.bases[blob] = zstandard.ZstdDecompressor().decompress(stored)
        assert hashlib.sha256(self.bases[blob]).digest() == blob
        assert len(self.bases[blob]) == length

    def row(self, row: Row) -> None:
        self.calls.append("row")
        self.rows.append(row)

    def risk(self) -> None:
        self.calls.append("risk")

    def outcome(self, outcome: Outcome, reason: str, size: int, sha256: bytes, sop_instance_uid: str) -> None:
        self.calls.append(outcome)
        self.outcomes.append((outcome, reason, size, sha256))

    def file(self, sha256: bytes) -> bool:
        return sha256 in self.files

    def blobs(self, blobs: list[BlobId]) -> list[bool]:
        return [blob in self.stored for blob in blobs]

    def base_of(self, study_instance_uid: str, series_instance_uid: str) -> tuple[bytes, bytes] | None:
        return self.of_series

    def joined(self, row: Row) -> bytes:
        """Put a file together as docs/format.md says."""
        dictionary = None
        if row.base != NO_BASE:
            dictionary = zstandard.ZstdCompressionDict(self.bases[row.base], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        header = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(row.body)
        end = 4 + int.from_bytes(header[:4], "little")
        recipe, literals = Recipe(header[4:end]), header[end:]
        parts, at = [], 0
        for length, blob in zip(recipe.lengths, recipe.blobs, strict=True):
            if blob is None:
                parts.append(literals[at : at + length])
                at += length
            else:
                codec, plain, stored, checks = self.stored[blob]
                assert plain == length
                parts.append(bytes(codecs.decode(codec, stored, length, checks)))
                assert hashlib.sha256(parts[-1]).digest() == blob
        assert at == len(literals) == row.literal_length
        return b"".join(parts)


def split(path: Path, *contents: bytes, codec: str = "fast", held: Held | None = None) -> Held:
    held = held or Held()
    splitter = Splitter(held, held, codec=codec)
    for number, content in enumerate(contents):
        file = path / f"file{number}"
        file.write_bytes(content)
        splitter.process(str(file))
    return held


FILES = {
    "CT": make_instance(rows=80, columns=80),
    "frames": make_instance("MR", frames=6),
    "colour": make_instance("US", rows=33, columns=35, frames=2),
    "no pixels": make_instance("SR"),
    "fragments": make_instance("US", frames=3, transfer_syntax=JPEG),
    "deflated": make_instance(transfer_syntax=DEFLATED),
    "trailing": make_instance(trailing=b"x" * 5000),
}


@pytest.mark.parametrize("codec", ["fast", "none"])
def test_threads_give_the_same_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    """A long file's pieces are made by threads."""
    contents = (make_instance("MR", frames=40, rows=90, columns=90), *FILES.values())
    expected = split(tmp_path, *contents, codec=codec)
    monkeypatch.setattr("dicomfs.archive.splitting._ASIDE_ABOVE", 0)
    found = split(tmp_path, *contents, codec=codec)
    assert found.rows == expected.rows
    assert list(found.stored.items()) == list(expected.stored.items())
    assert found.calls == expected.calls
    assert [found.joined(row) for row in found.rows] == list(contents)


@pytest.mark.parametrize("codec", ["fast", "none"])
@pytest.mark.parametrize("kind", FILES)
def test_the_pieces_make_the_file(tmp_path: Path, kind: str, codec: str) -> None:
    held = split(tmp_path, FILES[kind], codec=codec)
    (row,) = held.rows
    assert held.joined(row) == FILES[kind]
    assert (row.size, row.sha256) == (len(FILES[kind]), hashlib.sha256(FILES[kind]).digest())
    assert held.calls[0] == "begin"
    assert held.calls[-1] == "row"
    if codec == "none" or kind == "fragments":
        assert {stored[0] for stored in held.stored.values()} <= {codecs.PLAIN}


def test_what_is_mapped_is_split_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = split(tmp_path, *FILES.values())
    monkeypatch.setattr(splitting, "BUFFER", 100)
    mapped = split(tmp_path, *FILES.values())
    assert mapped.rows == expected.rows
    assert mapped.stored == expected.stored
    assert mapped.calls.count("risk") == len(FILES)


@st.composite
def tilings(draw: st.DrawFn) -> list[Span]:
    """Draw spans that may or may not tile a file of 6,000 bytes."""
    cuts = sorted(draw(st.sets(st.integers(1, 5999), max_size=8)))
    bounds = [0, *cuts, 6000]
    kinds = st.sampled_from([LITERAL, FRAME, FRAGMENT, VALUE])
    spans = [
        Span(draw(kinds), start, end, draw(st.sampled_from([1, 2, 4, 8]))) for start, end in itertools.pairwise(bounds)
    ]
    what = draw(st.sampled_from(["right", "right", "shuffled", "one less", "overlap", "too far", "none"]))
    if what == "shuffled":
        spans = draw(st.permutations(spans))
    elif what == "one less" and len(spans) > 1:
        spans.pop(draw(st.integers(0, len(spans) - 1)))
    elif what == "overlap":
        spans[-1] = spans[-1]._replace(start=spans[-1].start - 1) if spans[-1].start else spans[-1]
    elif what == "too far":
        spans[-1] = spans[-1]._replace(end=7000)
    elif what == "none":
        spans = []
    return spans


@settings(deadline=None, max_examples=60)
@given(spans=tilings(), mapped=st.booleans())
def test_whatever_the_walker_says_the_file_is_kept(
    tmp_path_factory: pytest.TempPathFactory, spans: list[Span], mapped: bool
) -> None:
    """Spans that do not tile the file cost deduplication and never a byte."""
    content = (random.Random(1).randbytes(3000) + bytes(n // 9 % 256 for n in range(3000)))[:6000]
    real = describe(FILES["CT"])

    def pretend(data: memoryview) -> Described:
        return Described(real.verdict, "", real.transfer_syntax, spans, real.attributes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "describe", pretend)
        if mapped:
            patch.setattr(splitting, "BUFFER", 100)
        held = split(tmp_path_factory.mktemp("split"), content)
    (row,) = held.rows
    assert held.joined(row) == content


def test_a_walker_that_fails_ends_one_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(data: memoryview) -> Described:
        if b"Series 2" in bytes(data[:5000]):
            raise RecursionError
        return describe(data)

    monkeypatch.setattr(splitting, "describe", failing)
    files = [make_instance(series=series) for series in (1, 2, 3)]
    held = split(tmp_path, *files)
    assert [held.joined(row) for row in held.rows] == [files[0], files[2]]
    ((outcome, reason, size, sha256),) = held.outcomes
    assert (outcome, size, sha256) == (Outcome.QUARANTINED, len(files[1]), hashlib.sha256(files[1]).digest())
    assert "RecursionError" in reason


def test_long_values_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomfs.archive.pieces.MAX_BLOB", 3000)
    held = split(tmp_path, FILES["CT"])
    (row,) = held.rows
    assert held.joined(row) == FILES["CT"]
    assert sorted(stored[1] for stored in held.stored.values()) == sorted([3000] * 4 + [800])


def test_too_many_literals_become_blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomfs.archive.pieces._MAX_LITERAL", 500)
    held = split(tmp_path, FILES["CT"])
    (row,) = held.rows
    assert row.literal_length == 0
    assert held.joined(row) == FILES["CT"]


def test_headers_of_a_series_share_a_base(tmp_path: Path) -> None:
    files = make_series(30, attributes={"ImageComments": "the same in every header of a series " * 60})
    held = split(tmp_path, *files)
    assert [held.joined(row) for row in held.rows] == files
    assert held.calls.count("base") == 1
    assert len({row.base for row in held.rows}) == 1
    assert sum(len(row.body) for row in held.rows) < 0.1 * sum(row.literal_length for row in held.rows)


def test_a_series_goes_on_with_the_base_of_an_earlier_import(tmp_path: Path) -> None:
    files = make_series(4)
    earlier = split(tmp_path, *files[:2])
    (base,) = earlier.bases
    held = Held()
    held.of_series = base, earlier.bases[base]
    split(tmp_path, *files[2:], held=held)
    held.bases = earlier.bases
    assert "base" not in held.calls
    assert [held.joined(row) for row in held.rows] == files[2:]


def test_a_header_unlike_the_others_gets_a_base_of_its_own(tmp_path: Path) -> None:
    generator = random.Random(1)
    odd = "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=9000))
    files = [make_instance(number=1), make_instance(number=2, attributes={"ImageComments": odd})]
    files.append(make_instance(number=3, attributes={"ImageComments": odd}))
    held = split(tmp_path, *files)
    assert [held.joined(row) for row in held.rows] == files
    assert held.rows[2].base == held.rows[1].base != held.rows[0].base
    assert len(held.rows[2].body) < 1500


def test_what_is_stored_is_not_given_again(tmp_path: Path) -> None:
    held = split(tmp_path, FILES["frames"])
    held.calls.clear()
    twin = make_instance("MR", frames=6, attributes={"PatientComments": "twin"})
    split(tmp_path, twin, held=held)
    assert "blob" not in held.calls
    assert held.joined(held.rows[1]) == twin


def test_a_file_that_is_there_is_not_split(tmp_path: Path) -> None:
    held = Held()
    held.files.add(hashlib.sha256(FILES["CT"]).digest())
    split(tmp_path, FILES["CT"], held=held)
    assert held.calls == [Outcome.PRESENT]


def test_a_dry_run_gives_no_bytes(tmp_path: Path) -> None:
    held = Held()
    splitter = Splitter(held, held, codec="fast", describe_only=True)
    (tmp_path / "file").write_bytes(FILES["CT"])
    splitter.process(str(tmp_path / "file"))
    assert held.calls == ["begin", "row"]


@pytest.mark.parametrize("path", ["missing", "/proc/self/mem", "."])
def test_what_cannot_be_read_is_an_outcome(tmp_path: Path, path: str) -> None:
    held = Held()
    Splitter(held, held, codec="fast").process(os.path.join(tmp_path, path))
    ((outcome, reason, _, _),) = held.outcomes
    assert outcome is Outcome.FAILED
    assert reason.startswith("cannot be read: ")


def test_a_mapped_file_that_changes_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its SHA-256 was taken of other bytes than its blobs."""
    monkeypatch.setattr(splitting, "BUFFER", 100)
    file = tmp_path / "file0"

    def changing(data: memoryview) -> Described:
        described = describe(data)
        with file.open("r+b") as opened:
            opened.seek(len(data) - 100)
            opened.write(b"changed")
        return described

    monkeypatch.setattr(splitting, "describe", changing)
    held = split(tmp_path, FILES["CT"])
    assert held.rows == []
    ((outcome, reason, _, _),) = held.outcomes
    assert outcome is Outcome.FAILED
    assert "changed" in reason
