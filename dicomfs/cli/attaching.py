"""`dicomfs attach` and `dicomfs attachments`: documents that users add to patients."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option, json_option, wait_option
from dicomfs.cli.terminal import counted, note, write, write_json, write_json_array, write_table

if TYPE_CHECKING:
    from pathlib import Path

_PATIENT = click.option("--patient-id", metavar="ID", required=True, help="Patient ID, exactly as in the files.")
_ISSUER = click.option(
    "--issuer", metavar="ISSUER", help="Issuer of the patient ID, where several patients have the ID."
)


@click.command("attach", no_args_is_help=True)
@click.argument("file", type=PATH, required=False)
@_PATIENT
@_ISSUER
@click.option("--remove", is_flag=True, help="Take the patient's document away; its versions are kept.")
@archive_option
@wait_option
@json_option
def attach_command(
    *,
    file: Path | None,
    patient_id: str,
    issuer: str | None,
    remove: bool,
    archive: Path,
    wait_s: float,
    as_json: bool,
) -> None:
    """Attach the NBSS document FILE to a patient: screening data, which DICOM does not hold.

    The document is JSON, an object of episodes. It is kept in the archive as imported files are, and shown by the
    layout `omidb` as nbss_<client>.json: byte for byte, but for episodes added at its end for studies that
    belong to none. A study belongs to the episode with an event on its day, else to the one that was open.

    Attaching another one replaces it; `dicomfs attachments` lists all versions, and prints them. The patient must
    have files in the archive. Mounted drives show the document within a second.

    \b
    Examples:
      dicomfs attach -a /srv/archive --patient-id optm1 nbss_optm1.json
      dicomfs attach --patient-id 4711 --issuer HOSPITAL nbss.json
      dicomfs attach --patient-id 4711 --remove

    \b
    Exit status:
      0  the document is attached, or was already
      2  FILE is no such document, or the archive has no files of the patient
    """
    from dicomfs.archive.attachments import attach, detach

    if (file is None) is not remove:
        raise click.UsageError("name a FILE, or give --remove; not both")
    if file is None:
        found = detach(archive, patient_id, issuer=issuer, wait_s=wait_s)
        told = "removed" if found else "nothing was attached"
    else:
        found = attach(archive, patient_id, _read(file), file.name, issuer=issuer, wait_s=wait_s)
        told = "attached" if found else "attached already"
    if as_json:
        write_json({"number": None if found is None else found.number, "changed": found is not None})
    else:
        write(f"{told}, version {found.number}" if found is not None else told)


def _read(path: Path) -> bytes:
    """Return a file, or the beginning of one that is too long."""
    from dicomfs.archive.nbss import MAX_BYTES
    from dicomfs.errors import UsageError

    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


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
