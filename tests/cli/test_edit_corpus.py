"""Real studies of many vendors, character sets and transfer syntaxes, edited by command line.

Before and after are compared by pydicom, dcmtk's dcmdump and dicom3tools' validator.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.check import check
from tests.archive.editing_files import differs, files
from tests.archive.importing import run as import_files
from tests.dicom.test_edit_corpus import NOT_READ_BY_PYDICOM, dump, errors, paths

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

pytestmark = pytest.mark.corpus

EDITS = {
    "patient": (("--set", "PatientName=DOE^JANE", "--empty", "AccessionNumber"), [0x00100010, 0x00080050]),
    "series": (("--set", "SeriesDescription=Corrected", "--remove", "ProtocolName"), [0x0008103E, 0x00181030]),
    "uids": (("--new-sop-uids",), []),
}


@pytest.mark.slow
def test_everything_is_edited(corpus: Path, archive_path: Path, run: Run) -> None:
    """Three edits of the whole corpus, one after another: only what was asked differs, whatever the file."""
    import_files(archive_path, *(path for path in paths(corpus) if path.name not in NOT_READ_BY_PYDICOM), jobs=2)
    for name, (options, tags) in EDITS.items():
        before = files(archive_path)
        words = ("edit", "-a", archive_path, "--json", "--reason", name, *options)
        if name == "uids":
            # All UIDs are changed or none, and a few files cannot be edited.
            done = run(*words, "--where", "SOPInstanceUID=*")
            assert (done.status, len(json.loads(done.out)["refused"])) == (1, 1)
            assert files(archive_path) == before
            done = run(*words, "--where", "Modality=MR")
        else:
            done = run(*words, "--where", "SOPInstanceUID=*", "--skip-refused")
        told = json.loads(done.out)
        assert told["commit"], done.err
        edited = [file for ino, file in files(archive_path).items() if ino not in before]
        assert len(edited) == told["edited"] + told["references"] > (290 if name == "uids" else 450)
        for file in edited:
            assert differs(before[file.replaced].data, file.data, tags, told["uids"]) == set(), file.path
    assert check(archive_path, verify_files=True).problems == []


NAMED = ("--set", "PatientName=DOE^JANE", "--set", "PatientSex=O")
RENEWED = ("--new-study-uid", "--new-series-uid", "--new-sop-uids")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmtk is not installed (apt install dcmtk)")
@pytest.mark.parametrize(("options", "tags"), [(NAMED, ("(0010,0010)", "(0010,0040)")), (RENEWED, ())])
def test_other_tools_see_the_same(
    corpus: Path, archive_path: Path, run: Run, tmp_path: Path, options: tuple[str, ...], tags: tuple[str, ...]
) -> None:
    """What is in every twelfth file is what dcmdump shows, and validators find nothing new."""
    source = tmp_path / "source"
    source.mkdir()
    for number, path in enumerate(paths(corpus)[::12]):
        if path.name not in NOT_READ_BY_PYDICOM:
            shutil.copy(path, source / f"{number}.dcm")
    import_files(archive_path, source)
    before = files(archive_path)
    done = run("edit", "-a", archive_path, "--where", "SOPInstanceUID=*", *options)
    assert "done" in done.out, done.err
    one, other = tmp_path / "before.dcm", tmp_path / "after.dcm"
    compared = 0
    for file in files(archive_path).values():
        if file.replaced not in before:
            continue
        one.write_bytes(before[file.replaced].data)
        other.write_bytes(file.data)
        shown, now = dump(one), dump(other)
        if not shown:
            continue
        compared += 1
        gone, added = ([line for line in lines if line not in others] for lines, others in ((shown, now), (now, shown)))
        assert all(_is_asked(line, tags) for line in gone), file.path
        assert all(_is_asked(line, (*tags, "(0400,0561)", "(fffe,e0dd)", " ")) for line in added), file.path
        assert errors(other) <= errors(one), file.path
    assert compared > 25


def _is_asked(line: str, tags: tuple[str, ...]) -> bool:
    return line.startswith(tags) or ",0000)" in line or (not tags and " UI " in line) or " UI [2.25." in line
