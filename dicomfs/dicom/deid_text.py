"""Free text: what a data set's own identifiers are, and whether other text holds them.

Two questions are asked. Text that the profile keeps is left out where it holds a name or number of the patient or
of others in the data set. Text that is to be cleaned (action C) is also left out where something near a name or a
date may be one; single numbers, dates, UIDs and addresses are taken out of it. When in doubt, the value is emptied.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

_WORD: Final = re.compile(r"[^\W\d_]+")
_BETWEEN: Final = re.compile(r"[\W_]+")
_FORMATS: Final = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
"""Characters that nobody sees."""
_SPELT: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"})
"""How letters are written where there are none of them."""
_SHORTEST_WORD: Final = 2
_SHORTEST_KEPT: Final = 3
"""Shorter words of names are no reason to leave out what the Standard keeps: 'MR', 'T2'."""
_SHORTEST_INSIDE: Final = 4
"""Words and numbers from here on are found within longer ones."""
_SHORTEST_APART: Final = 6
"""Numbers from here on are found with other characters between their digits, and as values that are numbers."""
_SHORTEST_PHRASE: Final = 3
_MOST_JOINED: Final = 3
_MOST: Final = 1 << 10
_LONGEST_CLEANED: Final = 128
"""Longer text tells a story, and a story is about somebody."""

_ADDRESS: Final = re.compile(r"\S*@\S*|\S*://\S*|www\.\S*|urn:\S*")
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+){3,}")
_LONG_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+){5,}")
_POINTS_OF_VERSIONS: Final = 4
_DATE: Final = re.compile(
    r"\b[0-9]{1,4}([./-])[0-9]{1,2}\1[0-9]{1,4}\b|\b(?:19|20)[0-9]{2}\b|\b[0-9]{1,2}[:h][0-9]{2}(?:[:.][0-9]{2})*\b"
    r"|\b[0-9]{1,2}[./-](?:19|20)?[0-9]{2}\b"
)
_NUMBER: Final = re.compile(r"\S*[0-9]{5,}\S*")
_SPACED: Final = re.compile(r"(?:\+|\(?0[0-9]+\)?|[0-9]{2,})(?:[ ()/.-]{1,3}[0-9]{2,}){1,}")
"""Digits in groups: a telephone number, a date, an account."""
_MONTH: Final = re.compile(
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mrz|mai|okt|dez|avr|juil|aout|ene|abr|ago|dic)[a-z]*\b"
)
_TITLE: Final = re.compile(
    r"\b(?:dr|prof|doctor|doktor|mrs|miss|herr|frau|mme|monsieur|madame|dott|sig|senor|senora|name|named|patient|pat"
    r"|born|geb|dob|birth|ssn|mrn|phone|tel|fax|address)\b|\b(?:mr|ms|m|d|st)\. ?[a-z]|[^\W\d_]\^[^\W\d_]"
)
_DIGITS: Final = re.compile(r"[0-9]")
_BLANKS: Final = re.compile(r"[ \t]{2,}")


@lru_cache(1 << 13)
def folded(text: str) -> str:
    """Return a text without what does not tell names apart: case, accents, width."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", _FORMATS.sub("", text).casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


@lru_cache(1 << 12)
def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(folded(text)) if len(word) >= _SHORTEST_WORD)


class Known:
    """The identifiers of one data set, from all that its profile takes out of it."""

    __slots__ = ("_names", "_needles", "_numbers", "_phrases", "_short")

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._numbers: set[str] = set()
        self._phrases: set[str] = set()
        self._needles: tuple[str, ...] | None = None
        """What is looked for in kept text, once all is known."""
        self._short: tuple[str, ...] = ()

    def name(self, text: str) -> None:
        """Take note of a person's name, also as it is written without blanks."""
        self._needles = None
        self._names |= _words(text)
        if not text.isascii():
            self._names |= _words(text.casefold().translate(_SPELT))
        for one in folded(text).split("="):
            parts = _WORD.findall(one)[:_MOST_JOINED]
            joined = (first + second for first in parts for second in parts if first is not second)
            self._names.update(both for both in joined if len(both) > _SHORTEST_WORD or not both.isascii())

    def number(self, text: str) -> None:
        """Take note of what identifies by itself: a patient's ID, an accession number."""
        self._needles = None
        for one in map(str.strip, folded(text).split("\\")):
            if one.strip("0 \0"):
                self._numbers |= {one, _BETWEEN.sub("", one) or one}

    def is_number(self, text: str) -> bool:
        """Say whether one of several values that are numbers is an identifier."""
        values = map(str.strip, text.split("\\"))
        return any(len(one) >= _SHORTEST_APART and one in self._numbers for one in values)

    def phrase(self, text: str) -> None:
        """Take note of any other text that is taken out."""
        self._phrases.update(one for one in map(str.strip, folded(text).split("\\")) if len(one) >= _SHORTEST_PHRASE)

    def is_too_much(self) -> bool:
        """Say whether there is more than can be looked for in each text."""
        return len(self._names) + len(self._numbers) > _MOST or len(self._phrases) > 4 * _MOST

    def within(self, text: str) -> bool:
        """Say whether a text that would be kept holds an identifier."""
        shown = folded(text)
        if any(word in self._names and len(word) >= _SHORTEST_KEPT for word in _WORD.findall(shown)):
            return True
        if self._needles is None:
            long = [name for name in self._names if len(name) > _SHORTEST_INSIDE or not name.isascii()]
            self._needles = *long, *(one for one in self._numbers if len(one) >= _SHORTEST_APART)
            short = (one for one in self._numbers if len(one) < _SHORTEST_APART or not one.isalnum())
            self._short = tuple(one for one in short if len(one) >= _SHORTEST_INSIDE)
        together = shown if shown.isalnum() else _BETWEEN.sub("", shown)
        if any(map(together.__contains__, self._needles)) or any(map(shown.__contains__, self._short)):
            return True
        if shown.count(".") > _POINTS_OF_VERSIONS and _LONG_UID.search(shown):
            return True
        return "@" in shown or "://" in shown

    def cleaned(self, text: str) -> str:
        """Return what is left of a text that is to be cleaned."""
        if len(text) > _LONGEST_CLEANED:
            return ""
        shown = folded(text)
        if self._about_somebody(shown):
            return ""
        if _DIGITS.search(shown) and _MONTH.search(shown):
            return ""
        left = _DATE.sub(" ", _UID.sub(" ", _ADDRESS.sub(" ", text)))
        if _SPACED.search(left):
            return ""
        left = _NUMBER.sub(" ", left)
        if left == text:
            return text
        left = _BLANKS.sub(" ", left).strip()
        again = folded(left)
        return left if any(map(str.isalpha, left)) and not self._about_somebody(again) else ""

    def _about_somebody(self, shown: str) -> bool:
        words = set(_WORD.findall(shown))
        if words & self._names or _TITLE.search(shown):
            return True
        if any(name in shown for name in self._names if len(name) >= _SHORTEST_INSIDE or not name.isascii()):
            return True
        tokens = set(re.split(r"[\s,;:()\[\]^=\\/]+", shown))
        if tokens & self._numbers or tokens & self._phrases:
            return True
        found = any(one in shown for one in self._numbers if len(one) >= _SHORTEST_INSIDE)
        return found or any(one in shown for one in self._phrases)
