"""What becomes of an input, and the report of an import."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeAlias


class Outcome(StrEnum):
    """Each input ends in exactly one of these."""

    IMPORTED = "imported"
    PRESENT = "present"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"
    SKIPPED = "skipped"
    FAILED = "failed"
    DELETED = "deleted"


class FileResult(NamedTuple):
    """What became of one input; `explicit` where it was named itself, not found in a directory."""

    source: str
    outcome: Outcome
    reason: str
    size: int
    sha256: str
    sop_instance_uid: str
    explicit: bool = False
    remarks: tuple[str, ...] = ()
    """What is to be known of a file that was built for the import."""

    @property
    def told(self) -> str:
        """The reason and the remarks."""
        return "; ".join(filter(None, (self.reason, *self.remarks)))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import or a check is; totals are 0 where they are not known."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


OnProgress: TypeAlias = Callable[[Progress], None]


@dataclass(slots=True)
class ImportReport:
    """The sums of one run; sizes in bytes."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    bytes_in: int = 0
    """Bytes of the files that were imported."""
    bytes_stored: int = 0
    """By how much the packs grew."""
    seconds: float = 0.0
    run_directory: Path | None = None
    stopped: str = ""
    """Why the run ended before its last input, or empty."""
    interrupted: int = 0
    """The signal that ended the run, or 0."""
    not_imported: int = 0
    """Conflicting files that were kept out although nobody asked for that."""
    remarks: Counter[str] = field(default_factory=Counter)
    """How many files were built for the import, and what is to be known of them."""
    warnings: list[str] = field(default_factory=list)
    """What is not as it should be though all files are there: a live project that could not be gone on with."""
    explicit_skipped: int = 0
    """Inputs named themselves that are no DICOM instances."""

    @property
    def complete(self) -> bool:
        """Whether all that was asked was done."""
        refused = sum(self.outcomes[one] for one in (Outcome.QUARANTINED, Outcome.FAILED, Outcome.DELETED))
        return not (self.stopped or refused or self.not_imported or self.explicit_skipped)
