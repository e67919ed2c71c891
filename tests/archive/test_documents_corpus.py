"""The documents of the corpus: each is whole, says what is required, agrees with the others, and is the same twice."""

from __future__ import annotations

import gzip
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urljoin

import pytest

from dicomfs.archive import documents
from dicomfs.archive.archive import Archive
from dicomfs.archive.bundle import Bundle
from dicomfs.archive.check import check
from dicomfs.archive.deduplicated import rebuilt
from dicomfs.archive.parts import Parts
from dicomfs.dicom.model_values import swapped
from tests.archive.documents_of import Documents, directory, make, parsed, value
from tests.archive.importing import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.corpus, pytest.mark.slow]

# Tables 10.6.3-3 to 10.6.3-5 of PS3.18: what is there with or without a value.
STUDY = (
    "00080020 00080030 00080050 00080056 00080090 00100010 00100020 00100030 00100040 0020000D 00200010"
    " 00201206 00201208"
)
SERIES = "00080056 00080060 0020000D 0020000E 00200011 00201209"
INSTANCE = "00080016 00080018 00080056 00083002 0020000D 0020000E 00200013"


class Made(NamedTuple):
    """The corpus in an archive, with every document of it."""

    archive: Path
    cache: Path
    documents: Documents


class Place(NamedTuple):
    """A series: where it is in the tree, and its bundle."""

    study: str
    series: str
    bundle: Bundle

    @property
    def below(self) -> str:
        return f"studies/{self.study}/series/{self.series}"


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Import the corpus, and make its documents."""
    path = tmp_path_factory.mktemp("corpus") / "archive"
    Archive.init(path)
    run(path, corpus, jobs=2)
    cache = path.parent / "cache"
    yield Made(path, cache, make(path, cache))
    assert check(path, verify_files=True).problems == []


@pytest.fixture(scope="module")
def places(made: Made) -> list[Place]:
    """Return all series."""
    found = []
    with Archive.open(made.archive) as opened, opened.view() as view:
        for study in view.studies():
            for series in view.series_of(study.key):
                path = documents.path(made.cache, "series", series.key, documents.series_stamp(view, series.key))
                name = directory(study.attributes, "StudyInstanceUID")
                found.append(Place(name, directory(series.attributes, "SeriesInstanceUID"), Bundle.open(path)))
    return found


def test_the_same_twice(made: Made, tmp_path: Path) -> None:
    """The texts, that is: the compressor was seen to give another stream for one of them, once in some thirty runs."""
    again = make(made.archive, tmp_path / "cache")
    assert again.keys() == made.documents.keys()
    for path, document in made.documents.items():
        assert document == again[path] or gzip.decompress(document) == gzip.decompress(again[path]), path


def test_every_document_is_whole(made: Made) -> None:
    assert len(made.documents) > 2000
    for path, document in made.documents.items():
        if path.endswith(".gz") and not path.endswith(".raw"):
            text = gzip.decompress(document).decode("utf-8")
            json.loads(text, parse_constant=pytest.fail)
            assert document[:10] == bytes.fromhex("1f8b0800000000000003")


def test_counts_agree(made: Made, places: list[Place]) -> None:
    studies = parsed(made.documents["studies/index.json.gz"])
    assert len(studies) == len({place.study for place in places}) > 100
    for study in studies:
        uid = documents.directory_name(value(study, "0020000D"))
        series = parsed(made.documents[f"studies/{uid}/series/index.json.gz"])
        assert len(series) == value(study, "00201206")
        assert parsed(made.documents[f"studies/{uid}/index.json.gz"]) == [study]
        assert sum(value(one, "00201209") for one in series) == value(study, "00201208")
        assert len(parsed(made.documents[f"studies/{uid}/metadata.gz"])) == value(study, "00201208")
        modalities = {one["00080060"]["Value"][0] for one in series if "Value" in one["00080060"]}
        assert set(study.get("00080061", {}).get("Value", ())) >= modalities
        for one in series:
            below = f"studies/{uid}/series/{documents.directory_name(value(one, '0020000E'))}"
            metadata = parsed(made.documents[f"{below}/metadata.gz"])
            index = parsed(made.documents[f"{below}/instances/index.json.gz"])
            assert len(metadata) == len(index) == value(one, "00201209")
            assert [value(held, "00080018") for held in metadata] == [value(held, "00080018") for held in index]


def test_what_is_required_is_there(made: Made) -> None:
    for path, document in made.documents.items():
        if path.endswith("/index.json.gz"):
            required = INSTANCE if "/instances/" in path else SERIES if "/series/" in path else STUDY
            for held in parsed(document):
                assert set(required.split()) <= set(held), path
                assert list(held) == sorted(held)
                assert held["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
                assert value(held, "00080056") == "ONLINE"
                assert not any(element.get("Value") == [] for element in held.values())
                if required is INSTANCE:
                    assert value(held, "00083002")
                    assert value(held, "00080018")


def uris(held: Any) -> Iterator[str]:
    """Walk the BulkDataURIs of a document."""
    if isinstance(held, list):
        for one in held:
            yield from uris(one)
    elif isinstance(held, dict):
        for key, one in held.items():
            if key == "BulkDataURI":
                yield one
            else:
                yield from uris(one)


def test_every_uri_names_a_value(made: Made, places: list[Place]) -> None:
    count = 0
    by_study: dict[str, list[str]] = {}
    for place in places:
        known = {f"instances/{card.name}/bulkdata/{value.name}" for card in place.bundle.cards for value in card.bulk}
        found = [unquote(uri) for uri in uris(parsed(made.documents[f"{place.below}/metadata.gz"]))]
        assert set(found) == known
        assert len(found) == len(known)
        by_study.setdefault(place.study, []).extend(f"series/{place.series}/{uri}" for uri in found)
        for card in place.bundle.cards:
            own = uris(parsed(made.documents[f"{place.below}/instances/{card.name}/metadata.gz"]))
            assert list(own) == [f"bulkdata/{value.name}" for value in card.bulk]
            count += len(card.bulk)
    for study, expected in by_study.items():
        found = [unquote(uri) for uri in uris(parsed(made.documents[f"studies/{study}/metadata.gz"]))]
        assert sorted(found) == sorted(expected)
    assert count > 400


def test_metadata_agree_at_all_levels(made: Made, places: list[Place]) -> None:
    for place in places:
        of_series = parsed(made.documents[f"{place.below}/metadata.gz"])
        for card, held in zip(place.bundle.cards, of_series, strict=True):
            (own,) = parsed(made.documents[f"{place.below}/instances/{card.name}/metadata.gz"])
            assert list(own) == list(held)
            assert {tag: one for tag, one in own.items() if not list(uris(one))} == {
                tag: one for tag, one in held.items() if not list(uris(one))
            }


def test_the_deduplicated_lists_hold_everything(made: Made, places: list[Place]) -> None:
    seen = 0
    for study in {place.study for place in places}:
        below = f"studies/{study}/deduplicated"
        (path,) = (path for path in made.documents if path.startswith(f"{below}/") and path.count("/") == 3)
        instances = put_together(made, path)
        assert put_together(made, f"{below}.gz") == instances
        whole = parsed(made.documents[f"studies/{study}/metadata.gz"])
        for one, expected in zip(instances, whole, strict=True):
            assert list(one) == list(expected)
            assert without_uris(one) == without_uris(expected)
            for ours, theirs in zip(uris(one), uris(expected), strict=True):
                if "7FE000" in theirs.rpartition("/")[2]:
                    assert ours == f"/studies/{study}/{theirs}"
                else:
                    assert ours.removeprefix("/") in made.documents
            name = documents.directory_name(value(expected, "00080018"))
            (alone,) = put_together(made, f"{below}/instances/{name}.gz")
            assert alone == one or len({value(held, "00080018") for held in whole}) < len(whole)
            seen += 1
    assert seen > 500


def put_together(made: Made, path: str) -> list[dict[str, Any]]:
    """Return the instances of a deduplicated list, their URIs from the root."""
    known = {}
    instances = []
    for one in parsed(made.documents[path]):
        block = max(tag[6:] for tag in one if one[tag].get("Value") == ["dedupped"])
        kind = value(one, f"0009{block}12")
        if kind == "instance":
            instances.append(one)
        else:
            known[value(one, f"0009{block}11")] = one
    return [from_root(rebuilt(one, known), f"/{path}") for one in instances]


def from_root(held: Any, base: str) -> Any:
    """Return a document with URIs that lead from the root (RFC 3986 5)."""
    if isinstance(held, list):
        return [from_root(one, base) for one in held]
    if isinstance(held, dict):
        return {key: urljoin(base, one) if key == "BulkDataURI" else from_root(one, base) for key, one in held.items()}
    return held


def without_uris(held: Any) -> Any:
    """Return a document with every BulkDataURI left out."""
    if isinstance(held, list):
        return [without_uris(one) for one in held]
    if isinstance(held, dict):
        return {key: without_uris(one) for key, one in held.items() if key != "BulkDataURI"}
    return held


def test_values_have_the_hash_of_their_bytes(made: Made) -> None:
    seen = 0
    with Archive.open(made.archive) as opened:
        with opened.view() as view:
            paths = [
                documents.path(made.cache, "study", study.key, documents.study_stamp(view, study.key))
                for study in view.studies()
            ]
        for path in paths:
            for one in Bundle.open(path).hashed():
                if one.bulk is not None:
                    parts = Parts.open(opened, one.ino)
                    data = swapped(bytes(parts.read(one.bulk.start, one.bulk.end)), one.bulk.swap)
                    assert sha256(data).hexdigest() == one.sha256
                    assert len(data) == one.bulk.end - one.bulk.start
                    seen += 1
    assert seen > 20


def test_cards_agree_with_documents(made: Made, places: list[Place]) -> None:
    for place in places:
        index = parsed(made.documents[f"{place.below}/instances/index.json.gz"])
        middle = place.bundle.cards.of(place.bundle.middle)
        assert middle is not None
        assert middle.frames or not any(card.frames for card in place.bundle.cards)
        for card, held in zip(place.bundle.cards, index, strict=True):
            assert not card.damaged
            assert card.name == documents.directory_name(value(held, "00080018"))
            assert (card.frames > 0) == (card.kind in ("image", "video"))
            if card.frames > 1:
                assert held["00280008"]["Value"] == [card.frames]
