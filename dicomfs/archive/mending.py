"""Make a commit foldable although commits before it are lost with their pack.

Its instances may lie in directories and series that nobody knows any more: they get stand-ins, so
that every byte that is left can be read. A directory's stand-in is named LOST~ and its number.
A lost pack that is back has names that were claimed anew in the meantime: then the later claim gets a
suffix. In an archive that never lost anything there is nothing to mend.
"""

from collections.abc import Iterable, Mapping

from dicomfs.archive import tables
from dicomfs.archive.fold import Fold
from dicomfs.archive.names import candidates
from dicomfs.archive.tables import U64
from dicomfs.store.index import Table, Transaction

_Rows = Mapping[str, list[list[object]]]


def mend(fold: Fold, txn: Transaction, held: Mapping[str, Table], records: _Rows) -> None:
    """Fold stand-ins for whatever these records refer to and nobody defines."""
    _rename(txn, held, records)
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
    replaced = {_int(row[14]) for row in records["instances"]}
    named = [(row, 2, 3) for row in records["directories"]] + [(row, 3, 4) for row in records["instances"]]
    for row, parent_at, name_at in named:
        parent, name = _int(row[parent_at]), str(row[name_at])
        for candidate in candidates(name, str(row[0])):
            taken = txn.get(tables.name_key(parent, candidate.encode()), db=held["name"])
            if taken is None or U64.unpack(taken)[0] in replaced:
                row[name_at] = candidate
                break


def _lost(kind: str, number: int) -> str:
    return tables.identity_key(f"lost {kind}", 0, str(number)).hex()


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
