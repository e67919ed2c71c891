"""What an edit is to make of each file: plain values, which a commit keeps and another archive can do again.

{"set": {"00100010": ["DOE^JANE"]}, "empty": ["00080050"], "remove": ["00081030"], "uids": {"1.2.3": "2.25.4"},
 "reason": "CORRECT", "time": "2026-01-31T12:00:00Z", "system": "dicomfs"}
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from dicomfs.dicom.dictionary import dictionary_vr, is_standard_uid
from dicomfs.dicom.edit_settings import check_removable, check_settable, check_values, is_uid, tag_of

MOST_SETTINGS: Final = 256
"""Attributes that one edit may change."""
MOST_UIDS: Final = 1 << 20
LONGEST_OLD: Final = 128
"""UIDs that are longer than the 64 characters of PS3.5 9.1 can be changed from, not to."""
REASONS: Final = ("COERCE", "CORRECT")
"""Defined terms of Reason for the Attribute Modification, PS3.3 C.12.1.1.9."""
_KEYS: Final = frozenset(("set", "empty", "remove", "uids", "reason", "time", "system"))
_TIME: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,6})?[0-9]*Z")
_SYSTEM: Final = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,62}[\x21-\x5b\x5d-\x7e])?")

Json: TypeAlias = "str | list[str] | dict[str, str] | dict[str, list[str]]"


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be changed in each file of an edit; raises ValueError where that cannot be.

    `set`, `empty` and `remove` are about the outermost level, and each tag is in one of them. `uids` maps UIDs to
    those that take their place in every UI of every level. `time` is UTC, by RFC 3339.
    """

    time: str
    set: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    empty: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    uids: Mapping[str, str] = field(default_factory=dict)
    reason: str = "CORRECT"
    system: str = "dicomfs"

    def __post_init__(self) -> None:
        tags = [*self.set, *self.empty, *self.remove]
        if len(tags) > MOST_SETTINGS or len(self.uids) > MOST_UIDS:
            raise ValueError(f"an edit changes up to {MOST_SETTINGS} attributes and {MOST_UIDS} UIDs")
        if len(frozenset(tags)) != len(tags):
            raise ValueError("an attribute is to be changed in two ways")
        for tag, values in self.set.items():
            check_settable(tag)
            check_values(tag, "" if tag >> 16 & 1 else dictionary_vr(tag), values)
            if tag in _IDENTITY and values == ("",):
                raise ValueError("a UID that makes an instance cannot be emptied")
        for tag in (*self.empty, *self.remove):
            check_removable(tag)
        _check_uids(self.uids)
        if self.reason not in REASONS:
            raise ValueError(f"the reason is none of {', '.join(REASONS)}")
        if not _SYSTEM.fullmatch(self.system):
            raise ValueError("the modifying system is named by up to 64 ASCII characters")
        self._date_time()

    @property
    def date_time(self) -> bytes:
        """The time as a DT, in UTC."""
        return self._date_time()

    def _date_time(self) -> bytes:
        found = _TIME.fullmatch(self.time)
        if found is None or len(self.time) > 40:
            raise ValueError("the time is none of RFC 3339 in UTC, such as 2026-01-31T12:00:00Z")
        *numbers, fraction = found.groups("")
        year, month, day, hour, minute, second = map(int, numbers)
        datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
        if second > 60:
            raise ValueError("no minute has so many seconds")
        return f"{''.join(numbers)}{fraction}+0000".encode("ascii")

    def to_json(self) -> dict[str, Json]:
        """Return plain values, the same for equal changes, of which `from_json` makes the same again."""
        return {
            "set": {f"{tag:08X}": list(values) for tag, values in sorted(self.set.items())},
            "empty": [f"{tag:08X}" for tag in sorted(self.empty)],
            "remove": [f"{tag:08X}" for tag in sorted(self.remove)],
            "uids": dict(sorted(self.uids.items())),
            "reason": self.reason,
            "time": self.time,
            "system": self.system,
        }

    @classmethod
    def from_json(cls, said: object) -> "Changes":
        """Read what `to_json` returned; raise ValueError for anything else."""
        if not isinstance(said, dict) or said.keys() != _KEYS:
            raise ValueError("changes have other keys than these")
        settings, uids = said["set"], said["uids"]
        if not isinstance(settings, dict) or not isinstance(uids, dict) or len(settings) > MOST_SETTINGS:
            raise ValueError("settings and UIDs are objects")
        return cls(
            time=_text(said["time"]),
            set={tag_of(_text(tag)): tuple(_texts(values)) for tag, values in settings.items()},
            empty=tuple(map(tag_of, _texts(said["empty"]))),
            remove=tuple(map(tag_of, _texts(said["remove"]))),
            uids={_text(old): _text(new) for old, new in uids.items()},
            reason=_text(said["reason"]),
            system=_text(said["system"]),
        )


_IDENTITY: Final = frozenset((0x00080018, 0x0020000D, 0x0020000E))


def _check_uids(uids: Mapping[str, str]) -> None:
    for old, new in uids.items():
        if (
            not is_uid(new)
            or not old
            or len(old) > LONGEST_OLD
            or not old.isascii()
            or "\\" in old
            or old != old.strip(" \0")
        ):
            raise ValueError("a UID is changed from or to what is none")
        if is_standard_uid(old) or is_standard_uid(new):
            raise ValueError("a UID of the Standard cannot be changed, nor stand for another")


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise ValueError("a text is missing")
    return said


def _texts(said: object) -> Iterable[str]:
    if not isinstance(said, list):
        raise ValueError("a list of texts is missing")
    return [_text(one) for one in said]
