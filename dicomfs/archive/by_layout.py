"""What the catalog knows of layouts: which there are, and under which names each shows an instance."""

import json
from collections.abc import Iterator
from typing import NamedTuple

from dicomfs.archive.by_attachment import ByAttachment
from dicomfs.archive.tables import PAIR, U64
from dicomfs.errors import Damaged


class LayoutState(NamedTuple):
    """A layout that was switched on once."""

    root: int
    """The inode number of its tree's root."""
    name: str
    template: str
    on: bool
    through: int
    """Instances up to this number have their names in it; 0: it was not applied to the whole archive yet."""


class ByLayout(ByAttachment):
    """The catalog at one commit, by layouts."""

    __slots__ = ()

    def layouts(self) -> list[LayoutState]:
        """Return all layouts but `patients`, those that are off too, in the order in which they came."""
        cursor = self._txn.cursor(db=self._tables["layout"])
        return [decode(U64.unpack(key)[0], value) for key, value in cursor.iternext()] if cursor.first() else []

    def links(self, ino: int) -> Iterator[tuple[int, int, bytes]]:
        """Walk (root, directory, name) of an instance in every layout that has it, those that are off too."""
        cursor = self._txn.cursor(db=self._tables["link"])
        if not cursor.set_range(PAIR.pack(ino, 0)):
            return
        for key, value in cursor.iternext():
            instance, root = PAIR.unpack(key)
            if instance != ino:
                return
            yield root, U64.unpack_from(value)[0], value[U64.size :]

    def is_linked(self, ino: int, root: int) -> bool:
        """Say whether a layout has a name for an instance."""
        return self._txn.get(PAIR.pack(ino, root), db=self._tables["link"]) is not None


def decode(root: int, value: bytes) -> LayoutState:
    """Read a value of the table of layouts; raise Damaged."""
    try:
        held = json.loads(value)
        return LayoutState(root, held["name"], held["template"], held["on"], held["through"])
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged("the index has a damaged record of a layout; run 'dicomfs reindex'") from error


def encode(state: LayoutState) -> bytes:
    """Return the value that `decode` reads."""
    held = {"name": state.name, "template": state.template, "on": state.on, "through": state.through}
    return json.dumps(held, separators=(",", ":")).encode()
