"""Processes decode ahead: the same bytes, and no reader waits for one that is gone."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from dicomfs.errors import Damaged
from dicomfs.store.assembled import AssembledFile
from dicomfs.store.blobs import BlobReader
from dicomfs.store.decoders import SLOT_BYTES, SLOTS, Decoders, Part
from dicomfs.store.recipe import BlobId, Recipe, encode
from dicomfs.store.store import Store
from tests.store import shelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicomfs.store.location import Location

DATA = b"".join((n // 9 + n % 5).to_bytes(3, "little")[:2] for n in range(400_000))


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[Store, Location]]:
    root = shelf.make(tmp_path / "store")
    blob = shelf.coded(DATA, 2)
    shelf.fill(root, [(b"", [blob])])
    store = Store(root, shelf.TABLES)
    yield store, shelf.locations(store, [blob])[blob.blob]
    store.close()


@pytest.fixture
def decoders(stored: tuple[Store, Location], monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    monkeypatch.setattr("dicomfs.store.decoders.WARM_UP_BYTES", 0)
    made = Decoders(stored[0].packs.directory, 2)
    yield made
    made.close()
    assert not children()


def children() -> list[int]:
    """Return the processes that this one has and that still run or were not heard of."""
    task = f"/proc/self/task/{threading.main_thread().native_id}/children"
    listed = [f"/proc/self/task/{thread}/children" for thread in os.listdir("/proc/self/task")]
    found: list[int] = []
    for path in {task, *listed}:
        try:
            with open(path, encoding="ascii") as file:
                found += map(int, file.read().split())
        except FileNotFoundError:
            continue
    return found


def run(decoders: Decoders, at: Location, start: int, end: int) -> bytes:
    """Have a range decoded, by the process as soon as it is there."""
    for _ in range(1000):
        found = decoders.run(end - start + 8, [Part(at, start, end, 8)])
        if found is not None:
            return bytes(found[8:])
        time.sleep(0.01)
    raise AssertionError("there is no process")


def test_the_bytes_are_the_blobs(decoders: Decoders, stored: tuple[Store, Location]) -> None:
    generator = random.Random(1)
    for _ in range(40):
        start = generator.randrange(len(DATA))
        end = generator.randint(start + 1, len(DATA))
        assert run(decoders, stored[1], start, end) == DATA[start:end]


def test_memory_is_used_again_when_nobody_refers_to_it(decoders: Decoders, stored: tuple[Store, Location]) -> None:
    run(decoders, stored[1], 0, 10)
    held = [decoders.run(10, [Part(stored[1], number, number + 10, 0)]) for number in range(SLOTS)]
    assert None not in held
    assert decoders.run(10, [Part(stored[1], 0, 10, 0)]) is None
    parts = [view[2:5] for view in held if view is not None]
    del held
    # A part of what was given out holds its memory as well.
    assert decoders.run(10, [Part(stored[1], 0, 10, 0)]) is None
    assert [bytes(part) for part in parts] == [DATA[number + 2 : number + 5] for number in range(SLOTS)]
    del parts
    assert run(decoders, stored[1], 7, 17) == DATA[7:17]


def test_what_fits_nowhere_is_left_to_the_asker(decoders: Decoders, stored: tuple[Store, Location]) -> None:
    run(decoders, stored[1], 0, 10)
    assert decoders.run(SLOT_BYTES + 1, [Part(stored[1], 0, 10, 0)]) is None


def test_damage_is_told(decoders: Decoders, stored: tuple[Store, Location]) -> None:
    store, at = stored
    run(decoders, at, 0, 10)
    path = store.packs.path(at.pack)
    content = bytearray(path.read_bytes())
    content[at.offset + at.stored - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match="is damaged"):
        decoders.run(10, [Part(at, len(DATA) - 10, len(DATA), 0)])
    assert run(decoders, at, 0, 10) == DATA[:10]


def test_a_process_that_is_killed_is_replaced(decoders: Decoders, stored: tuple[Store, Location]) -> None:
    assert run(decoders, stored[1], 0, 10) == DATA[:10]
    (process,) = children()
    os.kill(process, signal.SIGKILL)
    while process in children():
        time.sleep(0.01)
    assert decoders.run(10, [Part(stored[1], 0, 10, 0)]) is None
    assert run(decoders, stored[1], 5, 15) == DATA[5:15]


def test_processes_end_with_what_they_read(decoders: Decoders, stored: tuple[Store, Location]) -> None:
    """Packs that were put in the place of others are not read by who had the old ones open."""
    run(decoders, stored[1], 0, 10)
    before = children()
    decoders.forget()
    assert not children()
    assert run(decoders, stored[1], 0, 10) == DATA[:10]
    assert children() != before


def test_an_idle_process_ends(
    decoders: Decoders, stored: tuple[Store, Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomfs.store.decoders.IDLE_S", 0.1)
    assert run(decoders, stored[1], 0, 10) == DATA[:10]
    while children():
        time.sleep(0.01)
    assert run(decoders, stored[1], 5, 15) == DATA[5:15]


def test_a_reader_of_a_whole_file(stored: tuple[Store, Location], monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows by threads, windows by processes, and a process that is killed meanwhile: all are the file."""
    monkeypatch.setattr("dicomfs.store.decoders.WARM_UP_BYTES", 1 << 18)
    monkeypatch.setattr("dicomfs.store.assembled.WINDOW", 1 << 17)
    store, at = stored
    blob = BlobId(bytes(32))
    count = 60
    literal = b"between"
    recipe = encode([one for _ in range(count) for one in ((len(literal), None), (len(DATA), blob))])
    content = (literal + DATA) * count
    blobs = BlobReader(store.packs)
    file = AssembledFile(Recipe(recipe), memoryview(literal * count), blobs, lambda wanted: [at for _ in wanted])
    killed = False
    for offset in range(0, len(content), 1 << 17):
        data = file.read_ready(offset, 1 << 17)
        if data is None and (coming := file.coming(offset, 1 << 17)) is not None:
            coming.exception(10)
            data = file.read_ready(offset, 1 << 17)
        if data is None:
            data = file.read(offset, 1 << 17)
        assert bytes(data) == content[offset : offset + (1 << 17)]
        if not killed and offset > len(content) // 2 and (running := children()):
            os.kill(running[0], signal.SIGKILL)
            killed = True
    assert killed
    file.close()
    blobs.close()
    assert not children()
