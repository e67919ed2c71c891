"""Layouts: templates that turn the attributes of an instance into the path at which it is shown.

    {PatientID|'NO-ID'}_{PatientName}/{StudyDate:%Y-%m-%d}/{SeriesNumber:04d}_{Modality}/{InstanceNumber:05d}.dcm

The grammar is that of Python's format strings, parsed (`layout_parsing`) and never evaluated:

    /                     the next level of the tree
    {Keyword}             the value of an attribute; also {gggg,eeee}, and %Keyword as other tools spell it
    {PatientName.part}    family_name given_name middle_name name_prefix name_suffix
                          alphabetic ideographic phonetic
    {A|B|'text'}          the first that has a value; text in quotes always has
    {A:format}            dates %Y %y %m %d, times %H %M %S, numbers 05d, text .12 (at most 12 characters);
                          holds also for the alternatives before it that have no format of their own
    {A!conversion}        upper, lower; plain: what is no letter of ASCII, digit, dot, hyphen or underscore becomes an
                          underscore; ctp: the same as in the Clinical Trials Processor, which drops most of it;
                          uid: what is no UID becomes one, made of its hash
    {A='CT'?B|C}          B only where A is CT, else C. Also A!='CT'?, and A? where A has any value. A pattern is one
                          of `dicomfs query`: * and ?, ranges of dates, whatever the case
    {n} {n:04d}           a counter: the number of the entry in its directory, in the order in which they came; those
                          that come with one import in the order of slices
    {patient} {study} {series}   nothing in the name, but the level has one directory for each of them
    {client:demd}         the whole name of a directory for each patient: the PatientID where it is four letters and a
                          number, else the letters given here and a number, in the order in which patients came
    {{ and }}             braces

A missing value disappears, and so does the separator before it (or after it, at the start of a
name). A level of which nothing is left is UNKNOWN~hash; a file name of which only the extension
is left is NO-NUMBER~hash.dcm. Every name is legal and within the limit of `names`.

Who says the same at a level shares its directory, unless {patient}, {study} or {series} parts them. What is
different and looks the same, A/B and A_B after a conversion, does not: the second has a suffix. That names are unique
in their directory is the business of the catalog that claims them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicomfs.archive import clients
from dicomfs.archive.layout_parsing import Parser
from dicomfs.archive.layout_values import COUNTER, ENTITIES, SEPARATORS, Level, Value, said, value
from dicomfs.archive.names import candidates, component, cut, digest
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

MAX_LENGTH: Final = 2000
"""No template is longer."""
MAX_LEVELS: Final = 32


@dataclass(frozen=True, slots=True)
class Layout:
    """A parsed template: immutable, may be shared by threads and sent to other processes."""

    text: str
    _levels: tuple[Level, ...]

    @classmethod
    def parse(cls, text: str, keywords: Collection[str] = ()) -> Layout:
        """Parse a template that may use the catalog's attributes and those of `keywords`.

        Raise UsageError that tells the place and the reason.
        """
        if len(text) > MAX_LENGTH:
            raise UsageError(f"layout: the template is longer than {MAX_LENGTH} characters")
        levels = tuple(Parser(text, keywords).levels())
        if len(levels) > MAX_LEVELS:
            raise UsageError(f"layout: the template has more than {MAX_LEVELS} levels")
        return cls(text, levels)

    @property
    def depth(self) -> int:
        """The number of levels, the file's own name included."""
        return len(self._levels)

    @property
    def counts(self) -> bool:
        """Whether any level has a counter."""
        return any(level.counts for level in self._levels)

    def is_counted(self, level: int) -> bool:
        """Say whether the names of this level may have a number."""
        return self._levels[level].counts or bool(self._levels[level].client)

    def identity(self, level: int, attributes: Mapping[str, Value]) -> str:
        """Return what makes a directory of this level another one than those beside it."""
        template = self._levels[level]
        texts = [said(field.alternatives, attributes) for field in template.fields]
        return "\0".join([*texts, *(ENTITIES[each](attributes) for each in template.each)])

    def render(self, attributes: Mapping[str, Value], identities: Sequence[str]) -> list[str]:
        """Return one legal name per level; `identities` are what makes each level's entity unique."""
        return [self.render_level(i, attributes, identity) for i, identity in enumerate(identities)]

    def names(self, level: int, attributes: Mapping[str, Value], identity: str, number: int) -> Iterator[str]:
        """Yield the names that one level may have, best first: the first that nobody has is to be taken.

        `number` is what a counter of this level shows.
        """
        prefix = self._levels[level].client
        if prefix:
            return clients.names(str(attributes.get("PatientID", "")), prefix, number)
        return candidates(self.render_level(level, attributes, identity, number), identity)

    def render_level(self, level: int, attributes: Mapping[str, Value], identity: str, number: int = 0) -> str:
        """Return the legal name of one level (0-based), before anybody else's claim is considered.

        `number` is what a counter of this level shows.
        """
        template = self._levels[level]
        if template.client:
            return next(self.names(level, attributes, identity, number or 1))
        if number:
            attributes = {**attributes, COUNTER: number}
        name = ""
        for field in template.fields:
            shown = value(field.alternatives, attributes)
            name += field.before[(not shown) + 2 * (not name)] + shown
        name += template.after if name else template.after.lstrip(SEPARATORS)
        extension = template.extension
        legal = component(name + extension) if component(name) else ""
        if not legal:
            legal = ("NO-NUMBER~" if extension else "UNKNOWN~") + digest(identity) + extension
        return cut(legal, identity)


PATIENTS = Layout.parse(
    "{PatientID|'NO-ID'}_{PatientName}"
    "/{StudyDate|'00000000'}_{StudyTime:%H%M}_{StudyDescription|StudyID}"
    "/{SeriesNumber:04d}_{Modality}_{SeriesDescription|ProtocolName}"
    "/{InstanceNumber:05d}.dcm"
)
