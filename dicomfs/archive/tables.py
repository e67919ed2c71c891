"""The tables of the index that hold the catalog: their keys and values, and nothing else.

All of it is the fold of the commits in the packs (`fold.py`); `u64` in a key is big endian, so that
scans come in order, integers in values are little endian, attributes are JSON objects by keyword.
Directories, instances, patients, studies and series share one sequence of numbers from FIRST_CLAIMED:
a directory's or an instance's number is its inode number.

    inode     u64 ino                    directory: u8 1, u64 parent, u64 mtime_ns, u32 subdirectories, name
                                         instance:  u8 2, u64 parent, u64 size, u64 mtime_ns, u64 series, u64 seq,
                                                    u64 offset and u32 length in the body of commit `seq`,
                                                    32 s base, 32 s SHA-256 of the file, name
                                         derived file:  u8 3, and the same, with the series of the instance that it was
                                                    made of and the SHA-256 of its header
    child     u64 parent, u64 ino        u8 kind, u64 size, u64 mtime_ns, u32 subdirectories, name:
                                         a directory is listed by one scan, resumed after any inode number
    name      u64 parent, folded name    u64 ino: looked up by one get; unique under NFC and case folding
    identity  16 s digest                u64 number: whether a directory, patient, study or series exists
    patient   u64 number                 JSON attributes
    study     u64 number                 u64 patient, u32 series, u32 instances, u64 bytes, u64 mtime_ns, JSON
                                         {"attributes", "modalities", "mixed"}
    series    u64 number                 u64 study, u32 instances, u64 bytes, u64 mtime_ns, JSON attributes
    under     u64 number, u64 number     empty: studies of a patient, series of a study
    study_patient  u64 study, u64 patient  empty: the patients that instances of a study name
    instance  u64 series, u64 ino        JSON attributes: its own, and those of patient, study and series in which
                                         it differs from what these tables say ('' where it has none)
    sop       SOP Instance UID           u64 ino each: the current instance first
    hidden    u64 study, u64 series, u64 ino  empty: instances that are not the first of their SOP Instance UID in
                                         their series, which trees of UIDs leave out
    file      SHA-256 of a file          u64 ino
    find      u8 field, folded value, 0, u64 number    empty: see FIELDS
    layout    u64 root                   JSON {"name", "template", "on", "through"}: every layout but `patients`
    link      u64 ino, u64 root          u64 directory, name: where a layout or project shows an instance
    given     u64 directory              u64: how many names a directory of a layout or project ever gave out
    project   u64 root                   JSON {"directory", "definition", "on", "through", "changed", "again"}
    member    u64 root, u64 ino          u64 ino, reason: the file by which a project shows an instance, itself or
                                         derived; with a reason where it is withheld
    source    u64 derived ino            u64 ino, u64 root: the instance it was made of, and the project
    attachment  u64 number               JSON {"patient", "kind", "name", "blob", "size", "time_ns"}: a document that a
                                         user attached to a patient; "patient" is the identity, in hexadecimal
    attached  16 s identity of a patient, u64 number   empty: the documents of a patient, the latest last
    past      u64 ino                    JSON Past (fold_versions.py): where an instance or a derived file lay that is
                                         in no tree any more
    tombstone  SOP Instance UID           SHA-256 each: files that were deleted, and forgotten since
    emptied   u64 patient                empty: patients of whom nothing is shown any more
    log       u64 seq                    JSON {"op", "by", "reason", "run", "edit", and counts of instances}
    history   u64 study, u64 seq         JSON counts of instances: commits that did something with a study
    change    u64 seq                    JSON {"directories": [ino], "removed": [[parent, name]],
                                         "studies": [number], "series": [number], "displaced": [ino]}
"""

import hashlib
from struct import Struct
from typing import Final, NamedTuple

from dicomfs.archive.names import fold

TABLES: Final = (
    "inode",
    "child",
    "name",
    "identity",
    "patient",
    "study",
    "series",
    "under",
    "study_patient",
    "instance",
    "sop",
    "hidden",
    "file",
    "find",
    "layout",
    "link",
    "given",
    "project",
    "member",
    "source",
    "attachment",
    "attached",
    "past",
    "tombstone",
    "emptied",
    "log",
    "history",
    "change",
)

NOWHERE: Final = 0
"""The parent of an instance that was replaced or deleted."""
ROOT: Final = 1
ROOT_PATIENTS: Final = 2
ROOT_PROJECTS: Final = 5
FIRST_CLAIMED: Final = 1024
LAST_CLAIMED: Final = 1 << 40
LAST_STANDING: Final = 1 << 39
"""Numbers from here to LAST_CLAIMED are stand-ins for what was lost with a pack (mending.py)."""

DIRECTORY: Final = 1
INSTANCE: Final = 2
DERIVED: Final = 3
"""A file that was made of an instance for a project: in no table of UIDs, values or sums."""

U64 = Struct(">Q")
PAIR = Struct(">QQ")
TRIPLE = Struct(">QQQ")
DIRECTORY_INODE = Struct("<BQQI")
INSTANCE_INODE = Struct("<BQQQQQQI32s32s")
CHILD = Struct("<BQQI")
STUDY = Struct("<QIIQQ")
SERIES = Struct("<QIQQ")

FIELDS: Final = {
    "PatientID": b"p",
    "PatientName": b"n",
    "StudyInstanceUID": b"s",
    "AccessionNumber": b"a",
    "StudyDate": b"d",
    "Modality": b"m",
    "SeriesInstanceUID": b"e",
}
"""The attributes with an index: all give studies, SeriesInstanceUID gives series."""

CHANGES_KEPT: Final = 4096
"""How many commits back a mounted reader may be and still be told exactly what changed."""

_MAX_KEY: Final = 500
MAX_VALUE_KEY: Final = 200
"""A longer value is cut in the `find` table; whoever finds it there has to look at the value itself."""


class InstanceInode(NamedTuple):
    """The fixed part of an instance's inode."""

    kind: int
    parent: int
    size: int
    mtime_ns: int
    series: int
    seq: int
    body_offset: int
    body_length: int
    base: bytes
    sha256: bytes

    @classmethod
    def parse(cls, value: bytes) -> "InstanceInode":
        """Read the fixed part of a value of the inode table."""
        return cls(*INSTANCE_INODE.unpack_from(value))


def name_key(parent: int, name: bytes) -> bytes:
    """Return the key of a name in its directory; two names that differ in case alone share it."""
    if name.isascii():
        return U64.pack(parent) + name.lower()[:_MAX_KEY]
    folded = fold(name.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return U64.pack(parent) + folded[:_MAX_KEY]


def sop_key(uid: str) -> bytes:
    """Return the key of a SOP Instance UID, however long it is."""
    key = uid.encode()
    return key if len(key) <= MAX_VALUE_KEY else hashlib.sha256(key).digest()


def find_key(field: str, value: str, number: int) -> bytes:
    """Return the key of a value in the `find` table."""
    return find_prefix(field, value) + b"\0" + U64.pack(number)


def find_prefix(field: str, value: str) -> bytes:
    """Return what all keys of this value (or of values that begin so) begin with."""
    return FIELDS[field] + folded(value)


def folded(value: str) -> bytes:
    """Return a value as the `find` table orders it; two that differ in case alone are one."""
    return folded_whole(value)[:MAX_VALUE_KEY]


def folded_whole(value: str) -> bytes:
    """Return the same however long it is."""
    return fold(value).encode("utf-8", "surrogateescape").replace(b"\0", b" ")


def identity_key(kind: str, parent: int, text: str) -> bytes:
    """Return the digest by which a directory, patient, study or series is found again."""
    return hashlib.sha256(f"{kind}\0{parent}\0{text}".encode("utf-8", "surrogateescape")).digest()[:16]
