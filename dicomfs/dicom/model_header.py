"""The JSON of a file's header: the DICOM JSON model with group 2 before it, and without what is in bulk.

Readers of headers ask for the transfer syntax under its own tag, which the JSON model of PS3.18 leaves out. It is
ASCII, so that who opens it with a wrong encoding reads it right.
"""

import re
from typing import Final

from dicomfs.dicom.charset import character_set
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.model import model
from dicomfs.dicom.model_values import string, value_json
from dicomfs.dicom.model_vr import usual_vr
from dicomfs.dicom.part10 import TRANSFER_SYNTAX_UID, Part10

_BULK_BEGINS: Final = re.compile(r',?"[0-9A-F]{8}":\{"vr":"[A-Z]{2}","BulkDataURI":"\Z')
_BULK_ENDS: Final = '"}'
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def header_json(data: Data, part10: Part10) -> str:
    """Return the header of the instance in `data` as one JSON object; never raises, as `model` does not."""
    first, *rest = model(data, part10, "").pieces
    parts = [first]
    for piece in rest:
        # Each cut is inside the URI of an attribute, whose name holds no quote: the attribute goes as a whole.
        parts[-1] = _BULK_BEGINS.sub("", parts[-1])
        if not parts[-1]:
            parts.pop()
        after = piece[piece.index(_BULK_ENDS) + len(_BULK_ENDS) :]
        parts.append(after[1:] if after.startswith(",") and parts[-1].endswith("{") else after)
    members = ",".join(_meta(part10))
    text = "".join(parts)
    text = f"{{{members}{',' if members and text != '{}' else ''}{text[1:]}"
    return text if text.isascii() else _NOT_ASCII.sub(_escaped, text)


def _meta(part10: Part10) -> list[str]:
    """Return the elements of group 2 that are known, but for its length."""
    charset = character_set(b"")
    texts = {
        tag: value_json(usual_vr(tag, lambda _: b""), value, charset, False)
        for tag, value in part10.meta.items()
        if tag & 0xFFFF
    }
    if part10.transfer_syntax and TRANSFER_SYNTAX_UID not in texts:
        texts[TRANSFER_SYNTAX_UID] = f'{{"vr":"UI","Value":[{string(part10.transfer_syntax)}]}}'
    return [f'"{tag:08X}":{text}' for tag, text in sorted(texts.items()) if text]


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"
