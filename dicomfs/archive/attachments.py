"""Attach documents to patients: kept in the packs as blobs, every version; the latest one is shown.

One writer at a time, as for everything that changes an archive. A document is bounded in length, so memory holds it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import time_ns
from typing import Final, NamedTuple, Self
from zlib import crc32

from dicomfs.archive import archive as archives
from dicomfs.archive import nbss, tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.archive.fold import Fold
from dicomfs.archive.fold_attachments import NBSS, Attachment
from dicomfs.archive.layout_values import patient_identity
from dicomfs.archive.records import Records
from dicomfs.errors import Damaged, NotFound, UsageError
from dicomfs.store import codec as codecs
from dicomfs.store.location import Location
from dicomfs.store.lock import WriterLock
from dicomfs.store.recipe import BlobId
from dicomfs.store.store import Store
from dicomfs.store.writer import Writer

_COMMIT: Final = 4096
_COMMIT_BYTES: Final = 1 << 26


def attach(
    archive_path: Path, patient_id: str, document: bytes, name: str, *, issuer: str | None = None, wait_s: float = 0.0
) -> Attachment | None:
    """Attach an NBSS document to a patient; return None where it is the one that is attached already.

    Raise UsageError for what is no such document, and for a patient of whom there are no files or who is not the only
    one with the ID.
    """
    with Attaching(archive_path, wait_s=wait_s) as attaching:
        return attaching.put(patient_id, document, name, issuer=issuer)


def detach(archive_path: Path, patient_id: str, *, issuer: str | None = None, wait_s: float = 0.0) -> Attachment | None:
    """Take the document of a patient away; its versions stay. Return None where there is none."""
    with Attaching(archive_path, wait_s=wait_s) as attaching:
        return attaching.remove(patient_id, issuer=issuer)


class Attaching:
    """Attach documents, as many as one likes: they last when the `with` block ends well. Belongs to one thread.

    Those of many are committed in between; what an error ends is kept up to there.
    """

    def __init__(self, archive_path: Path, *, wait_s: float = 0.0) -> None:
        """Take the archive's lock; raise Locked where another process has it for longer."""
        from dicomfs.archive.ingest import open_for_writing, who

        self._coded = archives.require(archive_path).codec != "none"
        self._by = who()
        self._lock = WriterLock(archive_path / "lock", "dicomfs attach", wait_s=wait_s)
        try:
            self._store = open_for_writing(archive_path)
            try:
                self._writer = Writer(self._store)
                self._begin()
            except BaseException:
                self._store.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def _begin(self) -> None:
        self._time_ns = max(time_ns(), self._view.commit_time_ns + 1)
        self._fold = Fold(self._store, self._writer.txn, self._writer.seq, self._time_ns)
        self._records = Records()

    @property
    def _view(self) -> View:
        return View(self._store, self._writer.txn)

    def put(self, patient_id: str, document: bytes, name: str, *, issuer: str | None = None) -> Attachment | None:
        """Do what `attach` does; a UsageError leaves all else as it is."""
        nbss.require(document)
        return self._record(identity_of(self._view, patient_id, issuer), document, name)

    def remove(self, patient_id: str, *, issuer: str | None = None) -> Attachment | None:
        """Do what `detach` does."""
        return self._record(identity_of(self._view, patient_id, issuer), b"", "")

    def _record(self, patient: bytes, document: bytes, name: str) -> Attachment | None:
        digest = sha256(document)
        blob = digest.hexdigest() if document else ""
        before = self._view.last_attachment(patient, NBSS)
        hurt = bool(document) and _is_hurt(self._store, self._writer, BlobId(digest.digest()))
        if (before.blob if before is not None else "") == blob and not hurt:
            return None
        if document:
            _add(self._writer, BlobId(digest.digest()), document, coded=self._coded, again=hurt)
        row = (self._fold.next, patient.hex(), NBSS, name, blob, len(document))
        self._records.attachments.append(row)
        self._fold.attachment(*row)
        found = Attachment(*row, self._time_ns)
        if len(self._records.attachments) >= _COMMIT or self._writer.pending_bytes >= _COMMIT_BYTES:
            self._commit()
        return found

    def _commit(self) -> None:
        self._fold.finish("attach", self._by)
        self._writer.commit(self._records.encode("attach", self._by), self._time_ns)
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                if self._records.attachments:
                    self._commit()
                self._writer.close()
            else:
                self._writer.abort()
        finally:
            self._store.close()
            self._lock.release()


def _add(writer: Writer, blob: BlobId, document: bytes, *, coded: bool, again: bool) -> None:
    codec = codecs.encode(document, 1) if coded else codecs.plain(document)
    if codec.stored is not document and not codecs.decodes_to(codec, document):
        codec = codecs.plain(document)
    writer.add_blob(blob, codec.codec, len(document), codec.stored, crc32(codec.stored), codec.checks, again=again)


def _is_hurt(store: Store, writer: Writer, blob: BlobId) -> bool:
    """Say whether a document that is stored already cannot be read: then it is stored again."""
    if not writer.has_blob(blob):
        return False
    try:
        return sha256(store.blobs.whole(store.locate(writer.txn, blob))).digest() != blob
    except Damaged:
        return True


def identity_of(view: View, patient_id: str, issuer: str | None) -> bytes:
    """Return the identity of a patient; raise UsageError where that is nobody of whom there are files, or several."""
    if not patient_id:
        raise UsageError("a patient ID is needed; files without one name no patient")
    patients = {
        number for study in view.studies_where("PatientID", patient_id) for number in view.study(study).patients
    }
    held = [attributes for number in patients if (attributes := view.patient(number).attributes)]
    named = [one for one in held if one.get("PatientID") == patient_id]
    if issuer is not None:
        named = [one for one in named if one.get("IssuerOfPatientID", "") == issuer]
    if not named:
        raise UsageError("the archive holds no files of a patient with this ID; import them before, and mind the case")
    if len(named) > 1:
        raise UsageError("several patients have this ID; say whose with --issuer, which may be ''")
    return tables.identity_key("patient", 0, patient_identity(named[0], ""))


def locate(archive: Archive, attachment: Attachment) -> Location:
    """Return where the document lies; raise NotFound where the attachment says that there is none, or Damaged."""
    return _locate(attachment, archive.store)


def _locate(attachment: Attachment, store: Store) -> Location:
    if not attachment.is_there:
        raise NotFound(f"attachment {attachment.number} says that a document was taken away")
    location = store.find_one(BlobId(bytes.fromhex(attachment.blob)))
    if location.length != attachment.size:
        raise Damaged(f"its document is {location.length} bytes long, not {attachment.size}")
    return location


def read(archive: Archive, attachment: Attachment) -> bytes:
    """Return the document; raise NotFound where the attachment says that there is none, Damaged where it is hurt."""
    return archive.reading(lambda store: bytes(store.blobs.whole(_locate(attachment, store))))


class Listed(NamedTuple):
    """A version of a document, as it is listed."""

    number: int
    time: str
    """UTC, RFC 3339."""
    status: str
    """'shown', 'earlier' or 'removed'."""
    patient_id: str
    issuer: str
    kind: str
    name: str
    size: int
    sha256: str


def listed(view: View, patient: bytes | None = None) -> Iterator[Listed]:
    """Walk all versions, or those of the patient with this identity, in the order in which they came."""
    found = list(view.attachments() if patient is None else view.attachments_of(patient))
    last = {(one.patient, one.kind): one.number for one in found}
    for one in found:
        number = view.patient_identity_number(bytes.fromhex(one.patient))
        attributes = {} if number is None else view.patient(number).attributes
        shown = "shown" if last[one.patient, one.kind] == one.number else "earlier"
        yield Listed(
            one.number,
            datetime.fromtimestamp(one.time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            shown if one.is_there else "removed",
            str(attributes.get("PatientID", "")),
            str(attributes.get("IssuerOfPatientID", "")),
            one.kind,
            one.name,
            one.size,
            one.blob,
        )
