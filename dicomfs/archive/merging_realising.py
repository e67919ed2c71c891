"""Make an archive show what was planned: groups of versions, any number of them in one commit.

Steps are made for all groups of a commit one after another, in the order in which a reindex folds them: new files, then
those that come back, then those that go.
"""

from collections.abc import Iterable
from pathlib import Path

from dicomfs.archive import tables
from dicomfs.archive.changing import Changing
from dicomfs.archive.committing import Opened
from dicomfs.archive.editing import Edited
from dicomfs.archive.editing_run import add, own_name
from dicomfs.archive.merging_copying import Copied, Copier
from dicomfs.archive.merging_facts import DELETED, Facts, Sha, Told
from dicomfs.archive.merging_planning import Plan
from dicomfs.archive.merging_resolution import lineage_hides


class Realising:
    """One commit of a merge. `facts` are those of both archives, `known` those that the archive has told already."""

    def __init__(self, path: Path, opened: Opened, reason: str, copier: Copier, facts: Facts, known: Facts) -> None:
        self.changing = Changing(path, opened, "merge", reason)
        self._copier = copier
        self._facts, self._known = facts, known
        self._told = Told()
        self._inos: dict[Sha, int] = {}
        self.bytes_copied = 0

    def realise(self, plans: Iterable[Plan], archive_id: str) -> int:
        """Do it, and commit; return the commit's number, 0 where nothing was to be done."""
        plans = list(plans)
        changing = [plan for plan in plans if not plan.agreed]
        for plan in plans:
            self._inos |= plan.inos
            for sha in plan.members if not plan.agreed else ():
                self._told.lacking(sha, self._facts, self._known)
        gone: set[Sha] = set()
        for plan in changing:
            self._come(plan, gone)
        for plan in changing:
            self._restore(plan, gone)
        deleted = [ino for plan in changing for ino in self._hide(plan)]
        for ino in deleted:
            self.changing.delete(ino)
        for plan in plans:
            self._settle(plan)
        return self.commit(self._told, archive_id)

    def commit(self, told: Told, archive_id: str) -> int:
        """Commit what was done, and the facts that it follows from."""
        changing = self.changing
        if not told and changing.is_empty:
            return 0
        changing.records.merged = told.to_json(archive_id, self._facts, self._known)
        for change in set(told.named()) & self._facts.changes.keys():
            self._known.changes[change] = self._facts.changes[change]
        changing.restate()
        seq = changing.writer.seq
        changing.commit()
        return seq

    def _come(self, plan: Plan, gone: set[Sha]) -> None:
        """Add versions that are new here, those that are shown first: they get the better names."""
        heads, current = plan.resolved.heads, plan.resolved.current.values()
        new = [*plan.foreign, *plan.edited]
        for sha in sorted(new, key=lambda sha: (sha not in heads, sha not in current)):
            row, *numbers = self._bytes(plan, sha)
            self.bytes_copied += row.size
            if sha not in heads:
                placed = self.changing.add(row, *numbers, earlier=True)
            elif victim := self._victim(plan, sha, gone):
                gone.add(victim)
                uid = self._facts.sop[sha]
                conflict = any(self._facts.sop[one] == uid for one in plan.shown - gone)
                before = self.changing.view.instance(plan.inos[victim]).attributes
                keeps = own_name(before) == own_name(row.attributes.instance)
                placed = self.changing.replace(
                    plan.inos[victim], row, *numbers, conflict=conflict, keep_name=keeps
                )  # fmt: skip
            else:
                placed = self.changing.add(row, *numbers, earlier=False)
            self._inos[sha] = placed.ino

    def _bytes(self, plan: Plan, sha: Sha) -> Copied:
        writer = self.changing.writer
        made = plan.edited.get(sha)
        copied = self._copier.copy(sha, writer) if made is None else self._made(made)
        writer.flush()
        return copied

    def _made(self, edited: Edited) -> Copied:
        bulk = stored = 0
        for blob in edited.blobs:
            if add(self.changing, blob):
                bulk += blob.length
                stored += len(blob.stored)
        return Copied(edited.row, bulk, stored, 0)

    def _victim(self, plan: Plan, sha: Sha, gone: set[Sha]) -> Sha | None:
        """Return the version that is shown here, will not be, and whose place this one takes."""
        going = plan.shown - plan.resolved.heads - gone
        direct = [one for one in sorted(going) if any(hide.by == sha for hide in self._facts.hides(one))]
        return next(iter(direct), None) or next((one for one in sorted(going) if self._leads(one, sha)), None)

    def _leads(self, sha: Sha, to: Sha) -> bool:
        """Say whether a version was made of another."""
        seen, waiting = {sha}, [sha]
        while waiting:
            for hide in lineage_hides(self._facts, waiting.pop()):
                if hide.by == to:
                    return True
                if hide.by not in seen:
                    seen.add(hide.by)
                    waiting.append(hide.by)
        return False

    def _restore(self, plan: Plan, gone: set[Sha]) -> None:
        for sha in plan.members:
            if sha in plan.resolved.heads and sha in plan.inos and sha not in plan.shown:
                victim = self._victim(plan, sha, gone)
                if victim:
                    gone.add(victim)
                self.changing.restore(plan.inos[sha], plan.inos[victim] if victim else 0)

    def _hide(self, plan: Plan) -> list[int]:
        """Take out what is not to be shown, and return what is to be deleted."""
        deleted: list[int] = []
        for sha in plan.members:
            ino = self._inos.get(sha)
            if ino is None or sha in plan.resolved.heads:
                continue
            by = self._in_favour_of(plan, sha)
            past = self.changing.view.past(ino)
            if self.changing.view.instance_inode(ino).parent == tables.NOWHERE:
                if past is not None and bool(past.by) != bool(by):
                    self.changing.supersede(ino, by)
            elif by:
                self.changing.supersede(ino, by)
            else:
                deleted.append(ino)
        return deleted

    def _in_favour_of(self, plan: Plan, sha: Sha) -> int:
        """Return the version in whose favour one is not shown, 0 where it was deleted."""
        by = sorted(
            (hide.by for hide in self._facts.hides(sha) if hide.by != DELETED and hide.by in self._inos),
            key=lambda one: (one not in plan.resolved.heads, one),
        )
        return self._inos[by[0]] if by else 0

    def _settle(self, plan: Plan) -> None:
        """See to it that the right version is current."""
        view = self.changing.view
        for uid, sha in plan.resolved.current.items():
            ino = self._inos.get(sha)
            if ino is not None and view.instances_where_uid(uid)[0] != ino and view.past(ino) is None:
                self.changing.make_current(ino)
