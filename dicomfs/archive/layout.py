"""Layouts: templates that turn the attributes of an instance into the path at which it is shown.

    {PatientID|'NO-ID'}_{PatientName}/{StudyDate:%Y-%m-%d}/{SeriesNumber:04d}_{Modality}/{InstanceNumber:05d}.dcm

The grammar is that of Python's format strings, parsed here and never evaluated:

    /                     the next level of the tree
    {Keyword}             the value of an attribute; also {gggg,eeee}, and %Keyword as other tools spell it
    {PatientName.part}    family_name given_name middle_name name_prefix name_suffix
                          alphabetic ideographic phonetic
    {A|B|'text'}          the first that has a value; text in quotes always has
    {A:format}            dates %Y %y %m %d, times %H %M %S, numbers 05d, text .12 (at most 12 characters);
                          holds also for the alternatives before it that have no format of their own
    {{ and }}             braces

A missing value disappears, and so does the separator before it (or after it, at the start of a
name). A level of which nothing is left is UNKNOWN~hash; a file name of which only the extension
is left is NO-NUMBER~hash.dcm. Every name is legal and within the limit of `names`; that it is
unique in its directory is the business of the catalog that claims it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

from dicomfs.archive.names import component, cut, digest, fragment
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

Value: TypeAlias = "str | int"


class _Kind(IntEnum):
    TEXT = 0
    NUMBER = 1
    DATE = 2
    TIME = 3
    PERSON = 4
    QUOTED = 5


# The attributes of the catalog, by tag (PS3.6); all that a layout can ask for without opening a file.
_CATALOG: dict[str, tuple[str, _Kind]] = {
    "00100020": ("PatientID", _Kind.TEXT),
    "00100021": ("IssuerOfPatientID", _Kind.TEXT),
    "00100010": ("PatientName", _Kind.PERSON),
    "00100030": ("PatientBirthDate", _Kind.DATE),
    "00100040": ("PatientSex", _Kind.TEXT),
    "0020000D": ("StudyInstanceUID", _Kind.TEXT),
    "00080020": ("StudyDate", _Kind.DATE),
    "00080030": ("StudyTime", _Kind.TIME),
    "00080050": ("AccessionNumber", _Kind.TEXT),
    "00200010": ("StudyID", _Kind.TEXT),
    "00081030": ("StudyDescription", _Kind.TEXT),
    "00080090": ("ReferringPhysicianName", _Kind.PERSON),
    "0020000E": ("SeriesInstanceUID", _Kind.TEXT),
    "00200011": ("SeriesNumber", _Kind.NUMBER),
    "00080060": ("Modality", _Kind.TEXT),
    "0008103E": ("SeriesDescription", _Kind.TEXT),
    "00181030": ("ProtocolName", _Kind.TEXT),
    "00180015": ("BodyPartExamined", _Kind.TEXT),
    "00080070": ("Manufacturer", _Kind.TEXT),
    "00081010": ("StationName", _Kind.TEXT),
    "00400244": ("PerformedProcedureStepStartDate", _Kind.DATE),
    "00400245": ("PerformedProcedureStepStartTime", _Kind.TIME),
    "00080018": ("SOPInstanceUID", _Kind.TEXT),
    "00080016": ("SOPClassUID", _Kind.TEXT),
    "00020010": ("TransferSyntaxUID", _Kind.TEXT),
    "00200013": ("InstanceNumber", _Kind.NUMBER),
    "00280008": ("NumberOfFrames", _Kind.NUMBER),
    "00280010": ("Rows", _Kind.NUMBER),
    "00280011": ("Columns", _Kind.NUMBER),
    "00280100": ("BitsAllocated", _Kind.NUMBER),
    "00080023": ("ContentDate", _Kind.DATE),
    "00080033": ("ContentTime", _Kind.TIME),
}
_KINDS: dict[str, _Kind] = dict(_CATALOG.values())
CATALOG_KEYWORDS = frozenset(_KINDS)
CATALOG_TAGS = {tag: keyword for tag, (keyword, _) in _CATALOG.items()}

_COMPONENTS = ("family_name", "given_name", "middle_name", "name_prefix", "name_suffix")
_GROUPS = ("alphabetic", "ideographic", "phonetic")

_FORMATS = {
    _Kind.TEXT: (re.compile(r"(?:.?[<>^])?\d{0,3}(?:\.\d{1,3})?s?"), "text, such as .12"),
    _Kind.PERSON: (re.compile(r"(?:.?[<>^])?\d{0,3}(?:\.\d{1,3})?s?"), "text, such as .12"),
    _Kind.NUMBER: (re.compile(r"0?\d{0,2}[dxX]?"), "a number, such as 05d"),
    _Kind.DATE: (re.compile(r"(?:[^%]|%[Yymd])+"), "a date, made of %Y %y %m %d"),
    _Kind.TIME: (re.compile(r"(?:[^%]|%[HMS])+"), "a time, made of %H %M %S"),
}
_SLICES = {
    "%Y": slice(0, 4), "%y": slice(2, 4), "%m": slice(4, 6), "%d": slice(6, 8),
    "%H": slice(0, 2), "%M": slice(2, 4), "%S": slice(4, 6),
}  # fmt: skip
_DIRECTIVE = re.compile(r"%[YymdHMS]")
_DATE = re.compile(r"\d{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])").fullmatch
_TIME = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d[0-6]\d").fullmatch

_SEPARATORS = " _-.,+"
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"\\|?*]')
_PERCENT_KEYWORD = re.compile(r"%([A-Z][A-Za-z0-9]+)")
_TAG = re.compile(r"([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})").fullmatch
_QUOTED_OR_BAR = re.compile(r"'[^']*'|\"[^\"]*\"|\||[^|'\"]+")
_FILE_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}$")


@dataclass(frozen=True, slots=True)
class _Alternative:
    kind: _Kind
    key: str  # the attribute's keyword; the text itself when QUOTED
    part: str
    format: str


@dataclass(frozen=True, slots=True)
class _Field:
    # The literal before the field, as it is when: the value is there, it is missing, it is there
    # at the start of the name, it is missing at the start of the name.
    before: tuple[str, str, str, str]
    alternatives: tuple[_Alternative, ...]


@dataclass(frozen=True, slots=True)
class _Level:
    fields: tuple[_Field, ...]
    after: str
    extension: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A parsed template: immutable, may be shared by threads and sent to other processes."""

    text: str
    _levels: tuple[_Level, ...]

    @classmethod
    def parse(cls, text: str, keywords: Collection[str] = ()) -> Layout:
        """Parse a template that may use the catalog's attributes and those of `keywords`.

        Raise UsageError that tells the place and the reason.
        """
        levels = tuple(_Parser(text, keywords).levels())
        return cls(text, levels)

    @property
    def depth(self) -> int:
        """The number of levels, the file's own name included."""
        return len(self._levels)

    def render(self, attributes: Mapping[str, Value], identities: Sequence[str]) -> list[str]:
        """Return one legal name per level; `identities` are what makes each level's entity unique."""
        return [self.render_level(i, attributes, identity) for i, identity in enumerate(identities)]

    def render_level(self, level: int, attributes: Mapping[str, Value], identity: str) -> str:
        """Return the legal name of one level (0-based), before anybody else's claim is considered."""
        template = self._levels[level]
        name = ""
        for field in template.fields:
            value = _value(field.alternatives, attributes)
            name += field.before[(not value) + 2 * (not name)] + value
        name += template.after if name else template.after.lstrip(_SEPARATORS)
        extension = template.extension
        legal = component(name + extension) if component(name) else ""
        if not legal:
            legal = ("NO-NUMBER~" if extension else "UNKNOWN~") + digest(identity) + extension
        return cut(legal, identity)


def _value(alternatives: tuple[_Alternative, ...], attributes: Mapping[str, Value]) -> str:
    for alternative in alternatives:
        kind = alternative.kind
        if kind is _Kind.QUOTED:
            return alternative.key
        value = attributes.get(alternative.key, "")
        if kind is _Kind.NUMBER and isinstance(value, int):
            return format(value, alternative.format)
        text = fragment(_FORMATTED[kind](str(value), alternative)) if value != "" else ""
        if text:
            return text
    return ""


def _text(value: str, alternative: _Alternative) -> str:
    return format(value, alternative.format) if alternative.format else value


def _number(value: str, alternative: _Alternative) -> str:
    if not alternative.format:
        return value
    try:
        return format(int(value), alternative.format)
    except ValueError:
        return ""  # an IS that is no number counts as missing where a number is asked for


def _date(value: str, alternative: _Alternative) -> str:
    if not alternative.format:
        return value
    digits = value.strip().replace(".", "")  # ACR-NEMA wrote 2004.01.19 (PS3.5 6.2)
    return _sliced(digits, alternative.format) if _DATE(digits) else ""


def _time(value: str, alternative: _Alternative) -> str:
    if not alternative.format:
        return value
    digits = value.strip().partition(".")[0].replace(":", "")  # ACR-NEMA wrote 07:27:30
    digits = digits.ljust(6, "0") if len(digits) >= 2 else digits  # minutes may be left out (PS3.5 6.2)
    return _sliced(digits, alternative.format) if _TIME(digits) else ""


def _sliced(digits: str, pattern: str) -> str:
    return _DIRECTIVE.sub(lambda found: digits[_SLICES[found[0]]], pattern)


def _person(value: str, alternative: _Alternative) -> str:
    groups = value.split("=")
    part = alternative.part
    if part in _GROUPS:
        index = _GROUPS.index(part)
        text = groups[index] if index < len(groups) else ""
    else:
        text = next((group for group in groups if group.strip("^ ")), "")
        if part:
            index = _COMPONENTS.index(part)
            components = text.split("^")
            text = components[index] if index < len(components) else ""
    return format(text, alternative.format) if text and alternative.format else text


_FORMATTED = {
    _Kind.TEXT: _text,
    _Kind.NUMBER: _number,
    _Kind.DATE: _date,
    _Kind.TIME: _time,
    _Kind.PERSON: _person,
}


class _Parser:
    """Reads one template from left to right; `self._at` is where, for messages (1-based when shown)."""

    def __init__(self, text: str, keywords: Collection[str]) -> None:
        self._text = text
        self._keywords = keywords
        self._at = 0

    def levels(self) -> Iterator[_Level]:
        start = len(self._text) - len(self._text.lstrip("/"))
        end = len(self._text.rstrip("/"))
        if start >= end:
            raise UsageError("layout: the template is empty")
        pieces: list[str | tuple[_Alternative, ...]] = [""]
        self._at = start
        while self._at < end:
            if self._text[self._at] == "/":
                yield self._level(pieces, last=False)
                pieces = [""]
                self._at += 1
                continue
            piece = self._piece(end)
            if isinstance(piece, str) and isinstance(pieces[-1], str):
                pieces[-1] += piece
            else:
                pieces.append(piece)
        yield self._level(pieces, last=True)

    def _piece(self, end: int) -> str | tuple[_Alternative, ...]:
        two = self._text[self._at : self._at + 2]
        if two in ("{{", "}}"):
            self._at += 2
            return two[0]
        if two[0] == "}":
            raise self._error("a } without its {; write }} for the character itself")
        if two[0] == "{":
            return self._braces(end)
        if found := _PERCENT_KEYWORD.match(self._text, self._at):
            alternative = self._attribute(found[1], "")
            self._at = found.end()
            return (alternative,)
        if _NOT_IN_NAMES.match(two[0]):
            raise self._error(f"{two[0]!r} cannot be part of a file name")
        self._at += 1
        return two[0]

    def _braces(self, end: int) -> tuple[_Alternative, ...]:
        opened = self._at
        close = opened + 1
        quote = ""
        while close < end and (quote or self._text[close] != "}"):
            character = self._text[close]
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"":
                quote = character
            elif character == "{":
                raise self._error("a { inside braces", close)
            close += 1
        if close >= end:
            raise self._error("a quote that is not closed" if quote else "a { without its }")
        alternatives = self._alternatives(self._text[opened + 1 : close])
        self._at = close + 1
        return alternatives

    def _alternatives(self, inside: str) -> tuple[_Alternative, ...]:
        found: list[_Alternative] = []
        spec = ""
        for text in reversed(self._split(inside)):
            name, colon, own = text.partition(":")
            if text[:1] in ("'", '"'):
                found.append(self._quoted(text))
                continue
            spec = own.strip() if colon else spec
            found.append(self._attribute(name.strip(), spec))
        return tuple(reversed(found))

    def _split(self, inside: str) -> list[str]:
        parts = [""]
        for piece in _QUOTED_OR_BAR.findall(inside):
            if piece == "|":
                parts.append("")
            else:
                parts[-1] += piece
        parts = [part.strip() for part in parts]
        if "" in parts:
            raise self._error("an empty field")
        return parts

    def _quoted(self, text: str) -> _Alternative:
        if len(text) < 2 or text[-1] != text[0]:
            raise self._error(f"text after the closing quote of {text[:20]!r}")
        inner = text[1:-1]
        if "/" in inner or _NOT_IN_NAMES.search(inner):
            raise self._error(f"{text!r} holds a character that cannot be part of a file name")
        return _Alternative(_Kind.QUOTED, inner, "", "")

    def _attribute(self, name: str, spec: str) -> _Alternative:
        if "!" in name or "!" in spec:
            raise self._error("a !conversion is not allowed")
        key, dot, part = name.partition(".")
        if tag := _TAG(key):
            key, kind = _CATALOG.get((tag[1] + tag[2]).upper(), ((tag[1] + tag[2]).upper(), _Kind.TEXT))
        elif key in _KINDS or key in self._keywords:
            kind = _KINDS.get(key, _Kind.TEXT)
        else:
            near = difflib.get_close_matches(key, [*_KINDS, *self._keywords], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise self._error(f"{key!r} is not an attribute that layouts can use{hint}")
        if dot and (kind is not _Kind.PERSON or part not in _COMPONENTS + _GROUPS):
            raise self._error(f"{key} has no part {part!r}")
        legal, example = _FORMATS[kind]
        if spec and (not legal.fullmatch(spec) or "/" in spec):
            raise self._error(f"{spec!r} is no format for {key}, which is {example}")
        return _Alternative(kind, key, part, spec)

    def _level(self, pieces: list[str | tuple[_Alternative, ...]], *, last: bool) -> _Level:
        if pieces == [""]:
            raise self._error("a level without a name")
        fields = []
        literal = ""
        for piece in pieces:
            if isinstance(piece, str):
                literal = piece
            else:
                fields.append(_Field(_before(literal), piece))
                literal = ""
        found = _FILE_EXTENSION.search(literal) if last and fields else None
        extension = found[0] if found else ""
        if not fields and not component(literal):
            raise self._error(f"{literal!r} cannot be the name of a directory")
        return _Level(tuple(fields), literal.removesuffix(extension), extension)

    def _error(self, reason: str, at: int | None = None) -> UsageError:
        return UsageError(f"layout: character {(self._at if at is None else at) + 1}: {reason}")


def _before(literal: str) -> tuple[str, str, str, str]:
    return (literal, literal.rstrip(_SEPARATORS), literal.lstrip(_SEPARATORS), literal.strip(_SEPARATORS))


PATIENTS = Layout.parse(
    "{PatientID|'NO-ID'}_{PatientName}"
    "/{StudyDate|'00000000'}_{StudyTime:%H%M}_{StudyDescription|StudyID}"
    "/{SeriesNumber:04d}_{Modality}_{SeriesDescription|ProtocolName}"
    "/{InstanceNumber:05d}.dcm"
)
