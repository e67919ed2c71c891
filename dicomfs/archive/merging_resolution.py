"""What joined facts show: which versions, which of them is current, and what is for a person to decide. Pure.

    v ---A: PatientName---> v1 --+
     \\--B: StudyDate------> v2 --+--> both edits on v, in the order of time

Files of one SOP Instance UID, and versions that were made of each other, are looked at together: a group. A version
that nothing hides is a head. Heads that were made of one file by edits are combined if the edits are independent: the
result is the edits done again on that file, one after another, so its bytes are the same wherever that is done. Edits
that are the same but for time, person and reason are one, the earlier. All else stays beside each other: a conflict.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import Final, NamedTuple, TypeAlias

from dicomfs.archive.merging_facts import DELETED, Came, Facts, Hide, Sha, make_change
from dicomfs.dicom.edit import Changes

Effect: TypeAlias = dict[str, tuple[str, ...]]
"""What edits do to what: by the tag of an attribute, or `uid` and the UID that is changed."""


_UIDS: Final = ("00080018", "0020000D", "0020000E")
"""SOP, Study and Series Instance UID."""
_TOLD: Final = 4


Differing: TypeAlias = tuple[str, tuple[tuple[str, ...], ...]]
"""What was changed, and to what by each."""


class Clash(NamedTuple):
    """What a person is to decide."""

    kind: str
    """"edited", "replaced", "deleted", "files" (of one SOP Instance UID, not made of each other) or "uncombined"."""
    versions: tuple[Sha, ...]
    """The current one first."""
    effects: tuple[Differing, ...] = ()
    """Of an edited one: what was changed, and to what in each version."""
    reason: str = ""


class Lineage(NamedTuple):
    """How a version was made: of which file, by which edits (changes), whatever their order."""

    root: Sha
    edits: frozenset[str]


@dataclass(slots=True)
class Resolved:
    """What a group shows."""

    heads: set[Sha]
    current: dict[str, Sha]
    """By SOP Instance UID, for those of which there is a head."""
    clashes: list[Clash]
    made: list[Sha] = field(default_factory=list)
    """Versions that no archive has yet: combinations of edits."""


Make: TypeAlias = Callable[[Sha, list[Changes]], "tuple[Sha, str] | str"]
"""Do edits on a file one after another: return SHA-256 and SOP Instance UID, or why it cannot be done."""


def lineage_hides(facts: Facts, sha: Sha) -> Iterator[Hide]:
    """Walk what was made of a file, or put in its place as something else: not an earlier version that came back."""
    for hide in facts.hidden.get(sha, ()):
        change = facts.changes.get(hide.change)
        if hide.by != DELETED and (change is None or change.op != "restore"):
            yield hide


@lru_cache(32)
def changes_of(edit: str) -> Changes | None:
    """Return the edit that a change is, None where it is something else."""
    try:
        return Changes.from_json(json.loads(edit)) if edit else None
    except (ValueError, RecursionError):
        return None


@lru_cache(32)
def effect_of(edit: str) -> Effect:
    """Return what an edit does."""
    changes = changes_of(edit)
    if changes is None:
        return {}
    effect: Effect = {f"{tag:08X}": ("set", *values) for tag, values in changes.set.items()}
    effect |= {f"{tag:08X}": ("empty",) for tag in changes.empty}
    effect |= {f"{tag:08X}": ("remove",) for tag in changes.remove}
    return effect | {f"uid {old}": ("uid", new) for old, new in changes.uids.items()}


@lru_cache(32)
def differing(mine: tuple[str, ...], theirs: tuple[str, ...]) -> list[Differing]:
    """Return what two rows of edits make different."""
    one, other = _effect(mine), _effect(theirs)
    found: list[Differing] = [
        (key, (one[key], other[key])) for key in sorted(one.keys() & other) if one[key] != other[key]
    ]
    for tag in _UIDS:
        # A UID that is set, and UIDs that are changed wherever they are: nobody can say which comes first.
        if (tag in one) is not (tag in other):
            here, there = (effect.get(tag) or _moves(effect) for effect in (one, other))
            if here and there:
                found.append((tag, (here, there)))
    return found


def _effect(edits: tuple[str, ...]) -> Effect:
    effect: Effect = {}
    for edit in edits:
        effect |= effect_of(edit)
    return effect


def _moves(effect: Effect) -> tuple[str, ...]:
    """Return the UIDs that edits give."""
    values = [value for key, done in effect.items() if key.startswith("uid ") for value in done[1:]]
    return ("uid", *sorted(values)[:_TOLD]) if values else ()


class Group:
    """Versions that are looked at together. `members` are all of them; facts get those of combinations."""

    def __init__(self, facts: Facts, members: Iterable[Sha], is_present: Callable[[Sha], bool]) -> None:
        self._facts = facts
        self._members = sorted(members)
        self._present = is_present
        self._parents: dict[Sha, list[tuple[Sha, str]]] = {}
        for old in self._members:
            for hide in lineage_hides(facts, old):
                self._parents.setdefault(hide.by, []).append((old, hide.change))
        self._lineages: dict[Sha, Lineage] = {}
        self._after: dict[str, set[str]] = {}

    def resolve(self, make: Make) -> Resolved:
        """Say what is shown; `make` is asked for combinations."""
        for sha in self._members:
            self._lineage(sha)
        heads = {sha for sha in self._members if self._present(sha) and not self._facts.hides(sha)}
        resolved = Resolved(heads, {}, [])
        for family in self._families(heads):
            self._combine(family, resolved, make)
        components = self._components()
        for sop in sorted({self._facts.sop[sha] for sha in resolved.heads}):
            resolved.current[sop] = self._current(sop, resolved.heads, components)
        self._clashes(resolved, components)
        return resolved

    # How versions were made -----------------------------------------------------------------------

    def _lineage(self, sha: Sha) -> Lineage:
        """Return how a version was made; walk up its parents without recursion, for chains may be long."""
        path: list[Sha] = []
        at = sha
        while at not in self._lineages:
            parent = self._edited_from(at)
            if parent is None or parent[0] in path or at in path:
                self._lineages[at] = self._own_lineage(at)
                break
            path.append(at)
            at = parent[0]
        for one in reversed(path):
            parent = self._edited_from(one)
            if one in self._lineages or parent is None:
                continue
            above = self._lineages[parent[0]]
            self._after.setdefault(parent[1], set()).update(above.edits)
            self._lineages[one] = Lineage(above.root, above.edits | {parent[1]})
        return self._lineages[sha]

    def _edited_from(self, sha: Sha) -> tuple[Sha, str] | None:
        """Return the version that one is an edit of, and the edit."""
        found = sorted(self._parents.get(sha, ()))
        if any(self._op(change) == "merge" for _, change in found):
            return None
        return next((one for one in found if self._is_edit(one[1])), None)

    def _own_lineage(self, sha: Sha) -> Lineage:
        """Return the lineage of a version that is no edit of another: a combination says what it is of."""
        for _, change in sorted(self._parents.get(sha, ())):
            held = self._facts.changes.get(change)
            if held is not None and held.op == "merge" and held.edit:
                told = json.loads(held.edit)
                if isinstance(told, dict) and {"root", "edits"} <= told.keys():
                    return Lineage(str(told["root"]), frozenset(map(str, told["edits"])))
        return Lineage(sha, frozenset())

    def _op(self, change: str) -> str:
        found = self._facts.changes.get(change)
        return "" if found is None else found.op

    def _edit(self, change: str) -> str:
        found = self._facts.changes.get(change)
        return "" if found is None else found.edit

    def _is_edit(self, change: str) -> bool:
        return changes_of(self._edit(change)) is not None

    # Combining ------------------------------------------------------------------------------------

    def _families(self, heads: Iterable[Sha]) -> Iterator[list[Sha]]:
        families: dict[Sha, list[Sha]] = {}
        for sha in sorted(heads):
            families.setdefault(self._lineages[sha].root, []).append(sha)
        return (family for _, family in sorted(families.items()) if len(family) > 1)

    def _combine(self, family: list[Sha], resolved: Resolved, make: Make) -> None:
        """Combine heads of one root, two by two, until those that are left are in conflict."""
        waiting = sorted(family, key=self._age)
        refused: set[tuple[Sha, Sha]] = set()
        while True:
            for first, second in combinations(waiting, 2):
                if (first, second) in refused:
                    continue
                found = self._combined(first, second, resolved, make)
                if found is not None:
                    break
                refused.add((first, second))
            else:
                return
            resolved.heads.difference_update({first, second})
            resolved.heads.add(found)
            waiting = sorted({one for one in waiting if one not in (first, second)} | {found}, key=self._age)

    def _combined(self, first: Sha, second: Sha, resolved: Resolved, make: Make) -> Sha | None:
        """Return the version that has the edits of both, which it may have to be made for; None in a conflict."""
        facts = self._facts
        one, other = self._lineages[first], self._lineages[second]
        if one.edits <= other.edits or other.edits <= one.edits or self._differences(first, second):
            return None
        edits = self._without_same(one.edits, other.edits)
        wanted = Lineage(one.root, edits)
        known = next((sha for sha, lineage in sorted(self._lineages.items()) if lineage == wanted), None)
        if known is not None and known not in resolved.heads:
            return None  # somebody undid the combination
        told = {"root": one.root, "edits": sorted(edits)}
        time_ns = max(facts.time_of(edit)[0] for edit in one.edits | other.edits)
        change = make_change(time_ns, "merge", "", "", told)
        if known is None:
            ordered = [changes_of(self._edit(edit)) for edit in self._in_order(edits)]
            result = make(one.root, [edit for edit in ordered if edit is not None])
            if isinstance(result, str):
                resolved.clashes.append(Clash("uncombined", tuple(self._by_age({first, second})), reason=result))
                return None
            known, sop = result
            facts.sop.setdefault(known, sop)
            facts.arrive(known, Came(time_ns, 0, change.id))
            self._lineages[known] = wanted
            if known not in self._members:
                self._members.append(known)
                resolved.made.append(known)
        facts.changes[change.id] = change
        for sha in {first, second} - {known}:
            facts.hide(sha, Hide(known, change.id))
            self._parents.setdefault(known, []).append((sha, change.id))
        return known

    def _without_same(self, one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
        """Return the edits of both; of two that do the same, and were made apart, the earlier."""
        dropped: set[str] = set()
        mine, theirs = self._sorted(one - other), self._sorted(other - one)
        for first in mine:
            same = next(
                (
                    second for second in theirs
                    if second not in dropped and effect_of(self._edit(first)) == effect_of(self._edit(second))
                ),
                None,
            )  # fmt: skip
            if same is not None:
                dropped.add(max(first, same, key=self._facts.time_of))
        return (one | other) - dropped

    def _sorted(self, edits: Iterable[str]) -> list[str]:
        return sorted(edits, key=self._facts.time_of)

    def _in_order(self, edits: frozenset[str]) -> list[str]:
        """Return edits in the order of time, but each after those that it was made upon."""
        left, ordered = self._sorted(edits), list[str]()
        while left:
            ready = next(
                (edit for edit in left if not self._after.get(edit, set()).intersection(left) - {edit}), left[0]
            )
            left.remove(ready)
            ordered.append(ready)
        return ordered

    def _differences(self, first: Sha, second: Sha) -> list[Differing]:
        """Return what the edits of two versions made different that were made apart; of UIDs a few."""
        one, other = self._lineages[first], self._lineages[second]
        mine, theirs = (
            tuple(self._edit(edit) for edit in self._in_order(edits))
            for edits in (one.edits - other.edits, other.edits - one.edits)
        )
        found = differing(mine, theirs)
        own = f"uid {self._facts.sop.get(one.root, '')}"
        uids = sorted((each for each in found if each[0].startswith("uid ")), key=lambda each: each[0] != own)
        return [*(each for each in found if not each[0].startswith("uid ")), *uids[:_TOLD]]

    # What is current, and what is in conflict -----------------------------------------------------

    def _age(self, sha: Sha) -> tuple[int, Sha]:
        """Return what orders versions by their last change: the later first, of two at one time the smaller hash."""
        backs = self._facts.shown.get(sha, ())
        times = [self._facts.time_of(back.change)[0] for back in backs]
        came = self._facts.came.get(sha)
        return (-max([0 if came is None else came.time_ns, *times]), sha)

    def _by_age(self, versions: Iterable[Sha]) -> list[Sha]:
        return sorted(versions, key=self._age)

    def _components(self) -> dict[Sha, tuple[int, int, Sha]]:
        """Return for each version when the first of those came that it was made of, or that were made of it."""
        joined: dict[Sha, set[Sha]] = {sha: {sha} for sha in self._members}
        for sha in self._members:
            for hide in lineage_hides(self._facts, sha):
                one, other = joined[sha], joined.get(hide.by)
                if other is not None and one is not other:
                    one |= other
                    joined.update(dict.fromkeys(other, one))
        firsts: dict[int, tuple[int, int, Sha]] = {}
        for held in joined.values():
            if id(held) not in firsts:
                came = ((self._facts.came[one], one) for one in held if one in self._facts.came)
                firsts[id(held)] = min(((at.time_ns, at.number, one) for at, one in came), default=(0, 0, ""))
        return {sha: firsts[id(held)] for sha, held in joined.items()}

    def _current(self, sop: str, heads: Iterable[Sha], components: dict[Sha, tuple[int, int, Sha]]) -> Sha:
        """Return the head of a SOP Instance UID that is current: the file that came first, its latest version."""
        return min(
            (sha for sha in heads if self._facts.sop[sha] == sop), key=lambda sha: (components[sha], *self._age(sha))
        )

    def _clashes(self, resolved: Resolved, components: dict[Sha, tuple[int, int, Sha]]) -> None:
        by_component: dict[tuple[int, int, Sha], list[Sha]] = {}
        for sha in self._by_age(resolved.heads):
            by_component.setdefault(components[sha], []).append(sha)
        told = {frozenset(clash.versions) for clash in resolved.clashes}
        for heads in by_component.values():
            for first, second in combinations(heads, 2):
                clash = self._clash(first, second)
                if clash is not None and frozenset(clash.versions) not in told:
                    resolved.clashes.append(clash)
        for sop, current in resolved.current.items():
            own = [heads for at, heads in sorted(by_component.items()) if at != components[current]]
            beside = [sha for heads in own for sha in heads if self._facts.sop[sha] == sop]
            if beside:
                resolved.clashes.append(Clash("files", (current, *beside)))
        for sha in self._members:
            kept = self._kept(sha, resolved.heads)
            if kept is not None:
                resolved.clashes.append(Clash("deleted", (kept, sha)))

    def _clash(self, first: Sha, second: Sha) -> Clash | None:
        """Return in what two heads that were made of one another's past disagree; the later one is first."""
        one, other = self._lineages[first], self._lineages[second]
        if one.root != other.root:
            return None if self._leads(first, second) or self._leads(second, first) else _replaced(first, second)
        if one.edits <= other.edits or other.edits <= one.edits:
            return None  # an earlier version that somebody brought back
        found = self._differences(first, second)
        return Clash("edited", (first, second), tuple(found)) if found else None

    def _leads(self, sha: Sha, to: Sha) -> bool:
        return to in self._made_of(sha)

    def _made_of(self, sha: Sha) -> set[Sha]:
        """Return all that was made of a version."""
        found: set[Sha] = set()
        waiting = [sha]
        while waiting:
            for hide in lineage_hides(self._facts, waiting.pop()):
                if hide.by not in found:
                    found.add(hide.by)
                    waiting.append(hide.by)
        return found

    def _kept(self, sha: Sha, heads: set[Sha]) -> Sha | None:
        """Return the head that was made of a version that was deleted elsewhere."""
        hides = self._facts.hides(sha)
        if not any(hide.by == DELETED for hide in hides) or all(hide.by == DELETED for hide in hides):
            return None
        return min(self._made_of(sha) & heads, key=self._age, default=None)


def _replaced(first: Sha, second: Sha) -> Clash:
    return Clash("replaced", (first, second))
