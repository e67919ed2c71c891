"""What is forgotten is gone from the packs, and nothing else: names, numbers, bytes and times of what is shown stay."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from dicomfs.archive import layouts
from dicomfs.archive import tables as known
from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.fold import fold_meta
from dicomfs.archive.gc import collect
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import NotFound, Refused
from dicomfs.store import pack as packfile
from dicomfs.store.replay import find, replay
from dicomfs.store.store import Store
from tests.archive.importing import Tables, add, contents, packs, tables, tree
from tests.archive.project_scenes import create, read
from tests.archive.test_changing import counts, shown
from tests.archive.test_gc import figures
from tests.archive.versions import delete, holds, restore
from tests.builders import make_instance, make_series

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTED = "{PatientID}/SER-{SeriesNumber}{series}/{n}.dcm"
SAME = (
    "child", "identity", "patient", "study", "series", "under", "study_patient", "hidden", "layout", "link", "given",
    "project", "member", "attachment", "attached", "emptied", "history",
)  # fmt: skip
"""Tables that say the same after versions were forgotten."""


def now() -> int:
    return time.time_ns()


def states(path: Path, first: int) -> Iterator[Tables]:
    """Yield what the packs say of each state from commit `first` on."""
    with Archive.open(path) as archive, archive.view() as view:
        last = view.seq
    for seq in range(first, last + 1):
        with tempfile.TemporaryDirectory() as scratch:
            store = Store(path, known.TABLES, new_index=Path(scratch))
            replay(store, find(store), lambda txn, *commit, store=store: fold_meta(store, txn, *commit), last=seq)
            with store.index.reading() as txn:
                found: Tables = {}
                for name in SAME:
                    cursor = txn.cursor(db=store.index.tables[name])
                    found[name] = dict(cursor.iternext()) if cursor.first() else {}
            store.close()
            yield found


def decoded(path: Path) -> bytes:
    """Return all that the packs hold, as it lies there and decoded: JSON, headers, blobs."""
    found = [pack.read_bytes() for pack in packs(path)]
    with Archive.open(path) as archive:
        store = archive.store
        with store.index.reading() as txn:
            for seq in store.commits(txn):
                place = store.commit_place(txn, seq)
                found.append(store.read_meta(place))
                body = store.packs.open(place.pack).read(place.body_offset, place.body_length)
                # Every frame of the body, whoever refers to it; with a base it cannot be read, so each is tried.
                at = body.find(b"\x28\xb5\x2f\xfd")
                while at >= 0:
                    for base in _bases(archive):
                        try:
                            decoder = zstandard.ZstdDecompressor(dict_data=base).decompressobj()
                            found.append(decoder.decompress(body[at:]))
                        except zstandard.ZstdError:
                            continue
                    at = body.find(b"\x28\xb5\x2f\xfd", at + 1)
            cursor = txn.cursor(db=store.blob_table)
            blobs = [key for key, _ in cursor.iternext()] if cursor.first() else []
            found += [bytes(store.blobs.whole(store.locate(txn, blob))) for blob in blobs]  # type: ignore[arg-type]
    return b"\0".join(found)


def _bases(archive: Archive) -> list[zstandard.ZstdCompressionDict | None]:
    found: list[zstandard.ZstdCompressionDict | None] = [None]
    for pack in packs(archive.path):
        with pack.open("rb") as file:
            for entry in packfile.directory(file.fileno()):
                if entry.name.startswith(b"h/"):
                    data = zstandard.ZstdDecompressor().decompress(_entry(pack, entry))
                    found.append(zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT))
    return found


def _entry(pack: Path, entry: packfile.Entry) -> bytes:
    return pack.read_bytes()[entry.offset : entry.end]


def test_what_is_forgotten_is_nowhere(archive_path: Path) -> None:
    """An instance that was replaced, and one that was deleted: neither what they say nor their pixels are left."""
    add(archive_path, *make_series(3, rows=16, columns=16, attributes={"PatientComments": "kept"}))
    secrets = ["SECRET^REPLACED", "SECRET^DELETED"]
    replaced, deleted = (
        make_instance(number=number, rows=64, columns=64, patient_name=name, seed=name, series=2)
        for number, name in enumerate(secrets, start=1)
    )
    add(archive_path, replaced, deleted)
    gone = {file.ino for path, file in tree(archive_path).items() if "_CT_Series 2" in path}
    (deleted_path,) = [path for path in tree(archive_path) if "00002" in path and "Series 2" in path]
    add(archive_path, make_instance(number=1, rows=8, columns=8, series=2), on_conflict="replace")
    delete(archive_path, deleted_path)
    assert all(secret.encode() in decoded(archive_path) for secret in secrets)
    pixels = [replaced[-64 * 64 :], deleted[-64 * 64 :]]
    assert all(part in decoded(archive_path) for part in pixels)
    before, size = (shown(archive_path), counts(archive_path)), sum(pack.stat().st_size for pack in packs(archive_path))
    limit = now()
    told = collect(archive_path, forget_before_ns=limit, dry_run=True)
    assert told.versions == 2
    report = collect(archive_path, forget_before_ns=limit)
    assert figures(report) == figures(told)
    assert report.versions == 2
    assert size - sum(pack.stat().st_size for pack in packs(archive_path)) == report.bytes_freed
    assert (shown(archive_path), counts(archive_path)) == before
    left = decoded(archive_path)
    for part in (*(secret.encode() for secret in secrets), *pixels):
        assert part not in left, (part[:20], left[max(0, left.find(part) - 900) : left.find(part) + 50])
    with Archive.open(archive_path) as archive:
        for ino in gone:
            with pytest.raises(NotFound):
                archive.open_instance(ino)
        with archive.view() as view:
            assert view.forgot_ns == limit
            assert [event.op for event in view.events()] == ["import", "import", "import", "delete", "gc"]
            totals = view.totals()
            assert (totals.instances, totals.earlier, totals.earlier_bytes) == (4, 0, 0)
    assert totals.bytes_in == sum(len(content) for content in contents(archive_path).values())
    holds(archive_path)
    again = collect(archive_path, forget_before_ns=now())
    assert (again.versions, again.packs_written) == (0, 0)
    # What was deleted is refused as before; what was replaced is another file of its SOP Instance UID.
    assert add(archive_path, deleted).outcomes == [Outcome.DELETED]
    assert add(archive_path, deleted, dry_run=True).outcomes == [Outcome.DELETED]
    assert add(archive_path, deleted, restore_deleted=True).outcomes == [Outcome.IMPORTED]
    holds(archive_path)


def test_only_what_is_older_is_forgotten(archive_path: Path) -> None:
    versions = [make_instance(seed=seed, patient_name=f"Doe^{seed}") for seed in ("A", "B", "C", "D")]
    limits = []
    for file in versions:
        add(archive_path, file, on_conflict="replace")
        limits.append(now())
    first = next(iter(contents(archive_path)))
    collect(archive_path, forget_before_ns=limits[0])
    assert len(contents(archive_path)) == 4  # at that time it was shown
    collect(archive_path, forget_before_ns=limits[2])
    assert list(contents(archive_path).values()) == versions[2:]
    with Archive.open(archive_path) as archive, archive.view() as view:
        assert view.past(first) is None
        assert view.forgot_ns == limits[2]
    earlier = next(iter(contents(archive_path)))
    restore(archive_path, earlier)
    assert next(iter(shown(archive_path).values()))[0] == earlier
    holds(archive_path)


def test_blobs_that_others_need_stay(archive_path: Path) -> None:
    """As after an edit: the later version has another header, and the same pixels."""
    first = make_instance(rows=64, columns=64)
    second = make_instance(rows=64, columns=64, patient_name="Doe^Later")
    add(archive_path, first)
    add(archive_path, second, on_conflict="replace")
    collect(archive_path)
    with Archive.open(archive_path) as archive, archive.view() as view:
        bulk = view.totals().bulk_unique, view.totals().bulk_stored
    collect(archive_path, forget_before_ns=now())
    assert list(contents(archive_path).values()) == [second]
    with Archive.open(archive_path) as archive, archive.view() as view:
        totals = view.totals()
        assert (totals.bulk_unique, totals.bulk_stored) == bulk
        assert totals.saved_by_deduplication == 0
    holds(archive_path)


def test_what_a_project_shows_or_was_made_of_stays(archive_path: Path) -> None:
    add(archive_path, *make_series(2, rows=16, columns=16))
    create(archive_path, "frozen")
    create(archive_path, "deid", deid="basic")
    live = make_instance("MR", series=2, number=7)
    add(archive_path, live)
    create(archive_path, "live", where=(("Modality", "MR"),), deid="basic", live=True)
    before = contents(archive_path)
    add(archive_path, make_instance(number=1, seed="other", rows=16, columns=16), on_conflict="replace")
    add(archive_path, make_instance("MR", series=2, number=7, seed="other"), on_conflict="replace")
    mine = {ino: content for ino, content in contents(archive_path).items() if ino not in before}
    report = collect(archive_path, forget_before_ns=now())
    assert report.versions == 2  # of the live project: the source, and what was made of it
    after = contents(archive_path)
    lost = {ino: content for ino, content in before.items() if ino not in after}
    assert len(lost) == 2
    assert live in lost.values()
    assert {**before, **mine} == {**after, **lost}
    holds(archive_path)


def test_a_version_that_a_project_keeps_can_come_back(archive_path: Path) -> None:
    """Its successor was forgotten: nothing, or what came after that, is in its place."""
    add(archive_path, make_instance(seed="A"))
    create(archive_path, "frozen")
    ((kept, first),) = contents(archive_path).items()
    add(archive_path, make_instance(seed="B"), on_conflict="replace")
    add(archive_path, make_instance(seed="C"), on_conflict="replace")
    assert collect(archive_path, forget_before_ns=now()).versions == 1
    holds(archive_path)
    restore(archive_path, kept)
    assert [ino for path, (ino, _) in shown(archive_path).items()] == [kept]
    assert read(archive_path, kept) == first
    delete(archive_path, *tree(archive_path))
    holds(archive_path)


def test_what_a_project_showed_until_its_successor_was_deleted_stays(archive_path: Path) -> None:
    """It was replaced long ago, but is shown by states since the limit, and comes back with its successor."""
    add(archive_path, make_instance(seed="A"))
    create(archive_path, "frozen")
    before = contents(archive_path)
    add(archive_path, make_instance(seed="B"), on_conflict="replace")
    limit = now()
    both = contents(archive_path)
    (later,) = both.keys() - before.keys()
    delete(archive_path, *tree(archive_path))
    assert collect(archive_path, forget_before_ns=limit).versions == 0
    assert contents(archive_path) == both
    restore(archive_path, later)
    assert collect(archive_path, forget_before_ns=now()).versions == 0
    assert contents(archive_path) == both
    delete(archive_path, *tree(archive_path))
    assert collect(archive_path, forget_before_ns=now()).versions == 2
    assert contents(archive_path) == {}
    holds(archive_path)


def live(path: Path, seed: int) -> list[int]:
    """Import, replace, delete, restore, with layouts that count and projects; return times, one after each step."""
    chance = random.Random(seed)
    times = []
    layouts.switch_on(path, "counted", COUNTED)
    for step in range(14):
        what = chance.choice(["add", "add", "replace", "replace", "delete", "restore", "project"]) if step else "add"
        files = tree(path)
        if what in ("add", "replace"):
            add(
                path,
                *(
                    make_instance(
                        number=number, series=chance.randint(1, 2), patient=chance.choice(["A", "B"]),
                        seed=str(chance.random()), rows=8, columns=8,
                        attributes=chance.choice([{}, {"StudyDescription": f"D{chance.random()}"}, {"Modality": "PT"}]),
                    )
                    for number in chance.sample(range(1, 7), chance.randint(1, 4))
                ),
                on_conflict="replace" if what == "replace" else "keep",
            )  # fmt: skip
        elif what == "delete" and files:
            delete(path, *chance.sample(sorted(files), min(len(files), chance.randint(1, 3))))
        elif what == "restore":
            with Archive.open(path) as archive, archive.view() as view:
                past = [ino for ino in view.inodes() if view.past(ino) is not None]
            with contextlib.suppress(Refused, NotFound):
                restore(path, *chance.sample(past, min(len(past), 1)))
        elif what == "project" and files:
            create(path, f"p{step}", deid=chance.choice(["", ""]), live=chance.random() < 0.5)
        times.append(now())
    return times


@pytest.mark.parametrize("seed", range(6))
def test_all_states_since_then_are_the_same(tmp_path: Path, seed: int) -> None:
    path, twin = tmp_path / "archive", tmp_path / "twin"
    Archive.init(path)
    times = live(path, seed)
    assert check(path).problems == []
    shutil.copytree(path, twin)
    limit = times[8 + seed % 4]
    with Archive.open(twin) as archive, archive.store.index.reading() as txn:
        by = [seq for seq in archive.store.commits(txn) if archive.store.commit_place(txn, seq).time_ns <= limit]
    report = collect(path, forget_before_ns=limit)
    assert shown(path) == shown(twin)
    kept, before = contents(path), contents(twin)
    assert kept.items() <= before.items()
    assert len(before) - len(kept) == report.versions
    for expected, found in zip(states(twin, by[-1]), states(path, by[-1]), strict=False):
        for name in SAME:
            assert found[name] == expected[name], name
    holds(path)
    # And it goes on as if nothing had been forgotten: the same numbers, names and counters.
    more = [make_instance(number=number, series=1, patient="A", seed="more", rows=8, columns=8) for number in (1, 2, 9)]
    for archive_path in (path, twin):
        add(archive_path, *more, on_conflict="keep")
    assert shown(path) == shown(twin)
    collect(path, forget_before_ns=now())
    assert check(path, verify_files=True).problems == []
    index = tables(path)
    assert reindex(path).complete
    assert tables(path) == index
