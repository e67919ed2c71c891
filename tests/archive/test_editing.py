"""Edits of many instances in one commit: what they change, what follows, and what they leave."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive import editing, layouts
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.editing import Definition
from dicomfs.archive.editing_selection import Selection
from dicomfs.archive.query import Level, Query, matches
from dicomfs.dicom.edit import Changes
from dicomfs.errors import NotFound, Refused, UsageError
from tests.archive.editing_files import differs, edit, files, is_whole
from tests.archive.importing import add, tree
from tests.archive.project_scenes import below, create
from tests.archive.test_changing import counts, shown
from tests.archive.versions import holds, restore
from tests.builders import make_instance, make_series, uid

if TYPE_CHECKING:
    from pathlib import Path

STUDY, OTHER_STUDY = uid("DFS-1", 1), uid("DFS-1", 2)
SERIES = uid("DFS-1", 1, 1)


def report(*references: str, **options: object) -> bytes:
    """Return a report that refers to instances of the study."""
    from pydicom import Dataset

    instances = []
    for sop in references:
        one = Dataset()
        one.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        one.ReferencedSOPInstanceUID = sop
        instances.append(one)
    series = Dataset()
    series.SeriesInstanceUID = SERIES
    series.ReferencedSOPSequence = instances
    study = Dataset()
    study.StudyInstanceUID = STUDY
    study.ReferencedSeriesSequence = [series]
    sequence = {"CurrentRequestedProcedureEvidenceSequence": [study]}
    return make_instance("SR", series="sr", **{"attributes": sequence, **options})  # type: ignore[arg-type]


def paths(archive: Path) -> list[str]:
    return sorted(tree(archive))


def test_a_name_is_corrected_everywhere(archive_path: Path) -> None:
    """Directories follow, earlier versions come back, and everything else is as it was."""
    add(archive_path, *make_series(3), *make_series(2, study=2, modality="MR"))
    before, sums = files(archive_path), counts(archive_path)
    names = shown(archive_path)
    done = edit(archive_path, Selection(patient_id="DFS-1"), "PatientName=DOE^JOHN", reason="misspelt")
    assert (done.chosen, done.edited, done.references, done.refused) == (5, 5, 0, [])
    after = files(archive_path)
    assert counts(archive_path) == sums
    assert {path.split("/")[0] for path in paths(archive_path)} == {"DFS-1_DOE_JOHN"}
    assert [path.partition("/")[2] for path in paths(archive_path)] == [
        path.removeprefix("patients/").partition("/")[2] for path in sorted(names)
    ]
    for file in after.values():
        old = before[file.replaced]
        assert differs(old.data, file.data, [0x00100010]) == set()
        assert file.data_set.PatientName == "DOE^JOHN"
        (kept,) = file.data_set.OriginalAttributesSequence
        assert kept.ModifiedAttributesSequence[0].PatientName == "Doe^Jane"
        assert kept.ReasonForTheAttributeModification == "CORRECT"
    with Archive.open(archive_path) as opened, opened.view() as view:
        event = view.event(done.seq)
        assert (event.op, event.reason, event.counts) == ("edit", "misspelt", {"replaced": 5})
        assert Definition.from_json(event.edit).changes.set == {0x00100010: ("DOE^JOHN",)}
        assert [patient.attributes["PatientName"] for patient in view.patients()] == ["DOE^JOHN"]
    assert list(matches_of(archive_path, "PatientName", "Doe^Jane")) == []
    assert len(list(matches_of(archive_path, "PatientName", "Doe^John"))) == 2
    holds(archive_path)
    assert edit(archive_path, Selection(patient_id="DFS-1"), "PatientName=DOE^JOHN").seq == 0
    restore(archive_path, *before)
    assert shown(archive_path) == names
    holds(archive_path)


def matches_of(archive: Path, keyword: str, pattern: str) -> list[str]:
    with Archive.open(archive) as opened:
        return [match.path for match in matches(opened, Query(Level.STUDY, ((keyword, pattern),)))]


def test_a_dry_run_tells_what_the_edit_does(archive_path: Path) -> None:
    add(archive_path, *make_series(3), make_instance(number=9, patient_name="Doe^Janet"))
    before = shown(archive_path)
    done = edit(archive_path, Selection(studies=(STUDY,)), "PatientName=Doe^Janet", empty=(0x00080050,), dry_run=True)
    assert shown(archive_path) == before
    assert [tuple(line) for line in done.lines] == [
        ("AccessionNumber", "A1", "", 4, 0),
        ("PatientName", "Doe^Jane", "Doe^Janet", 3, 0),
    ]
    assert (done.seq, done.edited, done.unchanged) == (0, 4, 0)


def test_the_edit_of_one_instance_can_be_done_again_elsewhere(archive_path: Path, tmp_path: Path) -> None:
    """The commit says all of it: the same files come of it in another archive."""
    series = make_series(2)
    add(archive_path, *series, report(uid("DFS-1", 1, 1, 1), number=7))
    other = tmp_path / "other"
    Archive.init(other)
    add(other, *series, report(uid("DFS-1", 1, 1, 1), number=7))
    originals = {file.data: file for file in files(other).values()}
    before = files(archive_path)
    done = edit(archive_path, Selection(series=(SERIES,)), "PatientComments=x", new_sop="new")
    assert (done.edited, done.references) == (2, 1)
    with Archive.open(archive_path) as opened, opened.view() as view:
        definition = Definition.from_json(view.event(done.seq).edit)
    after, hashes = files(archive_path), tree(archive_path)
    assert len(definition.references) == 1
    with Archive.open(other) as opened:
        for file in after.values():
            refers = file.replaced in definition.references
            changes = definition.of_references if refers else definition.changes
            made = editing.edited(opened, originals[before[file.replaced].data].ino, changes)
            assert made is not None
            assert made.row.sha256.hex() == hashes[file.path].sha256
            assert made.blobs == []
        assert editing.edited(opened, next(iter(originals.values())).ino, Changes(time="2026-01-01T00:00:00Z")) is None
    is_whole(other)


def test_studies_go_to_another_patient_as_a_whole(archive_path: Path) -> None:
    right = {"PatientBirthDate": "19500101", "PatientSex": "F", "IssuerOfPatientID": "SITE"}
    wrong = {"OtherPatientNames": "Alias^Of", "MedicalRecordLocator": "shelf 1"}
    add(archive_path, *make_series(3, attributes=wrong), make_instance("MR", study=2, attributes=wrong))
    add(archive_path, make_instance(patient="DFS-2", patient_name="Roe^Mary", attributes=right))
    before = files(archive_path)
    with pytest.raises(NotFound, match="PatientName"):
        edit(archive_path, Selection(studies=(STUDY,)), to_patient="DFS-3")
    done = edit(archive_path, Selection(patient_id="DFS-1"), to_patient="DFS-2", reason="one person")
    assert (done.chosen, done.edited) == (4, 4)
    changed = [0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00100040, 0x00101001, 0x00101090]
    for file in files(archive_path).values():
        data_set = file.data_set
        assert (data_set.PatientID, data_set.PatientName, data_set.PatientBirthDate) == (
            "DFS-2",
            "Roe^Mary",
            "19500101",
        )
        assert (data_set.PatientSex, data_set.IssuerOfPatientID) == ("F", "SITE")
        assert "OtherPatientNames" not in data_set
        if file.replaced:
            assert differs(before[file.replaced].data, file.data, changed) == set()
    assert {path.split("/")[0] for path in paths(archive_path)} == {"DFS-2_Roe_Mary"}
    assert counts(archive_path)[:2] == (1, 3)
    with Archive.open(archive_path) as opened, opened.view() as view:
        assert not any(study.mixed for study in view.studies())
    holds(archive_path)


def test_a_patient_is_made_of_what_is_told(archive_path: Path) -> None:
    add(archive_path, *make_series(2))
    told = ("PatientName=New^One", "PatientBirthDate=19990101")
    edit(archive_path, Selection(studies=(STUDY,)), *told, to_patient="N-1", to_issuer="HERE", empty=(0x00100040,))
    for file in files(archive_path).values():
        assert (file.data_set.PatientID, file.data_set.IssuerOfPatientID) == ("N-1", "HERE")
        assert file.data_set.PatientSex == ""
    assert {path.split("/")[0] for path in paths(archive_path)} == {"N-1_New_One"}
    holds(archive_path)


def test_new_uids_are_followed_by_all_that_refers_to_them(archive_path: Path) -> None:
    sops = [uid("DFS-1", 1, 1, number) for number in (1, 2, 3)]
    elsewhere = report(sops[0], study=2, number=50)
    add(archive_path, *make_series(3), report(*sops, number=51), elsewhere, *make_series(1, patient="DFS-2"))
    before = files(archive_path)
    dry = edit(archive_path, Selection(series=(SERIES,)), new_series="new", new_sop="new", dry_run=True)
    done = edit(archive_path, Selection(series=(SERIES,)), new_series="new", new_sop="new")
    assert (done.chosen, done.edited, done.references) == (3, 3, 2)
    assert (dry.edited, dry.references, dry.referring) == (3, 2, done.referring)
    assert set(done.uids) == {SERIES, *sops}
    for file in files(archive_path).values():
        data_set = file.data_set
        assert not set(done.uids) & {data_set.SOPInstanceUID, data_set.SeriesInstanceUID}
        assert data_set.file_meta.MediaStorageSOPInstanceUID == data_set.SOPInstanceUID
        if file.replaced:
            assert differs(before[file.replaced].data, file.data, (), done.uids) == set()
        for study in data_set.get("CurrentRequestedProcedureEvidenceSequence", ()):
            for series in study.ReferencedSeriesSequence:
                assert series.SeriesInstanceUID == done.uids[SERIES]
                assert {one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence} <= set(done.uids.values())
    holds(archive_path)
    again = edit(archive_path, Selection(studies=(STUDY,)), new_study=uid("whole"))
    assert (again.edited, again.references) == (4, 1)
    with Archive.open(archive_path) as opened, opened.view() as view:
        assert view.study_with_uid(STUDY) is None
        assert view.study_with_uid(uid("whole")) is not None
    holds(archive_path)


def test_a_uid_that_is_there_is_not_given_again(archive_path: Path) -> None:
    add(archive_path, *make_series(2), *make_series(2, study=2))
    before = shown(archive_path)
    taken = ({"new_study": OTHER_STUDY}, {"new_series": uid("DFS-1", 2, 1)}, {"new_sop": uid("DFS-1", 2, 1, 1)})
    for options, selection in zip(
        taken,
        (Selection(studies=(STUDY,)), Selection(series=(SERIES,)), Selection(instances=(uid("DFS-1", 1, 1, 1),))),
        strict=True,
    ):
        with pytest.raises(Refused, match="already"):
            edit(archive_path, selection, **options)
    with pytest.raises(UsageError, match="one UID is given for 2"):
        edit(archive_path, Selection(series=(SERIES,)), new_sop="1.2.3")
    with pytest.raises(UsageError, match="no UID"):
        edit(archive_path, Selection(series=(SERIES,)), new_series="1.02")
    with pytest.raises(UsageError, match="whole studies"):
        edit(archive_path, Selection(instances=(uid("DFS-1", 1, 1, 1),)), new_study="new")
    assert shown(archive_path) == before


def test_another_study_keeps_the_series_uid_that_it_shares(archive_path: Path) -> None:
    shared = {"SeriesInstanceUID": SERIES}
    add(archive_path, *make_series(2), *make_series(2, study=2, attributes=shared), *make_series(1, series=3))
    before = files(archive_path)
    selection = Selection(studies=(STUDY,), series=(SERIES,))
    with pytest.raises(Refused, match="choose them, or"):
        edit(archive_path, Selection(studies=(STUDY,)), new_series="new")
    for options, uid_given in (({"new_series": "1.2.3"}, "1.2.3"), ({"into_series": "1.2.4"}, "1.2.4")):
        done = edit(archive_path, selection, **options)
        assert (done.edited, done.references) == (2, 0)
        after = files(archive_path)
        kept = before.keys() & after.keys()
        assert {str(after[ino].data_set.StudyInstanceUID) for ino in kept} == {STUDY, OTHER_STUDY}
        assert len(kept) == 3
        new = [file.data_set for ino, file in after.items() if ino not in kept]
        assert {str(one.SeriesInstanceUID) for one in new} == {uid_given}
        assert {str(one.StudyInstanceUID) for one in new} == {STUDY}
        selection = Selection(series=(uid_given,))
    is_whole(archive_path)


def test_a_part_becomes_a_study_of_its_own(archive_path: Path) -> None:
    add(archive_path, *make_series(2), *make_series(2, series=2, modality="MR"))
    before = files(archive_path)
    done = edit(archive_path, Selection(series=(SERIES,)), "StudyDescription=Split", into_study="new")
    assert (done.edited, done.uids) == (2, {})
    studies: dict[str, list[str]] = {}
    for file in files(archive_path).values():
        studies.setdefault(file.data_set.StudyInstanceUID, []).append(file.data_set.Modality)
        if file.replaced:
            assert differs(before[file.replaced].data, file.data, [0x0020000D, 0x00081030]) == set()
    assert sorted(studies.values()) == [["CT", "CT"], ["MR", "MR"]]
    assert counts(archive_path) == (1, 2, 2, 4)
    holds(archive_path)
    with pytest.raises(UsageError, match="--into-series"):
        edit(archive_path, Selection(instances=(uid("DFS-1", 1, 2, 1),)), into_study="new")
    one = edit(archive_path, Selection(instances=(uid("DFS-1", 1, 2, 1),)), into_study="new", into_series="new")
    assert one.edited == 1
    assert counts(archive_path) == (1, 3, 3, 4)
    holds(archive_path)


def test_what_goes_into_a_study_says_what_that_says(archive_path: Path) -> None:
    """Patient, study and series are one for the catalog, also where the study was another patient's."""
    target = {"StudyDescription": "Target", "AccessionNumber": "", "ReferringPhysicianName": "Ref^One"}
    add(archive_path, *make_series(2, patient="DFS-2", patient_name="Roe^Mary", attributes=target))
    add(archive_path, *make_series(2), *make_series(1, series=2))
    into = uid("DFS-2", 1)
    edit(archive_path, Selection(series=(SERIES,)), into_study=into)
    with Archive.open(archive_path) as opened, opened.view() as view:
        number = view.study_with_uid(into)
        assert number is not None
        study = view.study(number)
        assert (study.mixed, study.instances, len(study.patients)) == (False, 4, 1)
        assert "AccessionNumber" not in study.attributes
    assert counts(archive_path) == (2, 2, 3, 5)
    holds(archive_path)
    done = edit(archive_path, Selection(studies=(STUDY,)), into_series=uid("DFS-2", 1, 1))
    assert done.uids == {STUDY: into, uid("DFS-1", 1, 2): uid("DFS-2", 1, 1)}
    assert counts(archive_path) == (1, 1, 2, 5)
    with Archive.open(archive_path) as opened, opened.view() as view:
        assert not any(study.mixed for study in view.studies())
    holds(archive_path)
    add(archive_path, make_instance("MR", patient="DFS-3"))
    with pytest.raises(Refused, match="modality"):
        edit(archive_path, Selection(patient_id="DFS-3"), into_series=uid("DFS-2", 1, 1))


def test_all_versions_that_are_shown_are_edited(archive_path: Path) -> None:
    add(archive_path, make_instance(seed="one"), make_instance(seed="two"), report(uid("DFS-1", 1, 1, 1), number=5))
    before = paths(archive_path)
    done = edit(archive_path, Selection(instances=(uid("DFS-1", 1, 1, 1),)), "InstanceNumber=7", new_sop="new")
    assert (done.edited, done.references) == (2, 1)
    after = [path for path in paths(archive_path) if "_SR_" not in path]
    assert len(after) == 2
    assert [path.rpartition("/")[2][:5] for path in after] == ["00007", "00007"]
    assert len(before) == 3
    with Archive.open(archive_path) as opened, opened.view() as view:
        (new,) = {done.uids[uid("DFS-1", 1, 1, 1)]}
        versions = [view.instance(ino) for ino in view.instances_where_uid(new)]
        assert [one.current for one in versions] == [True, False]
    holds(archive_path)


def test_one_that_is_refused_keeps_all_from_being_changed(archive_path: Path) -> None:
    bad = make_instance(number=2, attributes={"SpecificCharacterSet": "ISO_IR 100", "StudyDescription": "x"})
    bad = bad.replace(b"ISO_IR 100", b"ISO_IR 101", 1).replace(b"dicomfs tests", b"dicomfs \xa5\xa5sts", 1)
    bad = bad.replace(b"ISO_IR 101", b"ISO_IR 6  ", 1)
    add(archive_path, make_instance(), bad)
    before = shown(archive_path)
    done = edit(archive_path, Selection(studies=(STUDY,)), "PatientName=Дое^Джейн")
    assert (done.seq, len(done.refused)) == (0, 1)
    assert done.refused[0][0] == uid("DFS-1", 1, 1, 2)
    assert shown(archive_path) == before
    with pytest.raises(UsageError, match="skip-refused"):
        edit(archive_path, Selection(studies=(STUDY,)), new_study="new", skip_refused=True)
    done = edit(archive_path, Selection(studies=(STUDY,)), "PatientName=Дое^Джейн", skip_refused=True)
    assert (done.edited, len(done.refused)) == (1, 1)
    holds(archive_path)


def test_layouts_and_live_projects_follow(archive_path: Path) -> None:
    """What is called by the old values goes, what is made of them is made again, and what is frozen stays."""
    add(archive_path, *make_series(3), *make_series(2, patient="DFS-2", patient_name="Roe^Mary"))
    for name in ("icore", "archive"):
        layouts.switch_on(archive_path, name, built_in()[name])
    where = (("PatientID", "DFS-1"),)
    frozen = create(archive_path, "frozen", where).state
    live = create(archive_path, "live", where, live=True).state
    before = shown(archive_path)
    held = below(archive_path, frozen.root)
    assert len(held) == len(below(archive_path, live.root)) == 3
    done = edit(archive_path, Selection(patient_id="DFS-1"), "PatientID=DFS-9", "StudyDate=20200101", new_study="new")
    assert (done.edited, done.warnings) == (3, [])
    after = shown(archive_path)
    assert len(after) == len(before) == 15
    for tree_name in ("patients", "icore", "archive"):
        mine = {path: one for path, one in after.items() if path.startswith(f"{tree_name}/") and path not in before}
        assert len(mine) == 3
        assert len({file[0] for file in mine.values()}) == 3
    assert {path.split("/")[2] for path in after if path.startswith("archive/")} == {"DFS-9", "DFS-2"}
    assert not any("20240131" in path and "DFS-9" in path for path in after)
    assert below(archive_path, frozen.root) == held
    assert below(archive_path, live.root) == {}
    edit(archive_path, Selection(patient_id="DFS-9"), "PatientID=DFS-1")
    assert len(below(archive_path, live.root)) == 3
    holds(archive_path)


def test_what_cannot_be_asked(archive_path: Path) -> None:
    add(archive_path, *make_series(2), *make_series(1, patient="DFS-2"))
    cases: list[tuple[Selection, dict[str, object], tuple[str, ...], str]] = [
        (Selection(), {}, ("PatientSex=F",), "nothing is chosen"),
        (Selection(issuer="x", studies=("1.2",)), {}, ("PatientSex=F",), "--patient-id"),
        (Selection(studies=("1.2*",)), {}, ("PatientSex=F",), "to the letter"),
        (Selection(studies=(STUDY,)), {}, (), "nothing is to be done"),
        (Selection(studies=(STUDY,)), {}, ("StudyInstanceUID=1.2.3",), "--new-study-uid"),
        (Selection(studies=(STUDY,)), {"new_study": "new", "into_study": "new"}, (), "both say"),
        (Selection(studies=(STUDY,)), {"to_issuer": "x"}, ("PatientSex=F",), "--to-issuer"),
        (Selection(where=(("Modality", "CT"),)), {"into_series": "new"}, (), "several studies"),
        (Selection(instances=(uid("DFS-1", 1, 1, 1),)), {"to_patient": "DFS-2"}, (), "whole studies"),
        (Selection(studies=(STUDY,)), {"to_patient": "DFS-2", "into_study": uid("DFS-2", 1)}, (), "has a patient"),
    ]
    for selection, options, settings, message in cases:
        with pytest.raises(UsageError, match=message):
            edit(archive_path, selection, *settings, **options)
    with pytest.raises(NotFound, match="chosen"):
        edit(archive_path, Selection(studies=("1.2.3",)), "PatientSex=F")
    with pytest.raises(Refused, match="several patients"):
        edit(archive_path, Selection(where=(("Modality", "CT"),)), into_study="new")


def test_chosen_by_several_options(archive_path: Path) -> None:
    add(archive_path, *make_series(3), *make_series(3, series=2), *make_series(1, patient="dfs-1"))
    sops = tuple(uid("DFS-1", 1, series, number) for series, number in itertools.product((1, 2), (1, 2)))
    done = edit(archive_path, Selection(series=(SERIES,), instances=sops), "PatientSex=F", dry_run=True)
    assert done.chosen == 2
    assert edit(archive_path, Selection(patient_id="DFS-1"), "PatientSex=F", dry_run=True).chosen == 6
