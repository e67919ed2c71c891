"""data/ of the layout `omidb`: the directories of images/ once more, with JSON in the place of DICOM.

    <layout>/
    ├── images/<client>/<study>/<sop>.dcm       claimed (catalog.py)
    └── data/<client>/
        ├── <study>/<sop>.json                  the header
        ├── imagedb_<client>.json
        └── nbss_<client>.json

Every name below data/ follows from one in images/, and every number too (omidb_numbers.py). What the files say is
made by other processes when somebody looks, a study's headers at once, and a client's documents
(archive/documents_omidb.py).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dicomfs.archive import documents, documents_gzip, omidb
from dicomfs.errors import Damaged, NotFound
from dicomfs.vfs import omidb_numbers as numbers
from dicomfs.vfs.node import (
    LAST_CLAIMED,
    NOTHING,
    Attributes,
    Changes,
    Entry,
    INode,
    NotReady,
    NoXattrs,
    OpenFile,
    Stale,
    waited,
)
from dicomfs.vfs.omidb_changes import Journal
from dicomfs.vfs.omidb_numbers import CLIENT, DATA, HEADER, IMAGEDB, NAME, NBSS, STUDY, Node
from dicomfs.vfs.plain import DocumentFile, TextFile
from dicomfs.vfs.shelf import Held, Shelf

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.bundle import Bundle, Extent
    from dicomfs.archive.catalog import View

DOCUMENTS: Final = {IMAGEDB: "imagedb", NBSS: "nbss"}
COOKIE: Final = LAST_CLAIMED + 1
"""From here on are the cookies of what is listed after claimed names."""
_KEPT: Final = 1024
_DEPTH: Final = 8
"""No directory of such a layout lies deeper."""
_INFLATED_AT_ONCE: Final = 1 << 17
"""A header of up to this length is inflated while others wait: a tenth of a millisecond."""


class Omidb(NoXattrs):
    """Provider of data/ in those layouts that are OMI-DB's."""

    def __init__(self, archive: "Archive", shelf: Shelf) -> None:
        self._archive = archive
        self._shelf = shelf
        self._journal = Journal(archive, self._shelf)
        self._lengths: dict[int, tuple[Held, omidb.Lengths]] = {}
        self._patients: dict[int, tuple[int, bytes | None]] = {}
        """Whose clients' directories are, with the time of each at which that was so: it may be left without images."""
        self.roots: frozenset[INode] = frozenset()
        """Of the layouts that are shown; whoever guesses a number is led to nothing that is not in one of them."""

    # What there is ----------------------------------------------------------------------------------

    def of(self, root: INode) -> Attributes | None:
        """Return data/ of a layout."""
        return self.attributes(numbers.inode(DATA, root))

    def entry(self, root: INode) -> Entry | None:
        """Return data/ as an entry of its layout's directory, the last one."""
        found = self.of(root)
        return None if found is None else _entry(NAME, found, COOKIE)

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of a node, None for a document that is no longer what it was; raise NotReady."""
        with self._archive.view() as view:
            found = self._attributes(view, numbers.node(ino))
        return found if found is not None and found.ino == ino else None

    def _attributes(self, view: "View", said: Node) -> Attributes | None:
        kind, number, _ = said
        try:
            if kind in DOCUMENTS:
                return self._document(view, number, kind)
            if kind == DATA or (kind in (CLIENT, STUDY) and self._is_ours(view, number)):
                return self._directory(view, kind, number)
            return self._header(view, number) if kind == HEADER else None
        except NotFound:
            return None

    def _directory(self, view: "View", kind: int, number: int) -> Attributes | None:
        mirrored = view.node(number)
        if kind == DATA:
            if number not in self.roots:
                return None
            mirrored = view.child(number, omidb.IMAGES) or mirrored
        if mirrored is None or not mirrored.is_directory:
            return None
        # The root of a layout without images stands in for images/.
        below = 0 if kind == DATA and mirrored.ino == number else mirrored.subdirectories
        return Attributes(numbers.inode(kind, number), True, 0, mirrored.mtime_ns, 2 + below)

    def _is_ours(self, view: "View", folder: int) -> bool:
        """Say whether a claimed directory lies in a layout that is shown."""
        for _ in range(_DEPTH):
            if folder in self.roots:
                return True
            node = view.node(folder)
            if node is None or not node.is_directory:
                return False
            folder = node.parent
        return False

    def _client(self, view: "View", folder: int) -> omidb.Client:
        node = view.node(folder)
        mtime_ns = 0 if node is None else node.mtime_ns
        known = self._patients.get(folder)
        if known is None or known[0] != mtime_ns:
            if len(self._patients) >= _KEPT:
                self._patients.clear()
            known = self._patients[folder] = mtime_ns, omidb.patient_of(view, folder)
        return omidb.client(view, folder, known[1])

    def _document(self, view: "View", folder: int, kind: int) -> Attributes | None:
        if not self._is_ours(view, folder):
            return None
        now = self._client(view, folder)
        held = self._shelf.held("client", folder, now.stamp)
        extent = held.bundle.get((DOCUMENTS[kind], 0))
        if extent is None:
            return None
        return Attributes(numbers.inode(kind, folder, held.version), False, extent.size, now.mtime_ns, 1)

    def _header(self, view: "View", ino: int) -> Attributes | None:
        if not any(view.is_linked(ino, root) for root in self.roots):
            return None
        inode = view.instance_inode(ino)
        study = view.series(inode.series).study
        held, lengths = self._headers(view, study)
        length = lengths.get(ino)
        if length is None:
            stamp = documents.study_stamp(view, study)
            if held.stamp != stamp:
                raise NotReady(lambda: self._shelf.bring(omidb.NAME, study, stamp))
            return None
        return self._as_file(ino, length, inode.mtime_ns)

    def _as_file(self, ino: int, length: int, mtime_ns: int) -> Attributes:
        # Each layout of OMI-DB that is on shows the header, under the same number.
        return Attributes(numbers.inode(HEADER, ino), False, length, mtime_ns, len(self.roots) or 1)

    def _headers(self, view: "View", study: int) -> tuple[Held, omidb.Lengths]:
        """Return the bundle of a study's headers, and how long each is; raise NotReady."""
        held = self._shelf.held(omidb.NAME, study, documents.study_stamp(view, study))
        known = self._lengths.get(study)
        if known is None or known[0] is not held:
            if len(self._lengths) >= _KEPT // 16:
                self._lengths.clear()
            known = self._lengths[study] = held, omidb.Lengths(held.bundle)
        return known

    # Names ------------------------------------------------------------------------------------------

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the node of exactly this name in a directory; raise NotReady."""
        kind, number, _ = numbers.node(parent)
        with self._archive.view() as view:
            if not self._is_ours(view, number):
                return None
            if kind == STUDY:
                image = view.child(number, name.removesuffix(b".json") + b".dcm") if name.endswith(b".json") else None
                return None if image is None else self._attributes(view, Node(HEADER, image.ino, 0))
            if kind == CLIENT:
                for document, start in DOCUMENTS.items():
                    if name == _document_name(view, number, start):
                        return self._attributes(view, Node(document, number, 0))
            images = view.child(number, omidb.IMAGES) if kind == DATA else None
            above = number if kind == CLIENT else 0 if images is None else images.ino
            found = view.child(above, name) if above else None
            if found is None or not found.is_directory:
                return None
            return self._attributes(view, Node(STUDY if kind == CLIENT else CLIENT, found.ino, 0))

    def entries(self, ino: INode, after: int) -> Iterator[Entry]:
        """Return a directory's entries in the order of inode numbers in images/, documents last; raise NotReady."""
        kind, number, _ = numbers.node(ino)
        with self._archive.view() as view:
            if not self._is_ours(view, number):
                return iter(())
            if kind == DATA:
                images = view.child(number, omidb.IMAGES)
                return iter(()) if images is None else self._directories(images.ino, CLIENT, after, [])
            if kind == CLIENT:
                found = [(start, self._document(view, number, one)) for one, start in DOCUMENTS.items()]
                last = [
                    _entry(_document_name(view, number, start), one, COOKIE + at)
                    for at, (start, one) in enumerate(found)
                    if one is not None and COOKIE + at > after
                ]
                return self._directories(number, STUDY, after, last)
            first = next(omidb.children(view, number, after), None) if kind == STUDY else None
            if first is None:
                return iter(())
            study = view.series(view.instance_inode(first[1]).series).study
            held, lengths = self._headers(view, study)
            stale = held.stamp != documents.study_stamp(view, study)
        return self._files(number, after, lengths, stale=stale)

    def _directories(self, folder: int, kind: int, after: int, last: list[Entry]) -> Iterator[Entry]:
        with self._archive.view() as view:
            for name, ino, is_directory, _, mtime_ns, nlink, _ in omidb.children(view, folder, after):
                if is_directory:
                    yield name, numbers.inode(kind, ino), True, 0, mtime_ns, nlink, ino
        yield from last

    def _files(self, folder: int, after: int, lengths: omidb.Lengths, *, stale: bool) -> Iterator[Entry]:
        known = lengths.after(after)
        at, length = next(known, (0, 0))
        with self._archive.view() as view:
            for name, ino, is_directory, _, mtime_ns, *_ in omidb.children(view, folder, after):
                # Both are in the order of inode numbers.
                while at and at < ino:
                    at, length = next(known, (0, 0))
                if not is_directory and ino == at:
                    found = self._as_file(ino, length, mtime_ns)
                    yield _entry(name.removesuffix(b".dcm") + b".json", found, ino)
                elif stale:
                    self._journal.lacking.add(folder)

    def parent(self, ino: INode) -> INode | None:
        """Return the directory of a node."""
        kind, number, _ = numbers.node(ino)
        if kind == DATA:
            return number if number in self.roots else None
        with self._archive.view() as view:
            if kind != HEADER and not self._is_ours(view, number):
                return None
            if kind in DOCUMENTS:
                return numbers.inode(CLIENT, number)
            if kind == HEADER:
                folders = (directory for root, directory, _ in view.links(number) if root in self.roots)
                found = next(folders, None)
                return None if found is None else numbers.inode(STUDY, found)
            above = view.node(number)
            if above is None or kind not in (STUDY, CLIENT):
                return None
            if kind == STUDY:
                return numbers.inode(CLIENT, above.parent)
            images = view.node(above.parent)
            return None if images is None else numbers.inode(DATA, images.parent)

    # Files ------------------------------------------------------------------------------------------

    def open(self, ino: INode) -> OpenFile:
        """Open a document or header; wait as long as it takes. Raise Stale for one that was made anew."""
        said = numbers.node(ino)
        if said.kind in DOCUMENTS:
            return waited(lambda: self._open_document(said))
        bundle, extent, length = waited(lambda: self._kept(said))
        return TextFile(_inflated(bundle.read(*extent), length))

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Return the same if what it takes is in memory and short; raise NotReady."""
        said = numbers.node(ino)
        if said.kind in DOCUMENTS:
            return self._open_document(said)
        bundle, extent, length = self._kept(said)
        kept = bundle.read_ready(*extent) if length <= _INFLATED_AT_ONCE else None
        return None if kept is None else TextFile(_inflated(kept, length))

    def _open_document(self, said: Node) -> OpenFile:
        with self._archive.view() as view:
            if self._is_ours(view, said.number):
                held = self._shelf.held("client", said.number, self._client(view, said.number).stamp)
                extent = held.bundle.get((DOCUMENTS[said.kind], 0))
                if extent is not None and held.version % numbers.VERSIONS == said.version:
                    return DocumentFile(held.bundle, extent)
        raise Stale("that document was made anew")

    def _kept(self, said: Node) -> tuple["Bundle", "Extent", int]:
        """Return where an image's header is kept, and how long it is; raise NotReady, or Stale where there is none."""
        with self._archive.view() as view:
            found = self._header(view, said.number) if said.kind == HEADER else None
            if found is not None:
                held, _ = self._headers(view, view.series(view.instance_inode(said.number).series).study)
                extent = held.bundle.get((omidb.NAME, said.number))
                if extent is not None:
                    return held.bundle, extent, found.size
        raise Stale("the image that this file was about was replaced")

    def changes(self) -> Changes:
        """Return what was committed since the last call."""
        if not self.roots:
            self._journal.skip()
            return NOTHING
        found = self._journal.news(self.roots)
        if not found.complete:
            self.forget()
        return found

    def forget(self) -> None:
        """Drop what is known, as the archive's catalog may be another one."""
        self._shelf.forget()
        self._lengths.clear()
        self._patients.clear()


def _inflated(kept: bytes | memoryview, length: int) -> bytes:
    """Return a header as it is shown; raise Damaged."""
    text = documents_gzip.text(kept).encode()
    if len(text) != length:
        raise Damaged("a document of the cache is no longer what it was")
    return text


def _document_name(view: "View", folder: int, start: str) -> bytes:
    client = view.path(folder).rpartition("/")[2]
    return f"{start}_{client}.json".encode()


def _entry(name: bytes, found: Attributes, cookie: int) -> Entry:
    ino, is_directory, size, mtime_ns, nlink, _ = found
    return name, ino, is_directory, size, mtime_ns, nlink, cookie
