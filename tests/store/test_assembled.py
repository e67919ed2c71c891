"""A file put together from its recipe: any slice of it is the slice of the file, or an error."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.errors import Damaged
from dicomfs.store import codec as codecs
from dicomfs.store.assembled import AssembledFile
from dicomfs.store.blobs import BlobReader
from dicomfs.store.recipe import BlobId, Recipe, encode
from dicomfs.store.store import Store
from tests.store import shelf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicomfs.store.location import Location


class Made(NamedTuple):
    """A store, its blobs' places, and a file of all of them with literals between."""

    store: Store
    places: dict[BlobId, Location]
    recipe: bytes
    literals: bytes
    content: bytes

    def file(self, blobs: BlobReader | None = None) -> AssembledFile:
        def locate(wanted: list[BlobId]) -> list[Location | None]:
            return [self.places.get(blob) for blob in wanted]

        return AssembledFile(Recipe(self.recipe), memoryview(self.literals), blobs or self.store.blobs, locate)


def smooth(generator: random.Random, length: int) -> bytes:
    """Return bytes that compress, as a frame does."""
    start = generator.randrange(1000)
    return b"".join((start + n // 7).to_bytes(2, "little") for n in range(length // 2 + 1))[:length]


# (length, width of samples or None for plain, whether it compresses); a length alone is literal.
EXTENTS = [
    700, (5_000, None, False), (65_536, None, False), (65_537, None, True), 3, (200_000, None, False),
    (40_000, 1, True), (131_072, 2, True), (400_001, 2, True), 1, (30_001, 4, True), (30_000, 8, True),
    40_000, (1, None, True), (90_000, 2, True), (90_000, 2, False), 12,
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    generator = random.Random(3)
    root = shelf.make(tmp_path_factory.mktemp("assembled") / "store")
    blobs: list[shelf.Coded] = []
    extents: list[tuple[int, BlobId | None]] = []
    literals = content = b""
    for extent in EXTENTS:
        if isinstance(extent, int):
            data = generator.randbytes(extent)
            literals += data
            extents.append((extent, None))
        else:
            length, width, compresses = extent
            data = smooth(generator, length) if compresses else generator.randbytes(length)
            blobs.append(shelf.coded(data, width))
            extents.append((length, blobs[-1].blob))
        content += data
    # One blob twice, the second time at the end of the file.
    extents.append((blobs[5].length, blobs[5].blob))
    content += content[extents_start(extents, 7) :][: blobs[5].length]
    assert {one.codec for one in blobs} == {0, 1, 2, 3, 4}
    shelf.fill(root, [(b"1", blobs[:4]), (b"2", blobs[4:])])
    store = Store(root, shelf.TABLES)
    yield Made(store, shelf.locations(store, blobs), encode(extents), literals, content)
    store.close()


def extents_start(extents: list[tuple[int, BlobId | None]], number: int) -> int:
    return sum(length for length, _ in extents[:number])


ranges = st.tuples(st.integers(0, 1_000_000), st.integers(0, 1_000_000) | st.integers(0, 300))


@settings(deadline=None)
@given(reads=st.lists(ranges, min_size=1, max_size=6))
def test_any_slice_is_the_slice_of_the_file(made: Made, reads: list[tuple[int, int]]) -> None:
    file = made.file()
    assert file.size == len(made.content)
    for offset, size in reads:
        expected = made.content[offset : offset + size]
        assert bytes(file.read(offset, size)) == expected
        ready = file.read_ready(offset, size)
        assert ready is None or bytes(ready) == expected


@pytest.mark.parametrize("size", [1, 511, 4096, 65_536, 131_072, 1 << 20])
@pytest.mark.parametrize("how", ["read", "ready, else read"])
def test_sequential_reads_look_ahead(made: Made, size: int, how: str) -> None:
    """The decoder works ahead of such a reader; the bytes are the same."""
    blobs = BlobReader(made.store.packs, cache_bytes=300_000)
    file = made.file(blobs)
    step = max(size, 2000)
    for offset in range(0, len(made.content) + step, step):
        data = file.read_ready(offset, size) if how != "read" else None
        if data is None:
            data = file.read(offset, size)
        assert bytes(data) == made.content[offset : offset + size]
    blobs.close()


def test_no_more_than_a_chunk_is_decoded_while_others_wait(made: Made) -> None:
    made.store.packs.open(1).read(0, made.store.packs.open(1).size())  # so that the pages are in memory
    file = made.file()
    at = extents_start([(one if isinstance(one, int) else one[0], None) for one in EXTENTS], 8)
    assert file.read_ready(at + 131_000, 5_000) is None
    assert file.read_ready(at + 100, 1_000) == made.content[at + 100 : at + 1_100]
    assert file.read_ready(at + 200_000, 5_000) == made.content[at + 200_000 : at + 205_000]


def test_what_a_sequential_reader_wants_next_is_made_ahead(made: Made) -> None:
    made.store.packs.open(1).read(0, made.store.packs.open(1).size())
    blobs = BlobReader(made.store.packs)
    file = made.file(blobs)
    at = extents_start([(one if isinstance(one, int) else one[0], None) for one in EXTENTS], 8)
    assert bytes(file.read(at - 1_000, 131_072)) == made.content[at - 1_000 :][:131_072]
    (window, *_) = file._windows
    assert window.start == at - 1_000 + 131_072
    assert window.future is not None
    window.future.result(10)
    for offset in range(window.start, window.stop, 131_072):
        size = min(131_072, window.stop - offset)
        assert file.read_ready(offset, size) == made.content[offset : offset + size]
    assert window.future is None
    file.close()
    assert blobs.ahead._bytes == 0
    blobs.close()


def test_what_is_made_ahead_is_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that stop half-way keep nothing from those that go on, and take no memory for ever."""
    monkeypatch.setattr("dicomfs.store.ahead.MOST_BYTES", 600_000)
    blobs = BlobReader(made.store.packs)
    at = extents_start([(one if isinstance(one, int) else one[0], None) for one in EXTENTS], 8)
    files = [made.file(blobs) for _ in range(10)]
    for file in files:
        assert bytes(file.read(at - 1_000, 131_072)) == made.content[at - 1_000 :][:131_072]
        assert blobs.ahead._bytes <= 600_000
    for file in files:
        for offset in range(at - 1_000 + 131_072, file.size, 131_072):
            assert bytes(file.read(offset, 131_072)) == made.content[offset : offset + 131_072]
    assert blobs.ahead._bytes <= 600_000
    for file in files:
        file.close()
    assert blobs.ahead._bytes == 0
    assert not blobs.ahead._windows
    blobs.close()


def test_plain_blobs_are_ready_without_a_copy(made: Made) -> None:
    file = made.file()
    file.read(800, 10)  # so that the page is in memory
    ready = file.read_ready(800, 10)
    assert isinstance(ready, memoryview)
    assert ready == made.content[800:810]


@pytest.mark.parametrize("offset", [0, 1, 10**9])
def test_past_the_end(made: Made, offset: int) -> None:
    file = made.file()
    assert bytes(file.read(file.size + offset, 10)) == b""
    assert bytes(file.read_ready(file.size + offset, 10) or b"") == b""


@pytest.mark.parametrize(("limit", "length"), [(0, 0), (10, 10), (700, 700), (10_000, 700)])
def test_head_ends_at_the_first_blob(made: Made, limit: int, length: int) -> None:
    assert made.file().head(limit) == made.content[:length]


def test_many_threads_at_once(made: Made) -> None:
    """One file, one small cache, and readers that follow each other or jump about."""
    blobs = BlobReader(made.store.packs, cache_bytes=250_000)
    file = made.file(blobs)
    wrong: list[tuple[int, int]] = []

    def work(number: int) -> None:
        generator = random.Random(number)
        offset = 0
        for _ in range(120):
            if number % 2:
                offset = generator.randrange(file.size)
            size = generator.choice([100, 5_000, 70_000])
            if bytes(file.read(offset, size)) != made.content[offset : offset + size]:
                wrong.append((offset, size))
            offset = (offset + size) % file.size

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    blobs.close()
    assert wrong == []


def test_the_cache_knows_its_size(made: Made) -> None:
    """What it holds and what it counts stay the same, however many threads fill it."""
    limit = 250_000
    blobs = BlobReader(made.store.packs, cache_bytes=limit)
    coded = [at for at in made.places.values() if at.codec != codecs.PLAIN]

    def work(number: int) -> None:
        generator = random.Random(number)
        for _ in range(300):
            at = generator.choice(coded)
            start = generator.randrange(at.length)
            blobs.read(at, start, min(at.length, start + generator.choice((1, 100, 150_000))))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blobs._decoding == {}
    assert blobs._cached == sum(map(len, blobs._decoded.values()))
    assert blobs._cached <= limit or len(blobs._decoded) == 1


def test_literals_of_another_length_are_damage(made: Made) -> None:
    recipe = Recipe(made.recipe)
    for literals in (made.literals[:-1], made.literals + b"x"):
        with pytest.raises(Damaged):
            AssembledFile(recipe, memoryview(literals), made.store.blobs, lambda _: [])


def lacking(made: Made, number: int) -> Made:
    """Return the same file without the place of one blob."""
    blob = Recipe(made.recipe).blob_ids()[number]
    return made._replace(places={known: at for known, at in made.places.items() if known != blob})


def test_a_blob_that_nobody_knows_is_damage(made: Made) -> None:
    hurt = lacking(made, 1)
    file = hurt.file()
    start = 700 + 5_000
    for read in (file.read, file.read_ready):
        with pytest.raises(Damaged):
            read(start + 10, 10)
    with pytest.raises(Damaged):
        file.resolve()


def test_a_blob_that_nobody_knows_does_not_hurt_its_neighbours(made: Made) -> None:
    """Looking ahead runs into it before the reader does, and keeps quiet."""
    for number in range(len(Recipe(made.recipe).blob_ids()) - 1):
        hurt = lacking(made, number)
        file = hurt.file()
        recipe = Recipe(hurt.recipe)
        for start, length, blob in zip(recipe.starts, recipe.lengths, recipe.blobs, strict=True):
            if blob is None or blob in hurt.places:
                for read in (file.read, file.read_ready):
                    for offset in range(start, start + length, 30_000):
                        size = min(30_000, start + length - offset)
                        data = read(offset, size)
                        assert data is None or bytes(data) == hurt.content[offset : offset + size]


def test_a_blob_of_another_length_is_damage(made: Made) -> None:
    blob = Recipe(made.recipe).blob_ids()[0]
    wrong = made.places[blob]._replace(length=4_999)
    with pytest.raises(Damaged):
        made._replace(places={**made.places, blob: wrong}).file().read(700, 10)


def test_closing_wakes_who_waits_for_a_window(made: Made) -> None:
    """A reader that waits for what was only ordered must not wait for ever."""
    blobs = BlobReader(made.store.packs)
    file = made.file(blobs)
    at = extents_start([(one if isinstance(one, int) else one[0], None) for one in EXTENTS], 8)
    busy, ended = threading.Event(), threading.Event()

    def work(start: int, stop: int) -> memoryview:
        busy.wait(20)
        return memoryview(bytes(stop - start))

    for _ in range(2):
        assert blobs.ahead.order(0, 1, work) is not None
    file.read(at - 1_000, 131_072)  # orders what the threads have no time for
    outcome: list[bytes] = []

    def read() -> None:
        outcome.append(bytes(file.read(at - 1_000 + 131_072, 10)))
        ended.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    closing = threading.Thread(target=blobs.close, daemon=True)
    closing.start()
    assert ended.wait(10)
    busy.set()
    closing.join(10)
    assert outcome == [made.content[at - 1_000 + 131_072 :][:10]]
