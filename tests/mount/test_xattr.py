"""Extended attributes: a few are listed, any keyword is answered, the rest is refused."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.mount.conftest import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.mount.conftest import Drive, Stocked

pytestmark = pytest.mark.mounted

LISTED = {
    "user.dicom.PatientID",
    "user.dicom.StudyInstanceUID",
    "user.dicom.SeriesInstanceUID",
    "user.dicom.SOPInstanceUID",
    "user.dicomfs.sha256",
}


@pytest.fixture
def file(stocked: Stocked) -> Path:
    return stocked.files()["DFS-1_Doe_Jane/20240131_1015_Study 1/0002_CT_Series 2/00003.dcm"]


def test_the_listed_attributes_are_those_of_the_file(file: Path) -> None:
    import pydicom

    assert set(os.listxattr(file)) == LISTED
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert os.getxattr(file, f"user.dicom.{keyword}").decode() == dataset[keyword].value
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert os.getxattr(file, "user.dicomfs.sha256").decode() == digest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user.dicom.Modality", "CT"),
        ("user.dicom.Rows", "128"),
        ("user.dicom.InstanceNumber", "3"),
        ("user.dicom.StudyDate", "20240131"),
        ("user.dicom.PatientName", "Doe^Jane"),
        ("user.dicom.0008,0060", "CT"),
    ],
)
def test_any_keyword_is_answered(file: Path, name: str, value: str) -> None:
    assert os.getxattr(file, name).decode() == value


def test_names_are_decoded_by_their_character_set(stocked: Stocked) -> None:
    path = next(path for name, path in stocked.files().items() if "Study 4" in name)
    assert os.getxattr(path, "user.dicom.PatientName").decode() == "山田^太郎"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("user.dicom.NoSuchKeyword", errno.ENODATA),
        ("user.dicom.PatientComments", errno.ENODATA),
        ("user.dicom.", errno.ENODATA),
        ("user.xdg.comment", errno.ENODATA),
        ("security.selinux", errno.EOPNOTSUPP),
        ("system.ntfs_attrib_be", errno.EOPNOTSUPP),
        ("trusted.overlay.opaque", errno.EOPNOTSUPP),
    ],
)
def test_what_is_not_there_is_refused(file: Path, name: str, error: int) -> None:
    with pytest.raises(OSError, match=os.strerror(error)):
        os.getxattr(file, name)


def test_directories_and_other_files_have_none(stocked: Stocked) -> None:
    for path in (stocked.path, stocked.patients, stocked.path / "README.txt", next(stocked.patients.iterdir())):
        assert os.listxattr(path) == []
        with pytest.raises(OSError, match="No data"):
            os.getxattr(path, "user.dicom.PatientID")


def test_programs_can_ask(file: Path) -> None:
    told = run("getfattr", "-d", file).stdout
    assert all(name in told for name in LISTED)


def test_noxattr_answers_nothing(imported: tuple[Path, object], mount_drive: Callable[..., Drive]) -> None:
    drive = mount_drive(imported[0], "noxattr", manner="debug")
    for path in drive.files().values():
        with pytest.raises(OSError, match="not supported"):
            os.getxattr(path, "user.dicom.PatientID")
        with pytest.raises(OSError, match="not supported"):
            os.listxattr(path)
    drive.end()
    log = drive.log.read_text()
    assert log.count(" getxattr ") == log.count(" listxattr ") == 1
