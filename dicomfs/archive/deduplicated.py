"""The deduplicated format: instances whose attributes of patient, study, series and image are objects of their own.

    [info, patient, study, series…, image…, instance…]

Each object carries, in the first free block of group 0009 *of that object* (creator `dedupped`), DeduppedRef (xx10),
DeduppedHash (xx11) and DeduppedType (xx12). An instance refers to its patient, study, series and image; an info
object to the instances of its list. A hash is SHA-256 over the object's canonical form (RFC 8785), in which the
order of values counts, before DeduppedHash and DeduppedType are added. To get an instance back, add to it what the
objects that it refers to hold, and take the format's attributes and their creator away (`rebuilt`).

What a list tells of history is added after hashing too, so that an object has one hash: DeduppedReplace (xx14), the
objects in whose place an object is; of an info object ReplaceDeduplicatedFile (xx15), the list that it superseded, and
DeduppedDelete (xx13), the instances that were in earlier lists and are no more. A list's hash does not follow from the
order of its instances.

A BulkDataURI leads from where its document stands; in a hash it leads from the study's directory, so that an object
has one hash wherever it is (`at_depth`).

Texts of elements travel as they are. Numbers are equal in a hash when they are the same double (1.50 and 1.5), and
what no double can hold keeps its digits, which goes beyond RFC 8785: no hash stands for two values.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

CREATOR: Final = "dedupped"
REF, HASH, TYPE = 0x10, 0x11, 0x12
DELETE, REPLACE, FILE = 0x13, 0x14, 0x15
"""What tells history: DeduppedDelete, DeduppedReplace, ReplaceDeduplicatedFile."""
_ADDED: Final = (HASH, TYPE, DELETE, REPLACE, FILE)
"""No hash is made over these."""

_URI: Final = '"BulkDataURI":"'
_UPWARDS: Final = re.compile(rf"({_URI})(?:\.\./)+").sub
_NONE: Final[Mapping[int, str]] = {}
_SHORT: Final = 4096
_REMEMBERED: Final = 1 << 14
"""Texts up to so long are remembered: most of an instance's are those of the one before."""
_NOT_INTEGER: Final = re.compile(r"[:\[,]-?[0-9]+[.eE]").search
# ECMAScript shows numbers with up to 21 digits before the point, or 6 zeros after it, without an exponent.
_PLAIN_UP_TO: Final = 21
_PLAIN_FROM: Final = -6
_decode: Final = json.JSONDecoder().raw_decode
_dump: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


def _tags(text: str) -> frozenset[str]:
    return frozenset(text.split())


GROUPS: Final = (
    ("patient", _tags("00100010 00100020 00100021 00100030 00100032 00100040 00101002 00120062 00120064")),
    ("study", _tags("00080020 00080030 00080050 00081030 0020000D 00200010 0032000A 0032000C")),
    (
        "series",
        _tags(
            "00080005 00080021 00080031 00080060 00080070 00080080 00080090 0008103E 00081010 00081070 00081090"
            " 00180015 00181030 0020000E 00200011 00321060"
        ),
    ),
    (
        "image",
        _tags(
            "00080008 00080012 00080016 00080022 00080023 00080064 00181010 00181012 00181016 00181018 00181019"
            " 00181020 00185100 00200020 00280002 00280004 00280006 00280010 00280011 00280100 00280101 00280102"
            " 00280103 00281050 00281051 00281055"
        ),
    ),
)
"""What is moved into objects of their own, in the order of DeduppedRef: the published format's lists."""
_GROUP_OF: Final = {tag: kind for kind, tags in reversed(GROUPS) for tag in tags}
_KEPT: Final = ("00080018", "0020000E")
"""SOP and Series Instance UID stay in the instance too, so that it can be told without its objects."""


class Object(NamedTuple):
    """An object of a list: its type, its hash (hexadecimal digits) and its text."""

    type: str
    hash: str
    text: str


def objects(text: str, fields: Mapping[int, str] = _NONE) -> tuple[Object, ...]:
    """Return patient, study, series, image and at last the instance that a JSON object is made of.

    `fields` are texts of its elements, as far as they are known. An instance with no free block in group 0009
    cannot refer to anything, so it stays whole.
    """
    whole = elements(text, fields)
    moved, rest = taken_apart(whole)
    extracts = [_extract(kind, tuple(held.items())) for kind, held in moved.items()]
    left = whole if free_block(whole) is None else rest
    return *extracts, tagged("instance", left, [extract.hash for extract in extracts])


def taken_apart(whole: Mapping[str, str]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the elements that go into objects of their own, by the objects' types, and those that stay."""
    moved: dict[str, dict[str, str]] = {kind: {} for kind, _ in GROUPS}
    rest: dict[str, str] = {}
    for tag, element in whole.items():
        kind = _GROUP_OF.get(tag)
        if kind is not None:
            moved[kind][tag] = element
        if kind is None or tag in _KEPT:
            rest[tag] = element
    return moved, rest


def at_depth(text: str, depth: int) -> str:
    """Return JSON whose BulkDataURIs lead from the study's directory as it reads so many directories below that."""
    # No string of JSON holds this: a quote in a string has a backslash before it, and the second one here has none.
    return text.replace(_URI, _URI + "../" * depth) if depth else text


def from_study(text: str) -> str:
    """Return JSON with BulkDataURIs that lead from the study's directory: what `at_depth` made of it, undone."""
    return _UPWARDS("\\1", text)


def info(hashes: Iterable[str], deleted: Sequence[str] = (), superseded: str = "") -> Object:
    """Return the object that stands for a list of instances with these hashes, in any order.

    `deleted` are those of instances that are in none any more, `superseded` is the list in whose place this one is.
    """
    told = tagged("info", {}, sorted(hashes))
    return _with(told, {DELETE: deleted, FILE: [superseded] if superseded else []})


def replacing(one: Object, hashes: Sequence[str]) -> Object:
    """Return an object that tells which others it replaced."""
    return _with(one, {REPLACE: hashes})


def _with(one: Object, added: Mapping[int, Sequence[str]]) -> Object:
    """Return an object with what its hash does not tell; one that has no block of its own as it is."""
    if not any(added.values()):
        return one
    held = elements(one.text)
    digest = _strings([one.hash])
    block = next((int(tag[4:6], 16) for tag, text in held.items() if text == digest and tag[6:] == f"{HASH:02X}"), None)
    if block is None:
        return one
    held |= {_tag(block, number): _strings(hashes) for number, hashes in added.items() if hashes}
    return one._replace(text=_text(held))


def plain(one: Object) -> Object:
    """Return an object without what it tells of history."""
    held = elements(one.text)
    digest = _strings([one.hash])
    blocks = {tag[4:6] for tag, text in held.items() if tag[6:] == f"{HASH:02X}" and text == digest}
    added = {f"0009{block}{number:02X}" for block in blocks for number in (DELETE, REPLACE, FILE)}
    return one._replace(text=_text({tag: text for tag, text in held.items() if tag not in added}))


def tagged(kind: str, held: dict[str, str], refs: Sequence[str] | None = None) -> Object:
    """Return the object with these elements (texts by tag) and what the format adds to it.

    One with no free block in group 0009 is given as it is.
    """
    block = free_block(held)
    if block is not None:
        if refs is not None:
            held = {**held, f"0009{block:04X}": _CREATOR_TEXT, _tag(block, REF): _strings(refs)}
        digest = hashed(held)
        held = {
            **held,
            f"0009{block:04X}": _CREATOR_TEXT,
            _tag(block, HASH): _strings([digest]),
            _tag(block, TYPE): _strings([kind]),
        }
    else:
        digest = hashed(held)
    return Object(kind, digest, _text(held))


def hashed(held: Mapping[str, str]) -> str:
    """Return the SHA-256 of an object's canonical form, as hexadecimal digits."""
    texts = [
        f'"{tag}":{_canonical_again(text) if len(text) <= _SHORT else canonical(text)}'
        for tag, text in sorted(held.items())
    ]
    return sha256(("{" + ",".join(texts) + "}").encode("utf-8", "replace")).hexdigest()


def canonical(text: str) -> str:
    """Return the canonical form (RFC 8785) of a JSON text without blanks."""
    if _NOT_INTEGER(text) is None:
        return _dump(json.loads(text))
    return _canonical_value(json.loads(text, parse_float=Decimal))


def _canonical_value(value: Json | Decimal) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical_value, value)) + "]"
    if isinstance(value, dict):
        return (
            "{" + ",".join([f"{encode_basestring(key)}:{_canonical_value(value[key])}" for key in sorted(value)]) + "}"
        )
    return _dump(value)


def _number(number: Decimal) -> str:
    """Return a number as ECMAScript shows the double; with all its digits where it is none."""
    double = float(number)
    if not math.isfinite(double) or Decimal(repr(double)) != number:
        return str(number)
    return shown_number(double)


def shown_number(double: float) -> str:
    """Return a finite number as ECMAScript shows it (Number::toString)."""
    if not double:
        return "0"
    sign, digits, exponent = Decimal(repr(double)).as_tuple()
    shown = "".join(map(str, digits)).rstrip("0")
    point = len(digits) + int(exponent)
    minus = "-" if sign else ""
    if len(shown) <= point <= _PLAIN_UP_TO:
        return minus + shown.ljust(point, "0")
    if 0 < point <= _PLAIN_UP_TO:
        return f"{minus}{shown[:point]}.{shown[point:]}"
    if _PLAIN_FROM < point <= 0:
        return f"{minus}0.{'0' * -point}{shown}"
    fraction = f".{shown[1:]}" if len(shown) > 1 else ""
    return f"{minus}{shown[0]}{fraction}e{point - 1:+d}"


def elements(text: str, fields: Mapping[int, str] = _NONE) -> dict[str, str]:
    """Return the texts of an object's elements by tag, in the order of the text; those of `fields` are not parsed."""
    found: dict[str, str] = {}
    at = 1
    while text[at] != "}":
        # "GGGGEEEE":{…}, and a comma where another follows.
        tag, start = text[at + 1 : at + 9], at + 11
        known = fields.get(int(tag, 16))
        if known is not None and text.startswith(known, start):
            found[tag] = known
            at = start + len(known)
        else:
            _, at = _decode(text, start)
            found[tag] = text[start:at]
        at += text[at] == ","
    return found


def rebuilt(instance: Mapping[str, Json], known: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """Return the whole object of an instance of a list; `known` are the list's other objects by hash."""
    blocks = [number for number in range(0x10, 0x100) if instance.get(f"0009{number:04X}") == _CREATOR_JSON]
    # A file may bring a block of this name that is not the list's.
    block = next((number for number in blocks if _is_hash_of(instance, number)), None)
    if block is None:
        return dict(instance)
    whole = {tag: element for tag, element in instance.items() if not _is_ours(tag, block)}
    refs = instance.get(_tag(block, REF))
    for ref in refs["Value"] if isinstance(refs, dict) else []:  # type: ignore[union-attr] # a list, as we wrote it
        held = known[str(ref)]
        whole |= {tag: element for tag, element in held.items() if tag not in whole and not _is_ours(tag, 0x10)}
    return dict(sorted(whole.items()))


def _is_hash_of(instance: Mapping[str, Json], block: int) -> bool:
    added = [_tag(block, number) for number in _ADDED]
    held = {tag: from_study(_dump(element)) for tag, element in instance.items() if tag not in added}
    told = instance.get(_tag(block, HASH))
    return isinstance(told, dict) and told.get("Value") == [hashed(held)]


def _is_ours(tag: str, block: int) -> bool:
    return tag == f"0009{block:04X}" or tag in [_tag(block, number) for number in (REF, *_ADDED)]


def _tag(block: int, element: int) -> str:
    return f"0009{block:02X}{element:02X}"


def free_block(held: Iterable[str], last: int = 0xFF) -> int | None:
    """Return the first block of group 0009 that has neither a creator nor elements (PS3.5 7.8.1)."""
    taken = {int(tag[6:] if tag[4:6] == "00" else tag[4:6], 16) for tag in held if tag.startswith("0009")}
    return next((block for block in range(0x10, last + 1) if block not in taken), None)


def _text(held: Mapping[str, str]) -> str:
    return "{" + ",".join([f'"{tag}":{held[tag]}' for tag in sorted(held)]) + "}"


def _strings(values: Sequence[str]) -> str:
    return f'{{"vr":"LO","Value":{json.dumps(values, separators=(",", ":"))}}}' if values else '{"vr":"LO"}'


_CREATOR_TEXT: Final = _strings([CREATOR])
_CREATOR_JSON: Final = json.loads(_CREATOR_TEXT)


def _extract(kind: str, held: tuple[tuple[str, str], ...]) -> Object:
    """Return an object that most instances of a series share."""
    short = sum(len(element) for _, element in held) <= _REMEMBERED
    return _extract_again(kind, held) if short else tagged(kind, dict(held))


@lru_cache(1024)
def _extract_again(kind: str, held: tuple[tuple[str, str], ...]) -> Object:
    return tagged(kind, dict(held))


_canonical_again: Final = lru_cache(4096)(canonical)
