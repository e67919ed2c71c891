"""The JSON documents of the static DICOMweb tree: which there are, when one is out of date, who makes them.

    cache/documents/<VERSION>/<number // 256>/<kind>-<number>-<stamp>       one bundle (bundle.py)

A series, a study and the list of all studies have one bundle each. Its name holds a stamp of the catalog's row, so
a stale one is never taken; who makes a new one removes the old ones of the same number. Several processes may make
the same bundle at once: the last rename wins, and the bytes are the same. `part` is what is done of a long series.

    keys of a series' bundle   ("metadata", 0) ("index", 0) ("instance", ino) ("dedup", ino)
    keys of a study's          ("study", 0) ("series", 0) ("metadata", 0) ("deduplicated", 0) ("list", 0): the same
                               list as ("deduplicated", 0), as it reads in the directory deduplicated/
                               ("superseded", 0): the names of the lists in whose place it is, the latest first
    keys of superseded lists'  ("list", number): those lists, in the same order
    key of the list's          ("studies", 0)

What documents_omidb.py makes lies beside them: bundles of the kinds `omidb`, of a study, and `client`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from dicomfs.archive import names

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View

VERSION: Final = 6
"""Rises when documents of the same archive change."""
STUDIES: Final = 0
"""The number under which the list of all studies goes."""


_UID: Final = re.compile(r"(?=.{1,120}\Z)[0-9]+(?:\.[0-9]+)*|[0-9a-f]{32,64}").fullmatch
"""A UID (PS3.5 9.1), however long, or a hash in its place: clients ask for these by what the documents say."""
_IN_DIRECTORY: Final = 8
"""How many bits of numbers share a directory: who makes a bundle looks through it for earlier ones."""

_WHOLE_DIGEST: Final = 26


def series_stamp(view: View, number: int) -> str:
    """Return what changes whenever the documents of a series do; raise NotFound."""
    series = view.series(number)
    return _stamp((series.mtime_ns, series.instances, series.size, *_forgot(view, series.study)))


def study_stamp(view: View, number: int) -> str:
    """Return what changes whenever the documents of a study do; raise NotFound."""
    study = view.study(number)
    return _stamp((study.mtime_ns, study.series, study.instances, study.size, *_forgot(view, number)))


def studies_stamp(view: View) -> str:
    """Return what changes whenever the list of all studies does."""
    totals = view.totals()
    return _stamp((view.seq, totals.studies, totals.instances))


def _forgot(view: View, study: int) -> tuple[int, ...]:
    """Return what changes whenever earlier versions of a study are forgotten, of which its lists tell."""
    forgot_ns = view.forgot_ns
    return (forgot_ns,) if forgot_ns and view.changed(study) else ()


def _stamp(row: Iterable[int]) -> str:
    return ".".join([f"{number:x}" for number in row])


def path(cache: Path, kind: str, number: int, stamp: str) -> Path:
    """Return where the bundle is; `kind` is 'series', 'study' or 'studies' (with number STUDIES)."""
    directory = cache / "documents" / str(VERSION) / f"{number >> _IN_DIRECTORY:x}"
    return directory / f"{kind}-{number}-{stamp}"


def directory_name(uid: str) -> str:
    """Return a UID as the name of a directory: itself if it looks like one, else ASCII, legal and with a hash."""
    if _UID(uid):
        return uid
    legal = names.component(uid.encode("ascii", "ignore").decode())
    suffix = "~" + names.digest(uid, _WHOLE_DIGEST)
    return next(name for name in names.candidates(names.cut(legal, uid), uid) if name.endswith(suffix))


def uri(name: str) -> str:
    """Return a directory's name as it stands in a URI (RFC 3986 2)."""
    return quote(name, safe="")


def make_series(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make the bundle of the series of this number; raise NotFound or StorageFull."""
    from dicomfs.archive import documents_series

    documents_series.make(archive, cache, args[0])


def make_study(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make the bundle of the study of this number and those of its series; raise NotFound or StorageFull."""
    from dicomfs.archive import documents_study

    documents_study.make(archive, cache, args[0])


def make_superseded(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make the bundle of the lists that the study of this number had before it was changed; raise as `make_study`."""
    from dicomfs.archive import documents_superseded

    documents_superseded.make(archive, cache, args[0])


def make_studies(archive: Archive, cache: Path, _args: tuple[int, ...] = ()) -> None:
    """Make the bundle of the list of all studies; raise StorageFull."""
    from dicomfs.archive import documents_studies

    documents_studies.make(archive, cache)
