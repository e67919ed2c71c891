"""Any attribute of a file, read from its header when somebody asks for it."""

from typing import Final

from dicomfs.dicom import part10
from dicomfs.dicom.attributes import SPECIFIC_CHARACTER_SET
from dicomfs.dicom.charset import character_set
from dicomfs.dicom.dictionary import dictionary_vr, keyword_tag
from dicomfs.dicom.encoding import Data, Encoding
from dicomfs.dicom.headers import recognised
from dicomfs.dicom.representation import text
from dicomfs.dicom.walk import Walk

__all__ = ["keyword_tag", "text_of"]

PIXEL_REPRESENTATION: Final = 0x00280103


def text_of(data: Data, keyword_or_tag: str) -> str | None:
    """Return an attribute of the outermost level as text, its values joined by backslashes.

    `data` is a file or its beginning. None when the attribute is absent, or is not readable as text: a
    sequence, pixel data, other binary values. Linear in the number of elements.
    """
    tag = keyword_tag(keyword_or_tag)
    file = part10.locate(data)
    if file is None:
        return None
    if tag >> 16 == part10.META_GROUP:
        return _of_meta(file.meta, tag)
    if not file.deflated:
        return _of_data_set(data, file.start, file.encoding, tag)
    inflated = part10.inflate(data, file.start)
    if inflated is None:
        return None
    return _of_data_set(inflated.data, 0, recognised(inflated.data, 0, len(inflated.data), file.encoding), tag)


def _of_meta(meta: dict[int, bytes], tag: int) -> str | None:
    if tag not in meta:
        return None
    return text(_single(dictionary_vr(tag), signed=False), meta[tag], character_set(b""))


def _of_data_set(data: Data, start: int, encoding: Encoding, tag: int) -> str | None:
    creator_tag = tag & 0xFFFF0000 | tag >> 8 & 0xFF
    wanted = frozenset((tag, creator_tag, SPECIFIC_CHARACTER_SET, PIXEL_REPRESENTATION))
    walk = Walk(data, start, len(data), encoding, wanted)
    if tag not in walk.found:
        return None
    number, value_start, value_end = walk.found[tag]
    values = {found: bytes(data[begin:end]) for found, (_, begin, end) in walk.found.items() if found != tag}
    charset = character_set(values.get(SPECIFIC_CHARACTER_SET, b""))
    vr = encoding.vr_names.get(number, "")
    big = encoding.big
    if vr in ("", "UN"):
        creator = charset.decode(values.get(creator_tag, b"")).rstrip(" \0")
        sign = values.get(PIXEL_REPRESENTATION, b"")
        vr = _single(dictionary_vr(tag, creator), signed=any(sign))
    return text(vr, bytes(data[value_start:value_end]), charset, big=big)


def _single(vr: str, *, signed: bool) -> str:
    # The dictionary leaves some open: 'US or SS' follows Pixel Representation, what may be OW is binary.
    if " or " not in vr:
        return vr
    return "OW" if "OW" in vr or "OB" in vr else "SS" if signed else "US"
