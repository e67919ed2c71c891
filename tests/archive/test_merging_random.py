"""Archives of one ancestor are changed at random, apart, and joined in any order: all show the same in the end."""

from __future__ import annotations

import itertools
import os
import random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive import layouts
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.merging import merge
from dicomfs.errors import Refused
from tests.archive.importing import add, contents
from tests.archive.merging import State, both, copied, edit, state
from tests.archive.versions import change, holds
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEEDS = int(os.environ.get("DICOMFS_MERGES", "6"))
_TAGS = (0x00100010, 0x00080090, 0x0008103E)


class Rows(NamedTuple):
    """The instances of an archive."""

    shown: list[tuple[int, str]]
    hidden: list[int]


def rows(archive: Path) -> Rows:
    shown: list[tuple[int, str]] = []
    hidden: list[int] = []
    with Archive.open(archive) as opened, opened.view() as view:
        for ino in view.inodes():
            node = view.node(ino)
            if node is None or node.is_directory:
                continue
            one = view.instance(ino)
            if not node.parent:
                hidden.append(ino)
            elif one.current:
                shown.append((ino, str(one.attributes["SOPInstanceUID"])))
    return Rows(shown, hidden)


def do_edit(archive: Path, rng: random.Random) -> None:
    uids = [uid for _, uid in rows(archive).shown]
    chosen = rng.sample(uids, min(len(uids), rng.randint(1, 3)))
    tags = rng.sample(_TAGS, rng.randint(1, 2))
    if rng.random() < 0.2 and chosen:
        edit(archive, chosen[:1], uids={chosen[0]: uid("moved", chosen[0], rng.randint(1, 2))})
    elif rng.random() < 0.3:
        edit(archive, chosen, empty=tuple(tags))
    else:
        edit(archive, chosen, set={tag: (rng.choice(("Alpha", "Beta")),) for tag in tags})


def do_delete(archive: Path, rng: random.Random) -> None:
    held = rows(archive).shown
    chosen = rng.sample(held, min(len(held), rng.randint(1, 2)))
    change(archive, "delete", lambda changing: [changing.delete(ino) for ino, _ in chosen], "not wanted")


def do_restore(archive: Path, rng: random.Random) -> None:
    hidden = rows(archive).hidden
    if hidden:
        change(archive, "restore", lambda changing: changing.restore(rng.choice(hidden)))


def do_import(archive: Path, rng: random.Random) -> None:
    number = rng.randint(1, 8)
    seed = rng.choice((None, "x", "y"))
    add(archive, make_instance(number=number, seed=seed), on_conflict=rng.choice(("keep", "replace")))


_STEPS: tuple[Callable[[Path, random.Random], None], ...] = (*[do_edit] * 4, do_delete, do_restore, do_import)


def ancestors(tmp_path: Path, rng: random.Random, count: int) -> list[Path]:
    first = tmp_path / "a"
    Archive.init(first)
    layouts.switch_on(first, "icore", built_in()["icore"])
    add(first, *make_series(3), make_instance(number=7, seed="x"), make_instance(number=7, seed="y"))
    for _ in range(rng.randint(0, 2)):
        rng.choice(_STEPS)(first, rng)
    return [first, *(copied(first, name) for name in "bcd"[: count - 1])]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_either_order_shows_the_same(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    one, other = ancestors(tmp_path, rng, 2)
    for round_ in range(2):
        for archive in (one, other):
            for _ in range(rng.randint(2, 5)):
                rng.choice(_STEPS)(archive, rng)
        first, second, report, opposite = both(one, other)
        found = state(first)
        assert found == state(second), round_
        known = {(c.kind, frozenset(version.sha256 for version in c.versions)) for c in report.conflicts}
        assert known == {(c.kind, frozenset(version.sha256 for version in c.versions)) for c in opposite.conflicts}
        assert found.files >= state(one).files | state(other).files
        assert merge(first, second).commits == merge(second, first).commits == 0
        assert state(first) == state(second) == found
        assert set(contents(first).values()) == set(contents(second).values())
        holds(first)
        if round_:
            holds(second)
        one, other = first, second


@pytest.mark.parametrize("seed", range(100, 100 + SEEDS))
def test_three_end_the_same(tmp_path: Path, seed: int) -> None:
    """Whoever tells whom: in the end all show the same."""
    rng = random.Random(seed)
    archives = ancestors(tmp_path, rng, 3)
    for archive in archives:
        for _ in range(rng.randint(2, 5)):
            rng.choice(_STEPS)(archive, rng)
    pairs = list(itertools.permutations(archives, 2))
    rng.shuffle(pairs)
    for one, other in pairs:
        merge(one, other)
        if rng.random() < 0.3:
            rng.choice(_STEPS)(one, rng)
    for _ in range(2):
        for one, other in itertools.permutations(archives, 2):
            merge(one, other)
    found: list[State] = [state(archive) for archive in archives]
    assert found[0] == found[1] == found[2]
    for one, other in itertools.permutations(archives, 2):
        assert merge(one, other).commits == 0
    for archive in archives:
        holds(archive)


def test_shown_ones_are_refused_to_come_back(tmp_path: Path) -> None:
    (one,) = ancestors(tmp_path, random.Random(0), 1)
    ino = rows(one).shown[0][0]
    with pytest.raises(Refused):
        change(one, "restore", lambda changing: changing.restore(ino))
