"""What the catalog knows of projects: which there are, and what each shows of which instance."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from dicomfs.archive import project_definition
from dicomfs.archive.by_layout import ByLayout
from dicomfs.archive.project_definition import Definition
from dicomfs.archive.tables import PAIR, U64
from dicomfs.errors import Damaged, NotFound


class ProjectState(NamedTuple):
    """A project that was made once."""

    root: int
    """The inode number of its directory in `projects/`."""
    directory: str
    definition: Definition
    on: bool
    through: int
    """All instances up to this number that belong to it are in it; 0: it was not made to the end yet."""
    changed: int
    """The number of the last commit after which it shows other files than before."""
    again: tuple[int, ...] = ()
    """Studies of which instances up to `through` are shown again, and may belong to it."""

    @property
    def frozen(self) -> bool:
        """Whether it goes on showing what it shows, though that be replaced elsewhere."""
        return not self.on or (bool(self.through) and not self.definition.live)


class Member(NamedTuple):
    """An instance of a project."""

    source: int
    shown: int
    """The file by which the project shows it: the instance itself, or one that was derived from it."""
    reason: str
    """Why it is withheld, in `quarantine/`; '' where it is not."""


class ByProject(ByLayout):
    """The catalog at one commit, by projects."""

    __slots__ = ()

    def projects(self) -> list[ProjectState]:
        """Return all projects, those that were removed too, in the order in which they came."""
        cursor = self._txn.cursor(db=self._tables["project"])
        return [decode(U64.unpack(key)[0], value) for key, value in cursor.iternext()] if cursor.first() else []

    def project(self, root: int) -> ProjectState:
        """Return the project with this directory; raise NotFound where there is none."""
        value = self._txn.get(U64.pack(root), db=self._tables["project"])
        if value is None:
            raise NotFound(f"no project has inode number {root}")
        return decode(root, value)

    def members(self, root: int, after: int = 0) -> Iterator[Member]:
        """Walk the instances of a project past a number, in the order of their inode numbers."""
        cursor = self._txn.cursor(db=self._tables["member"])
        if not cursor.set_range(PAIR.pack(root, after + 1)):
            return
        for key, value in cursor.iternext():
            of, source = PAIR.unpack(key)
            if of != root:
                return
            yield decode_member(source, value)

    def member(self, root: int, source: int) -> Member | None:
        """Return what a project shows of an instance, None where it is not in it."""
        value = self._txn.get(PAIR.pack(root, source), db=self._tables["member"])
        return None if value is None else decode_member(source, value)

    def source_of(self, derived: int) -> tuple[int, int] | None:
        """Return the instance that a file was derived from, and the project; None for what is not derived."""
        value = self._txn.get(U64.pack(derived), db=self._tables["source"])
        return None if value is None else PAIR.unpack(value)


@lru_cache(64)
def decode(root: int, value: bytes) -> ProjectState:
    """Read a value of the table of projects; raise Damaged."""
    try:
        held = json.loads(value)
        definition = project_definition.from_json(held["definition"])
        again = tuple(int(study) for study in held.get("again", ()))
        return ProjectState(root, held["directory"], definition, held["on"], held["through"], held["changed"], again)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged("the index has a damaged record of a project; run 'dicomfs reindex'") from error


def encode(state: ProjectState) -> bytes:
    """Return the value that `decode` reads."""
    held: dict[str, object] = {
        "directory": state.directory,
        "definition": project_definition.to_json(state.definition),
        "on": state.on,
        "through": state.through,
        "changed": state.changed,
    }
    if state.again:
        held["again"] = state.again
    return json.dumps(held, separators=(",", ":")).encode()


def decode_member(source: int, value: bytes) -> Member:
    """Read a value of the table of members."""
    return Member(source, U64.unpack_from(value)[0], value[U64.size :].decode("utf-8", "surrogatepass"))


def encode_member(member: Member) -> bytes:
    """Return the value that `decode_member` reads."""
    return U64.pack(member.shown) + member.reason.encode("utf-8", "surrogatepass")
