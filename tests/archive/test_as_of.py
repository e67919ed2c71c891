"""Earlier states: an archive opened as of a time is what it was then, to the last byte, whatever came later."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from dicomfs.archive import as_of, attachments, projects, states
from dicomfs.archive.archive import Archive
from dicomfs.archive.as_of import AsOf
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.check import check
from dicomfs.archive.earlier import Earlier, prepare
from dicomfs.archive.layouts import switch_off, switch_on
from dicomfs.archive.moments import parse_time, time_text
from dicomfs.archive.project_definition import Definition
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import Damaged, NotFound, Refused, UsageError
from dicomfs.store.earlier import known
from dicomfs.store.store import Store
from dicomfs.vfs.node import ROOT, waited
from dicomfs.vfs.tree import Tree
from dicomfs.vfs.web_numbers import is_web
from tests.archive.importing import add, tables, tree
from tests.archive.project_scenes import DEID, create, numbered
from tests.archive.projecting import commit
from tests.archive.test_attachments import NBSS
from tests.archive.test_repair import hurt
from tests.archive.versions import delete, restore
from tests.builders import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNTED = "{PatientID}/{StudyDate}/{n:04d}.dcm"
NOT_IN_A_STATE = ("pack", "blob")
"""Tables of which an earlier state has none: where bytes lie, the index of now says."""


class Shown(NamedTuple):
    """A node of a tree."""

    ino: int
    nlink: int
    size: int
    mtime_ns: int
    sha256: str


class State(NamedTuple):
    """What an archive was when it was looked at."""

    seq: int
    time_ns: int
    tables: dict[str, dict[bytes, bytes]]
    files: dict[str, Shown]


def shown(tree: Tree, ino: int = ROOT, path: str = "") -> dict[str, Shown]:
    """Return all that a tree has below a directory but README.txt and quarantine, which are different on purpose."""
    found = {}
    for name, child, is_directory, *_ in waited(lambda: list(tree.entries(ino))):
        below = f"{path}{name.decode()}"
        if below in ("README.txt", "quarantine"):
            continue
        node = waited(partial(tree.attributes, child))
        assert node is not None
        assert node.ino == child
        if is_directory:
            found |= shown(tree, child, f"{below}/")
        digested = "" if is_directory else digest(tree, child)
        # Numbers of documents tell how they were made, from an earlier one or from nothing.
        number = 0 if is_web(child) and name.endswith(b".gz") else child
        found[below] = Shown(number, node.nlink, node.size, node.mtime_ns, digested)
    return found


def digest(tree: Tree, ino: int) -> str:
    file = waited(partial(tree.open, ino))
    try:
        return sha256(file.read(0, file.size)).hexdigest()
    finally:
        file.close()


@contextmanager
def planted(archive: Archive, *views: str) -> Iterator[Tree]:
    tree = Tree(archive, views)
    try:
        yield tree
    finally:
        tree.close()


def now(path: Path, *views: str, walk: bool = True) -> State:
    """Return what the archive is."""
    with Archive.open(path) as archive:
        with archive.view() as view:
            seq, time_ns = view.seq, view.commit_time_ns
        files = {}
        if walk:
            with planted(archive, *views) as tree:
                files = shown(tree)
    return State(seq, time_ns, tables(path), files)


def then(path: Path, time_ns: int, *views: str, walk: bool = True) -> State:
    """Return what it was."""
    with Archive.open(path, AsOf(time_ns)) as archive:
        with archive.view() as view:
            seq, commit_ns = view.seq, view.commit_time_ns
        with archive.store.index.reading() as txn:
            held = {}
            for name, table in archive.store.index.tables.items():
                cursor = txn.cursor(db=table)
                held[name] = dict(cursor.iternext()) if cursor.first() else {}
        files = {}
        if walk:
            with planted(archive, *views) as tree:
                files = shown(tree)
    return State(seq, commit_ns, held, files)


def the_same(found: State, before: State) -> None:
    assert found.seq == before.seq
    assert found.time_ns == before.time_ns
    for name in before.tables.keys() - set(NOT_IN_A_STATE):
        assert found.tables[name] == before.tables[name], name
    assert all(not found.tables[name] for name in NOT_IN_A_STATE)
    assert found.files.keys() == before.files.keys()
    for path, node in before.files.items():
        assert found.files[path] == node, path


def deleted(path: Path) -> list[int]:
    """Return the instances that were deleted."""
    with Archive.open(path) as archive, archive.view() as view:
        return [ino for ino in view.inodes() if (past := view.past(ino)) is not None and not past.by]


def test_every_state_is_shown_as_it_was(archive_path: Path, tmp_path: Path) -> None:
    first = make_instance(number=1, rows=16, columns=16)
    other = make_instance(number=1, rows=16, columns=16, seed="other")
    steps: list[Callable[[], object]] = [
        lambda: add(archive_path, first, make_instance(number=2, rows=16, columns=16)),
        lambda: switch_on(archive_path, "archive", built_in()["archive"]),
        lambda: create(archive_path, "own", live=True),
        lambda: create(archive_path, "deid", deid=DEID),
        lambda: add(archive_path, other, make_instance("MR", patient="DFS-2", rows=16, columns=16), first[:-100]),
        lambda: switch_on(archive_path, "counted", COUNTED),
        lambda: add(archive_path, make_instance(number=1, rows=16, columns=16, seed="new"), on_conflict="replace"),
        lambda: attachments.attach(archive_path, "DFS-1", NBSS, "nbss.json"),
        lambda: switch_off(archive_path, "counted"),
        lambda: delete(archive_path, max(tree(archive_path))),
        lambda: restore(archive_path, max(ino for ino in deleted(archive_path))),
        lambda: projects.remove(archive_path, "own"),
    ]
    recorded = []
    for step in steps:
        step()
        recorded.append(now(archive_path))
    assert sorted({state.seq for state in recorded}) == [state.seq for state in recorded]
    assert any("dicomweb" in path for path in recorded[-1].files)
    for state in (recorded[4], recorded[1], recorded[-1], recorded[2], recorded[6], recorded[3]):
        the_same(then(archive_path, state.time_ns), state)
        assert now(archive_path).files == recorded[-1].files, "what is shown now is none of its business"
    for before, state in zip([None, *recorded], recorded, strict=False):
        assert then(archive_path, state.time_ns - 1, walk=False).seq < state.seq
        assert before is None or then(archive_path, state.time_ns - 1, walk=False).seq >= before.seq
        assert then(archive_path, state.time_ns + 1, walk=False).seq == state.seq


@pytest.mark.parametrize("seed", range(4))
def test_random_histories(archive_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    views = ("patients",)

    def put(on_conflict: str) -> None:
        numbers = chosen.sample(range(1, 7), chosen.randint(1, 4))
        series = chosen.randint(1, 2)
        seed = str(chosen.random())
        contents = [make_instance(number=one, series=series, rows=8, columns=8, seed=seed) for one in numbers]
        add(archive_path, *contents, on_conflict=on_conflict)

    def layout() -> None:
        name = chosen.choice(["archive", "counted"])
        try:
            switch_off(archive_path, name)
        except (NotFound, UsageError):
            switch_on(archive_path, name, COUNTED if name == "counted" else built_in()[name])

    def withdraw() -> None:
        files = sorted(tree(archive_path))
        if files:
            delete(archive_path, *chosen.sample(files, chosen.randint(1, len(files))))

    def bring_back() -> None:
        gone = deleted(archive_path)
        if gone:
            restore(archive_path, *gone[: chosen.randint(1, len(gone))])

    def project() -> None:
        create(archive_path, f"p{chosen.randint(0, 10**9)}", live=chosen.random() < 0.5)

    operations: list[Callable[[], object]] = [
        partial(put, "keep"), partial(put, "replace"), withdraw, bring_back, layout, project,
        partial(reindex, archive_path),
    ]  # fmt: skip
    put("keep")
    recorded: list[State] = []
    for _ in range(8):
        chosen.choice(operations)()
        recorded.append(now(archive_path, *views))
        earlier = chosen.choice(recorded)
        the_same(then(archive_path, earlier.time_ns, *views), earlier)
        if chosen.random() < 0.3:
            shutil.rmtree(archive_path / "cache")
    for state in chosen.sample(recorded, len(recorded)):
        the_same(then(archive_path, state.time_ns, *views), state)


def test_before_the_first_commit_it_is_empty_and_in_the_future_as_it_is(archive_path: Path) -> None:
    empty = now(archive_path, "patients")
    numbered(archive_path, 1, 2)
    full = now(archive_path, "patients")
    the_same(then(archive_path, 0, "patients"), empty._replace(tables={}))
    the_same(then(archive_path, full.time_ns - 1, "patients"), empty._replace(tables={}))
    with Archive.open(archive_path, AsOf(full.time_ns + 10**18)) as archive, planted(archive, "patients") as tree:
        other_process(archive_path, "numbered(path, 3)")
        assert not archive.refresh()
        assert tree.changes().directories == frozenset()
        assert shown(tree) == full.files
    assert len(now(archive_path, "patients").files) == len(full.files) + 1


def test_a_clock_that_went_backwards(archive_path: Path) -> None:
    numbered(archive_path, 1)
    first = now(archive_path, walk=False)
    # This commit is told to be of 2023.
    commit(
        archive_path, Definition("old", "2023-11-14T00:00:00Z", "20231114-000000", (("Modality", "CT"),)), {1028: None}
    )
    second = now(archive_path, walk=False)
    assert second.time_ns < first.time_ns
    assert then(archive_path, second.time_ns, walk=False).seq == 0
    assert then(archive_path, first.time_ns - 1, walk=False).seq == 0
    assert then(archive_path, first.time_ns, walk=False).seq == second.seq


def test_a_loss_is_told_after_what_is_left(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time_ns() + 10**15
    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: later)
        numbered(archive_path, 1)
        numbered(archive_path, 2)
    max((archive_path / "packs").iterdir()).unlink()
    assert not reindex(archive_path).complete
    with Archive.open(archive_path) as archive:
        assert [commit.place.time_ns for commit in known(archive.store.index)] == [later, later + 1]
    assert then(archive_path, later, walk=False).seq == 1


def other_process(path: Path, what: str) -> None:
    """Do something with an archive that is open here: its index is open once in a process."""
    script = (
        "import sys; from pathlib import Path\n"
        "from dicomfs.archive.rebuild import reindex\n"
        "from tests.archive.project_scenes import numbered\n"
        "path = Path(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script + what, path], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def renewed(archive: Archive) -> bool:
    """Say whether the state is opened anew within a while."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if archive.refresh():
            return True
        time.sleep(0.01)
    return False


def test_a_reindex_changes_nothing(archive_path: Path) -> None:
    numbered(archive_path, 1, 2)
    before = now(archive_path, "patients")
    numbered(archive_path, 3)
    with Archive.open(archive_path, AsOf(before.time_ns)) as archive, planted(archive, "patients") as tree:
        state = archive.state
        other_process(archive_path, "reindex(path)")
        assert not archive.refresh()
        assert archive.state == state
        assert shown(tree) == before.files


def test_where_commits_and_blobs_lie_is_found_by_the_index_of_now(archive_path: Path) -> None:
    numbered(archive_path, 1, 2)
    before = now(archive_path)
    numbered(archive_path, 3)
    move = (
        "for number, pack in enumerate(sorted((path / 'packs').iterdir()), start=5):\n"
        "    pack.rename(path / 'packs' / f'{number:08d}.zip')\n"
        "reindex(path)\n"
    )
    with Archive.open(archive_path, AsOf(before.time_ns)) as archive, planted(archive) as tree:
        state = archive.state
        other_process(archive_path, move)
        # Nobody looked for changes: who lacks a pack looks for the index of now.
        assert shown(tree) == before.files
        assert not archive.refresh()
        assert states.outdated(archive_path, known(archive.store.live)) == []
        assert archive.state == state
    assert [kept.seq for kept in states.states(archive_path)] == [before.seq]
    assert then(archive_path, before.time_ns).files == before.files


def test_the_cache_may_be_deleted_at_any_time(archive_path: Path) -> None:
    numbered(archive_path, 1, 2)
    before = now(archive_path)
    with Archive.open(archive_path, AsOf(before.time_ns)) as archive, planted(archive) as tree:
        assert shown(tree) == before.files
        shutil.rmtree(archive_path / "cache")
        assert renewed(archive)
        assert shown(tree) == before.files
    with Archive.open(archive_path, AsOf(before.time_ns)) as archive:
        state = archive.state
    assert state is not None
    data = state / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    the_same(then(archive_path, before.time_ns), before)


def test_what_was_hurt_and_mended_since_is_read(archive_path: Path) -> None:
    first = make_instance(number=1)
    add(archive_path, first)
    before = now(archive_path, "patients")
    hurt(archive_path, "o")
    with pytest.raises(Damaged):
        then(archive_path, before.time_ns, "patients")
    add(archive_path, first)
    assert check(archive_path, verify_files=True).problems == []
    the_same(then(archive_path, before.time_ns, "patients"), before)


def test_a_commit_that_cannot_be_read_is_told(archive_path: Path, request: pytest.FixtureRequest) -> None:
    request.applymarker("damaged")
    numbered(archive_path, 1)
    (pack,) = (archive_path / "packs").iterdir()
    data = bytearray(pack.read_bytes())
    at = data.index(b"DCAT")
    data[at : at + 4] = b"dcat"
    pack.write_bytes(data)
    with pytest.raises(Damaged, match=r"commit 1 cannot be read.*dicomfs check"):
        prepare(archive_path, 2**62)
    assert [entry.name for entry in (archive_path / "cache" / "as-of").iterdir()] == []


def test_what_was_forgotten_is_refused(archive_path: Path) -> None:
    numbered(archive_path, 1)
    state = now(archive_path, walk=False)

    def forget(value: bytes | None) -> None:
        store = Store(archive_path, (), writable=True)
        txn = store.index.begin(write=True)
        if value is None:
            txn.delete(as_of.FORGOT, db=store.meta_table)
        else:
            txn.put(as_of.FORGOT, value, db=store.meta_table)
        store.index.commit(txn)
        store.close()

    limit = state.time_ns + 1000
    forget(b"%d" % limit)
    with pytest.raises(Refused, match=f"{time_text(limit)} was forgotten"):
        prepare(archive_path, limit - 1)
    assert prepare(archive_path, limit).seq == state.seq
    forget(b"soon")
    with pytest.raises(Damaged, match="reindex"):
        prepare(archive_path, limit)
    forget(None)


def test_states_in_use_are_not_removed(archive_path: Path) -> None:
    assert states.states(archive_path) == []
    times = []
    for number in (1, 2, 3):
        numbered(archive_path, number)
        times.append(now(archive_path, walk=False).time_ns)
    for time_ns in times[:2]:
        prepare(archive_path, time_ns)
    with Archive.open(archive_path, AsOf(times[0])) as archive:
        found = states.states(archive_path)
        assert [(kept.seq, kept.in_use) for kept in found] == [(1, True), (2, False)]
        assert all(abs(time.time_ns() - kept.mtime_ns) < 60 * 10**9 for kept in found)
        assert [states.remove(kept.directory) for kept in found] == [False, True]
        assert [kept.seq for kept in states.states(archive_path)] == [1]
        with archive.view() as view:
            assert view.seq == 1
    (left,) = states.states(archive_path)
    assert states.remove(left.directory)
    assert list((archive_path / "cache" / "as-of").iterdir()) == []


def test_who_may_not_write_has_a_directory_of_its_own(archive_path: Path, tmp_path: Path) -> None:
    numbered(archive_path, 1)
    before = now(archive_path)
    numbered(archive_path, 2)
    cache = archive_path / "cache"
    shutil.rmtree(cache)
    cache.touch()  # nobody can make a directory there, not even root
    prepared = prepare(archive_path, before.time_ns)
    assert prepared.directory is not None
    assert prepared.directory.is_dir()
    with Archive.open(archive_path, prepared) as archive, planted(archive) as tree:
        assert archive.state == prepared.directory
        assert shown(tree) == before.files
    assert not prepared.directory.exists()
    the_same(then(archive_path, before.time_ns), before)
    cache.unlink()


def test_two_at_once_make_the_same_state(archive_path: Path) -> None:
    numbered(archive_path, 1, 2, 3)
    state = now(archive_path, walk=False)
    script = (
        "import sys; from pathlib import Path; from dicomfs.archive.earlier import prepare\n"
        f"assert prepare(Path(sys.argv[1]), {state.time_ns}).seq == {state.seq}"
    )
    makers = [subprocess.Popen([sys.executable, "-c", script, archive_path]) for _ in range(3)]
    assert [maker.wait(60) for maker in makers] == [0, 0, 0]
    (kept,) = states.states(archive_path)
    assert [entry.name for entry in kept.directory.parent.iterdir()] == [kept.directory.name]


def test_progress_is_told(archive_path: Path) -> None:
    for number in (1, 2, 3):
        numbered(archive_path, number)
    told: list[Any] = []
    found, store = Earlier.open(archive_path, AsOf(2**62), told.append)
    store.close()
    found.release()
    assert [(one.files_done, one.files_total) for one in told] == [(1, 3), (2, 3), (3, 3)]
    assert prepare(archive_path, 2**62, told.append).seq == 3
    assert len(told) == 3, "it was made already"


BERLIN = {
    "2026-01-31T12:00:00Z": "2026-01-31T12:00:00Z",
    "2026-01-31t12:00:00z": "2026-01-31T12:00:00Z",
    "2026-01-31T12:00:00+01:00": "2026-01-31T11:00:00Z",
    "2026-01-31T12:00:00-00:30": "2026-01-31T12:30:00Z",
    "2026-01-31 12:00": "2026-01-31T11:00:00Z",
    "2026-07-31T12:00": "2026-07-31T10:00:00Z",
    "2026-01-31": "2026-01-30T23:00:00Z",
    "2026-01-31T12:00:00.5Z": "2026-01-31T12:00:00.5Z",
    "2026-01-31T12:00:00.123456789Z": "2026-01-31T12:00:00.123456789Z",
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00Z",
    "1969-12-31T23:59:59.9Z": "1969-12-31T23:59:59.9Z",
}


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        for text, expected in BERLIN.items():
            assert time_text(parse_time(text)) == expected, text
    finally:
        monkeypatch.undo()
        time.tzset()


NO_TIMES = (
    "", "now", "2026", "2026-02-30", "2026-01-31T25:00", "2026-01-31T12", "2026-01-31Z", "0000-01-01", "٢٠٢٦-01-31",
    "2026-01-31T12:00:00.1234567890Z", "2026-01-31T12:00:00,5Z", "2026-01-31T12:00:00+25:00",
)  # fmt: skip


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        parse_time(text)
