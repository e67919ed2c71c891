"""The JSON documents of the static DICOMweb tree: which there are, when one is out of date, who makes them.

    cache/documents/<VERSION>/<number // 256>/<kind>-<number>-<stamp>       one bundle (bundle.py)

A series, a study and the list of all studies have one bundle each. Its name holds a stamp of the catalog's row, so
a stale one is never taken; who makes a new one removes the old ones of the same number. Several processes may make
the same bundle at once: the last rename wins, and the bytes are the same.

    keys of a series' bundle   ("metadata", 0) ("index", 0) ("instance", ino) ("dedup", ino)
    keys of a study's          ("study", 0) ("series", 0) ("metadata", 0) ("deduplicated", 0)
    key of the list's          ("studies", 0)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View

VERSION: Final = 1
"""Rises when documents of the same archive change."""
STUDIES: Final = 0
"""The number under which the list of all studies goes."""


def series_stamp(view: View, number: int) -> str:
    """Return what changes whenever the documents of a series do; raise NotFound."""
    raise NotImplementedError


def study_stamp(view: View, number: int) -> str:
    """Return what changes whenever the documents of a study do; raise NotFound."""
    raise NotImplementedError


def studies_stamp(view: View) -> str:
    """Return what changes whenever the list of all studies does."""
    raise NotImplementedError


def path(cache: Path, kind: str, number: int, stamp: str) -> Path:
    """Return where the bundle is; `kind` is 'series', 'study' or 'studies' (with number STUDIES)."""
    raise NotImplementedError


def directory_name(uid: str) -> str:
    """Return a UID as the name of a directory: itself if it is one (PS3.5 9.1), else legal and with a hash."""
    raise NotImplementedError


def make_series(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make the bundle of the series of this number; raise NotFound or StorageFull."""
    raise NotImplementedError


def make_study(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make the bundle of the study of this number and those of its series; raise NotFound or StorageFull."""
    raise NotImplementedError


def make_studies(archive: Archive, cache: Path, args: tuple[int, ...] = ()) -> None:
    """Make the bundle of the list of all studies; raise StorageFull."""
    raise NotImplementedError
