"""The static DICOMweb tree: studies, series and instances by UID, as any web server can serve them.

What a directory has is decided here, and by the tables of `web_directories`; documents come from bundles that other
processes make (`shelf`), frames are recipes over the instances themselves (`composed`).
"""

import gzip
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dicomfs.archive.documents import directory_name
from dicomfs.errors import NotFound
from dicomfs.vfs import web_bulk, web_changes, web_superseded
from dicomfs.vfs import web_instance as instances
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.node import (
    DICOMWEB,
    DICOMWEB_STUDIES,
    ROOT,
    Attributes,
    Changes,
    Entry,
    INode,
    NoXattrs,
    OpenFile,
    Stale,
    waited,
)
from dicomfs.vfs.plain import DocumentFile, TextFile
from dicomfs.vfs.shelf import Held, Shelf
from dicomfs.vfs.web_directories import DIRECTORIES, DOCUMENTS, NAMES, PLAIN, TWICE
from dicomfs.vfs.web_lists import Lists
from dicomfs.vfs.web_numbers import Node

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.catalog import View

STUDIES: Final = b"studies"
_FIRST_CHILD: Final = 64
"""Cookies below this are of fixed names; those of studies, series and instances are their numbers."""
_ALL: Final = Node(web.ALL, 0, web.DIRECTORY, 0)
_SUPERSEDED: Final = (web.ALL, web.HASHED)


class DicomWeb(NoXattrs):
    """Provider of the tree below `dicomweb/`."""

    def __init__(self, archive: "Archive", created_ns: int) -> None:
        self._archive = archive
        self._created_ns = created_ns
        self._shelf = Shelf(archive)
        self._lists = Lists(archive, self._shelf)
        self._changes = web_changes.Journal(archive, self._shelf)

    # What there is ----------------------------------------------------------------------------------

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of a node, None for a document that is no longer what it was; raise NotReady."""
        with self._archive.view() as view:
            return self._attributes(view, ino)

    def _attributes(self, view: "View", ino: INode) -> Attributes | None:
        if ino in (DICOMWEB, DICOMWEB_STUDIES):
            return self._directory(ino, self._top_mtime(view))
        node = web.node(ino)
        try:
            found = self._node(view, node.family, node.number, node.kind, node)
        except NotFound:
            return None
        return found if found is not None and found.ino == ino else None

    def _top_mtime(self, view: "View") -> int:
        return web_changes.mtime_ns(view) or self._created_ns

    def _directory(self, ino: INode, mtime_ns: int) -> Attributes:
        # One link says that nobody counts them, as on other filesystems whose directories have none.
        return Attributes(ino, True, 0, mtime_ns, 1)

    def _mtime(self, view: "View", family: int, number: int) -> int:
        if family == web.STUDY:
            return view.mtime_ns_of_study(number)
        if family == web.SERIES:
            return view.mtime_ns_of_series(number)
        if family == web.INSTANCE:
            return view.instance_inode(number).mtime_ns
        return self._top_mtime(view)

    def _node(self, view: "View", family: int, number: int, kind: int, said: Node) -> Attributes | None:
        """Return a node as it is now; `said` is what else its inode number says."""
        if (family, kind) in DIRECTORIES:
            return self._directory(web.inode(family, number, kind), self._mtime(view, family, number))
        if (family, kind) == _SUPERSEDED:
            return web_superseded.attributes(self._shelf, view, said)
        if (family, kind & ~PLAIN) in DOCUMENTS:
            return self._document(view, family, number, kind)
        if family in (web.STUDY, web.SERIES) and kind == web.POSTER:
            return self._poster(view, family, number)
        if family == web.INSTANCE:
            return instances.attributes(self._shelf, self._archive, view, said)
        if family in (web.BULK, web.BRANCH, web.TWIG):
            return web_bulk.attributes(self._shelf, view, said)
        return None

    def _document(self, view: "View", family: int, number: int, kind: int) -> Attributes | None:
        if family == web.ALL and number:
            return None
        held = self._bundle(view, family, number)
        extent = held.bundle.get((DOCUMENTS[family, kind & ~PLAIN], number if family == web.INSTANCE else 0))
        if extent is None:
            return None
        size = extent.size
        if kind & PLAIN:
            # A gzip member ends with the length of what it holds (RFC 1952); no document is longer than 4 GiB.
            size = int.from_bytes(held.bundle.read(extent.offset + extent.size - 4, 4), "little")
        ino = web.inode(family, number, kind, held.version)
        links = 2 if (family, kind) in TWICE else 1
        return Attributes(ino, False, size, self._mtime(view, family, number), links)

    def _poster(self, view: "View", family: int, number: int) -> Attributes | None:
        """Return the thumbnail of the instance that stands for a study or series."""
        middle = self._bundle(view, family, number).bundle.middle
        if not middle:
            return None
        # It is another file when another instance is in the middle, and that must show: web caches go by time and size.
        ino = web.inode(family, number, web.POSTER, middle % web.ARGUMENTS)
        return instances.thumbnail(view, middle)._replace(ino=ino, mtime_ns=self._mtime(view, family, number))

    def _bundle(self, view: "View", family: int, number: int) -> Held:
        if family == web.ALL:
            return self._shelf.studies(view)
        if family == web.STUDY:
            return self._shelf.study(view, number)
        series = number if family == web.SERIES else view.instance_inode(number).series
        return self._shelf.series(view, series)

    # Names ------------------------------------------------------------------------------------------

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the node of exactly this name in a directory; raise NotReady."""
        with self._archive.view() as view:
            try:
                return self._lookup(view, parent, name)
            except NotFound:
                return None

    def _lookup(self, view: "View", parent: INode, name: bytes) -> Attributes | None:
        if parent == DICOMWEB:
            return self._attributes(view, DICOMWEB_STUDIES) if name == STUDIES else None
        node = _node_of(parent)
        known = NAMES.get((node.family, node.kind), {}).get(name)
        if known is not None:
            return self._named(view, node, known.kind)
        if node.family == web.INSTANCE:
            return instances.lookup(self._shelf, self._archive, view, node, name)
        if node.family in (web.BRANCH, web.TWIG) or (node.family, node.kind) == (web.STUDY, web.BULKDATA):
            return web_bulk.lookup(self._shelf, view, node, name)
        return self._child(view, node, name)

    def _named(self, view: "View", node: Node, kind: int) -> Attributes | None:
        if node.family == web.INSTANCE:
            said = Node(node.family, node.number, kind, 0)
            if not instances.has(self._shelf, view, said):
                return None
            return self._node(view, node.family, node.number, kind, said)
        return self._node(view, node.family, node.number, kind, node)

    def _child(self, view: "View", node: Node, name: bytes) -> Attributes | None:
        """Return a study, series or instance by its directory's name, or what has its name with `.gz`."""
        if node.kind == web.DEDUPLICATED:
            bundle = self._shelf.study(view, node.number).bundle
            if name == f"{bundle.name}.gz".encode() and bundle.name:
                return self._document(view, web.STUDY, node.number, web.HASHED)
            return web_superseded.lookup(self._shelf, view, node.number, name)
        if node.kind == web.DEDUPLICATED_INSTANCES:
            stem = name.removesuffix(b".gz")
            ino = self._instance_of_study(view, node.number, stem) if stem != name else None
            return None if ino is None else self._document(view, web.INSTANCE, ino, web.LIST)
        number = self._number(view, node, name)
        if number is None or not _is_shown(view, node, number):
            return None
        family = {web.ALL: web.STUDY, web.STUDY: web.SERIES}.get(node.family, web.INSTANCE)
        return self._directory(web.inode(family, number), self._mtime(view, family, number))

    def _number(self, view: "View", node: Node, name: bytes) -> int | None:
        """Return the number of the study, series or instance whose directory has this name."""
        try:
            uid = name.decode("ascii")
        except UnicodeDecodeError:
            return None
        if directory_name(uid) == uid:
            if node.family == web.ALL:
                return view.study_with_uid(uid)
            if node.kind != web.BELOW:
                return None
            return (
                view.series_with_uid(node.number, uid)
                if node.family == web.STUDY
                else view.shown_with_uid(node.number, uid)
            )
        if "~" not in uid:
            return None
        # Not a UID (PS3.5 9.1), so its name is made up: linear in what the directory has.
        return next((number for number, found, _ in _children(view, node, 0) if directory_name(found) == uid), None)

    def _instance_of_study(self, view: "View", study: int, name: bytes) -> INode | None:
        """Return the instance that a study shows under a name; the first, where several series have one."""
        found = [
            ino
            for series in view.series_of(study)
            if (directory := self._child(view, Node(web.SERIES, series.key, web.BELOW, 0), name)) is not None
            for ino in (web.node(directory.ino).number,)
        ]
        return min(found, default=None)

    # Listings ---------------------------------------------------------------------------------------

    def entries(self, ino: INode, after: INode) -> Iterator[Entry]:
        """Yield a directory's entries, from the first whose cookie is past `after`; raise NotReady at once."""
        if ino == DICOMWEB:
            above = self.attributes(DICOMWEB_STUDIES)
            return iter(() if after or above is None else (above.entry(STUDIES, 1),))
        node = _node_of(ino)
        with self._archive.view() as view:
            try:
                if (found := self._attributes(view, ino)) is None or not found.is_directory:
                    return iter(())
                if node.family == web.INSTANCE:
                    return instances.entries(self._shelf, self._archive, view, node, after, self._named)
                if node.family in (web.BRANCH, web.TWIG) or (node.family, node.kind) == (web.STUDY, web.BULKDATA):
                    return web_bulk.entries(self._shelf, view, node, after)
                if (node.family, node.kind) == (web.STUDY, web.DEDUPLICATED_INSTANCES):
                    return self._lists.entries(view, node.number, after)
                fixed = self._fixed(view, node, after)
            except NotFound:
                return iter(())
        return self._listing(node, fixed, after)

    def _fixed(self, view: "View", node: Node, after: int) -> list[Entry]:
        names = NAMES.get((node.family, node.kind), {})
        found: list[Entry] = []
        for cookie, (name, known) in enumerate(names.items(), 1):
            if known.listed and cookie > after and (entry := self._named(view, node, known.kind)) is not None:
                found.append(entry.entry(name, cookie))
        if node.kind == web.DEDUPLICATED and node.family == web.STUDY and after < _FIRST_CHILD - 1:
            held = self._shelf.study(view, node.number)
            document = self._document(view, web.STUDY, node.number, web.HASHED)
            if document is not None and held.bundle.name:
                found.append(document.entry(f"{held.bundle.name}.gz".encode(), _FIRST_CHILD - 1))
        return found

    def _listing(self, node: Node, fixed: list[Entry], after: int) -> Iterator[Entry]:
        yield from fixed
        after = max(after, _FIRST_CHILD)
        family = {web.ALL: web.STUDY, web.STUDY: web.SERIES}.get(node.family, web.INSTANCE)
        with self._archive.view() as view:
            if node.family == web.ALL or node.kind == web.BELOW:
                for number, uid, mtime_ns in _children(view, node, after):
                    if _is_shown(view, node, number) and (ino := web.inode(family, number)):
                        yield directory_name(uid).encode(), ino, True, 0, mtime_ns, 1, number

    def parent(self, ino: INode) -> INode | None:
        """Return the directory of a node."""
        if ino == DICOMWEB:
            return ROOT
        if ino == DICOMWEB_STUDIES:
            return DICOMWEB
        try:
            with self._archive.view() as view:
                return web_changes.parent(view, web.node(ino))
        except NotFound:
            return None

    # Files ------------------------------------------------------------------------------------------

    def open(self, ino: INode) -> OpenFile:
        """Open a file; wait as long as it takes."""
        node = web.node(ino)
        if (node.family, node.kind) == _SUPERSEDED:
            return waited(lambda: self._open_superseded(node))
        if (node.family, node.kind & ~PLAIN) in DOCUMENTS:
            return waited(lambda: self._open_document(ino, node))
        if node.family == web.INSTANCE:
            return instances.open_file(self._shelf, self._archive, node)
        if node.kind == web.POSTER and node.family in (web.STUDY, web.SERIES):
            return instances.open_file(self._shelf, self._archive, waited(lambda: self._instance_of(ino, node)))
        return waited(lambda: web_bulk.open_file(self._shelf, self._archive, node))

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Open a file if nothing has to be waited for, return None where a thread may open it; raise NotReady."""
        node = web.node(ino)
        if (node.family, node.kind) == _SUPERSEDED:
            return self._open_superseded(node)
        if (node.family, node.kind & ~PLAIN) in DOCUMENTS:
            return None if node.kind & PLAIN else self._open_document(ino, node)
        if node.family == web.INSTANCE:
            return instances.open_ready(self._shelf, self._archive, node)
        if node.kind == web.POSTER and node.family in (web.STUDY, web.SERIES):
            return instances.open_ready(self._shelf, self._archive, self._instance_of(ino, node))
        return None

    def _instance_of(self, ino: INode, node: Node) -> Node:
        """Return the thumbnail that stands for a study or series; raise NotReady."""
        with self._archive.view() as view:
            middle = self._bundle(view, node.family, node.number).bundle.middle
        if middle % web.ARGUMENTS != node.argument:
            raise Stale(f"the picture with inode number {ino} stands for something else")
        return Node(web.INSTANCE, middle, web.THUMBNAIL, 0)

    def _open_superseded(self, node: Node) -> OpenFile:
        with self._archive.view() as view:
            return web_superseded.open_file(self._shelf, view, node)

    def _open_document(self, ino: INode, node: Node) -> OpenFile:
        with self._archive.view() as view:
            held = self._bundle(view, node.family, node.number)
        extent = held.bundle.get(
            (DOCUMENTS[node.family, node.kind & ~PLAIN], node.number * (node.family == web.INSTANCE))
        )
        if extent is None or held.version != node.argument:
            raise Stale(f"the document with inode number {ino} is not there any more")
        if not node.kind & PLAIN:
            return DocumentFile(held.bundle, extent)
        return TextFile(gzip.decompress(held.bundle.read(extent.offset, extent.size)))

    def changes(self) -> Changes:
        """Return what was committed since the last call."""
        return self._changes.news()

    def close(self) -> None:
        """End what works for this tree."""
        self._shelf.close()


def _node_of(ino: INode) -> Node:
    return _ALL if ino == DICOMWEB_STUDIES else web.node(ino)


def _children(view: "View", node: Node, after: int) -> Iterator[tuple[int, str, int]]:
    """Walk (number, UID, mtime in ns) of what a directory has below it."""
    if node.family == web.ALL:
        for study in view.studies(after):
            yield study.key, str(study.attributes.get("StudyInstanceUID", "")), study.mtime_ns
    elif node.family == web.STUDY:
        for series in view.series_of(node.number, after):
            yield series.key, str(series.attributes.get("SeriesInstanceUID", "")), series.mtime_ns
    else:
        for instance in view.shown_instances(node.number, after):
            yield instance.ino, str(instance.attributes["SOPInstanceUID"]), instance.mtime_ns


def _is_shown(view: "View", node: Node, number: int) -> bool:
    """Say whether there is anything to show of a study or series."""
    if node.family == web.ALL:
        return view.shown(number) > 0
    return node.family != web.STUDY or view.shown(node.number, number) > 0
