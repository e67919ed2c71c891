"""What the catalog knows of versions: which are shown no more, and who changed what, when and why."""

import json
import re
from collections.abc import Container, Iterator
from typing import Any, Final, NamedTuple

from dicomfs.archive import fold_versions, tables
from dicomfs.archive.fold_forgetting import FORGOT
from dicomfs.archive.fold_versions import COUNTS, Past
from dicomfs.archive.reading import Reading
from dicomfs.archive.tables import U64
from dicomfs.errors import Damaged, NotFound

_SEQ: Final = re.compile(rb'"seq":([0-9]+)').search


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
    run: str
    """The import that made it, by its directory in runs/; of other commits ''."""
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
        if any((past := self.past(ino)) is not None and not past.by for ino in versions):
            return True
        return self._txn.get(tables.sop_key(sop_instance_uid), db=self._tables["tombstone"]) is not None

    @property
    def forgot_ns(self) -> int:
        """The time (ns since 1970) before which not all is known any more, 0 where nothing was forgotten."""
        try:
            return int(self._txn.get(FORGOT, db=self._store.meta_table) or b"0")
        except ValueError as error:
            raise Damaged("the index has a damaged record of what was forgotten; run 'dicomfs reindex'") from error

    def events(self, after: int = 0) -> Iterator[Event]:
        """Walk all commits past a number, in their order."""
        for seq in self._numbers("log", after):
            yield self.event(seq)

    def events_of(self, study: int, after: int = 0) -> Iterator[Event]:
        """Walk the commits past a number that did something with instances of a study, with what they did there."""
        for seq in self._below("history", study, after):
            counts = json.loads(self._get("history", study, seq))
            yield self.event(seq)._replace(counts=counts)

    def changed(self, study: int) -> list[int]:
        """Return the commits, in their order, that did other things with instances of a study than add some."""
        return [
            seq
            for seq in self._below("history", study)
            if not json.loads(self._get("history", study, seq)).keys() <= {fold_versions.IMPORTED}
        ]

    def taken_out(self, commits: Container[int]) -> Iterator[tuple[int, Past]]:
        """Walk the versions that some commits took out: linear in all that ever were, some 0.3 µs each."""
        cursor = self._txn.cursor(db=self._tables["past"])
        for key, value in cursor.iternext() if cursor.first() else ():
            told = _SEQ(bytes(value))
            if told is not None and int(told[1]) in commits:
                yield U64.unpack(key)[0], fold_versions.decode(value)

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
                seq, time_ns, str(held["op"]), str(held["by"]), str(held.get("reason", "")), str(held.get("run", "")),
                held.get("edit"), counts, merged,
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Damaged("the index has a damaged record of a commit; run 'dicomfs reindex'") from error

    def records(self, seq: int) -> dict[str, Any]:
        """Return a commit's JSON, read from its pack; raise Damaged."""
        try:
            held = json.loads(self._store.read_meta(self._store.commit_place(self._txn, seq)))
        except (ValueError, RecursionError) as error:
            raise Damaged(f"the JSON of commit {seq} is damaged; run 'dicomfs check'") from error
        if not isinstance(held, dict):
            raise Damaged(f"the JSON of commit {seq} is not as dicomfs writes it")
        return held
