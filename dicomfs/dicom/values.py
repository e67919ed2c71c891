"""Any attribute of a file, read from its header when somebody asks for it."""

from collections.abc import Sequence
from typing import Final

from dicomfs.dicom import part10
from dicomfs.dicom.attributes import SPECIFIC_CHARACTER_SET
from dicomfs.dicom.charset import character_set
from dicomfs.dicom.dictionary import dictionary_vr, keyword_tag
from dicomfs.dicom.encoding import Data, Encoding
from dicomfs.dicom.headers import recognised
from dicomfs.dicom.part10 import Part10
from dicomfs.dicom.representation import text
from dicomfs.dicom.walk import Walk

__all__ = ["keyword_tag", "text_of", "texts_of"]

PIXEL_REPRESENTATION: Final = 0x00280103


def text_of(data: Data, keyword_or_tag: str) -> str | None:
    """Return an attribute of the outermost level as text, its values joined by backslashes.

    `data` is a file or its beginning. None when the attribute is absent, or is not readable as text: a
    sequence, pixel data, other binary values. Linear in the number of elements.
    """
    return texts_of(data, (keyword_or_tag,))[0]


def texts_of(data: Data, keywords_or_tags: Sequence[str]) -> list[str | None]:
    """Return the same of several attributes, in their order, in one walk."""
    tags = [keyword_tag(one) for one in keywords_or_tags]
    file = part10.locate(data)
    if file is None:
        return [None] * len(tags)
    found = {tag: _of_meta(file.meta, tag) for tag in tags if tag >> 16 == part10.META_GROUP}
    others = [tag for tag in tags if tag not in found]
    if others:
        found |= _of_file(data, file, others)
    return [found[tag] for tag in tags]


def _of_meta(meta: dict[int, bytes], tag: int) -> str | None:
    if tag not in meta:
        return None
    return text(_single(dictionary_vr(tag), signed=False), meta[tag], character_set(b""))


def _of_file(data: Data, file: Part10, tags: list[int]) -> dict[int, str | None]:
    if not file.deflated:
        return _of_data_set(data, file.start, file.encoding, tags)
    inflated = part10.inflate(data, file.start)
    if inflated is None:
        return dict.fromkeys(tags)
    encoding = recognised(inflated.data, 0, len(inflated.data), file.encoding)
    return _of_data_set(inflated.data, 0, encoding, tags)


def _of_data_set(data: Data, start: int, encoding: Encoding, tags: list[int]) -> dict[int, str | None]:
    creators = {tag: tag & 0xFFFF0000 | tag >> 8 & 0xFF for tag in tags}
    helping = frozenset((*creators.values(), SPECIFIC_CHARACTER_SET, PIXEL_REPRESENTATION))
    walk = Walk(data, start, len(data), encoding, helping.union(tags))
    values = {tag: bytes(data[begin:end]) for tag, (_, begin, end) in walk.found.items() if tag in helping}
    charset = character_set(values.get(SPECIFIC_CHARACTER_SET, b""))
    shown: dict[int, str | None] = dict.fromkeys(tags)
    for tag in walk.found.keys() & creators.keys():
        number, value_start, value_end = walk.found[tag]
        vr = encoding.vr_names.get(number, "")
        if vr in ("", "UN"):
            creator = charset.decode(values.get(creators[tag], b"")).rstrip(" \0")
            sign = values.get(PIXEL_REPRESENTATION, b"")
            vr = _single(dictionary_vr(tag, creator), signed=any(sign))
        shown[tag] = text(vr, bytes(data[value_start:value_end]), charset, big=encoding.big)
    return shown


def _single(vr: str, *, signed: bool) -> str:
    # The dictionary leaves some open: 'US or SS' follows Pixel Representation, what may be OW is binary.
    if " or " not in vr:
        return vr
    return "OW" if "OW" in vr or "OB" in vr else "SS" if signed else "US"
