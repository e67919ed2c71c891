"""Claim the names of instances in the layouts that are on; each is written in a commit, and kept for ever.

First come keeps the plain name, a clash gets a `~hash` suffix. A directory is found again by what its level says of
the instances in it (`Layout.identity`), whatever it came to be called.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Final, TypeAlias

from dicomfs.archive import by_layout, tables
from dicomfs.archive.fold import Fold
from dicomfs.archive.layout import Layout
from dicomfs.archive.layout_values import Value
from dicomfs.archive.names import candidates
from dicomfs.archive.records import Records
from dicomfs.archive.tables import PAIR, U64
from dicomfs.errors import UsageError
from dicomfs.store.index import Table, Transaction
from dicomfs.store.store import Store

_KEPT: Final = 4096

Places: TypeAlias = dict[int, tuple[int, str]]
"""The directory and the name of an instance, by the root of each layout that has it."""


@lru_cache(64)
def parsed(template: str) -> Layout | None:
    """Return the layout of a template in a commit, None where this version cannot read it: a later one wrote it."""
    try:
        return Layout.parse(template)
    except UsageError:
        return None


class Placing:
    """Places instances in layouts, commit after commit. Belongs to one thread."""

    def __init__(self, store: Store) -> None:
        self._tables = store.index.tables
        self._folders: dict[tuple[int, str], int] = {}

    def begin(self, txn: Transaction, fold: Fold, records: Records) -> None:
        """Go on with the next commit, and the layouts that are on then."""
        self._txn, self._fold, self._records = txn, fold, records
        if len(self._folders) > _KEPT:
            self._folders.clear()
        cursor = txn.cursor(db=self._tables["layout"])
        known = (
            [by_layout.decode(U64.unpack(key)[0], value) for key, value in cursor.iternext()] if cursor.first() else []
        )
        self._on = {
            state.root: layout for state in known if state.on and (layout := parsed(state.template)) is not None
        }
        self._at_once = [root for root, layout in self._on.items() if not layout.counts]

    def at_once(self, before: Places) -> list[tuple[int, Layout]]:
        """Return the layouts in which an instance gets its place as it comes.

        Where entries are counted, all of an import have to be there first, to be put in order; but who takes the place
        of another takes its name, of which `before` are all.
        """
        if not before:
            return [(root, self._on[root]) for root in self._at_once]
        return [(root, layout) for root, layout in self._on.items() if not layout.counts or root in before]

    def all(self) -> list[tuple[int, Layout]]:
        """Return all layouts that are on."""
        return list(self._on.items())

    def places(self, ino: int) -> Places:
        """Return the places of an instance in layouts."""
        if not self._on:
            return {}
        cursor = self._txn.cursor(db=self._tables["link"])
        found: Places = {}
        if cursor.set_range(PAIR.pack(ino, 0)):
            for key, value in cursor.iternext():
                instance, root = PAIR.unpack(key)
                if instance != ino:
                    break
                found[root] = U64.unpack_from(value)[0], value[U64.size :].decode()
        return found

    def place(
        self,
        ino: int,
        root: int,
        layout: Layout,
        attributes: Mapping[str, Value],
        identity: str,
        *,
        plain: bool,
        before: Places,
    ) -> None:
        """Give an instance its place in a layout; `before` are those of the instance that it replaces."""
        parent, name = self.claim(root, layout, attributes, identity, plain=plain, before=before)
        self._records.links.append((ino, root, parent, name))
        self._fold.link(ino, root, parent, name)

    def claim(
        self,
        root: int,
        layout: Layout,
        attributes: Mapping[str, Value],
        identity: str,
        *,
        plain: bool,
        before: Places,
    ) -> tuple[int, str]:
        """Return the directory and the name of a file that says this; the directory is claimed, the name is free."""
        parent = root
        last = layout.depth - 1
        for level in range(last):
            parent = self._folder(parent, layout, level, attributes)
        earlier = before.get(root)
        if earlier is not None and earlier[0] == parent:
            name = earlier[1]
        else:
            number = self._fold.layouts.given(parent) + 1 if layout.is_counted(last) else 0
            rendered = layout.render_level(last, attributes, identity, number)
            name = free_name(self._txn, self._tables["name"], parent, rendered, identity, plain=plain or bool(number))
        return parent, name

    def claim_folder(self, parent: int, name: str) -> int:
        """Return the directory of a layout or project that always has this name."""
        text = f"\1{name}"  # as no level of a layout says
        value = self._txn.get(tables.identity_key("directory", parent, text), db=self._tables["identity"])
        return (
            int(U64.unpack(value)[0]) if value is not None else self._new_folder(parent, text, candidates(name, text))
        )

    def _folder(self, parent: int, layout: Layout, level: int, attributes: Mapping[str, Value]) -> int:
        text = layout.identity(level, attributes)
        known = self._folders.get((parent, text))
        if known is not None:
            return known
        key = tables.identity_key("directory", parent, text)
        value = self._txn.get(key, db=self._tables["identity"])
        if value is not None:
            number = int(U64.unpack(value)[0])
        else:
            count = self._fold.layouts.given(parent) + 1 if layout.is_counted(level) else 0
            names = layout.names(level, attributes, text, count)
            number = self._new_folder(parent, text, names)
        self._folders[parent, text] = number
        return number

    def _new_folder(self, parent: int, text: str, names: Iterator[str]) -> int:
        key = tables.identity_key("directory", parent, text).hex()
        name = first_free(self._txn, self._tables["name"], parent, names)
        number = self._fold.next
        self._records.folders.append((number, key, parent, name))
        self._fold.folder(number, key, parent, name)
        return number


def free_name(txn: Transaction, taken: Table, parent: int, name: str, identity: str, *, plain: bool = True) -> str:
    """Return the first name of an entity that nothing in a directory has; not the plain one if that is not `plain`."""
    if plain and txn.get(tables.name_key(parent, name.encode()), db=taken) is None:
        return name
    return first_free(txn, taken, parent, islice(candidates(name, identity), int(not plain), None))


def first_free(txn: Transaction, taken: Table, parent: int, names: Iterator[str]) -> str:
    """Return the first of these names that nothing in a directory has; they never end."""
    return next(name for name in names if txn.get(tables.name_key(parent, name.encode()), db=taken) is None)
