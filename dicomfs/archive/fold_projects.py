"""Fold what commits say of projects: which there are, what was derived for them, and what is withheld.

The parts of a commit's JSON that only archives with projects have:

    {"projects": [[root, directory, definition]], "projects_off": [root],
     "derived": [[ino, root, source, parent, name, size, header SHA-256, base, body offset, body length,
                  literal length, new base]],
     "withheld": [[source, root, reason]]}

Folders, links and `placed` are those of layouts (fold_layouts.py), with the root of a project.
"""

from typing import Final, NamedTuple, TypeAlias

from dicomfs.archive import by_project, fold_versions, project_definition, tables
from dicomfs.archive.by_project import Member, ProjectState
from dicomfs.archive.fold_tree import TreeFold
from dicomfs.archive.fold_versions import Past
from dicomfs.archive.tables import CHILD, DERIVED, DIRECTORY, INSTANCE, NOWHERE, PAIR, ROOT_PROJECTS, U64
from dicomfs.store.index import Table, Transaction

Shown: TypeAlias = tuple[int, int, str]
"""(root of a project, number of the file by which it shows an instance, why it is withheld)"""

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

    def __init__(self, txn: Transaction, held: dict[str, Table], seq: int, time_ns: int, tree: TreeFold) -> None:
        self._txn = txn
        self._tables = held
        self._seq = seq
        self._time_ns = time_ns
        self._tree = tree
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
        self._tree.claim(ROOT_PROJECTS, root, name, CHILD.pack(DIRECTORY, 0, self._time_ns, 0))
        self._tree.touch(root, 0)
        self._tree.touch(ROOT_PROJECTS, 1)

    def project_off(self, root: int) -> None:
        """Remove a project; what is in it stays known, as its number is never used again."""
        state = self._state(root)
        if state is None or not state.on:
            return
        self._put(state._replace(on=False))
        self._tree.release(ROOT_PROJECTS, root, state.directory.encode())
        self._tree.touch(ROOT_PROJECTS, -1)

    def placed(self, root: int, through: int) -> None:
        """Say that every instance up to a number is in a project if it belongs there."""
        state = self._state(root)
        if state is not None:
            self._put(state._replace(through=through, again=()))

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
        self._tree.touch(row.parent, 0)
        if not self._is_here(row.source) or self._state(row.root) is None:
            return  # they were lost with a pack
        source = tables.InstanceInode.parse(self._get("inode", row.source) or b"")
        name, ino = row.name.encode(), U64.pack(row.ino)
        inode = tables.INSTANCE_INODE.pack(
            DERIVED, row.parent, row.size, self._time_ns, source.series, self._seq,
            row.body_offset, row.body_length, bytes.fromhex(row.base), bytes.fromhex(row.sha256),
        )  # fmt: skip
        self._txn.put(ino, inode + name, db=self._tables["inode"])
        self._tree.claim(row.parent, row.ino, name, CHILD.pack(DERIVED, row.size, self._time_ns, 0))
        member = by_project.encode_member(Member(row.source, row.ino, ""))
        self._txn.put(PAIR.pack(row.root, row.source), member, db=self._tables["member"])
        self._changed.add(row.root)
        self._txn.put(ino, PAIR.pack(row.source, row.root), db=self._tables["source"])

    def keeps(self, root: int) -> bool:
        """Say whether an instance keeps its name below this root though it is replaced."""
        state = self._state(root)
        return state is not None and state.frozen

    def displace(self, ino: int, *, deleted: bool) -> list[Shown]:
        """Take what was made of an instance out of projects that follow it; return what was shown.

        These are, of one that is replaced, all that may change, and of one that is `deleted` all there are.
        """
        before: list[Shown] = []
        for root in self._roots() if deleted else self._not_frozen():
            key = PAIR.pack(root, ino)
            value = self._txn.get(key, db=self._tables["member"])
            if value is not None:
                member = by_project.decode_member(ino, value)
                self._txn.delete(key, db=self._tables["member"])
                self._changed.add(root)
                before.append((root, member.shown, member.reason))
                if member.shown != ino:
                    self._take_out(member.shown, reserve=deleted)
        return before

    def back(self, ino: int, before: list[Shown]) -> None:
        """Put what was made of an instance back where it was when that was deleted."""
        for root, shown, reason in before:
            if self._state(root) is None:
                continue
            member = by_project.encode_member(Member(ino, shown, reason))
            self._txn.put(PAIR.pack(root, ino), member, db=self._tables["member"])
            self._changed.add(root)
            parent = self._get("past", shown)
            value = self._get("inode", shown)
            if shown == ino or parent is None or value is None:
                continue
            self._txn.delete(U64.pack(shown), db=self._tables["past"])
            old, name = tables.InstanceInode.parse(value), value[tables.INSTANCE_INODE.size :]
            where = fold_versions.decode(parent).parent
            inode = tables.INSTANCE_INODE.pack(*old._replace(parent=where)) + name
            self._txn.put(U64.pack(shown), inode, db=self._tables["inode"])
            self._tree.claim(where, shown, name, CHILD.pack(DERIVED, old.size, old.mtime_ns, 0))
            self._tree.touch(where)

    def again(self, study: int) -> None:
        """Have live projects look again at a study of which an instance is shown that was there before."""
        for root in self._roots():
            state = self._state(root)
            if state is not None and not state.frozen and state.through and study not in state.again:
                self._put(state._replace(again=(*state.again, study)))

    def finish(self) -> None:
        """Write down which projects show other files now."""
        for root in self._changed:
            state = self._state(root)
            if state is not None:
                self._put(state._replace(changed=self._seq))

    def _take_out(self, ino: int, *, reserve: bool) -> None:
        """Take a derived file out of its directory; who has it open reads on."""
        value = self._get("inode", ino)
        if value is None or value[0] != DERIVED:
            return
        old, name = tables.InstanceInode.parse(value), value[tables.INSTANCE_INODE.size :]
        self._tree.release(old.parent, ino, name, reserve=reserve)
        hidden = tables.INSTANCE_INODE.pack(*old._replace(parent=NOWHERE))
        self._txn.put(U64.pack(ino), hidden + name, db=self._tables["inode"])
        past = Past(old.parent, self._seq, 0, False, [], [])
        self._txn.put(U64.pack(ino), fold_versions.encode(past._asdict()), db=self._tables["past"])

    def _is_here(self, source: int) -> bool:
        value = self._get("inode", source)
        return value is not None and value[0] == INSTANCE

    def _not_frozen(self) -> list[int]:
        if self._loose is None:
            self._loose = [root for root in self._roots() if (state := self._state(root)) and not state.frozen]
        return self._loose

    def _roots(self) -> list[int]:
        cursor = self._txn.cursor(db=self._tables["project"])
        return [U64.unpack(key)[0] for key, _ in cursor.iternext()] if cursor.first() else []

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
