"""What the documents of a series and of its study are made of, one instance at a time."""

from __future__ import annotations

import json
import logging
import zlib
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import deduplicated, documents_gzip, documents_query
from dicomfs.archive.bundle import NO_HASH, Bundle, Card
from dicomfs.errors import Damaged, DicomfsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dicomfs.archive.archive import Archive
    from dicomfs.archive.deduplicated import Object
    from dicomfs.archive.parts import Parts
    from dicomfs.dicom.frames import Frames
    from dicomfs.dicom.model import BulkValue, Model

log = logging.getLogger(__name__)

ENCAPSULATED_PDF: Final = "1.2.840.10008.5.1.4.1.1.104.1"
_LIST_DEPTH: Final = 2
"""deduplicated/instances/<SOP>.gz"""
_PIXELS: Final = "7FE0"
_STEP: Final = 1 << 20
_SAMPLES_PER_PIXEL, _PHOTOMETRIC_INTERPRETATION, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280010, 0x00280011


class Listed(NamedTuple):
    """An instance as the catalog lists it."""

    ino: int
    name: str
    mtime_ns: int
    sop_class: str


class Told(NamedTuple):
    """An instance in all its documents."""

    card: Card
    own: bytes
    """Its DeduppedHash."""
    hashes: tuple[bytes, ...]
    """The SHA-256 of each bulk value, zeros where there is none."""
    pieces: tuple[str, ...]
    """Its JSON object, cut where the way from a document to its directory goes."""
    query: str
    objects: tuple[Object, ...]
    """Patient, study, series, image and instance of the deduplicated format."""
    lasting: bool
    """Nothing was missing that may come back: the next bundle may take this over."""
    earlier: tuple[int, ...] = ()
    """The versions in whose place it is."""
    replaced: tuple[tuple[str, ...], ...] = ((),) * 5
    """The hashes of the objects in whose place each of its objects is."""

    def kept(self) -> bytes:
        """Return the record from which the next bundle and the study's are made, with the documents."""
        cuts = list(map(len, self.pieces))
        objects = [
            (one.type, one.hash, len(deduplicated.at_depth(one.text, _LIST_DEPTH)), replaced)
            for one, replaced in zip(self._with_history(), self.replaced, strict=True)
        ]
        return zlib.compress(json.dumps((cuts, self.query, objects, self.lasting, self.earlier)).encode(), 1)

    def _with_history(self) -> list[Object]:
        return list(map(deduplicated.replacing, self.objects, self.replaced))

    def metadata(self) -> bytes:
        """Return its own metadata.gz, from which `Kept.pieces` come back."""
        return documents_gzip.member(f"[{''.join(self.pieces)}]")

    def deduplicated(self) -> bytes:
        """Return its own deduplicated list, from which `Kept.objects` come back."""
        texts = [deduplicated.info([self.own.hex()]).text, *(one.text for one in self._with_history())]
        return documents_gzip.member(deduplicated.at_depth(f"[{','.join(texts)}]", _LIST_DEPTH))


class Kept:
    """An instance in an earlier bundle of its series. Belongs to one thread."""

    def __init__(self, bundle: Bundle, ino: int) -> None:
        """Find it; raise Damaged where the bundle does not have it."""
        self._bundle = bundle
        self._ino = ino
        held = json.loads(zlib.decompress(bundle.document(("kept", ino))))
        self._cuts: list[int] = held[0]
        self.query: str = held[1]
        self._objects: list[tuple[str, str, int, list[str]]] = held[2]
        self.lasting: bool = held[3]
        self.earlier: tuple[int, ...] = tuple(held[4])

    def pieces(self) -> tuple[str, ...]:
        """Return its JSON object, cut where the way from a document to its directory goes."""
        text = documents_gzip.text(self._bundle.document(("instance", self._ino)))
        return tuple(text[start:end] for start, end in pairwise(accumulate(self._cuts, initial=1)))

    def objects(self) -> tuple[Object, ...]:
        """Return patient, study, series, image and instance of the deduplicated format, with their history."""
        text = documents_gzip.text(self._bundle.document(("dedup", self._ino)))
        end = len(text) - 1
        found: list[Object] = []
        for kind, digest, length, _ in reversed(self._objects):
            found.append(deduplicated.Object(kind, digest, deduplicated.from_study(text[end - length : end])))
            end -= length + 1
        return tuple(reversed(found))

    def references(self) -> list[tuple[str, str]]:
        """Return type and hash of the objects that it refers to."""
        return [(kind, digest) for kind, digest, _, _ in self._objects[:-1]]

    @property
    def replaced(self) -> list[list[str]]:
        """The hashes of the objects in whose place each of its objects is."""
        return [hashes for *_, hashes in self._objects]


def tell(archive: Archive, listed: Listed, to_directory: str) -> Told | None:
    """Read an instance and write it down; None where its header cannot be read.

    `to_directory` leads from the study's directory to the instance's, and ends in a slash.
    """
    # Here, because what shows an archive does not need it.
    from dicomfs.archive.parts import Parts

    try:
        return _told(Parts.open(archive, listed.ino), listed, to_directory)
    except Damaged as error:
        log.warning("instance %d is in no document of DICOMweb: %s", listed.ino, error)
    except (DicomfsError, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - one instance, whatever is in it, does not take down its series
        log.warning("instance %d is in no document of DICOMweb: unexpected %s", listed.ino, type(error).__name__)
    return None


def _told(parts: Parts, listed: Listed, to_directory: str) -> Told:
    from dicomfs.dicom.model import model

    frames = _frames(parts, listed.ino)
    shown = frames if frames is not None and frames.count > 0 else None
    told = model(parts.data, parts.part10, shown.transfer_syntax if shown else parts.part10.transfer_syntax)
    hashes = tuple(_hash(parts, value, listed.ino) for value in told.bulk)
    objects = deduplicated.objects(_by_hash(told, hashes, to_directory), told.fields)
    lasting = frames is not None and all(
        digest != NO_HASH or _is_pixels(value) for value, digest in zip(told.bulk, hashes, strict=True)
    )
    return Told(
        _card(listed, told, shown), bytes.fromhex(objects[-1].hash), hashes, told.pieces,
        documents_query.instance(told.fields), objects, lasting,
    )  # fmt: skip


def damaged(listed: Listed) -> Card:
    """Return the card of an instance whose header cannot be read."""
    return Card(
        listed.ino, listed.name, listed.mtime_ns, 0, single_stream=False, colour=False, rows=0, columns=0,
        kind="none", damaged=True, bulk=(),
    )  # fmt: skip


def by_hash(digest: str, ext: str) -> str:
    """Return the way from a study's directory to what is known by its hash."""
    return f"bulkdata/{digest[:3]}/{digest[3:5]}/{digest[5:]}.{ext}"


def _frames(parts: Parts, ino: int) -> Frames | None:
    try:
        return parts.frames
    except Damaged as error:
        log.warning("instance %d has no frames in DICOMweb: %s", ino, error)
        return None


def _card(listed: Listed, told: Model, frames: Frames | None) -> Card:
    from dicomfs.archive.pictures import is_colour

    if listed.sop_class == ENCAPSULATED_PDF:
        kind = "pdf"
    elif frames is None:
        kind = "none"
    else:
        kind = "video" if frames.single_stream else "image"
    samples = _number(told.fields, _SAMPLES_PER_PIXEL)
    colour = is_colour(samples, str(_first(told.fields, _PHOTOMETRIC_INTERPRETATION) or ""))
    return Card(
        listed.ino, listed.name, listed.mtime_ns, frames.count if frames else 0,
        frames is not None and frames.single_stream, colour, _number(told.fields, _ROWS),
        _number(told.fields, _COLUMNS), kind, damaged=False, bulk=told.bulk,
    )  # fmt: skip


def _number(fields: Mapping[int, str], tag: int) -> int:
    """Return a number of 16 bits, 0 where there is none."""
    value = _first(fields, tag)
    return value if isinstance(value, int) and 0 <= value <= 0xFFFF else 0


def _first(fields: Mapping[int, str], tag: int) -> object:
    values = json.loads(fields.get(tag, "{}")).get("Value")
    return values[0] if isinstance(values, list) and values else None


def _is_pixels(value: BulkValue) -> bool:
    return value.name[-8:].startswith(_PIXELS)


def _hash(parts: Parts, value: BulkValue, ino: int) -> bytes:
    """Return the SHA-256 of a value in little endian, zeros for pixels, which nobody looks for by their hash."""
    from dicomfs.dicom.model_values import swapped

    if _is_pixels(value):
        return NO_HASH
    digest = sha256()
    try:
        for start in range(value.start, value.end, _STEP):
            data = parts.read(start, min(start + _STEP, value.end))
            digest.update(data if value.swap == 1 else swapped(bytes(data), value.swap))
    except Damaged as error:
        log.warning("instance %d: a value cannot be read: %s", ino, error)
        return NO_HASH
    return digest.digest()


def _by_hash(told: Model, hashes: tuple[bytes, ...], to_directory: str) -> str:
    """Return the instance's object as it is deduplicated: values are named by their hash, pixels by their place."""
    first, *rest = told.pieces
    texts = [first]
    for piece, value, digest in zip(rest, told.bulk, hashes, strict=True):
        if digest == NO_HASH:
            texts += (to_directory, piece)
        else:
            texts += (by_hash(digest.hex(), "raw"), piece.removeprefix(f"bulkdata/{value.name}"))
    return "".join(texts)
