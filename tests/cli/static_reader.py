"""A reader of static DICOMweb trees that shares no code with what writes them: it follows static-wado's own rules."""

from __future__ import annotations

import gzip
import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urljoin

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

EXTRACTS = ("patient", "study", "series", "image")


class Part(NamedTuple):
    """What a multipart file of one part holds."""

    headers: dict[str, str]
    data: bytes

    @property
    def transfer_syntax(self) -> str:
        return self.headers["content-type"].partition("transfer-syntax=")[2]


def load(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def part(path: Path) -> Part:
    """Read a wrapped file: the first line is the separator, the data end where it comes last."""
    raw = path.read_bytes()
    data = gzip.decompress(raw) if path.name.endswith(".gz") else raw
    separator, _, _ = data.partition(b"\r\n")
    assert separator.startswith(b"--")
    start = data.index(b"\r\n\r\n") + 4
    end = data.rindex(b"\r\n" + separator)
    # What the later of the two readers of static-wado computes.
    assert end == len(data) - len(separator) - 6
    lines = data[len(separator) + 2 : start - 4].decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Part(headers, data[start:end])


def text_of(value: Any) -> str:
    """Return what node-object-hash makes a hash of."""
    match value:
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case str():
            return value
        case int() | float():
            return _number(float(value))
        case list():
            return f"[{','.join(sorted(map(text_of, value), key=lambda text: text.encode('utf-16-be')))}]"
        case dict():
            return "{" + ",".join(f"{key}:{text_of(value[key])}" for key in sorted(value)) + "}"
    raise AssertionError(value)


def _number(value: float) -> str:
    """Return a double as JavaScript prints it."""
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if 1e-6 <= abs(value) < 1e21:
        return f"{Decimal(repr(value)):f}"
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def hash_of(value: Any) -> str:
    return hashlib.sha256(text_of(value).encode()).hexdigest()


def block_of(held: Json) -> str:
    """Return the block of group 0009 that the format took."""
    return next(
        tag[6:]
        for tag, element in held.items()
        if tag.startswith("000900") and element == {"vr": "CS", "Value": ["dedupped"]}
    )


def dedup(held: Json, number: int) -> list[str]:
    """Return DeduppedRef (0x10), DeduppedHash (0x11) or another element of the block."""
    return list(held.get(f"0009{block_of(held)}{number:02X}", {}).get("Value", []))


def bare(held: Json) -> Json:
    """Return an object without the block."""
    block = block_of(held)
    return {
        tag: element
        for tag, element in held.items()
        if tag != f"000900{block}" and not (tag.startswith("0009") and tag[4:6] == block)
    }


def before_hashing(held: Json) -> Json:
    """Return an object as it was when its hash was made."""
    block = block_of(held)
    added = {f"0009{block}{number}" for number in ("11", "12", "13", "14", "15")}
    if dedup(held, 0x12) != ["instance"]:
        added.add(f"000900{block}")
    return {tag: element for tag, element in held.items() if tag not in added}


class Study:
    """A study, as its lists tell it."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.directory = root / "studies" / name
        self.groups = root / "deduplicated" / name
        self.infos: list[Json] = []
        self.extracts: dict[str, Json] = {}
        self.instances: dict[tuple[str, str], Json] = {}
        self.read: list[str] = []
        self._known: set[str] = set()
        self._take("index", load(self.directory / "deduplicated" / "index.json.gz"))
        for path in sorted(self.groups.iterdir(), key=lambda path: -path.stat().st_mtime_ns):
            if path.name.removesuffix(".gz") not in self._known:
                self._take(path.name, load(path))

    def _take(self, name: str, items: list[Json]) -> None:
        self.read.append(name)
        for item in items:
            (digest,), (kind,) = dedup(item, 0x11), dedup(item, 0x12)
            if kind == "info":
                self._known |= {digest, *dedup(item, 0x10)}
                self.infos.append(item)
            elif kind == "instance":
                uids = (item["0020000E"]["Value"][0], item["00080018"]["Value"][0])
                self.instances.setdefault(uids, item)
            else:
                assert kind in EXTRACTS
                self.extracts.setdefault(digest, item)

    def rebuilt(self, instance: Json) -> Json:
        """Return the whole object of an instance."""
        whole = dict(instance)
        for ref in dedup(instance, 0x10):
            extract = self.extracts.get(ref) or load(self.bulk(ref))
            for tag, element in bare(extract).items():
                whole.setdefault(tag, element)
        return bare(whole)

    def bulk(self, digest: str) -> Path:
        return self.directory / "bulkdata" / digest[:3] / digest[3:5] / f"{digest[5:]}.json.gz"


def bulk_uris(held: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Walk the BulkDataURIs of an object with the tags that lead to them."""
    for tag, element in held.items():
        if "BulkDataURI" in element:
            yield f"{path}{tag}", element["BulkDataURI"]
        for number, item in enumerate(element.get("Value", []) if element.get("vr") == "SQ" else [], 1):
            yield from bulk_uris(item, f"{path}{tag}.{number}.")


def resolved(root: Path, document: str, uri: str) -> Path:
    """Return the file to which a URI leads from a document's URL (RFC 3986 5)."""
    base = "http://localhost/"
    url = urljoin(base + document, uri)
    assert url.startswith(base)
    return root / unquote(url.removeprefix(base))
