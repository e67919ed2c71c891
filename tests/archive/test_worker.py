"""The ring of a worker: what the writer has not taken yet is never overwritten, whatever the sizes."""

from __future__ import annotations

import random
import threading
from collections import deque
from typing import cast

import pytest

from dicomfs.archive import worker
from dicomfs.archive.channel import Channel
from dicomfs.archive.worker import Chunk, RingSink, StoredBlob, received
from dicomfs.store.recipe import BlobId

RING = 10_000
LARGEST = RING // 4
"""As in the real one, a chunk and one blob more are at most half of it."""


def content(number: int, size: int) -> bytes:
    return bytes((number + at) % 251 for at in range(size))


class LateWriter(threading.Thread):
    """Takes chunks as late as it may: only when `held` of them wait, or when the worker waits for room."""

    def __init__(self, channel: Channel, memory: memoryview, held: int, count: int) -> None:
        super().__init__()
        self._channel = channel
        self._memory = memory
        self._held = held
        self._count = count
        self.seen: list[tuple[int, bool]] = []

    def run(self) -> None:
        waiting: deque[Chunk] = deque()
        while len(self.seen) < self._count:
            chunk = cast(Chunk, self._channel.receive())
            waiting.append(chunk)
            while len(waiting) > self._held or (waiting and chunk[2]):
                self._take(waiting.popleft())

    def _take(self, chunk: Chunk) -> None:
        has_bytes, items, _ = chunk
        for item in received(items):
            assert isinstance(item, StoredBlob)
            number = int.from_bytes(item.blob, "big")
            whole = self._memory[item.at : item.at + item.size] == content(number, item.size)
            self.seen.append((number, whole))
        if has_bytes:
            self._channel.send(("free",))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("held", [0, 1, 2])
def test_bytes_stay_until_they_were_taken(
    ends: tuple[Channel, Channel], seed: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_CHUNK_BYTES", 1000)
    memory = memoryview(bytearray(RING))
    dice = random.Random(seed)
    largest = dice.choice((50, 900, LARGEST))
    sizes = [dice.randint(1, largest) for _ in range(400)]
    writer = LateWriter(ends[1], memory, held, len(sizes))
    writer.start()
    sink = RingSink(ends[0], memory)
    for number, size in enumerate(sizes):
        sink.blob(BlobId(number.to_bytes(32, "big")), 0, size, content(number, size), 0, (0,))
    sink.send(last=True)
    writer.join()
    assert writer.seen == [(number, True) for number in range(len(sizes))]


def test_a_writer_that_keeps_up_sees_the_same_memory_again(ends: tuple[Channel, Channel]) -> None:
    memory = memoryview(bytearray(RING))
    sink = RingSink(ends[0], memory)
    for number in range(20):
        sink.blob(BlobId(number.to_bytes(32, "big")), 0, 700, content(number, 700), 0, (0,))
        sink.send(last=True)
        _, items, _ = cast(Chunk, ends[1].receive())
        (item,) = received(items)
        assert isinstance(item, StoredBlob)
        assert item.at == 0
        ends[1].send(("free",))
        sink.receive()
