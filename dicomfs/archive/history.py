"""Who did what with an archive, when and why: commits, those of an import as one, and versions of an instance."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby, islice
from typing import Any, Final, NamedTuple

from dicomfs.archive.archive import Archive
from dicomfs.archive.by_version import Event
from dicomfs.archive.catalog import View
from dicomfs.archive.fold_versions import DELETED, IMPORTED, LEFT, REPLACED, RESTORED
from dicomfs.archive.selection import Selection, studies, versions
from dicomfs.store.store import Store

_AT_ONCE: Final = 256
"""So many commits are looked at in one transaction."""
_TREES: Final = frozenset({"layout", "project"})
"""What changes trees, and not what is in the archive."""
_FOREVER: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Asked:
    """What history is asked for: of the whole archive, where nothing is named, from a time to another, in ns."""

    selection: Selection = field(default_factory=Selection)
    since_ns: int = 0
    until_ns: int = _FOREVER
    every: bool = False
    """Each commit by itself, and those too that only made or changed trees."""


@dataclass(slots=True)
class Line:
    """A commit, or those of one import: the first of them says who, what and why."""

    event: Event
    last: int
    last_ns: int
    commits: int
    counts: dict[str, int]


class Period(NamedTuple):
    """For how long a version was shown."""

    number: int
    """Which of the versions it is, from 1 in the order in which they came."""
    ino: int
    sha256: str
    size: int
    since: int
    """The commit that brought it."""
    since_ns: int
    until: int
    """The commit that took it out, 0 where it is shown."""
    until_ns: int
    state: str
    """'shown', 'replaced' or 'deleted'."""


def lines(archive: Archive, asked: Asked) -> Iterator[Line]:
    """Yield what was done in the order of commits; raise NotFound where nothing is what was named.

    Memory does not grow with the archive, but with what is named of a series or of instances.
    """
    line: Line | None = None
    for event in _events(archive, asked):
        if not asked.every and event.op in _TREES:
            continue
        if line is not None and not asked.every and event.run and event.run == line.event.run:
            line.last, line.last_ns = event.seq, event.time_ns
            line.commits += 1
            for what, count in event.counts.items():
                line.counts[what] = line.counts.get(what, 0) + count
            continue
        if line is not None:
            yield line
        line = Line(event, event.seq, event.time_ns, 1, dict(event.counts))
    if line is not None:
        yield line


def periods(archive: Archive, uid: str) -> list[Period]:
    """Return when which version of a SOP Instance UID was shown, in the order in which they came."""
    selection = Selection(instances=(uid,))
    with archive.view() as view:
        numbers = versions(archive, view, selection)
    known = frozenset(numbers)
    begun: dict[int, Event] = {}
    found: list[tuple[int, Event, Event | None, str]] = []
    for event in _of_studies(archive, selection):
        did = _Did.of(_records(archive, event.seq), known)
        for ino in did.came:
            begun[ino] = event
        for ino, state in did.went.items():
            if ino in begun:
                found.append((ino, begun.pop(ino), event, state))
    found += [(ino, since, None, "shown") for ino, since in begun.items()]
    with archive.view() as view:
        return [
            _period(view, numbers, *one) for one in sorted(found, key=lambda one: (one[1].seq, one[0]))
        ]  # fmt: skip


def _records(archive: Archive, seq: int) -> dict[str, Any]:
    def read(_: Store) -> dict[str, Any]:
        with archive.view() as view:
            return view.records(seq)

    return archive.reading(read)


def _period(view: View, numbers: list[int], ino: int, since: Event, until: Event | None, state: str) -> Period:
    inode = view.instance_inode(ino)
    ended = (0, 0) if until is None else (until.seq, until.time_ns)
    number = numbers.index(ino) + 1
    return Period(number, ino, inode.sha256.hex(), inode.size, since.seq, since.time_ns, *ended, state)


class _Did(NamedTuple):
    """What a commit did with some instances."""

    came: list[int]
    went: dict[int, str]
    counts: dict[str, int]

    @classmethod
    def of(cls, records: dict[str, Any], known: frozenset[int]) -> "_Did":
        came: list[int] = []
        went: dict[int, str] = {}
        counts = dict.fromkeys((IMPORTED, REPLACED, LEFT, DELETED, RESTORED), 0)
        arrived = [(int(row[0]), int(row[14]), REPLACED if row[14] else IMPORTED) for row in records["instances"]]
        returned = [(int(row[0]), int(row[3]), RESTORED) for row in records.get("restored", ())]
        for ino, replaces, what in (*arrived, *returned):
            if ino in known:
                came.append(ino)
                counts[what] += 1
            if replaces in known:
                went[replaces] = "replaced"
                counts[LEFT] += ino not in known
        for ino in known.intersection(map(int, records.get("deleted", ()))):
            went[ino] = "deleted"
            counts[DELETED] += 1
        for ino in known.intersection(int(row[0]) for row in records.get("superseded", ())):
            went.setdefault(ino, "replaced")
        return cls(came, went, {what: count for what, count in counts.items() if count})


# Commits ------------------------------------------------------------------------------------------


def _events(archive: Archive, asked: Asked) -> Iterator[Event]:
    selection = asked.selection
    if selection.is_empty and not selection.patient_id:
        found = _batches(archive, lambda view, after: view.events(after))
    elif selection.series or selection.instances:
        found = _of_instances(archive, selection)
    else:
        found = _of_studies(archive, selection)
    for event in found:
        if event.time_ns > asked.until_ns:
            return
        if event.time_ns >= asked.since_ns:
            yield event


def _of_studies(archive: Archive, selection: Selection) -> Iterator[Event]:
    """Yield what was done with the studies of what is named."""
    with archive.view() as view:
        keys = studies(archive, view, selection)

    def found(view: View, after: int) -> Iterator[Event]:
        return _together(merge(*(view.events_of(key, after) for key in keys), key=_seq))

    return _batches(archive, found)


def _together(events: Iterable[Event]) -> Iterator[Event]:
    """Yield one event for all those of a commit, which did something with several studies."""
    for _, group in groupby(events, _seq):
        first, *others = group
        counts = dict(first.counts)
        for other in others:
            for what, count in other.counts.items():
                counts[what] = counts.get(what, 0) + count
        yield first._replace(counts=counts)


def _seq(event: Event) -> int:
    return event.seq


def _of_instances(archive: Archive, selection: Selection) -> Iterator[Event]:
    """Yield what was done with versions that are named."""
    with archive.view() as view:
        known = frozenset(versions(archive, view, selection))
    for event in _of_studies(archive, selection):
        did = _Did.of(_records(archive, event.seq), known)
        if did.counts:
            yield event._replace(counts=did.counts)


def _batches(archive: Archive, events: Callable[[View, int], Iterator[Event]]) -> Iterator[Event]:
    """Yield events in transactions that are short, however slowly they are taken."""
    after = 0
    while True:
        with archive.view() as view:
            batch = list(islice(events(view, after), _AT_ONCE))
        if not batch:
            return
        yield from batch
        after = batch[-1].seq
