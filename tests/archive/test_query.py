"""Queries find what was asked for at every level, by indexed keys and by any attribute."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from pydicom.config import disable_value_validation

from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.archive.check import check
from dicomfs.archive.ingest import ImportOptions, import_paths
from dicomfs.archive.patterns import text_test, value_test
from dicomfs.archive.query import Level, Match, Query, below, instances, matches, parse_condition
from dicomfs.archive.values import value_of
from dicomfs.errors import UsageError
from tests.archive.importing import add
from tests.builders import make_instance, uid, write_study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KVP = {"KVP": "120.00", "BodyPartExamined": "CHEST"}
LATER = {"StudyDate": "20240215", "StudyDescription": "Knee [left]", "BodyPartExamined": "KNEE"}
YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"
ECHO = {"StudyDate": "20231231", "AccessionNumber": "ACC7", "StationName": "US\\ONE"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    root = tmp_path_factory.mktemp("query")
    source = root / "source"
    write_study(source / "1", series=2, instances=3, attributes=KVP)
    write_study(source / "2", modality="MR", study=2, instances=2, attributes=LATER)
    write_study(source / "3", modality="US", patient="dfs-2", patient_name=YAMADA, attributes=ECHO)
    # A conflict, another modality in study 1, and headers that the first bulk value cuts in two.
    (source / "4").write_bytes(make_instance(number=1, seed="other", attributes=KVP))
    (source / "5").write_bytes(make_instance("SR", series=9, attributes={"ContentLabel": "REPORT"}))
    long_value = {"ICCProfile": bytes(2 << 20), "PerformedLocation": "ROOM 6"}
    (source / "6").write_bytes(make_instance("SC", patient="P6", study=6, attributes=long_value))
    deflated = "1.2.840.10008.1.2.1.99"
    (source / "7").write_bytes(make_instance("SC", patient="P7", study=7, transfer_syntax=deflated))
    # Dates as ACR-NEMA wrote them, and none at all.
    with disable_value_validation():
        (source / "8").write_bytes(make_instance("SC", patient="P8", study=8, attributes={"StudyDate": "1993.04.30"}))
        (source / "9").write_bytes(make_instance("SC", patient="P9", study=9, attributes={"StudyDate": "unknown"}))
    path = root / "archive"
    Archive.init(path)
    report = import_paths(path, [source], ImportOptions())
    assert report.complete
    with Archive.open(path) as opened:
        yield opened
    assert check(path, verify_files=True).problems == []


def found(archive: Archive, level: Level, *where: str) -> list[Match]:
    return list(matches(archive, Query(level, tuple(map(parse_condition, where)))))


def studies(archive: Archive, *where: str) -> set[tuple[str, str]]:
    return {
        (str(match.patient.attributes["PatientID"]), str(match.study.attributes["StudyDescription"]))
        for match in found(archive, Level.STUDY, *where)
    }


ONE, TWO, THREE = ("DFS-1", "Study 1"), ("DFS-1", "Knee [left]"), ("dfs-2", "Study 1")
SIX, SEVEN, EIGHT, NINE = ("P6", "Study 6"), ("P7", "Study 7"), ("P8", "Study 8"), ("P9", "Study 9")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([], {ONE, TWO, THREE, SIX, SEVEN, EIGHT, NINE}),
        (["PatientID=DFS-1"], {ONE, TWO}),
        (["PatientID=dfs-?"], {ONE, TWO, THREE}),
        (["PatientID=*FS-2"], {THREE}),
        (["PatientID=FS-1"], set()),
        (["PatientName=DOE*"], {ONE, TWO, SIX, SEVEN, EIGHT, NINE}),
        (["PatientName=*山田*"], {THREE}),
        (["PatientName=yamada^tarou"], {THREE}),
        (["PatientName=山田^太郎"], {THREE}),
        (["PatientName=山?^*"], {THREE}),
        (["PatientName=やまだ*"], {THREE}),
        (["PatientName=yamada^tarou=山田^太郎*"], {THREE}),
        (["PatientName=tarou"], set()),
        (["PatientName=doe^jane", "PatientID=DFS-1", "Modality=MR"], {TWO}),
        (["PatientID=P6", "PatientID=P7"], set()),
        (["Modality=ct"], {ONE}),
        (["Modality=SR"], {ONE}),
        (["StudyDate=20240131"], {ONE, SIX, SEVEN}),
        (["StudyDate=20240101-20240131"], {ONE, SIX, SEVEN}),
        (["StudyDate=20240201-"], {TWO}),
        (["StudyDate=2024-02-01-"], {TWO}),
        (["StudyDate=-20231231"], {THREE, EIGHT}),
        (["StudyDate=1994-20231231"], {THREE}),
        (["StudyDate=202402*"], {TWO}),
        (["StudyDate=2024-02-??"], {TWO}),
        (["StudyDate=2024-01"], {ONE, SIX, SEVEN}),
        (["StudyDate=2024"], {ONE, TWO, SIX, SEVEN}),
        (["StudyDate=19930430"], {EIGHT}),
        (["StudyDate=1993-04-30"], {EIGHT}),
        (["StudyDate=199304*"], {EIGHT}),
        (["StudyDate=1992-1993"], {EIGHT}),
        (["StudyDate=1900-"], {ONE, TWO, THREE, SIX, SEVEN, EIGHT}),
        (["StudyDate="], set()),
        (["StudyDate=*"], {ONE, TWO, THREE, SIX, SEVEN, EIGHT, NINE}),
        (["StudyDate=20250101-20251231"], set()),
        (["AccessionNumber=acc7"], {THREE}),
        (["StudyDescription=*[[]left*"], set()),
        (["StudyDescription=*[left]"], {TWO}),
        (["PatientSex=O", "StudyDescription=Study 1"], {ONE, THREE}),
        (["BodyPartExamined=chest"], {ONE}),
        (["BodyPartExamined="], {ONE, THREE, SIX, SEVEN, EIGHT, NINE}),
        (["BodyPartExamined=?*"], {ONE, TWO}),
        (["StationName=ONE"], {THREE}),
        (["KVP=120"], {ONE}),
        (["KVP=1?0.*", "Modality=CT"], {ONE}),
        (["KVP=1.2e2"], {ONE}),
        (["KVP=12"], set()),
        (["0018,0060=120.0"], {ONE}),
        (["0008,0060=MR"], {TWO}),
        (["00080060=mr"], {TWO}),
        (["ContentLabel=REPORT"], {ONE}),
        # No instance is both.
        (["ContentLabel=REPORT", "Modality=CT"], set()),
        (["ImageType=*", "PatientID=P6"], {SIX}),
        (["Rows=064", "Modality=SC"], {SIX, SEVEN, EIGHT, NINE}),
        (["ContentDate=20240101-20240201", "PatientID=P7"], {SEVEN}),
        (["PhotometricInterpretation=MONOCHROME2", "PatientID=P7"], {SEVEN}),
        (["PhotometricInterpretation=MONOCHROME2", "PatientID=P6"], {SIX}),
        (["PerformedLocation=room*"], {SIX}),
    ],
    ids=lambda value: " & ".join(value) if isinstance(value, list) else "",
)
def test_studies(archive: Archive, where: list[str], expected: set[tuple[str, str]]) -> None:
    assert studies(archive, *where) == expected


def test_by_uid_at_every_level(archive: Archive) -> None:
    study, series, sop = uid("DFS-1", 1), uid("DFS-1", 1, 2), uid("DFS-1", 1, 1, 2)
    assert [match.series for match in found(archive, Level.STUDY, f"StudyInstanceUID={study}")] == [None]
    assert len(found(archive, Level.SERIES, f"StudyInstanceUID={study}")) == 3
    assert len(found(archive, Level.INSTANCE, f"StudyInstanceUID={study}")) == 8
    (one,) = found(archive, Level.SERIES, f"SeriesInstanceUID={series}")
    assert one.series is not None
    assert one.series.attributes["SeriesInstanceUID"] == series
    assert len(found(archive, Level.INSTANCE, f"SeriesInstanceUID={series}")) == 3
    (one,) = found(archive, Level.INSTANCE, f"SOPInstanceUID={sop}")
    assert one.instance is not None
    assert one.instance.attributes["SOPInstanceUID"] == sop
    assert len(found(archive, Level.INSTANCE, f"SOPInstanceUID={uid('DFS-1', 1, 1, 1)}")) == 2
    assert found(archive, Level.INSTANCE, "SOPInstanceUID=1.2.3") == []
    assert len(found(archive, Level.INSTANCE, f"SOPInstanceUID={sop[:-1]}?")) == 1


def test_series_of_other_modalities_do_not_come_along(archive: Archive) -> None:
    assert {
        match.series.attributes["Modality"]
        for match in found(archive, Level.SERIES, "Modality=SR")
        if match.series is not None
    } == {"SR"}


def test_paths_are_those_of_the_drive(archive: Archive) -> None:
    (study,) = found(archive, Level.STUDY, "Modality=MR")
    assert study.path == "patients/DFS-1_Doe_Jane/20240215_1015_Knee [left]"
    (series,) = found(archive, Level.SERIES, "Modality=MR")
    assert series.path == study.path + "/0001_MR_Series 1"
    first, second = found(archive, Level.INSTANCE, "Modality=MR")
    assert (first.path, second.path) == (f"{series.path}/00001.dcm", f"{series.path}/00002.dcm")


def test_below(archive: Archive) -> None:
    (study,) = found(archive, Level.STUDY, f"StudyInstanceUID={uid('DFS-1', 1)}")
    assert [len(list(below(archive, study.study.key, level))) for level in Level] == [1, 3, 8]
    sizes = [len(list(instances(archive, series))) for series in below(archive, study.study.key, Level.SERIES)]
    assert sorted(sizes) == [1, 3, 4]


def test_indexed_keys_do_not_scan(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(_: View) -> None:
        raise AssertionError("the catalog was scanned")

    monkeypatch.setattr(View, "studies", scan)
    for where in ("PatientID=P6", "PatientName=Doe*", "Modality=CT", "StudyDate=20240131", "AccessionNumber=A1"):
        found(archive, Level.INSTANCE, where, "KVP=?*")
    for keyword, value in zip(
        ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
        itertools.accumulate(["1", "1", "1"], lambda a, b: a + b),
        strict=True,
    ):
        found(archive, Level.STUDY, f"{keyword}={value}")


def test_a_replaced_instance_is_found_no_more(archive_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(make_instance(seed="first"))
    import_paths(archive_path, [source], ImportOptions())
    source.write_bytes(make_instance(seed="second", attributes={"InstanceNumber": 2}))
    import_paths(archive_path, [source], ImportOptions(on_conflict="replace"))
    with Archive.open(archive_path) as archive:
        (match,) = found(archive, Level.INSTANCE)
        assert match.instance is not None
        assert match.instance.current
        assert match.instance.attributes["InstanceNumber"] == 2


def test_a_study_whose_files_disagree_on_the_patient(archive_path: Path, tmp_path: Path) -> None:
    shared = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    for number, patient in enumerate(["A", "B", "A", ""], start=1):
        data = make_instance(patient=f"P{number}", number=number, attributes={**shared, "PatientID": patient})
        (tmp_path / f"{number}").write_bytes(data)
    import_paths(archive_path, [tmp_path / f"{number}" for number in range(1, 5)], ImportOptions())
    with Archive.open(archive_path) as archive:
        numbers: dict[str, set[object]] = {}
        for pattern in ("A", "b", "", "*", "C"):
            numbers[pattern] = {
                match.instance.attributes["InstanceNumber"]
                for match in found(archive, Level.INSTANCE, f"PatientID={pattern}")
                if match.instance is not None
            }
        assert numbers == {"A": {1, 3}, "b": {2}, "": {4}, "*": {1, 2, 3, 4}, "C": set()}
        for match in found(archive, Level.INSTANCE):
            assert match.path.startswith(f"patients/{match.patient.attributes.get('PatientID', 'NO-ID')}_")
        (study,) = found(archive, Level.STUDY, "PatientID=B")
        assert study.patient.attributes["PatientID"] == "B"
        assert study.path.startswith("patients/B_")
        (only,) = below(archive, study.study.key, Level.SERIES, patient=study.patient.key)
        assert [match.patient.key for match in instances(archive, only)] == [study.patient.key]


def test_value_of(archive: Archive) -> None:
    (match,) = found(archive, Level.INSTANCE, "PatientID=P7")
    assert match.instance is not None
    ino = match.instance.ino
    assert value_of(archive, ino, "Manufacturer") == "dicomfs tests"
    assert value_of(archive, ino, "0008,0070") == "dicomfs tests"
    assert value_of(archive, ino, "EchoTime") is None
    with pytest.raises(UsageError):
        value_of(archive, ino, "NoSuchKeyword")


@pytest.mark.parametrize("text", ["", "PatientID", "=x", "NoSuchKeyword=1", "12,34=1"])
def test_no_conditions(text: str) -> None:
    with pytest.raises(UsageError):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "meant"), [("PatientNme=x", "PatientName"), ("slicethickness=1", "SliceThickness"), ("Qqqqq=1", "")]
)
def test_conditions_that_were_meant(text: str, meant: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_condition(text)
    assert ("did you mean" in str(raised.value)) is bool(meant)
    assert meant in str(raised.value)


def test_order(archive_path: Path, tmp_path: Path) -> None:
    def write(name: str, number: int, attributes: dict[str, str] | None = None, **options: object) -> None:
        with disable_value_validation():
            made = make_instance(patient_name=name, number=number, attributes=attributes or {}, **options)  # type: ignore[arg-type]
        (tmp_path / f"{len(os.listdir(tmp_path)):02}").write_bytes(made)

    write("Young^B", 10, patient="B", study=1, series=2)
    write("Young^B", 9, patient="B", study=1, series=2)
    write("Young^B", 1, patient="B", study=1, series=10)
    write("Young^B", 1, {"SeriesNumber": ""}, patient="B", study=1, series=1)
    write("young^b", 1, patient="A", study=2)
    write("Adams", 1, {"StudyDate": "20240102"}, patient="Z", study=3)
    write("Adams", 1, {"StudyDate": "1993.04.30"}, patient="Z", study=4)
    write("Adams", 1, {"StudyDate": "20240101", "StudyTime": "2359"}, patient="Z", study=5)
    write("Adams", 1, {"StudyDate": "20240101", "StudyTime": "07"}, patient="Z", study=6)
    assert import_paths(archive_path, [tmp_path], ImportOptions(recursive=False)).complete
    with Archive.open(archive_path) as archive:
        described = [match.study.attributes["StudyDescription"] for match in found(archive, Level.STUDY)]
        assert described == [f"Study {number}" for number in (4, 6, 5, 3, 2, 1)]
        numbers = [
            (match.series.attributes.get("SeriesNumber"), match.instance.attributes["InstanceNumber"])
            for match in found(archive, Level.INSTANCE, "PatientID=B")
            if match.series is not None and match.instance is not None
        ]
        assert numbers == [(2, 9), (2, 10), (10, 1), (None, 1)]


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True),
        ("?", "", False),
        ("a*c", "ABBC", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("*\n*", "a\nb", True),
        ("*", "a\nb", True),
        ("straße", "STRASSE", True),
        ("a-b", "a-b", True),
    ],
)
def test_patterns(pattern: str, text: str, *, expected: bool) -> None:
    assert text_test(pattern)(text) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("20240101-20240131", "20240131", True),
        ("20240101-20240131", "20240201", False),
        ("20240101-", "20231231", False),
        ("-20240131", "19000101", True),
        ("-20240131", "", False),
        ("20240101-20240131", "", False),
        ("2024", "20241231", True),
        ("2024-", "unknown", False),
        ("2024-", "20241301", False),
        ("2024-", "2024013", False),
        ("2024-", "9999.12.31", True),
        ("2024-", "2024.1231", False),
        ("2024-01 - 2024-02", "20240229", True),
        ("2023-2024-01-02", "20240102", True),
        ("2023-2024-01-02", "20240103", False),
        ("2023-01-01-2024-01-02", "20240103", False),
        ("2023.04.30", "20230430", True),
        ("202401", "20240215", False),
        ("?", "", False),
        ("*", "", True),
    ],
)
def test_dates(pattern: str, text: str, *, expected: bool) -> None:
    assert value_test("PatientBirthDate", pattern)(text) is expected


@pytest.mark.parametrize(
    "pattern",
    ["-", "--", " ", "20201301", "20230229", "20240131-20240101", "2024-2023", "1998-99", "2024-0131", "today", "1*a"],
)
def test_no_dates(pattern: str) -> None:
    for keyword in ("StudyDate", "AcquisitionDate"):
        with pytest.raises(UsageError, match=r"is no (date|range)"):
            value_test(keyword, pattern)


@pytest.mark.parametrize(
    ("keyword", "pattern", "text", "expected"),
    [
        ("SliceThickness", "1.25", "1.250000", True),
        ("SliceThickness", "1.25", "1.25000001", False),
        ("SliceThickness", "-0", "0.0", True),
        ("PixelSpacing", "0.5", "0.25\\0.50", True),
        ("EchoNumbers", "1", "x", False),
        ("InstanceNumber", "007", "7", True),
        ("PatientID", "007", "7", False),
        ("0018,0050", "1.25", "1.250000", True),
        ("CalculatedAnatomyThickness", "1.2", "1.2000000476837158", True),
        ("ImageType", "primary", "ORIGINAL\\PRIMARY", True),
        ("StudyDescription", "a", "a=b", False),
        ("OperatorsName", "doe^j", "Roe^R\\Doe^J=x", True),
    ],
)
def test_values(keyword: str, pattern: str, text: str, *, expected: bool) -> None:
    assert value_test(keyword, pattern)(text) is expected


def test_an_instance_that_says_otherwise_is_found_as_it_says(archive_path: Path) -> None:
    """A corrected file took the place of the one that named its study: the catalog tells the correction."""
    told = {"PatientName": "Roe^Jane", "StudyDescription": "Corrected"}
    add(archive_path, make_instance())
    add(archive_path, make_instance(attributes=told), on_conflict="replace")
    for where in (("PatientName", "roe*"), ("StudyDescription", "corr*")):
        for level in Level:
            with Archive.open(archive_path) as archive:
                (match,) = matches(archive, Query(level, (where,)))
            assert match.patient.attributes["PatientName"] == "Roe^Jane"
            assert match.study.attributes["StudyDescription"] == "Corrected"
    with Archive.open(archive_path) as archive:
        assert list(matches(archive, Query(Level.INSTANCE, (("PatientName", "doe*"),)))) == []
