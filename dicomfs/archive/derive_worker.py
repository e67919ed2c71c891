"""A process that makes files of instances: an instance that hangs, crashes or eats memory does so here.

`main` derives what a project shows; `serve` is for others that do something else with instances (editing_worker.py).

Started by `derivers.py` as main([SOCKET, MEMORY, ARCHIVE]) of a new interpreter; the memory is not used.

    to the worker     (profile, key), or what else it is told  once: the key is in no command line
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
from typing import Final, NamedTuple, TypeAlias, cast

from dicomfs.archive.archive import Archive
from dicomfs.archive.channel import Channel
from dicomfs.archive.deriving import Derived, Deriver, Engine, NewBlob, Withheld
from dicomfs.archive.processes import begin
from dicomfs.errors import Damaged, DicomfsError

Item: TypeAlias = tuple[int, str, int]
Order: TypeAlias = tuple[list[Item], float, int]
Sent: TypeAlias = tuple[object, ...]

DOING: Final = "de-identifying it"
DERIVED: Final = "derived"
WITHHELD: Final = "withheld"
OUT_OF_MEMORY: Final = "memory"
"""The answer after which the process ends: what is left of its memory is in pieces."""


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

    def begin_with(archive: Archive, told: tuple[object, ...]) -> Maker:
        profile, key = cast(tuple[str, bytes], told)
        deriver = Deriver(archive, engine_of(profile, key))

        def make(item: Item) -> Sent:
            derived = deriver.derive(item[0], item[1])
            base = derived.new_base
            return *derived[:6], [tuple(blob) for blob in derived.blobs], None if base is None else tuple(base)

        return Maker(make, lambda length: deriver.begin(alone=length == 1))

    serve(arguments, DOING, begin_with)


class Maker(NamedTuple):
    """What does the work in a process."""

    make: Callable[[Item], Sent]
    """Make what is wanted of an instance, as plain values; raise Withheld."""
    begin: Callable[[int], None] = lambda _length: None
    """Go on with another series, of which so many instances are to be done."""


def serve(arguments: list[str], doing: str, begin_with: Callable[[Archive, tuple[object, ...]], Maker]) -> None:
    """Do batches until there are no more; `doing` says for people what is done to an instance."""
    channel = begin(arguments)
    try:
        told = cast(tuple[object, ...], channel.receive())
        with Archive.open(Path(arguments[2])) as archive:
            maker = begin_with(archive, told)
            channel.send(("", ""))
            while True:
                _batch(archive, maker, channel, cast(Order, channel.receive()), doing)
    except DicomfsError as error:
        channel.send((type(error).__name__, str(error)))
    except (EOFError, ConnectionError):
        pass


def _batch(archive: Archive, maker: Maker, channel: Channel, order: Order, doing: str) -> None:
    items, time_s, memory = order
    archive.refresh()
    archive.store.blobs.ahead.close()  # one process is all that this one may be
    lengths = Counter(series for _, _, series in items)
    current = 0
    for item in items:
        series = item[2]
        if series != current:
            maker.begin(lengths[series])
            current = series
        # Nobody catches this signal, so it ends the process even in the middle of a decoder.
        signal.setitimer(signal.ITIMER_REAL, time_s)
        answer = _made(archive, maker, item, memory, doing)
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.send(answer)
        if answer[0] == OUT_OF_MEMORY:
            os._exit(0)


def _made(archive: Archive, maker: Maker, item: Item, memory: int, doing: str) -> Sent:
    try:
        with archive.view() as view:
            size = view.instance_inode(item[0]).size
        # Places for a header among zeros are counted, and are as long as the files.
        resource.setrlimit(resource.RLIMIT_DATA, (memory + 2 * size, resource.RLIM_INFINITY))
        return DERIVED, *maker.make(item)
    except Withheld as error:
        return WITHHELD, error.reason
    except Damaged:
        return WITHHELD, "it is damaged in the archive: run 'dicomfs check'"
    except DicomfsError as error:
        return WITHHELD, f"it cannot be read ({type(error).__name__})"
    except MemoryError:
        return OUT_OF_MEMORY, f"{doing} takes too much memory"
    except Exception as error:  # noqa: BLE001 - which is our own mistake; its text may hold what it was about
        return WITHHELD, f"{doing} ended in an unexpected {type(error).__name__}: please report it"


def received(size: int, sha256: bytes, base: bytes, body: bytes, literal_length: int, attributes: dict[str, str | int],
             blobs: list[tuple[object, ...]], new_base: tuple[object, ...] | None) -> Derived:  # fmt: skip
    """Make the record of a derived file of what was sent."""
    return Derived(
        size, sha256, base, body, literal_length, attributes,
        received_blobs(blobs), None if new_base is None else _blob(new_base),
    )  # fmt: skip


def _blob(sent: tuple[object, ...]) -> NewBlob:
    return NewBlob(*cast(NewBlob, sent))


def received_blobs(sent: list[tuple[object, ...]]) -> list[NewBlob]:
    """Make the records of blobs that were sent."""
    return [_blob(blob) for blob in sent]
