"""Forget versions: those that nothing shows any more since a time, with their headers, names and attributes.

A commit that brought one is written once more without its row; a *stub* stays in its place, so that everything after
it folds as before (numbers, times, counters, what took whose place). What a stub still says: numbers, sizes, the
SOP Instance UID and the SHA-256 of the file, by which one that was deleted is known again. A commit of `gc` ends them:
after it the catalog knows nothing of them. The keys are described in fold_forgetting.py.

Never forgotten is what something may still show: what a project links, and the source of a derived file that stays.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from dicomfs.archive import fold_forgetting, fold_versions, tables
from dicomfs.archive.archive import NO_BASE, Archive
from dicomfs.archive.gc_rebasing import Rebasing
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.archive.records import as_bytes, encode
from dicomfs.archive.tables import PAIR, U64
from dicomfs.dicom.attributes import INSTANCE_KEYWORDS
from dicomfs.store import commit as commits
from dicomfs.store import repack
from dicomfs.store.index import Transaction
from dicomfs.store.repack import Fresh, Range, Record
from dicomfs.store.store import Store

_NO_HASH: Final = NO_BASE.hex()
_INO, _BASE, _BODY_OFFSET, _BODY_LENGTH = 0, 7, 8, 9
_NEW_BULK, _NEW_STORED, _NEW_BASE = 11, 12, 13
_NEW_BASE_OF_DERIVED: Final = 11
_EMPTY: Final = ("patients", "studies", "series", "study_patients", "directories", "instances")


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What is to be forgotten."""

    limit_ns: int
    """States from this time on stay as they are; 0 where nothing is asked to be forgotten."""
    instances: frozenset[int]
    derived: frozenset[int]
    commits: frozenset[int] = frozenset()
    """The commits whose records name any of them, or hold headers whose base has to go."""
    rebasing: Rebasing | None = None

    def __contains__(self, ino: object) -> bool:
        return ino in self.instances or ino in self.derived

    def base_of(self, base: bytes) -> bytes:
        """Return the base that headers have instead of this one: itself mostly."""
        return base if self.rebasing is None else self.rebasing.base_of(base)

    @property
    def count(self) -> int:
        """How many versions of files it is."""
        return len(self.instances) + len(self.derived)

    def meta(self, by: str) -> bytes:
        """Return the JSON of the commit that ends them."""
        told = {"op": "gc", "by": by, **{name: [] for name in _EMPTY}}
        return as_bytes(encode({**told, "forgot": self.limit_ns, "swept": sorted(self.instances | self.derived)}))


NOTHING: Final = Forgetting(0, frozenset(), frozenset())


class Left(NamedTuple):
    """What stays in the packs of what a file brought, in bytes."""

    bulk: int
    stored: int
    base: bool
    """Whether its base stays."""


def choose(archive: Archive, limit_ns: int, progress: OnProgress | None) -> Forgetting:
    """Return what is shown at no time from `limit_ns` on, and needed by nothing that is."""
    store = archive.store
    with store.index.reading() as txn:
        instances, derived = _past(store, txn, limit_ns)
        instances = {ino for ino in instances if not _is_linked(store, txn, ino)}
        sources: dict[int, int] = {}
        for ino, source in _sources(store, txn):
            sources[ino] = source
            if ino not in derived:
                instances.discard(source)
        _keep_others(store, txn, instances)
        derived = {ino for ino in derived if sources.get(ino) in instances}
    if not instances:
        return NOTHING
    found = Forgetting(limit_ns, frozenset(instances), frozenset(derived))
    rebasing = Rebasing(archive, found.instances | found.derived)
    named = frozenset(_naming(store, found, progress))
    return replace(found, commits=named | rebasing.commits, rebasing=rebasing)


def _past(store: Store, txn: Transaction, limit_ns: int) -> tuple[set[int], set[int]]:
    """Return the instances and derived files that are shown no more from a time on."""
    found: dict[int, set[int]] = {tables.INSTANCE: set(), tables.DERIVED: set()}
    times: dict[int, int] = {}
    cursor = txn.cursor(db=store.index.tables["past"])
    for key, value in cursor.iternext() if cursor.first() else ():
        seq = fold_versions.decode(value).seq
        if seq not in times:
            times[seq] = store.commit_place(txn, seq).time_ns
        inode = txn.get(key, db=store.index.tables["inode"])
        if times[seq] <= limit_ns and inode is not None and inode[0] in found:
            found[inode[0]].add(U64.unpack(key)[0])
    return found[tables.INSTANCE], found[tables.DERIVED]


def _keep_others(store: Store, txn: Transaction, instances: set[int]) -> None:
    """Take out of these what a frozen project went on showing until a version that stays was deleted."""
    cursor = txn.cursor(db=store.index.tables["past"])
    shown: dict[int, set[int]] = {}
    for key, value in cursor.iternext() if cursor.first() else ():
        others = {other.ino for other in fold_versions.decode(value).others}
        if others:
            shown[U64.unpack(key)[0]] = others
    while kept := {ino for by, others in shown.items() if by not in instances for ino in others & instances}:
        instances -= kept


def _is_linked(store: Store, txn: Transaction, ino: int) -> bool:
    """Say whether a layout or project has a name for an instance, or shows something of it."""
    cursor = txn.cursor(db=store.index.tables["link"])
    if cursor.set_range(PAIR.pack(ino, 0)) and PAIR.unpack(cursor.key())[0] == ino:
        return True
    projects = txn.cursor(db=store.index.tables["project"])
    roots = [key for key, _ in projects.iternext()] if projects.first() else []
    return any(txn.get(root + U64.pack(ino), db=store.index.tables["member"]) is not None for root in roots)


def _sources(store: Store, txn: Transaction) -> Iterator[tuple[int, int]]:
    cursor = txn.cursor(db=store.index.tables["source"])
    for key, value in cursor.iternext() if cursor.first() else ():
        yield U64.unpack(key)[0], PAIR.unpack(value)[0]


def _naming(store: Store, found: Forgetting, progress: OnProgress | None) -> Iterator[int]:
    """Walk the commits whose records name something: linear in the JSON of all commits."""
    with store.index.reading() as txn:
        every = list(store.commits(txn))
    for done, seq in enumerate(every):
        said = json.loads(commits.read_meta(repack.read_record(store, seq).meta))
        rows = (row for name in ("instances", "derived", "links", "restored") for row in said.get(name, ()))
        if any(row[_INO] in found for row in rows):
            yield seq
        if progress is not None and done % 16 == 0:
            progress(Progress(done, len(every), 0, 0))


class Reduced(NamedTuple):
    """A commit without what is to be forgotten."""

    meta: bytes
    """The JSON as it is stored."""
    body: list[Range | bytes]
    fresh: list[Fresh]


def reduce(record: Record, forgotten: Forgetting, left: Callable[[int], Left]) -> Reduced:
    """Return a commit without what is to be forgotten.

    `left` says what stays in the packs of what a file brought.
    """
    said: dict[str, Any] = json.loads(commits.read_meta(record.meta))
    for name, stub, key in (
        ("instances", lambda row: _stub(row, left(row[_INO])), fold_forgetting.INSTANCES),
        ("derived", _derived_stub, fold_forgetting.DERIVED),
    ):
        rows = said.get(name, [])
        gone = [stub(row) for row in rows if row[_INO] in forgotten]
        if gone:
            said[name] = [row for row in rows if row[_INO] not in forgotten]
            said[key] = sorted([*said.get(key, []), *gone])
    for row in said.get("links", ()):
        if row[_INO] in forgotten:
            row[3] = _name(row[_INO])
    for row in said.get("restored", ()):
        if row[_INO] in forgotten:
            row[2], row[4] = _name(row[_INO]), _attributes(row[4])
    if not said.get("derived", True):
        del said["derived"]
    fresh: list[Fresh] = []
    rows = [(row, _NEW_BASE) for row in said["instances"]]
    rows += [(row, _NEW_BASE_OF_DERIVED) for row in said.get("derived", ())]
    body: list[Range | bytes] = []
    at = 0
    for row, new_base in sorted(rows, key=lambda item: int(item[0][_BODY_OFFSET])):
        body.append(_header(record, row, new_base, forgotten, fresh))
        row[_BODY_OFFSET] = at
        at += row[_BODY_LENGTH]
    return Reduced(commits.pack_meta(as_bytes(encode(said))), body, fresh)


def _header(record: Record, row: list[Any], new_base: int, forgotten: Forgetting, fresh: list[Fresh]) -> Range | bytes:
    """Return the header of a row, compressed anew if its base has to go."""
    base = bytes.fromhex(row[_BASE])
    if forgotten.rebasing is None or forgotten.base_of(base) == base:
        return Range(record.body.pack, record.body.offset + row[_BODY_OFFSET], row[_BODY_LENGTH])
    now, body, brought = forgotten.rebasing.header(row[_INO], base)
    row[_BASE], row[_BODY_LENGTH], row[new_base] = now.hex(), len(body), 0
    if brought is not None:
        fresh.append(brought)
        row[new_base] = len(brought.stored)
    return body


def _stub(row: list[Any], left: Left) -> list[Any]:
    ino, series, study, parent, _, size, sha256, *_, replaces, attributes = row
    bulk, stored = min(left.bulk, row[_NEW_BULK]), min(left.stored, row[_NEW_STORED])
    base = row[_NEW_BASE] if left.base else 0
    return [
        ino, series, study, parent, _name(ino), size, sha256, _NO_HASH, 0, 0, 0, bulk, stored, base, replaces,
        _attributes(attributes),
    ]  # fmt: skip


def _derived_stub(row: list[Any]) -> list[Any]:
    ino, root, source, parent, _, size, *_ = row
    return [ino, root, source, parent, _name(ino), size, _NO_HASH, _NO_HASH, 0, 0, 0, 0]


def _name(ino: int) -> str:
    """Return a name that no file can have, and nothing else was ever called."""
    return f"/{ino}"


def _attributes(held: Mapping[str, object]) -> dict[str, object]:
    """Return what of an instance's attributes its study goes by."""
    kept = {key: held[key] for key in ("SOPInstanceUID", "Modality") if key in held}
    if not INSTANCE_KEYWORDS.issuperset(held):
        kept[fold_forgetting.DIFFERED] = ""
    return kept
