"""Documents that are attached to patients: which are taken, that each version stays, and how they are completed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import attachments, nbss
from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.fold import fold_meta
from dicomfs.archive.ingest import open_for_writing
from dicomfs.errors import Damaged, NotFound, UsageError
from dicomfs.store.writer import Writer
from tests.archive.importing import add
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path

NBSS = b'{"7": {"EpisodeOpenedDate": "2024-01-01"},\n "note": 1.50}\n'


def patients(archive_path: Path, *ids: str) -> None:
    """Import an instance of each of these patients, in this order."""
    for one in ids:
        add(archive_path, make_instance(patient=one))


def versions(archive_path: Path) -> list[tuple[str, str, str, bytes | None]]:
    """Return what is attached: patient, status, name and bytes."""
    with Archive.open(archive_path) as archive:
        with archive.view() as view:
            found = list(attachments.listed(view))
            held = list(view.attachments())
        return [
            (one.patient_id, one.status, one.name, attachments.read(archive, kept) if kept.is_there else None)
            for one, kept in zip(found, held, strict=True)
        ]


def test_every_version_of_an_attachment_is_kept(archive_path: Path) -> None:
    patients(archive_path, "A", "B")
    first = attachments.attach(archive_path, "A", NBSS, "one.json")
    assert attachments.attach(archive_path, "A", NBSS, "again.json") is None
    attachments.attach(archive_path, "B", NBSS, "b.json")
    second = attachments.attach(archive_path, "A", b"{}", "two.json")
    assert first is not None
    assert second is not None
    assert first.number < second.number
    assert first.time_ns < second.time_ns
    assert versions(archive_path) == [
        ("A", "earlier", "one.json", NBSS), ("B", "shown", "b.json", NBSS), ("A", "shown", "two.json", b"{}"),
    ]  # fmt: skip
    assert attachments.detach(archive_path, "A") is not None
    assert attachments.detach(archive_path, "A") is None
    assert [status for _, status, _, _ in versions(archive_path)] == ["earlier", "shown", "earlier", "removed"]
    attachments.attach(archive_path, "A", NBSS, "back.json")
    assert versions(archive_path)[-1] == ("A", "shown", "back.json", NBSS)
    assert check(archive_path, verify_files=True).notes == []


def test_whose_an_attachment_is(archive_path: Path) -> None:
    add(archive_path, make_instance(patient="A"))
    add(archive_path, make_instance(patient="A", study=2, attributes={"IssuerOfPatientID": "X"}))
    add(archive_path, make_instance(study=3, attributes={"PatientID": None}))
    for patient_id, issuer in (("A", None), ("a", ""), ("A", "Y"), ("", None), ("*", None), ("?", None)):
        with pytest.raises(UsageError) as error:
            attachments.attach(archive_path, patient_id, NBSS, "x.json", issuer=issuer)
        assert f"'{patient_id}'" not in str(error.value) or not patient_id
    assert attachments.attach(archive_path, "A", NBSS, "x.json", issuer="X") is not None
    assert attachments.attach(archive_path, "A", NBSS, "x.json", issuer="") is not None
    with Archive.open(archive_path) as archive, archive.view() as view:
        assert [one.issuer for one in attachments.listed(view)] == ["X", ""]
        patient = attachments.identity_of(view, "A", "X")
        assert [one.issuer for one in attachments.listed(view, patient)] == ["X"]
        with pytest.raises(NotFound):
            view.attachment(1)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "line 1, column 1"),
        (b"[]", "does not begin with {"),
        (b"7", "does not begin with {"),
        (b'{"a": 1,}', r"line 1, column \d"),
        (b'{"a":\n\n oops}', "line 3, column 2"),
        (b'{"a": NaN}', "number"),
        (b'{"a": ' + b"1" * 5000 + b"}", "number"),
        (b'{"a": "\xff"}', "UTF-8, at byte 7"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "deeper than"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeper than"),
        (b" " * (nbss.MAX_BYTES + 1), "longer than"),
    ],
)
def test_what_is_no_document_is_refused(archive_path: Path, document: bytes, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        attachments.attach(archive_path, "A", document, "x.json")


def test_the_episode_of_a_study() -> None:
    episodes = nbss.Episodes(
        nbss.require(
            b"""{"1": {"EpisodeOpenedDate": "20100101", "EpisodeClosedDate": "20101231"},
            "2": {"EpisodeOpenedDate": "2010-06-01", "EpisodeClosedDate": "2010-07-01"},
            "3": {"EpisodeOpenedDate": "2015-01-01"},
            "4": {"SCREENING": {"L": {"DateTaken": "2010-02-02"}, "R": {"DateTaken": "not a date"}},
                  "OTHERSCREENING": {"1": {"R": {"DateTaken": "20160101"}}}},
            "5": {"SURGERY": {"L": {"x": {"DatePerformed": "2016-02-02"}, "y": 7}, "dateperformed": "2016-03-03"}},
            "8": {"EpisodeOpenedDate": "20180101", "EpisodeIsClosed": "Y"},
            "6": 7, "1.2.3": {}, "1.2.4": []}"""
        )
    )
    day = nbss.day_of
    assert episodes.of("s", day("20100301")) == "1"
    assert episodes.of("s", day("20100615")) == "2"
    assert episodes.of("s", day("20100202")) == "4"
    assert episodes.of("s", day("20160101")) == "4"
    assert episodes.of("s", day("20160202")) == episodes.of("s", day("20160303")) == "5"
    assert episodes.of("s", day("20200101")) == "3"
    assert episodes.of("s", day("20180101")) == "8"
    assert episodes.of("s", day("20000101")) == episodes.of("s", None) == "s"
    assert episodes.of("1.2.3", day("20100301")) == "1.2.3"
    assert episodes.of("1.2.4", None) == "1.2.4-"
    assert episodes.has("1")
    assert not episodes.has("6")


@pytest.mark.parametrize("document", [NBSS, b"{}", b" { } \n", b'{"a": "}{"}', b'{"a": {"b": {}}}'])
def test_a_document_keeps_its_bytes(document: bytes) -> None:
    assert nbss.completed(document, {}) == document
    shown = nbss.completed(document, {'1."2': "20240131", "x": "19000101"})
    assert json.loads(shown) == json.loads(document) | {
        '1."2': {"EpisodeOpenedDate": "20240131"}, "x": {"EpisodeOpenedDate": "19000101"},
    }  # fmt: skip
    assert shown.startswith(document.rstrip().removesuffix(b"}"))


@pytest.mark.damaged
def test_a_document_that_is_hurt_is_found_and_mended(archive_path: Path) -> None:
    patients(archive_path, "A")
    document = json.dumps({str(number): {"note": "x" * number} for number in range(50)}).encode()
    attachments.attach(archive_path, "A", document, "one.json")
    pack = max((archive_path / "packs").iterdir())
    data = bytearray(pack.read_bytes())
    at = data.index(b"o/") + 2 + 64 + 10
    data[at : at + 40] = bytes(40)
    pack.write_bytes(data)
    problems = check(archive_path, verify_files=True).problems
    assert sorted(problem.kind for problem in problems) == ["attachment", "blob"]
    with Archive.open(archive_path) as archive:
        with archive.view() as view:
            (one,) = view.attachments()
        with pytest.raises(Damaged):
            attachments.read(archive, one)
    assert attachments.attach(archive_path, "A", document, "one.json") is not None
    assert check(archive_path, verify_files=True).problems == []
    assert [held for *_, held in versions(archive_path)] == [document, document]


def test_an_archive_without_attachments_is_written_as_before(archive_path: Path) -> None:
    patients(archive_path, "A")
    with Archive.open(archive_path) as archive, archive.store.index.reading() as txn:
        meta = archive.store.read_meta(archive.store.commit_place(txn, 1))
    assert "attachments" not in json.loads(meta)


@pytest.mark.parametrize(
    "row",
    [
        [],
        7,
        [2000, "00" * 16, "nbss", "x.json", "00" * 32],
        [2000, "00" * 15, "nbss", "x.json", "00" * 32, 1],
        [2000, "zz" * 16, "nbss", "x.json", "00" * 32, 1],
        [2000, 7, "nbss", "x.json", "00" * 32, 1],
        [2000, "00" * 16, "nbss", "x.json", "00" * 31, 1],
        [2000, "00" * 16, "nbss", "x.json", None, 1],
        [2000, "00" * 16, {}, "x.json", "00" * 32, 1],
        [2000, "00" * 16, "nbss", None, "00" * 32, 1],
        [2000, "00" * 16, "nbss", "x.json", "00" * 32, "1"],
        [-1, "00" * 16, "nbss", "x.json", "00" * 32, 1],
        ["2000", "00" * 16, "nbss", "x.json", "00" * 32, 1],
    ],
)
def test_records_that_are_not_ours(archive_path: Path, row: object) -> None:
    """A commit may be anybody's work: what does not fit is damage, with a message."""
    meta = json.dumps(
        {
            "op": "attach", "by": "x", "patients": [], "studies": [], "series": [], "study_patients": [],
            "directories": [], "instances": [], "attachments": [row],
        }
    ).encode()  # fmt: skip
    store = open_for_writing(archive_path)
    writer = Writer(store)
    with pytest.raises(Damaged):
        fold_meta(store, writer.txn, writer.seq, 1, meta)
    writer.abort()
    store.close()


def test_a_mounted_reader_is_told(archive_path: Path) -> None:
    patients(archive_path, "A")
    with Archive.open(archive_path) as archive, archive.view() as view:
        seq = view.seq
    attachments.attach(archive_path, "A", NBSS, "x.json")
    with Archive.open(archive_path) as archive, archive.view() as view:
        assert view.changes(seq).complete
        assert view.changes(seq).seq == seq + 1
