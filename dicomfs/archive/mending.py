"""Make a commit foldable although commits before it are lost with their pack.

Its instances may lie in directories and series that nobody knows any more: they get stand-ins, so
that every byte that is left can be read. A directory's stand-in is named LOST~ and its number.
A lost pack that is back has names that were claimed anew in the meantime: then the later claim gets a
suffix. In an archive that never lost anything there is nothing to mend.
"""

from collections.abc import Iterable, Mapping

from dicomfs.archive import tables
from dicomfs.archive.fold import Fold
from dicomfs.archive.layout import MAX_LEVELS
from dicomfs.archive.names import candidates
from dicomfs.archive.tables import U64
from dicomfs.store.index import Table, Transaction

_Rows = Mapping[str, list[list[object]]]


def mend(fold: Fold, txn: Transaction, held: Mapping[str, Table], records: _Rows) -> None:
    """Fold stand-ins for whatever these records refer to and nobody defines."""
    _rename(txn, held, records)
    _mend_layouts(fold, txn, held, records)
    new = {kind: {_int(row[0]) for row in records[kind]} for kind in ("patients", "studies", "series", "directories")}

    def unknown(table: str, kind: str, numbers: Iterable[object]) -> set[int]:
        wanted = {_int(number) for number in numbers} - new[kind]
        return {number for number in wanted if txn.get(U64.pack(number), db=held[table]) is None}

    parents = [row[2] for row in records["directories"]] + [row[3] for row in records["instances"]]
    for ino in sorted(unknown("inode", "directories", parents) - {tables.ROOT_PATIENTS}):
        fold.directory(ino, _lost("directory", ino), tables.ROOT_PATIENTS, f"LOST~{ino}")
    rows = records["instances"]
    studies = [row[2] for row in records["series"]] + [row[0] for row in records["study_patients"]]
    patients = [row[2] for row in records["studies"]] + [row[1] for row in records["study_patients"]]
    for number in sorted(unknown("patient", "patients", patients)):
        fold.patient(number, _lost("patient", number), {})
    for number in sorted(unknown("study", "studies", studies + [row[2] for row in rows])):
        patient = tables.LAST_CLAIMED - number
        fold.patient(patient, _lost("patient", patient), {})
        fold.study(number, _lost("study", number), patient, {})
        fold.study_patient(number, patient)
    study_of = {_int(row[1]): _int(row[2]) for row in rows}
    for number in sorted(unknown("series", "series", (row[1] for row in rows))):
        fold.series(number, _lost("series", number), study_of[number], {})


def _rename(txn: Transaction, held: Mapping[str, Table], records: _Rows) -> None:
    """Give each name that is taken the first of its candidates that is not."""
    replaced = {_int(row[14]) for row in records["instances"]} | {_int(row[3]) for row in records["restored"]}
    named = [(row, 2, 3) for row in [*records["directories"], *records["folders"]]]
    named += [(row, 3, 4) for row in [*records["instances"], *records["derived"]]]
    named += [(row, 2, 3) for row in records["links"]]
    named += [(row, 1, 2) for row in records["restored"]]
    for row, parent_at, name_at in named:
        mine = replaced | {_int(row[0])}
        row[name_at] = _free(txn, held, _int(row[parent_at]), str(row[name_at]), str(row[0]), mine)
    for row in records["renamed"]:
        value = txn.get(U64.pack(_int(row[0])), db=held["inode"])
        if value is not None:
            parent = tables.DIRECTORY_INODE.unpack_from(value)[1]
            row[1] = _free(txn, held, parent, str(row[1]), str(row[0]), {_int(row[0])})


def rename_projects(txn: Transaction, held: Mapping[str, Table], records: _Rows) -> None:
    """Do the same for the directories of projects, before they are folded."""
    for row in records["projects"]:
        row[1] = _free(txn, held, tables.ROOT_PROJECTS, str(row[1]), str(row[0]), set())


def _free(txn: Transaction, held: Mapping[str, Table], parent: int, name: str, identity: str, mine: set[int]) -> str:
    """Return the first candidate that nobody has, or one of these nodes, which give it up or have it already."""
    for candidate in candidates(name, identity):
        taken = txn.get(tables.name_key(parent, candidate.encode()), db=held["name"])
        if taken is None or U64.unpack(taken)[0] in mine:
            return candidate
    raise AssertionError("candidates never end")


def _mend_layouts(fold: Fold, txn: Transaction, held: Mapping[str, Table], records: _Rows) -> None:
    """Leave out what belongs to a layout or project that nobody knows, and fold stand-ins for directories.

    An instance that has lost its place in a layout gets another by `dicomfs layout add`.
    """
    folders, links, derived = records["folders"], records["links"], records["derived"]
    if not (folders or links or derived):
        return
    new = {_int(row[0]) for row in folders}
    fold.next = max([fold.next, *(number + 1 for number in new), *(_int(row[0]) + 1 for row in derived)])
    for rows in (links, derived):
        rows[:] = [row for row in rows if _is_root(txn, held, _int(row[1]))]
    known: dict[int, bool] = {}

    def lost(number: int) -> bool:
        if number not in known:
            known[number] = number not in new and txn.get(U64.pack(number), db=held["inode"]) is None
        return known[number]

    roots = {_int(row[2]): _int(row[1]) for row in links} | {_int(row[3]): _int(row[1]) for row in derived}
    above = {_int(row[0]): _int(row[2]) for row in folders}
    for first, root in list(roots.items()):
        parent = first
        for _ in range(MAX_LEVELS):
            if parent not in above:
                break
            parent = above[parent]
            roots.setdefault(parent, root)
    for parent in sorted(roots):
        if lost(parent):
            fold.directory(parent, _lost("directory", parent), roots[parent], f"LOST~{parent}")
            known[parent] = False
    # A layout of which the commit that switched it on is lost has no root to hang its directories on.
    kept: list[list[object]] = []
    dropped: set[int] = set()
    for row in folders:
        if lost(_int(row[2])) or _int(row[2]) in dropped:
            dropped.add(_int(row[0]))
        else:
            kept.append(row)
    folders[:] = kept


def _is_root(txn: Transaction, held: Mapping[str, Table], root: int) -> bool:
    return any(txn.get(U64.pack(root), db=held[table]) is not None for table in ("layout", "project"))


def _lost(kind: str, number: int) -> str:
    return tables.identity_key(f"lost {kind}", 0, str(number)).hex()


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
