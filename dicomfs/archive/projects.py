"""Make projects, go on with them and remove them: what somebody chose, in a tree of its own below `projects/`.

    projects/PHI_<name>_<time>/images/…      the instances themselves: hard links
    projects/DeID_<name>_<time>/…            files that were derived from them, and quarantine/ for what was withheld

Members come in the order studies, series, slices, in commits of bounded size. Whoever is stopped goes on where it was,
for what is in the project is passed by. A static project is frozen when it is finished; a live one is gone on with at
the end of each import.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dicomfs.archive import project_keys, project_tables, query
from dicomfs.archive.archive import Archive
from dicomfs.archive.by_project import ProjectState
from dicomfs.archive.committing import Committing, Opened, writing
from dicomfs.archive.outcome import OnProgress
from dicomfs.archive.project_definition import Asked, Condition, Definition, Failed
from dicomfs.archive.project_lists import ListQuery
from dicomfs.archive.project_making import Done, Making
from dicomfs.archive.project_members import Chosen, choose
from dicomfs.errors import DicomfsError, StorageFull, UsageError

MAX_PROJECTS: Final = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a project is to be made of: the instances that meet all conditions, and are in the list if there is one."""

    name: str
    where: tuple[Condition, ...] = ()
    live: bool = False
    deid: str = ""
    """The text of a profile, '' for a project of the instances themselves."""
    headers: tuple[str, ...] = ()
    source: str = ""
    queries: tuple[Asked, ...] = ()
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A project and how much is in it."""

    state: ProjectState
    instances: int
    withheld: int


def create(
    archive_path: Path,
    wanted: Wanted,
    progress: OnProgress | None = None,
    *,
    listed: Sequence[ListQuery] = (),
    jobs: int = 0,
    wait_s: float = 0.0,
    module: str = "",
) -> Done:
    """Make a project; go on with one that was asked for in the same way and not finished.

    `listed` are the rows of the list, of which those that find nothing are told in the project. `module` is what the
    processes run that de-identify, for tests.
    """
    wanted = _understood(wanted)
    with writing(archive_path, "dicomfs project create", wait_s) as opened:
        making = Making(archive_path, opened, jobs, module)
        states = making.view.projects()
        state = next((one for one in states if _is_begun(one, wanted)), None)
        if state is None:
            if sum(one.on for one in states) >= MAX_PROJECTS:
                raise UsageError(f"an archive can have {MAX_PROJECTS} projects; remove one first")
            state = making.begin(_definition(replace(wanted, failed=making.failed(listed)), time.time()))
        return making.go_on(state, progress)


def resume(
    archive_path: Path,
    name: str,
    progress: OnProgress | None = None,
    *,
    jobs: int = 0,
    wait_s: float = 0.0,
    module: str = "",
) -> Done:
    """Go on with a project that was not finished, or that is live."""
    with writing(archive_path, "dicomfs project resume", wait_s) as opened:
        making = Making(archive_path, opened, jobs, module)
        states = making.view.projects()
        if all(state.frozen for state in named(states, name)):
            raise UsageError(f"the project '{find(states, name).directory}' is finished, and not live")
        return making.go_on(find([state for state in states if not state.frozen], name), progress)


def remove(archive_path: Path, name: str, *, forget_key: bool = False, wait_s: float = 0.0) -> ProjectState:
    """Remove a project for good; its files stay in the packs, and its key where it is unless it is to be forgotten."""
    with writing(archive_path, "dicomfs project remove", wait_s) as opened:
        committing = Committing(opened, "project")
        state = find(committing.view.projects(), name)
        committing.records.projects_off.append(state.root)
        committing.fold.project_off(state.root)
        committing.commit()
        project_tables.forget(archive_path / "cache", state.root)
        if forget_key:
            project_keys.forget(archive_path, state.root)
    return state


def catch_up(
    archive_path: Path, opened: Opened, warn: Callable[[str], None], jobs: int, stop: Callable[[], bool]
) -> None:
    """Add to live projects what an import brought; `warn` is told of those for which that cannot be done."""
    making = Making(archive_path, opened, jobs, stop=stop)
    for state in making.view.projects():
        if not (state.on and state.definition.live and state.through) or stop():
            continue
        try:
            making.go_on(state)
        except StorageFull:
            raise
        except DicomfsError as error:
            warn(f"project {state.directory} is not up to date: {error}; then run 'dicomfs project resume "
                 f"{state.directory}'")  # fmt: skip
            if making.pending:
                return  # what was begun for it would be committed with what is for another


def preview(archive: Archive, wanted: Wanted) -> Chosen:
    """Find what a project would be made of; change nothing."""
    wanted = _understood(wanted)
    return choose(archive, 0, _definition(wanted))


def listed(archive: Archive) -> list[Listed]:
    """Return the projects that were not removed, in the order in which they came."""
    found = []
    with archive.view() as view:
        for state in view.projects():
            if state.on:
                reasons = [bool(member.reason) for member in view.members(state.root)]
                found.append(Listed(state, len(reasons) - sum(reasons), sum(reasons)))
    return found


def withheld(archive: Archive, root: int) -> Counter[str]:
    """Return why instances are withheld from a project, and how many for each reason, the most first."""
    with archive.view() as view:
        found = Counter(member.reason for member in view.members(root) if member.reason)
    return Counter(dict(found.most_common()))


def named(states: Sequence[ProjectState], name: str) -> list[ProjectState]:
    """Return the projects with this name, or the one with this directory."""
    on = [state for state in states if state.on]
    found = [state for state in on if state.directory.lower() == name.lower()]
    return found or [state for state in on if state.definition.name.lower() == name.lower()]


def find(states: Sequence[ProjectState], name: str) -> ProjectState:
    """Return the project with this name, or this directory; raise UsageError where there is not one of them."""
    found = named(states, name)
    if not found:
        raise UsageError(f"there is no project '{name}'; see 'dicomfs project list'")
    if len(found) > 1:
        raise UsageError(f"there are {len(found)} projects '{name}': name the directory, such as {found[-1].directory}")
    return found[0]


def _understood(wanted: Wanted) -> Wanted:
    """Return the same with its profile in the one way to write it; raise UsageError for what cannot be."""
    if not _NAME(wanted.name):
        raise UsageError(f"'{wanted.name}' cannot be the name of a project: use up to 64 letters, digits, '-' and '_'")
    if wanted.source and not wanted.queries:
        raise UsageError("nothing can be looked for by any row of the list")
    if not wanted.where and not wanted.source:
        raise UsageError("a project is made of what meets a condition or is in a list: give one")
    query.require(wanted.where)
    for keyword in wanted.headers:
        query.require(((keyword, "*"),))
    if not wanted.deid:
        return wanted
    from dicomfs.dicom.deidentify import Profile

    return replace(wanted, deid=Profile.parse(wanted.deid).text)


def _definition(wanted: Wanted, created: float = 0.0) -> Definition:
    return Definition(
        wanted.name,
        datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        time.strftime("%Y%m%d%H%M%S", time.localtime(created)),
        wanted.where,
        wanted.live,
        wanted.deid,
        wanted.headers,
        wanted.source,
        wanted.queries,
        wanted.failed,
    )


def _is_begun(state: ProjectState, wanted: Wanted) -> bool:
    """Say whether this is what is asked for, and not finished."""
    there = state.definition
    asked = _definition(wanted)._replace(
        created=there.created, timestamp=there.timestamp, version=there.version, failed=there.failed, key=there.key
    )
    return state.on and not state.through and there == asked
