"""A process that makes derived files for a project: an instance that hangs, crashes or eats memory does so here.

Started by `derivers.py` as main([SOCKET, MEMORY, ARCHIVE]) of a new interpreter; the memory is not used.

    to the worker     (profile, key)                           once: the key is in no command line
                      ([(inode, identity, series), …], time_s, memory)  a batch, series by series
    from the worker   ("", "")                                 it is ready; with the name of an error: it is not
                      ("derived", …) or ("withheld", reason)   for each instance of the batch, in order

It ends when the other side is gone, and by itself when an instance takes longer than its time, or more than its memory.
"""

import os
import resource
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias, cast

from dicomfs.archive.archive import Archive
from dicomfs.archive.channel import Channel
from dicomfs.archive.deriving import Derived, Deriver, Engine, NewBlob, Withheld
from dicomfs.archive.processes import begin
from dicomfs.errors import Damaged, DicomfsError

Item: TypeAlias = tuple[int, str, int]
Order: TypeAlias = tuple[list[Item], float, int]
Sent: TypeAlias = tuple[object, ...]

DERIVED: Final = "derived"
WITHHELD: Final = "withheld"
OUT_OF_MEMORY: Final = "memory"
"""The answer after which the process ends: what is left of its memory is in pieces."""
TOO_MUCH: Final = "de-identifying it takes too much memory"


def engine(profile_text: str, key: bytes) -> Engine:
    """Return what de-identifies by a profile, with the pseudonyms of a key; raise UsageError for an unknown profile."""
    from dicomfs.dicom.deidentify import Profile, Pseudonyms, Range, Refused, deidentify
    from dicomfs.dicom.encoding import Data
    from dicomfs.dicom.part10 import Part10

    profile, pseudonyms = Profile.parse(profile_text), Pseudonyms(key)

    def made(data: Data, part10: Part10, read: Callable[[int, int], bytes], identity: str) -> list[bytes | Range]:
        try:
            return deidentify(data, part10, read, identity, profile, pseudonyms)
        except Refused as error:
            raise Withheld(error.reason) from error

    return made


def main(arguments: list[str], engine_of: Callable[[str, bytes], Engine] = engine) -> None:
    """Work until there is no more to do."""
    channel = begin(arguments)
    try:
        profile, key = cast(tuple[str, bytes], channel.receive())
        made_by = engine_of(profile, key)
        with Archive.open(Path(arguments[2])) as archive:
            deriver = Deriver(archive, made_by)
            channel.send(("", ""))
            while True:
                _batch(archive, deriver, channel, cast(Order, channel.receive()))
    except DicomfsError as error:
        channel.send((type(error).__name__, str(error)))
    except (EOFError, ConnectionError):
        pass


def _batch(archive: Archive, deriver: Deriver, channel: Channel, order: Order) -> None:
    items, time_s, memory = order
    archive.refresh()
    archive.store.blobs.ahead.close()  # one process is all that this one may be
    lengths = Counter(series for _, _, series in items)
    current = 0
    for ino, identity, series in items:
        if series != current:
            deriver.begin(alone=lengths[series] == 1)
            current = series
        # Nobody catches this signal, so it ends the process even in the middle of a decoder.
        signal.setitimer(signal.ITIMER_REAL, time_s)
        answer = _derived(archive, deriver, ino, identity, memory)
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.send(answer)
        if answer[0] == OUT_OF_MEMORY:
            os._exit(0)


def _derived(archive: Archive, deriver: Deriver, ino: int, identity: str, memory: int) -> Sent:
    try:
        with archive.view() as view:
            size = view.instance_inode(ino).size
        # Places for a header among zeros are counted, and are as long as the files.
        resource.setrlimit(resource.RLIMIT_DATA, (memory + 2 * size, resource.RLIM_INFINITY))
        derived = deriver.derive(ino, identity)
    except Withheld as error:
        return WITHHELD, error.reason
    except Damaged:
        return WITHHELD, "it is damaged in the archive: run 'dicomfs check'"
    except DicomfsError as error:
        return WITHHELD, f"it cannot be read ({type(error).__name__})"
    except MemoryError:
        return OUT_OF_MEMORY, TOO_MUCH
    except Exception as error:  # noqa: BLE001 - which is our own mistake; its text may hold what it was about
        return WITHHELD, f"de-identifying it ended in an unexpected {type(error).__name__}: please report it"
    blobs, base = derived.blobs, derived.new_base
    return DERIVED, *derived[:6], [tuple(blob) for blob in blobs], None if base is None else tuple(base)


def received(size: int, sha256: bytes, base: bytes, body: bytes, literal_length: int, attributes: dict[str, str | int],
             blobs: list[tuple[object, ...]], new_base: tuple[object, ...] | None) -> Derived:  # fmt: skip
    """Make the record of a derived file of what was sent."""
    return Derived(
        size, sha256, base, body, literal_length, attributes,
        [_blob(blob) for blob in blobs], None if new_base is None else _blob(new_base),
    )  # fmt: skip


def _blob(sent: tuple[object, ...]) -> NewBlob:
    return NewBlob(*cast(NewBlob, sent))
