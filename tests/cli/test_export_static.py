"""An export as static DICOMweb is brought up to date by the next one, and leaves alone what is not its own."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
from typing import TYPE_CHECKING

import pydicom
import pytest

from dicomfs.archive import static_objects
from dicomfs.archive.archive import Archive
from dicomfs.archive.documents import directory_name
from dicomfs.archive.documents_history import STAY_S
from dicomfs.archive.moments import time_text
from dicomfs.archive.query import Query
from dicomfs.export_static import export_static
from tests.archive import importing, versions
from tests.builders import make_instance, uid, write_study
from tests.cli import static_reader as reader
from tests.cli.static_reader import Study, dedup

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.export import ExportReport
    from tests.cli.conftest import Filled, Run

STUDY = uid("DFS-1", 1)

# What the reference made of CT_small.dcm (docs/conformance.md).
VECTOR = {
    "00081030": {"vr": "LO", "Value": ["e+1"]},
    "00080050": {"vr": "SH"},
    "0020000D": {"vr": "UI", "Value": ["1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"]},
    "00080020": {"vr": "DA", "Value": ["20040119"]},
    "00080030": {"vr": "TM", "Value": ["072730"]},
    "00200010": {"vr": "SH", "Value": ["1CT1"]},
}


def export(archive: Path, output: Path, query: Query | None = None) -> ExportReport:
    with Archive.open(archive) as opened:
        return export_static(opened, output, query or Query())


def files(root: Path) -> dict[str, tuple[str, int]]:
    """Return hash and time of every file of a tree."""
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def age(path: Path, seconds: float) -> None:
    """Make a file so much older."""
    then = path.stat().st_mtime_ns - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


def objects(root: Path, study: str = STUDY) -> dict[str, dict[str, object]]:
    """Return what the lists give back, by SOP Instance UID."""
    found = Study(root, study)
    return {sop: found.rebuilt(one) for (_, sop), one in found.instances.items()}


def metadata(root: Path, study: str = STUDY) -> dict[str, dict[str, object]]:
    return {
        one["00080018"]["Value"][0]: one
        for path in (root / "studies" / study / "series").glob("*/metadata.gz")
        for one in reader.load(path)
    }


def test_hashes_are_those_of_the_reference() -> None:
    held = {tag: json.dumps(element, separators=(",", ":")) for tag, element in VECTOR.items()}
    assert static_objects.hashed(held) == "98c29e7e1b21705c093c9e220f75e601a73148675f7af97218b8b0e8ef03bbeb"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ('["b","a",10,9]', "[10,9,a,b]"),
        ('{"b":[true,false,null],"a":"x,\\"y\\u00e9"}', '{a:x,"yé,b:[,0,1]}'),
        ("[1.0,1e21,1e-7,-0.0,100000000000000000000]", "[0,1,100000000000000000000,1e+21,1e-7]"),
        ("[9007199254740993,1e999,-1e999]", "[-Infinity,9007199254740992,Infinity]"),
        # By UTF-16 code units, of which a surrogate comes before U+FFFD.
        ('["\\ufffd","\\ud83d\\ude00"]', "[\U0001f600,\ufffd]"),
    ],
)
def test_canonical_texts(text: str, canonical: str) -> None:
    assert static_objects.canonical(text) == canonical


def test_the_command(run: Run, filled: Filled, tmp_path: Path) -> None:
    words = ("export", "-a", filled.path, "--format", "static-dicomweb", "-o", tmp_path / "tree")
    ended = run(*words, "--study-uid", STUDY)
    assert (ended.status, ended.err) == (0, "")
    assert [path.name for path in (tmp_path / "tree/studies").iterdir() if path.is_dir()] == [STUDY]
    first = files(tmp_path / "tree")
    told = json.loads(run(*words, "--all", "--json", "--verbose").out)
    assert (told["failed"], told["removed"]) == (0, 0)
    assert {one["path"] for one in told["files"]} == set(files(tmp_path / "tree")) - {".dicomfs-export.json"}
    now = files(tmp_path / "tree")
    assert {path for path in first if first[path] != now[path]} == {".dicomfs-export.json", "studies/index.json.gz"}
    assert len(reader.load(tmp_path / "tree/studies/index.json.gz")) == len(
        [path for path in (tmp_path / "tree/studies").iterdir() if path.is_dir()]
    )
    # A part again: the list keeps the others.
    assert json.loads(run(*words, "--study-uid", STUDY, "--json").out)["written"] == 0
    assert run(*words, "--study-uid", "9.9").err == "nothing matches\n"


@pytest.mark.parametrize(
    "options",
    [("--flatten",), ("--layout", "dicomweb"), ("--manifest",), ("--zip", "x.zip"), ("--project", "x")],
    ids=lambda options: options[0],
)
def test_what_does_not_go_together(run: Run, filled: Filled, tmp_path: Path, options: tuple[str, ...]) -> None:
    some = () if "--project" in options else ("--all",)
    out = () if "--zip" in options else ("-o", tmp_path / "tree")
    ended = run("export", "-a", filled.path, "--format", "static-dicomweb", *some, *out, *options)
    assert ended.status == 2
    assert "--format static-dicomweb" in ended.err


def test_a_tree_grows_with_its_archive(archive_path: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "one", series=2, instances=3)
    importing.run(archive_path, tmp_path / "one")
    root = tmp_path / "tree"
    assert export(archive_path, root).failed == 0
    before = files(root)
    (old,) = (root / "deduplicated" / STUDY).iterdir()
    importing.run(archive_path, importing.write(tmp_path / "two", {"x": make_instance(series=2, number=9)}))
    assert export(archive_path, root).failed == 0
    assert objects(root) == metadata(root)
    assert len(objects(root)) == 7
    after = files(root)
    changed = {path for path in before if before[path] != after[path]}
    assert not any("/instances/2." in path or "/bulkdata/" in path for path in changed)
    assert reader.load(root / "studies/index.json.gz")[0]["00201208"]["Value"] == [7]
    # The list that is superseded stays, and no reader of the new one looks at it.
    study = Study(root, STUDY)
    assert old.exists()
    assert study.read == ["index"]
    new = study.groups / f"{dedup(study.infos[0], 0x11)[0]}.gz"
    assert old.name.removesuffix(".gz") in dedup(study.infos[0], 0x10)
    # It is the time since then that counts, not how old it is.
    age(old, 10 * STAY_S)
    assert export(archive_path, root).removed == 0
    age(new, STAY_S - 600)
    assert export(archive_path, root).removed == 0
    age(new, 1200)
    report = export(archive_path, root)
    assert (report.written, report.removed) == (0, 1)
    assert not old.exists()
    # What it named is told for ever, so that nothing is written again.
    assert (export(archive_path, root).written, export(archive_path, root).removed) == (0, 0)


def same_archive(archive: Path, other: Path, *files_: bytes) -> None:
    """Make an archive that goes for another one, with other files in it."""
    Archive.init(other)
    shutil.copy(archive / "dicomfs.toml", other / "dicomfs.toml")
    importing.run(
        other, importing.write(other.with_name(f"{other.name}-in"), {f"{n}": one for n, one in enumerate(files_)})
    )


def test_what_is_gone_leaves_the_tree(archive_path: Path, tmp_path: Path) -> None:
    private = {"PixelPaddingValue": 7}
    kept = [make_instance(number=number) for number in (1, 2)]
    gone = [make_instance(number=3), make_instance(series=2), make_instance(patient="DFS-9", attributes=private)]
    importing.run(archive_path, importing.write(tmp_path / "in", {f"{n}": one for n, one in enumerate([*kept, *gone])}))
    root = tmp_path / "tree"
    export(archive_path, root)
    assert len(list(root.glob("studies/*/series/*/instances/*/frames/1.mht.gz"))) == 5
    (list_before,) = (root / "deduplicated" / STUDY).iterdir()
    same_archive(archive_path, tmp_path / "less", *kept)
    (root / "studies" / STUDY / "series" / "notes.txt").write_text("not ours")
    report = export(tmp_path / "less", root)
    assert (root / "studies" / STUDY / "series" / "notes.txt").exists()
    # One instance, one series, one study with its lists.
    assert (report.failed, report.removed) == (0, 4)
    assert set(objects(root)) == set(metadata(root)) == {uid("DFS-1", 1, 1, number) for number in (1, 2)}
    assert len(list(root.glob("studies/*/series/*/instances/*/frames/1.mht.gz"))) == 2
    assert [one["0020000D"]["Value"] for one in reader.load(root / "studies/index.json.gz")] == [[STUDY]]
    assert list_before.exists()
    objects_before = len(list(root.glob("studies/*/bulkdata/*/*/*.json.gz")))
    for group in (root / "deduplicated" / STUDY).iterdir():
        age(group, 2 * STAY_S)
    export(tmp_path / "less", root)
    assert export(tmp_path / "less", root).written == 0
    assert not list_before.exists()
    assert len(list(root.glob("studies/*/bulkdata/*/*/*.json.gz"))) < objects_before
    assert objects(root) == metadata(root)
    # The state of before, again: its list is the newest, and the other one is superseded.
    export(archive_path, root)
    assert objects(root) == metadata(root)
    assert len(objects(root)) == 4


def test_lists_tell_history(archive_path: Path, tmp_path: Path) -> None:
    importing.add(archive_path, *(make_instance(number=number) for number in (1, 2, 3)))
    root = tmp_path / "tree"
    export(archive_path, root)
    first = Study(root, STUDY)
    sops = [uid("DFS-1", 1, 1, number) for number in (1, 2, 3)]
    own = {sop: dedup(one, 0x11)[0] for (_, sop), one in first.instances.items()}
    assert not any(dedup(first.infos[0], number) for number in (0x13, 0x15))

    importing.add(archive_path, make_instance(number=2, patient_name="Roe^Jane"), on_conflict="replace")
    export(archive_path, root)
    second = Study(root, STUDY)
    assert second.read == ["index"]
    assert objects(root) == metadata(root)
    assert_hashes(second)
    assert (dedup(second.infos[0], 0x15), dedup(second.infos[0], 0x13)) == (dedup(first.infos[0], 0x11), [])
    instances = {sop: one for (_, sop), one in second.instances.items()}
    assert {sop: dedup(one, 0x14) for sop, one in instances.items()} == {
        sops[0]: [],
        sops[1]: [own[sops[1]]],
        sops[2]: [],
    }
    patients = {tuple(dedup(one, 0x14)) for one in second.extracts.values() if dedup(one, 0x12) == ["patient"]}
    (old,) = (digest for digest, one in first.extracts.items() if dedup(one, 0x12) == ["patient"])
    assert patients == {(), (old,)}

    path = next(path for path in importing.tree(archive_path) if path.endswith("00002.dcm"))
    versions.delete(archive_path, path)
    export(archive_path, root)
    third = Study(root, STUDY)
    assert dedup(third.infos[0], 0x15) == dedup(second.infos[0], 0x11)
    assert dedup(third.infos[0], 0x13) == dedup(instances[sops[1]], 0x11)
    assert_hashes(third)
    assert len(list(third.groups.iterdir())) == 3
    assert (export(archive_path, root).written, export(archive_path, tmp_path / "other").failed) == (0, 0)
    # The same of the same archive, whatever was exported before.
    other = Study(tmp_path / "other", STUDY)
    assert other.instances == third.instances
    assert [dedup(other.infos[0], number) for number in (0x11, 0x13, 0x15)] == [
        dedup(third.infos[0], number) for number in (0x11, 0x13, 0x15)
    ]


def test_an_earlier_state_is_exported(run: Run, archive_path: Path, tmp_path: Path) -> None:
    importing.add(archive_path, *(make_instance(number=number) for number in (1, 2, 3)))
    importing.add(archive_path, make_instance(number=2, patient_name="Roe^Jane"), on_conflict="replace")
    with Archive.open(archive_path) as archive, archive.view() as view:
        then = time_text(view.event(view.seq).time_ns)
    root = tmp_path / "tree"
    export(archive_path, root)
    before = {path: digest for path, (digest, _) in files(root).items()}

    importing.add(archive_path, make_instance(number=1, patient_name="Poe^Jane"), on_conflict="replace")
    importing.add(archive_path, make_instance(patient="DFS-2", number=4))
    versions.delete(archive_path, next(path for path in importing.tree(archive_path) if path.endswith("00003.dcm")))
    words = ("export", "-a", archive_path, "--all", "--format", "static-dicomweb", "-o")
    assert run(*words, tmp_path / "earlier", "--as-of", then).status == 0
    assert {path: digest for path, (digest, _) in files(tmp_path / "earlier").items()} == before
    # A tree follows there and back.
    assert run(*words, root).status == 0
    assert len(list((root / "studies").iterdir())) == 3
    assert run(*words, root, "--as-of", then).status == 0
    assert [path.name for path in (root / "studies").iterdir() if path.is_dir()] == [STUDY]
    assert objects(root) == metadata(root)
    assert set(before) <= set(files(root))
    assert dedup(Study(root, STUDY).infos[0], 0x11) == dedup(Study(tmp_path / "earlier", STUDY).infos[0], 0x11)


def test_what_static_wado_makes_of_a_tree_comes_back(archive_path: Path, tmp_path: Path) -> None:
    """Its tool makes metadata of lists and leaves in what these add: also what they tell of history."""
    importing.add(archive_path, *(make_instance(number=number) for number in (1, 2)))
    importing.add(archive_path, make_instance(number=2, patient_name="Roe^Jane"), on_conflict="replace")
    root = tmp_path / "tree"
    export(archive_path, root)
    study = Study(root, STUDY)
    whole = []
    for one in study.instances.values():
        extracts = [study.extracts[ref] for ref in dedup(one, 0x10)]
        whole.append({tag: element for held in (*reversed(extracts), one) for tag, element in held.items()})
    assert any("00091014" in one for one in whole)
    (path,) = root.glob("studies/*/series/*/metadata.gz")
    path.write_bytes(gzip.compress(json.dumps(whole).encode()))
    for own in root.glob("studies/*/series/*/instances/*/metadata.gz"):
        own.unlink()
    for lists in (*root.glob("deduplicated/*/*"), *root.glob("studies/*/deduplicated/*")):
        lists.unlink()
    Archive.init(tmp_path / "back")
    done = importing.run(tmp_path / "back", root, static_dicomweb=True)
    assert done.report.complete
    assert len(done.results) == 2
    for data in importing.contents(tmp_path / "back").values():
        assert not [element.tag for element in pydicom.dcmread(io.BytesIO(data)) if element.tag.group == 0x0009]


def assert_hashes(study: Study) -> None:
    """All hashes are those of static-wado."""
    items = reader.load(study.directory / "deduplicated/index.json.gz")
    assert dedup(items[0], 0x11) == [reader.hash_of([one for one in items if dedup(one, 0x12) == ["instance"]])]
    for item in items[1:]:
        assert dedup(item, 0x11) == [reader.hash_of(reader.before_hashing(item))]


def test_values_whose_order_differs_stay_apart(archive_path: Path, tmp_path: Path) -> None:
    windows = [([40, 300], [400, 1500]), ([300, 40], [1500, 400])]
    made = {
        f"{number}": make_instance(
            "MR",
            number=number,
            attributes={"WindowCenter": windows[number % 2][0], "WindowWidth": windows[number % 2][1]},
        )
        for number in range(1, 7)
    }
    importing.run(archive_path, importing.write(tmp_path / "in", made))
    root = tmp_path / "tree"
    assert export(archive_path, root).failed == 0
    assert objects(root) == metadata(root)
    assert [one["00281050"]["Value"] for one in metadata(root).values()] == [
        windows[number % 2][0] for number in range(1, 7)
    ]
    assert len({len(dedup(one, 0x10)) for one in Study(root, STUDY).instances.values()}) == 2
    assert export(archive_path, root).written == 0


def test_others_studies_are_left_alone(archive_path: Path, tmp_path: Path) -> None:
    importing.run(archive_path, importing.write(tmp_path / "in", {"x": make_instance(), "y": make_instance(study=2)}))
    root = tmp_path / "tree"
    theirs = [
        {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A,]}"}]}}
    ]
    (root / "studies" / STUDY).mkdir(parents=True)
    (root / "studies/index.json.gz").write_bytes(gzip.compress(json.dumps(theirs, indent=1).encode()))
    report = export(archive_path, root)
    assert report.failed == 1
    assert list((root / "studies" / STUDY).iterdir()) == []
    listed = reader.load(root / "studies/index.json.gz")
    assert listed[0] == theirs[0]
    assert [one["0020000D"]["Value"] for one in listed] == [["1.2.3"], [uid("DFS-1", 2)]]
    # A list that nobody can read is nobody's to overwrite.
    (root / "studies/index.json.gz").write_bytes(gzip.compress(json.dumps(theirs).encode())[:-9])
    broken = (root / "studies/index.json.gz").read_bytes()
    assert export(archive_path, root).failed == 2
    assert (root / "studies/index.json.gz").read_bytes() == broken


def test_what_was_cut_off_is_mended(archive_path: Path, tmp_path: Path) -> None:
    importing.run(archive_path, importing.write(tmp_path / "in", {"x": make_instance(frames=3)}))
    root = tmp_path / "tree"
    export(archive_path, root)
    whole = files(root)
    for path in (*root.rglob("2.mht.gz"), *root.rglob("metadata.gz"), *root.rglob("thumbnail"), *root.rglob("H*.gz")):
        changed = path.stat().st_mtime_ns
        path.write_bytes(path.read_bytes()[:-5])
        os.utime(path, ns=(changed, changed))
    (frames,) = root.rglob("frames")
    (frames / ".2.mht.gz.dicomfs-part").write_bytes(b"half")
    (frames / "4.mht").write_bytes(b"of an instance that had more")
    report = export(archive_path, root)
    assert (report.failed, report.removed) == (0, 1)
    mended = files(root)
    assert {path: digest for path, (digest, _) in mended.items()} == {
        path: digest for path, (digest, _) in whole.items()
    }


@pytest.mark.damaged
def test_what_cannot_be_read_is_told(run: Run, archive_path: Path, tmp_path: Path) -> None:
    importing.add(archive_path, make_instance(rows=512, columns=512))
    importing.add(archive_path, make_instance(number=2))
    pack = importing.packs(archive_path)[0]
    importing.flip(pack, pack.stat().st_size // 2)
    root = tmp_path / "tree"
    ended = run("export", "-a", archive_path, "--all", "--format", "static-dicomweb", "-o", root)
    assert ended.status == 1
    assert ", 2 failed" in ended.out  # the frame, and the picture that is made of it
    assert "frames/1.mht.gz: " in ended.err
    assert objects(root) == metadata(root)
    assert len(objects(root)) == 2
    assert len(list(root.rglob("1.mht.gz"))) == 1
    assert not list(root.rglob("*dicomfs-part"))


def test_hostile_uids_stay_inside(archive_path: Path, tmp_path: Path) -> None:
    data = make_instance(
        attributes={"StudyInstanceUID": "9.8.7.6.5.4.1", "SeriesInstanceUID": "9.8.7.6.2", "SOPInstanceUID": "9.8.7"}
    )
    for plain, hostile in ((b"9.8.7.6.5.4.1", b"../../../evil"), (b"9.8.7.6.2", b'a"b%2f/..'), (b"9.8.7", b"../..")):
        data = data.replace(plain, hostile)
    importing.run(archive_path, importing.write(tmp_path / "in", {"x": data}))
    root = tmp_path / "deep" / "tree"
    assert export(archive_path, root).failed == 0
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tree"]
    assert not list(tmp_path.glob("evil*"))
    (study,) = (path.name for path in (root / "studies").iterdir() if path.is_dir())
    assert study == directory_name("../../../evil")
    assert objects(root, study) == metadata(root, study)
    (path,) = root.glob("studies/*/series/*/metadata.gz")
    ((_, way),) = reader.bulk_uris(reader.load(path)[0])
    frames = reader.resolved(root, f"studies/{study}/series/{path.parent.name.replace('%', '%25')}/metadata", way)
    assert [one.name for one in frames.iterdir()] == ["1.mht.gz"]
    assert export(archive_path, root).written == 0
    # Nobody can tell from its name whether it is gone: its UID has to be looked for.
    same_archive(archive_path, tmp_path / "less", make_instance())
    assert export(tmp_path / "less", root).removed == 2
    assert not (root / "studies" / study).exists()


def test_a_taken_block_moves_the_lists_one(archive_path: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(make_instance()))
    dataset.private_block(0x0009, "GEMS_IDEN_01", create=True).add_new(0x11, "LO", "theirs")
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    importing.run(archive_path, tmp_path / "x.dcm")
    root = tmp_path / "tree"
    export(archive_path, root)
    assert objects(root) == metadata(root)
    (instance,) = Study(root, STUDY).instances.values()
    assert reader.block_of(instance) == "11"
    assert instance["00091011"] == {"vr": "LO", "Value": ["theirs"]}


def test_one_export_at_a_time(run: Run, filled: Filled, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    ended = run("export", "-a", filled.path, "--all", "--format", "static-dicomweb", "-o", tmp_path)
    os.close(fd)
    assert ended.status == 1
    assert "another export is writing there" in ended.err


def test_a_directory_that_is_something_else(run: Run, filled: Filled, tmp_path: Path) -> None:
    (tmp_path / ".dicomfs-export.json").write_text("[]")
    words = ("export", "-a", filled.path, "--all", "--format", "static-dicomweb", "-o")
    ended = run(*words, tmp_path)
    assert ended.status == 2
    assert "is not what an export writes there" in ended.err
    assert run(*words, filled.path / "tree").status == 2
