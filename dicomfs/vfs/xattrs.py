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
    from dicomfs.archive.catalog import Instance, View

PREFIX: Final = b"user.dicom."
SHA256: Final = b"user.dicomfs.sha256"

LISTED: Final = (
    b"user.dicom.PatientID",
    b"user.dicom.StudyInstanceUID",
    b"user.dicom.SeriesInstanceUID",
    b"user.dicom.SOPInstanceUID",
    SHA256,
)
QUICK: Final = frozenset(LISTED)
"""What the catalog answers without touching a pack."""

REFUSED: Final = (b"system.", b"security.", b"trusted.")
"""Namespaces that no node of any tree has: `ls -l` asks for them two or three times an entry."""


def names(archive: "Archive", ino: INode) -> list[bytes]:
    """Return the names that are listed for a node: none but for an instance."""
    try:
        with archive.view() as view:
            held = _identifiers(view, view.instance(ino))
    except NotFound:
        return []
    return [name for name in LISTED if name == SHA256 or name in held]


def value(archive: "Archive", ino: INode, name: bytes) -> bytes | None:
    """Return an attribute of an instance, None where it has none of that name."""
    if not name.startswith(PREFIX) and name != SHA256:
        return None
    try:
        if name in QUICK:
            with archive.view() as view:
                instance = view.instance(ino)
                if name == SHA256:
                    return instance.sha256.hex().encode()
                return _identifiers(view, instance).get(name)
        return _stored(archive, ino, name[len(PREFIX) :])
    except NotFound:
        return None


def _identifiers(view: "View", instance: "Instance") -> dict[bytes, bytes]:
    series = view.series(instance.series)
    study = view.study(series.study)
    levels: list[tuple[str, Mapping[str, str | int]]] = [
        ("StudyInstanceUID", study.attributes),
        ("SeriesInstanceUID", series.attributes),
        ("SOPInstanceUID", instance.attributes),
    ]
    if len(study.patients) == 1:  # else only the file itself knows which of them it names
        levels.append(("PatientID", view.patient(study.patient).attributes))
    return {
        PREFIX + keyword.encode(): str(attributes[keyword]).encode("utf-8", "surrogateescape")
        for keyword, attributes in levels
        if keyword in attributes
    }


def _stored(archive: "Archive", ino: INode, keyword: bytes) -> bytes | None:
    from dicomfs.archive.values import value_of

    try:
        text = value_of(archive, ino, keyword.decode("ascii"))
    except (UsageError, UnicodeDecodeError):  # no such keyword
        return None
    return None if text is None else text.encode("utf-8", "surrogateescape")
