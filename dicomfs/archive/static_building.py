"""Write the Part 10 file of an instance of a static DICOMweb tree: its original where that is kept, else a rebuilt one.

Metadata and bulk values are in memory, of one instance at a time; frames go through it piece by piece. Lengths that are
not known before are written afterwards, in their place.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import BinaryIO, Final

from dicomfs.archive.static_files import LONGEST_VALUE, Absent, Tree, Unusable
from dicomfs.archive.static_frames import Frame, content, frames, video
from dicomfs.archive.static_study import Found, Record
from dicomfs.dicom import json_pixels
from dicomfs.dicom.encoding import UNDEFINED
from dicomfs.dicom.json_part10 import PIXELS, Source, fragment_header, part10, pixel_end, pixel_header
from dicomfs.dicom.json_pixels import PACKED, Frames, Plan, Unfit
from dicomfs.dicom.json_text import text_of
from dicomfs.dicom.json_values import Json, NoValue
from dicomfs.dicom.model_values import swapped
from dicomfs.dicom.part10 import EXPLICIT_VR_LITTLE_ENDIAN

REBUILT: Final = "rebuilt"
ORIGINAL_LOST: Final = "the original beside it is damaged"
DESCRIBED: Final = "Rebuilt from a static DICOMweb tree: the original file is not available"

_ENCAPSULATED_DOCUMENT: Final = "00420011"
_ENDINGS: Final = ("", ".gz", ".mht.gz", ".mht")
_HASHED: Final = re.compile(r"/bulkdata/([0-9a-f]{3})/([0-9a-f]{2})/([0-9a-f]{59})(?![0-9a-f])").search
_BULK: Final = "bulkdata/"
_SLACK: Final = 1 << 20
_NOTHING: Final = json_pixels.Value(EXPLICIT_VR_LITTLE_ENDIAN, None, ())


def build(tree: Tree, found: Found, file: BinaryIO) -> tuple[str, ...]:
    """Write the file of an instance; return what is to be said of it, nothing if it is the original. Raise Unusable."""
    notes = []
    if found.original:
        try:
            file.writelines(tree.payload(found.original).pieces)
        except Unusable:
            file.seek(0)
            file.truncate()
            notes.append(ORIGINAL_LOST)
        else:
            return ()
    try:
        return (REBUILT, *dict.fromkeys([*notes, *_rebuild(tree, found, found.record(), file)]))
    except (NoValue, Unfit) as error:
        raise Unusable(str(error)) from error


def _rebuild(tree: Tree, found: Found, record: Record, file: BinaryIO) -> list[str]:
    whole = record.object
    plan, files = _pixels(tree, found, record)
    bulk = _Bulk(tree, found, record.document)
    kept = _value(whole, bulk) if plan is None else None
    text = text_of(whole, first_writer=record.first_writer)
    notes = [*text.notes, *(plan or kept or _NOTHING).notes]
    big = bool(plan and plan.decoded) or json_pixels.is_big_endian(whole, plan.told if plan else "")
    source = Source(text, bulk.value, (True if record.first_writer else None) if big else False, notes.append)
    syntax = (plan or kept or _NOTHING).syntax
    pixels = plan.tag if plan else PIXELS if kept and kept.fragments else ""
    made = part10(whole, syntax, plan.changes if plan else {}, source, DESCRIBED, pixels=pixels)
    file.write(made.head)
    if kept and kept.fragments:
        file.writelines((pixel_header("OB", UNDEFINED), kept.fragments, pixel_end()))
    elif plan and plan.encapsulated:
        _encapsulate(tree, files, plan, file)
    elif plan:
        notes += _join(tree, files, plan, whole, file)
    file.write(made.tail)
    return notes


def _value(whole: Mapping[str, Json], bulk: "_Bulk") -> json_pixels.Value | None:
    """Return the pixel data of an instance that has no frames, if there are any."""
    element = whole.get(PIXELS)
    uri = element.get("BulkDataURI") if isinstance(element, dict) else None
    return json_pixels.of_value(whole, bulk.value(PIXELS, uri)) if isinstance(uri, str) else None


def _pixels(tree: Tree, found: Found, record: Record) -> tuple[Plan | None, Sequence[Frame]]:
    """Return how the frames become pixel data, and their files; no plan where none are called for."""
    tag = json_pixels.element_of_frames(record.object)
    element = record.object.get(tag)
    files = frames(tree, found.directory)
    told = element.get("BulkDataURI") if isinstance(element, dict) else None
    if element is None and files:
        raise Unusable("it has frames that its metadata do not tell of")
    if not files and (not isinstance(told, str) or json_pixels.is_value(record.object)):
        return None, ()
    syntax = ""
    if not files:
        stream, ending = video(tree, found.directory)
        if stream is None:
            raise Unusable("its frames are missing")
        syntax = json_pixels.video_syntax(record.object, ending)
        files = [stream]
    first = content(tree, files[0])
    syntax = syntax or first.syntax
    if not syntax:
        raise Unusable(f"{files[0].path} does not say its transfer syntax")

    def size() -> int:
        return sum(len(piece) for frame in files for piece in content(tree, frame).pieces)

    found_frames = Frames(syntax, len(files), lambda: _small(content(tree, files[0]).pieces), size)
    return json_pixels.plan(record.object, found_frames, first_writer=record.first_writer), files


def _encapsulate(tree: Tree, files: Sequence[Frame], plan: Plan, file: BinaryIO) -> None:
    """Write a fragment for each frame, behind an offset table that is empty (PS3.5 A.4)."""
    file.write(pixel_header("OB", UNDEFINED) + fragment_header(0))
    for frame in files:
        start = file.tell()
        file.write(fragment_header(0))
        size = sum(map(file.write, _of(tree, frame, plan)))
        if size & 1:
            file.write(b"\0")
        _write_at(file, start, fragment_header(size + (size & 1)))
    file.write(pixel_end())


def _join(tree: Tree, files: Sequence[Frame], plan: Plan, whole: Mapping[str, Json], file: BinaryIO) -> list[str]:
    """Write native frames one after another; raise Unusable where they are not as long as the header says."""
    start = file.tell()
    file.write(pixel_header(plan.vr, 0, plan.tag))
    notes = []
    if plan.frame_bits % 8 and len(files) > 1:
        joined, repacked = _bits([_small(_of(tree, frame, plan)) for frame in files], plan)
        size = file.write(joined)
        notes += [PACKED] if repacked else []
    else:
        most = plan.length + max(plan.length, _SLACK) if plan.length else LONGEST_VALUE
        pieces = (_of(tree, frame, plan) for frame in files)
        if plan.decoded:
            pieces = (iter((json_pixels.decoded(whole, _small(frame)),)) for frame in pieces)
        size = _written(chain.from_iterable(pieces), plan.swap, most, file)
    if plan.length and (size < plan.length or (size > plan.length + 1 and len(files) > 1)):
        raise Unusable(f"its frames have {size:,} bytes, and its header calls for {plan.length:,}")
    if size & 1:
        file.write(b"\0")
    _write_at(file, start, pixel_header(plan.vr, size + (size & 1), plan.tag))
    return notes


def _written(pieces: Iterable[bytes], sample: int, most: int, file: BinaryIO) -> int:
    """Write pieces, the bytes of each sample reversed; return how many bytes they are."""
    size, rest = 0, b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) // sample * sample
        rest = data[whole:]
        size += file.write(swapped(data[:whole], sample))
        if size > most:
            raise Unusable("its frames are much longer than its header says")
    return size + file.write(rest)


def _bits(parts: list[bytes], plan: Plan) -> tuple[bytes, bool]:
    """Join frames that end within a byte: the first writer cuts there, others begin each frame with a byte."""
    joined = b"".join(parts)
    if len(joined) == plan.length:
        return joined, False
    if any(len(part) != (plan.frame_bits + 7) // 8 for part in parts):
        raise Unusable(f"its frames have {len(joined):,} bytes, and its header calls for {plan.length:,}")
    every, mask = 0, (1 << plan.frame_bits) - 1
    for number, part in enumerate(parts):
        every |= (int.from_bytes(part, "little") & mask) << number * plan.frame_bits
    return every.to_bytes(plan.length, "little"), True


def _of(tree: Tree, frame: Frame, plan: Plan) -> Iterator[bytes]:
    """Yield the bytes of a frame; raise Unusable where it says another transfer syntax than the first."""
    syntax, pieces = content(tree, frame)
    if syntax not in ("", plan.told):
        raise Unusable("its frames are in several transfer syntaxes")
    return pieces


def _small(pieces: Iterator[bytes]) -> bytes:
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > LONGEST_VALUE:
            raise Unusable("its frames are much longer than its header says")
    return data


def _write_at(file: BinaryIO, position: int, data: bytes) -> None:
    end = file.tell()
    file.seek(position)
    file.write(data)
    file.seek(end)


class _Bulk:
    """Finds what BulkDataURIs name, within the study's directory and nowhere else."""

    def __init__(self, tree: Tree, found: Found, document: str) -> None:
        self._tree = tree
        self._instance = found.directory
        self._study = found.directory.rpartition("/series/")[0]
        self._document = document

    def value(self, tag: str, uri: str) -> bytes:
        """Return a value; raise Unusable where there is none."""
        paths = list(dict.fromkeys(self._paths(uri)))
        if not paths:
            raise Unusable(f"({tag[:4]},{tag[4:]}): its BulkDataURI leads out of the study")
        if tag == _ENCAPSULATED_DOCUMENT:
            paths.append(f"{self._instance}/rendered.pdf")
        for path in paths:
            try:
                value = self._tree.value(path)
            except Absent:
                continue
            named = _HASHED(f"/{path}")
            if named and hashlib.sha256(value).hexdigest() != "".join(named.groups()):
                raise Unusable(f"{path} is damaged: its content is not what its name says")
            return value
        raise Unusable(f"({tag[:4]},{tag[4:]}): the value that it names is missing")

    def _paths(self, uri: str) -> Iterator[str]:
        """Yield where the value may be: as RFC 3986 has it, from the study's directory, or by the end of the URI."""
        path = re.split(r"[?#]", uri, maxsplit=1)[0]
        relative = "://" not in path and not path.startswith("/")
        bases = [self._document, self._study, self._instance] if relative else []
        tries = [f"{base}/{path}" for base in bases]
        if _BULK in path:
            tries += [f"{base}/{path[path.rindex(_BULK) :]}" for base in (self._instance, self._study)]
        for one in tries:
            inside = _normal(one)
            if inside.startswith(f"{self._study}/"):
                yield from (inside + ending for ending in _ENDINGS)


def _normal(path: str) -> str:
    """Return a path without . and .., "" for one that leads out."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
