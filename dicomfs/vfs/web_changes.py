"""What commits change in the DICOMweb tree, and where its nodes hang."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dicomfs.archive import tables
from dicomfs.archive.documents import directory_name
from dicomfs.errors import NotFound
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.node import DICOMWEB, DICOMWEB_STUDIES, NOTHING, Changes, INode
from dicomfs.vfs.web_directories import CHANGING
from dicomfs.vfs.web_numbers import Node

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import Series, View
    from dicomfs.vfs.shelf import Shelf


_OF_INSTANCES: Final = (b"bulkdata", b"deduplicated")
"""Directories of a study with names that follow from what its instances hold: to be forgotten as a whole."""


class Journal:
    """What a mounted drive has to be told. Belongs to one thread."""

    def __init__(self, archive: "Archive", shelf: "Shelf") -> None:
        self._archive = archive
        self._shelf = shelf
        with archive.view() as view:
            self._seq = view.seq

    def news(self) -> Changes:
        """Return what was committed since the last call, and what was told though it was out of date already."""
        with self._archive.view() as view:
            outdated = self._shelf.outdated()
            if view.seq == self._seq and not outdated:
                return NOTHING
            found = view.changes(self._seq)
            self._seq = found.seq
            if not found.complete:
                self._shelf.forget()
                return Changes(frozenset(), (), complete=False)
            series = found.series | {number for kind, number in outdated if kind == "series"}
            studies = set(found.studies) | {number for kind, number in outdated if kind == "study"}
            for number in series:
                try:
                    studies.add(view.series(number).study)
                except NotFound:
                    continue
            instances = _displaced(view, found.displaced) + _emptied(view, studies, series)
        return _told(studies, series, instances)


def _told(studies: set[int], series: "frozenset[int] | set[int]", instances: list[tuple[INode, bytes]]) -> Changes:
    directories: set[INode] = {DICOMWEB, DICOMWEB_STUDIES}
    removed = [*instances, *((DICOMWEB_STUDIES, name) for name in CHANGING[web.ALL, web.DIRECTORY])]
    for family, numbers in ((web.STUDY, studies), (web.SERIES, series)):
        for (of, kind), names in CHANGING.items():
            if of == family:
                for number in numbers:
                    ino = web.inode(family, number, kind)
                    directories.add(ino)
                    removed += ((ino, name) for name in names)
    for study in studies:
        directories |= {web.inode(web.STUDY, study, kind) for kind in (web.BULKDATA, web.DEDUPLICATED_INSTANCES)}
    return Changes(directories, removed, complete=True)


def _displaced(view: "View", numbers: Iterable[INode]) -> list[tuple[INode, bytes]]:
    """Return the names that mean other instances now, or none, and directories in which others do."""
    known: dict[int, Series] = {}
    found: dict[tuple[INode, bytes], None] = {}
    for ino in numbers:
        number = view.instance_inode(ino).series
        if number not in known:
            series = known[number] = view.series(number)
            found.update(dict.fromkeys((web.inode(web.STUDY, series.study), name) for name in _OF_INSTANCES))
        if known[number].instances:  # else the whole series is forgotten
            uid = str(view.attributes_of(number, ino)["SOPInstanceUID"])
            found[web.inode(web.SERIES, number, web.BELOW), directory_name(uid).encode()] = None
    return list(found)


def _emptied(view: "View", studies: Iterable[int], series: Iterable[int]) -> list[tuple[INode, bytes]]:
    """Return the names of studies and series of which nothing is shown any more."""
    gone: list[tuple[INode, bytes]] = []
    for number in studies:
        study = view.study(number)
        if not study.instances:
            gone.append((DICOMWEB_STUDIES, directory_name(str(study.attributes["StudyInstanceUID"])).encode()))
    for number in series:
        try:
            one = view.series(number)
        except NotFound:
            continue
        if not one.instances:
            below = web.inode(web.STUDY, one.study, web.BELOW)
            gone.append((below, directory_name(str(one.attributes["SeriesInstanceUID"])).encode()))
    return gone


def mtime_ns(view: "View") -> int:
    """Return when anything was last committed, 0 if never."""
    node = view.node(tables.ROOT_PATIENTS)
    return 0 if node is None else node.mtime_ns


def parent(view: "View", node: Node) -> INode | None:
    """Return the directory of a node."""
    kind = node.kind
    if node.family == web.STUDY:
        return _parent_in_study(node)
    if node.family == web.SERIES:
        if kind == web.DIRECTORY:
            return web.inode(web.STUDY, view.series(node.number).study, web.BELOW)
        return web.inode(web.SERIES, node.number)
    if node.family == web.INSTANCE:
        if kind == web.DIRECTORY:
            return web.inode(web.SERIES, view.instance_inode(node.number).series, web.BELOW)
        if kind in (web.LIST, web.LIST + 1):
            series = view.series(view.instance_inode(node.number).series)
            return web.inode(web.STUDY, series.study, web.DEDUPLICATED_INSTANCES)
        above = {
            web.FRAME: web.BELOW,
            web.FRAME_GZ: web.BELOW,
            web.PICTURE: web.RENDERED,
            web.WHOLE: web.RENDERED,
            web.VALUE: web.BULKDATA,
        }
        return web.inode(web.INSTANCE, node.number, above.get(kind, web.DIRECTORY))
    if node.family == web.BULK:
        return web.coded(web.TWIG, node.number, node.code >> 8)
    if node.family == web.TWIG:
        return web.coded(web.BRANCH, node.number, node.code >> 8)
    if node.family == web.BRANCH:
        return web.inode(web.STUDY, node.number, web.BULKDATA)
    if node.family == web.ALL:
        return web.inode(web.STUDY, node.number, web.DEDUPLICATED) if node.number else DICOMWEB_STUDIES
    return None


def _parent_in_study(node: Node) -> INode:
    if node.kind == web.DIRECTORY:
        return DICOMWEB_STUDIES
    if node.kind == web.DEDUPLICATED_INSTANCES or node.kind & ~1 == web.HASHED:
        return web.inode(web.STUDY, node.number, web.DEDUPLICATED)
    if node.kind & ~1 == web.BELOW_INDEX:
        return web.inode(web.STUDY, node.number, web.BELOW)
    return web.inode(web.STUDY, node.number)
