"""Delete what is named, and bring back what was deleted or replaced: each call is one commit, or none.

What is chosen is chosen under the archive's lock, so that nothing can happen to it in between.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import View
from dicomfs.archive.changing import Changing, require_reason
from dicomfs.archive.committing import writing
from dicomfs.archive.selection import Selection, versions
from dicomfs.errors import NotFound, Refused, UsageError

_SHORTEST_DIGEST: Final = 6
_DIGITS: Final = frozenset("0123456789abcdef")


class Left(NamedTuple):
    """A version that cannot come back, and why."""

    ino: int
    sop_instance_uid: str
    reason: str


class _Back(NamedTuple):
    """A version that is to come back, and the one in whose place though that was not made of it, or 0."""

    ino: int
    instead: int


@dataclass(slots=True)
class Changed:
    """What was deleted or restored, or would be."""

    seq: int = 0
    """The commit; 0 where nothing was done."""
    instances: int = 0
    series: int = 0
    studies: int = 0
    size: int = 0
    left: list[Left] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


_Plan = tuple[list[_Back], list[Left]]


def delete(
    archive_path: Path,
    selection: Selection,
    reason: str = "",
    version: str = "",
    *,
    dry_run: bool = False,
    wait_s: float = 0.0,
) -> Changed:
    """Take all shown versions of what is named out of everything, or one of one instance, by its number or SHA-256.

    Raise NotFound where nothing of it is shown.
    """
    _require(selection, reason, version)
    if dry_run:
        with Archive.open(archive_path) as archive, archive.view() as view:
            return _sums(view, _to_delete(archive, view, selection, version))
    with writing(archive_path, "dicomfs delete", wait_s) as opened:
        changing = Changing(archive_path, opened, "delete", reason)
        numbers = _to_delete(changing.archive, changing.view, selection, version)
        done = _sums(changing.view, numbers)
        for ino in numbers:
            changing.delete(ino)
        done.seq = changing.done(done.warnings.append)
    return done


def restore(
    archive_path: Path,
    selection: Selection,
    version: str = "",
    reason: str = "",
    *,
    dry_run: bool = False,
    wait_s: float = 0.0,
) -> Changed:
    """Bring back what was deleted of what is named, or one version of one instance, by its number or SHA-256.

    Raise NotFound where there is nothing to bring back, Refused for a version that is shown.
    """
    _require(selection, reason, version)

    def plan(archive: Archive, view: View) -> _Plan:
        found = versions(archive, view, selection)
        return (_version(view, found, version) if version else _deleted(view, found)), []

    return _restore(archive_path, plan, reason, dry_run=dry_run, wait_s=wait_s)


def undo(archive_path: Path, seq: int, reason: str = "", *, dry_run: bool = False, wait_s: float = 0.0) -> Changed:
    """Bring back what one commit deleted or replaced, but for that to which something happened since.

    Raise NotFound where there is no such commit, Refused where it took nothing out.
    """
    _require(None, reason)
    return _restore(
        archive_path, lambda _, view: _taken_out(view, seq), reason or f"undo {seq}", dry_run=dry_run, wait_s=wait_s
    )


def _restore(
    archive_path: Path, plan: Callable[[Archive, View], _Plan], reason: str, *, dry_run: bool, wait_s: float
) -> Changed:
    if dry_run:
        with Archive.open(archive_path) as archive, archive.view() as view:
            back, left = plan(archive, view)
            done = _sums(view, [one.ino for one in back])
            done.left = left
            return done
    with writing(archive_path, "dicomfs restore", wait_s) as opened:
        changing = Changing(archive_path, opened, "restore", reason)
        back, left = plan(changing.archive, changing.view)
        done = _sums(changing.view, [one.ino for one in back])
        done.left = left
        for one in back:
            changing.restore(one.ino, one.instead or None)
        done.seq = changing.done(done.warnings.append)
    return done


def _require(selection: Selection | None, reason: str, version: str = "") -> None:
    if selection is not None and selection.is_empty:
        raise UsageError("name what is meant by --study-uid, --series-uid or --sop-uid")
    if selection is not None and version and len(selection.instances) != 1:
        raise UsageError("a version is one of one instance: name that by --sop-uid")
    require_reason(reason)


def _sums(view: View, numbers: Iterable[int]) -> Changed:
    found = Changed()
    series: set[int] = set()
    for ino in numbers:
        inode = view.instance_inode(ino)
        found.instances += 1
        found.size += inode.size
        series.add(inode.series)
    found.series = len(series)
    found.studies = len({view.series(number).study for number in series})
    return found


def _is_shown(view: View, ino: int) -> bool:
    return view.instance_inode(ino).parent != tables.NOWHERE


def _to_delete(archive: Archive, view: View, selection: Selection, version: str) -> list[int]:
    found = versions(archive, view, selection)
    chosen = [_one_version(view, found, version)] if version else found
    shown = [ino for ino in chosen if _is_shown(view, ino)]
    if not shown:
        raise NotFound(
            "nothing of that is shown, as it was deleted or replaced already; see 'dicomfs history'"
            if found else "the archive has nothing of that"
        )  # fmt: skip
    return shown


# What comes back ----------------------------------------------------------------------------------


def _deleted(view: View, named: list[int]) -> list[_Back]:
    """Return the versions that were deleted last of each SOP Instance UID of which nothing is shown."""
    last: dict[str, int] = {}
    found: list[tuple[int, str, int]] = []
    for ino in named:
        past = view.past(ino)
        if past is None or past.by:
            continue
        uid = _uid(view, ino)
        if not view.is_shown(uid):
            found.append((ino, uid, past.seq))
            last[uid] = max(last.get(uid, 0), past.seq)
    if not found:
        raise NotFound(
            "nothing of that is deleted; 'dicomfs history --sop-uid' lists earlier versions of an instance"
            if named else "the archive has nothing of that"
        )  # fmt: skip
    return [_Back(ino, 0) for ino, uid, seq in found if seq == last[uid]]


def _version(view: View, numbers: list[int], text: str) -> list[_Back]:
    """Return the version of an instance that is meant, to be brought back."""
    ino = _one_version(view, numbers, text)
    past = view.past(ino)
    if past is None:
        raise Refused("this version is shown already")
    since = [] if past.by else _since(view, _uid(view, ino), past.seq)
    return [_Back(ino, since[0] if since else 0)]


def _one_version(view: View, numbers: list[int], text: str) -> int:
    """Return the version of an instance that this number, or this beginning of a SHA-256, stands for."""
    text = text.lower()
    if text.isdecimal() and len(text) < _SHORTEST_DIGEST:
        chosen = numbers[int(text) - 1 : int(text)] if int(text) else []
    elif len(text) >= _SHORTEST_DIGEST and _DIGITS.issuperset(text):
        chosen = _with_digest(view, numbers, text)
    else:
        raise UsageError(
            f"'{text}' is no version: give its number, or the first {_SHORTEST_DIGEST} or more digits of its SHA-256"
        )
    if len(chosen) != 1:
        several = "more than one version" if chosen else "no version"
        raise NotFound(f"{several} of this instance is meant by '{text}'; see 'dicomfs history --sop-uid'")
    return chosen[0]


def _with_digest(view: View, numbers: list[int], beginning: str) -> list[int]:
    """Return the versions whose SHA-256 begins so; of several that are the same file, the one shown or the last."""
    found: dict[bytes, int] = {}
    for ino in numbers:
        digest = view.instance_inode(ino).sha256
        if digest.hex().startswith(beginning) and not (digest in found and _is_shown(view, found[digest])):
            found[digest] = ino
    return list(found.values())


def _taken_out(view: View, seq: int) -> _Plan:
    """Return what a commit took out and can come back, and what cannot."""
    view.event(seq)
    records = view.records(seq)
    numbers = {int(ino) for ino in records.get("deleted", ())}
    numbers |= {int(row[14]) for row in records.get("instances", ())}
    numbers |= {int(row[3]) for row in records.get("restored", ())}
    numbers.discard(0)
    if not numbers:
        raise Refused(f"commit {seq} deleted and replaced nothing; 'dicomfs delete' takes out what came with it")
    back: list[_Back] = []
    left: list[Left] = []
    for ino in sorted(numbers):
        try:
            reason = _why_not(view, ino, seq)
            uid = _uid(view, ino)
        except NotFound:
            uid, reason = "", "it was lost with a pack"
        if reason:
            left.append(Left(ino, uid, reason))
        else:
            back.append(_Back(ino, 0))
    return back, left


def _why_not(view: View, ino: int, seq: int) -> str:
    """Say what happened since a commit to a version that it took out, '' if nothing."""
    past = view.past(ino)
    if past is None:
        return "it is shown again"
    if past.seq != seq:
        return f"it came back since, and was taken out again by commit {past.seq}"
    if not past.by:
        return "another file of its SOP Instance UID came since" if _since(view, _uid(view, ino), seq) else ""
    later = view.past(past.by)
    if later is not None:
        what = "replaced" if later.by else "deleted"
        return f"what took its place was {what} since, by commit {later.seq}"
    if view.instance_inode(past.by).mtime_ns != view.event(seq).time_ns:
        return "what took its place came back since"
    return ""


def _since(view: View, uid: str, seq: int) -> list[int]:
    """Return the versions of a SOP Instance UID that are shown, and were not before a commit."""
    time_ns = view.event(seq).time_ns
    inodes = ((ino, view.instance_inode(ino)) for ino in view.instances_where_uid(uid))
    return [ino for ino, inode in inodes if inode.parent != tables.NOWHERE and inode.mtime_ns > time_ns]


def _uid(view: View, ino: int) -> str:
    return str(view.attributes_of(view.instance_inode(ino).series, ino)["SOPInstanceUID"])
