"""The deduplicated lists of a study as static DICOMweb, while its instances come by.

    deduplicated/<ST>/<hash>.gz                          group files: the newest is the list, others are superseded
    studies/<ST>/deduplicated/index.json.gz              the same as the newest
    studies/<ST>/bulkdata/<h0-3>/<h3-5>/<h5->.json.gz    its objects

The info object refers to all that readers of this list need not read: its instances, and the group files that it
supersedes. These stay for 24 hours after they were superseded, and as long as one does, so does what it names. Lists
tell history as those of the drive do (`deduplicated`): the list that an info object names as superseded is the one
that the study had before it was changed, whether it was ever exported or not.

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

from dicomfs.archive import deduplicated, documents_gzip, static_objects
from dicomfs.archive.documents_history import STAY_S
from dicomfs.errors import Damaged, DicomfsError
from dicomfs.export import FileResult, Outcome, failure
from dicomfs.export_static_target import Target, Texts, array, objects, read_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dicomfs.archive.deduplicated import Object
    from dicomfs.archive.documents_history import History

Task: TypeAlias = "Callable[[], FileResult]"
Elements: TypeAlias = dict[str, str]
"""The texts of an object's elements by tag."""

_GROUP: Final = re.compile(r"([0-9a-f]{64})\.gz").fullmatch
_BULK: Final = re.compile(r"[0-9a-f]{59}\.json\.gz|[0-9a-f]{60}\.mht\.gz|\..*\.dicomfs-part").fullmatch
_BRANCH: Final = re.compile(r"[0-9a-f]{2,3}").fullmatch
_PREFIX: Final = 256
_CHUNK: Final = 1 << 16


class Lists:
    """The lists of one study. Belongs to one thread; what it gives out may be done by several."""

    def __init__(self, target: Target, name: str, history: History, earlier: Callable[[int], Elements]) -> None:
        """Begin the lists of the study whose directory has this name.

        `earlier` gives the elements of a version that is shown no more, none where it cannot be read.
        """
        self._history = history
        self._read_earlier = earlier
        self._earlier: dict[int, dict[str, str]] = {}
        """The hashes of versions that are shown no more, by their objects' types."""
        self._before = _Canonicals(target.root)
        self._held: dict[str, Object] = {}
        """Objects of a study that has a history, which are written when all of it is known."""
        self._replaced: dict[str, set[str]] = {}
        self._target = target
        self._place = f"studies/{name}"
        self._groups = f"deduplicated/{name}"
        self._known: dict[str, str] = {}
        """Our own hashes of objects by theirs."""
        self._objects = Texts(target.root, continued=True)
        self._instances = Texts(target.root, continued=True)
        self._canonicals = _Canonicals(target.root)
        self._hashes: list[str] = []
        self._shown: set[int] = set()
        self._own = ""

    def add(self, ino: int, whole: Elements) -> Iterator[Task]:
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

        earlier = [self._hashes_of(one) for one in self._history.replaced.get(ino, ())]
        told = static_objects.told(whole, is_taken, _instances(earlier))
        if told is None:
            return
        for extract in told.extracts:
            replaced = {hashes[extract.type] for hashes in earlier if extract.type in hashes} - {extract.hash}
            self._replaced.setdefault(extract.hash, set()).update(replaced)
        if self._history.replaced:
            self._held |= {extract.hash: extract for extract in fresh}
        else:
            yield from map(self._object, fresh)
        if ino in self._history.before:
            self._before.add(told.canonical)
        self._instances.add(told.instance.text)
        self._canonicals.add(told.canonical)
        self._hashes.append(told.instance.hash)
        self._shown.add(ino)

    def _object(self, one: Object) -> Task:
        """Add an object; return what writes it."""
        self._objects.add(one.text)
        return partial(self._write, self._path(one.hash), (documents_gzip.member(one.text),))

    def _hashes_of(self, ino: int) -> dict[str, str]:
        """Return the hashes of the objects of a version that is shown no more, none where it cannot be read."""
        found = self._earlier.get(ino)
        if found is None:
            told = self._told_earlier(ino, ())
            found = self._earlier[ino] = {} if told is None else told.hashes
        return found

    def _told_earlier(self, ino: int, replaced: Sequence[str]) -> static_objects.Told | None:
        whole = self._read_earlier(ino)
        return static_objects.told(whole, lambda _extract, _own: False, replaced) if whole else None

    def _superseded_list(self) -> str:
        """Return the hash of the list before the study was last changed, empty if it never was."""
        history = self._history
        for ino in history.before:
            if ino not in self._shown:
                # What it replaced itself was told in its list, too.
                replaced = _instances(self._hashes_of(one) for one in history.replaced.get(ino, ()) if one < ino)
                told = self._told_earlier(ino, replaced)
                if told is None:
                    return ""
                self._before.add(told.canonical)
        return static_objects.list_hash(self._before.in_order()) if history.before else ""

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
        for one in self._held.values():
            yield self._object(deduplicated.replacing(one, sorted(self._replaced[one.hash])))
        self._own = static_objects.list_hash(self._canonicals.in_order())
        refs = [*dict.fromkeys(self._hashes), *self._superseded()]
        deleted = _instances(map(self._hashes_of, self._history.deleted))
        info = static_objects.info(self._own, refs, deleted, self._superseded_list())
        for texts in (self._objects, self._instances):
            texts.flush()
        # Readers begin with the index, and look for no other group file than those that it does not refer to.
        for below in (f"{self._groups}/{self._own}.gz", f"{self._place}/deduplicated/index.json.gz"):
            yield partial(self._write_list, below, info)

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
        for held in (self._objects, self._instances, self._canonicals, self._before):
            held.close()


def _instances(those: Iterable[dict[str, str]]) -> list[str]:
    """Return the hashes of instances, in order, of those that could be read."""
    return sorted({hashes["instance"] for hashes in those if "instance" in hashes})


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
