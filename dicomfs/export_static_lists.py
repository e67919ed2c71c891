"""The deduplicated lists of a study as static DICOMweb, while its instances come by.

    deduplicated/<ST>/<hash>.gz                          group files: the newest is the list, others are superseded
    studies/<ST>/deduplicated/index.json.gz              the same as the newest
    studies/<ST>/bulkdata/<h0-3>/<h3-5>/<h5->.json.gz    its objects

The info object refers to all that readers of this list need not read: its instances, and the group files that it
supersedes. These stay for 24 hours after they were superseded, and as long as one does, so does what it names.
Memory is taken by the hashes alone: texts, and what a list's hash is made of, wait in unnamed files.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from contextlib import suppress
from functools import cmp_to_key, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias
from zlib import error as NotDeflated  # noqa: N812 - it is an exception

from dicomfs.archive import documents_gzip, static_objects
from dicomfs.errors import Damaged, DicomfsError
from dicomfs.export import FileResult, Outcome, failure
from dicomfs.export_static_target import Target, Texts, array, objects, read_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicomfs.archive.deduplicated import Object

Task: TypeAlias = "Callable[[], FileResult]"

STAY_S: Final = 24 * 3600
"""For so long readers may be at a list that is superseded."""
_GROUP: Final = re.compile(r"([0-9a-f]{64})\.gz").fullmatch
_BULK: Final = re.compile(r"[0-9a-f]{59}\.json\.gz|[0-9a-f]{60}\.mht\.gz|\..*\.dicomfs-part").fullmatch
_BRANCH: Final = re.compile(r"[0-9a-f]{2,3}").fullmatch
_PREFIX: Final = 256
_CHUNK: Final = 1 << 16


class Lists:
    """The lists of one study. Belongs to one thread; what it gives out may be done by several."""

    def __init__(self, target: Target, name: str) -> None:
        """Begin the lists of the study whose directory has this name."""
        self._target = target
        self._place = f"studies/{name}"
        self._groups = f"deduplicated/{name}"
        self._known: dict[str, str] = {}
        """Our own hashes of objects by theirs."""
        self._objects = Texts(target.root, continued=True)
        self._instances = Texts(target.root, continued=True)
        self._canonicals = _Canonicals(target.root)
        self._hashes: list[str] = []
        self._own = ""

    def add(self, whole: dict[str, str]) -> Iterator[Task]:
        """Add an instance with these elements; yield what writes the objects that come up with it."""
        fresh: list[Object] = []

        def is_taken(extract: Object, own: str) -> bool:
            known = self._known.get(extract.hash)
            if known is None:
                if self._is_another(extract, own):
                    return True
                known = self._known[extract.hash] = own
                fresh.append(extract)
            return known != own

        told = static_objects.told(whole, is_taken)
        if told is None:
            return
        for extract in fresh:
            self._objects.add(extract.text)
            yield partial(self._write, self._path(extract.hash), (documents_gzip.member(extract.text),))
        self._instances.add(told.instance.text)
        self._canonicals.add(told.canonical)
        self._hashes.append(told.instance.hash)

    def _path(self, digest: str) -> str:
        return f"{self._place}/bulkdata/{digest[:3]}/{digest[3:5]}/{digest[5:]}.json.gz"

    def _is_another(self, extract: Object, own: str) -> bool:
        """Say whether a file of this hash is there that a list of an earlier export has, and it is another object."""
        try:
            with open(self._target.path(self._path(extract.hash)), "rb") as file:
                text = documents_gzip.text(file.read())
            return text != extract.text and static_objects.own_hash(text) != own
        except FileNotFoundError:
            return False
        except (Damaged, ValueError, LookupError):
            return False  # cut off by a power failure: it is written anew

    def tasks(self) -> Iterator[Task]:
        """Yield what writes the lists, all instances being there."""
        if not self._hashes:
            return
        self._own = static_objects.list_hash(self._canonicals.in_order())
        refs = [*dict.fromkeys(self._hashes), *self._superseded()]
        info = static_objects.tagged("info", {}, self._own, refs)
        for texts in (self._objects, self._instances):
            texts.flush()
        # Readers begin with the index, and look for no other group file than those that it does not refer to.
        for below in (f"{self._groups}/{self._own}.gz", f"{self._place}/deduplicated/index.json.gz"):
            yield partial(self._write_list, below, info.text)

    def _superseded(self) -> list[str]:
        """Return the group files that this list supersedes, and those that it did when it was written before."""
        found = {digest for digest, _ in self._group_files()}
        with suppress(OSError, EOFError, NotDeflated, ValueError, LookupError, TypeError):
            info = json.loads(next(objects(self._target.path(f"{self._groups}/{self._own}.gz"))))
            found |= set(info["00091010"]["Value"])
        return sorted(found - {self._own} - set(self._hashes))

    def _write_list(self, below: str, info: str) -> FileResult:
        found = self._write(below, array(self._objects, self._instances, head=info))
        if found.outcome is Outcome.PRESENT and below.startswith(self._groups):
            others = [changed for digest, changed in self._group_files() if digest != self._own]
            path = self._target.path(below)
            if others and os.stat(path).st_mtime_ns <= max(others):
                os.utime(path)  # the newest is the list
        return found

    def _write(self, below: str, data: Iterator[bytes | memoryview] | tuple[bytes, ...]) -> FileResult:
        try:
            return self._target.document(below, None, data)
        except (DicomfsError, OSError) as error:
            return failure(below, 0, error)

    def _group_files(self) -> list[tuple[str, int]]:
        """Return the hashes of the group files that are there, and when each was written."""
        return [
            (named[1], os.lstat(self._target.path(f"{self._groups}/{named[0]}")).st_mtime_ns)
            for named in map(_GROUP, self._target.names(self._groups))
            if named is not None
        ]

    def removals(self, values: set[str]) -> Iterator[Task]:
        """Yield what removes lists that were superseded long ago, and then what is in no list.

        `values` are the names of the files of bulk values that are in one.
        """
        waiting = 0
        now_ns = time.time_ns()
        groups = sorted(self._group_files(), key=lambda group: (group[0] == self._own, group[1]))
        for (digest, _), (_, since_ns) in pairwise(groups):
            if now_ns - since_ns > STAY_S * 10**9:
                yield partial(remove, self._target, f"{self._groups}/{digest}.gz")
            else:
                waiting += 1
        if not waiting:
            yield from self._unnamed(values | {self._path(digest)[len(self._place) + 1 :] for digest in self._known})

    def _unnamed(self, named: set[str]) -> Iterator[Task]:
        for branch in filter(_BRANCH, self._target.names(f"{self._place}/bulkdata")):
            for twig in filter(_BRANCH, self._target.names(f"{self._place}/bulkdata/{branch}")):
                for name in filter(_BULK, self._target.names(f"{self._place}/bulkdata/{branch}/{twig}")):
                    below = f"bulkdata/{branch}/{twig}/{name}"
                    if below not in named:
                        yield partial(remove, self._target, f"{self._place}/{below}")

    def close(self) -> None:
        """Be done with them."""
        for held in (self._objects, self._instances, self._canonicals):
            held.close()


class _Canonicals:
    """Texts in an unnamed file, to be read in the order of their UTF-16 code units."""

    def __init__(self, directory: str) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - `close` closes it
        self._places: list[tuple[bytes, int, int]] = []
        """Where each begins and ends, and its first bytes, which mostly tell it from others."""
        self._at = 0

    def add(self, text: str) -> None:
        """Add a text."""
        data = text.encode("utf-16-be", "replace")
        self._file.write(data)
        self._places.append((data[:_PREFIX], self._at, self._at + len(data)))
        self._at += len(data)

    def in_order(self) -> Iterator[bytes]:
        """Yield them as UTF-8."""
        self._file.flush()
        for _, start, end in sorted(self._places, key=cmp_to_key(self._compare)):
            yield self._read(start, end).decode("utf-16-be").encode()

    def _compare(self, one: tuple[bytes, int, int], other: tuple[bytes, int, int]) -> int:
        if one[0] != other[0]:
            return -1 if one[0] < other[0] else 1
        (_, first, first_end), (_, second, second_end) = one, other
        while first < first_end or second < second_end:
            this = self._read(first, min(first + _CHUNK, first_end))
            that = self._read(second, min(second + _CHUNK, second_end))
            if this != that:
                return -1 if this < that else 1
            first += len(this)
            second += len(that)
        return 0

    def _read(self, start: int, end: int) -> bytes:
        return read_at(self._file.fileno(), start, end - start)

    def close(self) -> None:
        """Be done with them."""
        self._file.close()


def remove(target: Target, below: str) -> FileResult:
    """Remove something of an earlier export; say what became of it."""
    try:
        return target.remove(below)
    except OSError as error:
        return failure(below, 0, error)
