"""A process that decodes blobs for another: it gets jobs by a socket and puts what comes of them into shared memory.

Threads would hand Python's lock to each other a hundred times a megabyte. Started by `decoders.py` as
main([CONNECTION, MEMORY, PACKS, IDLE_S]) of a new interpreter. A job is (slot, [part, …]); the answer is "", or
what is wrong. It ends when the other side is gone, or has had nothing for it to do for IDLE_S seconds.
"""

import mmap
from multiprocessing.connection import Connection
from pathlib import Path

from dicomfs.errors import Damaged, Refused
from dicomfs.store.blobs import BlobReader
from dicomfs.store.decoders import SLOT_BYTES, Part
from dicomfs.store.packs import PackDirectory


def main(arguments: list[str]) -> None:
    """Work until there is no more to do."""
    connection = Connection(int(arguments[0]))
    blobs = BlobReader(PackDirectory(Path(arguments[2])))
    with mmap.mmap(int(arguments[1]), 0) as memory:
        view = memoryview(memory)
        try:
            connection.send("")
            while connection.poll(float(arguments[3])):
                slot, parts = connection.recv()
                connection.send(_decode(blobs, view[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES], parts))
        except (EOFError, ConnectionError):
            pass
        finally:
            view.release()


def _decode(blobs: BlobReader, out: memoryview, parts: list[Part]) -> str:
    try:
        for location, start, end, at in parts:
            blobs.fill(location, start, end, out[at : at + end - start])
    except (Damaged, Refused) as error:
        return str(error)
    return ""
