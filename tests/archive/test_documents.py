"""Documents of small archives: what they say, what they are named, and what is made anew when something changes."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

import numpy as np
import pytest
from pydicom.uid import MPEG2MPML, ExplicitVRBigEndian

from dicomfs.archive import documents, documents_gzip, documents_instance, documents_series
from dicomfs.archive.archive import Archive
from dicomfs.archive.bundle import Bundle
from dicomfs.archive.deduplicated import rebuilt
from dicomfs.archive.parts import Parts
from dicomfs.errors import NotFound, StorageFull
from tests.archive.documents_of import make, parsed, stamps, value
from tests.archive.importing import add, flip, packs, write
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from pathlib import Path

STUDY, SERIES = uid("DFS-1", 1), uid("DFS-1", 1, 1)
BELOW = f"studies/{STUDY}/series/{SERIES}"


def numbers(archive: Path) -> tuple[int, list[int]]:
    """Return the numbers of the first study and of its series."""
    with Archive.open(archive) as opened, opened.view() as view:
        study = next(view.studies()).key
        return study, [series.key for series in view.series_of(study)]


def bundle(archive: Path, cache: Path, series: int = 0) -> Bundle:
    """Return the bundle of a series of the first study, or of that study."""
    study, all_series = numbers(archive)
    with Archive.open(archive) as opened, opened.view() as view:
        if series:
            number = all_series[series - 1]
            return Bundle.open(documents.path(cache, "series", number, documents.series_stamp(view, number)))
        return Bundle.open(documents.path(cache, "study", study, documents.study_stamp(view, study)))


def bundles(cache: Path) -> dict[str, bytes]:
    """Return all bundles of a cache."""
    return {path.name: path.read_bytes() for path in cache.rglob("*-*") if path.is_file()}


def test_query_documents(archive_path: Path, tmp_path: Path) -> None:
    own = {"ReferringPhysicianName": "Ref^A", "TimezoneOffsetFromUTC": "+0100", "BodyPartExamined": "HEAD"}
    add(
        archive_path,
        make_instance(patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", attributes=own),
        make_instance(patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", attributes=own, number=2),
        make_instance("MR", patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", attributes=own, series=2),
    )
    made = make(archive_path, tmp_path / "cache")
    (study,) = parsed(made["studies/index.json.gz"])
    assert study == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080020": {"vr": "DA", "Value": ["20240131"]},
        "00080030": {"vr": "TM", "Value": ["101500"]},
        "00080050": {"vr": "SH", "Value": ["A1"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": ["CT", "MR"]},
        "00080090": {"vr": "PN", "Value": [{"Alphabetic": "Ref^A"}]},
        "00080201": {"vr": "SH", "Value": ["+0100"]},
        "00081030": {"vr": "LO", "Value": ["Study 1"]},
        "00100010": {
            "vr": "PN",
            "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}],
        },
        "00100020": {"vr": "LO", "Value": ["DFS-1"]},
        "00100030": {"vr": "DA", "Value": ["19700101"]},
        "00100040": {"vr": "CS", "Value": ["O"]},
        "0020000D": {"vr": "UI", "Value": [STUDY]},
        "00200010": {"vr": "SH", "Value": ["1"]},
        "00201206": {"vr": "IS", "Value": [2]},
        "00201208": {"vr": "IS", "Value": [3]},
    }
    assert list(study) == sorted(study)
    assert parsed(made[f"studies/{STUDY}/index.json.gz"]) == [study]
    first, second = parsed(made[f"studies/{STUDY}/series/index.json.gz"])
    assert first == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00080070": {"vr": "LO", "Value": ["dicomfs tests"]},
        "00080201": {"vr": "SH", "Value": ["+0100"]},
        "0008103E": {"vr": "LO", "Value": ["Series 1"]},
        "00180015": {"vr": "CS", "Value": ["HEAD"]},
        "0020000D": {"vr": "UI", "Value": [STUDY]},
        "0020000E": {"vr": "UI", "Value": [SERIES]},
        "00200011": {"vr": "IS", "Value": [1]},
        "00201209": {"vr": "IS", "Value": [2]},
    }
    assert (value(second, "00080060"), value(second, "00201209")) == ("MR", 1)
    one, two = parsed(made[f"{BELOW}/instances/index.json.gz"])
    assert one == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00080018": {"vr": "UI", "Value": [uid("DFS-1", 1, 1, 1)]},
        "00080023": {"vr": "DA", "Value": ["20240131"]},
        "00080033": {"vr": "TM", "Value": ["101601"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080201": {"vr": "SH", "Value": ["+0100"]},
        "00083002": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]},
        "0020000D": {"vr": "UI", "Value": [STUDY]},
        "0020000E": {"vr": "UI", "Value": [SERIES]},
        "00200013": {"vr": "IS", "Value": [1]},
        "00280010": {"vr": "US", "Value": [64]},
        "00280011": {"vr": "US", "Value": [64]},
        "00280100": {"vr": "US", "Value": [16]},
    }
    assert value(two, "00200013") == 2


def test_what_is_required_is_there_without_value(archive_path: Path, tmp_path: Path) -> None:
    empty = ("StudyDate", "StudyTime", "AccessionNumber", "PatientName", "PatientBirthDate", "PatientSex", "StudyID",
             "Modality", "SeriesNumber", "InstanceNumber", "StudyDescription", "SeriesDescription")  # fmt: skip
    add(archive_path, make_instance("SR", attributes=dict.fromkeys(empty)))
    made = make(archive_path, tmp_path / "cache")
    (study,) = parsed(made["studies/index.json.gz"])
    for tag, vr in {"00080020": "DA", "00080030": "TM", "00080050": "SH", "00080090": "PN",
                    "00100010": "PN", "00100030": "DA", "00100040": "CS", "00200010": "SH"}.items():  # fmt: skip
        assert study[tag] == {"vr": vr}
    assert not {"00081030", "00080061"} & set(study)  # viewers stumble over the second without a value
    (series,) = parsed(made[f"studies/{STUDY}/series/index.json.gz"])
    assert series["00080060"] == {"vr": "CS"}
    assert series["00200011"] == {"vr": "IS"}
    (instance,) = parsed(made[f"{BELOW}/instances/index.json.gz"])
    assert instance["00200013"] == {"vr": "IS"}
    assert not {"00280008", "00280010", "00280100"} & set(instance)


def test_several_values(archive_path: Path, tmp_path: Path) -> None:
    own = {"AccessionNumber": ["A", "", "B"], "ReferringPhysicianName": ["A^B", "C"], "StudyID": ["", ""]}
    add(archive_path, make_instance(attributes=own))
    (study,) = parsed(make(archive_path, tmp_path / "cache")["studies/index.json.gz"])
    assert study["00080050"] == {"vr": "SH", "Value": ["A", None, "B"]}
    assert study["00080090"] == {"vr": "PN", "Value": [{"Alphabetic": "A^B"}, {"Alphabetic": "C"}]}
    assert study["00200010"] == {"vr": "SH"}


def test_order(archive_path: Path, tmp_path: Path) -> None:
    files = [make_instance(number=number, attributes={"InstanceNumber": shown}) for number, shown in
             ((1, 5), (2, None), (3, -1), (4, 5), (5, 2))]  # fmt: skip
    add(archive_path, *files)
    add(
        archive_path,
        make_instance(series=7),
        make_instance(series=3),
        make_instance(series="x", attributes={"SeriesNumber": None}),
    )
    made = make(archive_path, tmp_path / "cache")
    found = [value(one, "00080018") for one in parsed(made[f"{BELOW}/metadata.gz"])]
    assert found == [uid("DFS-1", 1, 1, number) for number in (3, 5, 1, 4, 2)]
    assert found == [value(one, "00080018") for one in parsed(made[f"{BELOW}/instances/index.json.gz"])]
    series = [value(one, "0020000E") for one in parsed(made[f"studies/{STUDY}/series/index.json.gz"])]
    assert series == [uid("DFS-1", 1, which) for which in (1, 3, 7, "x")]
    whole = [value(one, "00080018") for one in parsed(made[f"studies/{STUDY}/metadata.gz"])]
    assert whole == [*found, *(uid("DFS-1", 1, which, 1) for which in (3, 7, "x"))]


def test_bulk_data_is_named_from_where_the_document_stands(archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, make_instance(), make_instance("US", series=2))
    made = make(archive_path, tmp_path / "cache")
    instance = uid("DFS-1", 1, 1, 1)

    def pixels(document: str) -> Any:
        return parsed(made[document])[0]["7FE00010"]["BulkDataURI"]

    assert pixels(f"{BELOW}/instances/{instance}/metadata.gz") == "bulkdata/7FE00010"
    assert pixels(f"{BELOW}/metadata.gz") == f"instances/{instance}/bulkdata/7FE00010"
    assert pixels(f"studies/{STUDY}/metadata.gz") == f"series/{SERIES}/instances/{instance}/bulkdata/7FE00010"


@pytest.mark.parametrize(
    "sop",
    ["weird uid/../%41?#", "\xc4\xd6\xdc~x", "1." * 60 + "1", "CON", "1.2.", "..", ".hidden", "1.2/../../3", "a" * 300],
)
def test_names_of_what_is_no_uid(archive_path: Path, tmp_path: Path, sop: str) -> None:
    known = uid("DFS-1", 1, 1, 1).encode()
    file = make_instance()
    new = sop.encode("latin-1") + b"\0" * (len(sop) % 2)
    old = known + b"\0" * (len(known) % 2)
    for element in (b"\x02\0\x03\0UI", b"\x08\0\x18\0UI"):
        file = file.replace(
            element + len(old).to_bytes(2, "little") + old, element + len(new).to_bytes(2, "little") + new
        )
    add(archive_path, file)
    made = make(archive_path, tmp_path / "cache")
    (name,) = {path.split("/")[-2] for path in made if path.startswith(f"{BELOW}/instances/") and path.count("/") == 6}
    assert "~" in name
    assert name.isascii()
    assert name[0] not in ".~ "
    assert len(name) <= 120
    assert not set(name) & set('/\\:*?"<>|\0')
    (uri,) = (one["7FE00010"]["BulkDataURI"] for one in parsed(made[f"{BELOW}/metadata.gz"]))
    base = f"http://host/dicomweb/{BELOW}/metadata"
    assert unquote(urljoin(base, uri)) == f"http://host/dicomweb/{BELOW}/instances/{name}/bulkdata/7FE00010"
    (uri,) = (one["7FE00010"]["BulkDataURI"] for one in parsed(made[f"studies/{STUDY}/metadata.gz"]))
    assert unquote(urljoin(f"http://host/studies/{STUDY}/metadata", uri)).endswith(
        f"/instances/{name}/bulkdata/7FE00010"
    )


def test_a_uid_is_its_name() -> None:
    for name in ("1.2.840", "0", "1.02", "2.25.329800735698586629295641978511506172918"):
        assert documents.directory_name(name) == name
    odd = ["", ".", "a", "A", "1.2.", ".1", "1..2", "1" * 121, "ä", "a~b", "nul"]
    found = [documents.directory_name(name) for name in odd]
    assert len({name.lower() for name in found}) == len(odd)
    # What stands for a name has a name of its own too.
    assert not {documents.directory_name(name) for name in found} & set(found)


def told(archive: Path, cache: Path) -> list[dict[str, Any]]:
    """Return the instances of the first study's deduplicated list, put together again."""
    made = make(archive, cache)
    (name,) = (name for name in made if name.startswith(f"studies/{STUDY}/deduplicated/") and "/instances/" not in name)
    held = parsed(made[name])
    by_type: dict[str, list[dict[str, Any]]] = {}
    for one in held:
        block = next(tag[6:] for tag in one if one[tag].get("Value") == ["dedupped"])
        by_type.setdefault(value(one, f"0009{block}12"), []).append(one)
    (info,) = by_type["info"]
    assert name.endswith(f"/{value(info, '00091011')}.gz")
    assert held[0] == info
    known = {value(one, "00091011"): one for kind in ("patient", "study", "series", "image") for one in by_type[kind]}
    assert [kind for one in held[1 : -len(by_type["instance"])] for kind in [value(one, "00091012")]] == [
        kind for kind in ("patient", "study", "series", "image") for _ in by_type[kind]
    ]
    for digest in known:
        file = made[f"studies/{STUDY}/bulkdata/{digest[:3]}/{digest[3:5]}/{digest[5:]}.json.gz"]
        assert json.loads(gzip.decompress(file)) == known[digest]
    assert len(info["00091010"]["Value"]) == len(by_type["instance"])
    return [rebuilt(one, known) for one in by_type["instance"]]


def test_windows_that_differ_in_order_stay_different(archive_path: Path, tmp_path: Path) -> None:
    windows = [([40, 300], [400, 1500]), ([300, 40], [1500, 400])] * 3
    add(archive_path, *(make_instance(number=number, attributes={"WindowCenter": center, "WindowWidth": width})
                        for number, (center, width) in enumerate(windows, 1)))  # fmt: skip
    found = [(one["00281050"]["Value"], one["00281051"]["Value"]) for one in told(archive_path, tmp_path / "cache")]
    assert found == windows


def test_a_private_block_of_group_0009_is_left_alone(archive_path: Path, tmp_path: Path) -> None:
    file = make_instance()
    theirs = b"\x09\x00\x10\x00LO\x08\x00GEMS_ID \x09\x00\x11\x10LO\x04\x00mine\x09\x00\x12\x10LO\x04\x00this"
    at = file.index(b"\x10\x00\x10\x00PN")
    add(archive_path, file[:at] + theirs + file[at:])
    (found,) = told(archive_path, tmp_path / "cache")
    assert found["00090010"] == {"vr": "LO", "Value": ["GEMS_ID"]}
    assert found["00091011"] == {"vr": "LO", "Value": ["mine"]}
    assert found["00091012"] == {"vr": "LO", "Value": ["this"]}
    assert "00090011" not in found
    made = make(archive_path, tmp_path / "cache")
    raw = parsed(made[f"studies/{STUDY}/deduplicated/instances/{uid('DFS-1', 1, 1, 1)}.gz"])[-1]
    assert raw["00090011"] == {"vr": "LO", "Value": ["dedupped"]}
    assert value(raw, "00091112") == "instance"


def test_values_are_named_by_their_hash(archive_path: Path, tmp_path: Path) -> None:
    lut = np.arange(80_000, dtype="<u2").tobytes()
    value_of = {"EncapsulatedDocument": b"%PDF" + b"x" * 3000}
    add(
        archive_path,
        make_instance("SR", attributes=value_of),
        make_instance("SR", number=2, attributes=value_of),
        make_instance("SR", number=3, attributes={"EncapsulatedDocument": lut}),
    )
    found = told(archive_path, tmp_path / "cache")
    whole = bundle(archive_path, tmp_path / "cache")
    values = {one.sha256: one for one in whole.hashed() if one.ext == "raw"}
    assert set(values) == {sha256(content).hexdigest() for content in (value_of["EncapsulatedDocument"], lut)}
    with Archive.open(archive_path) as opened:
        for digest, one in values.items():
            assert one.bulk is not None
            parts = Parts.open(opened, one.ino)
            assert sha256(parts.read(one.bulk.start, one.bulk.end)).hexdigest() == digest
    uris = [one["00420011"]["BulkDataURI"] for one in found]
    assert uris == [f"../bulkdata/{d[:3]}/{d[3:5]}/{d[5:]}.raw" for d in (sha256(c).hexdigest() for c in
                    (value_of["EncapsulatedDocument"], value_of["EncapsulatedDocument"], lut))]  # fmt: skip


def test_big_endian_values_are_hashed_as_they_are_served(archive_path: Path, tmp_path: Path) -> None:
    samples = np.arange(4000, dtype="<u2")
    file = make_instance("SR", transfer_syntax=ExplicitVRBigEndian, attributes={"RedPaletteColorLookupTableData": b""})
    at = file.index(bytes.fromhex("00281201") + b"OW")
    value_ = samples.astype(">u2").tobytes()
    # A LUT is bulk when it is longer than 131,074 bytes.
    value_ *= 20
    file = file[:at] + bytes.fromhex("00281201") + b"OW\0\0" + len(value_).to_bytes(4, "big") + value_ + file[at + 12 :]
    add(archive_path, file)
    make(archive_path, tmp_path / "cache")
    (one,) = (one for one in bundle(archive_path, tmp_path / "cache").hashed() if one.ext == "raw")
    assert one.sha256 == sha256(np.tile(samples, 20).tobytes()).hexdigest()


def test_cards(archive_path: Path, tmp_path: Path) -> None:
    pdf = {"SOPClassUID": documents_instance.ENCAPSULATED_PDF, "EncapsulatedDocument": b"%PDF" * 500}
    add(
        archive_path,
        make_instance(rows=20, columns=30, frames=3),
        make_instance("US", number=2, rows=10, columns=10),
        make_instance("SR", number=3),
        make_instance("SR", number=4, attributes=pdf),
        make_instance(number=5, transfer_syntax=MPEG2MPML),
    )
    make(archive_path, tmp_path / "cache")
    cards = bundle(archive_path, tmp_path / "cache", 1).cards
    assert [(c.frames, c.single_stream, c.colour, c.rows, c.columns, c.kind) for c in cards] == [
        (3, False, False, 20, 30, "image"),
        (1, False, True, 10, 10, "image"),
        (0, False, False, 0, 0, "none"),
        (0, False, False, 0, 0, "pdf"),
        (1, True, False, 64, 64, "video"),
    ]
    assert [[value.name for value in card.bulk] for card in cards] == [
        ["7FE00010"], ["7FE00010"], [], ["00420011"], ["7FE00010"]
    ]  # fmt: skip
    assert [card.name for card in cards] == [uid("DFS-1", 1, 1, number) for number in range(1, 6)]
    # The middle one of those with pixels, for the series and for its study.
    assert bundle(archive_path, tmp_path / "cache", 1).middle == cards[1].ino
    assert bundle(archive_path, tmp_path / "cache").middle == cards[1].ino


def test_only_what_changed_is_made_anew(archive_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add(archive_path, *make_series(3), *make_series(2, series=2), *make_series(2, study=2))
    before, old = make(archive_path, cache), stamps(archive_path)
    kept = bundles(cache)
    assert make(archive_path, cache) == before
    assert bundles(cache) == kept
    add(archive_path, make_instance(number=9))
    new = stamps(archive_path)
    study, series = numbers(archive_path)
    assert new.all != old.all
    assert {number for number, stamp in new.studies.items() if stamp != old.studies[number]} == {study}
    assert {number for number, stamp in new.series.items() if stamp != old.series[number]} == {series[0]}
    after = make(archive_path, cache)
    affected = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert {path.rpartition("/")[0] for path in affected if "/bulkdata/" not in path} == {
        "studies",
        f"studies/{STUDY}",
        f"studies/{STUDY}/series",
        f"studies/{STUDY}/deduplicated",
        f"studies/{STUDY}/deduplicated/instances",
        BELOW,
        f"{BELOW}/instances",
        f"{BELOW}/instances/{uid('DFS-1', 1, 1, 9)}",
    }
    # One bundle for each, the old ones are gone.
    assert len(bundles(cache)) == len(kept)


def test_what_is_taken_over_is_what_would_be_made(archive_path: Path, tmp_path: Path) -> None:
    # Enough instances for several pieces of a list; the new ones come first, last, and in between.
    files = make_series(150, "SR")
    order = [*range(40, 110), 149, 0, *range(110, 149), *range(1, 40)]
    for start in range(0, 150, 37):
        add(archive_path, *(files[number] for number in order[start : start + 37]))
        grown = make(archive_path, tmp_path / "cache")
        assert grown == make(archive_path, tmp_path / f"anew{start}")
        assert bundles(tmp_path / "cache") == bundles(tmp_path / f"anew{start}")
    assert [value(one, "00200013") for one in parsed(grown[f"{BELOW}/metadata.gz"])] == list(range(1, 151))


def test_one_more_instance_reads_one_header(
    archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    tell = documents_instance.tell

    def counted(archive: Archive, listed: documents_instance.Listed, to_directory: str) -> Any:
        read.append(listed.ino)
        return tell(archive, listed, to_directory)

    monkeypatch.setattr(documents_instance, "tell", counted)
    add(archive_path, *make_series(20, "SR"))
    make(archive_path, tmp_path / "cache")
    assert len(read) == 20
    add(archive_path, make_instance("SR", number=21))
    make(archive_path, tmp_path / "cache")
    assert len(read) == 21


def test_a_long_series_is_made_in_stages(archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(archive_path, *make_series(10, "SR"))
    make(archive_path, tmp_path / "cache")
    add(archive_path, *(make_instance("SR", number=number) for number in (-1, 3, 20, 21)))
    expected = make(archive_path, tmp_path / "anew")
    read: list[int] = []
    tell = documents_instance.tell

    def dying(archive: Archive, listed: documents_instance.Listed, to_directory: str) -> Any:
        if len(read) == 2:
            read.append(0)
            raise StorageFull("as if the process was killed")
        read.append(listed.ino)
        return tell(archive, listed, to_directory)

    monkeypatch.setattr(documents_instance, "tell", dying)
    monkeypatch.setattr(documents_series, "_STAGE_S", 0.0)
    with pytest.raises(StorageFull):
        make(archive_path, tmp_path / "cache")
    assert {name.partition("-")[0] for name in bundles(tmp_path / "cache")} == {"studies", "study", "series", "part"}
    assert make(archive_path, tmp_path / "cache") == expected
    assert bundles(tmp_path / "cache") == bundles(tmp_path / "anew")
    # The second process read what the first had not put aside, and nothing twice.
    assert len(read) == 4
    assert len(set(read)) == 4


def test_what_replaces_an_instance(archive_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add(archive_path, *make_series(3))
    make(archive_path, cache)
    add(archive_path, make_instance(number=2, seed="new", attributes={"ImageComments": "new"}), on_conflict="replace")
    found = parsed(make(archive_path, cache)[f"{BELOW}/metadata.gz"])
    assert [value(one, "00200013") for one in found] == [1, 2, 3]
    assert [one["00204000"]["Value"] for one in found if "00204000" in one] == [["new"]]
    assert bundles(cache) == (make(archive_path, tmp_path / "anew"), bundles(tmp_path / "anew"))[1]


def test_the_first_of_a_uid_is_shown(archive_path: Path, tmp_path: Path) -> None:
    add(archive_path, make_instance(seed="first"), make_instance(seed="second", rows=32), make_instance(number=2))
    made = make(archive_path, tmp_path / "cache")
    assert [value(one, "00280010") for one in parsed(made[f"{BELOW}/metadata.gz"])] == [64, 64]
    (study,) = parsed(made["studies/index.json.gz"])
    assert value(study, "00201208") == 2


def test_a_bundle_that_is_not_whole_is_made_anew(archive_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add(archive_path, *make_series(2), make_instance(series=2))
    before = make(archive_path, cache)
    good = bundles(cache)
    for path in [path for path in cache.rglob("*-*") if path.is_file()]:
        path.write_bytes(path.read_bytes()[:-1])
    assert make(archive_path, cache) == before
    assert bundles(cache) == good


def test_spoiled_documents_are_not_taken_over(archive_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add(archive_path, *make_series(3), *make_series(2, series=2))
    make(archive_path, cache)
    for path in [path for path in cache.rglob("s*-*") if path.is_file()]:
        content = bytearray(path.read_bytes())
        table = int.from_bytes(content[-28:-20], "little")
        for at in range(300, table, 7):
            content[at] ^= 0x55
        path.write_bytes(content)
    add(archive_path, make_instance(number=9))
    # Documents of what did not change are served as they are; gzip's own CRC tells whoever reads them.
    study, (first, _) = numbers(archive_path)
    with Archive.open(archive_path) as opened:
        documents.make_series(opened, cache, (first,))
        documents.make_study(opened, cache, (study,))
        documents.make_series(opened, tmp_path / "anew", (first,))
        documents.make_study(opened, tmp_path / "anew", (study,))
    assert bundle(archive_path, cache).document(("metadata", 0)) == bundle(archive_path, tmp_path / "anew").document(
        ("metadata", 0)
    )
    assert bundle(archive_path, cache, 1).document(("metadata", 0)) == bundle(
        archive_path, tmp_path / "anew", 1
    ).document(("metadata", 0))


@pytest.mark.damaged
@pytest.mark.parametrize("in_stages", [False, True])
def test_a_damaged_header_does_not_take_down_its_series(
    archive_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    in_stages: bool,
) -> None:
    add(archive_path, *make_series(3, patient_name="Secret^Name"))
    with Archive.open(archive_path) as opened, opened.view() as view:
        series = next(view.series_of(next(view.studies()).key)).key
        inos = [instance.ino for instance in view.shown_instances(series)]
        inode = view.instance_inode(inos[1])
        with opened.store.index.reading() as txn:
            place = opened.store.place_now(txn, inode.seq)
        body = bytes(opened.store.read_body(place, inode.body_offset, inode.body_length))
    (pack,) = packs(archive_path)
    flip(pack, pack.read_bytes().index(body) + len(body) - 6)
    if in_stages:
        monkeypatch.setattr(documents_series, "_STAGE_S", 0.0)
    with caplog.at_level(logging.WARNING):
        made = make(archive_path, tmp_path / "cache")
    assert caplog.text.count(f"instance {inos[1]} ") == 1
    assert "Secret" not in caplog.text
    assert [value(one, "00200013") for one in parsed(made[f"{BELOW}/metadata.gz"])] == [1, 3]
    assert [value(one, "00200013") for one in parsed(made[f"studies/{STUDY}/metadata.gz"])] == [1, 3]
    cards = bundle(archive_path, tmp_path / "cache", 1).cards
    assert [card.damaged for card in cards] == [False, True, False]
    assert cards[1].name == uid("DFS-1", 1, 1, 2)
    # When the bytes are back, the next change shows it again.
    flip(pack, pack.read_bytes().index(body[:-8]) + len(body) - 6)
    add(archive_path, make_instance(number=4))
    made = make(archive_path, tmp_path / "cache")
    assert [value(one, "00200013") for one in parsed(made[f"{BELOW}/metadata.gz"])] == [1, 2, 3, 4]


def test_what_is_not_there(archive_path: Path, tmp_path: Path) -> None:
    with Archive.open(archive_path) as opened:
        for make_one in (documents.make_series, documents.make_study):
            with pytest.raises(NotFound):
                make_one(opened, tmp_path / "cache", (4711,))
        documents.make_studies(opened, tmp_path / "cache")
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StorageFull):
            documents.make_studies(opened, tmp_path / "file")
    assert make(archive_path, tmp_path / "cache") == {"studies/index.json.gz": documents_gzip.member("[]")}


def test_a_study_that_changes_meanwhile(archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(archive_path, *make_series(2))
    make_one = documents_series.make
    write(tmp_path / "late", {"3": make_instance(number=3), "4": make_instance(number=4)})
    late = [tmp_path / "late" / "4", tmp_path / "late" / "3"]

    def and_then(archive: Archive, cache: Path, number: int) -> Path:
        path = make_one(archive, cache, number)
        if late:
            command = [sys.executable, "-m", "dicomfs.cli", "import", "-a", archive_path, late.pop()]
            subprocess.run(command, check=True, capture_output=True)
        return path

    monkeypatch.setattr(documents_series, "make", and_then)
    study, _ = numbers(archive_path)
    with Archive.open(archive_path) as opened:
        documents.make_study(opened, tmp_path / "cache", (study,))
    found = parsed(bytes(bundle(archive_path, tmp_path / "cache").document(("metadata", 0))))
    assert [value(one, "00200013") for one in found] == [1, 2, 3, 4]
