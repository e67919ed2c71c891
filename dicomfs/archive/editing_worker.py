"""A process that edits instances: what the writer hears of each is its next version, or what would change.

Told once are the changes as JSON, and whether to show them only. Of an item (inode, which, series) `which` says whether
the instance was chosen, or may refer to what was.
"""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias, cast

from dicomfs.archive.archive import Archive
from dicomfs.archive.derive_worker import Item, Maker, Sent, received_blobs, serve
from dicomfs.archive.derivers import Work
from dicomfs.archive.editing import Edited, Editor, uids_only
from dicomfs.archive.splitting import Levels, Row
from dicomfs.dicom.attributes import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from dicomfs.dicom.edit import Changes, Sought
from dicomfs.dicom.encoding import shown
from dicomfs.dicom.values import texts_of

_Said: TypeAlias = dict[str, str | int]
_SentRow: TypeAlias = tuple[int, bytes, bytes, bytes, int, tuple[_Said, _Said, _Said, _Said], list[tuple[object, ...]]]

CHOSEN: Final = ""
REFERS: Final = "refers"
DOING: Final = "editing it"
_IDENTITY: Final = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)
_LONGEST: Final = 256
"""So many characters of a value are shown."""


class Change(NamedTuple):
    """An attribute of the outermost level before and after, None where there is none."""

    tag: int
    before: str | None
    after: str | None


class Answer(NamedTuple):
    """What an edit makes of an instance, or would change in it: neither where nothing changes."""

    edited: Edited | None
    changes: list[Change] | None


def main(arguments: list[str]) -> None:
    """Work until there is no more to do."""
    serve(arguments, DOING, _begin_with)


def _begin_with(archive: Archive, told: tuple[object, ...]) -> Maker:
    changes = Changes.from_json(json.loads(str(told[0])))
    referring = uids_only(changes)
    uids = Sought(changes.uids)
    editor = Editor(archive)
    shows = bool(told[1])

    def make(item: Item) -> Sent:
        ino, which, _ = item
        if which == REFERS and not editor.refers(ino, uids):
            return None, None
        asked = referring if which == REFERS else changes
        if shows:
            heads = editor.before_and_after(ino, asked)
            return None, None if heads is None else [tuple(one) for one in _differences(*heads, asked)]
        made = editor.edited(ino, asked)
        if made is None:
            return None, None
        *fields, levels = made.row
        return (*fields, tuple(levels), [tuple(blob) for blob in made.blobs]), None

    return Maker(make)


def _differences(before: bytes, after: bytes, changes: Changes) -> list[Change]:
    tags = sorted({*changes.set, *changes.empty, *changes.remove, *(_IDENTITY if changes.uids else ())})
    names = [shown(tag) for tag in tags]
    texts = zip(tags, texts_of(before, names), texts_of(after, names), strict=True)
    return [Change(tag, _short(old), _short(new)) for tag, old, new in texts if old != new]


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _received(edited: Sequence[object] | None, changes: list[Sequence[object]] | None) -> Answer:
    made = None
    if edited is not None:
        size, sha256, base, body, literal, levels, blobs = cast(_SentRow, tuple(edited))
        made = Edited(Row(size, sha256, base, body, literal, Levels(*levels)), received_blobs(blobs))
    return Answer(made, None if changes is None else [Change(*one) for one in changes])  # type: ignore[arg-type]


def _size(answer: Answer) -> int:
    made = answer.edited
    return 0 if made is None else len(made.row.body) + sum(len(blob.stored) for blob in made.blobs)


WORK: Final = Work("edit", DOING, _received, _size)
