"""Mind earlier states that are in use: what they show is not forgotten, and those that nobody uses go.

A state that is kept, used or not, still holds what was forgotten since. So all that nobody uses go after that. Whoever
uses one makes it anew, if it is a drive, or ends some time; the next `gc` takes what is left.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dicomfs.archive import states
from dicomfs.archive.gc_cache import LASTING_S, Cached
from dicomfs.archive.moments import time_text
from dicomfs.errors import Refused
from dicomfs.store.earlier import known
from dicomfs.store.index import Index


def refuse_in_use(archive_path: Path, live: Index, limit_ns: int) -> None:
    """Raise Refused if somebody uses a state that is not any more when what was replaced by a time is forgotten."""
    commits = known(live)
    for kept in states.states(archive_path):
        until = next((commit.place.time_ns for commit in commits if commit.seq > kept.seq), None)
        if until is not None and until <= limit_ns and kept.in_use:
            raise Refused(
                f"the state that the archive had before {time_text(until)} is in use, and would be forgotten; nothing "
                "was changed. Unmount the drives that were mounted with --as-of such a time and end such exports, or "
                "name an earlier time than this one"
            )


def unused(archive_path: Path, live: Index, *, forgotten: bool) -> Iterator[Cached]:
    """Walk the states that nobody uses and that are outdated or older than a day; all, where something was forgotten.

    Who begins to use one meanwhile keeps it.
    """
    outdated = {kept.directory for kept in states.outdated(archive_path, known(live))}
    before_ns = time.time_ns() - int(LASTING_S * 1e9)
    for kept in states.states(archive_path):
        if not kept.in_use and (forgotten or kept.directory in outdated or kept.mtime_ns < before_ns):
            yield Cached(kept.directory, _size(kept.directory))


def _size(directory: Path) -> int:
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):  # somebody removes it meanwhile
                size += os.stat(os.path.join(folder, name)).st_size
    return size
