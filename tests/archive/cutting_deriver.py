"""Runs as a process that de-identifies, and cuts pixel data up instead, as InstanceNumber says."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from dicomfs.archive import derive_worker
from dicomfs.dicom.describe import describe
from dicomfs.dicom.split import LITERAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicomfs.archive.deriving import Engine
    from dicomfs.dicom.encoding import Data
    from dicomfs.dicom.part10 import Part10


class Range(NamedTuple):
    """Bytes that are taken over."""

    start: int
    end: int


FRAMES_TURNED, ALL, WITHOUT_THE_LAST_BYTES = 1, 2, 3


def cut_up(data: Data) -> list[bytes | Range]:
    """Return the pieces of a file with other pixel data: whole frames, parts of them, bytes of its own."""
    described = describe(data)
    assert described.attributes is not None
    number = int(described.attributes.instance["InstanceNumber"])
    frames = [Range(span.start, span.end) for span in described.spans if span.kind != LITERAL]
    first, last = frames[0].start, frames[-1].end
    chosen: list[bytes | Range]
    if number == FRAMES_TURNED:
        chosen = [*reversed(frames)]
    elif number == ALL:
        chosen = [Range(first, last)]
    elif number == WITHOUT_THE_LAST_BYTES:
        chosen = [Range(first, last - 2), b"ab"]
    else:
        chance = random.Random(number)
        chosen = []
        for _ in range(chance.randrange(1, 9)):
            at, end = sorted(chance.randrange(first, last + 1) // 2 * 2 for _ in range(2))
            chosen.append(
                chance.choice([Range(at, end), chance.choice(frames), chance.randbytes(2 * chance.randrange(9))])
            )
    length = sum(len(one) if isinstance(one, bytes) else one.end - one.start for one in chosen)
    return [Range(0, first - 4), length.to_bytes(4, "little"), *chosen]


def engine(_profile: str, _key: bytes) -> Engine:
    """Cut up."""

    def made(data: Data, part10: Part10, read: Callable[[int, int], bytes], identity: str) -> list[bytes | Range]:
        return cut_up(data)

    return made


def main(arguments: list[str]) -> None:
    """Work as the real one does."""
    derive_worker.main(arguments, engine)
