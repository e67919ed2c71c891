"""The inode numbers of what OMI-DB has below data/: each says by itself what the node is.

bits 56-63  COMPUTED_OMIDB
bits 24-55  the catalog's number of what it mirrors: a layout's root, a client's or study's directory, an image
bits 21-23  kind
bits  0-20  version of a document: one that changes is another file, as one is that was written anew and renamed
"""

from typing import Final, NamedTuple

from dicomfs.archive.tables import LAST_STANDING
from dicomfs.vfs.node import COMPUTED_OMIDB, COMPUTED_SHIFT, INode

NAME: Final = b"data"
DATA, CLIENT, STUDY, IMAGEDB, NBSS, HEADER = range(6)

_NUMBER_SHIFT: Final = 24
_KIND_SHIFT: Final = 21
_NUMBERS: Final = 1 << 32
_STANDING: Final = 1 << 31
"""Numbers from here on stand for those from LAST_STANDING on, which lie too far up."""
VERSIONS: Final = 1 << _KIND_SHIFT


class Node(NamedTuple):
    """What an inode number says."""

    kind: int
    number: int
    version: int


def inode(kind: int, number: int, version: int = 0) -> INode:
    """Return the inode number of a node; 0 where it can have none, because there are too many."""
    if number >= LAST_STANDING:
        number += _STANDING - LAST_STANDING
    elif number >= _STANDING:
        return 0
    if number >= _NUMBERS:
        return 0
    return COMPUTED_OMIDB << COMPUTED_SHIFT | number << _NUMBER_SHIFT | kind << _KIND_SHIFT | version % VERSIONS


def node(ino: INode) -> Node:
    """Return what an inode number says."""
    number = ino >> _NUMBER_SHIFT & _NUMBERS - 1
    if number >= _STANDING:
        number += LAST_STANDING - _STANDING
    return Node(ino >> _KIND_SHIFT & 7, number, ino % VERSIONS)
