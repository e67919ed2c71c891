"""What a provider of nodes tells of each: the records and the protocol that mount and export rely on.

Inode numbers are stable for ever and say whose node it is:

    1                   the root of the drive
    2 … 1023            fixed nodes: roots of views, README.txt
    1024 … 2**40 - 1    directories and instances of the catalog, claimed at commit
    2**56 * n + …       computed nodes of the provider with number n, up to 15
    2**60 * n + …       nodes of the DICOMweb tree (web_numbers.py)
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

from dicomfs.errors import NotFound

ROOT: Final = 1
PATIENTS: Final = 2
DICOMWEB: Final = 3
DICOMWEB_STUDIES: Final = 4
PROJECTS: Final = 5
README: Final = 16
QUARANTINE: Final = 17

FIRST_CLAIMED: Final = 1024
LAST_CLAIMED: Final = (1 << 40) - 1
COMPUTED_SHIFT: Final = 56
COMPUTED_QUARANTINE: Final = 1
COMPUTED_INDEX: Final = 2
COMPUTED_PROJECTS: Final = 3
COMPUTED_OMIDB: Final = 4

INode: TypeAlias = int


class Attributes(NamedTuple):
    """What `stat` tells of a node; mode and owner are the mount's business."""

    ino: INode
    is_directory: bool
    size: int
    mtime_ns: int
    nlink: int
    private: bool = False
    """For its owner's eyes only, whoever else may look into the drive."""

    def entry(self, name: bytes, cookie: int) -> "Entry":
        """Return the node as an entry of a directory, which does not say whether it is private."""
        return name, self.ino, self.is_directory, self.size, self.mtime_ns, self.nlink, cookie


Entry: TypeAlias = tuple[bytes, INode, bool, int, int, int, int]
"""name, ino, is_directory, size, mtime_ns, nlink, cookie: a plain tuple, made a million times in a walk."""


class OpenFile(Protocol):
    """A file open for reading; its bytes never change. `read` may be called by several threads."""

    @property
    def size(self) -> int:
        """The length of the whole file."""

    def read(self, offset: int, size: int, /) -> bytes | memoryview:
        """Return up to `size` bytes, fewer only at the end; wait as long as it takes. Raise Damaged."""

    def read_ready(self, offset: int, size: int, /) -> bytes | memoryview | None:
        """Return the same if nothing has to be waited for, else None."""

    def coming(self, offset: int, size: int, /) -> Future[memoryview] | None:
        """Return what is being made already and will make `read_ready` answer, if anything is."""

    def prefetch(self) -> None:
        """Begin to make what a reader of the whole file asks for first, if making it takes time."""

    def close(self) -> None:
        """Give back what the file holds."""


class Changes(NamedTuple):
    """What became different in a tree."""

    directories: AbstractSet[INode]
    """Directories whose attributes or entries are new."""
    removed: Sequence[tuple[INode, bytes]]
    """Names that are gone, or that mean another node now, with their directories."""
    complete: bool
    """False: more may be different than is told here."""


NOTHING: Final = Changes(frozenset(), (), complete=True)


class NotReady(Exception):
    """Something has to be made before this can be answered: have `make` called by a thread that may wait, ask again."""

    def __init__(self, make: Callable[[], object]) -> None:
        super().__init__("what was asked for is not made yet")
        self.make = make


class Stale(NotFound):
    """A document was made anew: its name leads to another node now."""


T = TypeVar("T")
PATIENCE: Final = 16
"""How often something may be missing for one answer: a directory has a few documents."""


def waited(ask: Callable[[], T]) -> T:
    """Return the answer of a provider, with all made that it needs: for those who may wait."""
    for _ in range(PATIENCE):
        try:
            return ask()
        except NotReady as missing:
            missing.make()
    return ask()


class Provider(Protocol):
    """Some of the nodes of a tree. Synchronous; called by one thread, but `open` and `xattr` by any.

    `attributes`, `lookup`, `entries` and `open_ready` may raise NotReady, `entries` before it yields anything.
    """

    def attributes(self, ino: INode) -> Attributes | None:
        """Return the attributes of a node, None where there is none."""

    def lookup(self, parent: INode, name: bytes) -> Attributes | None:
        """Return the node of exactly this name in a directory."""

    def entries(self, ino: INode, after: INode) -> Iterator[Entry]:
        """Yield a directory's entries in the order of their cookies, from the first past `after`."""

    def parent(self, ino: INode) -> INode | None:
        """Return the directory of a node; of a view's root, the root of the drive."""

    def open(self, ino: INode) -> OpenFile:
        """Open a file; wait as long as it takes. Raise NotFound where there is none, or Damaged."""

    def open_ready(self, ino: INode) -> OpenFile | None:
        """Return the same if nothing has to be waited for, else None."""

    def xattr_names(self, ino: INode) -> list[bytes]:
        """Return the names of the extended attributes that are worth copying."""

    def xattr(self, ino: INode, name: bytes) -> bytes | None:
        """Return an extended attribute, listed or not; None where the node has none of that name."""

    def changes(self) -> Changes:
        """Return what became different since the last call."""


class NoXattrs:
    """A provider whose nodes have no extended attributes."""

    def xattr_names(self, _ino: INode, /) -> list[bytes]:
        """List none."""
        return []

    def xattr(self, _ino: INode, _name: bytes, /) -> bytes | None:
        """Have none."""
        return None


class FilesAlone(NoXattrs):
    """A provider whose nodes are files: their directories are others'."""

    def lookup(self, _parent: INode, _name: bytes, /) -> Attributes | None:
        """Have no directories."""
        return None

    def entries(self, _ino: INode, _after: INode, /) -> Iterator[Entry]:
        """Have no directories."""
        return iter(())
