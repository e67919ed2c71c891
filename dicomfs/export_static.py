"""Export as static DICOMweb: a tree that static-wado's tools, its web server and OHIF read (`export_static_study`).

    studies/index.json.gz          the list of all studies of the tree, those of others too
    studies/<ST>/…  deduplicated/<ST>/<hash>.gz

Exporting again brings the tree up to date: what is right stays as it is, what the archive has no more is removed,
and studies that another program or archive wrote are left alone.
"""

from __future__ import annotations

import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final
from zlib import error as NotDeflated  # noqa: N812 - it is an exception

from dicomfs.archive import documents
from dicomfs.archive.query import Level, Query, matches
from dicomfs.errors import NotFound
from dicomfs.export import ExportReport, FileResult, Outcome, failure, refuse_files, refuse_inside, stopping, tally
from dicomfs.export_static_lists import remove
from dicomfs.export_static_study import StudyExport
from dicomfs.export_static_target import Claims, Target, Texts, array, objects
from dicomfs.vfs.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View
    from dicomfs.export_static_study import Task

STUDY_LIST: Final = "studies/index.json.gz"
_STUDY_INSTANCE_UID: Final = "0020000D"
_WORKERS: Final = min(4, os.cpu_count() or 1)
_AHEAD: Final = 64


def export_static(
    archive: Archive, output: Path, query: Query, *, on_result: Callable[[FileResult], None] | None = None
) -> ExportReport:
    """Write the studies that the query finds below `output`, whole ones, until nothing more can be written there.

    Raises UsageError for an output that is none, Locked where another export is writing there.
    """
    refuse_inside(archive.path, output)
    refuse_files(output)
    target = Target(os.fspath(output))
    with stopping(target.root), target.opened(), closing(Shelf(archive)) as shelf:
        return tally(_results(archive, shelf, target, query), on_result)


def _results(archive: Archive, shelf: Shelf, target: Target, query: Query) -> Iterator[FileResult]:
    claims = Claims(target, archive.settings.archive_id)
    wanted: dict[str, int] = {}
    for match in matches(archive, Query(Level.STUDY, query.where)):
        name = documents.directory_name(str(match.study.attributes["StudyInstanceUID"]))
        if claims.claim(name):
            wanted[name] = match.study.key
        else:
            reason = "a study of this UID is there that this archive did not write; export to another directory"
            yield FileResult(f"studies/{name}", Outcome.FAILED, reason, 0)
    gone = set(_gone(archive, claims.own - wanted.keys()))
    if not wanted and not gone:
        return
    claims.write()
    yield from _done(_tasks(archive, shelf, target, wanted.values()))
    yield from _removed(target, gone)
    try:
        yield _study_list(target, list(wanted), gone)
    except OSError as error:
        yield failure(STUDY_LIST, 0, error)
    claims.own -= gone
    claims.write()


def _tasks(archive: Archive, shelf: Shelf, target: Target, studies: Iterable[int]) -> Iterator[Task | None]:
    for number in studies:
        with suppress(NotFound):  # it was taken out meanwhile
            yield from StudyExport(archive, shelf, target, number).tasks()


def _done(tasks: Iterator[Task | None]) -> Iterator[FileResult]:
    """Do tasks by several threads, for what they write may have to be decoded and packed; results in order."""
    with ThreadPoolExecutor(_WORKERS, "export") as pool:
        waiting: deque[Future[FileResult]] = deque()
        try:
            for task in tasks:
                if task is not None:
                    waiting.append(pool.submit(task))
                while len(waiting) > (0 if task is None else _AHEAD):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _gone(archive: Archive, names: set[str]) -> Iterator[str]:
    """Yield those of some studies' directories that the archive has nothing for any more."""
    with archive.view() as view:
        made_up = {name for name in names if documents.directory_name(name) != name}
        if made_up:  # of what is no UID: only a walk tells
            for study in view.studies():
                if view.shown(study.key):
                    made_up.discard(documents.directory_name(str(study.attributes["StudyInstanceUID"])))
        for name in sorted(names):
            if name in made_up or (documents.directory_name(name) == name and not _is_shown(view, name)):
                yield name


def _is_shown(view: View, uid: str) -> bool:
    number = view.study_with_uid(uid)
    return number is not None and view.shown(number) > 0


def _removed(target: Target, names: Iterable[str]) -> Iterator[FileResult]:
    for name in sorted(names):
        for below in (f"studies/{name}", f"deduplicated/{name}"):
            if os.path.lexists(target.path(below)):
                yield remove(target, below)


def _study_list(target: Target, wanted: list[str], gone: set[str]) -> FileResult:
    """Write the list of all studies: those that were there in their order, then new ones; raise OSError."""
    left = dict.fromkeys(wanted)
    path = target.path(STUDY_LIST)
    with closing(Texts(target.root)) as texts:
        try:
            for text in objects(path) if os.path.lexists(path) else ():
                name = _name(text)
                if name in left:
                    _add(target, texts, name)
                    del left[name]
                elif name not in gone:
                    texts.add(text)
        except (EOFError, NotDeflated, ValueError):
            reason = "is no list of studies, so the studies of others in it cannot be kept; remove it and export again"
            return FileResult(STUDY_LIST, Outcome.FAILED, reason, 0)
        for name in left:
            _add(target, texts, name)
        texts.flush()
        return target.document(STUDY_LIST, None, array(texts))


def _add(target: Target, texts: Texts, name: str) -> None:
    """Add a study as its own document tells it; one that could not be written is in no list."""
    with suppress(FileNotFoundError, EOFError, NotDeflated, ValueError):
        for text in objects(target.path(f"studies/{name}/index.json.gz")):
            texts.add(text)


def _name(text: str) -> str:
    """Return the name of the directory of a study of the list, empty where it has none."""
    try:
        return documents.directory_name(str(json.loads(text)[_STUDY_INSTANCE_UID]["Value"][0]))
    except (ValueError, LookupError, TypeError):
        return ""
