"""The layout of OMI-DB on real drives, read by the package that its users read it with."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dicomfs.archive.built_in_layouts import built_in
from tests.builders import make_instance, uid, write_study
from tests.mount.conftest import import_into, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted

COMMANDS = """
import sys
from pathlib import Path
from dicomfs.archive.attachments import attach, detach
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.clients import with_prefix
from dicomfs.archive.layouts import switch_off, switch_on
from dicomfs.archive.rebuild import reindex
what, archive, *rest = sys.argv[1:]
archive = Path(archive)
if what == "on":
    switch_on(archive, rest[0], with_prefix(built_in()["omidb"], rest[1]))
elif what == "attach":
    attach(archive, rest[0], rest[1].encode(), "nbss.json")
else:
    {"off": switch_off, "detach": detach, "reindex": reindex}[what](archive, *rest)
"""

# What a program of OMI-DB's users does: everything that the package can tell, the pixels of some images.
READER = """
import json, sys, warnings
import pydicom
from pathlib import Path
from loguru import logger
import omidb
warnings.simplefilter("ignore")  # pydicom's, of values in real files
root, pixels = Path(sys.argv[1]), int(sys.argv[2])
errors = []
logger.remove()
logger.enable("omidb")
logger.add(lambda text: errors.append(str(text)), level="ERROR")
clients = [] if len(sys.argv) < 4 else [path.name for path in (root / "data").iterdir()]
found, decoded = {}, 0
for client in omidb.DB(root / "data", root / "images", clients=clients):
    status = client.status.name
    for episode in client.episodes:
        for study in episode.studies:
            for series in study.series:
                for image in series.images:
                    syntax = image.attributes.get("00020010", {}).get("Value", [""])[0]
                    try:
                        dicom = image.dcm
                    except Exception as error:
                        dicom = None
                    if decoded < pixels:
                        assert dicom.pixel_array.size
                        decoded += 1
                    found[f"{client.id}/{study.id}/{image.id}"] = [
                        syntax, dicom is not None and str(dicom.SOPInstanceUID), str(study.date), series.id,
                        [event.name for event in study.event_type], episode.id, status, client.site]
print(json.dumps({"found": found, "errors": errors}))
"""


def command(what: str, archive: Path, *arguments: str) -> None:
    """Change an archive in a process of its own."""
    run(sys.executable, "-c", COMMANDS, what, archive, *arguments)


def read(root: Path, tmp_path: Path, *, pixels: int = 0, every: bool = False) -> dict[str, list[Any]]:
    """Read a layout with the package omidb, by default those clients that it finds by itself; it logs no error."""
    arguments = ["all"] if every else []
    previous = os.environ.get("MPLCONFIGDIR")
    os.environ["MPLCONFIGDIR"] = str(tmp_path)
    try:
        done = json.loads(run(sys.executable, "-c", READER, root, pixels, *arguments).stdout)
    finally:
        os.environ.pop("MPLCONFIGDIR")
        if previous is not None:
            os.environ["MPLCONFIGDIR"] = previous
    assert done["errors"] == []
    found: dict[str, list[Any]] = done["found"]
    return found


def within_a_second(true: Callable[[], bool]) -> None:
    """Wait until something is so; a second is what is promised, and a busy machine gets some more."""
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_mirrors(root: Path) -> int:
    """Every file below data/ is valid JSON and as long as told; there is one for each image, two for each client."""
    images = {str(path.relative_to(root / "images")) for path in (root / "images").rglob("*.dcm")}
    clients = os.listdir(root / "images")
    expected = {path.removesuffix(".dcm") + ".json" for path in images}
    expected |= {f"{client}/{one}_{client}.json" for client in clients for one in ("imagedb", "nbss")}
    found = set()
    for folder, _, names in os.walk(root / "data"):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                text = file.read()
                assert len(text) == os.stat(path).st_size
            assert isinstance(json.loads(text), dict)
            found.add(os.path.relpath(path, root / "data"))
    assert found == expected
    return len(images)


def write_patients(directory: Path, *patients: str) -> Path:
    """Write two studies of each of these patients."""
    for number, patient in enumerate(patients):
        for study in (1, 2):
            write_study(directory / f"{number}-{study}", patient=patient, study=study, series=2, instances=2)
    return directory


NBSS = json.dumps(
    {"77": {"EpisodeType": "F", "EpisodeOpenedDate": "2024-01-01", "SCREENING": {"L": {"DateTaken": "2024-01-31"}}}}
)


def test_the_package_reads_a_drive(archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    command("on", archive_path, "omidb", "demd")
    import_into(archive_path, write_patients(tmp_path / "source", "optm1", "A/B", "abcd9"))
    command("attach", archive_path, "optm1", NBSS)
    drive = mount_drive(archive_path)
    root = drive.path / "omidb"
    assert assert_mirrors(root) == 24
    found = read(root, tmp_path, pixels=3)
    names = {path.split("/")[0] for path in found}
    assert len(found) == 16
    assert names == {"optm1", "demd0000002"}  # others it has to be told of
    for path, (syntax, sop, date, series, events, episode, _, _) in found.items():
        client, study, image = path.split("/")
        assert (root / "images" / client / study / f"{image}.dcm").is_file()
        assert (syntax, sop, date) == ("1.2.840.10008.1.2.1", image, "2024-01-31")
        assert series != study
        # Both studies are of the day of the one event, and then the package links none.
        assert (events, episode) == ([], "77" if client == "optm1" else study)
    assert len(read(root, tmp_path, every=True)) == 24


def test_events_are_linked(archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    command("on", archive_path, "omidb", "demd")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "one").write_bytes(make_instance(patient="optm1"))
    import_into(archive_path, tmp_path / "source")
    command("attach", archive_path, "optm1", NBSS)
    drive = mount_drive(archive_path)
    ((_, _, _, _, events, episode, _, _),) = read(drive.path / "omidb", tmp_path).values()
    assert (events, episode) == (["screening"], "77")


def test_images_are_hard_links(archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    command("on", archive_path, "omidb", "demd")
    import_into(archive_path, write_patients(tmp_path / "source", "optm1"))
    drive = mount_drive(archive_path)
    images = sorted(path.stat().st_ino for path in (drive.path / "omidb" / "images").rglob("*.dcm"))
    assert images == sorted(path.stat().st_ino for path in drive.files().values())
    assert next((drive.path / "omidb" / "images").rglob("*.dcm")).stat().st_nlink == 2
    assert (drive.path / "omidb").stat().st_nlink == 4
    other = [path.stat().st_ino for path in (drive.path / "omidb" / "data").rglob("*")]
    assert len(set(other)) == len(other)
    assert not set(other) & set(images)


def test_summaries(archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    """The command that comes with the package writes a row for each image, and logs no error."""
    command("on", archive_path, "omidb", "demd")
    import_into(archive_path, write_patients(tmp_path / "source", "optm1", "B"))
    command(
        "attach", archive_path, "optm1", '{"3": {"EpisodeOpenedDate": "20110101", "EpisodeClosedDate": "20110202"}}'
    )
    drive = mount_drive(archive_path)
    output, log = tmp_path / "summary.csv", tmp_path / "summary.log"
    script = "import sys; from omidb.commands import main; sys.argv[0] = 'omidb'; main()"
    run(sys.executable, "-c", script, "summarise", drive.path / "omidb" / "data", output, "--log-file", log)
    with output.open() as file:
        rows = [row for row in csv.DictReader(file) if row["SOPInstanceUID"]]
    assert len(rows) == 16
    assert {row["TransferSyntaxUID"] for row in rows} == {"1.2.840.10008.1.2.1"}
    assert {row["Manufacturer"] for row in rows} == {"dicomfs tests"}
    assert "ERROR" not in log.read_text()


def test_what_changes_shows_on_a_running_drive(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    drive = mount_drive(archive_path)
    command("on", archive_path, "omidb", "demd")
    root = drive.path / "omidb"
    within_a_second(lambda: os.path.isdir(root) and os.listdir(root) == ["data"])
    import_into(archive_path, write_patients(tmp_path / "one", "optm1"))
    within_a_second(lambda: os.path.isdir(root / "images") and assert_mirrors(root) == 8)
    nbss, imagedb = (root / "data" / "optm1" / f"{one}_optm1.json" for one in ("nbss", "imagedb"))
    assert "77" not in json.loads(nbss.read_text())
    with nbss.open() as held:
        command("attach", archive_path, "optm1", NBSS)
        within_a_second(lambda: nbss.read_text() == NBSS)
        assert "77" not in json.loads(held.read())  # who has it open reads on what it was
    within_a_second(lambda: '"EpisodeID": "77"' in imagedb.read_text())
    import_into(archive_path, write_patients(tmp_path / "two", "A", "optm2"))
    within_a_second(lambda: len(os.listdir(root / "data")) == 3)
    within_a_second(lambda: assert_mirrors(root) == 24)
    assert len(read(root, tmp_path)) == 24
    write_study(tmp_path / "three", patient="optm1", study=1, series=3, instances=3)
    import_into(archive_path, tmp_path / "three")
    study = root / "data" / "optm1" / uid("optm1", 1)
    within_a_second(lambda: len(os.listdir(study)) == 9)
    within_a_second(lambda: assert_mirrors(root) == 29)
    command("detach", archive_path, "optm1")
    within_a_second(lambda: "77" not in json.loads(nbss.read_text()))
    assert len(read(root, tmp_path)) == 29


@pytest.mark.slow
def test_it_stays_right_while_imports_go_on(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    """Whoever reads meanwhile gets whole documents, which name nothing that is not there."""
    command("on", archive_path, "omidb", "demd")
    sources = []
    for batch in range(6):
        directory = tmp_path / f"batch{batch}"
        directory.mkdir()
        sources.append(directory)
        for number in range(8):
            file = make_instance(
                patient=f"optm{number % 3}", study=batch % 2, number=8 * batch + number, rows=8, columns=8
            )
            (directory / f"{number}").write_bytes(file)
    drive = mount_drive(archive_path)
    root = drive.path / "omidb"

    def work() -> None:
        for batch, source in enumerate(sources):
            import_into(archive_path, source)
            command("attach", archive_path, f"optm{batch % 3}", json.dumps({f"{batch}": {}}))

    walked = 0
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        while not working.done():
            walked += assert_whole(root)
        working.result()
    assert walked
    within_a_second(lambda: assert_mirrors(root) == 48)
    assert len(read(root, tmp_path)) == 48


def assert_whole(root: Path) -> int:
    """Read all that there is below data/ at this moment; return how many files that were."""
    count = 0
    for folder, _, names in os.walk(root / "data"):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                size, text = os.fstat(file.fileno()).st_size, file.read()
            assert len(text) == size
            told = json.loads(text)
            count += 1
            if name.startswith("imagedb_"):
                for study, about in told["STUDIES"].items():
                    for sop in (sop for series in about.values() if isinstance(series, dict) for sop in series):
                        assert os.path.exists(os.path.join(folder, study, f"{sop}.json"))
                        assert os.path.exists(os.path.join(folder.replace("/data/", "/images/"), study, f"{sop}.dcm"))
    return count


def test_an_instance_that_is_replaced(archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    command("on", archive_path, "omidb", "demd")
    for name, seed, comment in (("one", None, "before"), ("two", "other", "after")):
        (tmp_path / name).mkdir()
        file = make_instance(patient="optm1", seed=seed, attributes={"PatientComments": comment})
        (tmp_path / name / "file").write_bytes(file)
    import_into(archive_path, tmp_path / "one")
    drive = mount_drive(archive_path)
    root = drive.path / "omidb"
    (header,) = (root / "data").glob("*/*/*.json")
    assert json.loads(header.read_text())["00104000"]["Value"] == ["before"]
    import_into(archive_path, tmp_path / "two", on_conflict="replace")
    within_a_second(lambda: json.loads(header.read_text())["00104000"]["Value"] == ["after"])
    (image,) = (root / "images").rglob("*.dcm")
    assert image.read_bytes() == (tmp_path / "two" / "file").read_bytes()
    assert len(read(root, tmp_path, pixels=1)) == 1


def test_it_survives_a_rebuild_and_another_prefix(
    archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path
) -> None:
    command("on", archive_path, "omidb", "demd")
    import_into(archive_path, write_patients(tmp_path / "source", "B", "A"))
    command("attach", archive_path, "B", NBSS)
    drive = mount_drive(archive_path)
    root = drive.path / "omidb"
    before = read(root, tmp_path)
    shutil.rmtree(archive_path / "index")
    command("reindex", archive_path)
    within_a_second(lambda: assert_mirrors(root) == 16)
    assert read(root, tmp_path) == before
    command("off", archive_path, "omidb")
    within_a_second(lambda: not root.exists())
    command("on", archive_path, "omidb", "optm")
    within_a_second(lambda: root.exists() and set(os.listdir(root / "data")) == {"optm0000001", "optm0000002"})
    assert len(read(root, tmp_path)) == len(before)
    command("off", archive_path, "omidb")
    command("on", archive_path, "omidb", "demd")
    within_a_second(lambda: root.exists() and set(os.listdir(root / "data")) == {"demd0000001", "demd0000002"})
    assert read(root, tmp_path) == before


@pytest.mark.corpus
def test_the_corpus(archive_path: Path, corpus: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    command("on", archive_path, "omidb", "demd")
    import_into(archive_path, corpus)
    drive = mount_drive(archive_path)
    root = drive.path / "omidb"
    images = assert_mirrors(root)
    assert images == len(drive.files()) > 500
    found = read(root, tmp_path, every=True)
    # A second file of one SOP Instance UID has a name that is no UID, and is not an image to the package.
    named = [path for path in (root / "images").rglob("*.dcm") if "~" not in path.name]
    assert len(found) == len(named)
    assert all(syntax for syntax, *_ in found.values())
    # Of a few files pydicom says itself that it does not read them.
    assert sum(sop is False for _, sop, *_ in found.values()) < 10


def test_it_is_there_by_name(archive_path: Path, mount_drive: Callable[..., Drive], tmp_path: Path) -> None:
    command("on", archive_path, "omidb", "demd")
    import_into(archive_path, write_patients(tmp_path / "source", "optm1"))
    alone = mount_drive(archive_path, "views=omidb")
    assert set(os.listdir(alone.path)) == {"omidb", "README.txt"}
    assert built_in()["omidb"].startswith("images/{client:demd}/")
    assert len(read(alone.path / "omidb", tmp_path)) == 8
