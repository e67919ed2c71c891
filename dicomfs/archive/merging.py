"""Join another archive into one: all that it knows of versions comes over, and what both made apart is combined.

    facts of both  ->  groups of versions  ->  what each shows (resolution)  ->  commits of whole groups

Each commit holds whole groups, with the facts that they follow from; so a merge that was stopped goes on where it was,
and one that is done finds nothing to do. The other archive is only read.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

from dicomfs.archive import archive as archives
from dicomfs.archive import merging_beside, merging_other
from dicomfs.archive.archive import Archive
from dicomfs.archive.changing import Changing
from dicomfs.archive.committing import Opened, writing
from dicomfs.archive.merging_conflicts import Conflict, Conflicts
from dicomfs.archive.merging_copying import Copier
from dicomfs.archive.merging_facts import DELETED, Facts
from dicomfs.archive.merging_planning import Plan, Planning
from dicomfs.archive.merging_reading import read_facts
from dicomfs.archive.merging_realising import Realising
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.errors import Damaged

COMMIT_FILES: Final = 1024
COMMIT_BYTES: Final = 64 << 20


@dataclass(slots=True)
class MergeReport:
    """What a merge did, or would do."""

    copied: int = 0
    """Files that the archive did not have, earlier versions included."""
    bytes_copied: int = 0
    combined: int = 0
    """Files that were made of independent edits of both archives."""
    replaced: int = 0
    """Files that the archive showed, and shows another version of now."""
    deleted: int = 0
    """Files that the archive showed, and that were deleted in the other one."""
    restored: int = 0
    """Files that the archive did not show any more, and that came back in the other one."""
    attachments: int = 0
    quarantined: int = 0
    commits: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is left for a person."""
        return not (self.conflicts or self.warnings)

    def count(self, plan: Plan, facts: Facts) -> None:
        """Count what is done with a group."""
        self.copied += len(plan.foreign)
        self.combined += len(plan.edited)
        self.restored += len((plan.resolved.heads & plan.inos.keys()) - plan.shown)
        for sha in plan.shown - plan.resolved.heads:
            if all(hide.by == DELETED for hide in facts.hides(sha)):
                self.deleted += 1
            else:
                self.replaced += 1


def merge(
    archive_path: Path,
    other_path: Path,
    *,
    reason: str = "",
    dry_run: bool = False,
    wait_s: float = 0.0,
    progress: OnProgress | None = None,
) -> MergeReport:
    """Join the archive at `other_path` into that at `archive_path`, or find out what that would do.

    Raise UsageError where both are one; ArchiveMissing; Damaged where the other one is hurt, which then is named: what
    was committed before stays, and the same merge goes on from there.
    """
    archives.require(archive_path)
    with merging_other.opened(other_path, archive_path) as other:
        if dry_run:
            with Archive.open(archive_path) as mine:
                return _Merging(mine, other, other_path, progress).look()
        with writing(archive_path, "dicomfs merge", wait_s) as opened:
            mine = Archive(archive_path, archives.require(archive_path), opened.store)
            return _Merging(mine, other, other_path, progress).run(archive_path, opened, reason)


class _Merging:
    def __init__(self, mine: Archive, other: Archive, other_path: Path, progress: OnProgress | None) -> None:
        self._mine, self._other, self._other_path = mine, other, other_path
        self._progress = progress
        self._known = read_facts(mine.store)
        try:
            told = read_facts(other.store)
            self._planning = Planning(mine, self._known, other, told)
        except Damaged as error:
            raise merging_other.damaged(other_path, error) from error
        self._conflicts = Conflicts(mine, other, self._known, told, self._planning.facts)
        self._report = MergeReport()
        self._total = len(told.sop)

    def look(self) -> MergeReport:
        """Find out what a merge would do."""
        for plan in self._planning.plans():
            self._take_note(plan)
        told, _ = merging_beside.lacking(self._known, self._planning.facts)
        self._report.attachments = len(told)
        self._report.quarantined = len(merging_beside.not_quarantined(self._mine.path, self._other_path))
        return self._report

    def run(self, path: Path, opened: Opened, reason: str) -> MergeReport:
        """Merge."""
        batch: list[Plan] = []
        weight = files = 0
        for plan in self._planning.plans():
            self._take_note(plan)
            batch.append(plan)
            files += len(plan.members)
            weight += self._weight(plan)
            if files >= COMMIT_FILES or weight >= COMMIT_BYTES:
                self._commit(path, opened, reason, batch)
                batch, weight, files = [], 0, 0
        self._commit(path, opened, reason, batch)
        self._attach(path, opened, reason)
        Changing(path, opened, "merge").follow(self._report.warnings.append)
        self._quarantine(path)
        return self._report

    def _take_note(self, plan: Plan) -> None:
        if not plan.agreed:
            self._report.count(plan, self._planning.facts)
            self._report.conflicts += self._conflicts.of(plan)
        if self._progress is not None:
            self._progress(Progress(self._report.copied, max(self._total, self._report.copied), 0, 0))

    def _weight(self, plan: Plan) -> int:
        """Return about how many bytes a group brings."""
        with self._other.view() as view:
            numbers = (view.ino_of_file(bytes.fromhex(sha)) for sha in plan.foreign)
            return sum(view.instance_inode(ino).size for ino in numbers if ino is not None)

    def _commit(self, path: Path, opened: Opened, reason: str, plans: Iterable[Plan]) -> None:
        step = Realising(path, opened, reason, Copier(self._other), self._planning.facts, self._known)
        try:
            seq = step.realise(plans, self._other.settings.archive_id)
        except Damaged as error:
            raise merging_other.damaged(self._other_path, error) from error
        self._report.commits += bool(seq)
        self._report.bytes_copied += step.bytes_copied

    def _attach(self, path: Path, opened: Opened, reason: str) -> None:
        told, shown = merging_beside.lacking(self._known, self._planning.facts)
        if not told:
            return
        step = Realising(path, opened, reason, Copier(self._other), self._planning.facts, self._known)
        for one in chain(sorted(told), shown):
            merging_beside.attach(step.changing, one, Copier(self._other))
        self._report.commits += bool(step.commit(merging_beside.as_told(told), self._other.settings.archive_id))
        self._report.attachments = len(told)

    def _quarantine(self, path: Path) -> None:
        for source in merging_beside.not_quarantined(path, self._other_path):
            warning: Callable[[str], None] = self._report.warnings.append
            self._report.quarantined += merging_beside.take_over(path, source, warning)
