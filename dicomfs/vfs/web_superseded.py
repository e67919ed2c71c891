"""A study's `deduplicated/<hash>.gz` of lists that it had before it was changed: they resolve, and are not listed."""

import json
from typing import TYPE_CHECKING

from dicomfs.errors import NotFound
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.node import Attributes, OpenFile
from dicomfs.vfs.plain import DocumentFile
from dicomfs.vfs.shelf import Held
from dicomfs.vfs.web_numbers import Node

if TYPE_CHECKING:
    from dicomfs.archive.bundle import Extent
    from dicomfs.archive.catalog import View
    from dicomfs.vfs.shelf import Shelf


def lookup(shelf: "Shelf", view: "View", study: int, name: bytes) -> Attributes | None:
    """Return a superseded list of a study by its name; raise NotReady."""
    bundle = shelf.study(view, study).bundle
    told = bundle.get(("superseded", 0))
    names = [] if told is None else [f"{known}.gz".encode() for known in json.loads(bundle.read(*told)) if known]
    if name not in names:
        return None
    held = shelf.superseded(view, study)
    at = names.index(name)
    extent = held.bundle.get(("list", at))
    return None if extent is None else _attributes(view, study, _version(held, at), extent)


def attributes(shelf: "Shelf", view: "View", node: Node) -> Attributes | None:
    """Return a superseded list by what its inode number says; raise NotReady."""
    extent = _extent(shelf.superseded(view, node.number), node.argument)
    return None if extent is None else _attributes(view, node.number, node.argument, extent)


def open_file(shelf: "Shelf", view: "View", node: Node) -> OpenFile:
    """Open a superseded list; raise NotReady, or NotFound where there is another one now."""
    held = shelf.superseded(view, node.number)
    extent = _extent(held, node.argument)
    if extent is None:
        raise NotFound("this superseded list is not there any more")
    return DocumentFile(held.bundle, extent)


def _attributes(view: "View", study: int, version: int, extent: "Extent") -> Attributes:
    ino = web.inode(web.ALL, study, web.HASHED, version)
    return Attributes(ino, False, extent.size, view.mtime_ns_of_study(study), 1)


def _extent(held: Held, version: int) -> "Extent | None":
    at = 0
    while (extent := held.bundle.get(("list", at))) is not None:
        if _version(held, at) == version:
            return extent
        at += 1
    return None


def _version(held: Held, at: int) -> int:
    return web.version(f"{held.stamp}.{held.bundle.crc32:x}.{at}")
