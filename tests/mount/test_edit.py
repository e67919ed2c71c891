"""A drive while its archive is edited: names, contents, documents and open files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from tests.builders import uid
from tests.mount.conftest import run
from tests.mount.test_changes import VISIBLE_S, seconds_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.mount.conftest import Drive

pytestmark = pytest.mark.mounted

STUDY, SERIES, SOP = uid("DFS-1", 1), uid("DFS-1", 1, 1), uid("DFS-1", 1, 1, 1)


def edit(archive: Path, *options: str) -> None:
    """Edit by a process of its own, as another user of the archive would."""
    run(sys.executable, "-m", "dicomfs.cli", "edit", "-a", archive, *options)


def first(path: Path) -> Mapping[str, Mapping[str, list[Mapping[str, str]]]]:
    found = json.loads(gzip.decompress(path.read_bytes()))
    assert isinstance(found, list)
    return found[0]  # type: ignore[no-any-return]


def test_a_corrected_name_shows_within_a_second(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive]
) -> None:
    archive, study = imported
    drive = mount_drive(archive)
    old, new = drive.patients / "DFS-1_Doe_Jane", drive.patients / "DFS-1_Roe_Mary"
    web = drive.path / "dicomweb/studies" / STUDY
    instance = web / f"series/{SERIES}/instances/{SOP}"
    frame, picture = (instance / "frames/1").read_bytes(), (instance / "thumbnail").read_bytes()
    assert first(web / "metadata.gz")["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]
    paths = sorted(drive.files())
    with (drive.patients / paths[0]).open("rb") as held:
        head = held.read(200)
        edit(archive, "--study-uid", STUDY, "--set", "PatientName=Roe^Mary")
        assert seconds_until(lambda: new.exists() and not old.exists()) < VISIBLE_S
        assert os.listdir(drive.patients) == [new.name]
        assert hashlib.sha256(head + held.read()).hexdigest() in study.values()
    assert sorted(drive.files()) == [path.replace(old.name, new.name) for path in paths]
    for path in drive.files().values():
        data_set = dcmread(io.BytesIO(path.read_bytes()))
        assert data_set.PatientName == "Roe^Mary"
        assert len(data_set.PixelData) == 96 * 96 * 2
        assert os.getxattr(path, "user.dicomfs.sha256").decode() == hashlib.sha256(path.read_bytes()).hexdigest()
    for document in (
        web / "metadata.gz",
        web / "index.json.gz",
        web.parent / "index.json.gz",
        instance / "metadata.gz",
    ):
        assert first(document)["00100010"]["Value"] == [{"Alphabetic": "Roe^Mary"}], document
    assert (instance / "frames/1").read_bytes() == frame
    assert (instance / "thumbnail").read_bytes() == picture


def test_what_was_split_off_shows_where_it_is(
    imported: tuple[Path, dict[Path, str]], mount_drive: Callable[..., Drive]
) -> None:
    """Old directories vanish, UIDs lead to what has them now."""
    archive, _ = imported
    drive = mount_drive(archive)
    patient = drive.patients / "DFS-1_Doe_Jane"
    web = drive.path / "dicomweb/studies"
    left = patient / "20240131_1015_Study 1/0001_CT_Series 1"
    assert left.is_dir()
    assert len(os.listdir(web / STUDY / "series")) == 3
    edit(archive, "--series-uid", SERIES, "--into-study", "2.25.77", "--set", "StudyDescription=Other")
    moved = patient / "20240131_1015_Other/0001_CT_Series 1"
    assert seconds_until(lambda: moved.is_dir() and not left.exists()) < VISIBLE_S
    assert len(os.listdir(moved)) == 6
    assert (web / "2.25.77" / "series" / SERIES / "metadata.gz").is_file()
    assert not (web / STUDY / "series" / SERIES).exists()
    assert first(web / "2.25.77/index.json.gz")["00081030"]["Value"] == ["Other"]
    edit(archive, "--study-uid", STUDY, "--into-study", "2.25.77")
    assert seconds_until(lambda: not (patient / "20240131_1015_Study 1").exists()) < VISIBLE_S
    assert len(drive.files()) == 12
    assert not (web / STUDY).exists()
