"""Facts are told and taken: what a commit says of them is all of them, and anything else is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.archive.merging_facts import Attached, Back, Came, Facts, Hide, Told, make_change, take

SHAS = [f"{number:02x}" * 32 for number in range(4)]
CHANGES = [
    make_change(number, "edit", "a@b", "why", {"set": {}, "at": number} if number else None) for number in (0, 1, 2)
]
_ids = st.sampled_from([one.id for one in CHANGES])
_hides = st.builds(Hide, st.sampled_from(["", *SHAS]), _ids)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    found = Facts(changes={one.id: one for one in CHANGES})
    for sha in draw(st.lists(st.sampled_from(SHAS), unique=True)):
        change = draw(st.sampled_from(CHANGES))
        found.sop[sha] = "1.2"
        found.arrive(sha, Came(change.time_ns, draw(st.integers(0, 3)), change.id))
        for hide in draw(st.lists(_hides, max_size=3)):
            found.hide(sha, hide)
        for undone in draw(st.lists(st.frozensets(_hides, max_size=2), max_size=2)):
            found.show(sha, Back(draw(_ids), undone))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2)):
        found.attached.add(Attached(change.time_ns, SHAS[0], "ab" * 16, "nbss", "n.json", 3, change.id))
    return found


def joined(*several: Facts) -> Facts:
    found = Facts()
    for one in several:
        found.join(one)
    return found


@given(facts(), facts(), facts())
def test_joining_is_a_union(one: Facts, two: Facts, three: Facts) -> None:
    assert joined(one, two, three) == joined(three, joined(two, one)) == joined(one, two, three, two)


@given(facts(), facts())
def test_what_is_told_is_what_was_lacking(known: Facts, other: Facts) -> None:
    everything = joined(known, other)
    told = Told()
    for sha in SHAS:
        told.lacking(sha, everything, known)
    for one in everything.attached - known.attached:
        told.attach(one)
    said = json.loads(json.dumps(told.to_json("id", everything, Facts())))
    found = joined(known)
    take(found, said)
    found.sop = everything.sop
    assert found == everything


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("came", ["zz" * 32, 0, "id"]),
        ("came", [SHAS[0], "0", "id"]),
        ("hidden", [SHAS[0], "../x", "id"]),
        ("hidden", [SHAS[0][:-1], "", "id"]),
        ("hidden", [SHAS[0], 0, "id"]),
        ("shown", [SHAS[0], "id", [["", 7]]]),
        ("attached", ["ab", "nbss", "n", SHAS[0], 1, "id"]),
        ("changes", ["id", 0, "op", "by", None, None]),
    ],
)
def test_what_is_none_is_refused(key: str, row: list[object]) -> None:
    said: dict[str, object] = {"changes": [], "came": [], "hidden": [], "shown": [], "attached": []}
    take(Facts(), said)
    with pytest.raises((ValueError, TypeError, KeyError)):
        take(Facts(), said | {key: [row]})
    with pytest.raises((ValueError, TypeError, KeyError)):
        take(Facts(), said | {key: {}})
