"""Instances that are to get a place in a tree, and all that they say: the series of one in the order of slices."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dicomfs.archive import tables
from dicomfs.archive.catalog import Instance, Study, View
from dicomfs.archive.layout import Layout
from dicomfs.archive.layout_values import Value, patient_identity


class Lacking(NamedTuple):
    """An instance without a place, and all that it says."""

    instance: Instance
    attributes: dict[str, Value]

    @property
    def identity(self) -> str:
        """What its name's suffix is made of, should it need one."""
        instance = self.instance
        return str(instance.attributes["SOPInstanceUID"]) if instance.current else instance.sha256.hex()


def in_order(
    views: Callable[[], View], series: int, after: int, layout: Layout, wanted: Callable[[View, int], bool]
) -> Iterator[Lacking]:
    """Walk those instances of a series past a number that are wanted: by slices where the layout counts, else as they
    came. `views` gives the view to look at, which may be another one after a commit."""
    view = views()
    above = view.series(series)
    study = view.study(above.study)
    owners = Owners(view, study)
    numbers = [ino for ino in view.numbers_from(series, after) if wanted(view, ino)]
    if layout.counts:
        numbers = [ino for *_, ino in sorted(_slice_order(view.instance(ino)) for ino in numbers)]
    for ino in numbers:
        view = views()
        instance = view.instance(ino)
        patient = owners.of(view, view.instance_inode(ino).parent)
        said = patient | study.attributes | above.attributes | instance.attributes
        yield Lacking(instance, {key: value for key, value in said.items() if value != ""})


def _slice_order(instance: Instance) -> tuple[bool, int, str, int]:
    """Return what puts the instances of a series in order."""
    number = instance.attributes.get("InstanceNumber")
    when = f"{instance.attributes.get('ContentDate', '')}{instance.attributes.get('ContentTime', '')}"
    known = isinstance(number, int)
    return not known, number if isinstance(number, int) else 0, when, instance.ino


class Owners:
    """Whose the instances of a study are: its files may disagree, and each patient has a directory in `patients/`."""

    def __init__(self, view: View, study: Study) -> None:
        self._patients = [view.patient(key).attributes for key in study.patients]
        self._by_directory: dict[int, dict[str, Value]] = {}
        for attributes in self._patients if len(self._patients) > 1 else ():
            text = patient_identity(attributes, str(study.attributes.get("StudyInstanceUID", "")))
            directory = view.directory_identified(tables.ROOT_PATIENTS, text)
            self._by_directory[directory] = attributes

    def of(self, view: View, series_directory: int) -> dict[str, Value]:
        """Return what the patient says whose directory holds this one of a series."""
        if len(self._patients) == 1:
            return self._patients[0]
        study = view.node(series_directory)
        patient = None if study is None else view.node(study.parent)
        return self._by_directory.get(0 if patient is None else patient.parent, self._patients[0])
