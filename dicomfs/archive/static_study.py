"""Which instances a static DICOMweb tree has, and which of its documents is the record of each.

    index.mht[.gz]                       the original file: nothing is better
    instances/<SOP>/metadata.gz          v2, and dicomfs: a list of one
    deduplicated lists                   v1 (`static_lists`)
    series/<SE>/metadata.gz              what either writes for a series
    instances/<SOP>/metadata/index.json.gz   v1, `mkdicomweb instance`

The first that is there counts. Directories are the other way round: a study is what lies below `studies/` and is no
prefix of a hash (three hexadecimal digits), an instance what any of these names, or has a directory.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from dicomfs.archive.outcome import Outcome
from dicomfs.archive.static_documents import SOP_INSTANCE_UID, Place, objects, uid_of
from dicomfs.archive.static_files import Absent, Entry, Tree, Unusable, is_name
from dicomfs.archive.static_lists import Lists, is_first_writers, without_lists
from dicomfs.dicom.json_values import Json

OnRefused: TypeAlias = Callable[[str, Outcome, str], None]
"""Called with a path that is no instance, what becomes of it, and the reason."""

NO_RECORD: Final = "has no metadata: the writer was stopped, or the tree is not whole"
REJECTED: Final = "was rejected in the tree"
LINK: Final = "is a link, which is not followed"

_PREFIX: Final = re.compile(r"[0-9a-f]{3}").fullmatch
_ORIGINALS: Final = ("index.mht.gz", "index.mht")
_RECORD: Final = "metadata.gz"


class Found(NamedTuple):
    """An instance of the tree."""

    directory: str
    """From the tree's root: studies/<ST>/series/<SE>/instances/<SOP>."""
    original: str
    """The path of the original file, or ""."""
    record: Callable[[], "Record"]
    """Reads its record; raises Unusable."""


class Record(NamedTuple):
    """What the tree says of an instance."""

    object: dict[str, Json]
    first_writer: bool
    document: str
    """The directory that its relative URIs lead from."""


def studies(tree: Tree, refused: OnRefused) -> list[str]:
    """Return the directories of studies below `studies/`; raise Unusable where it cannot be read."""
    keys: set[str] = set()
    for top in ("studies", "deduplicated", "instances"):
        keys.update(_below(tree, top, "", refused))
    return sorted(keys)


def instances(tree: Tree, key: str, refused: OnRefused) -> Iterator[Found]:
    """Yield the instances of a study, in the order of their UIDs."""

    def fault(path: str, reason: str) -> None:
        refused(path, Outcome.FAILED, reason)

    lists = Lists(tree, key, fault)
    top = f"studies/{key}/series"
    listed: dict[str, list[str]] = {}
    for sop, series in lists.series.items():
        listed.setdefault(series, []).append(sop)
    found = {entry.name for entry in _directories(tree, top, refused)}
    for series in sorted(found.union(listed)):
        if not is_name(series):
            refused(top, Outcome.FAILED, "a list has an instance whose series can have no directory")
            continue
        yield from _of_series(tree, f"{top}/{series}", lists, listed.get(series, []), refused)


def _below(tree: Tree, top: str, key: str, refused: OnRefused) -> Iterator[str]:
    for entry in _directories(tree, f"{top}/{key}".rstrip("/"), refused):
        inner = f"{key}/{entry.name}" if key else entry.name
        if _PREFIX(entry.name) and inner.count("/") < 2 and not _is_study(tree, f"{top}/{inner}"):
            yield from _below(tree, top, inner, refused)
        else:
            yield inner


def _is_study(tree: Tree, path: str) -> bool:
    try:
        names = {entry.name for entry in tree.entries(path)}
    except Unusable:
        return True  # which is told of when it is read
    return bool(names & {"series", "index.json.gz", "deduplicated", "bulkdata"}) or any(
        name.endswith(".gz") for name in names
    )


def _directories(tree: Tree, path: str, refused: OnRefused) -> Iterator[Entry]:
    """Yield the directories in a directory; links to such are told of, as nothing in them is imported."""
    try:
        entries = tree.entries(path)
    except Unusable as error:
        refused(path, Outcome.FAILED, str(error))
        return
    for entry in entries:
        if entry.is_directory:
            yield entry
        elif entry.is_link:
            refused(f"{path}/{entry.name}", Outcome.FAILED, LINK)


def _of_series(tree: Tree, directory: str, lists: Lists, listed: list[str], refused: OnRefused) -> Iterator[Found]:
    places = _of_document(tree, f"{directory}/{_RECORD}", refused)
    top = f"{directory}/instances"
    names = {entry.name for entry in _directories(tree, top, refused)}
    for sop in sorted(names.union(places, listed)):
        path = f"{top}/{sop}"
        if not is_name(sop):
            refused(top, Outcome.FAILED, "a document has an instance that can have no directory")
        elif sop in lists.rejected:
            refused(path, Outcome.SKIPPED, REJECTED)
        else:
            yield from _instance(tree, path, lists, places.get(sop), refused)


def _instance(tree: Tree, path: str, lists: Lists, in_series: Place | None, refused: OnRefused) -> Iterator[Found]:
    try:
        names = {entry.name for entry in tree.entries(path)}
    except Unusable as error:
        refused(path, Outcome.FAILED, str(error))
        return
    original = next((f"{path}/{name}" for name in _ORIGINALS if name in names), "")
    series = path.rpartition("/instances/")[0]
    listed = lists.instances.get(path.rpartition("/")[2])

    def record() -> Record:
        if _RECORD in names:
            return _alone(tree, f"{path}/{_RECORD}", path)
        if listed is not None:
            return Record(lists.whole(listed.object()), True, series)
        if in_series is not None:
            return _as_found(in_series.object(), series)
        if "metadata" in names:
            return _alone(tree, f"{path}/metadata/index.json.gz", series)
        raise Unusable(NO_RECORD)

    yield Found(path, original, record)


def _alone(tree: Tree, path: str, document: str) -> Record:
    for _, found in objects(tree, path, most=1):
        return _as_found(found, document)
    raise Unusable(f"{path} is empty")


def _as_found(found: dict[str, Json], document: str) -> Record:
    return Record(without_lists(found, strays=True), is_first_writers(found), document)


def _of_document(tree: Tree, path: str, refused: OnRefused) -> dict[str, Place]:
    try:
        return {uid_of(found, SOP_INSTANCE_UID): place for place, found in objects(tree, path)}
    except Absent:
        return {}
    except Unusable as error:
        refused(path, Outcome.FAILED, str(error))
        return {}
