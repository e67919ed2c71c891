"""Projects for tests, written as commits have them: members as they are, what was made of them, or why nothing was."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import zstandard

from dicomfs.archive.archive import NO_BASE
from dicomfs.archive.fold import Fold
from dicomfs.archive.fold_projects import DerivedRow
from dicomfs.archive.ingest import open_for_writing
from dicomfs.archive.project_definition import Definition, to_json
from dicomfs.archive.records import Records
from dicomfs.store import recipe
from dicomfs.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIME_NS = 1_700_000_000 * 10**9


def commit(
    archive: Path, definition: Definition, members: Mapping[int, bytes | str | None], *, placed: bool = True
) -> int:
    """Make a project of instances, each with the file derived from it, a reason, or None; return its root."""
    store = open_for_writing(archive)
    writer = Writer(store)
    records, fold = Records(), Fold(store, writer.txn, writer.seq, TIME_NS)
    root = fold.next
    kind = "DeID" if definition.deid else "PHI"
    name = f"{kind}_{definition.name}_{definition.timestamp}"
    records.projects.append((root, name, to_json(definition)))
    fold.project(root, name, to_json(definition))
    folders = {}
    for shown in ("images", "quarantine"):
        folders[shown] = fold.next
        folder = (fold.next, hashlib.sha256(f"{root}{shown}".encode()).hexdigest()[:32], root, shown)
        records.folders.append(folder)
        fold.folder(*folder)
    for number, (ino, what) in enumerate(members.items(), start=1):
        if isinstance(what, bytes):
            words = recipe.encode([(len(what), None)])
            header = len(words).to_bytes(4, "little") + words + what
            body = zstandard.compress(header)
            row = DerivedRow(
                fold.next, root, ino, folders["images"], f"{number}.dcm", len(what), hashlib.sha256(header).hexdigest(),
                NO_BASE.hex(), writer.add_body(body), len(body), len(what), 0,
            )  # fmt: skip
            records.derived.append(row)
            fold.derived(row)
            continue
        link = (ino, root, folders["images" if what is None else "quarantine"], f"{number}.dcm")
        records.links.append(link)
        fold.link(*link)
        if what is not None:
            records.withheld.append((ino, root, what))
            fold.withheld(ino, root, what)
    if placed:
        records.placed.append((root, fold.next - 1))
        fold.placed(root, fold.next - 1)
    fold.finish("project", "somebody")
    writer.commit(records.encode("project", "somebody"), TIME_NS)
    writer.close()
    store.close()
    return root
