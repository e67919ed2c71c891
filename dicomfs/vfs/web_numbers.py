"""The inode numbers of the DICOMweb tree: each says by itself what the node is.

    bits 60-62  family: whose node it is
    bits 28-59  the catalog's number of the study, series or instance
    bits 24-27  kind: which of its directories and files
    bits  0-23  argument: the number of a frame or bulk value, or the version of a document

A document that changes gets another number, as a file does that is written anew and renamed: who has the old one
open goes on reading the old one.
"""

from typing import Final, NamedTuple
from zlib import crc32

from dicomfs.archive.tables import LAST_STANDING
from dicomfs.vfs.node import INode

STUDY, SERIES, INSTANCE, ALL = 1, 2, 3, 7
BULK, BRANCH, TWIG = 4, 5, 6
"""Families of a study's `bulkdata/`, by hash: the files, its directories, and theirs."""

# Kinds within a family. Of documents, even ones are gzip members, and odd ones the same plain.
DIRECTORY, BELOW, BULKDATA = 0, 1, 2
DEDUPLICATED, DEDUPLICATED_INSTANCES = 3, 4  # of a study
POSTER = 5  # of a study or series: the thumbnail of one of its instances
RENDERED, FRAME, FRAME_GZ, PICTURE, VALUE, THUMBNAIL, PIXELDATA, PART10, WHOLE = range(3, 12)  # of an instance
HASHED, INDEX, BELOW_INDEX, METADATA, LIST = range(6, 16, 2)
"""Of documents. HASHED in the family ALL are lists that a study had before: there is no kind left in its own."""

_FAMILY_SHIFT: Final = 60
_NUMBER_SHIFT: Final = 28
_KIND_SHIFT: Final = 24
ARGUMENTS: Final = 1 << _KIND_SHIFT
_NUMBERS: Final = 1 << 32
_STANDING: Final = 1 << 31
"""Numbers from here on stand for those from LAST_STANDING on, which lie too far up."""


class Node(NamedTuple):
    """What an inode number says."""

    family: int
    number: int
    kind: int
    argument: int

    @property
    def code(self) -> int:
        """The lowest 28 bits, of families without kinds."""
        return self.kind << _KIND_SHIFT | self.argument


def inode(family: int, number: int, kind: int = DIRECTORY, argument: int = 0) -> INode:
    """Return the inode number of a node; 0 where it can have none, because there are too many."""
    if number >= LAST_STANDING:
        number += _STANDING - LAST_STANDING
    elif number >= _STANDING:
        return 0
    if number >= _NUMBERS or argument >= ARGUMENTS:
        return 0
    return family << _FAMILY_SHIFT | number << _NUMBER_SHIFT | kind << _KIND_SHIFT | argument


def coded(family: int, number: int, code: int) -> INode:
    """Return the inode number of a node of a family without kinds."""
    return inode(family, number, code >> _KIND_SHIFT, code % ARGUMENTS)


def node(ino: INode) -> Node:
    """Return what an inode number says."""
    number = ino >> _NUMBER_SHIFT & _NUMBERS - 1
    if number >= _STANDING:
        number += LAST_STANDING - _STANDING
    return Node(ino >> _FAMILY_SHIFT, number, ino >> _KIND_SHIFT & 15, ino % ARGUMENTS)


def is_web(ino: INode) -> bool:
    """Say whether a number is one of these."""
    return ino >> _FAMILY_SHIFT > 0


def version(stamp: str) -> int:
    """Return the argument of a document that was made when the catalog had this stamp for it."""
    return crc32(stamp.encode()) % ARGUMENTS
