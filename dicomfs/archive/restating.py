"""What patients, studies and series are said to be after their instances were edited, deleted or restored.

The catalog says of a patient, study or series what its first instance said, and of an instance in what it differs. When
all instances that are shown agree on something else, it is said of what they are in, and directories that are called
by it get the name that they would have got at first.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from dicomfs.archive import tables
from dicomfs.archive.catalog import Series, Study, View
from dicomfs.archive.fold_versions import RestatedStudy
from dicomfs.archive.layout import PATIENTS
from dicomfs.archive.layout_values import patient_identity
from dicomfs.archive.names import candidates
from dicomfs.dicom.attributes import KEYWORDS

Said: TypeAlias = dict[str, str | int]

_PATIENT, _STUDY, _SERIES = range(3)
_FIRST_NAMES: Final = 8
_ABOVE: Final = frozenset().union(*KEYWORDS)


class Rename(NamedTuple):
    """A directory that is to be called after what it holds now; the plain name may be taken."""

    ino: int
    parent: int
    plain: str
    identity: str


class Restated(NamedTuple):
    """Rows of the commit, and directories to rename, from the top down."""

    series: list[tuple[int, Said]]
    studies: list[RestatedStudy]
    patients: list[tuple[int, Said]]
    renames: list[Rename]


class _Shown(NamedTuple):
    own: Said
    """What the instance says that the catalog does not say of what it is in."""
    directory: int


def restated(view: View, series: Iterable[int]) -> Restated:
    """Return what is to be said of these series, their studies and patients that is not said yet."""
    return _Restating(view).of(sorted(series))


class _Restating:
    def __init__(self, view: View) -> None:
        self._view = view
        self._shown: dict[int, list[_Shown]] = {}
        self._owners: dict[int, dict[int, int]] = {}
        self._renamed: set[int] = set()

    def of(self, series: list[int]) -> Restated:
        view = self._view
        touched = [view.series(number) for number in series]
        new_series = {one.key: self._agreed(_SERIES, one.attributes, self._of_series(one.key)) for one in touched}
        studies = {one.study: view.study(one.study) for one in touched}
        new_studies = {key: self._agreed(_STUDY, one.attributes, self._of_study(key)) for key, one in studies.items()}
        owners = {key: self._owners_of(study) for key, study in studies.items()}
        named = sorted({one for held in owners.values() for one in held})
        new_patients = {key: self._new_patient(key) for key in named}
        said = {one.key: new_series[one.key] for one in touched}
        return Restated(
            [(one.key, said[one.key]) for one in touched if said[one.key] != one.attributes],
            [
                row for key, study in sorted(studies.items())
                if (row := self._study_row(study, new_studies[key], owners[key], said, new_patients)) is not None
            ],
            [(key, new) for key, new in new_patients.items() if new != view.patient(key).attributes],
            list(self._renames(studies, owners, new_series, new_studies, new_patients)),
        )  # fmt: skip

    # What instances say ---------------------------------------------------------------------------

    def _of_series(self, series: int) -> list[_Shown]:
        found = self._shown.get(series)
        if found is None:
            view = self._view
            numbers = ((ino, view.instance_inode(ino).parent) for ino in view.numbers_from(series, 0))
            found = self._shown[series] = [
                _Shown(view.attributes_of(series, ino), parent) for ino, parent in numbers if parent != tables.NOWHERE
            ]
        return found

    def _of_study(self, study: int) -> Iterator[_Shown]:
        for series in self._view.all_series_of(study):
            yield from self._of_series(series)

    def _series_of(self, study: int) -> Iterator[Series]:
        """Walk the series of which something is shown, which their sums say only when the commit is made."""
        for series in self._view.all_series_of(study):
            if self._of_series(series):
                yield self._view.series(series)

    def _agreed(self, level: int, said: Said, instances: Iterable[_Shown]) -> Said:
        """Return what all these instances agree on, and otherwise what was said before."""
        shown = list(instances)
        keys = KEYWORDS[level] & {key for one in shown for key in one.own}
        new = dict(said)
        for key in sorted(keys):
            values = {one.own.get(key, said.get(key, "")) for one in shown}
            if len(values) == 1:
                new[key] = values.pop()
        return {key: value for key, value in new.items() if value != ""}

    # Whose they are -------------------------------------------------------------------------------

    def _directories(self, study: Study) -> dict[int, int]:
        """Return the patient of each directory in `patients/` that may have a part of a study."""
        found = self._owners.get(study.key)
        if found is None:
            found = self._owners[study.key] = {}
            uid = str(study.attributes.get("StudyInstanceUID", ""))
            for patient in study.patients:
                text = patient_identity(self._view.patient(patient).attributes, uid)
                found[self._view.directory_identified(tables.ROOT_PATIENTS, text)] = patient
        return found

    def _owner(self, study: Study, directory: int) -> int:
        """Return the patient whose directory holds this one of a series."""
        above = self._view.node(directory)
        patient = None if above is None else self._view.node(above.parent)
        return self._directories(study).get(0 if patient is None else patient.parent, study.patient)

    def _owners_of(self, study: Study) -> list[int]:
        """Return the patients whom instances of a study name, its own first."""
        directories = {one.directory for one in self._of_study(study.key)}
        found = {self._owner(study, directory) for directory in directories}
        first = [study.patient] if study.patient in found or not found else []
        return [*first, *sorted(found - {study.patient})]

    def _new_patient(self, number: int) -> Said:
        """Return what is to be said of a patient; nobody is asked where no touched instance says something else."""
        said = self._view.patient(number).attributes
        if not any(KEYWORDS[_PATIENT].intersection(one.own) for found in list(self._shown.values()) for one in found):
            return said
        return self._agreed(_PATIENT, said, self._of_patient(number))

    def _of_patient(self, number: int) -> Iterator[_Shown]:
        for study in map(self._view.study, self._view.all_studies_of(number)):
            owner: dict[int, int] = {}
            for one in self._of_study(study.key):
                if one.directory not in owner:
                    owner[one.directory] = self._owner(study, one.directory)
                if owner[one.directory] == number:
                    yield one

    # What is to be recorded -----------------------------------------------------------------------

    def _study_row(
        self, study: Study, new: Said, owners: list[int], series: dict[int, Said], patients: dict[int, Said]
    ) -> RestatedStudy | None:
        modalities: set[str] = set()
        mixed = len(owners) > 1
        for one in self._series_of(study.key):
            held = series.get(one.key, one.attributes)
            modalities.update(
                str(shown.own.get("Modality", held.get("Modality", ""))) for shown in self._of_series(one.key)
            )
            above = patients[owners[0]] | new | held
            mixed = mixed or any(_differs(shown.own, above) for shown in self._of_series(one.key))
        row = RestatedStudy(study.key, owners[0], owners, new, sorted(modalities - {""}), mixed)
        if not any(True for _ in self._of_study(study.key)):
            return None
        before = RestatedStudy(
            study.key, study.patient, list(study.patients), study.attributes, list(study.modalities), study.mixed
        )
        same = row._replace(patients=sorted(owners)) == before._replace(patients=sorted(study.patients))
        return None if same else row

    def _renames(
        self,
        studies: dict[int, Study],
        owners: dict[int, list[int]],
        new_series: dict[int, Said],
        new_studies: dict[int, Said],
        new_patients: dict[int, Said],
    ) -> Iterator[Rename]:
        """Yield the directories of those that are something else now."""
        view = self._view
        root = tables.ROOT_PATIENTS
        for key, study in sorted(studies.items()):
            uid = str(study.attributes.get("StudyInstanceUID", ""))
            for patient in owners[key]:
                text = patient_identity(new_patients[patient], uid)
                said = new_patients[patient] | new_studies[key]
                above = view.directory_identified(root, text)
                below = view.directory_identified(above, uid)
                if new_patients[patient] != view.patient(patient).attributes:
                    yield from self._rename(0, above, root, text, said)
                if new_studies[key] != study.attributes:
                    yield from self._rename(1, below, above, uid, said)
                for one in self._series_of(key):
                    new = new_series.get(one.key, one.attributes)
                    if new != one.attributes:
                        series_uid = str(one.attributes.get("SeriesInstanceUID", ""))
                        number = view.directory_identified(below, series_uid)
                        yield from self._rename(2, number, below, series_uid, said | new)

    def _rename(self, level: int, ino: int, parent: int, identity: str, attributes: Said) -> Iterator[Rename]:
        """Yield a directory that is not called as it would be, once."""
        if not ino or ino in self._renamed:
            return
        self._renamed.add(ino)
        plain = PATIENTS.render_level(level, attributes, identity)
        if self._view.name_of(ino) not in islice(candidates(plain, identity), _FIRST_NAMES):
            yield Rename(ino, parent, plain, identity)


def _differs(own: Said, above: Said) -> bool:
    return any(above.get(key, "") != value for key, value in own.items() if key in _ABOVE)
