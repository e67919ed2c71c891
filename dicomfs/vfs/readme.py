"""README.txt of the drive: ten plain lines for whoever opens it."""

from collections.abc import Sequence
from typing import Final

NAME: Final = b"README.txt"


def text(views: Sequence[tuple[str, str]], *, others: bool) -> bytes:
    """Return the page; `views` are the directories of the root, each with its one line.

    `others` says that there may be more: the page is the same whatever layouts come and go.
    """
    width = max((len(name) for name, _ in views), default=0) + 1
    lines = [
        "This drive shows a DICOM archive. It is made by dicomfs.",
        "",
        *(f"{name + '/':{width}}  {line}" for name, line in views),
        *(["Every other directory is a layout: the same files under other names."] if others else []),
        "",
        "Every DICOM file reads back bit for bit as it was imported. Copy, search, open or",
        "share the files with any program: cp, rsync, tar, a viewer, a network share.",
        "The drive is read-only. New imports appear by themselves, within a second.",
        "",
        "To add files: dicomfs import PATH... --archive ARCHIVE. To find some: dicomfs query --help",
    ]
    return "\n".join(lines).encode() + b"\n"
