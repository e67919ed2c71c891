"""What OMI-DB has beside its images, made of the catalog and of the files' headers, for the drive to show below data/.

    images/<client>/<study>/<sop>.dcm         claimed, as every layout
    data/<client>/<study>/<sop>.json          the header as DICOM JSON (dicom/model_header.py)
    data/<client>/imagedb_<client>.json       {"ClientID", "Site", "STUDIES": {<study>: {"StudyDate", "EpisodeID",
                                               <SeriesInstanceUID>: {<sop>: {}}}}}: the objects are for marks
    data/<client>/nbss_<client>.json          the attached document, with an episode for each study that has none in it

Names in these documents are those of the tree, so that whoever reads them finds the files. A study without a date has
that of its series or images, or else STAND_IN: readers leave out those without one. Headers of a study share a bundle,
the documents of a client another (documents.py):

    keys of a study's     ("omidb", ino) the header, a gzip member; ("omidb", 0) how long each is: u64 ino, u64 length
    keys of a client's    ("imagedb", 0) ("nbss", 0) as they are shown
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

from dicomfs.archive import attachments, bundle_writing, documents, documents_gzip, nbss, tables
from dicomfs.archive.bundle_writing import BundleWriter
from dicomfs.archive.documents_series import CHANGED
from dicomfs.archive.layout_values import uid
from dicomfs.archive.omidb import NAME, Lengths, children, client, patient_of
from dicomfs.archive.tables import PAIR
from dicomfs.errors import Damaged, DicomfsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.bundle import Bundle
    from dicomfs.archive.catalog import Series, View

log = logging.getLogger(__name__)

STAND_IN: Final = "19000101"
_DICOM: Final = ".dcm"


def make_client(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make the documents of the client whose directory has this number."""
    folder = args[0]
    with archive.view() as view:
        patient = patient_of(view, folder)
        now = client(view, folder, patient)
        path = documents.path(cache, "client", folder, now.stamp)
        if bundle_writing.is_there(path):
            return
        attached = now.attachment if now.attachment is not None and now.attachment.is_there else None
        document, missing = nbss.EMPTY, False
        if attached is not None:
            try:
                document = attachments.read(archive, attached)
                nbss.require(document)
            except (Damaged, UsageError) as error:
                log.warning("attachment %d is not shown: %s", attached.number, error)
                document, missing = nbss.EMPTY, True
        episodes = nbss.Episodes(nbss.require(document))
        told, lacking = _imagedb(view, folder, _site(view, patient), episodes)
    with BundleWriter(path) as writer:
        writer.add(("imagedb", 0), json.dumps(told, indent=1).encode() + b"\n")
        writer.add(("nbss", 0), nbss.completed(document, lacking))
        writer.missing = missing
        writer.commit()


def _site(view: View, patient: bytes | None) -> str:
    number = None if patient is None else view.patient_identity_number(patient)
    return "" if number is None else str(view.patient(number).attributes.get("IssuerOfPatientID", ""))


def _imagedb(view: View, folder: int, site: str, episodes: nbss.Episodes) -> tuple[dict[str, object], dict[str, str]]:
    """Return the document of a client's images, and the episodes that it names and NBSS lacks, with their days."""
    studies: dict[str, dict[str, object]] = {}
    lacking: dict[str, str] = {}
    for name, study_folder, *_ in children(view, folder):
        images = _images(view, study_folder)
        if not images:
            continue
        number = next(iter(images))
        study = view.study(view.series(number).study)
        day = _day(view, study.attributes.get("StudyDate"), images)
        episode = episodes.of(name.decode(), day)
        # Not by strftime, which writes early years with fewer digits.
        shown = day.isoformat().replace("-", "") if day else STAND_IN
        if not episodes.has(episode):
            lacking.setdefault(episode, shown)
        told: dict[str, object] = {"StudyDate": shown, "EpisodeID": episode}
        for series, found in images.items():
            key = uid(str(view.series(series).attributes.get("SeriesInstanceUID", "")))
            told[key] = {sop: {} for sop in found.values()}
        studies[name.decode()] = told
    client_id = view.path(folder).rpartition("/")[2]
    return {"ClientID": client_id, "Site": site, "STUDIES": studies}, lacking


def _images(view: View, study_folder: int) -> dict[int, dict[int, str]]:
    """Return the names of a study's images without extension, by series and inode number."""
    found: dict[int, dict[int, str]] = {}
    for name, ino, *_ in children(view, study_folder):
        images = found.setdefault(view.instance_inode(ino).series, {})
        images[ino] = name.decode().removesuffix(_DICOM)
    return found


def _day(view: View, study_date: object, images: dict[int, dict[int, str]]) -> date | None:
    """Return the day of a study, or else that of a series or image of it."""

    def told() -> Iterator[object]:
        yield study_date
        for series in images:
            yield view.series(series).attributes.get("PerformedProcedureStepStartDate")
        for found in images.values():
            for ino in found:
                yield view.instance(ino).attributes.get("ContentDate")

    # ACR-NEMA wrote 2004.01.19 (PS3.5 6.2).
    days = (nbss.day_of(value.replace(".", "")) for value in told() if isinstance(value, str))
    return next((day for day in days if day is not None), None)


def make_headers(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make the headers of all instances of the study of this number."""
    with archive.view() as view:
        stamp = documents.study_stamp(view, args[0])
        numbers = sorted(ino for series in view.series_of(args[0]) for ino in _shown(view, series))
    path = documents.path(cache, NAME, args[0], stamp)
    if bundle_writing.is_there(path):
        return
    before = bundle_writing.before(path)
    try:
        _write_headers(archive, path, numbers, before)
    except CHANGED:
        if before is None:
            raise
        _write_headers(archive, path, numbers, None)


def _shown(view: View, series: Series) -> Iterator[int]:
    for ino in view.numbers_from(series.key, 0):
        if view.instance_inode(ino).parent != tables.NOWHERE:
            yield ino


def _write_headers(archive: Archive, path: Path, numbers: list[int], before: Bundle | None) -> None:
    kept = {} if before is None else dict(Lengths(before))
    told: dict[int, int] = {}
    with BundleWriter(path) as writer:
        for ino in numbers:
            if before is not None and ino in kept:
                writer.add((NAME, ino), before.document((NAME, ino)))
                told[ino] = kept[ino]
                continue
            text = _header(archive, ino)
            if text is None:
                writer.missing = True
                continue
            writer.add((NAME, ino), documents_gzip.member(text))
            told[ino] = len(text)
        writer.add((NAME, 0), b"".join(PAIR.pack(*pair) for pair in told.items()))
        writer.commit()


def _header(archive: Archive, ino: int) -> str | None:
    """Return an instance's header as JSON, None where it cannot be read."""
    # Here, because what shows an archive does not need it.
    from dicomfs.archive.parts import Parts
    from dicomfs.dicom.model_header import header_json

    try:
        parts = Parts.open(archive, ino)
        return header_json(parts.data, parts.part10)
    except Damaged as error:
        log.warning("instance %d has no header below data/: %s", ino, error)
    except (DicomfsError, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - one instance, whatever is in it, does not take down its study
        log.warning("instance %d has no header below data/: unexpected %s", ino, type(error).__name__)
    return None
