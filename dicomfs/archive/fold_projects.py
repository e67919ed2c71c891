"""Fold what commits say of projects: which there are, what was derived for them, and what is withheld.

The parts of a commit's JSON that only archives with projects have:

    {"projects": [[root, directory, definition]], "projects_off": [root],
     "derived": [[ino, root, source, parent, name, size, header SHA-256, base, body offset, body length,
                  literal length, new base]],
     "withheld": [[source, root, reason]]}

Folders, links and `placed` are those of layouts (fold_layouts.py), with the root of a project.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from dicomfs.archive import by_project, project_definition, tables
from dicomfs.archive.by_project import Member, ProjectState
from dicomfs.archive.tables import CHILD, DERIVED, DIRECTORY, INSTANCE, NOWHERE, PAIR, ROOT_PROJECTS, U64
from dicomfs.store.index import Table, Transaction

KEYS: Final = ("projects", "projects_off", "derived", "withheld")


class DerivedRow(NamedTuple):
    """What a commit records of a file that was made of an instance; offsets are in the commit's body."""

    ino: int
    root: int
    source: int
    parent: int
    name: str
    size: int
    sha256: str
    """Of its header: the length of the recipe, the recipe and the literal bytes."""
    base: str
    body_offset: int
    body_length: int
    literal_length: int
    new_base: int
    """How many bytes a new base took in the pack."""


class ProjectFold:
    """The projects' part of one commit on its way into the catalog.

    A project that is finished and not live keeps what it shows. Any other loses an instance that is replaced, and
    what was derived from it.
    """

    def __init__(
        self, txn: Transaction, held: dict[str, Table], seq: int, time_ns: int, touch: Callable[[int, int], None]
    ) -> None:
        """`touch` is told of each directory with another entry, and how many directories more it has in it."""
        self._txn = txn
        self._tables = held
        self._seq = seq
        self._time_ns = time_ns
        self._touch = touch
        self._states: dict[int, ProjectState | None] = {}
        self._loose: list[int] | None = None
        self._changed: set[int] = set()
        """Projects that show other files after this commit than before."""

    def project(self, root: int, directory: str, definition: object) -> None:
        """Make a project, empty."""
        if root < tables.FIRST_CLAIMED:
            raise ValueError("a project has a number of its own")
        name = directory.encode()
        held = project_definition.from_json(definition)
        self._put(ProjectState(root, directory, held, on=True, through=0, changed=0))
        inode = tables.DIRECTORY_INODE.pack(DIRECTORY, ROOT_PROJECTS, self._time_ns, 0) + name
        self._txn.put(U64.pack(root), inode, db=self._tables["inode"])
        self._claim(ROOT_PROJECTS, root, name, CHILD.pack(DIRECTORY, 0, self._time_ns, 0))
        self._touch(root, 0)
        self._touch(ROOT_PROJECTS, 1)

    def project_off(self, root: int) -> list[tuple[int, str]]:
        """Remove a project; what is in it stays known, as its number is never used again. Return its name's place."""
        state = self._state(root)
        if state is None or not state.on:
            return []
        self._put(state._replace(on=False))
        self._txn.delete(PAIR.pack(ROOT_PROJECTS, root), db=self._tables["child"])
        self._txn.delete(tables.name_key(ROOT_PROJECTS, state.directory.encode()), db=self._tables["name"])
        self._touch(ROOT_PROJECTS, -1)
        return [(ROOT_PROJECTS, state.directory)]

    def placed(self, root: int, through: int) -> None:
        """Say that every instance up to a number is in a project if it belongs there."""
        state = self._state(root)
        if state is not None:
            self._put(state._replace(through=through))

    def linked(self, ino: int, root: int) -> None:
        """Take up an instance that was linked below this root, if that is a project's."""
        if self._state(root) is not None:
            value = by_project.encode_member(Member(ino, ino, ""))
            self._txn.put(PAIR.pack(root, ino), value, overwrite=False, db=self._tables["member"])
            self._changed.add(root)

    def withheld(self, source: int, root: int, reason: str) -> None:
        """Say why a project does not show what it would derive from an instance."""
        if self._is_here(source) and self._state(root) is not None:
            value = by_project.encode_member(Member(source, source, reason))
            self._txn.put(PAIR.pack(root, source), value, db=self._tables["member"])
            self._changed.add(root)

    def derived(self, row: DerivedRow) -> None:
        """Add a file that was made of an instance."""
        self._touch(row.parent, 0)
        if not self._is_here(row.source) or self._state(row.root) is None:
            return  # they were lost with a pack
        source = tables.InstanceInode.parse(self._get("inode", row.source) or b"")
        name, ino = row.name.encode(), U64.pack(row.ino)
        inode = tables.INSTANCE_INODE.pack(
            DERIVED, row.parent, row.size, self._time_ns, source.series, self._seq,
            row.body_offset, row.body_length, bytes.fromhex(row.base), bytes.fromhex(row.sha256),
        )  # fmt: skip
        self._txn.put(ino, inode + name, db=self._tables["inode"])
        self._claim(row.parent, row.ino, name, CHILD.pack(DERIVED, row.size, self._time_ns, 0))
        member = by_project.encode_member(Member(row.source, row.ino, ""))
        self._txn.put(PAIR.pack(row.root, row.source), member, db=self._tables["member"])
        self._changed.add(row.root)
        self._txn.put(ino, PAIR.pack(row.source, row.root), db=self._tables["source"])

    def keeps(self, root: int) -> bool:
        """Say whether an instance keeps its name below this root though it is replaced."""
        state = self._state(root)
        return state is not None and state.frozen

    def displace(self, ino: int) -> list[tuple[int, str]]:
        """Take what was made of a replaced instance out of projects; return the directories and names."""
        removed: list[tuple[int, str]] = []
        for root in self._not_frozen():
            key = PAIR.pack(root, ino)
            value = self._txn.get(key, db=self._tables["member"])
            if value is not None:
                shown = by_project.decode_member(ino, value).shown
                self._txn.delete(key, db=self._tables["member"])
                self._changed.add(root)
                removed += self._take_out(shown) if shown != ino else []
        return removed

    def finish(self) -> None:
        """Write down which projects show other files now."""
        for root in self._changed:
            state = self._state(root)
            if state is not None:
                self._put(state._replace(changed=self._seq))

    def _take_out(self, ino: int) -> list[tuple[int, str]]:
        """Take a derived file out of its directory; who has it open reads on."""
        value = self._get("inode", ino)
        if value is None or value[0] != DERIVED:
            return []
        old, name = tables.InstanceInode.parse(value), value[tables.INSTANCE_INODE.size :]
        self._txn.delete(PAIR.pack(old.parent, ino), db=self._tables["child"])
        self._txn.delete(tables.name_key(old.parent, name), db=self._tables["name"])
        hidden = tables.INSTANCE_INODE.pack(*old._replace(parent=NOWHERE))
        self._txn.put(U64.pack(ino), hidden + name, db=self._tables["inode"])
        self._touch(old.parent, 0)
        return [(old.parent, name.decode())]

    def _is_here(self, source: int) -> bool:
        value = self._get("inode", source)
        return value is not None and value[0] == INSTANCE

    def _not_frozen(self) -> list[int]:
        if self._loose is None:
            cursor = self._txn.cursor(db=self._tables["project"])
            held = cursor.iternext() if cursor.first() else iter(())
            states = [by_project.decode(U64.unpack(key)[0], value) for key, value in held]
            self._loose = [state.root for state in states if not state.frozen]
        return self._loose

    def _state(self, root: int) -> ProjectState | None:
        if root not in self._states:
            value = self._get("project", root)
            self._states[root] = None if value is None else by_project.decode(root, value)
        return self._states[root]

    def _put(self, state: ProjectState) -> None:
        self._states[state.root] = state
        self._loose = None
        self._txn.put(U64.pack(state.root), by_project.encode(state), db=self._tables["project"])

    def _get(self, table: str, number: int) -> bytes | None:
        return self._txn.get(U64.pack(number), db=self._tables[table])

    def _claim(self, parent: int, ino: int, name: bytes, child: bytes) -> None:
        self._txn.put(PAIR.pack(parent, ino), child + name, db=self._tables["child"])
        self._txn.put(tables.name_key(parent, name), U64.pack(ino), db=self._tables["name"])
