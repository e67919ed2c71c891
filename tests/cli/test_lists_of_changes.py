"""What `dicomfs edit` and `dicomfs delete` do is told by deduplicated lists, on the drive and in an export alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dicomfs.archive.archive import Archive
from dicomfs.archive.query import Query
from dicomfs.export_static import export_static
from tests.archive import importing
from tests.archive.test_documents_history import Lists, assert_was, values
from tests.archive.versions import holds
from tests.builders import make_instance, uid
from tests.cli import static_reader as reader
from tests.cli.static_reader import Study, dedup

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

STUDY = uid("DFS-1", 1)
SOPS = [uid("DFS-1", 1, 1, number) for number in (1, 2, 3)]
LARGE = {"EncapsulatedDocument": bytes(range(256)) * 40}


class Told(NamedTuple):
    """What a study's list says."""

    list: str
    superseded: list[str]
    deleted: list[str]
    patient: dict[str, Any]
    patients_before: list[str]
    own: dict[str, str]
    """DeduppedHash by SOP Instance UID."""
    replaced: dict[str, list[str]]
    bulk: set[str]
    """The names of bulk values."""


def of_drive(lists: Lists) -> Told:
    found = lists.now()
    patients = {values(found.of(sop, "patient"), "11")[0]: found.of(sop, "patient") for sop in found.instances}
    ((_, patient),) = patients.items()
    return Told(
        found.hash, values(found.info, "15"), values(found.info, "13"), patient, values(patient, "14"),
        {sop: found.own(sop) for sop in found.instances},
        {sop: values(one, "14") for sop, one in found.instances.items()},
        {way for one in found.instances.values() for _, way in reader.bulk_uris(one)},
    )  # fmt: skip


def of_export(archive: Path, root: Path) -> Told:
    with Archive.open(archive) as opened:
        assert export_static(opened, root, Query()).failed == 0
    study = Study(root, STUDY)
    assert study.read == ["index"]
    (info,) = study.infos
    instances = {sop: one for (_, sop), one in study.instances.items()}
    (patient,) = (one for one in study.extracts.values() if dedup(one, 0x12) == ["patient"])
    return Told(
        dedup(info, 0x11)[0], dedup(info, 0x15), dedup(info, 0x13), patient, dedup(patient, 0x14),
        {sop: dedup(one, 0x11)[0] for sop, one in instances.items()},
        {sop: dedup(one, 0x14) for sop, one in instances.items()},
        {str(path.relative_to(root)) for path in study.directory.glob("bulkdata/*/*/*.mht.gz")},
    )  # fmt: skip


def resolves(root: Path, name: str, told: Told) -> None:
    """A group file that is superseded is whole: each of its instances, and all that these refer to.

    Frames alone go with an instance that is shown no more.
    """
    items = reader.load(root / "deduplicated" / STUDY / f"{name}.gz")
    assert dedup(items[0], 0x11) == [name]
    instances = [item for item in items if dedup(item, 0x12) == ["instance"]]
    assert {one["00080018"]["Value"][0]: dedup(one, 0x11)[0] for one in instances} == told.own
    study = Study(root, STUDY)
    for one in instances:
        assert study.rebuilt(one)["00100010"] == told.patient["00100010"]
        for _, way in reader.bulk_uris(one):
            found = reader.resolved(root, f"studies/{STUDY}/series/{uid('DFS-1', 1, 1)}/metadata", way)
            is_shown = any(sop == one["00080018"]["Value"][0] for _, sop in study.instances)
            assert found.exists() == (is_shown or found.name != "frames")


def test_an_edit_and_a_delete(run: Run, archive_path: Path, tmp_path: Path) -> None:
    importing.add(archive_path, *(make_instance(number=number, attributes=LARGE) for number in (1, 2, 3)))
    lists, root = Lists(archive_path, tmp_path), tmp_path / "tree"
    first_list = lists.now()
    first = of_drive(lists), of_export(archive_path, root)
    for told in first:
        assert (told.superseded, told.deleted, told.patients_before) == ([], [], [])
        assert not any(told.replaced.values())
        assert len(told.bulk) > 0

    words = ("edit", "-a", archive_path, "--study-uid", STUDY, "--set", "PatientName=ROE^JANE", "--reason", "misspelt")
    assert run(*words).status == 0
    second_list = lists.now()
    second = of_drive(lists), of_export(archive_path, root)
    for told, before in zip(second, first, strict=True):
        assert told.patient["00100010"]["Value"] == [{"Alphabetic": "ROE^JANE"}]
        assert told.patients_before == [hash_of(before.patient)]
        assert told.superseded == [before.list]
        assert told.deleted == []
        assert told.own.keys() == before.own.keys()
        assert told.replaced == {sop: [digest] for sop, digest in before.own.items()}
        assert told.bulk == before.bulk
    assert_was(lists, first_list)
    resolves(root, first[1].list, first[1])

    assert run("delete", "-a", archive_path, "--sop-uid", SOPS[2], "--reason", "not hers").status == 0
    third = of_drive(lists), of_export(archive_path, root)
    for told, before in zip(third, second, strict=True):
        assert set(told.own) == set(SOPS[:2])
        assert told.deleted == [before.own[SOPS[2]]]
        assert told.superseded == [before.list]
        assert told.replaced == {sop: before.replaced[sop] for sop in SOPS[:2]}
        assert hash_of(told.patient) == hash_of(before.patient)
    for earlier in (first_list, second_list):
        assert_was(lists, earlier)
    for earlier_told in (first[1], second[1]):
        resolves(root, earlier_told.list, earlier_told)
    holds(archive_path)


def hash_of(held: dict[str, Any]) -> str:
    """Return the DeduppedHash of an object."""
    return values(held, "11")[0]
