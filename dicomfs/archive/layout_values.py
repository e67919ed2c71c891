"""What a layout's fields become: formats, conversions and conditions applied to the values of an instance. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeAlias

from dicomfs.archive.keywords import Kind
from dicomfs.archive.names import fragment
from dicomfs.archive.patterns import value_test

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value: TypeAlias = "str | int"

COUNTER: Final = "n"
"""The field that counts, and the key of its number among the attributes: no keyword is in lower case."""

COMPONENTS: Final = ("family_name", "given_name", "middle_name", "name_prefix", "name_suffix")
GROUPS: Final = ("alphabetic", "ideographic", "phonetic")

FORMATS: Final = {
    Kind.TEXT: (re.compile(r"(?:.?[<>^])?\d{0,3}(?:\.\d{1,3})?s?"), "text, such as .12"),
    Kind.PERSON: (re.compile(r"(?:.?[<>^])?\d{0,3}(?:\.\d{1,3})?s?"), "text, such as .12"),
    Kind.NUMBER: (re.compile(r"0?\d{0,2}[dxX]?"), "a number, such as 05d"),
    Kind.DATE: (re.compile(r"(?:[^%]|%[Yymd])+"), "a date, made of %Y %y %m %d"),
    Kind.TIME: (re.compile(r"(?:[^%]|%[HMS])+"), "a time, made of %H %M %S"),
}
_SLICES: Final = {
    "%Y": slice(0, 4), "%y": slice(2, 4), "%m": slice(4, 6), "%d": slice(6, 8),
    "%H": slice(0, 2), "%M": slice(2, 4), "%S": slice(4, 6),
}  # fmt: skip
_DIRECTIVE = re.compile(r"%[YymdHMS]")
_DATE = re.compile(r"\d{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])").fullmatch
_TIME = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d[0-6]\d").fullmatch

SEPARATORS: Final = " _-.,+"

_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]")
_UID = re.compile(r"(?=.{3,64}\Z)[0-9]+(?:\.[0-9]+)+").fullmatch
_CTP_UNDERSCORES = re.compile(r"[\s/\\]")
_CTP_DROPPED = re.compile(r"[^A-Za-z0-9\[\]()^._,;-]")


def uid(text: str) -> str:
    """Return a UID, or one made of what is none, of the form of those that are made of a UUID (PS3.5 B.2)."""
    if not text or _UID(text):
        return text
    digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
    return f"2.25.{int.from_bytes(digest[:16])}"


CONVERSIONS: Final[dict[str, Callable[[str], str]]] = {
    "upper": str.upper,
    "lower": str.lower,
    "plain": lambda text: _UNUSUAL.sub("_", text),
    "ctp": lambda text: _CTP_DROPPED.sub("", _CTP_UNDERSCORES.sub("_", text)).rstrip("."),
    "uid": uid,
}
_OF_CASE: Final = ("upper", "lower")
"""Conversions that make one of what differs: those who share the result share a directory."""


@dataclass(frozen=True, slots=True)
class Condition:
    """When an alternative counts: the attribute is like the pattern, or has a value at all where that is None."""

    key: str
    pattern: str | None
    negated: bool

    def holds(self, attributes: Mapping[str, Value]) -> bool:
        """Say whether it does."""
        text = str(attributes.get(self.key, ""))
        found = bool(text) if self.pattern is None else _test(self.key, self.pattern)(text)
        return found is not self.negated


_test = lru_cache(256)(value_test)


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of the values that a field may have."""

    kind: Kind
    key: str
    """The attribute's keyword; the text itself when QUOTED."""
    part: str
    format: str
    conversion: str = ""
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A pair of braces, with the text before it."""

    before: tuple[str, str, str, str]
    """The text as it is when: the value is there, it is missing, it is there at the start of the name, it is
    missing at the start of the name."""
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """One component of the path."""

    fields: tuple[Field, ...]
    after: str
    extension: str
    each: tuple[str, ...] = ()
    """Of what the level has one directory each, even where their texts are the same: keys of ENTITIES."""
    counts: bool = False
    client: str = ""
    """The prefix of the names of clients, where these are what the level is called."""


def value(alternatives: tuple[Alternative, ...], attributes: Mapping[str, Value]) -> str:
    """Return a field's value as a piece of a legal name, '' where it has none."""
    for alternative in alternatives:
        kind = alternative.kind
        if alternative.condition is not None and not alternative.condition.holds(attributes):
            continue
        if kind is Kind.QUOTED:
            return alternative.key
        held = attributes.get(alternative.key, "")
        if kind is Kind.NUMBER and isinstance(held, int):
            return format(held, alternative.format)
        text = _FORMATTED[kind](str(held), alternative) if held != "" else ""
        if text and alternative.conversion:
            text = CONVERSIONS[alternative.conversion](text)
        text = fragment(text)
        if text:
            return text
    return ""


def said(alternatives: tuple[Alternative, ...], attributes: Mapping[str, Value]) -> str:
    """Return what tells the values of a field apart, although their names may be the same."""
    found: list[str] = []
    for alternative in alternatives:
        if alternative.condition is not None and not alternative.condition.holds(attributes):
            continue
        if alternative.kind is Kind.QUOTED:
            found.append(f"'{alternative.key}")
            break
        held = attributes.get(alternative.key, "")
        if alternative.key == COUNTER or held == "":
            continue
        text = _FORMATTED[alternative.kind](str(held), alternative)
        if alternative.conversion in _OF_CASE:
            text = CONVERSIONS[alternative.conversion](text)
        found.append(text.strip("^ ") if alternative.kind is Kind.PERSON else text)
        if value((alternative,), attributes):
            break
    return "\1".join(found)


def patient_identity(attributes: Mapping[str, Value], study_instance_uid: str) -> str:
    """Return what a patient is known by: PatientID and issuer, or the study where there is no PatientID."""
    patient_id = str(attributes.get("PatientID", ""))
    if not patient_id:
        return f"study\0{study_instance_uid}"
    return f"{patient_id}\0{attributes.get('IssuerOfPatientID', '')}"


ENTITIES: Final[dict[str, Callable[[Mapping[str, Value]], str]]] = {
    "patient": lambda attributes: patient_identity(attributes, str(attributes.get("StudyInstanceUID", ""))),
    "study": lambda attributes: str(attributes.get("StudyInstanceUID", "")),
    "series": lambda attributes: str(attributes.get("SeriesInstanceUID", "")),
}


def _text(value: str, alternative: Alternative) -> str:
    return format(value, alternative.format) if alternative.format else value


def _number(value: str, alternative: Alternative) -> str:
    if not alternative.format:
        return value
    try:
        return format(int(value), alternative.format)
    except ValueError:
        return ""  # an IS that is no number counts as missing where a number is asked for


def _date(value: str, alternative: Alternative) -> str:
    if not alternative.format:
        return value
    digits = value.strip().replace(".", "")  # ACR-NEMA wrote 2004.01.19 (PS3.5 6.2)
    return _sliced(digits, alternative.format) if _DATE(digits) else ""


def _time(value: str, alternative: Alternative) -> str:
    if not alternative.format:
        return value
    digits = value.strip().partition(".")[0].replace(":", "")  # ACR-NEMA wrote 07:27:30
    digits = digits.ljust(6, "0") if len(digits) >= 2 else digits  # minutes may be left out (PS3.5 6.2)
    return _sliced(digits, alternative.format) if _TIME(digits) else ""


def _sliced(digits: str, pattern: str) -> str:
    return _DIRECTIVE.sub(lambda found: digits[_SLICES[found[0]]], pattern)


def _person(value: str, alternative: Alternative) -> str:
    groups = value.split("=")
    part = alternative.part
    if part in GROUPS:
        index = GROUPS.index(part)
        text = groups[index] if index < len(groups) else ""
    else:
        text = next((group for group in groups if group.strip("^ ")), "")
        if part:
            index = COMPONENTS.index(part)
            components = text.split("^")
            text = components[index] if index < len(components) else ""
    return format(text, alternative.format) if text and alternative.format else text


_FORMATTED = {
    Kind.TEXT: _text,
    Kind.NUMBER: _number,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.PERSON: _person,
}
