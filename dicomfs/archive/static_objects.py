"""The deduplicated format as static-wado has it: the same objects as `deduplicated`, with its hashes and its creator.

    [info, extract…, instance…]     extract: patient, study, series or image

It differs from ours in three things. The creator's VR is CS. The block is one of 10 to 3F of group 0009, and that of an
extract is the one of the first instance that refers to it: static-wado's own reader takes over whatever an instance
does not have, and would put what belongs to the extract's list into a block of the vendor's. And a hash is SHA-256 over
a text in which strings have no quotes and *arrays are sorted* (node-object-hash):

    string as it is | number as ECMAScript shows it | true 1 | false 0 | null nothing
    [element,element…] sorted by UTF-16 code units | {key:value,key:value…} sorted by key

So objects that differ in the order of values alone, in 1 for "1" or in where a comma belongs have one hash. Whoever
writes lists must therefore know an object by our own hash too (`deduplicated.hashed`), and leave in the instance
what has a hash that something else has already.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from dicomfs.archive import deduplicated
from dicomfs.archive.deduplicated import CREATOR, DELETE, FILE, HASH, REF, REPLACE, TYPE, Object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dicomfs.archive.deduplicated import Json

FIRST_BLOCK: Final = 0x10
_LAST_BLOCK: Final = 0x3F
_SHORT: Final = 4096
_CREATOR_TEXT: Final = f'{{"vr":"CS","Value":["{CREATOR}"]}}'


class Told(NamedTuple):
    """An instance in a list."""

    extracts: tuple[Object, ...]
    """What it refers to."""
    instance: Object
    canonical: str
    """The text by which a list's hash is made: of the instance with all that was added to it."""

    @property
    def hashes(self) -> dict[str, str]:
        """The hashes of its objects, by their types."""
        return {one.type: one.hash for one in (*self.extracts, self.instance)}


def hashed(held: Mapping[str, str]) -> str:
    """Return the hash of an object, given as the texts of its elements by tag, as hexadecimal digits."""
    return _digest(_object({tag: _element(text) for tag, text in held.items()}))


def canonical(text: str) -> str:
    """Return the text that stands for a JSON text in a hash."""
    return _canonical(json.loads(text))


def list_hash(parts: Iterable[bytes]) -> str:
    """Return the hash of a list of instances, given as the UTF-8 of the `canonical` of each, in sorted order."""
    digest = sha256(b"[")
    for number, part in enumerate(parts):
        digest.update(b"," + part if number else part)
    digest.update(b"]")
    return digest.hexdigest()


def told(
    whole: Mapping[str, str], is_taken: Callable[[Object, str], bool], replaced: Sequence[str] = ()
) -> Told | None:
    """Take an instance's elements apart; None where it has no block in which a list could tell of it.

    `is_taken` is asked of each extract, with our own hash of its elements, whether its hash is another object's: then
    the instance keeps these elements. `replaced` are the hashes of those in whose place the instance is.
    """
    block = deduplicated.free_block(whole, _LAST_BLOCK)
    if block is None:
        return None
    moved, rest = deduplicated.taken_apart(whole)
    extracts: list[Object] = []
    for kind, held in moved.items():
        extract, own = _extract(kind, tuple(held.items()), block)
        if is_taken(extract, own):
            rest |= held
        else:
            extracts.append(extract)
    rest[f"0009{block:04X}"] = _CREATOR_TEXT
    rest[_tag(block, REF)] = _strings([extract.hash for extract in extracts])
    shown = {tag: _element(text) for tag, text in rest.items()}
    digest = _digest(_object(shown))
    for number, values in ((HASH, [digest]), (TYPE, ["instance"]), (REPLACE, replaced)):
        if values:
            tag = _tag(block, number)
            rest[tag] = _strings(values)
            shown[tag] = _element(rest[tag])
    return Told(tuple(extracts), Object("instance", digest, _text(rest)), _object(shown))


def info(digest: str, refs: Sequence[str], deleted: Sequence[str], superseded: str) -> str:
    """Return the object that stands for the list of this hash.

    `refs` is what readers of it need not read, `deleted` are instances that are in no list any more, `superseded` is
    the list in whose place it is.
    """
    told = {f"0009{FIRST_BLOCK:04X}": _CREATOR_TEXT}
    for number, values in (
        (REF, refs), (HASH, [digest]), (TYPE, ["info"]), (DELETE, deleted), (FILE, [superseded] if superseded else [])
    ):  # fmt: skip
        if values:
            told[_tag(FIRST_BLOCK, number)] = _strings(values)
    return _text(told)


def tagged(kind: str, held: Mapping[str, str], digest: str = "", block: int = FIRST_BLOCK) -> Object:
    """Return the object with these elements and what the format adds to it; `digest` where it is not its own.

    None of the elements are in group 0009.
    """
    digest = digest or hashed(held)
    added = {
        f"0009{block:04X}": _CREATOR_TEXT,
        _tag(block, HASH): _strings([digest]),
        _tag(block, TYPE): _strings([kind]),
    }
    return Object(kind, digest, _text({**held, **added}))


@lru_cache(1024)
def _extract(kind: str, held: tuple[tuple[str, str], ...], block: int) -> tuple[Object, str]:
    """Return an extract, which most instances of a series share, and our own hash of it."""
    return tagged(kind, dict(held), block=block), deduplicated.hashed(dict(held))


def own_hash(text: str) -> str:
    """Return our own hash of what an extract holds."""
    held = deduplicated.elements(text)
    return deduplicated.hashed({tag: element for tag, element in held.items() if not tag.startswith("0009")})


def _tag(block: int, element: int) -> str:
    return f"0009{block:02X}{element:02X}"


def _strings(values: Sequence[str]) -> str:
    return f'{{"vr":"LO","Value":{json.dumps(values, separators=(",", ":"))}}}'


def _text(held: Mapping[str, str]) -> str:
    return "{" + ",".join([f'"{tag}":{held[tag]}' for tag in sorted(held)]) + "}"


def _object(shown: Mapping[str, str]) -> str:
    return "{" + ",".join([f"{tag}:{shown[tag]}" for tag in sorted(shown)]) + "}"


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def _element(text: str) -> str:
    return _element_again(text) if len(text) <= _SHORT else canonical(text)


_element_again: Final = lru_cache(4096)(canonical)


def _canonical(value: Json) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "", True: "1", False: "0"}[value]
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list):
        return "[" + ",".join(sorted(map(_canonical, value), key=_code_units)) + "]"
    return "{" + ",".join([f"{key}:{_canonical(value[key])}" for key in sorted(value, key=_code_units)]) + "}"


def _number(value: float) -> str:
    """Return a number as ECMAScript shows what JSON.parse makes of it: always a double."""
    try:
        double = float(value)
    except OverflowError:
        double = math.copysign(math.inf, value)
    if math.isfinite(double):
        return deduplicated.shown_number(double)
    return "Infinity" if double > 0 else "-Infinity"


def _code_units(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")
