"""What is coded at rest comes back bit for bit, whatever its length and the width of its samples."""

from __future__ import annotations

import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store import commit as commits

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
    codec, stored = codecs.encode(view, width)
    assert bytes(codecs.decode(codec, stored, len(data))) == data
    assert codecs.decoded_length(codec, stored) == len(data)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9, 4095, 4096, 65535, 65536, 65537])
def test_round_trip_of_each_length(width: int, length: int) -> None:
    data = (SMOOTH * 9)[:length]
    codec, stored = codecs.encode(data, width)
    assert bytes(codecs.decode(codec, stored, length)) == data
    assert len(stored) <= length


@pytest.mark.parametrize(("width", "codec"), [(1, 1), (2, 2), (4, 3), (8, 4)])
def test_each_width_has_its_codec(width: int, codec: int) -> None:
    assert codecs.encode(SMOOTH, width)[0] == codec
    assert codecs.CODECS[codecs.SUFFIXES[codec]] == codec


@pytest.mark.parametrize("width", [2, 4, 8])
def test_planes_are_as_the_format_says(width: int) -> None:
    """All first bytes, all second bytes, ..., and at the end what is left over."""
    data = bytes(range(240)) * 4 + b"x" * (width - 1)
    codec, stored = codecs.encode(data, width)
    whole = len(data) // width * width
    planes = b"".join(data[n:whole:width] for n in range(width)) + data[whole:]
    assert codec == codecs.PLANES[width]
    assert zstandard.ZstdDecompressor().decompress(stored) == planes


def test_what_does_not_shrink_is_stored_plain() -> None:
    noise = random.Random(1).randbytes(100_000)
    for width in WIDTHS:
        codec, stored = codecs.encode(noise, width)
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
        codecs.decode(codec, stored, len(SMOOTH))


def test_plain_of_another_length_is_damage() -> None:
    with pytest.raises(Damaged):
        codecs.decode(codecs.PLAIN, b"four", 5)


def test_a_frame_that_claims_a_huge_length_is_damage() -> None:
    """A few bytes must not make us take gigabytes of memory."""
    claims = zstandard.ZstdCompressor().compress(bytes(1 << 24))
    with pytest.raises(Damaged):
        codecs.decode(codecs.ZSTD, claims, 100)


def test_threads_have_contexts_of_their_own() -> None:
    generator = random.Random(2)
    items = [bytes(generator.choices(b"abcd", k=40_000)) for _ in range(24)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for at, data in enumerate(items):
            codec, stored = codecs.encode(data, WIDTHS[(number + at) % 4])
            if bytes(codecs.decode(codec, stored, len(data))) != data:
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@given(data=st.binary(max_size=300_000))
def test_chunk_crcs_cover_everything(data: bytes) -> None:
    crcs = codecs.chunk_crcs(data)
    assert len(crcs) == -(-len(data) // codecs.CRC_CHUNK)
    for at in {0, len(data) // 2, len(data) - 1} if data else ():
        hurt = bytearray(data)
        hurt[at] ^= 1
        differing = [n for n, crc in enumerate(codecs.chunk_crcs(hurt)) if crc != crcs[n]]
        assert differing == [at // codecs.CRC_CHUNK]


BOMB = 1 << 28


def peak_growth(work: str) -> int:
    """Return by how many bytes a program grows while it does this."""
    program = (
        "import resource, zstandard\n"
        "from dicomfs.errors import Damaged\n"
        "from dicomfs.store import codec, commit\n"
        f"coder = zstandard.ZstdCompressor(level=1).compressobj(size={BOMB})\n"
        f"bomb = b''.join(coder.compress(bytes(1 << 20)) for _ in range({BOMB} >> 20)) + coder.flush()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        f"    {work}\n"
        "except Damaged:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout) << 10


@pytest.mark.parametrize(
    "work", ["codec.decode(1, bomb, 100)", "codec.decode(2, bomb, 1 << 24)", f"codec.decode(1, bomb, {BOMB})"]
)
def test_what_a_frame_claims_is_not_allocated(work: str) -> None:
    assert peak_growth(work) < BOMB // 8


@pytest.mark.parametrize("claim", [(1 << 30) + 1, 1 << 62])
def test_a_commit_that_claims_too_much(claim: int) -> None:
    # A zstd frame whose content size is this, in eight bytes (RFC 8878, 3.1.1.1).
    frame = b"\x28\xb5\x2f\xfd\xe0" + claim.to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(Damaged, match="impossible length"):
        commits.read_meta(frame)
