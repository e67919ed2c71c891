"""Parse the template of a layout; say what is wrong with one, and where. The language is described in `layout`."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from dicomfs.archive import clients
from dicomfs.archive.keywords import CATALOG, KINDS, Kind
from dicomfs.archive.layout_values import (
    COMPONENTS,
    CONVERSIONS,
    COUNTER,
    ENTITIES,
    FORMATS,
    GROUPS,
    SEPARATORS,
    Alternative,
    Condition,
    Field,
    Level,
)
from dicomfs.archive.names import component
from dicomfs.archive.patterns import value_test
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"\\|?*]')
_PERCENT_KEYWORD = re.compile(r"%([A-Z][A-Za-z0-9]+)")
_TAG = re.compile(r"([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})").fullmatch
_QUOTED_OR_BAR = re.compile(r"'[^']*'|\"[^\"]*\"|\||[^|'\"]+")
_CONDITION = re.compile(r"\s*([\w,]+)\s*(?:(!?=)\s*('[^']*'|\"[^\"]*\")\s*)?\?(.*)", re.DOTALL).fullmatch
_CLIENT = re.compile(r"client\s*(?::(.*))?").fullmatch
_FILE_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}$")


class Parser:
    """Reads one template from left to right; `self._at` is where, for messages (1-based when shown)."""

    def __init__(self, text: str, keywords: Collection[str]) -> None:
        self._text = text
        self._keywords = keywords
        self._at = 0
        self._each: list[str] = []
        self._client = ""

    def levels(self) -> Iterator[Level]:
        """Yield the levels of the path; raise UsageError at the first mistake."""
        start = len(self._text) - len(self._text.lstrip("/"))
        end = len(self._text.rstrip("/"))
        if start >= end:
            raise UsageError("layout: the template is empty")
        pieces: list[str | tuple[Alternative, ...]] = [""]
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

    def _piece(self, end: int) -> str | tuple[Alternative, ...]:
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

    def _braces(self, end: int) -> str | tuple[Alternative, ...]:
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
        inside = self._text[opened + 1 : close]
        if inside.strip() in ENTITIES:
            self._each.append(inside.strip())
            self._at = close + 1
            return ""
        if found := _CLIENT(inside.strip()):
            self._client = clients.PREFIX if found[1] is None else found[1].strip()
            if not clients.is_prefix(self._client):
                raise self._error(f"{self._client!r} is no prefix for clients, which is four letters")
            self._each.append("patient")
            self._at = close + 1
            return ""
        alternatives = self._alternatives(inside)
        self._at = close + 1
        return alternatives

    def _alternatives(self, inside: str) -> tuple[Alternative, ...]:
        found: list[Alternative] = []
        spec = ""
        for whole in reversed(self._split(inside)):
            condition, text = self._condition(whole)
            if text[:1] in ("'", '"'):
                found.append(replace(self._quoted(text), condition=condition))
                continue
            name, colon, own = text.partition(":")
            spec = own.strip() if colon else spec
            found.append(replace(self._attribute(name.strip(), spec), condition=condition))
        return tuple(reversed(found))

    def _condition(self, text: str) -> tuple[Condition | None, str]:
        """Part a condition from the alternative that follows it."""
        found = _CONDITION(text)
        if found is None:
            return None, text
        name, operator, quoted, rest = found.groups()
        key = self._attribute(name, "").key
        pattern = None if quoted is None else quoted[1:-1]
        if pattern is not None:
            try:
                value_test(key, pattern)
            except UsageError as error:
                raise self._error(str(error)) from error
        if not rest.strip():
            raise self._error(f"nothing after the condition on {key}")
        return Condition(key, pattern, operator == "!="), rest.strip()

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

    def _quoted(self, text: str) -> Alternative:
        if len(text) < 2 or text[-1] != text[0]:
            raise self._error(f"text after the closing quote of {text[:20]!r}")
        inner = text[1:-1]
        if "/" in inner or _NOT_IN_NAMES.search(inner):
            raise self._error(f"{text!r} holds a character that cannot be part of a file name")
        return Alternative(Kind.QUOTED, inner, "", "")

    def _attribute(self, name: str, spec: str) -> Alternative:
        name, exclamation, conversion = name.partition("!")
        if exclamation and conversion not in CONVERSIONS:
            raise self._error(f"there is no !conversion {conversion!r}; there are {', '.join(CONVERSIONS)}")
        key, dot, part = name.partition(".")
        kind = Kind.NUMBER
        if name == COUNTER:
            pass
        elif tag := _TAG(key):
            key, kind = CATALOG.get((tag[1] + tag[2]).upper(), ((tag[1] + tag[2]).upper(), Kind.TEXT))
        elif key in KINDS or key in self._keywords:
            kind = KINDS.get(key, Kind.TEXT)
        else:
            near = difflib.get_close_matches(key, [*KINDS, *self._keywords], 1)
            hint = f"; did you mean {near[0]}?" if near else "; 'dicomfs layout --help' lists those"
            raise self._error(f"{key!r} is not an attribute that layouts can use{hint}")
        if dot and (kind is not Kind.PERSON or part not in COMPONENTS + GROUPS):
            raise self._error(f"{key} has no part {part!r}")
        legal, example = FORMATS[kind]
        if spec and (not legal.fullmatch(spec) or "/" in spec):
            raise self._error(f"{spec!r} is no format for {key}, which is {example}")
        return Alternative(kind, key, part, spec, conversion)

    def _level(self, pieces: list[str | tuple[Alternative, ...]], *, last: bool) -> Level:
        if self._client:
            if pieces != [""] or self._each != ["patient"] or last:
                raise self._error("{client} is the whole name of a directory")
            level = Level((), "", "", ("patient",), client=self._client)
            self._each, self._client = [], ""
            return level
        if pieces == [""]:
            raise self._error("a level without a name")
        fields = []
        literal = ""
        for piece in pieces:
            if isinstance(piece, str):
                literal = piece
            else:
                fields.append(Field(_before(literal), piece))
                literal = ""
        found = _FILE_EXTENSION.search(literal) if last and fields else None
        extension = found[0] if found else ""
        if not fields and not component(literal):
            raise self._error(f"{literal!r} cannot be the name of a directory")
        counts = any(one.key == COUNTER and one.kind is Kind.NUMBER for field in fields for one in field.alternatives)
        each, self._each = tuple(self._each), []
        return Level(tuple(fields), literal.removesuffix(extension), extension, each, counts)

    def _error(self, reason: str, at: int | None = None) -> UsageError:
        return UsageError(f"layout: character {(self._at if at is None else at) + 1}: {reason}")


def _before(literal: str) -> tuple[str, str, str, str]:
    return (literal, literal.rstrip(SEPARATORS), literal.lstrip(SEPARATORS), literal.strip(SEPARATORS))
