"""Projects in a tree: what is shown to whom, under which numbers, and what can be reached besides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.layouts import switch_on
from dicomfs.errors import DicomfsError, NotFound, UsageError
from dicomfs.vfs.node import COMPUTED_SHIFT, PATIENTS, PROJECTS, README, ROOT, Stale, waited
from dicomfs.vfs.tree import Tree
from tests.archive.importing import add
from tests.builders import make_instance
from tests.vfs.committed import Wanted, commit_project, instances, remove_project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dicomfs.vfs.node import Attributes

    Show: TypeAlias = Callable[..., "Shown"]

PHI, DEID = "PHI_heads_20240101-000000", "DeID_heads_20240101-000000"
MADE = make_instance(patient="ANON-1", patient_name="ANON-1", number=2, seed="made")
REASON = "its pixels may show who it is"
IDENTIFIED = {"metadata.xlsx", "run.txt"}
PUBLIC, PRIVATE = {"deid_metadata.xlsx", "run.txt"}, {"linker.xlsx", "metadata.xlsx"}
"""Of the files of a project that is de-identified."""


class Shown:
    """A tree, whose answers are waited for."""

    def __init__(self, archive: Archive, *views: str, **options: bool) -> None:
        self.archive = archive
        self.tree = Tree(archive, views, **options)

    def at(self, path: str) -> Attributes | None:
        """Return what is found by going a path down from the root of the drive."""
        found = waited(lambda: self.tree.attributes(ROOT))
        for name in path.split("/"):
            above, encoded = found, name.encode()
            found = above and waited(lambda above=above, name=encoded: self.tree.lookup(above.ino, name))  # type: ignore[misc]
        return found

    def ino(self, path: str) -> int:
        """Return the inode number of what must be there."""
        found = self.at(path)
        assert found is not None, path
        return found.ino

    def names(self, path: str) -> set[str]:
        """Return what is listed in a directory; each entry must be as it is found by its name and by its number."""
        return {name for name, _, _ in self.entries(self.ino(path))}

    def entries(self, directory: int) -> list[tuple[str, int, bool]]:
        found = []
        cookies = [0]
        for name, ino, is_directory, *told, cookie in waited(lambda: list(self.tree.entries(directory))):
            one = waited(lambda ino=ino: self.tree.attributes(ino))
            assert one is not None
            assert [*one[:5]] == [ino, is_directory, *told], name
            assert waited(lambda name=name: self.tree.lookup(directory, name)) == one, name
            assert not one.private or self.tree.has_private(directory), name
            rest = waited(lambda after=cookies[-1]: list(self.tree.entries(directory, after)))
            assert rest[0][0] == name
            cookies.append(cookie)
            found.append((name.decode(), ino, is_directory))
        return found

    def files(self, path: str) -> dict[str, int]:
        """Return all files below a directory."""

        def walk(directory: int, above: str) -> Iterator[tuple[str, int]]:
            for name, ino, is_directory in self.entries(directory):
                if is_directory:
                    yield from walk(ino, f"{above}{name}/")
                else:
                    yield above + name, ino

        return dict(walk(self.ino(path), ""))

    def read(self, ino: int) -> bytes:
        """Read a file."""
        file = self.tree.open(ino)
        try:
            return bytes(file.read(0, file.size))
        finally:
            file.close()


class Made(NamedTuple):
    """An archive with two projects of the same four instances."""

    path: Path
    inodes: list[int]
    phi: int
    deid: int


def wanted(inodes: list[int]) -> Wanted:
    """Return what is in the project that is de-identified."""
    first, second, third, _ = inodes
    return Wanted(
        derived={"DATE-1/SER-1/1.dcm": (first, MADE), "DATE-1/SER-1/2.dcm": (second, MADE + b"\0\0")},
        withheld={"quarantine/DATE-1/SER-1/3.dcm": (third, REASON)},
    )


@pytest.fixture
def made(archive_path: Path) -> Made:
    add(archive_path, *(make_instance(number=number) for number in (1, 2, 3, 4)))
    inodes = instances(archive_path)
    linked = {f"images/DATE-1--PID-DFS-1/SER-1/{number}.dcm": ino for number, ino in enumerate(inodes[:3], 1)}
    phi = commit_project(archive_path, PHI, Wanted(linked=linked))
    return Made(archive_path, inodes, phi, commit_project(archive_path, DEID, wanted(inodes), deid="basic"))


@pytest.fixture
def show() -> Iterator[Show]:
    shown: list[Shown] = []

    def make(path: Path, *views: str, **options: bool) -> Shown:
        # An index is open once in a process.
        archive = next((one.archive for one in shown if one.archive.path == path), None) or Archive.open(path)
        shown.append(Shown(archive, *views, **options))
        return shown[-1]

    yield make
    for one in shown:
        one.tree.close()
    for archive in {id(one.archive): one.archive for one in shown}.values():
        archive.close()


def test_projects_are_shown_as_they_were_made(made: Made, show: Show) -> None:
    shown = show(made.path)
    assert {PHI, DEID} == shown.names("projects")
    assert shown.ino("projects") == PROJECTS
    first, second, third, _ = made.inodes
    phi = shown.files(f"projects/{PHI}")
    assert {path: ino for path, ino in phi.items() if path.endswith(".dcm")} == {
        f"images/DATE-1--PID-DFS-1/SER-1/{number}.dcm": ino for number, ino in enumerate((first, second, third), 1)
    }
    assert {path for path in phi if "/" not in path} == IDENTIFIED
    deid = shown.files(f"projects/{DEID}")
    assert set(deid) == PUBLIC | PRIVATE | {
        "DATE-1/SER-1/1.dcm", "DATE-1/SER-1/2.dcm",
        "quarantine/DATE-1/SER-1/3.dcm", "quarantine/DATE-1/SER-1/3.txt",
    }  # fmt: skip
    assert deid["quarantine/DATE-1/SER-1/3.dcm"] == third
    assert deid["DATE-1/SER-1/1.dcm"] not in made.inodes
    assert shown.read(deid["DATE-1/SER-1/1.dcm"]) == MADE
    assert shown.read(deid["quarantine/DATE-1/SER-1/3.txt"]).decode() == f"{REASON}\n"


def test_ways_up_lead_to_the_root(made: Made, show: Show) -> None:
    shown = show(made.path)
    for path in (f"projects/{DEID}/quarantine/DATE-1/SER-1/3.txt", f"projects/{DEID}/linker.xlsx", f"projects/{PHI}"):
        *above, _ = path.split("/")
        for depth in range(len(above) + 1):
            ino = shown.ino("/".join(path.split("/")[: depth + 1]))
            parent = shown.ino("/".join(above[:depth])) if depth else ROOT
            assert shown.tree.parent(ino) == parent
            assert shown.tree.lookup(ino, b"..") == shown.tree.attributes(parent)


def test_what_is_private_says_so(made: Made, show: Show) -> None:
    shown = show(made.path)
    root = f"projects/{DEID}"
    for path in (
        *PRIVATE,
        "quarantine",
        "quarantine/DATE-1",
        "quarantine/DATE-1/SER-1",
        "quarantine/DATE-1/SER-1/3.txt",
    ):
        found = shown.at(f"{root}/{path}")
        assert found is not None
        assert found.private, path
    for path in (*PUBLIC, "DATE-1", "DATE-1/SER-1/1.dcm"):
        found = shown.at(f"{root}/{path}")
        assert found is not None
        assert not found.private, path
    assert not any(shown.tree.attributes(ino).private for ino in shown.files("patients").values())  # type: ignore[union-attr]
    phi = shown.files(f"projects/{PHI}").values()
    assert not any(waited(lambda ino=ino: shown.tree.attributes(ino)).private for ino in phi)  # type: ignore[union-attr, misc]


def test_where_others_may_look_what_is_private_is_not_there(made: Made, show: Show) -> None:
    mine, shown = show(made.path), show(made.path, private=False)
    root = f"projects/{DEID}"
    assert shown.names(root) == {"DATE-1"} | PUBLIC
    hidden = [*PRIVATE, "quarantine", "quarantine/DATE-1", "quarantine/DATE-1/SER-1", "quarantine/DATE-1/SER-1/3.txt"]
    numbers = [mine.ino(f"{root}/{path}") for path in hidden]
    for path, ino in zip(hidden, numbers, strict=True):
        assert shown.at(f"{root}/{path}") is None
        assert_out_of_reach(shown, ino)
    there, all_there = shown.at(root), mine.at(root)
    assert there is not None
    assert all_there is not None
    assert (there.nlink, all_there.nlink) == (3, 4)
    assert shown.names("patients") == mine.names("patients")
    asked = show(made.path, private=False, private_tables=True)
    assert asked.names(root) == mine.names(root)
    assert [asked.ino(f"{root}/{path}") for path in hidden] == numbers


def assert_out_of_reach(shown: Shown, ino: int) -> None:
    """Nothing leads to a node, whoever knows its number."""
    tree = shown.tree
    assert waited(lambda: tree.attributes(ino)) is None
    assert waited(lambda: tree.lookup(ino, b".")) is None
    assert tree.lookup(ino, b"..") is None
    assert waited(lambda: list(tree.entries(ino))) == []
    with pytest.raises(NotFound):
        waited(lambda: tree.open(ino))
    with pytest.raises(NotFound):
        waited(lambda: tree.open_ready(ino))
    assert tree.xattr_names(ino) == []
    for name in (b"user.dicom.PatientID", b"user.dicom.StudyDate", b"user.dicomfs.sha256"):
        assert tree.xattr(ino, name) is None


@pytest.mark.parametrize("private", [False, True])
def test_a_drive_of_one_project_leads_nowhere_else(made: Made, show: Show, *, private: bool) -> None:
    for name in ("archive", "omidb"):
        switch_on(made.path, name, built_in()[name])
    everything = show(made.path)
    shown = show(made.path, f"projects/{DEID}", private=private)
    assert {entry[0] for entry in shown.tree.entries(ROOT)} == {b"README.txt", b"projects"}
    assert shown.names("projects") == {DEID}
    assert shown.at("patients") is None
    assert shown.at(f"projects/{PHI}") is None
    inside = {ino for _, ino, _ in below(shown, ROOT)}
    known = inside | {ROOT, README}
    assert PROJECTS in inside
    assert made.inodes[2] in inside if private else made.inodes[2] not in inside
    # Every number that the whole drive knows, and all that could be guessed.
    outside = {ino for _, ino, _ in below(everything, ROOT)} | set(range(2, max(made.inodes) + 200))
    outside |= {ino + (3 << COMPUTED_SHIFT) for ino in range(64)}
    assert PATIENTS in outside
    for ino in outside - known:
        assert_out_of_reach(shown, ino)
    for ino in inside:
        assert shown.tree.parent(ino) in (None, *known)
    assert shown.files(f"projects/{DEID}") == {
        path: ino
        for path, ino in everything.files(f"projects/{DEID}").items()
        if private or (path not in PRIVATE and not path.startswith("quarantine"))
    }


@pytest.mark.parametrize("view", ["archive", "omidb"])
def test_a_drive_of_one_layout_leads_nowhere_else(made: Made, show: Show, view: str) -> None:
    for name in ("archive", "omidb"):
        switch_on(made.path, name, built_in()[name])
    everything = show(made.path)
    shown = show(made.path, view, private=False)
    assert {entry[0] for entry in shown.tree.entries(ROOT)} == {b"README.txt", view.encode()}
    known = {ino for _, ino, _ in below(shown, ROOT)} | {ROOT, README}
    assert set(made.inodes) < known
    for ino in {ino for _, ino, _ in below(everything, ROOT)} | set(range(2, max(made.inodes) + 200)):
        if ino not in known:
            assert_out_of_reach(shown, ino)


def below(shown: Shown, directory: int) -> Iterator[tuple[str, int, bool]]:
    for entry in shown.entries(directory):
        yield entry
        if entry[2]:
            yield from below(shown, entry[1])


def test_an_original_that_is_withheld_is_private_where_it_is_seen_nowhere_else(made: Made, show: Show) -> None:
    """Its number could be guessed, and no directory keeps anybody from that."""
    path = f"projects/{DEID}/quarantine/DATE-1/SER-1/3.dcm"
    for views, private in (((f"projects/{DEID}",), True), (("projects",), False), ((), False)):
        found = show(made.path, *views).at(path)
        assert found is not None
        assert found.private == private, views


def test_a_drive_of_some_projects_counts_those_alone(made: Made, show: Show) -> None:
    assert show(made.path).tree.statistics().files == 4
    deid = show(made.path, f"projects/{DEID}", private=False)
    assert waited(deid.tree.statistics) == (2, 2 * len(MADE) + 2)
    assert waited(show(made.path, f"projects/{DEID}").tree.statistics).files == 3
    assert waited(show(made.path, f"projects/{PHI}").tree.statistics).files == 3
    assert waited(show(made.path, "projects").tree.statistics).files == 6
    assert show(made.path, "projects", "patients").tree.statistics().files == 4


def test_views_may_name_a_project(made: Made, show: Show) -> None:
    for name in ("projects/", "projects/DeID_other", "projects/..", f"projects/{DEID}/DATE-1", f"projects/{DEID}/"):
        with pytest.raises(UsageError, match="there is no project"):
            show(made.path, name)
    both = show(made.path, f"projects/{DEID}", f"projects/{PHI}", "patients")
    assert both.names("projects") == {PHI, DEID}
    assert "quarantine" not in {entry[0] for entry in both.tree.entries(ROOT)}


def test_derived_files_tell_what_their_own_headers_say(made: Made, show: Show) -> None:
    shown = show(made.path)
    ino = shown.ino(f"projects/{DEID}/DATE-1/SER-1/1.dcm")
    tree = shown.tree
    assert tree.xattr_names(ino) == []
    assert tree.xattr(ino, b"user.dicom.PatientID") == b"ANON-1"
    assert tree.xattr(ino, b"user.dicom.PatientName") == b"ANON-1"
    assert tree.xattr(ino, b"user.dicomfs.sha256") is None
    assert not tree.xattr_is_quick(ino, b"user.dicom.PatientID")
    original = made.inodes[0]
    assert tree.xattr(original, b"user.dicom.PatientID") == b"DFS-1"
    assert tree.xattr_is_quick(original, b"user.dicom.PatientID")


def test_a_table_that_cannot_be_made_keeps_nothing_else_from_being_seen(
    made: Made, show: Show, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made.path / "cache" / "projects").write_bytes(b"in the way")
    shown = show(made.path)
    root = shown.ino(f"projects/{PHI}")
    assert {name for name, _, _ in shown.entries(root)} == {"images"} | IDENTIFIED
    found = shown.at(f"projects/{PHI}/run.txt")
    assert found is not None
    assert found.size == 0
    with pytest.raises(DicomfsError, match="cannot be made"):
        shown.read(found.ino)
    assert "cannot be written" in caplog.text
    caplog.clear()
    (made.path / "cache" / "projects").unlink()
    monkeypatch.setattr("dicomfs.vfs.project_files._AGAIN_S", 0.0)
    again = shown.at(f"projects/{PHI}/run.txt")
    assert again is not None
    assert again.ino != found.ino
    assert shown.tree.attributes(found.ino) is None
    assert shown.read(again.ino).startswith(b"project")


def test_tables_are_made_again_when_the_cache_is_gone(made: Made, show: Show) -> None:
    shown = show(made.path)
    path = f"projects/{PHI}/run.txt"
    before = shown.ino(path)
    text = shown.read(before)
    shutil.rmtree(made.path / "cache" / "projects")
    with pytest.raises(Stale):
        shown.tree.open(before)
    assert shown.ino(path) == before
    assert shown.read(before) == text


@pytest.mark.parametrize("views", [(), ("patients",), ("dicomweb",)])
def test_a_shared_drive_keeps_private_what_its_views_do_not_show(
    made: Made, show: Show, views: tuple[str, ...]
) -> None:
    everything = show(made.path)
    shown = show(made.path, *views, private=False)
    deid = everything.files(f"projects/{DEID}")
    hidden = {everything.ino(f"projects/{DEID}/quarantine"), *(deid[name] for name in PRIVATE)}
    if views:
        hidden |= {
            PROJECTS,
            made.phi,
            made.deid,
            *(ino for path, ino in deid.items() if path.endswith(("1.dcm", ".txt"))),
        }
    if views == ("dicomweb",):
        hidden |= {PATIENTS, *made.inodes}
    for ino in hidden:
        assert_out_of_reach(shown, ino)


def test_a_removed_project_is_out_of_reach_where_others_may_look(made: Made, show: Show) -> None:
    everything = show(made.path)
    inside = {ino for _, ino, _ in below(everything, everything.ino(f"projects/{DEID}"))} - set(made.inodes)
    everything.archive.close()
    remove_project(made.path, made.deid)
    shown = Shown(Archive.open(made.path), private=False)
    for ino in {made.deid, *inside}:
        assert_out_of_reach(shown, ino)
    shown.tree.close()
    shown.archive.close()


def test_links_are_never_too_few(made: Made, show: Show) -> None:
    def links(shown: Shown, path: str) -> int:
        found = shown.at(path)
        assert found is not None
        return found.nlink

    image = f"projects/{PHI}/images/DATE-1--PID-DFS-1/SER-1/3.dcm"
    derived = f"projects/{DEID}/DATE-1/SER-1/1.dcm"
    shown = show(made.path)
    assert links(shown, image) == 3
    assert links(shown, derived) == 1
    assert links(show(made.path, private=False), image) == 2
    assert links(show(made.path, f"projects/{PHI}"), image) == 1


def test_without_projects_there_is_no_directory(archive_path: Path, show: Show) -> None:
    shown = show(archive_path)
    assert shown.at("projects") is None
    assert shown.tree.attributes(PROJECTS) is None
    assert show(archive_path, "projects").names("projects") == set()
