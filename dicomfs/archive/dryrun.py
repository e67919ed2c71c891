"""Tell what an import would do, and write nothing."""

from collections.abc import Iterator
from pathlib import Path

from dicomfs.archive import inputs as sources
from dicomfs.archive.archive import Archive
from dicomfs.archive.inputs import Input
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.results import CONFLICT_REASONS, DELETED, RESTORED, OnConflict, Results
from dicomfs.archive.splitting import Row
from dicomfs.archive.worker import Ended
from dicomfs.archive.workers import Workers


def dry_run(
    root: Path,
    codec: str,
    jobs: int,
    found: Iterator[Input],
    results: Results,
    on_conflict: OnConflict,
    *,
    restore_deleted: bool,
) -> None:
    """Read and judge every input as an import would."""
    files: set[bytes] = set()
    uids: set[str] = set()
    with Archive.open(root) as archive, Workers(root, codec, jobs, dry_run=True) as workers:
        for answer in workers.run(sources.batches(found, results.note)):
            for item in answer.items:
                if isinstance(item, Ended):
                    results.add(*item, settled=True)
                elif isinstance(item, Row):
                    uid = str(item.attributes.instance["SOPInstanceUID"])
                    with archive.view() as view:
                        conflict = uid in uids or view.is_shown(uid)
                        deleted = not conflict and view.is_deleted(uid)
                        edited = not (conflict or deleted) and view.ino_of_file(item.sha256) is not None
                    outcome = Outcome.CONFLICT if conflict else Outcome.IMPORTED
                    outcome = Outcome.PRESENT if item.sha256 in files or edited else outcome
                    reason = CONFLICT_REASONS[on_conflict] if outcome is Outcome.CONFLICT else ""
                    if deleted:
                        reason = RESTORED if restore_deleted else DELETED
                        outcome = Outcome.IMPORTED if restore_deleted else Outcome.DELETED
                    results.add(outcome, reason, item.size, item.sha256, uid, settled=True)
                    if outcome is not Outcome.DELETED and (not conflict or on_conflict in ("keep", "replace")):
                        files.add(item.sha256)
                        uids.add(uid)
