"""The corpus in two projects, identified and de-identified, searched through a mounted drive as an attacker would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import pydicom
import pytest
from pydicom.pixels.utils import get_expected_length

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.dicom.deid_table import confidentiality
from tests.attacker import known, leaks
from tests.mount.conftest import Drive, end_all, import_into, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.mounted, pytest.mark.corpus, pytest.mark.slow]

PROFILES = {"basic": "basic", "dates": "basic,modified-dates,clean-descriptors"}
TIMEZONE = 0x00080201
DESCRIPTORS = frozenset(tag for tag, row in confidentiality().items() if "clean-descriptors" in row.options)
SPARED = {"basic": (frozenset(), frozenset()), "dates": (DESCRIPTORS | {TIMEZONE}, frozenset({"TM"}))}
"""Attributes and VRs that the options of a profile keep, cleaned or as they are."""
IDENTIFYING = ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyInstanceUID",
               "SeriesInstanceUID", "SOPInstanceUID", "ReferringPhysicianName", "InstitutionName")  # fmt: skip
PRIVATE = re.compile(r"(metadata|linker)\.xlsx|failed_queries\.csv|quarantine")
DAY = re.compile(rb"(?:18|19|20)[0-9]{6}")


class Projects(NamedTuple):
    """A mounted archive of the corpus with one identified and several de-identified projects."""

    archive: Path
    drive: Drive
    shared: Drive
    """The same archive as other users would see it."""
    pairs: dict[str, list[tuple[Path, Path]]]
    """By project: the original and what was made of it."""

    def root(self, name: str) -> Path:
        """Return the directory of a project."""
        (found,) = (self.drive.path / "projects").glob(f"*_{name}_*")
        return found


@pytest.fixture(scope="module")
def projects(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projects]:
    base = tmp_path_factory.mktemp("projects")
    archive = base / "archive"
    Archive.init(archive)
    import_into(archive, corpus)
    dicomfs("project", "create", "all", "-a", archive, "--where", "SOPInstanceUID=*")
    for name, profile in PROFILES.items():
        dicomfs("project", "create", name, "-a", archive, "--where", "SOPInstanceUID=*", "--deid", profile)
    drive = Drive(archive, base / "drive", "", base / "log")
    shared = Drive(archive, base / "shared", "allow_other", base / "shared.log")
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    with Archive.open(archive) as opened, opened.view() as view:
        for state in view.projects():
            pairs[state.definition.name] = [
                (drive.path / view.path(one.source), drive.path / view.path(one.shown))
                for one in view.members(state.root)
                if not one.reason
            ]
    yield Projects(archive, drive, shared, pairs)
    end_all([drive, shared])
    assert check(archive, verify_files=True).problems == []


def dicomfs(*arguments: object) -> str:
    return run(sys.executable, "-m", "dicomfs.cli", *arguments).stdout


@pytest.mark.parametrize("name", PROFILES)
def test_nothing_that_the_profile_takes_away_is_in_a_file(projects: Projects, name: str) -> None:
    assert len(projects.pairs[name]) > 300
    for original, made in projects.pairs[name]:
        if readable(original):
            secret, kept = known(original, *SPARED[name])
            assert not leaks(secret, kept, made), original
            for attribute in os.listxattr(made):
                value = os.getxattr(made, attribute)
                assert value not in secret or value in kept, attribute


@pytest.mark.parametrize("name", PROFILES)
def test_nothing_that_identifies_is_anywhere_else(projects: Projects, name: str, tmp_path: Path) -> None:
    """Names of files, spreadsheets, run.txt, and the drive's log."""
    secret = identifying(original for original, _ in projects.pairs[name])
    if "dates" in name:
        # A day that was moved may be one that another patient has; nobody's own is where it was.
        secret = {one for one in secret if not DAY.fullmatch(one)}
        for original, made in projects.pairs[name]:
            if readable(original):
                own = str(pydicom.dcmread(original, force=True, specific_tags=["StudyDate"]).get("StudyDate") or "")
                assert not DAY.fullmatch(own.encode()) or own not in str(made.parent), made
    root = projects.root(name)
    open_to_all: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [one for one in folders if not PRIVATE.search(one)]
        open_to_all += [os.path.join(folder, one) for one in names if not PRIVATE.fullmatch(one)]
        for one in (*folders, *names):
            assert not found_in(secret, one.encode()), one
    for path in open_to_all:
        if path.endswith(".dcm"):
            continue
        if path.endswith(".xlsx"):
            with zipfile.ZipFile(path) as book:
                data = b"\n".join(book.read(part) for part in book.namelist())
        else:
            with open(path, "rb") as file:
                data = file.read()
        assert not found_in(secret, data), path
    for log in (projects.drive.log, projects.shared.log):
        assert not found_in(secret, log.read_bytes())


def identifying(originals: Iterator[Path]) -> set[bytes]:
    """Return what tells who it is, long enough to be nothing else by chance."""
    found: set[bytes] = set()
    makers: set[bytes] = set()
    for path in originals:
        if not readable(path):
            continue
        ds = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        makers.add(str(ds.get("Manufacturer")).encode())
        for keyword in IDENTIFYING:
            element = ds.get_item(keyword)
            value = getattr(element, "value", None)
            if isinstance(value, bytes | str) and value:
                raw = value if isinstance(value, bytes) else value.encode()
                found.update(piece.strip(b"\0 ") for piece in re.split(rb"[\\=]", raw))
    # There is a series of this number, and an institution that is called as the manufacturers of machines.
    known_to_all = b"\n".join((b"123456", *makers))
    return {value for value in found if len(value) >= 6 and len(set(value)) > 3 and value not in known_to_all}


def found_in(secret: set[bytes], data: bytes) -> set[bytes]:
    return {value for value in secret if value in data}


def readable(path: Path) -> bool:
    """Say whether pydicom can tell what a file says: there are two in the corpus that it cannot read."""
    try:
        pydicom.dcmread(path, force=True, stop_before_pixels=True).walk(lambda *_: None)
    except Exception:  # noqa: BLE001 - whatever it is
        return False
    return True


@pytest.mark.parametrize("name", PROFILES)
def test_pixels_are_the_archive_s_own(projects: Projects, name: str) -> None:
    for original, made in projects.pairs[name]:
        if not readable(original):
            continue
        before, after = pydicom.dcmread(original, force=True), pydicom.dcmread(made)
        for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
            pixels, shown = before.get(keyword), after.get(keyword)
            if isinstance(pixels, bytes) and pixels != shown:
                # Of odd length, which is padded (PS3.5 8.1.1), or with more after the last frame than belongs there.
                length = get_expected_length(before)
                assert shown == pixels[:length] + b"\0" * (length % 2), original
            else:
                assert pixels == shown, original
    size = sum(path.stat().st_size for pair in projects.pairs[name] for path in pair[:1])
    assert size > 1 << 24


def test_the_same_patient_has_one_pseudonym_in_a_project_and_another_in_another(projects: Projects) -> None:
    by_project = {}
    for name in PROFILES:
        pseudonyms: dict[tuple[object, object], set[object]] = {}
        for original, made in projects.pairs[name]:
            if readable(original):
                before = pydicom.dcmread(original, force=True, stop_before_pixels=True)
                after = pydicom.dcmread(made, stop_before_pixels=True)
                if before.get("PatientID"):
                    key = before.PatientID, before.get("IssuerOfPatientID") or ""
                    pseudonyms.setdefault(key, set()).add(after.PatientID)
                for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                    assert before.get(keyword) != after.get(keyword)
        assert all(len(names) == 1 for names in pseudonyms.values())
        by_project[name] = {key: next(iter(names)) for key, names in pseudonyms.items()}
        assert len(set(by_project[name].values())) == len(by_project[name])
    one, other = by_project.values()
    assert all(one[key] != other[key] for key in one.keys() & other.keys())


def test_dates_keep_their_order_and_distance(projects: Projects) -> None:
    import datetime

    shifts: dict[tuple[object, object], set[datetime.timedelta]] = {}
    for original, made in projects.pairs["dates"]:
        if not readable(original):
            continue
        before = pydicom.dcmread(original, force=True, stop_before_pixels=True)
        after = pydicom.dcmread(made, stop_before_pixels=True)
        for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
            try:
                one = datetime.datetime.strptime(str(before.get(keyword)), "%Y%m%d")
            except ValueError:
                continue
            key = before.get("PatientID"), before.get("IssuerOfPatientID")
            if key[0]:
                other = datetime.datetime.strptime(str(after.get(keyword)), "%Y%m%d")
                shifts.setdefault(key, set()).add(other - one)
    assert len(shifts) > 40
    assert all(len(found) == 1 for found in shifts.values())
    assert datetime.timedelta(0) not in {next(iter(found)) for found in shifts.values()}
    assert len({next(iter(found)) for found in shifts.values()}) > 20


def test_others_do_not_see_who_is_who(projects: Projects) -> None:
    for name in PROFILES:
        shown = set(os.listdir(projects.shared.path / "projects" / projects.root(name).name))
        hidden = set(os.listdir(projects.root(name))) - shown
        assert {"linker.xlsx", "metadata.xlsx"} <= hidden
        for one in hidden:
            path = projects.root(name) / one
            assert path.stat().st_mode & 0o077 == 0
            assert not (projects.shared.path / "projects" / projects.root(name).name / one).exists()


def test_the_identified_project_is_hard_links(projects: Projects) -> None:
    for original, shown in projects.pairs["all"]:
        assert original.stat().st_ino == shown.stat().st_ino
    used = run("du", "-s", "--block-size=1", projects.drive.path / "patients", projects.root("all"), "-c").stdout
    alone = run("du", "-s", "--block-size=1", projects.drive.path / "patients").stdout
    assert int(used.splitlines()[-1].split()[0]) < int(alone.split()[0]) * 1.05 + 1_000_000


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed (apt install dicom3tools)")
def test_the_validator_finds_nothing_new(projects: Projects) -> None:
    worse = []
    for original, made in projects.pairs["dates"][::5]:
        before, after = complaints(original), complaints(made)
        if new := after - before:
            worse.append((str(original), sorted(new)))
    assert not worse, worse[:10]


def complaints(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", path], capture_output=True, timeout=60)
    lines = (line for line in (done.stdout + done.stderr).decode("latin-1").splitlines() if line.startswith("Error"))
    return {re.sub(r"<[^>]*>", "<>", line) for line in lines}
