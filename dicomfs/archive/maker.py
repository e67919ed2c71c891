"""A process that makes files of the cache for another: a decoder that loops, crashes or eats memory does so here.

Started by `makers.py` as main([SOCKET, MEMORY, ARCHIVE, CACHE]) of a new interpreter, with the directory of an earlier
state of the archive where it is to read that; the memory is not used. It says that it is ready, then takes jobs
(name, arguments, reason, time_s, memory) and answers with the name of an error and what it says, two empty texts where
the file is there. With a reason the picture is made that tells it.

It ends when the other side is gone, whatever it is doing; and by itself when a job takes longer than its time.
"""

import contextlib
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias, cast

from dicomfs.archive import pictures
from dicomfs.archive.archive import Archive
from dicomfs.archive.processes import begin
from dicomfs.errors import DicomfsError, NotFound

Make: TypeAlias = Callable[[Archive, Path, tuple[int, ...]], None]
Order: TypeAlias = tuple[str, tuple[int, ...], str, float, int]
Answer: TypeAlias = tuple[str, str]

OUT_OF_MEMORY: Final = "MemoryError"
"""The name in an answer after which the process ends: what is left of its memory is in pieces."""
_REASONABLE: Final = 1 << 34


def _series(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    from dicomfs.archive import documents

    documents.make_series(archive, cache, args)


def _study(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    from dicomfs.archive import documents

    documents.make_study(archive, cache, args)


def _superseded(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    from dicomfs.archive import documents

    documents.make_superseded(archive, cache, args)


def _studies(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    from dicomfs.archive import documents

    documents.make_studies(archive, cache, args)


def _archive_index(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    from dicomfs.archive import archive_index

    archive_index.make(archive, cache, args)


def _project_table(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    from dicomfs.archive import project_tables

    project_tables.make(archive, cache, args)


def _headers(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    from dicomfs.archive import documents_omidb

    documents_omidb.make_headers(archive, cache, args)


def _client(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    from dicomfs.archive import documents_omidb

    documents_omidb.make_client(archive, cache, args)


JOBS: Final[Mapping[str, Make]] = {
    "picture": pictures.make,
    "series": _series,
    "study": _study,
    "superseded": _superseded,
    "studies": _studies,
    "archive_index": _archive_index,
    "project_table": _project_table,
    "omidb": _headers,
    "client": _client,
}


def main(arguments: list[str], jobs: Mapping[str, Make] = JOBS) -> None:
    """Work until there is no more to do."""
    channel = begin(arguments)
    cache = Path(arguments[3])
    try:
        with _opened(*map(Path, arguments[2:])) as archive:
            channel.send(("", ""))
            while True:
                order = cast(Order, channel.receive())
                answer = _done(archive, cache, jobs, order)
                channel.send(answer)
                if answer[0] == OUT_OF_MEMORY:
                    return
    except DicomfsError as error:
        channel.send((type(error).__name__, str(error)))
    except (EOFError, ConnectionError):
        pass


def _opened(path: Path, _cache: Path, state: Path | None = None) -> Archive:
    return Archive.open(path) if state is None else Archive.open_state(path, state)


def _done(archive: Archive, cache: Path, jobs: Mapping[str, Make], order: Order) -> Answer:
    name, args, reason, time_s, memory = order
    # Nobody catches this signal, so it ends the process even in the middle of a decoder.
    signal.setitimer(signal.ITIMER_REAL, time_s)
    try:
        archive.refresh()
        archive.store.blobs.ahead.close()  # one process is all that this one may be
        # What is mapped from files does not count here, as it would in RLIMIT_AS: the index alone maps a TiB. But
        # the place for a header among zeros does, which is as long as its file.
        limit = memory + _longest(archive, name, args)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
        if reason:
            pictures.label(archive, cache, args, reason)
        else:
            jobs[name](archive, cache, args)
    except DicomfsError as error:
        return type(error).__name__, str(error)
    except MemoryError:
        return OUT_OF_MEMORY, ""
    except Exception as error:  # noqa: BLE001 - which is our own mistake; its text may hold what it was about
        return "Damaged", f"making {name} {args} ended in an unexpected {type(error).__name__}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "", ""


def _longest(archive: Archive, name: str, args: tuple[int, ...]) -> int:
    """Return a length that no file which a job is about exceeds, or no more than is reasonable."""
    with archive.view() as view, contextlib.suppress(NotFound):
        if name == "picture":
            return view.instance(args[0]).size
        if name in ("series", "study", "superseded", "omidb"):
            return min(view.series(args[0]).size if name == "series" else view.study(args[0]).size, _REASONABLE)
    return 0
