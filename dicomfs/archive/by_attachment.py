"""What the catalog knows of attachments: documents that a user gave for patients, every version of each."""

from collections.abc import Iterator

from dicomfs.archive import fold_attachments
from dicomfs.archive.by_uid import ByUid
from dicomfs.archive.fold_attachments import Attachment
from dicomfs.archive.tables import U64
from dicomfs.errors import NotFound


class ByAttachment(ByUid):
    """The catalog at one commit, by attachments."""

    __slots__ = ()

    def attachment(self, number: int) -> Attachment:
        """Return an attachment; raise NotFound."""
        numbered = number.bit_length() <= 64  # what is longer is no key
        value = self._txn.get(U64.pack(number), db=self._tables["attachment"]) if numbered else None
        if value is None:
            raise NotFound(f"there is no attachment {number}; see 'dicomfs attachments'")
        return fold_attachments.decode(number, value)

    def attachments(self, after: int = 0) -> Iterator[Attachment]:
        """Walk all attachments past the one given, in the order in which they came."""
        cursor = self._txn.cursor(db=self._tables["attachment"])
        if cursor.set_range(U64.pack(after + 1)):
            for key, value in cursor.iternext():
                yield fold_attachments.decode(U64.unpack(key)[0], value)

    def last_attachment(self, patient: bytes, kind: str) -> Attachment | None:
        """Return the latest attachment of a kind to the patient with this identity: it may say that there is none."""
        found = None
        for one in self.attachments_of(patient):
            if one.kind == kind:
                found = one
        return found

    def attachments_of(self, patient: bytes) -> Iterator[Attachment]:
        """Walk the attachments of the patient with this identity, the latest last."""
        for key in self._keys("attached", patient, patient):
            yield self.attachment(U64.unpack_from(key, len(patient))[0])

    def patient_identity_number(self, identity: bytes) -> int | None:
        """Return the patient with this identity, None where the archive holds no file of one."""
        value = self._txn.get(identity, db=self._tables["identity"])
        return None if value is None else int(U64.unpack(value)[0])
