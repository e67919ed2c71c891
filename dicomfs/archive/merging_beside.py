"""What an archive has beside its instances: attachments, the latest of which is shown, and files that were refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dicomfs.archive import quarantine
from dicomfs.archive.changing import Changing
from dicomfs.archive.merging_copying import Copier
from dicomfs.archive.merging_facts import Attached, Facts, Told
from dicomfs.archive.quarantine import SourceLost
from dicomfs.store.recipe import BlobId

_NAME: Final = re.compile(r"[0-9a-f]{64}\.dcm").fullmatch
_REASON_AT_MOST: Final = 4096


def lacking(known: Facts, facts: Facts) -> tuple[set[Attached], list[Attached]]:
    """Return the attachments that an archive does not know, and those that are to come after them to be shown again."""
    new = facts.attached - known.attached
    last: dict[tuple[str, str], Attached] = {}
    for one in sorted(facts.attached):
        last[one.patient, one.kind] = one
    again = [one for one in last.values() if one not in new and any(_same(one, other) for other in new)]
    return new, again


def _same(one: Attached, other: Attached) -> bool:
    return (one.patient, one.kind) == (other.patient, other.kind)


def attach(changing: Changing, one: Attached, copier: Copier) -> None:
    """Attach a document in the commit in the making; raise Damaged where it cannot be copied."""
    if one.blob and not changing.writer.has_blob(BlobId(bytes.fromhex(one.blob))):
        copier.blob(BlobId(bytes.fromhex(one.blob)), changing.writer)
        changing.writer.flush()
    row = (changing.fold.next, one.patient, one.kind, one.name, one.blob, one.size)
    changing.records.attachments.append(row)
    changing.fold.attachment(*row)


def as_told(new: set[Attached]) -> Told:
    """Return what a commit tells of attachments."""
    told = Told()
    for one in sorted(new):
        told.attach(one)
    return told


def not_quarantined(path: Path, other: Path) -> list[Path]:
    """Return the files that the other archive refused and this one does not keep."""
    try:
        names = sorted(entry.name for entry in (other / quarantine.DIRECTORY).iterdir())
    except OSError:
        return []
    kept = path / quarantine.DIRECTORY
    return [
        other / quarantine.DIRECTORY / name for name in names
        if _NAME(name) and not ((kept / name).exists() and (kept / name).with_suffix(".txt").exists())
    ]  # fmt: skip


def take_over(path: Path, source: Path, warn: Callable[[str], None]) -> bool:
    """Keep a refused file here too, with its reason; `warn` of one that cannot be read."""
    try:
        with source.with_suffix(".txt").open(encoding="utf-8", errors="replace") as file:
            reason = file.read(_REASON_AT_MOST).strip()
    except OSError:
        reason = "refused by another archive"
    try:
        quarantine.keep(path, str(source), reason, source.stem)
    except SourceLost as error:
        warn(f"{source}: {error}")
        return False
    return True
