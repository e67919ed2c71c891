"""Fold what commits say of versions: what was deleted or came back, what is said anew, and who did it, when and why.

The parts of a commit's JSON that only archives that were changed have:

    {"reason": text, "run": name in runs/, "edit": {what was asked}, "deleted": [ino],
     "restored": [[ino, parent, name, replaces, attributes]],
     "restated": [["series", [[number, attributes]]],
                  ["studies", [[number, patient, [patients], attributes, [modalities], mixed]]],
                  ["patients", [[number, attributes]]]],
     "renamed": [[ino of a directory, name]],
     "superseded": [[ino, ino of the version in whose favour]],
     "current": [ino],
     "merged": {what another archive knew: merging_facts.py}}
"""

import json
from typing import Any, Final, NamedTuple, TypeAlias

from dicomfs.archive import tables
from dicomfs.archive.tables import NOWHERE, PAIR, TRIPLE, U64
from dicomfs.errors import Damaged
from dicomfs.store.index import Table, Transaction

KEYS: Final = (
    "reason", "run", "edit", "deleted", "restored", "restated", "renamed", "superseded", "current", "merged"
)  # fmt: skip

Counted: TypeAlias = dict[str, int]
IMPORTED, REPLACED, LEFT, DELETED, RESTORED = COUNTS = ("imported", "replaced", "left", "deleted", "restored")
"""What a commit may do with instances of a study. `left`: it was edited, and is in another study now."""


class RestoredRow(NamedTuple):
    """What a commit records of an earlier version that is back."""

    ino: int
    parent: int
    name: str
    replaces: int
    """The inode of the version whose place it takes, or 0."""
    attributes: dict[str, str | int]


class RestatedStudy(NamedTuple):
    """What a commit records of a study of which its instances say something else now."""

    number: int
    patient: int
    """The first of its patients."""
    patients: list[int]
    attributes: dict[str, str | int]
    modalities: list[str]
    mixed: bool


class Other(NamedTuple):
    """An earlier version, and where it was shown as `Past` has it."""

    ino: int
    links: list[tuple[int, int, str]]
    members: list[tuple[int, int, str]]


class Past(NamedTuple):
    """Where a version lay that is in no tree any more, and why it is not."""

    parent: int
    seq: int
    """The commit that took it out."""
    by: int
    """The version in whose favour, 0 where it was deleted."""
    current: bool
    """Whether it was the current one of its SOP Instance UID."""
    links: list[tuple[int, int, str]]
    """(root, directory, name) in each layout and project that showed it."""
    members: list[tuple[int, int, str]]
    """(root, number of the file that was shown, reason) in each project that had it."""
    others: tuple["Other", ...] = ()
    """Earlier versions that frozen projects went on showing until this one was deleted."""


class VersionFold:
    """The versions' part of one commit on its way into the catalog."""

    def __init__(self, txn: Transaction, held: dict[str, Table], seq: int) -> None:
        self._txn = txn
        self._tables = held
        self._seq = seq
        self._reason = self._run = ""
        self._edit: object = None
        self._merged: list[object] = []
        self._studies: dict[int, Counted] = {}

    def said(self, reason: str, edit: object, run: str, merged: object) -> None:
        """Take note of why the commit was made, what was asked, which import made it, and what another archive knew."""
        self._reason, self._edit, self._run = reason, edit, run
        if isinstance(merged, dict):
            self._merged = [change for change in merged["changes"] if change[2] != "merge"]  # which nobody made

    def count(self, study: int, what: str) -> None:
        """Count an instance of a study, with which this was done."""
        counted = self._studies.setdefault(study, {})
        counted[what] = counted.get(what, 0) + 1

    def put(self, ino: int, past: Past) -> None:
        """Write down where a version lay."""
        self._txn.put(U64.pack(ino), encode(past._asdict()), db=self._tables["past"])

    def take(self, ino: int) -> Past | None:
        """Return where a version lay, which is to be forgotten as it is back."""
        value = self._txn.get(U64.pack(ino), db=self._tables["past"])
        if value is None:
            return None
        self._txn.delete(U64.pack(ino), db=self._tables["past"])
        return decode(value)

    def favour(self, ino: int, by: int) -> None:
        """Say in whose favour a version is shown no more, of one that is not."""
        past = self.take(ino)
        if past is not None:
            self.put(ino, past._replace(by=by))

    def is_current(self, ino: int, sop: bytes) -> bool:
        """Say whether an instance is the current one of its SOP Instance UID."""
        return (self._txn.get(sop, db=self._tables["sop"]) or b"")[: U64.size] == U64.pack(ino)

    def add(self, ino: int, sop: bytes, *, first: bool) -> None:
        """Add a version to those of its SOP Instance UID, or put it in front of them."""
        key = U64.pack(ino)
        if self._txn.put(sop, key, overwrite=False, db=self._tables["sop"]):
            return
        others = b"".join(U64.pack(other) for other in self.versions(sop) if other != ino)
        self._txn.put(sop, key + others if first else others + key, db=self._tables["sop"])
        self.settle(sop)

    def settle(self, sop: bytes) -> None:
        """Put versions that are shown in front, and see to it that trees of UIDs show one in each series."""
        versions = self.versions(sop)
        if len(versions) < 2:
            return
        shown: list[int] = []
        rest: list[int] = []
        series_shown: set[int] = set()
        for ino in versions:
            value = self._txn.get(U64.pack(ino), db=self._tables["inode"])
            if value is None:
                rest.append(ino)
                continue
            inode = tables.InstanceInode.parse(value)
            series = self._txn.get(U64.pack(inode.series), db=self._tables["series"]) or bytes(tables.SERIES.size)
            hidden = TRIPLE.pack(tables.SERIES.unpack_from(series)[0], inode.series, ino)
            if inode.parent == NOWHERE or inode.series not in series_shown:
                self._txn.delete(hidden, db=self._tables["hidden"])
            else:
                self._txn.put(hidden, b"", db=self._tables["hidden"])
            if inode.parent == NOWHERE:
                rest.append(ino)
            else:
                shown.append(ino)
                series_shown.add(inode.series)
        if shown + rest != versions:
            self._txn.put(sop, b"".join(map(U64.pack, shown + rest)), db=self._tables["sop"])

    def versions(self, sop: bytes) -> list[int]:
        """Return all versions of a SOP Instance UID."""
        return [number for (number,) in U64.iter_unpack(self._txn.get(sop, db=self._tables["sop"]) or b"")]

    def finish(self, op: str, by: str) -> None:
        """Write down who did what."""
        sums: Counted = {}
        for study, counted in self._studies.items():
            for what, count in counted.items():
                sums[what] = sums.get(what, 0) + count
            self._txn.put(PAIR.pack(study, self._seq), encode(_ordered(counted)), db=self._tables["history"])
        told: dict[str, object] = {"op": op, "by": by}
        if self._reason:
            told["reason"] = self._reason
        if self._run:
            told["run"] = self._run
        if self._edit is not None:
            told["edit"] = self._edit
        if self._merged:
            told["merged"] = self._merged
        self._txn.put(U64.pack(self._seq), encode(told | _ordered(sums)), db=self._tables["log"])


def decode(value: bytes) -> Past:
    """Read a value of the table of what is past; raise Damaged."""
    try:
        held = json.loads(value)
        others = tuple(Other(int(ino), _triples(links), _triples(shown)) for ino, links, shown in held.pop("others"))
        links, members = _triples(held.pop("links")), _triples(held.pop("members"))
        return Past(**held, links=links, members=members, others=others)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged("the index has a damaged record of an earlier version; run 'dicomfs reindex'") from error


def _triples(held: list[list[Any]]) -> list[tuple[int, int, str]]:
    return [(int(one), int(other), str(text)) for one, other, text in held]


def _ordered(counted: Counted) -> Counted:
    return {what: counted[what] for what in COUNTS if what in counted}


def encode(value: object) -> bytes:
    """Return a value of the tables of versions."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
