"""The catalog read through a view: hierarchy, listings, names, queries and sums agree with what was imported."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.archive.check import check
from dicomfs.archive.fold import Fold
from dicomfs.archive.names import fold
from dicomfs.errors import NotFound
from dicomfs.store.store import Store
from tests.archive.importing import add, children
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = [
    *make_series(5, rows=32, columns=32),
    *make_series(3, "MR", series=2, rows=32, columns=32, patient_name="Müller^Jürgen"),
    *make_series(2, "US", patient="DFS-2", patient_name="Yamada^Tarou=山田^太郎", study="two", rows=16, columns=16),
    make_instance(number=1, seed="conflict", rows=32, columns=32),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    path = tmp_path_factory.mktemp("catalog") / "archive"
    Archive.init(path)
    add(path, *FILES)
    with Archive.open(path) as opened:
        yield opened
    assert check(path, verify_files=True).problems == []


@pytest.fixture
def view(archive: Archive) -> Iterator[View]:
    with archive.view() as opened:
        yield opened


def directories(view: View, ino: int = 2) -> Iterator[int]:
    yield ino
    for child, is_directory, *_ in children(view, ino):
        if is_directory:
            yield from directories(view, child)


def test_hierarchy(view: View) -> None:
    patients = list(view.patients())
    assert [patient.attributes["PatientID"] for patient in patients] == ["DFS-1", "DFS-2"]
    studies = list(view.studies())
    assert [one.key for patient in patients for one in view.studies_of(patient.key)] == [one.key for one in studies]
    first, second = studies
    assert (first.patient, second.patient) == (patients[0].key, patients[1].key)
    assert first.patients == (patients[0].key,)
    assert (first.modalities, second.modalities) == (("CT", "MR"), ("US",))
    assert (first.series, first.instances, second.series, second.instances) == (2, 9, 1, 2)
    assert first.size == sum(map(len, FILES[:8])) + len(FILES[10])
    series = [one for study in studies for one in view.series_of(study.key)]
    assert [(one.study, one.instances, one.attributes["Modality"]) for one in series] == [
        (first.key, 6, "CT"), (first.key, 3, "MR"), (second.key, 2, "US"),
    ]  # fmt: skip
    assert series[2].attributes["SeriesInstanceUID"] == uid("DFS-2", "two", 1)
    instances = [one for parent in series for one in view.instances_of(parent.key)]
    assert len(instances) == len(FILES)
    for instance in instances:
        node = view.node(instance.ino)
        assert node is not None
        assert (node.size, node.mtime_ns, node.is_directory) == (instance.size, instance.mtime_ns, False)
        assert view.ino_of_file(instance.sha256) == instance.ino
        assert instance.ino in view.instances_where_uid(str(instance.attributes["SOPInstanceUID"]))
    assert [instance.current for instance in instances].count(False) == 1
    assert list(view.inodes()) == sorted(view.inodes())
    assert {study.mtime_ns for study in studies} == {instance.mtime_ns for instance in instances}


def test_totals(view: View) -> None:
    totals = view.totals()
    assert (totals.patients, totals.studies, totals.series, totals.instances) == (2, 2, 3, len(FILES))
    assert totals.bytes_in == sum(map(len, FILES))
    assert {name: share.instances for name, share in totals.modalities.items()} == {"CT": 6, "MR": 3, "US": 2}
    # Frames of less than 1,024 bytes stay in the headers; of those of the conflict each is new.
    assert totals.bulk_unique == 9 * 32 * 32 * 2
    for share in (totals, *totals.modalities.values()):
        assert share.bytes_in == share.literal_in + share.bulk_unique + share.saved_by_deduplication
        assert share.saved_by_compression == share.bytes_in - share.saved_by_deduplication - share.bytes_stored
        assert share.saved_by_deduplication >= 0
    assert sum(share.bytes_in for share in totals.modalities.values()) == totals.bytes_in


def test_nodes_and_children_agree(view: View) -> None:
    for ino in directories(view):
        entries = list(children(view, ino))
        assert [child[0] for child in entries] == sorted(child[0] for child in entries)
        here = view.node(ino)
        assert here is not None
        assert here.is_directory
        assert here.subdirectories == sum(child[1] for child in entries)
        for child, is_directory, size, mtime_ns, subdirectories, name in entries:
            node = view.node(child)
            assert node == (child, is_directory, size, mtime_ns, subdirectories, ino, False)
            assert view.child(ino, name) == node
            assert view.path(child) == f"{view.path(ino)}/{name.decode()}"
        names = [child[5].decode() for child in entries]
        assert len({fold(name) for name in names}) == len(names)
        # What is new below a directory is seen from above.
        assert all(here.mtime_ns >= child[3] for child in entries)


def test_a_listing_goes_on_from_any_of_its_entries(view: View) -> None:
    for ino in directories(view):
        whole = list(children(view, ino))
        for at, child in enumerate(whole):
            assert list(children(view, ino, child[0])) == whole[at + 1 :]
        assert list(children(view, ino, 0)) == whole
        # One that is gone in the meantime, too.
        assert list(children(view, ino, 1)) == whole


def test_names_are_exact(view: View) -> None:
    ((first, *_),) = [list(children(view, 2))[:1]]
    name = first[5]
    assert view.child(2, name) is not None
    for other in (name.upper(), name.lower(), name + b"\0", name[:-1], b"", b".", b"..", b"x" * 5000, b"\xff" * 300):
        if other != name:
            assert view.child(2, other) is None
    assert view.child(99, name) is None
    assert view.child(first[0], name) is None


@pytest.mark.parametrize("ino", [0, 3, 1023, 999_999, 1 << 40, (1 << 63) - 1])
def test_numbers_of_nothing(view: View, ino: int) -> None:
    assert view.node(ino) is None
    assert list(children(view, ino)) == []
    with pytest.raises(NotFound):
        view.instance(ino)
    with pytest.raises(NotFound):
        view.path(ino) if ino else view.instance(ino)
    for read in (view.patient, view.study, view.series):
        with pytest.raises(NotFound):
            read(ino)
    for walk in (view.studies_of, view.series_of, view.instances_of):
        assert list(walk(ino)) == []


def test_a_directory_is_no_instance(view: View) -> None:
    directory = next(children(view, 2))[0]
    with pytest.raises(NotFound):
        view.instance(directory)
    assert view.path(1) == ""
    assert view.path(2) == "patients"


def test_a_view_stays_as_it_is(archive_path: Path) -> None:
    """One state for as long as it is open, whatever is imported meanwhile by another process."""
    import subprocess
    import sys

    add(archive_path, *FILES[:2])
    more = archive_path.parent / "more"
    more.write_bytes(FILES[5])
    command = (
        "import sys, pathlib; from dicomfs.archive.ingest import ImportOptions, import_paths;"
        "import_paths(pathlib.Path(sys.argv[1]), [pathlib.Path(sys.argv[2])], ImportOptions(jobs=1))"
    )
    with Archive.open(archive_path) as opened:
        with opened.view() as before:
            seq, totals = before.seq, before.totals()
            subprocess.run([sys.executable, "-c", command, str(archive_path), str(more)], check=True)
            assert (before.seq, before.totals()) == (seq, totals)
            assert len(next(before.studies()).modalities) == 1
        with opened.view() as after:
            assert after.seq == seq + 1
            assert after.totals().instances == 3
            changes = after.changes(seq)
            assert changes.seq == seq + 1
            assert changes.complete
            assert {1, 2} < changes.directories
            assert changes.removed == ()
            everything = after.changes(0)
            assert everything.complete
            assert set(directories(after)) | {1} == everything.directories


def test_changes_of_long_ago_are_not_known(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHANGES_KEPT", 2)
    for number in range(1, 5):
        add(archive_path, make_instance(number=number, rows=16, columns=16))
    with Archive.open(archive_path) as opened, opened.view() as view:
        assert [view.changes(since).complete for since in range(5)] == [False, False, True, True, True]
    monkeypatch.undo()
    # Tables made with another limit are not what a check expects.
    from dicomfs.archive.rebuild import reindex

    reindex(archive_path)


def test_counts_follow_every_import(archive_path: Path) -> None:
    seen = []
    for number in range(1, 4):
        add(archive_path, make_instance(number=number, series=number, rows=16, columns=16))
        with Archive.open(archive_path) as opened, opened.view() as view:
            (study,) = view.studies()
            root, patients = view.node(2), [child[4] for child in children(view, 2)]
            assert root is not None
            seen.append((study.series, study.instances, root.subdirectories, patients))
    assert seen == [(1, 1, 1, [1]), (2, 2, 1, [1]), (3, 3, 1, [1])]


# Queries against a model that looks at every value.

VALUES = st.text(
    st.sampled_from("abAB19*?[]^= ßüÜi̇İ山\u0308-._") | st.characters(exclude_categories=["Cs"]), max_size=12
)
PATTERNS = st.lists(
    st.sampled_from(["*", "?", "a", "B", "1", "9", "ü", "ß", "[", "]", "山", "-", "."]), max_size=6
).map("".join)
DATES = st.sampled_from(["", "20240101", "20240131", "20231231", "2024", "20240200", "garbage", "20240131\\20240201"])


class Model:
    """Studies in a catalog filled directly, and a search through all of them."""

    def __init__(self, root: Path) -> None:
        (root / "packs").mkdir(parents=True)
        (root / "index").mkdir()
        self.store = Store(root, tables.TABLES, writable=True)
        self.values: dict[int, dict[str, str]] = {}

    def fill(self, studies: list[dict[str, str]]) -> None:
        txn = self.store.index.begin(write=True)
        filling = Fold(self.store, txn, 1, 1)
        for attributes in studies:
            number = filling.next
            held = {field: value for field, value in attributes.items() if value}
            patient = {field: held[field] for field in ("PatientID", "PatientName") if field in held}
            study = {field: held[field] for field in ("AccessionNumber", "StudyDate") if field in held}
            filling.patient(number, f"{number:032x}", patient)
            filling.study(number + 1, f"{number + 1:032x}", number, study)
            filling.study_patient(number + 1, number)
            filling.series(number + 2, f"{number + 2:032x}", number + 1, {"Modality": held.get("Modality", "")})
            self.values[number + 1] = attributes
        filling.finish("import", "somebody")
        txn.commit()

    def expected(self, field: str, pattern: str) -> set[int]:
        def folded(text: str) -> str:
            return tables.folded(text).decode("utf-8", "surrogateescape")

        wanted = re.sub(r"\[", "[[]", folded(pattern))
        return {
            key
            for key, held in self.values.items()
            if any(fnmatchcase(folded(part), wanted) for part in self.parts(held.get(field, "")))
        }

    @staticmethod
    def parts(value: str) -> set[str]:
        """A value, and each of several values or groups of a person's name."""
        parts = re.split(r"[\\=]", value)
        return {value, *(part.strip() for part in parts if len(parts) > 1)}

    def found(self, field: str, pattern: str) -> set[int]:
        with self.store.index.reading() as txn:
            return View(self.store, txn).studies_where(field, pattern)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_patterns_agree_with_a_search(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    fields = ("PatientID", "PatientName", "AccessionNumber", "Modality")
    model = Model(tmp_path_factory.mktemp("model"))
    model.fill(data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(fields, VALUES)), max_size=8)))
    known = [value for held in model.values.values() for value in held.values()]
    for field in fields:
        for _ in range(3):
            pattern = data.draw(PATTERNS | (st.sampled_from(known) if known else PATTERNS))
            assert model.found(field, pattern) == model.expected(field, pattern), (field, pattern)
    model.store.close()


@settings(deadline=None, max_examples=25)
@given(dates=st.lists(DATES, max_size=10), first=DATES, last=DATES)
def test_date_ranges_agree_with_a_search(
    tmp_path_factory: pytest.TempPathFactory, dates: list[str], first: str, last: str
) -> None:
    model = Model(tmp_path_factory.mktemp("model"))
    model.fill([{"StudyDate": date} for date in dates])
    for low, high in ((first, last), ("", last), (first, "")):
        pattern = f"{low}-{high}"
        if pattern == "-" or not re.fullmatch(r"(\d{8})?-(\d{8})?", pattern):
            continue
        expected = {
            key
            for key, held in model.values.items()
            if any(
                part[:1].isdigit() and (low or "0") <= part[:8] <= (high or "9999999999")
                for part in Model.parts(held["StudyDate"])
            )
        }
        assert model.found("StudyDate", pattern) == expected, (pattern, dates)
    model.store.close()


@pytest.mark.parametrize(
    ("value", "pattern", "matches"),
    [
        ("DOE^JANE", "doe^jane", True),
        ("Müller", "MÜLLER", True),
        ("Mu\u0308ller", "Müller", True),
        ("Straße", "STRASSE", True),
        ("A[1]", "a[1]", True),
        ("A1", "a[1]", False),
        ("x" * 64, "x" * 64, True),
        ("x" * 300 + "a", "x" * 300 + "b", False),
        ("x" * 300 + "a", "x*a", True),
        ("x" * 300 + "a", "*b", False),
        ("山" * 90 + "a", "*a", True),
        ("ab", "a?", True),
        ("a", "a?", False),
        ("", "", True),
        ("", "*", True),
        ("a", "", False),
    ],
    ids=lambda value: str(value)[:12],
)
def test_patterns(tmp_path: Path, value: str, pattern: str, matches: bool) -> None:
    model = Model(tmp_path / "model")
    model.fill([{"PatientName": value}])
    assert bool(model.found("PatientName", pattern)) == matches
    model.store.close()
