"""Gzip members made of pieces: whatever the pieces, one member of the whole text."""

from __future__ import annotations

import gzip
import zlib
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.archive.documents_gzip import HEADER, Piece, Sum, member, piece, text
from dicomfs.errors import Damaged


def joined(pieces: list[Piece]) -> bytes:
    """Return the member made of these pieces."""
    whole = Sum()
    for one in pieces:
        whole.add(one.crc32, one.length)
    return HEADER + b"".join(bytes(one.data) for one in pieces) + whole.trailer()


@given(st.lists(st.text(max_size=200), max_size=8), st.text(max_size=20))
def test_pieces_are_one_member(texts: list[str], last: str) -> None:
    whole = "".join([*texts, last]).encode("utf-8", "replace")
    made = joined([*map(piece, texts), piece(last, last=True)])
    # gzip checks CRC-32 and length; one member, and nothing after it.
    assert gzip.decompress(made) == whole
    reader = zlib.decompressobj(31)
    assert reader.decompress(made) == whole
    assert reader.eof
    assert reader.unused_data == b""
    assert text(made) == whole.decode()


@given(st.lists(st.binary(max_size=3000), max_size=6))
def test_the_crc_is_that_of_zlib(parts: list[bytes]) -> None:
    whole = Sum()
    for part in parts:
        whole.add(zlib.crc32(part), len(part))
    crc32 = reduce(lambda before, part: zlib.crc32(part, before), parts, 0)
    assert whole.trailer() == crc32.to_bytes(4, "little") + len(b"".join(parts)).to_bytes(4, "little")


def test_lengths_beyond_four_gigabytes() -> None:
    whole = Sum()
    zeros = bytes(1 << 20)
    for _ in range(4097):
        whole.add(zlib.crc32(zeros), 1 << 20)
    assert int.from_bytes(whole.trailer()[4:], "little") == 1 << 20


def test_a_member_says_neither_time_nor_name() -> None:
    made = member('[{"00100010":{"vr":"PN"}}]')
    assert made == member('[{"00100010":{"vr":"PN"}}]')
    assert made[:10] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3])


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert gzip.decompress(member('["\udc80é"]')) == '["?é"]'.encode()


def test_what_is_not_as_it_was_is_damaged() -> None:
    made = member("[" + ",".join(map(str, range(1000))) + "]")
    for spoiled in (made[:-1], made[: len(made) // 2], b"", made[:20] + b"\xff\xff\xff" + made[23:]):
        with pytest.raises(Damaged):
            text(spoiled)
