"""What compressed streams say beside pixels: comments and application data at the head of JPEG and JPEG 2000.

    JPEG, JPEG-LS      FFD8 | FFxx length … | FFDA …                        ISO 10918-1 B.1
    JPEG 2000          FF4F | FFxx length … | FF90 … FF93 …                 ISO 15444-1 A
    JP2, JPEG XL       length type … | length type …                        ISO 15444-1 I, 18181-2

Only heads are looked at, and what follows the end. Text within the coded data is not found.
"""

import re
from collections.abc import Callable
from typing import Final

HEAD: Final = 1 << 12
LONGEST_HEAD: Final = 1 << 19
_TAIL: Final = 1 << 16
_CLOSE: Final = 1 << 12

_SOI, _SOC = b"\xff\xd8", b"\xff\x4f"
_END: Final = b"\xff\xd9"
_JPEG_XL: Final = b"\xff\x0a"
_BOXES: Final = (b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")
_SOS, _SOD, _COM, _COM_2000 = 0xDA, 0x93, 0xFE, 0x64
_APP0, _APP15, _APP2, _APP14 = 0xE0, 0xEF, 0xE2, 0xEE
_NO_TEXT_BOXES: Final = frozenset(
    (b"jP  ", b"JXL ", b"ftyp", b"jp2h", b"jp2c", b"jxlc", b"jxlp", b"jxll", b"jxli", b"rreq")
)
_STREAMS: Final = frozenset((b"jp2c", b"jxlc"))
_PRINTABLE: Final = re.compile(rb"[\x20-\x7e\xa0-\xff]{4,}")
_TEXT: Final = re.compile(rb"[\x20-\x7e]{24,}")
_LETTERS: Final = 8
"""A run as long as that, and of so many different characters, is in coded data by no chance."""
_OF_ENCODERS: Final = re.compile(
    rb"(?:CREATOR: gd-jpeg v[0-9.]+ \(using IJG JPEG v[0-9]+\)(?:, (?:default )?quality(?: = [0-9]+)?)?"
    rb"|LEAD Technologies(?:,)? Inc\. V[0-9.]+"
    rb"|Lavc[0-9.]*"
    rb"|(?:Created by |Creator: )?(?:GDCM/)?(?:OpenJPEG|Kakadu|JasPer|Aware|Grok)"
    rb"(?:[ -]{0,8}(?:JPEG ?2000|J2K|library|codec|encoder|Inc|[Vv]ersion)){0,4}[ -]?v?[0-9.]{0,12}"
    rb"|Kdu-Layer-Info: log_2\{[^}]{0,60}\}[0-9eE.,+ \n-]*"
    rb"|Handmade Software, Inc\. Image Alchemy v[0-9.]+"
    rb"|(?:(?:Independent|Lossless) )?JPEG(?:-LS)? (?:codec|encoder|library)(?: [Vv]?(?:ersion )?[0-9.]{1,10})?)[\r\n]*"
)

Read = Callable[[int, int], bytes | memoryview]


def hidden_text(head: bytes, read: Read, start: int, end: int) -> bool:
    """Say whether a stream [start, end) begins with comments or metadata that are not known to be harmless.

    `head` is its first bytes, up to HEAD. What begins with none of the known marks continues a stream, or is none:
    nothing is found there.
    """
    while True:
        try:
            return _looked_at(head, end - start)
        except IndexError:  # the head goes on
            if len(head) >= min(end - start, LONGEST_HEAD):
                return True
            head = bytes(read(start, min(end, start + len(head) * 8)))


def has_ended(read: Read, start: int, end: int, *, last: bool) -> bool | None:
    """Say whether a JPEG or JPEG 2000 stream ends with this fragment; None if anything but padding follows its end.

    The end is looked for near the fragment's end, and if it is known to be the `last` of its stream, further off. The
    first one counts: in coded data there is none.
    """
    close = bytes(read(max(start, end - _CLOSE), end))
    at = close.find(_END)
    if at < 0 and last:
        close = bytes(read(max(start, end - _TAIL), end))
        at = close.find(_END)
    if at < 0:
        return None if last else False
    return None if close[at + 2 :].strip(b"\0\xff ") else True


def is_head(head: bytes) -> bool:
    """Say whether a stream begins here."""
    return head.startswith((_SOI, _SOC, _JPEG_XL, *_BOXES))


def ends_in_text(read: Read, start: int, end: int) -> bool:
    """Say whether the end of coded data that has no mark of its end is text."""
    return any(len(set(run)) >= _LETTERS for run in _TEXT.findall(bytes(read(max(start, end - _CLOSE), end))))


def _looked_at(head: bytes, size: int) -> bool:
    if head.startswith(_SOI):
        return _in_jpeg(head)
    if head.startswith(_SOC):
        return _in_codestream(head, 2)
    return _in_boxes(head, size) if head.startswith(_BOXES) else False


def _in_jpeg(head: bytes) -> bool:
    position = 2
    while True:
        if head[position] != 0xFF:
            return True
        marker = head[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        if marker in (0x01, *range(0xD0, 0xD8)):
            position += 2
            continue
        if marker == _SOS:
            return False
        content, position = _segment(head, position)
        if marker == _COM and _says(content):
            return True
        if _APP0 <= marker <= _APP15 and not _is_harmless(marker, content):
            return True


def _segment(head: bytes, position: int) -> tuple[bytes, int]:
    after = position + 2 + (head[position + 2] << 8 | head[position + 3])
    if after > len(head):
        raise IndexError
    return head[position + 4 : after], after


def _says(content: bytes) -> bool:
    text = content.strip(b"\0 ")
    return bool(text) and not _OF_ENCODERS.fullmatch(text)


def _is_harmless(marker: int, content: bytes) -> bool:
    if marker == _APP0 and content.startswith(b"JFIF\0"):
        return len(content) <= 14 and not _PRINTABLE.search(content[5:])  # without a thumbnail
    if marker == _APP0 and content.startswith(b"LJIF\0"):  # LEAD's own, numbers only
        return len(content) <= 14 and not _PRINTABLE.search(content[5:])
    if marker == _APP14 and content.startswith(b"Adobe"):
        return len(content) <= 12 and not _PRINTABLE.search(content[5:])
    if marker == _APP2 and content.startswith(b"ICC_PROFILE\0"):
        return content[12:13] != b"\1" or content[50:54] in (b"acsp", b"\0\0\0\0")
    return not _PRINTABLE.search(content) and not _PRINTABLE.search(content.replace(b"\0", b""))


def _in_codestream(head: bytes, position: int) -> bool:
    while True:
        if head[position] != 0xFF:
            return True
        marker = head[position + 1]
        if marker == _SOD:
            return False
        content, position = _segment(head, position)
        if marker == _COM_2000 and _says(content[2:]):
            return True


def _in_boxes(head: bytes, size: int) -> bool:
    position = 0
    while position < len(head):
        length = int.from_bytes(head[position : position + 4], "big")
        kind = head[position + 4 : position + 8]
        if len(kind) < 4:
            raise IndexError
        if kind not in _NO_TEXT_BOXES:
            return True
        begin = position + (16 if length == 1 else 8)
        if kind in _STREAMS:
            if length and position + length < size - 1:  # more boxes follow, which nobody looks at
                return True
            return _in_codestream(head, begin + 2) if head[begin : begin + 2] == _SOC else False
        if length < 8:
            return True
        position += length
    raise IndexError
