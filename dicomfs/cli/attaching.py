"""`dicomfs attach` and `dicomfs attachments`: documents that users add to patients."""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option, json_option, wait_option
from dicomfs.cli.terminal import counted, note, write, write_json_array, write_table
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.fold_attachments import Attachment

_NAMED = re.compile(r"nbss_(.+)\.json", re.IGNORECASE).fullmatch
_ISSUER = click.option(
    "--issuer", metavar="ISSUER", help="Issuer of the patient ID, where several patients have the ID."
)


@click.command("attach", no_args_is_help=True)
@click.argument("files", nargs=-1, type=PATH, metavar="FILES…")
@click.option("--patient-id", metavar="ID", help="Patient ID, exactly as in the DICOM files (default: from the name).")
@_ISSUER
@click.option("--remove", is_flag=True, help="Take the document of --patient-id away; its versions are kept.")
@archive_option
@wait_option
@json_option
def attach_command(
    *,
    files: tuple[Path, ...],
    patient_id: str | None,
    issuer: str | None,
    remove: bool,
    archive: Path,
    wait_s: float,
    as_json: bool,
) -> int:
    """Attach NBSS documents to patients: screening data, which DICOM does not hold.

    A document is JSON, an object of episodes. It is kept in the archive as imported files are, and shown by the
    layout `omidb` as nbss_<client>.json: byte for byte, but for episodes added at its end for studies that
    belong to none. A study belongs to the episode with an event on its day, else to the one that was open.

    Without --patient-id, files are called nbss_ID.json, as OMI-DB calls them; ID is the patient's. Attaching another
    document replaces the one before; `dicomfs attachments` lists all versions, and prints them. The patient must
    have files in the archive. Mounted drives show documents within a second.

    \b
    Examples:
      dicomfs attach -a /srv/archive nbss_optm1.json nbss_optm2.json
      dicomfs attach --patient-id 4711 --issuer HOSPITAL nbss.json
      dicomfs attach --patient-id 4711 --remove

    \b
    Exit status:
      0  every document is attached, or was already
      1  some of several were refused
      2  a document is none, or the archive has no files of its patient
    """
    from dicomfs.archive.attachments import Attaching

    if bool(files) is remove or (remove and patient_id is None):
        raise click.UsageError("name FILES, or give --patient-id and --remove; not both")
    if patient_id is not None and len(files) > 1:
        raise click.UsageError("--patient-id says whose one file is; several are called nbss_ID.json")
    refused = 0
    done: list[dict[str, str | int | None]] = []
    with Attaching(archive, wait_s=wait_s) as attaching:
        if patient_id is not None and remove:
            removed = attaching.remove(patient_id, issuer=issuer)
            done.append(_told("", removed, "removed" if removed else "nothing was attached"))
        for file in files:
            try:
                owner = _owner(file) if patient_id is None else patient_id
                found = attaching.put(owner, _read(file), file.name, issuer=issuer)
            except UsageError as error:
                if len(files) == 1:
                    raise UsageError(f"{file}: {error}") from error
                refused += 1
                note(f"{file}: {error}")
            else:
                done.append(_told(str(file), found, "attached" if found else "attached already"))
    if as_json:
        write_json_array(done)
        return 1 if refused else 0
    for one in done if len(done) + refused == 1 else ():
        write(f"{one['status']}, version {one['version']}" if one["version"] else str(one["status"]))
    if len(done) + refused > 1:
        new = sum(one["version"] is not None for one in done)
        write(f"{counted(len(files), 'document')}: {new} attached, {len(done) - new} already, {refused} refused")
    return 1 if refused else 0


def _told(file: str, found: Attachment | None, status: str) -> dict[str, str | int | None]:
    return {"file": file, "status": status, "version": None if found is None else found.number}


def _owner(path: Path) -> str:
    """Return the patient ID that a file's name says."""
    found = _NAMED(path.name)
    if found is None:
        raise UsageError("is not called nbss_ID.json; say whose it is with --patient-id")
    return found[1]


def _read(path: Path) -> bytes:
    """Return a file, or the beginning of one that is too long."""
    from dicomfs.archive.nbss import MAX_BYTES

    try:
        # Other writers wait for us: nothing here may wait for somebody else, as an opened FIFO would.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError("is not a file; write the document to one first")
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})") from error


@click.command("attachments")
@click.option("--patient-id", metavar="ID", help="Only those of the patient with this ID.")
@_ISSUER
@click.option("--print", "number", type=click.IntRange(min=1), metavar="VERSION", help="Write a document to stdout.")
@archive_option
@json_option
def attachments_command(
    *, patient_id: str | None, issuer: str | None, number: int | None, archive: Path, as_json: bool
) -> None:
    """List what was attached to patients, all versions in the order in which they came.

    `shown` is the latest version, which drives show; `earlier` are those before it; `removed` says that a document was
    taken away. Versions have numbers, by which --print writes each as it was given.

    \b
    Examples:
      dicomfs attachments -a /srv/archive
      dicomfs attachments --patient-id optm1 --json
      dicomfs attachments --print 2048 > nbss_before.json
    """
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.attachments import identity_of, listed, read

    if number is not None and (patient_id is not None or issuer is not None or as_json):
        raise click.UsageError("--print takes the number of a version and nothing else")
    if issuer is not None and patient_id is None:
        raise click.UsageError("--issuer says whose --patient-id is meant; give that too")
    with Archive.open(archive) as opened:
        if number is not None:
            with opened.view() as view:
                one = view.attachment(number)
            sys.stdout.buffer.write(read(opened, one))
            sys.stdout.buffer.flush()
            return
        with opened.view() as view:
            patient = None if patient_id is None else identity_of(view, patient_id, issuer)
            found = list(listed(view, patient))
    if as_json:
        write_json_array(one._asdict() for one in found)
        return
    rows = [(one.number, one.time, one.status, one.patient_id, one.kind, one.name, one.size) for one in found]
    write_table(("Version", "Time", "Status", "PatientID", "Kind", "File", "Bytes"), rows)
    note(counted(len(found), "version"))
