"""The frames of an instance of a static DICOMweb tree: which files they are, and what is in them.

frames/<n>  frames/<n>.mht  frames/<n>.mht.gz  frames/<n>.gz     multipart, with the transfer syntax in the header
frames/<n>.jls .jpeg .jll .jp2 .jhc .jxl                         v1, --single-part-image: the codestream alone
rendered/index.mp4 .mpg .h265                                    v1: a video
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from dicomfs.archive.static_files import LONGEST_FRAME, Tree, Unusable

_NAME: Final = re.compile(r"([1-9][0-9]{0,6})(?:\.mht|\.mht\.gz|\.gz|\.(jls|jpeg|jll|jp2|jhc|jxl))?").fullmatch
_SINGLE: Final = {
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jll": "1.2.840.10008.1.2.4.70",
    "jls": "1.2.840.10008.1.2.4.80",
    "jp2": "1.2.840.10008.1.2.4.90",
    "jxl": "1.2.840.10008.1.2.4.140",
    "jhc": "1.2.840.10008.1.2.4.202",
}
"""What the first writer gives each of these endings to, and no other transfer syntax."""
_VIDEO: Final = ("mp4", "mpg", "h265")


class Frame(NamedTuple):
    """A file that holds a frame; `syntax` where its name tells it."""

    path: str
    syntax: str


def frames(tree: Tree, instance: str) -> list[Frame]:
    """Return the files of an instance's frames in order; raise Unusable where they are not 1, 2, 3 and so on."""
    found: dict[int, Frame] = {}
    for entry in tree.entries(f"{instance}/frames"):
        match = _NAME(entry.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise Unusable(f"it has two files of frame {number:,}, of which one is another image's")
        found[number] = Frame(f"{instance}/frames/{entry.name}", _SINGLE.get(match[2] or "", ""))
    missing = next((number for number in range(1, len(found) + 1) if number not in found), 0)
    if missing:
        raise Unusable(f"frame {missing:,} is missing")
    return [found[number] for number in range(1, len(found) + 1)]


def video(tree: Tree, instance: str) -> tuple[Frame | None, str]:
    """Return the video that lies beside the frames, and its ending."""
    names = {entry.name for entry in tree.entries(f"{instance}/rendered")}
    for ending in _VIDEO:
        if f"index.{ending}" in names:
            return Frame(f"{instance}/rendered/index.{ending}", ""), ending
    return None, ""


class Content(NamedTuple):
    """What is in a frame."""

    syntax: str
    pieces: Iterator[bytes]


def content(tree: Tree, frame: Frame) -> Content:
    """Open a frame; what is longer than a fragment can be is refused as it is read."""
    payload = tree.payload(frame.path)
    return Content(frame.syntax or payload.syntax, _fitting(payload.pieces, frame.path))


def _fitting(pieces: Iterator[bytes], path: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > LONGEST_FRAME:
            raise Unusable(f"{path} is longer than a fragment can be")
        yield piece
