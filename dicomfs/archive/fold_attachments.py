"""Fold what commits say of attachments: documents that a user gave for a patient, kept as blobs.

The part of a commit's JSON that only archives with attachments have:

    {"attachments": [[number, identity of the patient, kind, name of the file, SHA-256, size]]}

The latest of a patient and kind counts. One without a SHA-256 says that there is none any more. The directories of the
patient in layouts of OMI-DB are then as old as the attachment.
"""

import json
from collections.abc import Iterator
from typing import Final, NamedTuple

from dicomfs.archive.layout_values import patient_identity
from dicomfs.archive.tables import FIRST_CLAIMED, U64, identity_key, name_key
from dicomfs.errors import Damaged
from dicomfs.store.index import Table, Transaction

KEYS: Final = ("attachments",)
NBSS: Final = "nbss"
"""The kind of screening data."""
IMAGES: Final = b"images"
"""Where a layout of OMI-DB has its clients."""


class Attachment(NamedTuple):
    """A document that was attached to a patient; `blob` is empty where it was taken away."""

    number: int
    patient: str
    """The patient's identity (docs/format.md), in hexadecimal."""
    kind: str
    name: str
    """What the user's file was called."""
    blob: str
    """SHA-256 of the document, in hexadecimal."""
    size: int
    time_ns: int

    @property
    def is_there(self) -> bool:
        """Whether there is a document."""
        return bool(self.blob)


def attach(txn: Transaction, held: dict[str, Table], found: Attachment) -> None:
    """Put an attachment into the tables."""
    identity = bytes.fromhex(found.patient)
    fits = all(map(isinstance, (found.kind, found.name, found.size), (str, str, int)))
    if not fits or found.number < FIRST_CLAIMED or len(identity) != 16 or len(bytes.fromhex(found.blob)) not in (0, 32):
        raise ValueError("an attachment has a number, a patient and a hash")
    key = U64.pack(found.number)
    told = found._asdict()
    del told["number"]
    txn.put(key, json.dumps(told, separators=(",", ":")).encode(), db=held["attachment"])
    txn.put(identity + key, b"", db=held["attached"])


def clients(txn: Transaction, held: dict[str, Table], found: Attachment) -> Iterator[int]:
    """Walk the directories that layouts of OMI-DB have for the patient of an attachment: beside them it is shown."""
    number = txn.get(bytes.fromhex(found.patient), db=held["identity"])
    attributes = None if number is None else txn.get(number, db=held["patient"])
    if attributes is None:
        return  # lost with a pack
    text = patient_identity(json.loads(attributes), "")
    cursor = txn.cursor(db=held["layout"])
    for root, _ in cursor.iternext() if cursor.first() else ():
        images = txn.get(name_key(U64.unpack(root)[0], IMAGES), db=held["name"])
        if images is not None:
            folder = txn.get(identity_key("directory", U64.unpack(images)[0], text), db=held["identity"])
            if folder is not None:
                yield U64.unpack(folder)[0]


def decode(number: int, value: bytes) -> Attachment:
    """Read a value of the table of attachments; raise Damaged."""
    try:
        held = json.loads(value)
        return Attachment(number, *(held[name] for name in Attachment._fields[1:]))
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged("the index has a damaged record of an attachment; run 'dicomfs reindex'") from error
