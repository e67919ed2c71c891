"""What the catalog knows of versions: which are shown no more, and who changed what, when and why."""

import json
from collections.abc import Iterator
from typing import NamedTuple

from dicomfs.archive import fold_versions, tables
from dicomfs.archive.fold_versions import COUNTS, Past
from dicomfs.archive.reading import Reading
from dicomfs.archive.tables import U64
from dicomfs.errors import Damaged, NotFound


class Merged(NamedTuple):
    """A commit of another archive, which a merge brought."""

    id: str
    """The same in every archive."""
    time_ns: int
    op: str
    by: str
    reason: str
    edit: dict[str, object] | None


class Event(NamedTuple):
    """A commit, and what it did with instances: of the archive, or of one study."""

    seq: int
    time_ns: int
    op: str
    by: str
    reason: str
    edit: dict[str, object] | None
    """What was asked, of an edit."""
    counts: dict[str, int]
    """How many instances were imported, replaced, left (for another study), deleted, restored."""
    merged: tuple[Merged, ...] = ()
    """What was done in the other archive, of a merge: each once."""


class ByVersion(Reading):
    """The catalog at one commit, by versions."""

    __slots__ = ()

    def past(self, ino: int) -> Past | None:
        """Return where a version lay that is shown no more, None for one that is shown."""
        value = self._txn.get(U64.pack(ino), db=self._tables["past"])
        return None if value is None else fold_versions.decode(value)

    def is_shown(self, sop_instance_uid: str) -> bool:
        """Say whether any version of a SOP Instance UID is shown: those that are come first."""
        versions = self.instances_where_uid(sop_instance_uid)
        return bool(versions) and self.instance_inode(versions[0]).parent != tables.NOWHERE

    def is_deleted(self, sop_instance_uid: str) -> bool:
        """Say whether nothing is shown of a SOP Instance UID because it was deleted."""
        if self.is_shown(sop_instance_uid):
            return False
        versions = self.instances_where_uid(sop_instance_uid)
        return any((past := self.past(ino)) is not None and not past.by for ino in versions)

    def events(self, after: int = 0) -> Iterator[Event]:
        """Walk all commits past a number, in their order."""
        for seq in self._numbers("log", after):
            yield self.event(seq)

    def events_of(self, study: int) -> Iterator[Event]:
        """Walk the commits that did something with instances of a study, in their order, with what they did there."""
        for seq in self._below("history", study):
            counts = json.loads(self._get("history", study, seq))
            yield self.event(seq)._replace(counts=counts)

    def event(self, seq: int) -> Event:
        """Return a commit; raise NotFound, or Damaged."""
        value = self._txn.get(U64.pack(seq), db=self._tables["log"])
        if value is None:
            raise NotFound(f"the archive has no commit {seq}")
        try:
            held = json.loads(value)
            counts = {what: int(held[what]) for what in COUNTS if what in held}
            time_ns = self._store.commit_place(self._txn, seq).time_ns
            merged = tuple(Merged(*one) for one in held.get("merged", ()))
            return Event(
                seq, time_ns, str(held["op"]), str(held["by"]), str(held.get("reason", "")), held.get("edit"), counts,
                merged,
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Damaged("the index has a damaged record of a commit; run 'dicomfs reindex'") from error
