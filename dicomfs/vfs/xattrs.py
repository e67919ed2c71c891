"""The extended attributes of an instance: a few are listed, any keyword of the Standard is answered.

`cp -a`, `rsync -X` and `tar --xattrs` carry what is listed, so that list stays short. Only its names
are answered from the catalog at once; any other `user.dicom.<Keyword>` is read from the stored header.
"""

from typing import TYPE_CHECKING, Final

from dicomfs.errors import NotFound, UsageError
from dicomfs.vfs.node import INode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dicomfs.archive.archive import Archive

PREFIX: Final = b"user.dicom."
SHA256: Final = b"user.dicomfs.sha256"

LISTED: Final = (
    b"user.dicom.PatientID",
    b"user.dicom.StudyInstanceUID",
    b"user.dicom.SeriesInstanceUID",
    b"user.dicom.SOPInstanceUID",
    SHA256,
)
_PATIENT_ID: Final = b"0010,0020"

QUICK: Final = frozenset(LISTED)
"""What the catalog answers of an instance without touching a pack."""

REFUSED: Final = (b"system.", b"security.", b"trusted.")
"""Namespaces that no node of any tree has: `ls -l` asks for them two or three times an entry."""


def names(archive: "Archive", ino: INode) -> list[bytes]:
    """Return the names that are listed for a node: none but for an instance.

    A file that was derived from one has what its own header says, if it is asked: to list it would take reading that.
    """
    try:
        held = _identifiers(archive, ino)
    except NotFound:
        return []
    return [name for name in LISTED if name in held]


def value(archive: "Archive", ino: INode, name: bytes) -> bytes | None:
    """Return an attribute of an instance, None where it has none of that name."""
    try:
        if is_quick(archive, ino, name):
            return _identifiers(archive, ino).get(name)
        if name.startswith(PREFIX):
            return _stored(archive, ino, name[len(PREFIX) :])
    except NotFound:
        pass
    return None


def is_quick(archive: "Archive", ino: INode, name: bytes) -> bool:
    """Say whether the catalog answers; of a file that was derived from an instance it has nothing to tell."""
    if name not in QUICK:
        return False
    with archive.view() as view:
        node = view.node(ino)
    return node is None or not node.is_derived


def _identifiers(archive: "Archive", ino: INode) -> dict[bytes, bytes]:
    """Return the listed attributes that an instance has."""
    with archive.view() as view:
        instance = view.instance(ino)
        series = view.series(instance.series)
        study = view.study(series.study)
        patient = view.patient(study.patient).attributes if len(study.patients) == 1 else None
    found = {SHA256: instance.sha256.hex().encode()}
    levels: list[tuple[str, Mapping[str, str | int]]] = [
        ("StudyInstanceUID", study.attributes),
        ("SeriesInstanceUID", series.attributes),
        ("SOPInstanceUID", instance.attributes),
        ("PatientID", patient or {}),
    ]
    for keyword, attributes in levels:
        if keyword in attributes:
            found[PREFIX + keyword.encode()] = str(attributes[keyword]).encode("utf-8", "surrogateescape")
    if patient is None:  # the files of the study disagree: each tells its own
        named = _stored(archive, ino, _PATIENT_ID)
        if named is not None:
            found[PREFIX + b"PatientID"] = named
    return found


def _stored(archive: "Archive", ino: INode, keyword: bytes) -> bytes | None:
    from dicomfs.archive.values import value_of

    try:
        text = value_of(archive, ino, keyword.decode("ascii"))
    except (UsageError, UnicodeDecodeError):  # no such keyword
        return None
    return None if text is None else text.encode("utf-8", "surrogateescape")
