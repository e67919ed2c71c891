"""What is coded at rest comes back bit for bit, whatever its length and the width of its samples."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from isal.isal_zlib import crc32

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store import commit as commits

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTHS = (1, 2, 4, 8)
SMOOTH = bytes(np.arange(4096, dtype="<u2").data)

content = st.one_of(
    st.binary(max_size=600),
    # Runs compress, so that this is not stored plain.
    st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=9), st.integers(0, 400)),
)


@given(data=content, width=st.sampled_from(WIDTHS), before=st.integers(0, 7))
def test_round_trip(data: bytes, width: int, before: int) -> None:
    # A frame lies anywhere in its file, so its samples are not aligned in memory.
    view = memoryview(bytes(before) + data)[before:]
    codec, stored, checks = codecs.encode(view, width)
    assert bytes(codecs.decode(codec, stored, len(data), checks)) == data
    assert codecs.decodes_to(codecs.Coded(codec, stored, checks), data)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9, 4095, 4096, 65535, 65536, 65537])
def test_round_trip_of_each_length(width: int, length: int) -> None:
    data = (SMOOTH * 9)[:length]
    codec, stored, checks = codecs.encode(data, width)
    assert bytes(codecs.decode(codec, stored, length, checks)) == data
    assert len(stored) <= length


@pytest.mark.parametrize(("width", "codec"), [(1, 1), (2, 2), (4, 3), (8, 4)])
def test_each_width_has_its_codec(width: int, codec: int) -> None:
    assert codecs.encode(SMOOTH, width)[0] == codec
    assert codecs.CODECS[codecs.SUFFIXES[codec]] == codec


@pytest.mark.parametrize("width", [2, 4, 8])
def test_planes_of_a_short_blob_are_as_the_format_says(width: int) -> None:
    """All first bytes, all second bytes, ..., and at the end what is left over: one frame."""
    data = bytes(range(240)) * 4 + b"x" * (width - 1)
    codec, stored, checks = codecs.encode(data, width)
    whole = len(data) // width * width
    planes = b"".join(data[n:whole:width] for n in range(width)) + data[whole:]
    assert codec == codecs.PLANES[width]
    assert zstandard.ZstdDecompressor().decompress(stored) == planes
    assert checks == (crc32(stored),)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("left_over", [0, 1])
def test_chunks_are_as_the_format_says(width: int, left_over: int) -> None:
    """For each 128 KiB a frame of first bytes, one of second bytes, ...; what is left over is in the last."""
    data = (SMOOTH * 40)[: (1 << 17) + 80_000 + left_over]
    codec, stored, checks = codecs.encode(data, width)
    assert codec == (codecs.ZSTD if width == 1 else codecs.PLANES[width])
    at, expected = 0, iter(checks)
    for chunk in (data[: 1 << 17], data[1 << 17 :]):
        crc, *lengths = (next(expected) for _ in range(1 + width))
        assert crc32(stored[at : at + sum(lengths)]) == crc
        whole = len(chunk) // width * width
        for plane, length in enumerate(lengths):
            planes = zstandard.ZstdDecompressor().decompress(bytes(stored[at : at + length]))
            assert planes == chunk[plane:whole:width] + (chunk[whole:] if plane == width - 1 else b"")
            at += length
    assert at == len(stored)
    assert list(expected) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_blob_in_one_frame_is_read(width: int) -> None:
    """So the first archives were written."""
    data = (SMOOTH * 40)[:200_003]
    whole = len(data) // width * width
    planes = b"".join(data[n:whole:width] for n in range(width)) + data[whole:]
    stored = zstandard.compress(planes)
    codec = codecs.ZSTD if width == 1 else codecs.PLANES[width]
    assert bytes(codecs.decode(codec, stored, len(data), (crc32(stored),))) == data


def test_what_decodes_to_something_else_is_noticed() -> None:
    data = (SMOOTH * 40)[:200_000]
    coded = codecs.encode(data, 2)
    assert codecs.decodes_to(coded, data)
    for at in (0, 131_071, 131_072, 199_999):
        other = bytearray(data)
        other[at] ^= 1
        assert not codecs.decodes_to(coded, bytes(other))
    assert not codecs.decodes_to(coded._replace(stored=coded.stored[:-1] + b"x"), data)
    assert not codecs.decodes_to(codecs.plain(data), data[:-1] + b"x")


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: (*c, 1), lambda c: (c[0], c[1] + 1, *c[2:])])
def test_checks_that_do_not_fit_are_damage(change: Callable[[codecs.Checks], codecs.Checks]) -> None:
    data = (SMOOTH * 40)[:200_000]
    coded = codecs.encode(data, 2)
    with pytest.raises(Damaged, match="record"):
        codecs.decode(coded.codec, coded.stored, len(data), change(coded.checks))


def test_what_does_not_shrink_is_stored_plain() -> None:
    noise = random.Random(1).randbytes(100_000)
    for width in WIDTHS:
        codec, stored, _ = codecs.encode(noise, width)
        assert codec == codecs.PLAIN
        assert stored is noise


def test_saving_less_than_a_tenth_is_not_worth_decoding() -> None:
    generator = random.Random(1)
    for zeros, codec in ((8_000, codecs.PLAIN), (12_000, codecs.ZSTD)):
        assert codecs.encode(generator.randbytes(100_000 - zeros) + bytes(zeros), 1)[0] == codec


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "stored",
    [b"", b"\0" * 40, zstandard.compress(b"short"), zstandard.compress(SMOOTH)[:-5], zstandard.compress(SMOOTH * 9)],
    ids=["nothing", "zeros", "short", "cut", "long"],
)
def test_what_is_not_the_blob_is_damage(codec: int, stored: bytes) -> None:
    with pytest.raises(Damaged):
        codecs.decode(codec, stored, len(SMOOTH), (crc32(stored),))


def test_plain_of_another_length_is_damage() -> None:
    with pytest.raises(Damaged):
        codecs.decode(codecs.PLAIN, b"four", 5, (0,))


def test_a_frame_that_claims_a_huge_length_is_damage() -> None:
    """A few bytes must not make us take gigabytes of memory."""
    claims = zstandard.ZstdCompressor().compress(bytes(1 << 24))
    with pytest.raises(Damaged):
        codecs.decode(codecs.ZSTD, claims, 100, (crc32(claims),))


def test_threads_have_contexts_of_their_own() -> None:
    generator = random.Random(2)
    items = [bytes(generator.choices(b"abcd", k=40_000)) for _ in range(24)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for at, data in enumerate(items):
            codec, stored, checks = codecs.encode(data, WIDTHS[(number + at) % 4])
            if bytes(codecs.decode(codec, stored, len(data), checks)) != data:
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@given(data=st.binary(max_size=300_000))
def test_chunk_crcs_cover_everything(data: bytes) -> None:
    crcs = codecs.plain(data).checks
    assert len(crcs) == max(1, -(-len(data) // codecs.CRC_CHUNK))
    for at in {0, len(data) // 2, len(data) - 1} if data else ():
        hurt = bytearray(data)
        hurt[at] ^= 1
        differing = [n for n, crc in enumerate(codecs.plain(bytes(hurt)).checks) if crc != crcs[n]]
        assert differing == [at // codecs.CRC_CHUNK]


BOMB = 1 << 28


def peak_growth(work: str) -> int:
    """Return by how many bytes a program grows while it does this."""
    program = (
        "import resource, zstandard\n"
        "from isal.isal_zlib import crc32\n"
        "from dicomfs.errors import Damaged\n"
        "from dicomfs.store import codec, commit\n"
        f"coder = zstandard.ZstdCompressor(level=1).compressobj(size={BOMB})\n"
        f"bomb = b''.join(coder.compress(bytes(1 << 20)) for _ in range({BOMB} >> 20)) + coder.flush()\n"
        "crc = crc32(bomb)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        f"    {work}\n"
        "except Damaged:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout) << 10


@pytest.mark.parametrize(
    "work",
    [
        "codec.decode(1, bomb, 100, (crc,))",
        "codec.decode(2, bomb, 1 << 24, (crc,))",
        f"codec.decode(1, bomb, {BOMB}, (crc,))",
    ],
)
def test_what_a_frame_claims_is_not_allocated(work: str) -> None:
    assert peak_growth(work) < BOMB // 8


@pytest.mark.parametrize("claim", [(1 << 30) + 1, 1 << 62])
def test_a_commit_that_claims_too_much(claim: int) -> None:
    # A zstd frame whose content size is this, in eight bytes (RFC 8878, 3.1.1.1).
    frame = b"\x28\xb5\x2f\xfd\xe0" + claim.to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(Damaged, match="impossible length"):
        commits.read_meta(frame)
