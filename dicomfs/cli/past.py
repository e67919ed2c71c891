"""`dicomfs history`: who did what with an archive, when and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import archive_option, json_option
from dicomfs.cli.selecting import selected, selection_options
from dicomfs.cli.terminal import note, write_json_array, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.history import Asked, Line, Period
    from dicomfs.cli.terminal import Json

_LONGEST = 60
"""Characters that a table shows of a value, and of what cannot be understood."""
_MOST = 3
"""So many attributes of a kind a table names, and counts the others: a move to another patient takes out twenty."""
_WORDS = {"left": "moved away"}


@click.command("history")
@selection_options
@click.option("--since", metavar="TIME", help="Only what was done then or later: 2026-01-31, 2026-01-31T12:00:00Z.")
@click.option("--until", metavar="TIME", help="Only what was done then or earlier.")
@click.option("--all", "every", is_flag=True, help="Each commit, also those that only made layouts and projects.")
@archive_option
@json_option
def history_command(
    *,
    study_uid: tuple[str, ...],
    series_uid: tuple[str, ...],
    sop_uid: tuple[str, ...],
    patient_id: str,
    since: str | None,
    until: str | None,
    every: bool,
    archive: Path,
    as_json: bool,
) -> None:
    """Tell who did what with an archive, when and why; of one instance, list its versions.

    Each line is a commit, which 'dicomfs restore --undo' takes back; the commits of one import are one line,
    unless --all is given. UIDs and --patient-id leave what was done with what they name, and
    count it; --patient-id alone counts all studies that are the patient's now. Of an edit, the attributes
    are shown that it set, and the first that it took out: the output may hold patient data. "Moved
    away" are instances that went to another Study Instance UID. Times are local in the table; in
    options an offset or Z may be given.

    One --sop-uid alone lists for how long which version was shown, with what 'dicomfs restore --version' takes:
    its number or its SHA-256. JSON has whole digests, and times in UTC.

    \b
    Examples:
      dicomfs history -a /srv/archive
      dicomfs history --study-uid 1.2.3
      dicomfs history --since 2026-01-01 --json | jq '.[] | select(.op == "delete")'
      dicomfs history --sop-uid 1.2.3.4.5
    """
    from dicomfs.archive.archive import Archive
    from dicomfs.archive.history import Asked, lines, periods
    from dicomfs.archive.moments import parse_time

    selection = selected(study_uid, series_uid, sop_uid, patient_id)
    times = {
        name: parse_time(text) for name, text in (("since_ns", since), ("until_ns", until)) if text is not None
    }  # fmt: skip
    asked = Asked(selection, every=every, **times)
    with Archive.open(archive) as opened:
        if len(sop_uid) == 1 and not (study_uid or series_uid or patient_id or every or times):
            _print_periods(periods(opened, sop_uid[0].strip()), as_json=as_json)
        elif as_json:
            write_json_array(map(_json, lines(opened, asked)))
        else:
            _print(opened, asked)


def _print(archive: Archive, asked: Asked) -> None:
    from dicomfs.archive.history import lines
    from dicomfs.archive.moments import local_text

    any_found = False

    def rows() -> Iterator[tuple[str, ...]]:
        nonlocal any_found
        for line in lines(archive, asked):
            any_found = True
            event = line.event
            commits = str(event.seq) if line.commits == 1 else f"{event.seq}-{line.last}"
            yield local_text(event.time_ns), commits, event.by, _what(line), event.reason

    write_table(("Time", "Commit", "Who", "What", "Why"), rows())
    if not any_found:
        note("nothing was done")


def _what(line: Line) -> str:
    counts = ", ".join(f"{count:,} {_WORDS.get(what, what)}" for what, count in line.counts.items())
    edit = "; ".join(_edited(line.event.edit or {}))
    return ": ".join(filter(None, (line.event.op, counts, edit)))


def _edited(edit: Mapping[str, object]) -> Iterator[str]:
    """Yield what an edit did, as dicom/edit_changes.py writes it down."""
    changes = edit.get("changes", edit)
    if not isinstance(changes, dict):
        return
    settings = changes.get("set")
    for tag, values in settings.items() if isinstance(settings, dict) else ():
        text = "\\".join(map(str, values)) if isinstance(values, list) else str(values)
        yield f"{_keyword(tag)}={text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}"
    for what, word in (("empty", "emptied"), ("remove", "removed")):
        tags = changes.get(what)
        tags = tags if isinstance(tags, list) else []
        named = len(tags) if len(tags) <= _MOST else _MOST - 1
        for tag in tags[:named]:
            yield f"{_keyword(str(tag))} {word}"
        if len(tags) > named:
            yield f"{len(tags) - named:,} more {word}"
    uids = changes.get("uids")
    if isinstance(uids, dict) and uids:
        yield f"{len(uids):,} UIDs changed"


def _keyword(tag: str) -> str:
    from dicomfs.dicom.dictionary import dictionary_keyword

    try:
        return dictionary_keyword(int(tag, 16)) or tag
    except ValueError:
        return tag


def _json(line: Line) -> Json:
    from dicomfs.archive.moments import time_text

    event = line.event
    found: dict[str, Json] = {
        "time": time_text(event.time_ns),
        "commit": event.seq,
        "last_commit": line.last,
        "commits": line.commits,
        "last_time": time_text(line.last_ns),
        "by": event.by,
        "op": event.op,
        "reason": event.reason,
        "run": event.run,
        "counts": line.counts,
    }
    if event.edit is not None:
        found["edit"] = event.edit  # type: ignore[assignment]  # it was read from JSON
    return found


def _print_periods(found: list[Period], *, as_json: bool) -> None:
    from dicomfs.archive.moments import local_text, time_text

    if as_json:
        write_json_array(
            {
                "version": one.number,
                "ino": one.ino,
                "sha256": one.sha256,
                "size": one.size,
                "from": time_text(one.since_ns),
                "from_commit": one.since,
                "to": time_text(one.until_ns) if one.until else None,
                "to_commit": one.until or None,
                "state": one.state,
            }
            for one in found
        )
        return
    rows = (
        (
            one.number, one.ino, one.sha256[:16], one.size, local_text(one.since_ns), one.since,
            local_text(one.until_ns) if one.until else "", one.until or "", one.state,
        )
        for one in found
    )  # fmt: skip
    write_table(("Version", "Inode", "SHA-256", "Bytes", "From", "Commit", "To", "Commit", "State"), rows)
