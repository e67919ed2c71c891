"""What a merge is to do, group by group: what is known of versions, what is shown in the end, and who has the bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.deriving import Withheld
from dicomfs.archive.editing import Edited, Editor
from dicomfs.archive.merging_facts import Facts, Sha
from dicomfs.archive.merging_resolution import Group, Resolved
from dicomfs.dicom.edit import Changes
from dicomfs.errors import NotFound


@dataclass(slots=True)
class Plan:
    """One group: versions that are merged together, in one commit."""

    members: list[Sha]
    """All versions of the group, in the order in which they came."""
    resolved: Resolved
    inos: dict[Sha, int]
    """Those that the archive has."""
    shown: set[Sha]
    """Those that it shows."""
    foreign: list[Sha]
    """Those that only the other archive has."""
    edited: dict[Sha, Edited] = field(default_factory=dict)
    """Combinations that are to be made."""

    agreed: bool = False
    """Whether both archives know the same of it: then the right version is to be current, and nothing else is done.

    Changes that an archive made by itself may leave another one current than those of both together.
    """


class Planning:
    """Plans the merge of one archive into another. Belongs to one thread."""

    def __init__(self, mine: Archive, known: Facts, other: Archive, told: Facts) -> None:
        self._mine, self._other = mine, other
        self._known, self._told = known, told
        self._editors = tuple((archive, Editor(archive)) for archive in (mine, other))
        self.facts = known.copy()
        """All that either archive knows, and what follows from it as plans are made."""
        self.facts.join(told)
        self._same_uid: dict[str, list[Sha]] = {}
        self._made_of: dict[Sha, list[Sha]] = {}
        self._index()

    def _index(self) -> None:
        first: dict[str, Sha] = {}
        for sha, sop in self.facts.sop.items():
            before = first.setdefault(sop, sha)
            if before != sha:
                self._same_uid.setdefault(sop, [before]).append(sha)
        for sha, hides in self.facts.hidden.items():
            for hide in hides:
                if hide.by:
                    self._made_of.setdefault(hide.by, []).append(sha)

    def plans(self) -> Iterator[Plan]:
        """Plan each group of which the other archive knows something: not what both know and show alike."""
        seen: set[Sha] = set()
        order = sorted(self._told.sop, key=lambda sha: (self.facts.came[sha], sha))
        for sha in order:
            if sha in seen or (self._agree(sha) and self.facts.sop[sha] not in self._same_uid):
                continue
            members = self._group(sha)
            seen |= members
            agreed = all(map(self._agree, members))
            if not agreed or self._several(members):
                yield self._plan(members, agreed=agreed)

    def _several(self, members: set[Sha]) -> bool:
        """Say whether several files of one SOP Instance UID are shown."""
        heads = [self.facts.sop[sha] for sha in members if not self.facts.hides(sha)]
        return len(set(heads)) < len(heads)

    def _agree(self, sha: Sha) -> bool:
        return self._known.knows_as(self._told, sha)

    def _group(self, sha: Sha) -> set[Sha]:
        """Return all versions that are to be looked at with this one."""
        facts, found = self.facts, {sha}
        waiting = [sha]
        while waiting:
            one = waiting.pop()
            near = {hide.by for hide in facts.hidden.get(one, ()) if hide.by}
            near.update(self._made_of.get(one, ()), self._same_uid.get(facts.sop.get(one, ""), ()))
            new = {other for other in near if other in facts.sop} - found
            found |= new
            waiting += new
        return found

    def _plan(self, members: set[Sha], *, agreed: bool) -> Plan:
        with self._mine.view() as view, self._other.view() as theirs:
            numbers = {sha: view.ino_of_file(bytes.fromhex(sha)) for sha in members}
            inos = {sha: ino for sha, ino in numbers.items() if ino is not None}
            shown = {sha for sha, ino in inos.items() if view.instance_inode(ino).parent != tables.NOWHERE}
            foreign = {
                sha for sha in members - inos.keys() if theirs.ino_of_file(bytes.fromhex(sha)) is not None
            }  # fmt: skip
        edited: dict[Sha, Edited] = {}

        def make(root: Sha, changes: list[Changes]) -> tuple[Sha, str] | str:
            if agreed:
                return "both archives know it as it is"
            try:
                found = self._edit(root, changes)
            except Withheld as error:
                return error.reason
            if found is None:
                return "it would change nothing"
            sha = found.row.sha256.hex()
            edited[sha] = found
            return sha, str(found.row.attributes.instance["SOPInstanceUID"])

        group = Group(self.facts, members, lambda sha: sha in inos or sha in foreign)
        resolved = group.resolve(make)
        order = {sha: (self.facts.came[sha], sha) for sha in {*members, *resolved.made}}
        in_order = sorted(order, key=order.__getitem__)
        made = {sha: edited[sha] for sha in resolved.made if sha not in inos}
        return Plan(in_order, resolved, inos, shown, [sha for sha in in_order if sha in foreign], made, agreed)

    def _edit(self, root: Sha, changes: list[Changes]) -> Edited | None:
        """Do edits on a file that either archive has."""
        for archive, editor in self._editors:
            with archive.view() as view:
                ino = view.ino_of_file(bytes.fromhex(root))
            if ino is not None:
                return editor.edited(ino, *changes)
        raise NotFound("the file that both edits were made on is in neither archive any more")
