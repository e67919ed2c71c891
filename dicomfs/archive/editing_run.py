"""Edit what was chosen, in one commit: all of it, and what refers to it, or nothing.

    lock ─▶ select, plan ─▶ batches ─▶ editing_worker (a process each) ─▶ derivers, in order ─▶ changing ─▶ commit

The choice is made under the writer's lock, so that nothing comes in between. Of each instance the writer keeps what the
commit will hold, about 5 KB with the pages of the index: its header's difference from its base, and its rows.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import editing_worker
from dicomfs.archive.archive import Archive
from dicomfs.archive.changing import Changing
from dicomfs.archive.committing import writing
from dicomfs.archive.derivers import Derivers, Setting
from dicomfs.archive.editing import Definition
from dicomfs.archive.editing_plan import plan
from dicomfs.archive.editing_selection import beside, select
from dicomfs.archive.editing_worker import CHOSEN, REFERS, WORK, Answer
from dicomfs.archive.layout import PATIENTS
from dicomfs.archive.outcome import Progress
from dicomfs.dicom.dictionary import dictionary_keyword
from dicomfs.dicom.encoding import shown
from dicomfs.errors import UsageError
from dicomfs.store.recipe import BlobId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from dicomfs.archive.derive_worker import Item
    from dicomfs.archive.deriving import NewBlob
    from dicomfs.archive.editing import Edited
    from dicomfs.archive.editing_plan import Asked, Plan
    from dicomfs.archive.editing_selection import Member, Selection
    from dicomfs.archive.outcome import OnProgress

_BATCH: Final = 64
_NEARLY: Final = 4
"""A batch that is full to this part ends with a series, whose headers share a base."""
_TIME_S: Final = 600.0
"""How long one instance may take: all of it is read, and it may have gigabytes."""
VALUES_SHOWN: Final = 20
"""So many different values of an attribute are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to edit; `jobs` 0 is one process for each core, `wait_s` how long to wait for another writer."""

    reason: str = ""
    dry_run: bool = False
    skip_refused: bool = False
    jobs: int = 0
    wait_s: float = 0.0


class Line(NamedTuple):
    """An attribute before and after; None where there is none. `more` other values are not told."""

    attribute: str
    before: str | None
    after: str | None
    instances: int
    more: int = 0


@dataclass(slots=True)
class Done:
    """What an edit did, or would do; `seq` is 0 where nothing was committed."""

    seq: int = 0
    chosen: int = 0
    edited: int = 0
    references: int = 0
    """Instances that refer to UIDs that were changed."""
    referring: list[str] = field(default_factory=list)
    """The SOP Instance UIDs of these."""
    unchanged: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    """SOP Instance UID, and why nothing is made of it."""
    lines: list[Line] = field(default_factory=list)
    """What would change, of a dry run."""
    uids: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def edit_instances(
    archive_path: Path, selection: Selection, asked: Asked, options: Options, progress: OnProgress | None = None
) -> Done:
    """Edit what is chosen; raise UsageError, NotFound or Refused where that cannot be done.

    Where an instance is refused nothing is committed, unless `options` leave it out.
    """
    selection.require()
    asked.require()
    if options.skip_refused and asked.changes_uids:
        raise UsageError("UIDs are changed in all that has them or in nothing: leave --skip-refused out")
    if options.dry_run:
        with Archive.open(archive_path) as archive:
            running = _Running(archive_path, archive, plan(archive, select(archive, selection), asked), options)
            return running.show(progress)
    with writing(archive_path, "dicomfs edit", options.wait_s) as opened:
        changing = Changing(archive_path, opened, "edit", options.reason)
        archive = changing.archive
        running = _Running(archive_path, archive, plan(archive, select(archive, selection), asked), options)
        return running.edit(changing, progress)


class _Running:
    def __init__(self, path: Path, archive: Archive, asked: Plan, options: Options) -> None:
        self._path, self._archive, self._plan, self._options = path, archive, asked, options
        self._done = Done(chosen=len(asked.members), uids=dict(asked.changes.uids))
        if asked.warning:
            self._done.warnings.append(asked.warning)
        self._referring: list[int] = []

    def show(self, progress: OnProgress | None) -> Done:
        """Tell what would change."""
        counted: dict[int, Counter[tuple[str | None, str | None]]] = {}
        for member, which, answer in self._answers(progress):
            self._count(member, which, changed=answer.changes is not None)
            if answer.changes is None:
                continue
            for tag, before, after in answer.changes:
                counted.setdefault(tag, Counter())[before, after] += 1
        for tag, values in sorted(counted.items()):
            told = values.most_common(VALUES_SHOWN)
            name = dictionary_keyword(tag) or shown(tag) if not tag >> 16 & 1 else shown(tag)
            self._done.lines += (Line(name, *one, instances) for one, instances in told)
            if rest := len(values) - len(told):
                others = values.total() - sum(instances for _, instances in told)
                self._done.lines.append(Line(name, None, None, others, rest))
        return self._done

    def edit(self, changing: Changing, progress: OnProgress | None) -> Done:
        """Do it."""
        for member, which, answer in self._answers(progress):
            self._count(member, which, changed=answer.edited is not None)
            if answer.edited is not None:
                if which == REFERS:
                    self._referring.append(member.ino)
                put(changing, member, answer.edited)
        if self._done.refused and not self._options.skip_refused:
            return self._done
        if not changing.is_empty:
            changing.records.edit = Definition(self._plan.changes, frozenset(self._referring)).to_json()
            self._done.seq = changing.done(self._done.warnings.append)
        return self._done

    def _count(self, member: Member, which: str, *, changed: bool) -> None:
        if which == REFERS:
            if changed:
                self._done.references += 1
                self._done.referring.append(member.sop_instance_uid)
        elif changed:
            self._done.edited += 1
        else:
            self._done.unchanged += 1

    def _answers(self, progress: OnProgress | None) -> Iterator[tuple[Member, str, Answer]]:
        """Have all done by processes; yield what was made of each instance, but for those that are refused."""
        dry = self._options.dry_run
        told = json.dumps(self._plan.changes.to_json()), dry
        setting = Setting(self._path, told, editing_worker.__name__, WORK, _TIME_S)
        done = 0
        with Derivers["tuple[Member, str]", Answer](setting, self._options.jobs) as derivers:
            for (member, which), made in derivers.run(_batches(self._items())):
                done += 1
                if isinstance(made, str):
                    self._done.refused.append((member.sop_instance_uid, made))
                else:
                    yield member, which, made
                if progress is not None and done % 16 == 0:
                    progress(Progress(done, max(done, len(self._plan.members)), 0, 0))

    def _items(self) -> Iterator[tuple[Member, str]]:
        for member in self._plan.members:
            yield member, CHOSEN
        if self._plan.patients:
            with self._archive.view() as view:
                others = list(beside(view, self._plan.patients, self._plan.members))
            for member in others:
                yield member, REFERS


def put(changing: Changing, member: Member, made: Edited) -> None:
    """Record the next version of an instance."""
    new_bulk = new_stored = 0
    for blob in made.blobs:
        if add(changing, blob):
            new_bulk += blob.length
            new_stored += len(blob.stored)
    before = changing.view.instance(member.ino).attributes
    after = made.row.attributes.instance
    keeps = own_name(before) == own_name(after)
    changing.replace(member.ino, made.row, new_bulk, new_stored, conflict=not member.current, keep_name=keeps)


def add(changing: Changing, blob: NewBlob) -> bool:
    """Store a blob unless it is there; say whether it was not."""
    name, codec, length, stored, crc, checks = blob
    return changing.writer.add_blob(BlobId(name), codec, length, stored, crc, checks)


def own_name(said: Mapping[str, str | int]) -> str:
    """Return the name that an instance would have if it were alone."""
    return PATIENTS.render_level(3, said, str(said["SOPInstanceUID"]))


def _batches(
    items: Iterable[tuple[Member, str]],
) -> Iterator[list[tuple[tuple[Member, str], Item]]]:
    batch: list[tuple[tuple[Member, str], Item]] = []
    for member, which in items:
        ends = bool(batch) and batch[-1][0][0].series != member.series
        if len(batch) >= (_BATCH // _NEARLY if ends else _BATCH):
            yield batch
            batch = []
        batch.append(((member, which), (member.ino, which, member.series)))
    if batch:
        yield batch
