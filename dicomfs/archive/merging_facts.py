"""What archives know of versions, told so that it can be joined: facts about files by their SHA-256.

    came      a file came, or was made: when, by which change
    hidden    a file is shown no more: another is in its place, or it was deleted
    shown     it is shown again: what had hidden it, as far as that was known there, does not count any more
    attached  a document was attached to a patient

A file is shown as long as nothing hides it that was not undone. Facts are never taken back, so joining them is their
union, in any order and as often as one likes; what the union shows is a function of it (merging_resolution.py).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

Sha: TypeAlias = str
"""SHA-256 of a file, 64 hexadecimal digits."""

DELETED: Final = ""
"""What hides a file that was deleted."""


class Change(NamedTuple):
    """A commit that did something, in whichever archive that was."""

    id: str
    """Follows from the rest."""
    time_ns: int
    op: str
    by: str
    reason: str
    edit: str
    """What was asked, as JSON with sorted keys; '' where that was nothing more."""


class Came(NamedTuple):
    """When a file came, so that the first is the smallest."""

    time_ns: int
    number: int
    """Its place among those that came with it."""
    change: str


class Hide(NamedTuple):
    """What hides a file."""

    by: Sha
    """The file in whose favour, or DELETED."""
    change: str


class Back(NamedTuple):
    """A file was shown again."""

    change: str
    undone: frozenset[Hide]


class Attached(NamedTuple):
    """A document was attached to a patient, or taken away where `blob` is empty."""

    time_ns: int
    blob: str
    patient: str
    kind: str
    name: str
    size: int
    change: str


def make_change(time_ns: int, op: str, by: str, reason: str, edit: object) -> Change:
    """Return a change with its identity."""
    text = "" if edit is None else canonical(edit)
    told = canonical([time_ns, op, by, reason, text])
    digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
    return Change(digest[:32], time_ns, op, by, reason, text)


def canonical(value: object) -> str:
    """Return JSON that is the same for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@dataclass(slots=True)
class Facts:
    """All that an archive knows, or several."""

    changes: dict[str, Change] = field(default_factory=dict)
    sop: dict[Sha, str] = field(default_factory=dict)
    came: dict[Sha, Came] = field(default_factory=dict)
    hidden: dict[Sha, set[Hide]] = field(default_factory=dict)
    shown: dict[Sha, set[Back]] = field(default_factory=dict)
    attached: set[Attached] = field(default_factory=set)

    def arrive(self, sha: Sha, came: Came) -> None:
        """Add when a file came; the first time counts."""
        before = self.came.get(sha)
        if before is None or came < before:
            self.came[sha] = came

    def hide(self, sha: Sha, hide: Hide) -> None:
        """Add what hides a file."""
        self.hidden.setdefault(sha, set()).add(hide)

    def show(self, sha: Sha, back: Back) -> None:
        """Add that a file was shown again."""
        self.shown.setdefault(sha, set()).add(back)

    def hides(self, sha: Sha) -> set[Hide]:
        """Return what hides a file and was not undone."""
        found = self.hidden.get(sha)
        if not found:
            return set()
        return found.difference(*(back.undone for back in self.shown.get(sha, ())))

    def time_of(self, change: str) -> tuple[int, str]:
        """Return when a change was made, so that changes have an order."""
        found = self.changes.get(change)
        return (0 if found is None else found.time_ns, change)

    def knows_as(self, other: "Facts", sha: Sha) -> bool:
        """Say whether two archives know the same of a file."""
        return (
            self.came.get(sha) == other.came.get(sha)
            and self.hidden.get(sha, _NONE) == other.hidden.get(sha, _NONE)
            and self.shown.get(sha, _NONE) == other.shown.get(sha, _NONE)
        )

    def join(self, other: "Facts") -> None:
        """Add all that another archive knows."""
        self.changes.update(other.changes)
        for sha, sop in other.sop.items():
            self.sop.setdefault(sha, sop)
        for sha, came in other.came.items():
            self.arrive(sha, came)
        for sha, hides in other.hidden.items():
            self.hidden.setdefault(sha, set()).update(hides)
        for sha, backs in other.shown.items():
            self.shown.setdefault(sha, set()).update(backs)
        self.attached |= other.attached

    def copy(self) -> "Facts":
        """Return the same, to be added to."""
        return Facts(
            dict(self.changes),
            dict(self.sop),
            dict(self.came),
            {sha: set(hides) for sha, hides in self.hidden.items()},
            {sha: set(backs) for sha, backs in self.shown.items()},
            set(self.attached),
        )


_NONE: Final[frozenset[Hide | Back]] = frozenset()


@dataclass(slots=True)
class Told:
    """Facts as a commit tells them: those that the archive did not know."""

    came: list[tuple[Sha, int, str]] = field(default_factory=list)
    hidden: list[tuple[Sha, Sha, str]] = field(default_factory=list)
    shown: list[tuple[Sha, str, list[tuple[Sha, str]]]] = field(default_factory=list)
    attached: list[tuple[str, str, str, str, int, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.came or self.hidden or self.shown or self.attached)

    def lacking(self, sha: Sha, facts: Facts, known: Facts) -> None:
        """Add what is known of a file, but for what is `known` to the archive."""
        came = facts.came.get(sha)
        if came is not None and came != known.came.get(sha):
            self.came.append((sha, came.number, came.change))
        for hide in sorted(facts.hidden.get(sha, set()) - known.hidden.get(sha, set())):
            self.hidden.append((sha, *hide))
        backs = facts.shown.get(sha, set()) - known.shown.get(sha, set())
        self.shown += sorted(
            (sha, back.change, [(hide.by, hide.change) for hide in sorted(back.undone)]) for back in backs
        )

    def attach(self, one: Attached) -> None:
        """Add that a document was attached."""
        self.attached.append((one.patient, one.kind, one.name, one.blob, one.size, one.change))

    def named(self) -> Iterator[str]:
        """Walk the changes that these facts name."""
        yield from (change for _, _, change in self.came)
        yield from (change for _, _, change in self.hidden)
        for _, change, undone in self.shown:
            yield change
            yield from (other for _, other in undone)
        yield from (row[-1] for row in self.attached)

    def to_json(self, archive_id: str, facts: Facts, known: Facts) -> dict[str, object]:
        """Return what a commit says of these facts; changes that the archive knows are named only."""
        named = sorted(set(self.named()) - known.changes.keys(), key=facts.time_of)
        changes = [facts.changes[name] for name in named if name in facts.changes]
        return {
            "from": archive_id,
            "changes": [[*one[:5], json.loads(one.edit) if one.edit else None] for one in changes],
            "came": self.came,
            "hidden": self.hidden,
            "shown": self.shown,
            "attached": self.attached,
        }


def take(facts: Facts, said: dict[str, object]) -> None:
    """Add what a commit says of facts; raise ValueError, TypeError or KeyError for what is not so written."""
    for _, time_ns, op, by, reason, edit in _rows(said, "changes"):
        change = make_change(_int(time_ns), _text(op), _text(by), _text(reason), edit)
        facts.changes[change.id] = change
    for sha, number, change_id in _rows(said, "came"):
        time_ns = facts.time_of(_text(change_id))[0]
        facts.arrive(hexadecimal(sha), Came(time_ns, _int(number), _text(change_id)))
    for sha, by, change_id in _rows(said, "hidden"):
        facts.hide(hexadecimal(sha), Hide(_hash_or_none(by), _text(change_id)))
    for sha, change_id, undone in _rows(said, "shown"):
        hides = frozenset(Hide(_hash_or_none(by), _text(other)) for by, other in undone)
        facts.show(hexadecimal(sha), Back(_text(change_id), hides))
    for patient, kind, name, blob, size, change_id in _rows(said, "attached"):
        time_ns = facts.time_of(_text(change_id))[0]
        told = (
            _hash_or_none(blob),
            hexadecimal(patient, 16),
            _text(kind),
            _text(name),
            _int(size),
            _text(change_id),
        )
        facts.attached.add(Attached(time_ns, *told))


def _rows(said: dict[str, object], key: str) -> "Iterator[list[Any]]":
    rows = said[key]
    if not isinstance(rows, list):
        raise TypeError("facts are lists")
    yield from rows


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a fact names something by text")
    return value


def hexadecimal(value: object, length: int = 32) -> str:
    """Return the hexadecimal digits of so many bytes; raise ValueError or TypeError for anything else."""
    text = _text(value)
    if len(text) != 2 * length or bytes.fromhex(text).hex() != text:
        raise ValueError("a hash has so many digits")
    return text


def _hash_or_none(value: object) -> str:
    return "" if value == "" else hexadecimal(value)


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("a fact has a number")
    return value
