"""The deduplicated lists of the reference's first writer: which instances a study has, and what they are made of.

    studies/<ST>/deduplicated/index.json.gz     the list of all, whose hash is the newest group's name
    deduplicated/<ST>/<hash>.gz                 groups: [info, extract…, instance…]
    instances/<ST>/<hash>.gz                    [instance], not in any group yet
    studies/<ST>/bulkdata/hhh/hh/….json.gz      extracts

An info object names what its list took in: hashes of instances, and of earlier groups. So a group that some info names
is superseded, whatever its time; of the others the newest counts. An instance that nothing took in is newer than any
list. One that some list in force has as `deleted` was rejected, and stays so. The writer's hash does not tell values in
another order apart; that cannot be undone here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from dicomfs.archive.static_documents import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, Place, objects, uid_of
from dicomfs.archive.static_files import Absent, Tree, Unusable
from dicomfs.dicom.json_values import Element, Json

CREATOR: Final = "dedupped"
REF, HASH, TYPE = "10", "11", "12"
ADDED: Final = (REF, HASH, TYPE, "13", "14", "15")
"""What lists put into objects; the last three, of history, by dicomfs alone."""
INDEX: Final = "deduplicated/index.json.gz"

_DIGITS: Final = frozenset("0123456789abcdef")
_HASH: Final = 64
_TYPES: Final = frozenset(("patient", "study", "series", "image", "instance", "deleted", "info"))

OnFault: TypeAlias = Callable[[str, str], None]
"""Told of (path, reason) of a document that cannot be used; the others are."""


class Lists:
    """What the lists of a study hold: places of instances and of rejected ones by SOP Instance UID."""

    def __init__(self, tree: Tree, key: str, on_fault: OnFault) -> None:
        """`key` is the study's directory below `studies/`, `deduplicated/` and `instances/`."""
        self._tree = tree
        self._key = key
        self._on_fault = on_fault
        self._extracts: dict[str, Element] = {}
        self._named: set[str] = set()
        self.instances: dict[str, Place] = {}
        self.series: dict[str, str] = {}
        """Series Instance UIDs by SOP Instance UID, of rejected ones too."""
        self.rejected: set[str] = set()
        for path in self._in_force():
            self._take(path)
        for path in self._not_taken_in():
            self._take(path, later=True)
        for sop in self.rejected:
            self.instances.pop(sop, None)

    def whole(self, instance: Mapping[str, Json]) -> dict[str, Json]:
        """Return an instance with what its extracts hold; raise Unusable where one is missing."""
        found = without_lists(instance)
        for ref in _values(instance, REF):
            for tag, element in self._extract(ref).items():
                found.setdefault(tag, element)
        return found

    def _in_force(self) -> Iterator[str]:
        """Yield the paths of lists, what counts most first."""
        index = f"studies/{self._key}/{INDEX}"
        directory = f"deduplicated/{self._key}"
        groups = {name: f"{directory}/{name}.gz" for name in self._hashes(directory)}
        for path in groups.values():
            for _, info in self._guarded(path, most=1):
                self._named.update(_values(info, REF))
        own = next((_values(info, HASH) for _, info in self._guarded(index, most=1)), [])
        newest = sorted(groups.keys() - self._named - set(own), key=lambda name: -self._tree.mtime_ns(groups[name]))
        superseded = not self._named.isdisjoint(own)
        lists = [groups[name] for name in newest]
        yield from (*lists, index) if superseded else (index, *lists)

    def _not_taken_in(self) -> Iterator[str]:
        directory = f"instances/{self._key}"
        paths = [f"{directory}/{name}.gz" for name in self._hashes(directory) if name not in self._named]
        yield from sorted(paths, key=self._tree.mtime_ns)

    def _hashes(self, directory: str) -> list[str]:
        try:
            entries = self._tree.entries(directory)
        except Unusable as error:
            self._on_fault(directory, str(error))
            return []
        return [entry.name[:-3] for entry in entries if entry.name.endswith(".gz") and _is_hash(entry.name[:-3])]

    def _take(self, path: str, *, later: bool = False) -> None:
        for place, found in self._guarded(path):
            kind = next(iter(_values(found, TYPE)), "")
            sop = uid_of(found, SOP_INSTANCE_UID)
            if kind == "deleted" and sop:
                self.rejected.add(sop)
            elif kind == "instance" and sop and (later or sop not in self.instances):
                self.instances[sop] = place
            elif kind in _TYPES:
                for name in _values(found, HASH):
                    self._extracts.setdefault(name, without_lists(found))
                continue
            self.series.setdefault(sop, uid_of(found, SERIES_INSTANCE_UID))

    def _guarded(self, path: str, *, most: int = 0) -> Iterator[tuple[Place, dict[str, Json]]]:
        try:
            yield from objects(self._tree, path, most=most)
        except Absent:
            return
        except Unusable as error:
            if not most:
                self._on_fault(path, str(error))

    def _extract(self, name: str) -> Element:
        found = self._extracts.get(name)
        if found is None:
            if not _is_hash(name):
                raise Unusable("it refers to what is no hash")
            path = f"studies/{self._key}/bulkdata/{name[:3]}/{name[3:5]}/{name[5:]}.json.gz"
            _, whole = next(objects(self._tree, path, most=1), (None, {}))
            found = self._extracts[name] = without_lists(whole)
        return found


def is_first_writers(record: Mapping[str, Json]) -> bool:
    """Say whether an object is one of the reference's first writer: it alone gives the creator the VR CS."""
    return any(vr == "CS" for _, vr in _blocks(record))


def without_lists(record: Mapping[str, Json], *, strays: bool = False) -> dict[str, Json]:
    """Return an object without the elements that lists add: every block of theirs.

    `strays` are taken out, too: where a file has a block 10 of its own, the writer of lists puts hash and type of the
    first extract into it when it makes the metadata of a series.
    """
    blocks = [block for block, _ in _blocks(record)]
    added = {f"000900{block}" for block in blocks}
    added |= {f"0009{block}{element}" for block in blocks for element in ADDED}
    if strays and blocks and "10" not in blocks:
        hashes = _texts(record.get(f"000910{HASH}"))
        if len(hashes) == 1 and _is_hash(hashes[0]):
            added.add(f"000910{HASH}")
        if _texts(record.get(f"000910{TYPE}")) == ["patient"]:
            added.add(f"000910{TYPE}")
    return {tag: element for tag, element in record.items() if tag.upper() not in added}


def _blocks(record: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Yield (block, VR of the creator) of the lists' blocks in an object."""
    for number in range(0x10, 0x100):
        element = record.get(f"000900{number:02X}")
        if element is not None and _texts(element) == [CREATOR] and isinstance(element, dict):
            yield f"{number:02X}", str(element.get("vr"))


def _values(record: Mapping[str, Json], element: str) -> list[str]:
    for block, _ in _blocks(record):
        if values := _texts(record.get(f"0009{block}{element}")):
            return values
    return []


def _texts(element: Json) -> list[str]:
    values = element.get("Value") if isinstance(element, dict) else None
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _is_hash(name: str) -> bool:
    return len(name) == _HASH and _DIGITS.issuperset(name)
