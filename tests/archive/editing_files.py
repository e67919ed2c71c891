"""What tests of edits share: edits by archive-level calls, and files before and after by independent readers."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, NamedTuple

from pydicom import dcmread

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.editing_plan import Asked
from dicomfs.archive.editing_run import Options, edit_instances
from dicomfs.archive.editing_selection import Selection
from dicomfs.dicom.edit_settings import parse_setting
from tests.archive.importing import tree
from tests.dicom.test_edit_corpus import compare

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydicom import Dataset

    from dicomfs.archive.editing_run import Done

ORIGINAL_ATTRIBUTES = 0x04000561
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


class File(NamedTuple):
    """A file that is shown."""

    ino: int
    path: str
    data: bytes
    replaced: int
    """The inode number of the version before, 0 for none."""

    @property
    def data_set(self) -> Dataset:
        return read(self.data)


def read(data: bytes) -> Dataset:
    """Read a file by pydicom, with the bytes of values as they are."""
    return dcmread(io.BytesIO(data), force=True)


def files(archive: Path) -> dict[int, File]:
    """Return all files that are shown, by their inode numbers."""
    found = {}
    shown = tree(archive)
    with Archive.open(archive) as opened:
        for path, one in shown.items():
            file = opened.open_instance(one.ino)
            found[one.ino] = File(one.ino, path, bytes(file.read(0, file.size)), 0)
        with opened.view() as view:
            past = [ino for ino in view.inodes() if (node := view.node(ino)) is not None and not node.is_directory]
            for ino in past:
                version = view.past(ino)
                if version is not None and version.by in found:
                    found[version.by] = found[version.by]._replace(replaced=ino)
    return found


def edit(archive: Path, selection: Selection, *settings: str, **options: object) -> Done:
    """Edit what is chosen, by one process."""
    run = {key: options.pop(key) for key in ("dry_run", "skip_refused", "reason") if key in options}
    asked = Asked(set=dict(map(parse_setting, settings)), **options)  # type: ignore[arg-type]
    return edit_instances(archive, selection, asked, Options(jobs=1, **run))  # type: ignore[arg-type]


def differs(before: bytes, after: bytes, tags: Iterable[int], uids: dict[str, str] | None = None) -> set[int]:
    """Return what differs between two files that should not: but for these tags, and what is kept of them."""
    renewed = {old.encode(): new.encode() for old, new in (uids or {}).items()}
    asked = frozenset(tags) | {ORIGINAL_ATTRIBUTES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which pydicom gives of what is wrong in both
        one, other = read(before), read(after)
        found = compare(one, other, asked, renewed, converted=False)
        for tag in PIXELS:
            assert (tag in one) == (tag in other)
            if tag in one:
                assert one.get_item(tag).value == other.get_item(tag).value
    return found


def is_whole(archive: Path) -> None:
    """Every byte is as the catalog says."""
    assert check(archive, verify_files=True).problems == []
