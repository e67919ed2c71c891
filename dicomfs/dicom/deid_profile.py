"""Profiles of de-identification: the Basic Profile of PS3.15 E.2 and the options of E.3 that go with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dicomfs.errors import UsageError

BASIC: Final = "basic"
SAFE_PRIVATE: Final = "retain-safe-private"
FULL_DATES: Final = "full-dates"
MODIFIED_DATES: Final = "modified-dates"
CLEAN_DESCRIPTORS: Final = "clean-descriptors"
CLEAN_STRUCTURED_CONTENT: Final = "clean-structured-content"
CLEAN_GRAPHICS: Final = "clean-graphics"
RETAIN_UIDS: Final = "retain-uids"
RETAIN_CHARACTERISTICS: Final = "retain-patient-characteristics"
RETAIN_DEVICE: Final = "retain-device"

METHODS: Final[Mapping[str, tuple[str, str]]] = {
    BASIC: ("113100", "Basic Application Confidentiality Profile"),
    CLEAN_GRAPHICS: ("113103", "Clean Graphics Option"),
    CLEAN_STRUCTURED_CONTENT: ("113104", "Clean Structured Content Option"),
    CLEAN_DESCRIPTORS: ("113105", "Clean Descriptors Option"),
    FULL_DATES: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    MODIFIED_DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    RETAIN_CHARACTERISTICS: ("113108", "Retain Patient Characteristics Option"),
    RETAIN_DEVICE: ("113109", "Retain Device Identity Option"),
    RETAIN_UIDS: ("113110", "Retain UIDs Option"),
    SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
    "retain-institution": ("113112", "Retain Institution Identity Option"),
}
"""CID 7050 (PS3.16) by the names that profiles are written with."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The Basic Profile with options, in the order of METHODS."""

    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Profile":
        """Read a profile such as 'basic,modified-dates'. Raise UsageError."""
        first, *options = (part.strip().lower() for part in text.split(","))
        known = [name for name in METHODS if name != BASIC]
        if first != BASIC:
            message = f"a profile begins with 'basic', and then may have options: {', '.join(known)}"
            raise UsageError(message)
        for option in options:
            if option not in known:
                message = f"{option[:64]!r} is no option of a profile; these are: {', '.join(known)}"
                raise UsageError(message)
        if FULL_DATES in options and MODIFIED_DATES in options:
            message = f"dates are either kept or modified: take {FULL_DATES} or {MODIFIED_DATES}"
            raise UsageError(message)
        return cls(tuple(name for name in known if name in options))

    @property
    def text(self) -> str:
        """The profile as `parse` reads it."""
        return ",".join((BASIC, *self.options))

    @property
    def methods(self) -> list[tuple[str, str]]:
        """Code and meaning (CID 7050) of the profile and of each option."""
        return [METHODS[name] for name in (BASIC, *self.options)]
