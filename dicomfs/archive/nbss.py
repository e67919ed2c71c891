"""NBSS documents: what a breast screening service knows of a client, by episodes, as OMI-DB has it beside the images.

    {"<EpisodeID>": {"EpisodeOpenedDate": "2011-03-01", "EpisodeClosedDate": …, "EpisodeIsClosed": "Y",
                     "SCREENING": {"L": {"DateTaken": …}, "R": …}, "OTHERSCREENING": {"1": {"L": …}},
                     "ASSESSMENT": {"L": {"<lesion>": {"DatePerformed": …}}, "dateperformed": …},
                     "BIOPSYWIDE" "BIOPSYFINE" "CLINICAL" "SURGERY": as ASSESSMENT}, …}

DICOM holds none of this: a user attaches such a document. What is decided here is whether one can be taken, which
episode a study belongs to, and how a document is shown that lacks episodes. Pure.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Final, NoReturn, TypeAlias

from dicomfs.errors import UsageError

MAX_BYTES: Final = 8 << 20
MAX_DEPTH: Final = 32
EMPTY: Final = b"{}"

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_DATE = re.compile(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})").fullmatch
_EVENTS: Final = ("ASSESSMENT", "BIOPSYWIDE", "BIOPSYFINE", "CLINICAL", "SURGERY")
_SIDES: Final = ("L", "R")
_BOM: Final = b"\xef\xbb\xbf"


def require(data: bytes) -> dict[str, Json]:
    """Return the episodes of a document; raise UsageError that says what is wrong with it, and where.

    What it says of anybody is not in the message.
    """
    if len(data) > MAX_BYTES:
        raise UsageError(f"the document is longer than {MAX_BYTES} bytes")
    if data.startswith(_BOM):
        raise UsageError(
            "the document begins with a byte order mark, which readers of JSON stumble over; save it without"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the document is not text in UTF-8, at byte {error.start}") from error
    try:
        found: Json = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"the document is not JSON, at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except ValueError as error:
        raise UsageError("the document is not JSON: it has a number that is none, or is far too long") from error
    except RecursionError as error:
        raise UsageError(_too_deep()) from error
    _require_depth(found)
    if not isinstance(found, dict):
        raise UsageError("the document is not an object of episodes: it does not begin with {")
    return found


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _too_deep() -> str:
    return f"the document is nested deeper than {MAX_DEPTH} levels"


def _require_depth(found: Json) -> None:
    level: list[Json] = [found]
    for _ in range(MAX_DEPTH + 1):
        below: list[Json] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
        if not below:
            return
        level = below
    raise UsageError(_too_deep())


class Episodes:
    """The episodes of a document, by the days that they say something of."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        self._by_event: dict[date, str] = {}
        self._spans: list[tuple[date, date, str]] = []
        self._keys = frozenset(document)
        self._episodes = {key for key, told in document.items() if isinstance(told, dict)}
        for episode, told in document.items():
            if not isinstance(told, dict):
                continue  # readers pass it by
            for day in _event_days(told):
                self._by_event.setdefault(day, episode)
            opened = day_of(told.get("EpisodeOpenedDate"))
            if opened is not None:
                last = opened if told.get("EpisodeIsClosed") == "Y" else date.max
                self._spans.append((opened, day_of(told.get("EpisodeClosedDate")) or last, episode))
        self._spans.sort(key=lambda span: span[:2])

    def has(self, episode: str) -> bool:
        """Say whether there is an episode of this ID."""
        return episode in self._episodes

    def of(self, study: str, day: date | None) -> str:
        """Return the episode that a study belongs to.

        It is the one of the same name, or else one with an event on that day, or else of those that were open then the
        one that was opened last (one that was never closed is open); or else one to be made, of the study's name.
        """
        if study not in self._episodes and day is not None:
            found = self._by_event.get(day) or next(
                (episode for first, last, episode in reversed(self._spans) if first <= day <= last), None
            )
            if found is not None:
                return found
        while study in self._keys - self._episodes:
            study += "-"
        return study


def _event_days(episode: dict[str, Json]) -> Iterator[date]:
    for screening in (episode.get("SCREENING"), *_values(episode.get("OTHERSCREENING"))):
        for side in _SIDES:
            yield from _days(_get(_get(screening, side), "DateTaken"))
    for name in _EVENTS:
        event = episode.get(name)
        yield from _days(_get(event, "dateperformed"))
        for side in _SIDES:
            for lesion in _values(_get(event, side)):
                yield from _days(_get(lesion, "DatePerformed"))


def _get(of: Json, key: str) -> Json:
    return of.get(key) if isinstance(of, dict) else None


def _values(of: Json) -> Iterable[Json]:
    return of.values() if isinstance(of, dict) else ()


def _days(value: Json) -> Iterator[date]:
    day = day_of(value)
    if day is not None:
        yield day


def day_of(value: Json) -> date | None:
    """Return the day of YYYYMMDD or YYYY-MM-DD, None for anything else."""
    found = _DATE(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    try:
        return date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        return None


def completed(document: bytes, episodes: Mapping[str, str]) -> bytes:
    """Return a document with an episode for each of these IDs, which it lacks; all its own bytes as they are.

    Such an episode says nothing but the day on which it opened: readers that sort episodes stumble over one without.
    """
    added = ",\n".join(
        f"{json.dumps(episode)}: {json.dumps({'EpisodeOpenedDate': day})}" for episode, day in episodes.items()
    )
    if not added:
        return document
    end = document.rindex(b"}")
    inside = document[document.index(b"{") + 1 : end].strip()
    return b"".join((document[:end], b",\n" if inside else b"\n", added.encode(), b"\n", document[end:]))
