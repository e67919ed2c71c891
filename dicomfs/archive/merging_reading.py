"""Read what an archive knows from its commits, one after another: who did what to which file.

What was done here is found by doing it again, number by number; what came by an earlier merge is told by its commit, so
that it is known as it was done, whichever way it came.
"""

import json
from typing import Any, Final

from dicomfs.archive.editing import Definition
from dicomfs.archive.merging_facts import (
    DELETED,
    Attached,
    Back,
    Came,
    Change,
    Facts,
    Hide,
    Sha,
    hexadecimal,
    make_change,
    take,
)
from dicomfs.errors import Damaged
from dicomfs.store.store import Store

_NOT_OURS: Final = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)


def read_facts(store: Store) -> Facts:
    """Return what an archive knows; raise Damaged where its commits cannot be read."""
    reader = _Reader()
    seq = 0
    while True:
        with store.index.reading() as txn:
            seq = store.next_seq(txn, seq)
            place = store.commit_place(txn, seq) if seq else None
        if place is None:
            return reader.facts
        meta = store.read_meta(place)
        try:
            reader.take(json.loads(meta), place.time_ns)
        except _NOT_OURS as error:
            raise Damaged(f"the JSON of commit {seq} is not as dicomfs writes it ({type(error).__name__})") from error


class _Reader:
    def __init__(self) -> None:
        self.facts = Facts()
        self.shas: dict[int, Sha] = {}
        self.live: set[int] = set()
        """The numbers of instances that are shown."""
        self._numbers: dict[Sha, int] = {}
        self._copies: dict[Sha, list[int]] = {}

    def is_live(self, sha: Sha) -> bool:
        """Say whether a file is shown."""
        copies = self._copies.get(sha)
        if copies is None:
            return self._numbers.get(sha, 0) in self.live
        return any(number in self.live for number in copies)

    def take(self, records: dict[str, Any], time_ns: int) -> None:
        """Add what a commit did."""
        done = _Done(self, records, time_ns)
        for number, row in enumerate(records["instances"]):
            self._instance(done, number, row)
        for ino, _, _, replaces, _ in records.get("restored", ()):
            done.hide(_int(replaces), self.shas.get(_int(ino), ""))
            done.show(_int(ino))
        for ino, by in records.get("superseded", ()):
            done.hide(_int(ino), self.shas.get(_int(by), DELETED))
        for one in records.get("deleted", ()):
            done.hide(_int(one), DELETED)
        if "merged" in records:
            take(self.facts, records["merged"])
            return
        done.tell(self.facts)
        for row in records.get("attachments", ()):
            _, patient, kind, name, blob, size = row
            told = (str(blob), str(patient), str(kind), str(name), _int(size))
            self.facts.attached.add(Attached(time_ns, *told, done.change(self.facts).id))

    def _instance(self, done: "_Done", number: int, row: list[Any]) -> None:
        ino, sha, replaces, said = _int(row[0]), hexadecimal(row[6]), _int(row[14]), row[15]
        if not isinstance(said, dict):
            raise TypeError("attributes are an object")
        if sha in self.facts.sop:
            self._copies.setdefault(sha, [self._numbers[sha]]).append(ino)
            done.note(sha)
        else:
            self.facts.sop[sha] = str(said["SOPInstanceUID"])
            done.new[sha] = (number, replaces)
        self.shas[ino] = sha
        self._numbers[sha] = ino
        done.hide(replaces, sha)
        self.live.add(ino)


class _Done:
    """What one commit did."""

    def __init__(self, reader: _Reader, records: dict[str, Any], time_ns: int) -> None:
        self._reader = reader
        self._live, self._shas = reader.live, reader.shas
        self._said = (time_ns, str(records["op"]), str(records["by"]), str(records.get("reason") or ""))
        self._edit: object = records.get("edit") or None
        self._references: frozenset[int] = frozenset()
        self._of_references: object = None
        self._before: dict[Sha, bool] = {}
        self._by: dict[Sha, tuple[int, Sha]] = {}
        self._made: dict[bool, Change] = {}
        self.new: dict[Sha, tuple[int, int]] = {}
        try:
            definition = Definition.from_json(self._edit)
        except ValueError:
            return
        self._edit = definition.changes.to_json()
        self._references = definition.references
        self._of_references = definition.of_references.to_json()

    def note(self, sha: Sha) -> None:
        """Remember whether a file was shown."""
        if sha not in self.new:
            self._before.setdefault(sha, self._reader.is_live(sha))

    def hide(self, ino: int, by: Sha) -> None:
        """Take a file out in favour of another."""
        if ino in self._live:
            sha = self._shas[ino]
            self.note(sha)
            self._live.discard(ino)
            self._by[sha] = (ino, by)

    def show(self, ino: int) -> None:
        """Put a file back."""
        if ino in self._shas:
            self.note(self._shas[ino])
            self._live.add(ino)

    def change(self, facts: Facts, old: int = 0) -> Change:
        """Return what the commit did to the file with this number."""
        refers = bool(old) and old in self._references
        found = self._made.get(refers)
        if found is None:
            found = make_change(*self._said, self._of_references if refers else self._edit)
            found = self._made[refers] = facts.changes.setdefault(found.id, found)
        return found

    def tell(self, facts: Facts) -> None:
        """Add what it did on the whole to the facts."""
        for sha, (number, replaces) in self.new.items():
            made = self.change(facts, replaces)
            facts.arrive(sha, Came(made.time_ns, number, made.id))
        for sha in (*self.new, *self._before):
            was, now = self._before.get(sha, True), self._reader.is_live(sha)
            if was and not now:
                ino, by = self._by[sha]
                facts.hide(sha, Hide(by, self.change(facts, ino).id))
            elif now and not was:
                facts.show(sha, Back(self.change(facts).id, frozenset(facts.hides(sha))))


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("a record has a number")
    return value
