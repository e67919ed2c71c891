"""Query objects as static-wado has them: its attributes at each level, and what QIDO-RS requires beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dicomfs.archive import deduplicated, documents_query, static_objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dicomfs.archive.catalog import Patient, Study

_TAGS: Final = dict(deduplicated.GROUPS)
_STUDY: Final = _TAGS["patient"] | _TAGS["study"]
_SERIES: Final = _TAGS["series"] | {"0020000D"}
_INSTANCE: Final = frozenset((
    "00080013", "00080018", "00080022", "00080023", "00080032", "00080033", "0020000D", "0020000E", "00200012",
    "00200013", "00280002", "00280004", "00280006", "00280010", "00280011", "00280100", "00280101", "00280102",
    "00280103", "00281050", "00281051", "00281055",
))  # fmt: skip
_COUNTED: Final = frozenset(("00080061", "00201206", "00201208", "00201209"))
"""What follows from what lies below is in no hash."""


def study(found: Study, patient: Patient, series: int, instances: int, first: Mapping[str, str]) -> str:
    """Return the object of a study with so many series and instances; `first` are its first instance's elements."""
    return _object("study", documents_query.study(found, patient, series, instances), first, _STUDY)


def series(query: str, instances: int, first: Mapping[str, str]) -> str:
    """Return the object of a series whose own query object is `query`; `first` are its first instance's elements."""
    count = {"00201209": f'{{"vr":"IS","Value":[{instances}]}}'}
    return _object("series", query, {**first, **count}, {*_SERIES, *count})


def instance(query: str, whole: Mapping[str, str]) -> str:
    """Return the object of an instance with these elements, whose own query object is `query`."""
    return _object("instance", query, whole, _INSTANCE)


def _object(kind: str, query: str, held: Mapping[str, str], tags: Iterable[str]) -> str:
    fields = deduplicated.elements(query)
    # A way to bulk data leads from another document.
    fields |= {tag: held[tag] for tag in tags if tag in held and '"BulkDataURI":' not in held[tag]}
    told = {tag: text for tag, text in fields.items() if tag not in _COUNTED}
    return static_objects.tagged(kind, fields, static_objects.hashed(told)).text
