"""A study's `bulkdata/<h0-3>/<h3-5>/<h5->.<ext>`: values and objects of its deduplicated lists, by their SHA-256."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dicomfs.errors import NotFound
from dicomfs.vfs import composed
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.node import Attributes, Entry, OpenFile
from dicomfs.vfs.plain import DocumentFile
from dicomfs.vfs.web_numbers import Node

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.bundle import Hashed
    from dicomfs.archive.catalog import View
    from dicomfs.vfs.shelf import Shelf

BRANCH_DIGITS: Final = 3
TWIG_DIGITS: Final = 2
_PREFIX: Final = BRANCH_DIGITS + TWIG_DIGITS
_CODE_DIGITS: Final = 7
"""So many digits of the hash are in the inode number of a file."""


def attributes(shelf: "Shelf", view: "View", node: Node) -> Attributes | None:
    """Return a file or directory below a study's bulkdata; raise NotReady."""
    if node.family == web.BULK:
        found = _at(shelf, view, node)
        return None if found is None else _file(view, node, found)
    digits = f"{node.code:03x}" if node.family == web.BRANCH else f"{node.code:05x}"
    return _directory(shelf, view, node.number, digits)


def _directory(shelf: "Shelf", view: "View", study: int, digits: str) -> Attributes | None:
    bundle = shelf.study(view, study).bundle
    if next(bundle.hashed(digits), None) is None:
        return None
    family = web.BRANCH if len(digits) == BRANCH_DIGITS else web.TWIG
    return Attributes(web.coded(family, study, int(digits, 16)), True, 0, view.mtime_ns_of_study(study), 1)


def _file(view: "View", node: Node, found: "Hashed") -> Attributes:
    return Attributes(
        web.coded(web.BULK, node.number, node.code), False, _size(found), view.mtime_ns_of_study(node.number), 1
    )


def _size(found: "Hashed") -> int:
    if found.extent is not None:
        return found.extent.size
    return 0 if found.bulk is None else found.bulk.end - found.bulk.start


def _codes(bundle_hashed: "Iterator[Hashed]") -> "Iterator[tuple[int, Hashed]]":
    """Walk values with their codes: the first digits, or the next free number where several begin with these."""
    last = -1
    for found in bundle_hashed:
        last = max(last + 1, int(found.sha256[:_CODE_DIGITS], 16))
        yield last, found


def _at(shelf: "Shelf", view: "View", node: Node) -> "Hashed | None":
    bundle = shelf.study(view, node.number).bundle
    digits = f"{node.code:07x}"[:_PREFIX]
    return next((found for code, found in _codes(bundle.hashed(digits)) if code == node.code), None)


def _digits(node: Node) -> str:
    """Return with which digits all begin that lies below a directory."""
    return {web.BRANCH: f"{node.code:03x}", web.TWIG: f"{node.code:05x}"}.get(node.family, "")


def lookup(shelf: "Shelf", view: "View", node: Node, name: bytes) -> Attributes | None:
    """Return an entry of one of these directories; raise NotReady."""
    digits = _digits(node)
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        return None
    if node.family != web.TWIG:
        length = BRANCH_DIGITS if not digits else TWIG_DIGITS
        if len(text) != length or not set(text) <= set("0123456789abcdef"):
            return None
        return _directory(shelf, view, node.number, digits + text)
    bundle = shelf.study(view, node.number).bundle
    for code, found in _codes(bundle.hashed(digits)):
        if _name(found) == name:
            return _file(view, _node(node.number, code), found)
    return None


def _name(found: "Hashed") -> bytes:
    return f"{found.sha256[_PREFIX:]}.{found.ext}".encode()


def _node(study: int, code: int) -> Node:
    return web.node(web.coded(web.BULK, study, code))


def entries(shelf: "Shelf", view: "View", node: Node, after: int) -> Iterator[Entry]:
    """Return the entries of one of these directories, whose cookies follow their names; raise NotReady."""
    bundle = shelf.study(view, node.number).bundle
    mtime_ns = view.mtime_ns_of_study(node.number)
    digits = _digits(node)

    def directories() -> Iterator[Entry]:
        length, family = (BRANCH_DIGITS, web.BRANCH) if not digits else (TWIG_DIGITS, web.TWIG)
        for number in bundle.digits(digits, length, after):
            name = f"{number:0{length}x}"
            ino = web.coded(family, node.number, int(digits + name, 16))
            yield name.encode(), ino, True, 0, mtime_ns, 1, number + 1

    def files() -> Iterator[Entry]:
        for code, found in _codes(bundle.hashed(digits)):
            if code + 1 > after:
                ino = web.coded(web.BULK, node.number, code)
                yield _name(found), ino, False, _size(found), mtime_ns, 1, code + 1

    return files() if node.family == web.TWIG else directories()


def open_file(shelf: "Shelf", archive: "Archive", node: Node) -> OpenFile:
    """Open a file; raise NotReady."""
    with archive.view() as view:
        bundle = shelf.study(view, node.number).bundle
        found = _at(shelf, view, node)
    if found is None:
        raise NotFound(f"study {node.number} has no such value")
    if found.extent is not None:
        return DocumentFile(bundle, found.extent)
    if found.bulk is None:
        raise NotFound(f"study {node.number} has no such value")
    return composed.bulk_file(shelf.parts(found.ino), found.bulk)
