"""Archives with catalogs of any size, made without source files: through the importer's own claims, fold and commits.

Every instance is a real file of some 600 bytes without pixels, with its recipe, its compressed header and its
records; `dicomfs check --verify-files` finds nothing to say. What is saved is the reading and parsing of a million
files: the attributes of a series are read once, from its first file.
"""

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import zstandard
from isal.isal_zlib import crc32
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, BasicTextSRStorage, ExplicitVRLittleEndian

from benchmark.scans import MARKS, Template, uid
from dicomfs.archive.archive import Archive
from dicomfs.archive.claims import Claims
from dicomfs.archive.fold import Fold
from dicomfs.archive.ingest import COMMIT_FILES, open_for_writing
from dicomfs.archive.records import Records
from dicomfs.archive.splitting import Levels, Row
from dicomfs.dicom.describe import describe
from dicomfs.store import codec as codecs
from dicomfs.store import recipe as recipes
from dicomfs.store.recipe import BlobId
from dicomfs.store.store import Store
from dicomfs.store.writer import Writer

PER_SERIES, PER_STUDY, PER_PATIENT = 50, 4, 2
"""Instances of a series, series of a study, studies of a patient in a catalog of a clinic."""


class SeriesPlan(NamedTuple):
    """A series that a catalog is to have; patients and studies are numbered in the whole archive."""

    patient: int
    study: int
    series: int
    instances: int


def clinic(instances: int) -> Iterator[SeriesPlan]:
    """Plan a catalog like that of a clinic: 50 instances a series, 400 a patient."""
    for series in range(-(-instances // PER_SERIES)):
        study = series // PER_STUDY
        count = min(PER_SERIES, instances - series * PER_SERIES)
        yield SeriesPlan(study // PER_PATIENT, study, series, count)


def wide(patients: int) -> Iterator[SeriesPlan]:
    """Plan a catalog of many patients with one instance each."""
    return (SeriesPlan(number, number, number, 1) for number in range(patients))


def long(*lengths: int) -> Iterator[SeriesPlan]:
    """Plan one study with series of these lengths."""
    return (SeriesPlan(0, 0, number, length) for number, length in enumerate(lengths))


def patient_id(number: int) -> str:
    """Return the PatientID of a patient."""
    return f"P{number:07d}"


_TEXTS = {**MARKS, "patient": "P9999999", "name": "Name^of^9999999", "date": "19991231", "order": "424242"}


def _template() -> Template:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.SOPInstanceUID = _TEXTS["instance"]
    dataset.StudyDate = dataset.ContentDate = _TEXTS["date"]
    dataset.StudyTime, dataset.ContentTime = "101500", _TEXTS["time"]
    dataset.AccessionNumber, dataset.Modality, dataset.Manufacturer = "A1", "SR", "dicomfs benchmark"
    dataset.StudyDescription, dataset.SeriesDescription = "Catalog", "Made to be listed"
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = _TEXTS["name"], _TEXTS["patient"], "O"
    dataset.PatientBirthDate = "19700101"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _TEXTS["study"], _TEXTS["series"]
    dataset.StudyID = "1"
    dataset.add_new("SeriesNumber", "IS", _TEXTS["order"])
    dataset.add_new("InstanceNumber", "IS", _TEXTS["number"])
    dataset.add_new("SliceLocation", "DS", _TEXTS["position"])
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(_TEXTS["instance"])
    return Template(dataset, _TEXTS)


class _Builder:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = Writer(store)
        self._claims = Claims(store)
        self._template = _template()
        self._time_ns = 0
        self._plain = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._begin()

    def _begin(self) -> None:
        self._time_ns = max(time.time_ns(), self._time_ns + 1)
        self._records = Records()
        self._fold = Fold(self._store, self._writer.txn, self._writer.seq, self._time_ns)
        self._claims.begin(self._writer.txn, self._fold, self._records)

    def commit(self) -> None:
        """Make lasting what was added."""
        if self._records.instances:
            self._fold.finish("import", "benchmark")
            self._writer.commit(self._records.encode("import", "benchmark"), self._time_ns)
            self._begin()

    def close(self) -> None:
        """Commit, and seal the pack."""
        self.commit()
        self._writer.close()

    def series(self, plan: SeriesPlan) -> None:
        """Add a series."""
        filling = {
            "patient": patient_id(plan.patient),
            "name": f"Name^of^{plan.patient:07d}",
            "date": f"20{plan.study % 20 + 5:02d}{plan.study % 12 + 1:02d}{plan.study % 28 + 1:02d}",
            "study": uid("catalog", plan.study),
            "series": uid("catalog", plan.study, plan.series),
            "order": str(plan.series % PER_STUDY + 1),
        }
        head = self._template.fill(
            **filling, instance=_TEXTS["instance"], number="000000", position="0.0", time="101600"
        )
        attributes = describe(bytes(head)).attributes
        assert attributes is not None
        found = Levels(attributes.patient, attributes.study, attributes.series, attributes.instance)
        # All files of a series differ in these four values alone.
        part = self._template.fixed(head)
        base = BlobId(hashlib.sha256(head).digest())
        stored = self._plain.compress(head)
        dictionary = zstandard.ZstdCompressionDict(bytes(head), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        dictionary.precompute_compress(level=3)
        compressor = zstandard.ZstdCompressor(level=3, dict_data=dictionary, write_checksum=True)
        new_base = 0
        if self._writer.add_blob(base, codecs.ZSTD, len(head), stored, crc32(stored), (crc32(stored),), prefix=b"h/"):
            new_base = len(stored)
        for number in range(1, plan.instances + 1):
            self._instance(part, plan, number, found, base, compressor, new_base)
            new_base = 0

    def _instance(
        self,
        part: Template,
        plan: SeriesPlan,
        number: int,
        found: Levels,
        base: bytes,
        compressor: zstandard.ZstdCompressor,
        new_base: int,
    ) -> None:
        instance, text = uid("catalog", plan.series, number), f"{number:06d}"
        time_text = f"10{number // 60 % 60:02d}{number % 60:02d}"
        data = bytes(part.fill(instance=instance, number=text, position=f"{number / 2:.1f}", time=time_text))
        recipe = recipes.encode([(len(data), None)])
        body = compressor.compress(len(recipe).to_bytes(4, "little") + recipe + data)
        own = {**found.instance, "SOPInstanceUID": instance, "InstanceNumber": number, "ContentTime": time_text}
        levels = Levels(found.patient, found.study, found.series, own)
        row = Row(len(data), hashlib.sha256(data).digest(), base, body, len(data), levels)
        offset = self._writer.add_body(body)
        self._claims.place(row, offset, 0, 0, new_base, conflict=False, replaces=0)
        if len(self._records.instances) >= COMMIT_FILES:
            self.commit()


def build(path: Path, plans: Iterable[SeriesPlan]) -> None:
    """Make an archive with these series."""
    shutil.rmtree(path, ignore_errors=True)
    Archive.init(path, codec="none")
    store = open_for_writing(path)
    try:
        builder = _Builder(store)
        for plan in plans:
            builder.series(plan)
        builder.close()
    finally:
        store.close()
