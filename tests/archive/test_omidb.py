"""The layout of OMI-DB: which names clients get, and that they keep them."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import attachments, clients, omidb
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.clients import with_prefix
from dicomfs.archive.layout import Layout
from dicomfs.archive.layout_values import uid as as_uid
from dicomfs.archive.layouts import switch_off, switch_on
from dicomfs.archive.previewing import preview
from dicomfs.archive.rebuild import reindex
from dicomfs.errors import UsageError
from tests.archive.importing import add, tables
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = built_in()["omidb"]
NBSS = b"{}\n"


def names(archive_path: Path, name: str = "omidb") -> list[str]:
    """Return the clients of the layout, in the order in which they got their names."""
    with Archive.open(archive_path) as archive, archive.view() as view:
        root = next(state.root for state in view.layouts() if state.name == name)
        images = view.child(root, b"images")
        assert images is not None
        return [child[0].decode() for child in view.children(images.ino, 0, 1, lambda _: None)]


def paths(archive_path: Path) -> list[str]:
    """Return the paths of all instances in the layout."""
    with Archive.open(archive_path) as archive, archive.view() as view:
        return [
            f"{view.path(directory)}/{name.decode()}"
            for study in view.studies()
            for series in view.series_of(study.key)
            for instance in view.instances_of(series.key)
            for _, directory, name in view.links(instance.ino)
        ]


def patients(archive_path: Path, *ids: str) -> None:
    """Import an instance of each of these patients, in this order."""
    for one in ids:
        add(archive_path, make_instance(patient=one))


@pytest.mark.parametrize(
    ("patient_id", "expected"),
    [
        ("optm1", "optm1"),
        ("demd7050", "demd7050"),
        ("OPTM12 ", "OPTM12"),
        ("demd000001", "demd000001"),  # six digits are less than a given name has
        ("optm0000001", "optm0000001"),  # another prefix
        ("demd0000001", "demd0000009"),
        ("DEMD0000001", "demd0000009"),
        ("demd07050000", "demd0000009"),
        ("optm", "demd0000009"),
        ("optm1a", "demd0000009"),
        ("opt1", "demd0000009"),
        ("optms1", "demd0000009"),
        ("", "demd0000009"),
        ("../../etc/passwd", "demd0000009"),
        ("optm٣", "demd0000009"),
        ("abcd" + "1" * 61, "demd0000009"),
    ],
)
def test_an_identifier_of_the_form_is_kept(patient_id: str, expected: str) -> None:
    assert next(clients.names(patient_id, "demd", 9)) == expected


def test_names_that_are_given_are_never_kept() -> None:
    for number in (1, 999_999, 1_000_000, 123_456_789):
        given = next(clients.names("", "demd", number))
        assert re.fullmatch("demd0[0-9]{6,}", given)
        assert next(clients.names(given, "demd", 7)) != given


@pytest.mark.parametrize("text", ["1.2.840", "", "0.1", "1." * 20 + "7"])
def test_a_uid_stays_what_it_is(text: str) -> None:
    assert as_uid(text) == text


@pytest.mark.parametrize("text", ["abc", "12", "1..2", "1.2 ", "../..", "1." * 40 + "7", "É", "\udc80"])
def test_what_is_no_uid_becomes_one(text: str) -> None:
    made = as_uid(text)
    assert re.fullmatch(r"2\.25\.[0-9]{1,39}", made)
    assert made == as_uid(text) != as_uid(text + "x")


@pytest.mark.parametrize(
    "template",
    ["a{client}/{n}.dcm", "{client}a/{n}.dcm", "{client}", "x/{client:demd}", "{client}{study}/{n}.dcm",
     "{client:dem}/{n}.dcm", "{client:}/{n}.dcm", "{client:d_md}/{n}", "{client}{Modality}/{n}", "{client:a/b}/{n}"],
)  # fmt: skip
def test_a_client_is_the_whole_name_of_a_directory(template: str) -> None:
    with pytest.raises(UsageError, match=r"^layout: character \d+: .*(client|letters)"):
        Layout.parse(template)


def test_the_prefix_of_a_template() -> None:
    assert with_prefix(TEMPLATE, "optm") == TEMPLATE.replace("demd", "optm")
    assert with_prefix("{client}/{n}", "abcd") == "{client:abcd}/{n}"
    for template, prefix in ((TEMPLATE, "opt"), (TEMPLATE, "op/m"), (TEMPLATE, "öptm"), ("{n}", "optm")):
        with pytest.raises(UsageError):
            with_prefix(template, prefix)
    assert omidb.shows_data(TEMPLATE)
    assert omidb.shows_data(with_prefix(TEMPLATE, "Abcd"))
    assert not omidb.shows_data(built_in()["archive"])
    assert not omidb.shows_data(TEMPLATE.replace("images", "image"))


def test_clients_are_numbered_as_they_come(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    patients(archive_path, "A/B", "optm12", "..", "demd0000003", "A/B", "demd3")
    assert names(archive_path) == ["demd0000001", "optm12", "demd0000003", "demd0000004", "demd3"]
    first = f"omidb/images/demd0000001/{uid('A/B', 1)}/{uid('A/B', 1, 1, 1)}.dcm"
    assert first in paths(archive_path)


def test_names_that_look_the_same(archive_path: Path) -> None:
    """Two patients never share one, whatever their issuers and whatever the case."""
    switch_on(archive_path, "omidb", TEMPLATE)
    add(archive_path, make_instance(patient="optm1"))
    add(archive_path, make_instance(patient="optm1", study=2, attributes={"IssuerOfPatientID": "X"}))
    add(archive_path, make_instance(patient="OPTM1", study=3))
    assert names(archive_path) == ["optm1", "demd0000002", "demd0000003"]


def test_a_study_without_a_patient_id_is_its_own_client(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    for study in (1, 2, 1):
        add(archive_path, make_instance(study=study, series=study, attributes={"PatientID": None}))
    assert names(archive_path) == ["demd0000001", "demd0000002"]


def test_names_follow_from_uids_alone(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    hostile = make_instance()
    for known in (uid("DFS-1", 1), uid("DFS-1", 1, 1, 1)):
        hostile = hostile.replace(known.encode(), b"a/../b".ljust(len(known), b"/"))
    add(archive_path, hostile)
    (path,) = paths(archive_path)
    assert re.fullmatch(r"omidb/images/demd0000001/2\.25\.\d+/2\.25\.\d+\.dcm", path)


def test_the_layout_may_go_and_come(archive_path: Path) -> None:
    patients(archive_path, "B", "A")
    switch_on(archive_path, "omidb", TEMPLATE)
    before = paths(archive_path)
    switch_off(archive_path, "omidb")
    patients(archive_path, "0")
    switch_on(archive_path, "omidb", TEMPLATE)
    assert set(before) < set(paths(archive_path))
    assert names(archive_path) == ["demd0000001", "demd0000002", "demd0000003"]
    switch_on(archive_path, "other", with_prefix(TEMPLATE, "optm"))
    assert names(archive_path, "other") == ["optm0000001", "optm0000002", "optm0000003"]


def test_a_preview_names_clients(archive_path: Path) -> None:
    patients(archive_path, "B", "optm1", "A")
    with Archive.open(archive_path) as archive:
        found = [one.path.split("/")[1] for one in preview(archive, Layout.parse(TEMPLATE), limit=9, of_series=9)]
    assert found == ["demd0000001", "optm1", "demd0000003"]


def test_a_rebuild_gives_the_same(archive_path: Path) -> None:
    switch_on(archive_path, "omidb", TEMPLATE)
    patients(archive_path, "B", "optm1")
    attachments.attach(archive_path, "B", NBSS, "nbss_b.json")
    add(archive_path, make_instance(patient="B", seed="replaced"), on_conflict="replace")
    attachments.attach(archive_path, "B", b"{}", "empty.json")
    attachments.attach(archive_path, "optm1", NBSS, "same.json")
    attachments.detach(archive_path, "optm1")
    before, index = paths(archive_path), tables(archive_path)
    shutil.rmtree(archive_path / "index")
    assert reindex(archive_path).complete
    assert tables(archive_path) == index
    assert paths(archive_path) == before
