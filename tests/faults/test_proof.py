"""A file is proved before it is committed: a defect of ours costs deduplication, a change under way is told.

The faults are planted in the process that splits, so these tests drive it directly, without workers.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from isal.isal_zlib import crc32

from dicomfs.archive import splitting
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.splitting import Row, Splitter
from dicomfs.dicom.describe import Described
from dicomfs.dicom.split import FRAME, LITERAL, Span
from dicomfs.store import codec as codecs
from dicomfs.store.recipe import BlobId, Recipe
from tests.builders import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable


class Nothing:
    """An archive that holds nothing."""

    def file(self, sha256: bytes) -> bool:
        return False

    def blobs(self, blobs: list[BlobId]) -> list[bool]:
        return [False] * len(blobs)

    def base_of(self, study_instance_uid: str, series_instance_uid: str) -> tuple[bytes, bytes] | None:
        return None


class Gathered:
    """A sink that puts the file together again from what it was given."""

    def __init__(self, when_begun: Callable[[], object] = lambda: None) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.rows: list[Row] = []
        self.outcomes: list[tuple[Outcome, str]] = []
        self._when_begun = when_begun

    def begin(self, sha256: bytes, sop_instance_uid: str) -> None:
        self._when_begun()

    def blob(
        self,
        blob: BlobId,
        codec: int,
        length: int,
        stored: bytes | memoryview,
        crc: int,
        checks: codecs.Checks,
    ) -> None:
        self.blobs[blob] = bytes(codecs.decode(codec, bytes(stored), length, checks))

    def base(self, blob: BlobId, codec: int, length: int, stored: bytes) -> None:
        self.blobs[blob] = bytes(codecs.decode(codec, stored, length, (crc32(stored),)))

    def row(self, row: Row) -> None:
        self.rows.append(row)

    def risk(self) -> None:
        pass

    def outcome(self, outcome: Outcome, reason: str, size: int, sha256: bytes, sop_instance_uid: str) -> None:
        self.outcomes.append((outcome, reason))

    def file(self) -> bytes:
        """Replay the one recipe."""
        import zstandard

        (row,) = self.rows
        content = self.blobs.get(row.base, b"")
        dictionary = zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        header = zstandard.ZstdDecompressor(dict_data=dictionary if content else None).decompress(row.body)
        length = int.from_bytes(header[:4], "little")
        recipe, literals = Recipe(header[4 : 4 + length]), header[4 + length :]
        parts = []
        for size, blob in zip(recipe.lengths, recipe.blobs, strict=True):
            if blob is None:
                parts.append(literals[:size])
                literals = literals[size:]
            else:
                assert len(self.blobs[blob]) == size
                parts.append(self.blobs[blob])
        assert not literals
        return b"".join(parts)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(make_instance("MR", frames=3, trailing=b"trailing"))
    return path


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda spans, size: [Span(LITERAL, 0, size, 1)], id="one literal"),
        pytest.param(lambda spans, size: [Span(FRAME, 0, size, 8)], id="one frame"),
        pytest.param(lambda spans, size: spans[:-1], id="the last missing"),
        pytest.param(lambda spans, size: [*spans, spans[-1]], id="the last twice"),
        pytest.param(lambda spans, size: [spans[1], spans[0], *spans[2:]], id="out of order"),
        pytest.param(
            lambda spans, size: [
                spans[0],
                spans[1]._replace(start=spans[1].start - 8, end=spans[1].end - 8),
                *spans[2:],
            ],
            id="overlap and gap of one length",
        ),
        pytest.param(lambda spans, size: [Span(LITERAL, 0, size + 10, 1)], id="past the end"),
        pytest.param(lambda spans, size: [], id="none"),
    ],
)
def test_wrong_spans_cost_only_deduplication(
    source: Path, monkeypatch: pytest.MonkeyPatch, tamper: Callable[[list[Span], int], list[Span]]
) -> None:
    describe = splitting.describe

    def mistaken(data: memoryview) -> Described:
        described = describe(data)
        return replace(described, spans=tamper(list(described.spans), len(data)))

    monkeypatch.setattr(splitting, "describe", mistaken)
    sink = Gathered()
    Splitter(Nothing(), sink, codec="fast").process(str(source))
    assert sink.file() == source.read_bytes()


@pytest.mark.parametrize("codec", ["fast", "none"])
def test_wrong_codec_costs_only_compression(source: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    encode = codecs.encode

    def mistaken(data: bytes | memoryview, sample_bytes: int) -> codecs.Coded:
        changed = bytearray(data)
        changed[-1] ^= 1
        return encode(bytes(changed), sample_bytes)

    monkeypatch.setattr(codecs, "encode", mistaken)
    sink = Gathered()
    Splitter(Nothing(), sink, codec=codec).process(str(source))
    assert sink.file() == source.read_bytes()


@pytest.mark.parametrize("buffer", [splitting.BUFFER, 4096], ids=["read", "mapped"])
def test_source_that_changes_while_it_is_split(source: Path, monkeypatch: pytest.MonkeyPatch, buffer: int) -> None:
    monkeypatch.setattr(splitting, "BUFFER", buffer)
    before = source.read_bytes()

    def change() -> None:
        with source.open("r+b") as file:
            file.seek(len(before) // 2)
            file.write(b"changed")

    sink = Gathered(change)
    Splitter(Nothing(), sink, codec="fast").process(str(source))

    if sink.rows:
        assert hashlib.sha256(sink.file()).digest() == sink.rows[0].sha256
    else:
        assert [outcome for outcome, _ in sink.outcomes] == [Outcome.FAILED]
        assert "changed" in sink.outcomes[0][1]
