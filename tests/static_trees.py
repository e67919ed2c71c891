"""Static DICOMweb trees as the two writers of the reference leave them, faults and all: from nothing of ours.

write_v1(root, files)     static-wado-creator: deduplicated lists, Latin 1, values joined by backslashes
write_v2(root, files)     create-dicomweb: metadata of each instance, arrays, [""] and tags as integers
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import math
import shutil
import struct
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

Json = Any


def tags(text: str) -> list[str]:
    return text.split()


PATIENT = tags("00100020 00101002 00100010 00100021 00100030 00100032 00100040 00120062 00120064")
STUDY = tags("00081030 00080050 0020000D 00080020 00080030 0032000A 0032000C 00200010")
SERIES = tags(
    "0008103E 00200011 0020000E 00080060 00080021 00080031 00080005 00080070 00080080 00080090 00081010 00081070 "
    "00081090 00180015 00181030 00321060"
)
IMAGE = tags(
    "00080008 00080012 00080016 00080064 00081090 00080023 00080022 00181010 00181012 00181016 00181018 00181019 "
    "00181020 00280002 00280004 00280006 00280010 00280011 00280100 00280101 00280102 00280103 00281050 00281051 "
    "00281055 00185100 00200020"
)
GROUPS = {"patient": PATIENT, "study": STUDY, "series": SERIES, "image": IMAGE}

MEDIA = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
CODECS = {
    "ISO_IR 192": "utf-8",
    "GB18030": "gb18030",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 166": "tis_620",
    **{
        f"ISO_IR {number}": f"iso8859_{part}"
        for number, part in ((101, 2), (109, 3), (110, 4), (144, 5), (127, 6), (126, 7), (138, 8), (148, 9))
    },
}
NUMBERS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}
TEXT = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UI", "UT"}
UNSPLIT = {"LT", "ST", "UT"}
BULK_V2 = set(tags("DS FL FD IS LT OB OD OF OL OV OW SL SS ST SV UC UL UN US UT UV"))


def murmur3(text: str) -> int:
    """Return MurmurHash3 x86 32 with seed 0."""
    data, value = text.encode(), 0

    def rotated(number: int, by: int) -> int:
        return (number << by | number >> 32 - by) & 0xFFFFFFFF

    def mixed(number: int) -> int:
        return rotated(number * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    whole = len(data) // 4 * 4
    for (block,) in struct.iter_unpack("<I", data[:whole]):
        value = (rotated(value ^ mixed(block), 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    value ^= mixed(int.from_bytes(data[whole:], "little")) if data[whole:] else 0
    value ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = (value ^ value >> shift) * factor & 0xFFFFFFFF
    return value ^ value >> 16


def hashed_path(uid: str) -> str:
    """Return the directories that --hash-study-uid-path puts before a study's."""
    digits = f"{murmur3(uid):x}".rjust(6, "0")
    return f"{digits[:3]}/{digits[3:6]}"


def canonical(value: Json) -> str:
    """Return what the first writer hashes: unquoted, arrays sorted."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(sorted(map(canonical, value), key=lambda text: text.encode("utf-16-be"))) + "]"
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    return str(value)


def hash_of(value: Json) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def multipart(payload: bytes, media: str, *, version: int, name: str = "") -> bytes:
    line = b"--BOUNDARY_0f8fad5b-d9cb-469f-a165-70867728950e"
    located = f"Content-Location: {name}\r\n".encode() if version == 2 else b""
    end = b"\r\n" if version == 2 else b""
    head = line + b"\r\nContent-Type: " + media.encode() + b"\r\n" + located + b"\r\n"
    return head + payload + b"\r\n" + line + b"--" + end


def packed(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_json(path: Path, value: Json) -> None:
    put(path, packed(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")))


class Writer:
    """What both have in common: a walk over raw elements, bulk values, frames."""

    version = 0

    def __init__(self, root: Path, file: bytes) -> None:
        # What was asked for is not raw any more: one copy is asked, the other is written.
        self.raw = pydicom.dcmread(io.BytesIO(file), force=True)
        self.dataset = dataset = pydicom.dcmread(io.BytesIO(file), force=True)
        self.study = study = root / "studies" / str(dataset.StudyInstanceUID)
        self.sop = str(dataset.SOPInstanceUID)
        self.instance = study / "series" / str(dataset.SeriesInstanceUID) / "instances" / self.sop
        self.charset = str(self._raw_charset()).strip()

    def _raw_charset(self) -> str:
        value = self.dataset.get("SpecificCharacterSet", "")
        return value if isinstance(value, str) else "\\".join(value or "")

    def object(self) -> Json:
        found = self.data_set(self.raw, top=True)
        found["00083002"] = {"vr": "UI", "Value": [str(self.syntax())]}
        if "PixelData" in self.dataset:
            self.frames()
            vr = self.dataset["PixelData"].VR
            found["7FE00010"] = {"vr": vr, "BulkDataURI": self.pixel_uri()}
        return found

    def syntax(self) -> str:
        return str(self.dataset.file_meta.TransferSyntaxUID)

    def data_set(self, dataset: Dataset, *, top: bool = False) -> Json:
        found = {}
        for tag in sorted(dataset.keys()):
            if tag.element == 0 or tag.group <= 2 or (top and tag == 0x7FE00010):
                continue
            element = dataset.get_item(tag)
            vr = element.VR or dictionary_VR(tag)
            if isinstance(element.value, Sequence) or vr == "SQ":
                items = dataset[tag].value or []
                found[f"{tag:08X}"] = {
                    "vr": "SQ",
                    **({"Value": [self.data_set(item) for item in items]} if items else {}),
                }
                continue
            raw = element.value if isinstance(element.value, bytes) else b""
            if tag == 0x00080005:  # pydicom has decoded what it needs to decode others
                raw = self._raw_charset().encode()
            elif isinstance(element.value, int):
                raw = element.value.to_bytes(2, "little")
            elif isinstance(element.value, str):
                raw = element.value.encode()
            found[f"{tag:08X}"] = {"vr": vr, **self.element(int(tag), vr, raw)}
        return found

    def element(self, tag: int, vr: str, raw: bytes) -> Json:
        raise NotImplementedError

    def pixel_uri(self) -> str:
        raise NotImplementedError

    def payloads(self) -> list[bytes]:
        dataset = self.dataset
        number = int(dataset.get("NumberOfFrames") or 1)
        if self.syntax().startswith("1.2.840.10008.1.2.4.10"):  # a video is one frame, whatever it tells
            return list(generate_frames(dataset.PixelData, number_of_frames=1))
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            return list(generate_frames(dataset.PixelData, number_of_frames=number))
        bits = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * dataset.BitsAllocated
        return [dataset.PixelData[bits * at // 8 : bits * (at + 1) // 8] for at in range(number)]

    def frames(self) -> None:
        syntax = self.syntax()
        native = not self.dataset.file_meta.TransferSyntaxUID.is_compressed
        told = ExplicitVRLittleEndian if native and self.version == 2 else syntax
        media = f"{MEDIA.get(syntax, 'application/octet-stream')};transfer-syntax={told}"
        for number, payload in enumerate(self.payloads(), start=1):
            name = f"{number}.mht.gz" if native else f"{number}.mht"
            whole = multipart(payload, media, version=self.version, name=name)
            put(self.instance / "frames" / name, packed(whole) if native else whole)


class V1(Writer):
    version = 1

    def pixel_uri(self) -> str:
        return f"instances/{self.sop}/frames"

    def element(self, tag: int, vr: str, raw: bytes) -> Json:
        private = bool(tag >> 16 & 1)
        if len(raw) > (64 if private else 131074) or (tag == 0x00420011 and len(raw) > 4):
            digits = hashlib.sha256(raw).hexdigest()
            path = f"bulkdata/{digits[:3]}/{digits[3:5]}/{digits[5:]}"
            whole = multipart(raw, "application/octet-stream", version=1)
            put(self.study / (path + ".gz" * (len(raw) > 1024)), packed(whole) if len(raw) > 1024 else whole)
            return {"BulkDataURI": path}
        if not raw:
            return {}
        inline = {"InlineBinary": base64.b64encode(raw).decode()}
        if vr in NUMBERS:
            size = struct.calcsize(NUMBERS[vr])
            if (vr in ("FD", "SL", "UL") and len(raw) > size) or len(raw) % size:
                return inline
            return {"Value": [number for (number,) in struct.iter_unpack("<" + NUMBERS[vr], raw)]}
        if vr == "AT":
            return {"Value": ["{:04x}{:04x}".format(*struct.unpack("<HH", raw[:4]))]}
        text = raw.split(b"\0")[0].decode("latin_1").strip()
        if vr == "PN":
            return {"Value": [{"Alphabetic": part} for part in text.split("\\")]}
        if vr in ("DS", "IS"):
            return {"Value": [_number(part) for part in text.split("\\")]}
        if vr in TEXT:
            return {"Value": [raw.decode("utf-8").strip("\0 ") if self.charset == "ISO_IR 192" else text]}
        return inline


class V2(Writer):
    version = 2

    def pixel_uri(self) -> str:
        return "./frames"

    def element(self, tag: int, vr: str, raw: bytes) -> Json:
        if len(raw) >= (128 if tag >> 16 & 1 else 131074) and tag > 0x0020000D and vr in BULK_V2:
            digits = hashlib.sha256(raw).hexdigest()
            name = f"{digits[:2]}/{digits[2:4]}/{digits[4:]}.mht.gz"
            whole = multipart(raw, "application/octet-stream", version=2, name=name)
            put(self.study / "bulkdata" / name, packed(whole))
            return {"BulkDataURI": f"../../../../bulkdata/{name}"}
        if not raw:
            return {"Value": [] if vr == "PN" else [""]}
        if vr in NUMBERS and not len(raw) % struct.calcsize(NUMBERS[vr]):
            return {"Value": [number for (number,) in struct.iter_unpack("<" + NUMBERS[vr], raw)]}
        if vr == "AT":
            return {"Value": [high << 16 | low for high, low in struct.iter_unpack("<HH", raw)]}
        if vr == "PN":
            names = ("Alphabetic", "Ideographic", "Phonetic")
            parts = self.decoded(raw).split("\\")
            return {"Value": [dict(zip(names, part.strip(" ").split("="), strict=False)) for part in parts]}
        if vr in ("DS", "IS"):
            return {"Value": [_number(part) for part in raw.decode("latin_1").strip("\0 ").split("\\")]}
        if vr in UNSPLIT:
            return {"Value": [self.decoded(raw).rstrip("\0 ")]}
        if vr in TEXT:
            return {"Value": [part.strip("\0 ") for part in self.decoded(raw).split("\\")]}
        return {"InlineBinary": base64.b64encode(raw).decode()}

    def decoded(self, raw: bytes) -> str:
        return raw.decode(CODECS.get(self.charset, "latin_1"), "replace")


def _number(text: str) -> Json:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


def tagged(found: Json, kind: str) -> Json:
    """Add hash and type, as the first writer does."""
    block = next(number for number in range(0x10, 0x40) if found.get(f"000900{number:02X}", OURS) == OURS)
    digest = hash_of(found)
    return {
        **found,
        f"000900{block:02X}": OURS,
        f"0009{block:02X}11": {"Value": [digest], "vr": "LO"},
        f"0009{block:02X}12": {"Value": [kind], "vr": "LO"},
    }


OURS = {"Value": ["dedupped"], "vr": "CS"}


def digest_of(found: Json) -> str:
    texts = (str(found[tag].get("Value", [""])[0]) for tag in found if tag[:4] == "0009" and tag[6:] == "11")
    return next(text for text in texts if len(text) == 64)


def split(whole: Json) -> tuple[list[Json], Json]:
    """Return the extracts of an instance, and what is left of it."""
    left = dict(whole)
    extracts = [tagged({tag: left.pop(tag) for tag in tags if tag in left}, kind) for kind, tags in GROUPS.items()]
    block = next(number for number in range(0x10, 0x40) if f"000900{number:02X}" not in left)
    left[f"000900{block:02X}"] = OURS
    left[f"0009{block:02X}10"] = {"Value": [digest_of(extract) for extract in extracts], "vr": "LO"}
    left["0020000E"] = {"Value": whole["0020000E"].get("Value", [""]), "vr": "UI"}
    left["00080018"] = {"Value": whole["00080018"].get("Value", [""]), "vr": "UI"}
    return extracts, tagged(left, "instance")


def written(
    form: type[Writer], root: Path, files: Iterable[bytes], failed: list[bytes] | None
) -> Iterator[tuple[Writer, Json]]:
    """Yield the objects of files; those that pydicom cannot take apart are left out if there is a list for them."""
    for file in files:
        writer = None
        try:
            writer = form(root, file)
            whole = writer.object()
        except Exception:
            if failed is None:
                raise
            failed.append(file)
            if writer is not None:
                shutil.rmtree(writer.instance, ignore_errors=True)
        else:
            yield writer, whole


def write_v1(root: Path, files: Iterable[bytes], failed: list[bytes] | None = None) -> None:
    """Write a tree of the first writer; instances of one study may come in any order."""
    lists: dict[str, tuple[dict[str, Json], dict[str, Json]]] = {}
    for writer, whole in written(V1, root, files, failed):
        extracts, instance = split(whole)
        held, instances = lists.setdefault(writer.study.name, ({}, {}))
        instances[writer.sop] = instance
        for extract in extracts:
            digest = digest_of(extract)
            held[digest] = extract
            path = writer.study / "bulkdata" / digest[:3] / digest[3:5] / f"{digest[5:]}.json.gz"
            put(path, packed(json.dumps(extract, indent=1).encode()))
    for uid, (held, instances) in lists.items():
        write_list(root, uid, list(held.values()), list(instances.values()))


def write_list(root: Path, uid: str, extracts: list[Json], instances: list[Json], refs: Iterable[str] = ()) -> str:
    """Write a group and the study's list; return the group's hash."""
    digest = hash_of(instances)
    info = {
        "00090010": OURS,
        "00091011": {"Value": [digest], "vr": "LO"},
        "00091012": {"Value": ["info"], "vr": "LO"},
    }
    put_json(root / "studies" / uid / "deduplicated" / "index.json.gz", [info, *extracts, *instances])
    info["00091010"] = {"Value": [*map(digest_of, instances), *refs], "vr": "LO"}
    put_json(root / "deduplicated" / uid / f"{digest}.gz", [info, *extracts, *instances])
    return digest


def write_v2(root: Path, files: Iterable[bytes], failed: list[bytes] | None = None) -> None:
    """Write a tree of the second writer."""
    for writer, whole in written(V2, root, files, failed):
        put_json(writer.instance / "metadata.gz", [whole])
        (writer.study / "temp").mkdir(exist_ok=True)
