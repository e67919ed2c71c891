"""Clients of OMI-DB in the catalog, and what bundles hold of them: all that showing data/ takes.

What there is below data/, and who makes it, is described in documents_omidb.py.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from dicomfs.archive import tables
from dicomfs.archive.built_in_layouts import built_in
from dicomfs.archive.fold_attachments import IMAGES, NBSS
from dicomfs.archive.lacking import Owners
from dicomfs.archive.layout_values import patient_identity
from dicomfs.archive.tables import PAIR
from dicomfs.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicomfs.archive.bundle import Bundle
    from dicomfs.archive.catalog import Child, View
    from dicomfs.archive.fold_attachments import Attachment

__all__ = ["IMAGES", "NAME", "Client", "Lengths", "children", "client", "patient_of", "shows_data"]

NAME: Final = "omidb"


@lru_cache(64)
def shows_data(template: str) -> bool:
    """Say whether a layout is that of OMI-DB, whatever prefix its clients have."""
    known = re.escape(built_in()[NAME]).replace("client:demd", "client:[A-Za-z]{4}")
    return re.fullmatch(known, template) is not None


class Client(NamedTuple):
    """A client's directory below images/, and what is attached to it."""

    folder: int
    mtime_ns: int
    attachment: Attachment | None

    @property
    def stamp(self) -> str:
        """What changes whenever its documents do."""
        number = 0 if self.attachment is None else self.attachment.number
        return f"{self.mtime_ns:x}.{number:x}"


def client(view: View, folder: int, patient: bytes | None) -> Client:
    """Return a client as it is; `patient` is the identity that `patient_of` gives."""
    node = view.node(folder)
    # One that says that there is none any more counts too: it changes the document.
    last = None if patient is None else view.last_attachment(patient, NBSS)
    return Client(folder, 0 if node is None else node.mtime_ns, last)


def patient_of(view: View, folder: int) -> bytes | None:
    """Return the identity of the patient whose client's directory this is, None where no image is left in it."""
    for study_folder in (child[1] for child in children(view, folder)):
        for ino in (child[1] for child in children(view, study_folder)):
            inode = view.instance_inode(ino)
            study = view.study(view.series(inode.series).study)
            owner = Owners(view, study).of(view, inode.parent)
            text = patient_identity(owner, str(study.attributes.get("StudyInstanceUID", "")))
            return tables.identity_key("patient", 0, text)
    return None


def children(view: View, folder: int, after: int = 0) -> Iterator[Child]:
    """Walk a directory of images/; what is left out there is told of where it is shown."""
    return view.children(folder, after, 1, lambda _: None)


class Lengths:
    """How long the header of each instance of a study's bundle is. Immutable."""

    def __init__(self, bundle: Bundle) -> None:
        """Read them; raise Damaged where they are not as they were written."""
        self._held = bundle.document((NAME, 0))
        if len(self._held) % PAIR.size:
            raise Damaged("a document of the cache is no longer what it was")

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return cast("Iterator[tuple[int, int]]", PAIR.iter_unpack(self._held))

    def after(self, ino: int) -> Iterator[tuple[int, int]]:
        """Walk inode numbers, past the one given, and lengths."""
        start = self._position(ino + 1) * PAIR.size
        return cast("Iterator[tuple[int, int]]", PAIR.iter_unpack(memoryview(self._held)[start:]))

    def get(self, ino: int) -> int | None:
        """Return the length of an instance's header, None where the bundle has none."""
        found, length = next(self.after(ino - 1), (0, 0))
        return length if found == ino else None

    def _position(self, ino: int) -> int:
        return bisect_left(range(len(self._held) // PAIR.size), ino, key=lambda at: self._pair(at)[0])

    def _pair(self, at: int) -> tuple[int, int]:
        ino, length = PAIR.unpack_from(self._held, at * PAIR.size)
        return ino, length
