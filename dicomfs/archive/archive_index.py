"""The index of the layout `archive`: archive_index.json, as the dicom-archive tool has it beside its tree.

    {"version": "1.0", "creationDate": …,
     "patients": [{"patientName", "patientID", "studies": [{"studyInstanceUID", "studyDate", "studyDescription",
      "accessionNumber", "modality", "series": [{"seriesInstanceUID", "seriesNumber", "seriesDescription", "modality",
       "instances": [{"sopInstanceUID", "sopClassUID", "instanceNumber", "filePath", "fileSize", "importDate"}]}]}]}],
     "lastModified": …, "fileCount": …}

It is made of the catalog alone and written as it is made, so memory does not grow with the archive. It lies in
cache/indexes/<root of the layout>-<number of the last commit>-<its time>.json; what is not known is '' there.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Final, NamedTuple

from dicomfs.archive.archive import Archive
from dicomfs.archive.catalog import Instance, Patient, Series, Study, View
from dicomfs.archive.lacking import Owners
from dicomfs.archive.records import Attributes, Value
from dicomfs.errors import StorageFull

NAME: Final = "archive_index.json"
_VERSION: Final = "1.0"
_BUFFER: Final = 1 << 18
_LISTED: Final = 4096

_encode = json.JSONEncoder(ensure_ascii=False).encode


class Made(NamedTuple):
    """An index that was made, and the commit of which it is."""

    seq: int
    time_ns: int
    path: Path


def made(cache: Path, root: int) -> Made | None:
    """Return the index of a layout; None where there is none."""
    found = _of(cache, root)
    if not found:
        return None
    _, seq, time_ns = found[-1].stem.split("-")
    return Made(int(seq), int(time_ns, 16), found[-1])


def _of(cache: Path, root: int) -> list[Path]:
    """Return the indexes of a layout, the one that was made last at the end."""
    found = []
    for one in (cache / "indexes").glob(f"{root}-*.json"):
        with suppress(FileNotFoundError):  # another process made a newer one
            found.append((one.stat().st_mtime_ns, one))
    return [one for _, one in sorted(found)]


def make(archive: Archive, cache: Path, args: tuple[int, ...]) -> None:
    """Make the index of a layout as of now, if it is not there; raise StorageFull."""
    root = args[0]
    with archive.view() as view:
        target = cache / "indexes" / f"{root}-{view.seq}-{view.commit_time_ns:x}.json"
        if _of(cache, root)[-1:] == [target]:
            return
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            _write(target, _texts(view, root, archive.settings.created))
            for old in _of(cache, root):
                if old != target:
                    old.unlink(missing_ok=True)
        except OSError as error:
            raise StorageFull(f"{target.parent}: the index of a layout cannot be written ({error.strerror})") from error


def _write(target: Path, texts: Iterator[str]) -> None:
    """Write a file that is whole when it has its name."""
    temporary = target.with_name(f".{target.name}.{token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb", buffering=_BUFFER) as file:
            file.writelines(text.encode("utf-8", "replace") for text in texts)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


class _Totals:
    def __init__(self) -> None:
        self.files = 0
        self.last_ns = 0


def _texts(view: View, root: int, created: str) -> Iterator[str]:
    """Yield the document in pieces."""
    totals = _Totals()
    paths = _Paths(view, root)
    yield f'{{"version": "{_VERSION}", "creationDate": {_encode(created)}, "patients": [\n'
    between = ""
    for patient in view.patients():
        for text in _patient(view, patient, paths, totals):
            yield between + text
            between = ""
        between = ",\n" if totals.files else ""
    last = _time(totals.last_ns) if totals.last_ns else created
    yield f'\n], "lastModified": {_encode(last)}, "fileCount": {totals.files}}}\n'


def _object(told: dict[str, Value], key: str, children: Iterable[Iterator[str]]) -> Iterator[str]:
    """Yield an object with a list of children, or nothing where these are nothing."""
    between = f'{_encode(told)[:-1]}, "{key}": ['
    begun = False
    for child in children:
        for text in child:
            yield between + text
            between, begun = "", True
        if begun:
            between = ",\n"
    if begun:
        yield "]}"


def _patient(view: View, patient: Patient, paths: "_Paths", totals: _Totals) -> Iterator[str]:
    told = _told(patient.attributes, patientName="PatientName", patientID="PatientID")
    studies = (_study(view, study, patient, paths, totals) for study in view.studies_of(patient.key))
    return _object(told, "studies", studies)


def _study(view: View, study: Study, patient: Patient, paths: "_Paths", totals: _Totals) -> Iterator[str]:
    told = _told(
        study.attributes, studyInstanceUID="StudyInstanceUID", studyDate="StudyDate",
        studyDescription="StudyDescription", accessionNumber="AccessionNumber",
    )  # fmt: skip
    told["modality"] = study.modalities[0] if study.modalities else ""
    owners = Owners(view, study) if len(study.patients) > 1 else None
    series = (_series(view, one, patient, owners, paths, totals) for one in view.series_of(study.key))
    return _object(told, "series", series)


def _series(
    view: View, series: Series, patient: Patient, owners: Owners | None, paths: "_Paths", totals: _Totals
) -> Iterator[str]:
    told = _told(
        series.attributes, seriesInstanceUID="SeriesInstanceUID", seriesNumber="SeriesNumber",
        seriesDescription="SeriesDescription", modality="Modality",
    )  # fmt: skip

    def instances() -> Iterator[Iterator[str]]:
        for ino in view.numbers_from(series.key, 0):
            # What was replaced or deleted is in no layout.
            shown = paths.of(ino)
            if not shown:
                continue
            if owners is not None and owners.of(view, view.instance_inode(ino).parent) != patient.attributes:
                continue
            instance = view.instance(ino)
            totals.files += 1
            totals.last_ns = max(totals.last_ns, instance.mtime_ns)
            yield iter((_instance(instance, shown),))

    return _object(told, "instances", instances())


def _instance(instance: Instance, shown: str) -> str:
    told = _told(
        instance.attributes, sopInstanceUID="SOPInstanceUID", sopClassUID="SOPClassUID",
        instanceNumber="InstanceNumber",
    )  # fmt: skip
    return _encode({**told, "filePath": shown, "fileSize": instance.size, "importDate": _time(instance.mtime_ns)})


def _told(attributes: Attributes, **keywords: str) -> dict[str, Value]:
    return {key: attributes.get(keyword, "") for key, keyword in keywords.items()}


def _time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Paths:
    """Where a layout shows instances, below its root."""

    def __init__(self, view: View, root: int) -> None:
        self._view = view
        self._root = root
        self._known: dict[int, str] = {}

    def of(self, ino: int) -> str:
        """Return the path of an instance, '' where the layout has none."""
        for root, directory, name in self._view.links(ino):
            if root == self._root:
                if directory not in self._known:
                    if len(self._known) >= _LISTED:
                        self._known.clear()
                    self._known[directory] = self._view.path(directory).partition("/")[2]
                return f"{self._known[directory]}/{name.decode()}".lstrip("/")
        return ""
