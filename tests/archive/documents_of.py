"""All documents of an archive, for tests."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from dicomfs.archive import documents
from dicomfs.archive.archive import Archive
from dicomfs.archive.bundle import Bundle

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.archive.catalog import View

Documents = dict[str, bytes]


class Stamps(NamedTuple):
    """The stamps of an archive, those of studies and series by number."""

    all: str
    studies: dict[int, str]
    series: dict[int, str]


def make(archive: Path, cache: Path) -> Documents:
    """Make every document; return them by what they are called in the tree."""
    with Archive.open(archive) as opened:
        documents.make_studies(opened, cache, ())
        with opened.view() as view:
            studies = [study.key for study in view.studies()]
        for study in studies:
            documents.make_study(opened, cache, (study,))
        with opened.view() as view:
            return read(view, cache)


def read(view: View, cache: Path) -> Documents:
    """Return every document of bundles that are there."""
    found: Documents = {}
    all_ = Bundle.open(documents.path(cache, "studies", documents.STUDIES, documents.studies_stamp(view)))
    found["studies/index.json.gz"] = bytes(all_.document(("studies", 0)))
    for study in view.studies():
        if not view.shown(study.key):
            continue
        name = directory(study.attributes, "StudyInstanceUID")
        bundle = Bundle.open(documents.path(cache, "study", study.key, documents.study_stamp(view, study.key)))
        for key, file in (("study", "index.json.gz"), ("series", "series/index.json.gz"), ("metadata", "metadata.gz")):
            found[f"studies/{name}/{file}"] = bytes(bundle.document((key, 0)))
        found[f"studies/{name}/deduplicated.gz"] = bytes(bundle.document(("deduplicated", 0)))
        found[f"studies/{name}/deduplicated/{bundle.name}.gz"] = bytes(bundle.document(("list", 0)))
        for one in bundle.hashed():
            digits = one.sha256
            path = f"studies/{name}/bulkdata/{digits[:3]}/{digits[3:5]}/{digits[5:]}.{one.ext}"
            found[path] = b"" if one.extent is None else bytes(bundle.read(*one.extent))
        for series in view.series_of(study.key):
            if not view.shown(study.key, series.key):
                continue
            below = f"studies/{name}/series/{directory(series.attributes, 'SeriesInstanceUID')}"
            stamp = documents.series_stamp(view, series.key)
            bundle = Bundle.open(documents.path(cache, "series", series.key, stamp))
            found[f"{below}/metadata.gz"] = bytes(bundle.document(("metadata", 0)))
            found[f"{below}/instances/index.json.gz"] = bytes(bundle.document(("index", 0)))
            for card in bundle.cards:
                if not card.damaged:
                    metadata = bundle.document(("instance", card.ino))
                    found[f"{below}/instances/{card.name}/metadata.gz"] = bytes(metadata)
                    dedup = bundle.document(("dedup", card.ino))
                    found[f"studies/{name}/deduplicated/instances/{card.name}.gz"] = bytes(dedup)
    return found


def directory(attributes: dict[str, str | int], keyword: str) -> str:
    """Return the name of a directory."""
    return documents.directory_name(str(attributes.get(keyword, "")))


def parsed(document: bytes) -> list[dict[str, Any]]:
    """Return what a document says."""
    found = json.loads(gzip.decompress(document))
    assert isinstance(found, list)
    return found


def stamps(archive: Path) -> Stamps:
    """Return the stamps of an archive."""
    with Archive.open(archive) as opened, opened.view() as view:
        studies = [study.key for study in view.studies()]
        series = [series.key for study in studies for series in view.series_of(study)]
        return Stamps(
            documents.studies_stamp(view),
            {number: documents.study_stamp(view, number) for number in studies},
            {number: documents.series_stamp(view, number) for number in series},
        )


def value(held: dict[str, Any], tag: str) -> Any:
    """Return an attribute's first value."""
    return held[tag]["Value"][0]
