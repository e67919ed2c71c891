"""What an edited instance keeps of its earlier values: the Original Attributes Sequence (PS3.3 C.12.1.1.9).

(0400,0561)  items of earlier edits …, and one more:
               (0400,0550)  one item: the changed attributes as they were, with the owners of private ones
               (0400,0562) when  (0400,0563) by which system  (0400,0564) empty: nobody sent it  (0400,0565) why
"""

from collections.abc import Iterable

from dicomfs.dicom.edit_changes import Changes
from dicomfs.dicom.edit_places import Place
from dicomfs.dicom.edit_settings import ORIGINAL_ATTRIBUTES_SEQUENCE
from dicomfs.dicom.encoding import LONG_VRS, SEQUENCE_DELIMITER, UNDEFINED, Data, Encoding
from dicomfs.dicom.pieces import Form, Piece, Range, joined
from dicomfs.dicom.refusal import Refused
from dicomfs.dicom.stride import LARGE

__all__ = ["ORIGINAL_ATTRIBUTES_SEQUENCE", "earlier", "is_closed", "item"]

MODIFIED_ATTRIBUTES_SEQUENCE = 0x04000550
_SHORT = 0x10000


def item(form: Form, changes: Changes, modified: Iterable[list[Piece]]) -> list[Piece]:
    """Return the content of the item for one edit; `modified` are the attributes as they were, in ascending order."""
    before = joined(piece for pieces in modified for piece in pieces)
    return [
        *form.sequence(MODIFIED_ATTRIBUTES_SEQUENCE, [before]),
        form.element(0x04000562, "DT", changes.date_time),
        form.element(0x04000563, "LO", changes.system.encode("ascii")),
        form.element(0x04000564, "LO", b""),
        form.element(0x04000565, "CS", changes.reason.encode("ascii")),
    ]


def earlier(form: Form, data: Data, place: Place, encoding: Encoding, value: bytes) -> list[Piece]:
    """Return an element as it was, its bytes if `form` writes the `encoding` of the data set.

    `value` is what is kept of a value that is neither a sequence nor large.
    """
    whole = place.end - place.start
    if place.inside is not None or place.items:
        if form.encoding is not encoding or not is_closed(data, place, encoding):
            raise Refused("a sequence that is to be changed cannot be kept as an earlier value")
        return [Range(place.start, place.end)]
    vr = place.vr if place.vr in encoding.vr_names.values() else "UN"
    if whole > LARGE:
        header = bytes(data[place.start : place.value])
        if form.encoding is not encoding or not place.width:
            header = form.header(place.tag, vr, place.end - place.value)
        return [header, Range(place.value, place.end)]
    if len(value) >= _SHORT and vr not in LONG_VRS:
        vr = "UN"  # PS3.5 6.2.2
    return [form.header(place.tag, vr, len(value)), value]


def is_closed(data: Data, place: Place, encoding: Encoding) -> bool:
    """Say whether what holds items ends where its length or its delimiter says."""
    size = encoding.length32(data, place.value - 4)[0]
    if size != UNDEFINED:
        return place.value + size == place.end
    raw, none = encoding.item(data, place.end - 8)
    return encoding.turn(raw) == SEQUENCE_DELIMITER and none == 0
