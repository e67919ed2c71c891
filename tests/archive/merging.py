"""What tests of merges share: archives copied, edited apart and joined, and what each shows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dicomfs.archive.archive import Archive
from dicomfs.archive.changing import Changing
from dicomfs.archive.committing import writing
from dicomfs.archive.editing import edited
from dicomfs.archive.merging import MergeReport, merge
from dicomfs.dicom.edit import Changes
from dicomfs.store.recipe import BlobId

if TYPE_CHECKING:
    from collections.abc import Mapping

Uid = str


class State(NamedTuple):
    """What an archive shows, whatever numbers and names it gave."""

    shown: dict[Uid, tuple[str, ...]]
    """SHA-256 of the files of each SOP Instance UID, the current one first."""
    deleted: frozenset[Uid]
    files: frozenset[str]
    """All versions, earlier ones too."""


def state(archive: Path) -> State:
    """Return what an archive shows."""
    shown: dict[Uid, list[str]] = {}
    files: set[str] = set()
    uids: set[Uid] = set()
    with Archive.open(archive) as opened, opened.view() as view:
        for ino in view.inodes():
            node = view.node(ino)
            if node is None or node.is_directory or node.is_derived:
                continue
            one = view.instance(ino)
            uid = str(one.attributes["SOPInstanceUID"])
            uids.add(uid)
            files.add(one.sha256.hex())
            if node.parent:
                shown.setdefault(uid, []).insert(0 if one.current else len(shown.get(uid, [])), one.sha256.hex())
        deleted = frozenset(uid for uid in uids if view.is_deleted(uid))
    ordered = {uid: (held[0], *sorted(held[1:])) for uid, held in shown.items()}
    return State(ordered, deleted, frozenset(files))


def copied(archive: Path, name: str) -> Path:
    """Copy an archive."""
    return Path(shutil.copytree(archive, archive.parent / name))


_seconds = iter(range(10**6))


def edit(archive: Path, instances: list[Uid], reason: str = "", **values: object) -> Changes:
    """Edit instances: `set` by tag, and what else Changes takes."""
    at = next(_seconds)
    changes = Changes(time=f"2026-01-01T{at // 3600 % 24:02d}:{at // 60 % 60:02d}:{at % 60:02d}Z", **values)  # type: ignore[arg-type]
    apply(archive, instances, changes, reason)
    return changes


def apply(archive: Path, instances: list[Uid], changes: Changes, reason: str = "") -> None:
    """Make an edit in one commit."""
    with writing(archive, "a test", 0.0) as opened:
        changing = Changing(archive, opened, "edit", reason, changes.to_json())
        for uid in instances:
            ino = changing.view.instances_where_uid(uid)[0]
            made = edited(changing.archive, ino, changes)
            if made is None:
                continue
            for blob, codec, length, data, crc, checks in made.blobs:
                changing.writer.add_blob(BlobId(blob), codec, length, data, crc, checks)
            changing.replace(ino, made.row)
        changing.done(lambda _: None)


def numbers(archive: Path) -> Mapping[Uid, list[int]]:
    """Return the instances of each SOP Instance UID."""
    with Archive.open(archive) as opened, opened.view() as view:
        return {uid: view.instances_where_uid(uid) for uid in state_uids(archive)}


def state_uids(archive: Path) -> set[Uid]:
    """Return the SOP Instance UIDs that are shown."""
    return set(state(archive).shown)


def both(one: Path, other: Path) -> tuple[Path, Path, MergeReport, MergeReport]:
    """Merge copies of two archives, either way; return them, and what was reported."""
    first, second = copied(one, f"{one.name}+{other.name}"), copied(other, f"{other.name}+{one.name}")
    return first, second, merge(first, other), merge(second, one)
