"""The records of one commit: what its JSON says, which docs/format.md describes for everybody.

    {"op": "import", "by": …, "patients": [[number, identity, attributes]],
     "studies": [[number, identity, patient, attributes]], "series": [[number, identity, study, attributes]],
     "study_patients": [[study, patient]], "directories": [[ino, identity, parent, name]],
     "instances": [InstanceRow as a list]}

and of layouts, projects, attachments, versions and what was forgotten of them what fold_layouts.py, fold_projects.py,
fold_attachments.py, fold_versions.py and fold_forgetting.py say.
"""

import json
from typing import Final, NamedTuple, TypeAlias

from dicomfs.archive import fold_attachments, fold_forgetting, fold_layouts, fold_projects, fold_versions
from dicomfs.archive.fold_projects import DerivedRow
from dicomfs.archive.fold_versions import RestoredRow

Value: TypeAlias = str | int
Attributes: TypeAlias = dict[str, Value]

LEFT_OUT: Final = (
    fold_layouts.KEYS + fold_projects.KEYS + fold_attachments.KEYS + fold_versions.KEYS + fold_forgetting.KEYS
)
"""The keys that a commit has only where there is something to say."""


class InstanceRow(NamedTuple):
    """What a commit records of one instance; offsets are in the commit's body, lengths in bytes."""

    ino: int
    series: int
    study: int
    parent: int
    name: str
    size: int
    sha256: str
    base: str
    body_offset: int
    body_length: int
    literal_length: int
    new_bulk: int
    """How many bytes of the file's blobs no earlier file had."""
    new_stored: int
    """How many bytes those take in the pack."""
    new_base: int
    """How many bytes a new base took in the pack."""
    replaces: int
    """The inode of the instance that this one takes the place of, or 0."""
    attributes: Attributes


class Records:
    """The records of one commit, in the order of the JSON."""

    def __init__(self) -> None:
        self.patients: list[tuple[int, str, Attributes]] = []
        self.studies: list[tuple[int, str, int, Attributes]] = []
        self.series: list[tuple[int, str, int, Attributes]] = []
        self.study_patients: list[tuple[int, int]] = []
        self.directories: list[tuple[int, str, int, str]] = []
        self.layouts: list[tuple[int, str, str]] = []
        self.layouts_off: list[int] = []
        self.folders: list[tuple[int, str, int, str]] = []
        self.links: list[tuple[int, int, int, str]] = []
        self.placed: list[tuple[int, int]] = []
        self.projects: list[tuple[int, str, dict[str, object]]] = []
        self.projects_off: list[int] = []
        self.derived: list[DerivedRow] = []
        self.withheld: list[tuple[int, int, str]] = []
        self.attachments: list[tuple[int, str, str, str, str, int]] = []
        self.reason = self.run = ""
        self.edit: object = None
        self.deleted: list[int] = []
        self.restored: list[RestoredRow] = []
        self.superseded: list[tuple[int, int]] = []
        self.current: list[int] = []
        self.merged: object = None
        self.restated: list[tuple[str, list[tuple[object, ...]]]] = []
        self.renamed: list[tuple[int, str]] = []
        self.instances: list[str] = []
        """As JSON already: thousands of rows would cost memory, and time to look through."""

    def add(self, row: InstanceRow, attributes: str) -> None:
        """Add an instance, with the JSON of its attributes."""
        (ino, series, study, parent, name, size, sha256, base, offset, length, literal,
         bulk, stored, new_base, replaces, _) = row  # fmt: skip
        self.instances.append(
            f'[{ino},{series},{study},{parent},{encode(name)},{size},"{sha256}","{base}",{offset},{length},{literal},'
            f"{bulk},{stored},{new_base},{replaces},{attributes}]"
        )

    def encode(self, op: str, by: str) -> bytes:
        """Return the commit's JSON."""
        kept = {name: rows for name, rows in vars(self).items() if rows or name not in LEFT_OUT}
        head = encode({"op": op, "by": by, **kept, "instances": []}).removesuffix("]}")
        return as_bytes(f"{head}{','.join(self.instances)}]}}")


encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def as_bytes(text: str) -> bytes:
    """Return text as UTF-8, whatever it holds."""
    return text.encode("utf-8", "surrogatepass")
