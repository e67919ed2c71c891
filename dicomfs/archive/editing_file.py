"""Put a file in the place of an instance, as its next version: after the same checks as an import, by a process."""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isal.isal_zlib import crc32

from dicomfs.archive.changing import Changing
from dicomfs.archive.committing import writing
from dicomfs.archive.editing_run import Done
from dicomfs.archive.editing_selection import select
from dicomfs.archive.layout import PATIENTS
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.splitting import Row
from dicomfs.archive.worker import Base, Ended, StoredBlob
from dicomfs.archive.workers import Workers
from dicomfs.dicom import part10 as part10s
from dicomfs.dicom.describe import Verdict, describe
from dicomfs.dicom.edit import Changes, edit
from dicomfs.dicom.edit import Refused as NotEdited
from dicomfs.errors import Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicomfs.archive.editing_run import Options
    from dicomfs.archive.editing_selection import Member, Selection

_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_STEP: Final = 1 << 22


def replace_with(archive_path: Path, selection: Selection, file: Path, options: Options, *, set_uids: bool) -> Done:
    """Put a file in the place of the one instance that is chosen; with `set_uids` it gets the UIDs of that.

    Raise UsageError for a choice of several, Refused for a file that an import would not take, or that is another
    instance.
    """
    selection.require()
    if options.dry_run:
        raise UsageError("--replace-with has no dry run: the file is as it is")
    _require_file(file)
    with writing(archive_path, "dicomfs edit", options.wait_s) as opened:
        changing = Changing(archive_path, opened, "edit", options.reason)
        members = select(changing.archive, selection)
        if len(members) > 1:
            raise UsageError(f"--replace-with replaces one instance, and {len(members):,} are chosen: use --sop-uid")
        (member,) = members
        uids = _uids(changing, member) if set_uids else {}
        done = Done(chosen=1)
        with _named(file, uids) as source:
            is_new = _take(archive_path, changing, member, source, file, done.warnings)
        done.edited, done.unchanged = int(is_new), int(not is_new)
        if is_new:
            done.seq = changing.done(done.warnings.append)
        return done


def _require_file(file: Path) -> None:
    """Raise Refused for what is no file, as reading a pipe may never end."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise Refused(f"{file}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise Refused(f"{file}: is not a regular file")


def _uids(changing: Changing, member: Member) -> dict[str, str]:
    view = changing.view
    said = view.study(member.study).attributes | view.series(member.series).attributes
    said |= view.instance(member.ino).attributes
    return {keyword: str(said[keyword]) for keyword in _UIDS}


def _take(
    archive_path: Path, changing: Changing, member: Member, source: Path, file: Path, warnings: list[str]
) -> bool:
    """Have a process split a file, and put it in the place; say whether it is not what is there."""
    new_bulk = new_stored = new_base = 0
    base: Base | None = None
    with Workers(archive_path, changing.archive.settings.codec, 1, dry_run=False) as workers:
        for answer in workers.run([[str(source)]]):
            for item in answer.items:
                if isinstance(item, StoredBlob):
                    blob, codec, length, at, size, crc, checks, hurt = item
                    stored = bytes(answer.memory[at : at + size])
                    if changing.writer.add_blob(blob, codec, length, stored, crc, checks, again=hurt):
                        new_bulk, new_stored = new_bulk + length, new_stored + size
                elif isinstance(item, Base):
                    base = item
                elif isinstance(item, Row):
                    _require_same(member, item, file)
                    warnings += _moves(changing, member, item, file)
                    if base is not None and base.blob == item.base:
                        new_base = _store_base(changing, base)
                    named = PATIENTS.render_level(3, item.attributes.instance, member.sop_instance_uid)
                    before = changing.view.instance(member.ino).attributes
                    keeps = named == PATIENTS.render_level(3, before, member.sop_instance_uid)
                    changing.replace(
                        member.ino, item, new_bulk, new_stored, new_base, conflict=not member.current, keep_name=keeps
                    )
                    return True
                elif isinstance(item, Ended):
                    return _ended(changing, member, item, file)
    raise Refused(f"{file}: nothing was told of it")


def _ended(changing: Changing, member: Member, item: Ended, file: Path) -> bool:
    if item.outcome is not Outcome.PRESENT:
        raise Refused(f"{file}: {item.reason}")
    if changing.view.instance(member.ino).sha256 != item.sha256:
        raise Refused(f"{file}: is in the archive already, in another place: `dicomfs restore` brings versions back")
    return False


def _require_same(member: Member, row: Row, file: Path) -> None:
    if str(row.attributes.instance["SOPInstanceUID"]) != member.sop_instance_uid:
        raise Refused(f"{file}: has another SOP Instance UID than the instance; --set-uids gives it the same")


def _moves(changing: Changing, member: Member, row: Row, file: Path) -> Iterator[str]:
    """Yield in what the file takes the instance elsewhere than it was: to another patient, study or series."""
    view = changing.view
    study, series = view.study(member.study), view.series(member.series)
    patient_id = str(row.attributes.patient.get("PatientID", ""))
    before = {str(view.patient(key).attributes.get("PatientID", "")) for key in study.patients}
    if patient_id not in before:
        yield f"{file}: is of another patient than the study, by its PatientID, and goes there"
    for what, said, is_said in (
        ("study", study.attributes, row.attributes.study),
        ("series", series.attributes, row.attributes.series),
    ):
        keyword = f"{what.capitalize()}InstanceUID"
        if str(said.get(keyword, "")) != str(is_said.get(keyword, "")):
            yield f"{file}: has another {keyword}, and goes into that {what}"


def _store_base(changing: Changing, base: Base) -> int:
    crc = crc32(base.stored)
    added = changing.writer.add_blob(base.blob, base.codec, base.length, base.stored, crc, (crc,), prefix=b"h/")
    return len(base.stored) if added else 0


@contextmanager
def _named(file: Path, uids: dict[str, str]) -> Iterator[Path]:
    """Yield a file with these UIDs: itself, or a copy that is gone afterwards."""
    if not uids:
        yield file
        return
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            data = mmap.mmap(opened.fileno(), size, prot=mmap.PROT_READ) if size else b""
    except OSError as error:
        raise Refused(f"{file}: cannot be read: {error.strerror}") from error
    with tempfile.TemporaryDirectory(prefix="dicomfs-") as directory:
        copy = Path(directory, "file.dcm")
        with memoryview(data) as view, copy.open("wb") as output:
            for start, end, own in _pieces(view, uids, file):
                for at in range(start, end, _STEP):
                    output.write(view[at : min(at + _STEP, end)])
                output.write(own)
        yield copy


def _pieces(data: memoryview, uids: dict[str, str], file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield ranges of a file, each with the bytes that follow it."""
    described = describe(data)
    part10 = part10s.locate(data)
    if described.verdict != Verdict.DICOM or described.attributes is None or part10 is None:
        raise Refused(f"{file}: {described.reason or 'not DICOM'}")
    found = described.attributes
    said = found.study | found.series | found.instance
    changes = Changes(
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        uids={str(said[keyword]): uid for keyword, uid in uids.items() if str(said[keyword]) != uid},
    )
    try:
        pieces = edit(data, part10, lambda start, end: data[start:end], changes)
    except NotEdited as error:
        raise Refused(f"{file}: cannot be given other UIDs: {error.reason}") from error
    if pieces is None:
        yield 0, len(data), b""
        return
    for piece in pieces:
        if isinstance(piece, bytes):
            yield 0, 0, piece
        else:
            yield piece.start, piece.end, b""
