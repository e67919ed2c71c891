"""An instance with other values: one file's bytes to the pieces of another, in which all else is exactly the same.

    meta information | element | element | sequence { item { element } } | pixel data | what follows
          ^ patch        ^ patch                                ^ patch

An edit is a list of patches: ranges that are replaced, everything between is taken over. Lengths of what encloses a
patch are patches too. Pure: the same file and changes give the same bytes for ever, in any archive. What cannot be done
without a guess is refused. Linear in the length of the header.
"""

from collections.abc import Callable
from struct import pack
from typing import Final

from dicomfs.dicom import part10 as part10s
from dicomfs.dicom.edit_changes import Changes
from dicomfs.dicom.edit_elements import Editing
from dicomfs.dicom.edit_patches import Patches
from dicomfs.dicom.edit_places import Places
from dicomfs.dicom.edit_search import Sought, affected
from dicomfs.dicom.encoding import EXPLICIT_LITTLE, Data
from dicomfs.dicom.headers import recognised
from dicomfs.dicom.part10 import DEFLATED, INFLATED_AT_MOST, Part10
from dicomfs.dicom.pieces import Form, Piece, Range, joined
from dicomfs.dicom.refusal import Refused

__all__ = ["Changes", "Range", "Refused", "Sought", "affected", "edit"]

Read = Callable[[int, int], "bytes | memoryview"]

_MEDIA_STORAGE_SOP_INSTANCE_UID: Final = 0x00020003
_GROUP_LENGTH: Final = 0x00020000
_STORED: Final = 0xFFFF


def edit(data: Data, part10: Part10, read: Read, changes: Changes) -> list[Piece] | None:
    """Return the pieces of the edited file: its own bytes, and ranges of `data` taken over; None if nothing changes.

    `data` may have zeros within bulk, which `read` returns. Where it is inflated (its transfer syntax is one of
    part10.DEFLATED, but it is not), the result is deflated again, in blocks that are stored: what compressors make
    differs from one to the next. Raise Refused where the changes cannot be made, Damaged as `read` does.
    """
    if part10.deflated:
        inflated = bytes(part10s.inflated(bytes(read(0, len(data))), part10.start))
        found = part10s.locate(inflated)
        if found is None or found.deflated:
            raise Refused("it is damaged: it cannot be inflated")
        return edit(inflated, found, lambda start, end: inflated[start:end], changes)
    deflates = part10.transfer_syntax in DEFLATED
    if part10.fault or (deflates and len(data) - part10.start >= INFLATED_AT_MOST):
        raise Refused("it is damaged, or more than can be edited: it cannot be read to its end")
    places = Places(data, part10.start, len(data), part10.encoding)
    if not places.whole:
        raise Refused("it is damaged: not all of its elements can be read")
    patches = Patches(len(data))
    uid = Editing(data, read, places, changes).patch(patches)
    if not patches:
        return None
    if uid is not None:
        _meta_information(data, part10.start, uid, patches)
    if not deflates:
        return patches.pieces(0, len(data))
    data_set = b"".join(
        piece if isinstance(piece, bytes) else bytes(read(piece.start, piece.end))
        for piece in patches.pieces(part10.start, len(data))
    )
    return joined([*patches.pieces(0, part10.start), _deflated(data_set)])


def _meta_information(data: Data, end: int, uid: bytes, patches: Patches) -> None:
    """Have the meta information say the new SOP Instance UID, if it says one (PS3.10 7.1)."""
    start = part10s.meta_start(data)
    places = Places(data, start, end, recognised(data, start, len(data), EXPLICIT_LITTLE))
    form = Form(places.encoding)
    delta = 0
    for place in places.outermost:
        if place.tag == _MEDIA_STORAGE_SOP_INSTANCE_UID:
            element = form.element(place.tag, "UI", uid)
            patches.replace(place.start, place.end, (element,), None)
            delta += len(element) - (place.end - place.start)
    for place in places.outermost:
        if place.tag == _GROUP_LENGTH and place.end - place.value == 4:
            size = pack(">I" if places.encoding.big else "<I", end - place.end + delta)
            if size != bytes(data[place.value : place.end]):
                patches.replace(place.value, place.end, (size,), None)


def _deflated(data_set: bytes) -> bytes:
    """Return a data set in a deflate stream (PS3.5 A.5, RFC 1951) of blocks that are stored, of even length."""
    blocks: list[bytes] = []
    for at in range(0, len(data_set), _STORED):
        block = data_set[at : at + _STORED]
        blocks += pack("<BHH", at + _STORED >= len(data_set), len(block), len(block) ^ 0xFFFF), block
    stream = b"".join(blocks)
    return stream + b"\0" * (len(stream) & 1)
