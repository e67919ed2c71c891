"""A random walk through an archive's history, and what must hold after each step.

A step is a word and a number, `edit:4711`: what exactly it does follows from the number and from what is there, so that
any part of a walk is a walk. After each step the live index, an index made anew in a copy, the tree of files (or a real
drive) and the states of before have to be what the model says.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicomfs.archive.archive import Archive
from dicomfs.archive.as_of import FORGOT
from dicomfs.archive.check import check
from dicomfs.archive.query import Level, Query, matches
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import DicomfsError, Refused
from dicomfs.store.earlier import meta_value
from dicomfs.vfs.tree import Tree
from tests import quick
from tests.archive import documents_of, history_steps
from tests.archive.history_commands import GC_STEPS, WRITER_STEPS, perform
from tests.archive.history_model import MAKING, Model, Unlike, Version, seen
from tests.archive.importing import children, tables, walk
from tests.archive.project_scenes import create
from tests.archive.test_as_of import NOT_IN_A_STATE, State, now, then
from tests.archive.test_gc_forget import SAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicomfs.archive.catalog import View
    from tests.archive.history_steps import Command

WORDS = (
    *("import",) * 5, *("edit",) * 6, *("delete",) * 2, *("restore",) * 3, "undo", "replace", "layout", "reindex",
    *("gc",) * 2, "forget", "fork", *("apart",) * 2, *("merge",) * 2, *("crash",) * 4, "check",
)  # fmt: skip
COUNTED = "{PatientID}/{StudyDate}/{n:04d}.dcm"


class Walk:
    """An archive and its model on their way. `drive_says` returns what a drive shows, by path."""

    def __init__(self, path: Path, *, project: str = "", recording: bool = True) -> None:
        self.path = path
        self.model = Model()
        self.done: Counter[str] = Counter()
        self.fork: Walk | None = None
        self.views: list[str] = ["patients"]
        self.recorded: list[State] = []
        self.forgot_ns = 0
        self.drive_agrees: Callable[[State], None] | None = None
        self._recording = recording
        self._project = project
        self._seq = 0
        self._times: dict[int, int] = {}
        self._sources = path.parent / f"{path.name}-sources"
        self._ancestor: Model | None = None

    def begin(self) -> None:
        """Make the archive, with a layout and, if asked for, live projects."""
        Archive.init(self.path)
        history_steps.switch_on(self.path, "icore")
        self.views.append("icore")
        if self._project:
            create(self.path, "own", live=True)
        if self._project == "deid":
            create(self.path, "deid", live=True, deid="basic")
        self._agree({})

    def step(self, step: str) -> None:
        """Do a step."""
        word, _, number = step.partition(":")
        rng = random.Random(int(number))
        if word == "check":
            assert check(self.path, verify_files=True).problems == []
        elif word == "crash":
            self._crash(rng)
        elif word == "layout":
            self._toggle_layout()
        elif word == "reindex":
            assert reindex(self.path).complete
            self._agree({}, rng)
        elif word == "fork":
            self._fork()
        elif word == "apart":
            if self.fork is not None:
                self.fork.step(f"{rng.choice(('import', 'edit', 'edit', 'delete', 'restore', 'undo'))}:{number}")
        elif word == "merge":
            self._merge(rng)
        elif word == "forget":
            self._forget(rng)
        else:
            self._do(word, rng)

    def end(self) -> None:
        """See that all is well at the end, and every state still what it was."""
        assert check(self.path, verify_files=True).problems == []
        self._documents()
        for state in self.recorded:
            self._as_it_was(state)

    # Steps ----------------------------------------------------------------------------------------

    def _make(self, word: str, rng: random.Random) -> Command | None:
        return history_steps.make(word, rng, self.model, self.path, self._sources)

    def _do(self, word: str, rng: random.Random) -> None:
        command = self._make(word, rng)
        if command is None:
            return
        try:
            result = perform(self.path, command.op, command.told)
        except DicomfsError as error:
            if command.sure:
                raise Unlike(f"{command} was refused: {error}") from error
            self.done[f"{command.kind} refused"] += 1
        else:
            expected = command.apply(self.model, result)
            if command.count(result) != expected:
                raise Unlike(f"{command}: expected {expected}, told {command.count(result)}")
            self.done[command.kind] += 1
        self._agree(self._commits(), rng)

    def _crash(self, rng: random.Random) -> None:
        """Kill a command at a step of a commit, or at any time; it was done or it was not."""
        word = rng.choice(("import", "edit", "edit", "delete", "restore", "undo", "replace", "gc"))
        command = self._make(word, rng)
        if command is None or not command.repeatable:
            return
        step = ""
        if rng.random() < 0.6:
            step = rng.choice(GC_STEPS if command.op == "gc" else WRITER_STEPS)
        process = quick.start(
            "tests.archive.history_commands", "main", str(self.path), command.op, command.told, step, self._seq + 1
        )
        if not step:
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
        killed = process.wait(100) < 0
        self.done[f"{command.kind} {'killed' if killed else 'not killed'}"] += 1
        # Whoever writes next ends what was begun, and lets layouts and projects follow.
        nothing = self._sources / "nothing"
        nothing.mkdir(parents=True, exist_ok=True)
        perform(self.path, "import", {"path": str(nothing), "on_conflict": "keep", "restore_deleted": False})
        commits = self._commits()
        if command.op != "gc" and commits:
            command.apply(self.model, None)
        self._agree(commits, rng)

    def _toggle_layout(self) -> None:
        if "counted" in self.views:
            history_steps.switch_off(self.path, "counted")
            self.views.remove("counted")
        else:
            history_steps.switch_on(self.path, "counted", COUNTED)
            self.views.append("counted")
        self._agree(self._commits())

    def _forget(self, rng: random.Random) -> None:
        if not history_steps.HAS_GC or not self.recorded:
            return
        limit_ns = rng.choice(self.recorded).time_ns + rng.choice((-1, 0, 0, 1))
        perform(self.path, "gc", {"forget_before_ns": limit_ns})
        self.done["gc, forgetting"] += 1
        gone = {
            one.ino: one for one in self.model.versions() if not one.shown and self._times[one.out] <= limit_ns
        }  # fmt: skip
        with Archive.open(self.path) as archive, archive.view() as view:
            kept = {ino for ino in gone if view.node(ino) is not None}
        if kept and self._project != "deid":
            raise Unlike(f"inodes {sorted(kept)} were not forgotten")
        self.model.forget(one for ino, one in gone.items() if ino not in kept)
        with Archive.open(self.path) as archive:
            told = meta_value(archive.store.index, FORGOT)
        self.forgot_ns = int(told or 0)
        if gone.keys() - kept and self.forgot_ns != limit_ns:
            raise Unlike(f"it is told that all before {self.forgot_ns} was forgotten, not {limit_ns}")
        self._agree(self._commits(), rng)

    def _fork(self) -> None:
        if self.fork is not None or not history_steps.HAS_MERGE:
            return
        path = self.path.parent / f"{self.path.name}-fork{self.done['fork']}"
        shutil.copytree(self.path, path)
        self.fork = Walk(path, recording=False)
        self.fork.model, self._ancestor = self.model.clone(), self.model.clone()
        self.fork._seq, self.fork._times = self._seq, dict(self._times)
        self.fork._project = self._project
        self.done["fork"] += 1

    def _merge(self, rng: random.Random) -> None:
        if self.fork is None or self._ancestor is None:
            return
        fork = self.fork
        perform(self.path, "merge", {"path": str(fork.path)})
        self._commits()
        merged = self._adopted()
        history_steps.require_joined(self._ancestor, self.model, fork.model, merged)
        self.model = merged
        self.done["merge"] += 1
        self._agree({}, rng)
        shutil.rmtree(fork.path)
        self.done += fork.done
        self.fork = None

    # What must hold -------------------------------------------------------------------------------

    def _commits(self) -> dict[int, int]:
        """Return the new commits that changed instances, by what stands for them in the model."""
        found: dict[int, int] = {}
        with Archive.open(self.path) as archive, archive.view() as view:
            for event in view.events(self._seq):
                self._times[event.seq] = event.time_ns
                if event.op in ("import", "edit", "delete", "restore", "merge"):
                    found[MAKING + len(found)] = event.seq
                    if event.op == "restore" and event.run:
                        found = {MAKING: found[MAKING], MAKING + 1: event.seq}
            self._seq = max(self._seq, view.seq)
        return found

    def _agree(self, commits: dict[int, int], rng: random.Random | None = None) -> None:
        if commits and MAKING + 1 not in commits:
            commits = {**commits, MAKING + 1: commits[MAKING]}
        found = self._shown()
        self.model.settle(commits, found)
        adopted = self._adopted()
        if adopted.told() != self.model.told():
            raise Unlike(_differences(self.model.told(), adopted.told()))
        self.model.follow(adopted)
        state = now(self.path, *self.views)
        self._sums()
        self._trees(state)
        if self._recording:
            self._reindexed(state)
            if self.drive_agrees is not None:
                self.drive_agrees(state)
            self.recorded.append(state)
            self._as_it_was((rng or random.Random(0)).choice(self.recorded))

    def _shown(self) -> dict[int, tuple[str, bytes]]:
        found: dict[int, tuple[str, bytes]] = {}
        with Archive.open(self.path) as archive:
            with archive.view() as view:
                files = walk(view)
            for path, file in files.items():
                data = _read(archive, file.ino)
                if hashlib.sha256(data).hexdigest() != file.sha256 or len(data) != file.size:
                    raise Unlike(f"{path} is not what its SHA-256 says")
                if file.ino in found:
                    raise Unlike(f"{path} is inode {file.ino}, which is elsewhere too")
                found[file.ino] = file.sha256, data
        return found

    def _adopted(self) -> Model:
        """Return the model of what the archive itself says of all versions."""
        return adopted(self.path, self._times, self.model)

    def _sums(self) -> None:
        """Queries, sums and statfs say how much is shown."""
        shown = self.model.shown()
        series = {(one.study, one.series) for one in shown}
        expected = (len({one.patient for one in shown}), len(self.model.studies()), len(series), len(shown))
        with Archive.open(self.path) as archive:
            counted = tuple(
                len({_key(match, level) for match in matches(archive, Query(level))})
                for level in (Level.STUDY, Level.SERIES, Level.INSTANCE)
            )
            tree = Tree(archive, ["patients"])
            try:
                statistics = tree.statistics()
            finally:
                tree.close()
            with archive.view() as view:
                patients = [patient.key for patient in view.patients()]
                studies = {key.key: key for one in patients for key in view.studies_of(one)}
                held = [one for key in studies for one in view.series_of(key)]
                totals = view.totals()
                sizes = sum(view.instance_inode(one.ino).size for one in shown)
                every = list(self.model.versions())
                earlier = sum(view.instance_inode(one.ino).size for one in every if not one.shown)
        found = {
            "queries": (expected[0], *counted),
            "lists": (len(patients), len(studies), len(held), sum(one.instances for one in held)),
            "studies": (expected[0], *expected[1:3], sum(study.instances for study in studies.values())),
            "totals": (totals.patients, totals.studies, totals.series, totals.instances - totals.earlier),
        }
        for what, sums in found.items():
            if sums != expected:
                raise Unlike(f"{what} say {sums} patients, studies, series and instances, where {expected} are shown")
        if (totals.instances, totals.bytes_in, totals.earlier_bytes) != (len(every), sizes + earlier, earlier):
            raise Unlike(
                f"{totals} for {len(every)} versions of {sizes + earlier} bytes, {earlier} of them of earlier ones"
            )
        if statistics != (len(shown), sizes):
            raise Unlike(f"statfs says {statistics}, where {len(shown)} files of {sizes} bytes are shown")

    def _trees(self, state: State) -> None:
        """Each tree has each file that is shown once, and nothing else."""
        shown = {one.ino: one.sha256 for one in self.model.shown()}
        trees: dict[str, dict[int, str]] = {}
        for name in self.views:
            trees[name] = {}
        for path, file in state.files.items():
            if file.sha256 and path.endswith(".dcm"):
                name = path.split("/")[0]
                if file.ino in trees[name]:
                    raise Unlike(f"{path} is inode {file.ino}, which is elsewhere in {name} too")
                trees[name][file.ino] = file.sha256
        for name, files in trees.items():
            if files != shown:
                lacking, more = sorted(shown.keys() - files.keys()), sorted(files.keys() - shown.keys())
                raise Unlike(f"{name} lacks inodes {lacking}, and has {more} that are not shown")
        with Archive.open(self.path) as archive, archive.view() as view:
            for project in view.projects():
                members = {member.source: member.shown for member in view.members(project.root)}
                files = sorted(_below(view, project.root))
                if members.keys() != shown.keys() or files != sorted(members.values()):
                    what = f"{project.directory} has {members} of {sorted(shown)}, and shows {files}"
                    raise Unlike(what)

    def _documents(self) -> None:
        """What is answered to QIDO-RS counts one instance of each SOP Instance UID in a series."""
        cache = self.path.parent / f"{self.path.name}-documents"
        found = json.loads(gzip.decompress(documents_of.make(self.path, cache)["studies/index.json.gz"]))
        told = {
            one["0020000D"]["Value"][0]: (one["00201206"]["Value"][0], one["00201208"]["Value"][0]) for one in found
        }  # fmt: skip
        expected = {
            study: (len({one.series for one in held}), len({(one.series, one.sop) for one in held}))
            for study, held in self.model.studies().items()
        }
        if told != expected or len(found) != len(told):
            raise Unlike(f"QIDO-RS answers {told}, where {expected} is shown")

    def _reindexed(self, state: State) -> None:
        copied = self.path.parent / f"{self.path.name}-copy"
        shutil.copytree(self.path, copied)
        try:
            shutil.rmtree(copied / "index")
            assert reindex(copied).complete
            again = tables(copied)
            for name, held in tables(self.path).items():
                if again[name] != held:
                    raise Unlike(
                        f"table {name} of an index made anew is different: {first_difference(held, again[name])}"
                    )
            if now(copied, *self.views).files != state.files:
                raise Unlike("the tree of an index made anew is different")
        finally:
            shutil.rmtree(copied)

    def _as_it_was(self, state: State) -> None:
        if state.time_ns < self.forgot_ns:
            with suppress(Refused):
                then(self.path, state.time_ns, walk=False)
                raise Unlike(f"the state of commit {state.seq} is shown, which was forgotten")
            return
        views = list(dict.fromkeys(path.split("/")[0] for path in state.files))
        found = then(self.path, state.time_ns, *views) if views else then(self.path, state.time_ns, walk=False)
        if (found.seq, found.time_ns) != (state.seq, state.time_ns) or (views and found.files != state.files):
            raise Unlike(
                f"the state of commit {state.seq} is not what it was: {first_difference(state.files, found.files)}"
            )
        moved = any(word.startswith("gc") for word in self.done)
        for name in SAME if moved else state.tables.keys() - set(NOT_IN_A_STATE):
            if found.tables[name] != state.tables[name]:
                raise Unlike(f"table {name} of the state of commit {state.seq} is not what it was")


def adopted(path: Path, times: dict[int, int], known: Model) -> Model:
    """Return the model of what an archive says of all versions; what they say is taken from one that is known."""
    model = Model()
    commits = {time_ns: seq for seq, time_ns in times.items()}
    seen_before = {one.sha256: one for one in known.versions() if one.sha256}
    versions: dict[int, Version] = {}
    with Archive.open(path) as archive, archive.view() as view:
        for ino in view.inodes():
            node = view.node(ino)
            if node is None or node.is_directory or node.is_derived:
                continue
            inode = view.instance_inode(ino)
            before = seen_before.get(inode.sha256.hex())
            said, pixels = (before.said, before.pixels) if before else seen(_read(archive, ino))
            one = versions[ino] = Version([said], pixels, inode.sha256.hex(), ino)
            one.since = commits[inode.mtime_ns]
        for ino, one in versions.items():
            past = view.past(ino)
            if past is not None:
                one.shown, one.out, one.was_current = False, past.seq, past.current
                one.by = versions.get(past.by)
        for sop in {one.sop for one in versions.values()}:
            model.sops[sop] = [versions[ino] for ino in view.instances_where_uid(sop) if ino in versions]
    return model


def _read(archive: Archive, ino: int) -> bytes:
    file = archive.open_instance(ino)
    try:
        return bytes(file.read(0, file.size + 1))
    finally:
        file.close()


def _below(view: View, ino: int) -> Iterator[int]:
    for entry in children(view, ino):
        if entry.is_directory:
            yield from _below(view, entry.ino)
        else:
            yield entry.ino


def _key(match: Any, level: Level) -> int:
    if level is Level.STUDY:
        return int(match.study.key)
    return int(match.series.key if level is Level.SERIES else match.instance.ino)


def first_difference(expected: dict[Any, Any], found: dict[Any, Any]) -> str:
    """Return in what two dictionaries differ, in a few words."""
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            return f"{key!r}: expected {expected.get(key)!r}, found {found.get(key)!r}"
    return "nothing"


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> str:
    return f"what is told of versions is different: {first_difference(expected, found)}"


def steps_of(seed: int, count: int) -> list[str]:
    """Return a random walk."""
    rng = random.Random(seed)
    return ["import:1", "import:2", *(f"{rng.choice(WORDS)}:{rng.randrange(10**6)}" for _ in range(count))]
