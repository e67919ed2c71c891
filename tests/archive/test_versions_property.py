"""Random imports, replacements, deletes, restores, layouts and projects against a model that knows no tables."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import deleting, layouts
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.history import Asked, lines, periods
from dicomfs.archive.lacking import Owners
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.query import Level, Query, matches
from dicomfs.archive.rebuild import reindex
from dicomfs.archive.selection import Selection
from dicomfs.dicom.describe import describe
from dicomfs.errors import DicomfsError
from tests.archive import documents_of
from tests.archive.importing import add, children, sha256, walk
from tests.archive.project_scenes import create
from tests.archive.versions import holds
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicomfs.archive.catalog import View

PATIENTS, STUDIES, SERIES, NUMBERS, SEEDS = 2, 2, 2, 2, 3
LAYOUTS = ("archive", "icore", "omidb")


@dataclass
class Version:
    """A file that came in, and what became of it."""

    sha256: str
    sop: str
    series: str
    study: str
    said: dict[str, str | int]
    ino: int = 0
    shown: bool = True
    deleted: int = 0
    """The commit by which, if it was; 0 for one that was replaced."""
    came: int = 0
    """The step in which it was shown last."""


@dataclass
class World:
    """An archive, and what is known of it without looking."""

    path: Path
    random: random.Random
    versions: list[Version] = field(default_factory=list)
    frozen: dict[int, set[int]] = field(default_factory=dict)
    """Of projects that are finished, by root: the instances that they show."""
    taken: dict[int, dict[int, set[int]]] = field(default_factory=dict)
    """By what was deleted: what frozen projects lost with it."""
    live: list[int] = field(default_factory=list)
    derived: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    places: dict[tuple[str, int], tuple[int, bytes]] = field(default_factory=dict)
    """Directory and name by tree and instance, from when it was shown last."""
    replaced: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)
    """Instances that were never replaced, whose places are their own for ever."""
    on: set[str] = field(default_factory=set)
    steps: int = 0

    # What happens ---------------------------------------------------------------------------------

    def file(self) -> tuple[bytes, Version]:
        """Return one of a few files; several have the same SOP Instance UID."""
        pick = self.random.randrange
        patient, study, series, number = pick(PATIENTS), pick(STUDIES), pick(SERIES), pick(NUMBERS) + 1
        seed = pick(SEEDS)
        more = {"SeriesDescription": f"Seed {seed // 2}"} | ({"PatientID": "P9"} if pick(8) == 0 else {})
        content = make_instance(
            patient=f"P{patient}", patient_name=f"Doe^{'Jane' if seed < 2 else 'June'}", study=study, series=series,
            number=number, rows=8, columns=8, seed=f"{patient}{study}{series}{number}{seed}",
            modality=("CT", "MR")[series], attributes=more,
        )  # fmt: skip
        who = f"P{patient}"
        said = describe(content).attributes
        assert said is not None
        found = Version(
            sha256(content), uid(who, study, series, number), uid(who, study, series), uid(who, study),
            said.patient | said.study | said.series | said.instance,
        )  # fmt: skip
        return content, found

    def shown_of(self, sop: str) -> list[Version]:
        return [one for one in self.versions if one.sop == sop and one.shown]

    def import_(self) -> None:
        how = self.random.choice(["keep", "replace", "replace"])
        again = self.random.random() < 0.4
        files = [self.file() for _ in range(self.random.randint(1, 6))]
        done = add(self.path, *(content for content, _ in files), on_conflict=how, restore_deleted=again)
        for (_, new), outcome in zip(files, done.outcomes, strict=True):
            mine = [one for one in self.versions if one.sop == new.sop]
            shown = [one for one in mine if one.shown]
            if not shown and any(one.deleted for one in mine) and not again:
                assert outcome is Outcome.DELETED
            elif outcome is Outcome.DELETED:
                raise AssertionError("refused what was not deleted")
        self.look(files)

    def look(self, files: list[tuple[bytes, Version]]) -> None:
        """Take over from the archive what an import did: what is shown must be one of these files."""
        with Archive.open(self.path) as opened, opened.view() as view:
            now = {file.ino: file.sha256 for file in walk(view).values()}
            seq = view.seq
            known = {one.ino for one in self.versions}
            passed = {
                ino: view.instance_inode(ino).sha256.hex()
                for _, new in files for ino in view.instances_where_uid(new.sop) if ino not in now and ino not in known
            }  # fmt: skip
        for ino, digest in passed.items():  # one that another of the same import replaced
            (new,) = {one.sha256: one for _, one in files if one.sha256 == digest}.values()
            self.versions.append(replace(new, ino=ino, shown=False))
        by_ino = {one.ino: one for one in self.versions}
        brought = {new.sha256: new for _, new in files}
        for ino, digest in now.items():
            if ino not in by_ino:
                self.versions.append(replace(brought[digest], ino=ino, came=seq))
            elif not by_ino[ino].shown:
                assert digest in brought
                self.show(by_ino[ino], seq)
        for one in self.versions:
            if one.shown and one.ino not in now:
                assert one.sop in {new.sop for new in brought.values()}
                one.shown, one.deleted = False, 0

    def select(self, among: list[Version]) -> tuple[Selection, list[Version]]:
        one = self.random.choice(among)
        kind = self.random.randrange(3)
        if kind == 0:
            return Selection(studies=(one.study,)), [v for v in self.versions if v.study == one.study]
        if kind == 1:
            return Selection(series=(one.series,)), [v for v in self.versions if v.series == one.series]
        return Selection(instances=(one.sop,)), [v for v in self.versions if v.sop == one.sop]

    def delete(self) -> None:
        shown = [one for one in self.versions if one.shown]
        if not shown:
            return
        selection, named = self.select(shown)
        done = deleting.delete(self.path, selection, "a test")
        gone = [one for one in named if one.shown]
        assert done.instances == len(gone)
        for one in sorted(gone, key=lambda one: one.ino):
            self.hide(one, done.seq)

    def restore(self) -> None:
        deleted = [one for one in self.versions if one.deleted and not one.shown and not self.shown_of(one.sop)]
        if not deleted:
            return
        selection, named = self.select(deleted)
        done = deleting.restore(self.path, selection)
        last = {
            one.sop: max(other.deleted for other in self.versions if other.sop == one.sop and not other.shown)
            for one in deleted
        }
        back = [one for one in named if one in deleted and one.deleted == last[one.sop]]
        assert done.instances == len(back)
        self.back(back, done.seq)

    def back(self, back: list[Version], seq: int) -> None:
        for one in back:
            self.show(one, seq)

    def hide(self, one: Version, seq: int) -> None:
        """Delete: frozen projects lose it, and earlier versions of it that they went on showing."""
        one.shown, one.deleted = False, seq
        past = {other.ino for other in self.versions if other.sop == one.sop and not other.shown}
        self.taken[one.ino] = {root: shown & past for root, shown in self.frozen.items()}
        for root, taken in self.taken[one.ino].items():
            self.frozen[root] -= taken

    def show(self, one: Version, seq: int) -> None:
        for root, taken in self.taken.pop(one.ino, {}).items() if one.deleted else ():
            self.frozen[root] |= taken
        one.shown, one.deleted, one.came = True, 0, seq

    def version(self) -> None:
        past = [one for one in self.versions if not one.shown]
        if not past:
            return
        one = self.random.choice(past)
        mine = sorted(other.ino for other in self.versions if other.sop == one.sop)
        same = [other for other in self.versions if other.sha256 == one.sha256]
        number = str(mine.index(one.ino) + 1)
        version = number if len(same) > 1 or self.random.random() < 0.5 else one.sha256[:12]
        deleting.restore(self.path, Selection(instances=(one.sop,)), version=version)
        self.look([(b"", one)])
        assert one.shown

    def undo(self) -> None:
        with Archive.open(self.path) as opened, opened.view() as view:
            events = [event for event in view.events() if {"deleted", "replaced"} & event.counts.keys()]
        if not events:
            return
        event = self.random.choice(events)
        try:
            done = deleting.undo(self.path, event.seq)
        except DicomfsError as error:
            raise AssertionError(f"{event}: {error}") from error
        assert done.instances + len(done.left) == event.counts.get("deleted", 0) + event.counts.get("replaced", 0)
        with Archive.open(self.path) as opened, opened.view() as view:
            now = {file.ino for file in walk(view).values()}
        for one in self.versions:
            if one.shown and one.ino not in now:
                one.shown = False
            elif one.ino in now and not one.shown:
                self.show(one, done.seq)

    def layout(self) -> None:
        name = self.random.choice(LAYOUTS)
        if name in self.on:
            layouts.switch_off(self.path, name)
            self.on.discard(name)
        else:
            layouts.switch_on(self.path, name, built_in()[name])
            self.on.add(name)

    def project(self) -> None:
        if len(self.frozen) + len(self.live) >= 4 or not any(one.shown for one in self.versions):
            return
        live, deid = self.random.random() < 0.5, self.random.choice(["", "basic"])
        done = create(self.path, f"p{self.steps}", where=(("PatientID", "P0"),), live=live, deid=deid)
        root = done.state.root
        if live:
            self.live.append(root)
        else:
            self.frozen[root] = {one.ino for one in self.of_patient() if one.shown}

    def of_patient(self) -> list[Version]:
        return [one for one in self.versions if one.said["PatientID"] == "P0"]

    def index(self) -> None:
        assert reindex(self.path).complete

    # What must be so ------------------------------------------------------------------------------

    def check(self) -> None:
        replaced = {one.ino for one in self.versions if not one.shown and not one.deleted}
        self.kept = {one.ino for one in self.versions} - (self.replaced | replaced)
        self.replaced |= replaced
        shown = {one.ino: one.sha256 for one in self.versions if one.shown}
        with Archive.open(self.path) as opened:
            with opened.view() as view:
                roots = {"patients": 2} | {state.name: state.root for state in view.layouts() if state.on}
                assert set(roots) == {"patients", *self.on}
                for name, root in roots.items():
                    files = walk(view, root)
                    assert {file.ino: file.sha256 for file in files.values()} == shown, name
                    assert len(files) == len(shown)
                self.names(view, roots)
                self.sums(opened)
                self.projects(opened)
            assert {match.instance.ino for match in matches(opened, Query(Level.INSTANCE)) if match.instance} == set(
                shown
            )
            told = list(lines(opened, Asked(every=True)))
            assert [line.event.seq for line in told] == list(range(1, len(told) + 1))
            for one in self.random.sample(self.versions, min(2, len(self.versions))):
                last = {period.ino: period for period in periods(opened, one.sop)}
                mine = {other.ino: other for other in self.versions if other.sop == one.sop}
                assert last.keys() == mine.keys()
                for ino, other in mine.items():
                    state = "shown" if other.shown else "deleted" if other.deleted else "replaced"
                    assert last[ino].state == state
                    assert last[ino].until == (other.deleted or last[ino].until)

    def names(self, view: View, roots: dict[str, int]) -> None:
        """What is shown again has the name that it had, unless that was free in between."""
        for tree, root in roots.items():
            for ino, place in _places(view, root):
                before = self.places.get((tree, ino))
                if before is not None and ino in self.kept:
                    assert place == before, tree
                self.places[tree, ino] = place

    def sums(self, opened: Archive) -> None:
        shown = [one for one in self.versions if one.shown]
        with opened.view() as view:
            totals = view.totals()
            assert totals.instances - totals.earlier == len(shown)
            assert totals.studies == len({one.study for one in shown})
            assert totals.series == len({one.series for one in shown})
            patients = [patient.key for patient in view.patients()]
            assert totals.patients == len(patients)
            for study in view.studies():
                said = str(study.attributes["StudyInstanceUID"])
                mine = [one for one in shown if one.study == said]
                assert (study.instances, study.series) == (len(mine), len({one.series for one in mine}))
                assert view.shown(study.key) == len({one.sop for one in mine})
                for series in view.series_of(study.key):
                    text = str(series.attributes["SeriesInstanceUID"])
                    uids = {one.sop for one in mine if one.series == text}
                    found = [str(one.attributes["SOPInstanceUID"]) for one in view.shown_instances(series.key)]
                    assert sorted(found) == sorted(uids)
                assert set(study.modalities) >= {str(one.said["Modality"]) for one in mine}
            owners = {(one.study, one.said["PatientID"]) for one in shown}
            assert owners <= {
                (str(study.attributes["StudyInstanceUID"]), patient.attributes["PatientID"])
                for patient in view.patients()
                for study in view.studies_of(patient.key)
            }
            for one in shown:
                assert self.told(view, one.ino) == one.said

    def told(self, view: View, ino: int) -> dict[str, str | int]:
        """Return what the catalog says of an instance."""
        instance = view.instance(ino)
        series = view.series(instance.series)
        study = view.study(series.study)
        patient = Owners(view, study).of(view, view.instance_inode(ino).parent)
        said = patient | study.attributes | series.attributes | instance.attributes
        return {key: value for key, value in said.items() if value != ""}

    def projects(self, opened: Archive) -> None:
        shown = {one.ino for one in self.versions if one.shown}
        mine = {one.ino for one in self.of_patient()}
        with opened.view() as view:
            for state in view.projects():
                members = {member.source: member for member in view.members(state.root)}
                files = list(_files(view, state.root))
                assert sorted(files) == sorted(member.shown for member in members.values())
                if state.definition.live:
                    assert members.keys() == shown & mine
                else:
                    assert members.keys() == self.frozen[state.root]
                if state.definition.deid:
                    for source, member in members.items():
                        digest = view.file_inode(member.shown).sha256.hex()
                        assert self.derived.setdefault((state.root, member.shown), (source, digest)) == (source, digest)

    def documents(self, cache: Path) -> None:
        """What QIDO answers counts what is shown."""
        shown = [one for one in self.versions if one.shown]
        cache.mkdir(exist_ok=True)
        found = documents_of.make(self.path, cache)
        (index,) = (documents_of.parsed(text) for name, text in found.items() if name == "studies/index.json.gz")
        for study in index:
            mine = [one for one in shown if one.study == documents_of.value(study, "0020000D")]
            assert documents_of.value(study, "00201208") == len({one.sop for one in mine})
            assert documents_of.value(study, "00201206") == len({one.series for one in mine})
        assert len(index) == len({one.study for one in shown})
        instances = [
            name for name in found if name.endswith("metadata.gz") and "/instances/" in name and "dedup" not in name
        ]
        assert len(instances) == len({(one.series, one.sop) for one in shown})


def _places(view: View, root: int) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Yield each file below a directory, with the directory that it is in and its name there."""
    for entry in children(view, root):
        if entry.is_directory:
            yield from _places(view, entry.ino)
        else:
            yield entry.ino, (root, entry.name)


def _files(view: View, root: int) -> Iterator[int]:
    for entry in children(view, root):
        if entry.is_directory:
            yield from _files(view, entry.ino)
        else:
            yield entry.ino


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_only_what_should_is_shown(archive_path: Path, tmp_path: Path, seed: int) -> None:
    world = World(archive_path, random.Random(seed))
    steps = (
        [World.import_] * 4 + [World.delete] * 3 + [World.restore] * 3 + [World.version, World.undo, World.undo]
        + [World.layout] * 2 + [World.project] * 2
    )  # fmt: skip
    done: list[str] = []
    for number in range(20):
        world.steps = number
        step = World.import_ if number == 0 else world.random.choice(steps)
        done.append(step.__name__)
        try:
            step(world)
            world.check()
            if number % 7 == 6:
                world.documents(tmp_path / "cache")
                holds(archive_path)
        except Exception as error:
            error.add_note(f"seed {seed}: {', '.join(done)}")
            raise
