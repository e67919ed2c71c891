"""One instance's directory in the DICOMweb tree: its frames, pictures and bulk values.

    <SOP>/  metadata.gz thumbnail
            frames/<n>      multipart/related, one part; also <n>.mht, and <n>.gz in a gzip member (unlisted)
            rendered/<n>    PNG, and 1.pdf or 1.mp4 of documents and videos
            pixeldata       the stream of a video
            bulkdata/<tag>  values that the metadata do not hold
            index.mht       the file as it was imported, multipart/related (unlisted)

What there is, and how long it is, follows from the header: nothing is decoded for a listing.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from dicomfs.archive import pictures
from dicomfs.errors import NotFound
from dicomfs.vfs import composed
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.later import LaterFile
from dicomfs.vfs.node import Attributes, Entry, INode, NotReady, OpenFile, waited
from dicomfs.vfs.web_directories import NAMES
from dicomfs.vfs.web_numbers import Node

if TYPE_CHECKING:
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.bundle import Card
    from dicomfs.archive.catalog import View
    from dicomfs.archive.parts import Parts
    from dicomfs.vfs.shelf import Shelf

ENCAPSULATED_DOCUMENT: Final = "00420011"
_WHOLE: Final = {"pdf": b"1.pdf", "video": b"1.mp4"}
_ALIASES: Final = {b"": web.FRAME, b"mht": web.FRAME, b"gz": web.FRAME_GZ}

Named: TypeAlias = Callable[["View", Node, int], Attributes | None]


def thumbnail(view: "View", ino: INode) -> Attributes:
    """Return the node of an instance's thumbnail, which may stand for a series or a study too."""
    mtime_ns = view.instance_inode(ino).mtime_ns
    return Attributes(web.inode(web.INSTANCE, ino, web.THUMBNAIL), False, pictures.THUMBNAIL_BYTES, mtime_ns, 1)


def has(shelf: "Shelf", view: "View", node: Node) -> bool:
    """Say whether an instance has a node of this kind."""
    if node.kind in (web.METADATA, web.METADATA + 1, web.THUMBNAIL, web.PART10):
        return True
    if node.kind == web.BELOW:
        try:
            card = _card(shelf, view, node.number)
        except NotReady:  # who wants frames alone needs no documents
            return _parts(shelf, node.number).frames.count > 0
        return card is not None and card.frames > 0
    card = _card(shelf, view, node.number)
    if card is None:
        return False
    return {
        web.RENDERED: card.frames > 0 or card.kind in _WHOLE,
        web.PIXELDATA: card.single_stream,
        web.BULKDATA: bool(card.bulk),
    }.get(node.kind, False)


def attributes(shelf: "Shelf", archive: "Archive", view: "View", node: Node) -> Attributes | None:
    """Return a file of an instance; raise NotReady."""
    if node.kind == web.THUMBNAIL:
        return thumbnail(view, node.number)
    size = _size(shelf, archive, view, node)
    if size is None:
        return None
    ino = web.inode(web.INSTANCE, node.number, node.kind, node.argument)
    return Attributes(ino, False, size, view.instance_inode(node.number).mtime_ns, 1) if ino else None


def _size(shelf: "Shelf", archive: "Archive", view: "View", node: Node) -> int | None:
    boundary = archive.settings.boundary
    if node.kind in (web.PICTURE, web.VALUE, web.WHOLE):
        card = _card(shelf, view, node.number)
        return None if card is None else _size_on_card(shelf, node, card)
    parts = _parts(shelf, node.number)
    if node.kind == web.PART10:
        return composed.part10_size(parts, boundary)
    if node.kind == web.PIXELDATA:
        return composed.pixeldata_size(parts)
    if node.kind not in (web.FRAME, web.FRAME_GZ) or not 1 <= node.argument <= parts.frames.count:
        return None
    size = composed.frame_size(parts, node.argument, boundary)
    return size if node.kind == web.FRAME else composed.gzipped_size(size)


def _size_on_card(shelf: "Shelf", node: Node, card: "Card") -> int | None:
    if node.kind == web.PICTURE:
        inside = 1 <= node.argument <= card.frames
        return pictures.rendered_bytes(card.rows, card.columns, card.colour) if inside else None
    if node.kind == web.VALUE:
        if node.argument >= len(card.bulk):
            return None
        value = card.bulk[node.argument]
        return value.end - value.start
    if card.kind == "pdf":
        return next((one.end - one.start for one in card.bulk if one.name == ENCAPSULATED_DOCUMENT), None)
    return composed.pixeldata_size(_parts(shelf, card.ino)) if card.kind == "video" else None


def lookup(shelf: "Shelf", archive: "Archive", view: "View", node: Node, name: bytes) -> Attributes | None:
    """Return a node of one of an instance's directories by its name; raise NotReady."""
    kind, argument = -1, 0
    if node.kind == web.BELOW:
        number, _, alias = name.partition(b".")
        if alias in _ALIASES and (alias or b"." not in name):
            kind, argument = _ALIASES[alias], _frame_number(number)
    elif node.kind == web.RENDERED:
        kind, argument = web.PICTURE, _frame_number(name)
        if not argument:
            card = _card(shelf, view, node.number)
            kind = web.WHOLE if card is not None and _WHOLE.get(card.kind) == name else -1
    elif node.kind == web.BULKDATA:
        card = _card(shelf, view, node.number)
        bulk = () if card is None else card.bulk
        kind, argument = next(
            ((web.VALUE, at) for at, value in enumerate(bulk) if value.name.encode() == name), (-1, 0)
        )
    if kind < 0 or (kind in (web.FRAME, web.FRAME_GZ, web.PICTURE) and not argument):
        return None
    return attributes(shelf, archive, view, Node(web.INSTANCE, node.number, kind, argument))


def _frame_number(name: bytes) -> int:
    """Return a frame's number, 0 where the name is none: it has no leading zeros."""
    if name.isdigit() and len(name) <= 8 and name[:1] != b"0":
        return int(name)
    return 0


def entries(shelf: "Shelf", archive: "Archive", view: "View", node: Node, after: int, named: Named) -> Iterator[Entry]:
    """Return the entries of one of an instance's directories; raise NotReady."""
    if node.kind == web.DIRECTORY:
        names = NAMES[web.INSTANCE, web.DIRECTORY].items()
        found = [
            (name, entry, cookie)
            for cookie, (name, known) in enumerate(names, 1)
            if known.listed and cookie > after and (entry := named(view, node, known.kind)) is not None
        ]
        return iter([entry.entry(name, cookie) for name, entry, cookie in found])
    mtime_ns = view.instance_inode(node.number).mtime_ns
    if node.kind == web.BELOW:
        return _frames(_parts(shelf, node.number), archive.settings.boundary, node.number, mtime_ns, after)
    card = _card(shelf, view, node.number)
    if card is None:
        return iter(())
    if node.kind == web.RENDERED:
        return iter(_pictures(shelf, node.number, card, mtime_ns, after))
    return _values(node.number, card, mtime_ns, after)


def _frames(parts: "Parts", boundary: str, ino: INode, mtime_ns: int, after: int) -> Iterator[Entry]:
    for number in range(after + 1, min(parts.frames.count, web.ARGUMENTS - 1) + 1):
        size = composed.frame_size(parts, number, boundary)
        yield b"%d" % number, web.inode(web.INSTANCE, ino, web.FRAME, number), False, size, mtime_ns, 1, number


def _pictures(shelf: "Shelf", ino: INode, card: "Card", mtime_ns: int, after: int) -> Iterator[Entry]:
    size = pictures.rendered_bytes(card.rows, card.columns, card.colour)
    last = min(card.frames, web.ARGUMENTS - 1)
    whole = _size_on_card(shelf, Node(web.INSTANCE, ino, web.WHOLE, 0), card) if card.kind in _WHOLE else None

    def listed() -> Iterator[Entry]:
        for number in range(after + 1, last + 1):
            yield b"%d" % number, web.inode(web.INSTANCE, ino, web.PICTURE, number), False, size, mtime_ns, 1, number
        if whole is not None and after <= last:
            name, node = _WHOLE[card.kind], web.inode(web.INSTANCE, ino, web.WHOLE)
            yield name, node, False, whole, mtime_ns, 1, last + 1

    return listed()


def _values(ino: INode, card: "Card", mtime_ns: int, after: int) -> Iterator[Entry]:
    for at, value in enumerate(card.bulk[after:], after):
        node = web.inode(web.INSTANCE, ino, web.VALUE, at)
        yield value.name.encode(), node, False, value.end - value.start, mtime_ns, 1, at + 1


def open_ready(shelf: "Shelf", archive: "Archive", node: Node) -> OpenFile | None:
    """Open a file of an instance if nothing has to be waited for; raise NotReady where it has."""
    if node.kind in (web.THUMBNAIL, web.PICTURE):
        return _picture(shelf, archive, node)
    if node.kind == web.FRAME:
        opening = partial(_frame_ready, shelf, archive, node)
        return opening() if shelf.holds(node.number) else LaterFile(opening, partial(open_file, shelf, archive, node))
    return None


def _frame_ready(shelf: "Shelf", archive: "Archive", node: Node) -> OpenFile | None:
    parts = shelf.parts_ready(node.number)
    if parts is None or parts.frames.pieces(node.argument) > composed.MANY:
        return None
    file = composed.frame_file(parts, node.argument, archive.settings.boundary)
    file.prefetch()  # who reads a frame reads all of it
    return file


def open_file(shelf: "Shelf", archive: "Archive", node: Node) -> OpenFile:
    """Open a file of an instance; wait as long as it takes."""
    if node.kind in (web.THUMBNAIL, web.PICTURE):
        return waited(lambda: _picture(shelf, archive, node))
    parts = shelf.parts(node.number)
    boundary = archive.settings.boundary
    if node.kind in (web.FRAME, web.FRAME_GZ):
        frame = composed.frame_file(parts, node.argument, boundary)
        return frame if node.kind == web.FRAME else composed.gzipped_file(frame)
    if node.kind == web.PART10:
        return composed.part10_file(parts, boundary)
    if node.kind == web.PIXELDATA:
        return composed.pixeldata_file(parts)

    def card() -> "Card | None":
        with archive.view() as view:
            return _card(shelf, view, node.number)

    found = waited(card)
    if found is not None and node.kind == web.WHOLE and found.kind == "video":
        return composed.pixeldata_file(parts)
    if found is not None and node.kind == web.WHOLE:
        return composed.bulk_file(parts, next(one for one in found.bulk if one.name == ENCAPSULATED_DOCUMENT))
    if found is not None and node.kind == web.VALUE and node.argument < len(found.bulk):
        return composed.bulk_file(parts, found.bulk[node.argument])
    raise NotFound(f"instance {node.number} has no such file")


def _picture(shelf: "Shelf", archive: "Archive", node: Node) -> OpenFile:
    """Open a picture; raise NotReady."""
    with archive.view() as view:
        card = _card(shelf, view, node.number)
    if node.kind == web.THUMBNAIL:
        frame = 1 if card is None else max(1, (card.frames + 1) // 2)
        job: tuple[int, ...] = (node.number, frame, pictures.THUMBNAIL)
    elif card is None or not 1 <= node.argument <= card.frames:
        raise NotFound(f"instance {node.number} has no such frame")
    else:
        # How long the picture is was told by the card.
        job = (node.number, node.argument, pictures.RENDERED, card.rows, card.columns, int(card.colour))
    found = shelf.picture_ready(job)
    if found is None:
        raise NotReady(lambda: shelf.make_picture(job))
    return found


def _card(shelf: "Shelf", view: "View", ino: INode) -> "Card | None":
    return shelf.series(view, view.instance_inode(ino).series).bundle.cards.of(ino)


def _parts(shelf: "Shelf", ino: INode) -> "Parts":
    parts = shelf.parts_ready(ino)
    if parts is None:
        raise NotReady(lambda: shelf.parts(ino))
    return parts
