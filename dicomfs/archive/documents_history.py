"""What a study's deduplicated lists tell of its history: what is in whose place, what is gone, what was before.

All of it follows from the commits that the catalog knows of, so that lists made twice are the same. Versions that a gc
forgot are told no more.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from dicomfs.archive import documents, documents_instance
from dicomfs.archive.bundle import Bundle
from dicomfs.archive.documents_instance import Kept, Listed, Told
from dicomfs.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import Instance, Series, View
    from dicomfs.archive.deduplicated import Object

Hashes: TypeAlias = dict[str, str]
"""The hashes of an instance's objects, by their types."""
STAY_S: Final = 24 * 3600
"""For so long a list stays after it was superseded: somebody may be reading it."""
_LISTS: Final = 16
"""No more superseded lists than these are told."""
_KEY: Final = ("past", 0)


class History(NamedTuple):
    """What of a study is not shown any more, by inode numbers."""

    replaced: Mapping[int, tuple[int, ...]]
    """In whose place instances are, or were."""
    deleted: tuple[int, ...]
    """What was in the study, and nothing is in its place there."""
    lists: tuple[tuple[int, ...], ...]
    """What the study showed before it was last changed, but for what was only added; then what before the changes
    that were made in the 24 hours before that one, as far as it is known; the latest first."""

    @property
    def before(self) -> tuple[int, ...]:
        """What the study showed before it was last changed; empty if it never was."""
        return self.lists[0] if self.lists else ()


_NONE: Final = History({}, (), ())


class _Version(NamedTuple):
    """A version of an instance, and what is known of when it was shown."""

    instance: Instance
    came: int
    """The commit that brought it first."""
    left: int
    """The one that took it out, 0 if none did."""
    current: bool


def history(view: View, study: int) -> History:
    """Return the history of a study: at once if it was never changed, else linear in all earlier versions."""
    commits = view.changed(study)
    if not commits:
        return _NONE
    replaced: dict[int, list[int]] = {}
    deleted: list[int] = []
    versions: list[_Version] = []
    for ino, past in view.taken_out(frozenset(commits)):
        own = _study(view, ino) == study
        if past.by not in (0, ino) and _study(view, past.by) == study:
            replaced.setdefault(past.by, []).append(ino)
        elif own:
            deleted.append(ino)
        if own:
            versions.append(_Version(view.instance(ino), view.instance_inode(ino).seq, past.seq, past.current))
    for series in view.series_of(study):
        versions += (
            _Version(instance, view.instance_inode(instance.ino).seq, 0, current=False)
            for instance in view.shown_instances(series.key)
        )
    return History(
        {ino: tuple(sorted(those)) for ino, those in replaced.items()},
        tuple(sorted(deleted)),
        _lists(view, commits, versions),
    )


def _lists(view: View, commits: list[int], versions: list[_Version]) -> tuple[tuple[int, ...], ...]:
    last_ns, forgot_ns = view.event(commits[-1]).time_ns, view.forgot_ns
    found = []
    for seq in commits[: -_LISTS - 1 : -1]:
        time_ns = view.event(seq).time_ns
        if last_ns - time_ns > STAY_S * 10**9 or time_ns <= forgot_ns:
            break  # of what was there before, something may be forgotten
        listed = _before(versions, seq, time_ns)
        if listed:
            found.append(listed)
        elif seq == commits[-1]:
            break  # the study began with this one
    return tuple(found)


def _before(versions: list[_Version], seq: int, time_ns: int) -> tuple[int, ...]:
    """Return what was shown just before a commit; nothing where that is not known."""
    shown: dict[tuple[int, str], tuple[bool, int]] = {}
    for instance, came, left, current in versions:
        if came >= seq or (left and left < seq):
            continue
        if instance.mtime_ns > time_ns:
            return ()  # it came back later: whether it was there before, too, is written down nowhere
        if instance.mtime_ns < time_ns:
            # Of several with one SOP Instance UID in a series the first was shown.
            key = instance.series, str(instance.attributes["SOPInstanceUID"])
            shown[key] = min(shown.get(key, (True, instance.ino)), (not current, instance.ino))
    return tuple(sorted(ino for _, ino in shown.values()))


def _study(view: View, ino: int) -> int:
    try:
        return view.series(view.instance_inode(ino).series).study
    except NotFound:
        return 0


def listed(instance: Instance) -> Listed:
    """Return an instance as documents are made of it."""
    held = instance.attributes
    name = documents.directory_name(str(held.get("SOPInstanceUID", "")))
    return Listed(instance.ino, name, instance.mtime_ns, str(held.get("SOPClassUID", "")))


def to_directory(series: Series, name: str) -> str:
    """Return the way from a study's directory to that of one of a series' instances."""
    uid = documents.directory_name(str(series.attributes.get("SeriesInstanceUID", "")))
    return f"series/{documents.uri(uid)}/instances/{documents.uri(name)}/"


def tell(archive: Archive, ino: int) -> Told | None:
    """Read a version, shown or not, and write it down; None where its header cannot be read."""
    with archive.view() as view:
        instance = view.instance(ino)
        series = view.series(instance.series)
    found = listed(instance)
    return documents_instance.tell(archive, found, to_directory(series, found.name))


class Earlier:
    """The hashes of versions that are shown no more: known from earlier bundles, or made. Belongs to one thread."""

    def __init__(self, archive: Archive, *bundles: Bundle | None) -> None:
        """Take over what some bundles know."""
        self._archive = archive
        self._known: dict[int, Hashes] = {}
        for bundle in bundles:
            if bundle is not None:
                self.learn(bundle)

    def learn(self, bundle: Bundle) -> None:
        """Take over what a bundle knows."""
        if bundle.get(_KEY) is not None:
            held = json.loads(zlib.decompress(bundle.document(_KEY)))
            self._known |= {int(ino): hashes for ino, hashes in held.items()}

    @property
    def numbers(self) -> set[int]:
        """The versions of which they are known."""
        return set(self._known)

    def of(self, ino: int, bundle: Bundle | None = None) -> Hashes:
        """Return the hashes of a version, by the bundle that had it where there is one; none if it cannot be read."""
        found = self._known.get(ino)
        if found is None:
            card = None if bundle is None else bundle.cards.of(ino)
            if bundle is not None and card is not None and not card.damaged:
                own, _ = bundle.cards.hashes(ino)
                found = {**dict(Kept(bundle, ino).references()), "instance": own.hex()}
            else:
                told = tell(self._archive, ino)
                found = {} if told is None else {one.type: one.hash for one in told.objects}
            self._known[ino] = found
        return found

    def record(self, numbers: Iterable[int]) -> bytes:
        """Return what is known of some versions, for the next bundle."""
        known = {ino: self._known[ino] for ino in numbers if ino in self._known}
        return zlib.compress(json.dumps(known).encode(), 1)


def replaced_by(objects: Iterable[Object], earlier: Iterable[Hashes]) -> tuple[tuple[str, ...], ...]:
    """Return for each of an instance's objects which ones it took the place of."""
    those = list(earlier)
    return tuple(
        tuple(sorted({hashes[one.type] for hashes in those if hashes.get(one.type, one.hash) != one.hash}))
        for one in objects
    )
