"""Deduplicated lists tell history: what is in whose place, what was deleted, and which list was before."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from dicomfs.archive import deduplicated, documents
from dicomfs.archive.archive import Archive
from dicomfs.archive.gc import collect
from dicomfs.archive.rebuild import reindex
from dicomfs.vfs.node import waited
from dicomfs.vfs.tree import Tree
from tests.archive import documents_of
from tests.archive.importing import add, tree
from tests.archive.versions import change, delete, holds, restore
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from pathlib import Path

STUDY = f"studies/{uid('DFS-1', 1)}"
SOPS = [uid("DFS-1", 1, 1, number) for number in range(1, 9)]


class Told(NamedTuple):
    """A study's list."""

    info: dict[str, Any]
    objects: dict[str, dict[str, Any]]
    instances: dict[str, dict[str, Any]]
    """By SOP Instance UID."""

    @property
    def hash(self) -> str:
        return values(self.info, "11")[0]

    def own(self, sop: str) -> str:
        return values(self.instances[sop], "11")[0]

    def of(self, sop: str, kind: str) -> dict[str, Any]:
        """Return the object of a type to which an instance refers."""
        refs = values(self.instances[sop], "10")
        return next(self.objects[ref] for ref in refs if values(self.objects[ref], "12") == [kind])


def values(held: dict[str, Any], element: str) -> list[str]:
    return list(held.get(f"000910{element}", {}).get("Value", []))


def told(items: list[dict[str, Any]]) -> Told:
    info, *others = items
    kinds = {id(one): values(one, "12")[0] for one in others}
    return Told(
        info,
        {values(one, "11")[0]: one for one in others if kinds[id(one)] != "instance"},
        {one["00080018"]["Value"][0]: one for one in others if kinds[id(one)] == "instance"},
    )


class Lists:
    """The lists of an archive's only study; each look is at documents made on, and at others made at once."""

    def __init__(self, archive: Path, directory: Path) -> None:
        self._archive = archive
        self._directory = directory
        self._looks = 0

    def now(self, study: str = STUDY) -> Told:
        self._looks += 1
        grown = documents_of.make(self._archive, self._directory / "grown")
        fresh = documents_of.make(self._archive, self._directory / f"fresh{self._looks}")
        names = [name for name in grown if not name.endswith(".raw") and "/bulkdata/" not in name]
        assert fresh.keys() == grown.keys()
        for name in names:
            assert documents_of.parsed(grown[name]) == documents_of.parsed(fresh[name]), name
        found = told(documents_of.parsed(grown[f"{study}/deduplicated.gz"]))
        assert f"{study}/deduplicated/{found.hash}.gz" in grown
        return found

    def before(self, name: str, study: str = STUDY) -> Told | None:
        """Return a list by its name, as a drive gives it."""
        with Archive.open(self._archive) as archive:
            shown = Tree(archive, ["dicomweb"])
            try:
                ino = 1
                for part in ("dicomweb", *study.split("/"), "deduplicated", f"{name}.gz"):
                    found = waited(lambda ino=ino, part=part: shown.lookup(ino, part.encode()))  # type: ignore[misc]
                    if found is None:
                        return None
                    above, ino = ino, found.ino
                file = shown.open(ino)
                data = bytes(file.read(0, file.size))
                file.close()
                assert found.size == len(data)
                assert shown.parent(ino) == above
                return told(documents_of.parsed(data))
            finally:
                shown.close()


@pytest.fixture
def lists(archive_path: Path, tmp_path: Path) -> Lists:
    return Lists(archive_path, tmp_path)


def bare(held: dict[str, Any]) -> dict[str, Any]:
    """Return an object without its history, as it reads in the study's directory."""
    left = {tag: element for tag, element in held.items() if tag not in ("00091013", "00091014", "00091015")}
    found: dict[str, Any] = json.loads(deduplicated.from_study(json.dumps(left, separators=(",", ":"))))
    return found


def assert_was(lists: Lists, before: Told, study: str = STUDY) -> None:
    """A superseded list is there, and is what it was."""
    found = lists.before(before.hash, study)
    assert found is not None
    assert found.hash == before.hash
    assert sorted(values(found.info, "10")) == sorted(values(before.info, "10"))
    assert {sop: bare(one) for sop, one in found.instances.items()} == {
        sop: bare(one) for sop, one in before.instances.items()
    }
    assert {ref: bare(one) for ref, one in found.objects.items()} == {
        ref: bare(one) for ref, one in before.objects.items()
    }


def test_a_list_tells_what_was_done(archive_path: Path, lists: Lists) -> None:
    add(archive_path, *make_series(3), make_instance(series=2))
    first = lists.now()
    assert not any(values(first.info, one) for one in ("13", "15"))
    assert_hashes_hold(first)

    add(archive_path, make_instance(number=2, patient_name="Roe^Jane"), on_conflict="replace")
    second = lists.now()
    assert_hashes_hold(second)
    assert (values(second.info, "15"), values(second.info, "13")) == ([first.hash], [])
    assert values(second.instances[SOPS[1]], "14") == [first.own(SOPS[1])]
    patient = second.of(SOPS[1], "patient")
    assert values(patient, "14") == values(first.of(SOPS[1], "patient"), "11")
    assert patient["00100010"]["Value"] == [{"Alphabetic": "Roe^Jane"}]
    # What is the same took nothing's place.
    untouched = [second.instances[SOPS[0]], *(second.of(SOPS[1], kind) for kind in ("study", "series", "image"))]
    assert not any(values(one, "14") for one in (*untouched, second.of(SOPS[0], "patient")))
    assert_was(lists, first)

    # What is only added supersedes nothing.
    add(archive_path, make_instance(number=4))
    third = lists.now()
    assert values(third.info, "15") == [first.hash]
    assert_was(lists, first)

    path = next(path for path in tree(archive_path) if path.endswith("00001.dcm"))
    gone = tree(archive_path)[path].ino
    delete(archive_path, path)
    fourth = lists.now()
    assert (values(fourth.info, "15"), values(fourth.info, "13")) == ([third.hash], [third.own(SOPS[0])])
    assert values(fourth.instances[SOPS[1]], "14") == [first.own(SOPS[1])]
    assert_was(lists, third)
    # It was superseded today.
    assert_was(lists, first)
    assert lists.before(second.hash) is None
    assert lists.before("0" * 64) is None

    restore(archive_path, gone)
    fifth = lists.now()
    assert (values(fifth.info, "15"), values(fifth.info, "13")) == ([fourth.hash], [])
    assert fifth.hash == third.hash
    assert_was(lists, fourth)
    holds(archive_path)
    assert reindex(archive_path).complete
    assert lists.now() == fifth


def assert_hashes_hold(found: Told) -> None:
    """What tells history is in no hash."""
    for one in (found.info, *found.instances.values(), *found.objects.values()):
        left = {tag: element for tag, element in bare(one).items() if tag not in ("00091011", "00091012")}
        if values(one, "12")[0] in ("patient", "study", "series", "image"):
            del left["00090010"]
        texts = {
            tag: deduplicated.from_study(json.dumps(element, ensure_ascii=False, separators=(",", ":")))
            for tag, element in left.items()
        }
        assert values(one, "11") == [deduplicated.hashed(texts)]


def test_versions_that_come_back(archive_path: Path, lists: Lists) -> None:
    add(archive_path, *make_series(2))
    first = lists.now()
    ((_, old),) = [(path, one.ino) for path, one in tree(archive_path).items() if path.endswith("00002.dcm")]
    add(archive_path, make_instance(number=2, seed="another", attributes={"ImageComments": "b"}), on_conflict="replace")
    second = lists.now()
    restore(archive_path, old)
    third = lists.now()
    assert third.hash == first.hash
    assert values(third.info, "15") == [second.hash]
    assert values(third.instances[SOPS[1]], "14") == [second.own(SOPS[1])]
    assert_was(lists, second)
    add(archive_path, make_instance(number=2, seed="3rd", attributes={"ImageComments": "c"}), on_conflict="replace")
    fourth = lists.now()
    assert values(fourth.instances[SOPS[1]], "14") == [first.own(SOPS[1])]
    assert values(fourth.info, "15") == [first.hash]


def test_what_moves_to_another_study_is_gone_from_its_own(archive_path: Path, lists: Lists) -> None:
    add(archive_path, *make_series(3))
    first = lists.now()
    moved = make_instance(study=2, number=1, attributes={"SOPInstanceUID": SOPS[0]})
    add(archive_path, moved, on_conflict="replace")
    here, there = lists.now(), lists.now(f"studies/{uid('DFS-1', 2)}")
    assert (values(here.info, "13"), values(here.info, "15")) == ([first.own(SOPS[0])], [first.hash])
    assert (values(there.info, "13"), values(there.info, "15")) == ([], [])
    assert values(there.instances[SOPS[0]], "14") == [first.own(SOPS[0])]
    assert values(there.of(SOPS[0], "study"), "14") == values(first.of(SOPS[0], "study"), "11")
    assert_was(lists, first)


def test_each_instance_has_its_history_beside_it(archive_path: Path, lists: Lists) -> None:
    add(archive_path, *make_series(2))
    first = lists.now()
    add(archive_path, make_instance(number=2, patient_name="Roe^Jane"), on_conflict="replace")
    grown = documents_of.make(archive_path, archive_path / "cache")
    alone = told(documents_of.parsed(grown[f"{STUDY}/deduplicated/instances/{SOPS[1]}.gz"]))
    assert values(alone.instances[SOPS[1]], "14") == [first.own(SOPS[1])]
    assert values(alone.of(SOPS[1], "patient"), "14") == values(first.of(SOPS[1], "patient"), "11")


def test_a_duplicate_that_comes_forward_was_not_in_the_list_before(archive_path: Path, lists: Lists) -> None:
    add(archive_path, make_instance(number=1), make_instance(number=2), make_instance(number=1, seed="other"))
    first = lists.now()
    assert len(first.instances) == 2
    with Archive.open(archive_path) as opened, opened.view() as view:
        current = next(one.ino for series in view.series_of(_study(view)) for one in view.shown_instances(series.key)
                       if one.attributes["SOPInstanceUID"] == SOPS[0])  # fmt: skip
    change(archive_path, "delete", lambda changing: changing.delete(current))
    second = lists.now()
    assert len(second.instances) == 2
    assert values(second.info, "15") == [first.hash]
    assert_was(lists, first)


def _study(view: Any) -> int:
    return next(int(study.key) for study in view.studies())


def test_a_study_of_which_nothing_is_left_begins_anew(archive_path: Path, lists: Lists) -> None:
    add(archive_path, *make_series(2))
    first = lists.now()
    delete(archive_path, *tree(archive_path))
    assert f"{STUDY}/deduplicated.gz" not in documents_of.make(archive_path, archive_path / "cache")
    add(archive_path, make_instance(number=5))
    second = lists.now()
    assert values(second.info, "15") == [first.hash]
    assert sorted(values(second.info, "13")) == sorted(first.own(sop) for sop in SOPS[:2])
    assert_was(lists, first)


def test_what_was_forgotten_is_told_no_more(archive_path: Path, lists: Lists) -> None:
    add(archive_path, *make_series(3))
    first = lists.now()
    add(archive_path, make_instance(number=2, patient_name="Roe^Jane"), on_conflict="replace")
    second = lists.now()
    assert values(second.info, "15") == [first.hash]
    cache = archive_path / "cache"
    documents_of.make(archive_path, cache)
    with Archive.open(archive_path) as archive:
        with archive.view() as view:
            (study,) = (study.key for study in view.studies())
        documents.make_superseded(archive, cache, (study,))
    kept = set(cache.rglob("*-*"))
    assert {path.name.partition("-")[0] for path in kept} == {"series", "study", "studies", "superseded"}

    assert collect(archive_path, forget_before_ns=time.time_ns()).versions == 1
    # What told of it is gone at once.
    assert not [path for path in kept if path.exists()]
    third = lists.now()
    assert third.hash == second.hash
    assert third.info == {tag: one for tag, one in second.info.items() if tag != "00091015"}
    assert not any(values(one, "14") for one in (*third.instances.values(), *third.objects.values()))
    assert lists.before(first.hash) is None
    # What is done from now on is told again, and what forgets nothing changes nothing.
    delete(archive_path, next(path for path in tree(archive_path) if path.endswith("00003.dcm")))
    fourth = lists.now()
    assert (values(fourth.info, "15"), values(fourth.info, "13")) == ([third.hash], [third.own(SOPS[2])])
    assert_was(lists, third)
    collect(archive_path)
    assert lists.now().info == fourth.info
    holds(archive_path)


def test_lists_of_another_study_forget_too(archive_path: Path, lists: Lists) -> None:
    add(archive_path, *make_series(2))
    before = lists.now()
    other = uid("other")
    version = make_instance(number=2, attributes={"StudyInstanceUID": other})
    add(archive_path, version, on_conflict="replace")
    place = f"studies/{other}"
    told_there = lists.now(place)
    assert values(told_there.instances[SOPS[1]], "14") == [before.own(SOPS[1])]
    assert collect(archive_path, forget_before_ns=time.time_ns()).versions == 1
    assert values(lists.now(place).instances[SOPS[1]], "14") == []
    assert values(lists.now().info, "13") == []
