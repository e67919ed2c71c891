"""What `-o` says: the options of mount(8), of FUSE and of dicomfs, read into one record.

`-o` may be given several times, each with options parted by commas, as mount(8) passes them.
"""

import grp
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomfs.archive.moments import parse_time
from dicomfs.errors import UsageError
from dicomfs.vfs.views import VIEWS

READ_AHEAD_KIB: Final = 1024
"""Against the kernel's 128 KiB this made sequential reads 1.5 times faster."""
DAY_S: Final = 86400.0
NEGATIVE_S: Final = 0.5
"""How long the kernel may believe that a name does not exist: new imports appear within a second."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount an archive."""

    views: tuple[str, ...] = ()
    """The views to show; none named: the default ones. Which layouts there are, the archive knows."""
    allow_other: bool = False
    """Let all users in, not the mounting one alone."""
    allow_root: bool = False
    uid: int | None = None
    gid: int | None = None
    file_mask: int = 0o022
    """Permission bits that files do not have. Owners have write permission, as on any disk that is mounted
    read-only, so that copies which keep modes can be changed and deleted; the drive itself says EROFS."""
    directory_mask: int = 0o022
    xattr: bool = True
    read_ahead_kib: int = READ_AHEAD_KIB
    attr_timeout_s: float = DAY_S
    entry_timeout_s: float = DAY_S
    negative_timeout_s: float = NEGATIVE_S
    nonempty: bool = False
    """Mount over a directory that holds files."""
    noexec: bool = False
    private_tables: bool = False
    """Show what is private in projects also where other users may look; its modes let nobody but the owner read it."""
    as_of_ns: int | None = None
    """The moment, in ns since 1970, whose state of the archive is shown; None: now, and what is to come."""
    log: Path | None = None
    """Where the drive writes its log; None: to stderr in the foreground, else to syslog."""

    @property
    def private(self) -> bool:
        """Whether other users are kept out."""
        return not self.allow_other


_IGNORED: Final = frozenset(
    {
        *("ro", "defaults", "auto", "noauto", "user", "users", "nouser", "owner", "group", "nofail", "_netdev"),
        *("async", "sync", "dirsync", "dev", "nodev", "suid", "nosuid", "exec", "loud", "silent"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime"),
        *("nostrictatime", "lazytime", "nolazytime"),
    }
)
"""Said to mount(8), true anyway, or without a meaning here: `ro`, `nodev` and `nosuid` always hold,
and what is read-only keeps no time of access."""
_IGNORED_PREFIXES: Final = ("x-", "X-", "comment=")
_REFUSED: Final = {
    "remount": "a drive cannot be remounted: unmount it with 'dicomfs umount', then mount it with other options",
}
_READ_ONLY: Final = "a dicomfs drive is read-only: leave out 'rw', or say 'ro'"


def parse(
    option_strings: Sequence[str],
    *,
    views: str | None = None,
    as_of: str | None = None,
    private_tables: bool = False,
    log: Path | None = None,
    helper: bool = False,
) -> MountOptions:
    """Read the values of `-o`, and `views` (parted by commas or colons) and a time; raise UsageError.

    `helper` says that mount(8) calls us: it adds `rw` by itself where nobody said `ro`, and means
    no more by it than with a CD.
    """
    settings: dict[str, object] = {}
    for option in (part for string in option_strings for part in string.split(",") if part):
        name, equals, value = option.partition("=")
        if option in _IGNORED or option.startswith(_IGNORED_PREFIXES) or (option == "rw" and helper):
            continue
        if option == "rw":
            raise UsageError(_READ_ONLY)
        if name in _REFUSED:
            raise UsageError(_REFUSED[name])
        if option in _SWITCHES:
            settings.update(_SWITCHES[option])
        elif equals and name in _VALUES:
            settings.update(_VALUES[name](name, value))
        else:
            raise UsageError(_unknown(name, equals=bool(equals)))
    if views is not None:
        settings.update(_views("views", views))
    if as_of is not None:
        settings.update(_as_of("as_of", as_of))
    if private_tables:
        settings.update(_SWITCHES["private_tables"])
    return MountOptions(**settings, log=log)  # type: ignore[arg-type]  # each value was parsed for its field


def _unknown(name: str, *, equals: bool) -> str:
    if name in _VALUES and not equals:
        return f"mount option '{name}' needs a value: {name}=…"
    if name in _SWITCHES or name in _IGNORED:
        return f"mount option '{name}' takes no value"
    known = ", ".join([*sorted(_SWITCHES), *(f"{option}=" for option in sorted(_VALUES))])
    return f"unknown mount option '{name}'; known are {known}, and those of mount(8)"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace(",", ":").split(":") if name.strip())


def _views(name: str, value: str) -> dict[str, object]:
    if not _names(value):
        raise UsageError(f"mount option '{name}' needs names: views={':'.join(VIEWS)}, or one of them")
    return {name: _names(value)}


def _as_of(_name: str, value: str) -> dict[str, object]:
    return {"as_of_ns": parse_time(value)}


def _owner(name: str, value: str) -> dict[str, object]:
    try:
        if value.isascii() and value.isdigit():
            return {name: int(value)}
        return {name: pwd.getpwnam(value).pw_uid if name == "uid" else grp.getgrnam(value).gr_gid}
    except KeyError as error:
        kind = "user" if name == "uid" else "group"
        raise UsageError(f"mount option '{name}': there is no {kind} '{value}'") from error


def _mask(name: str, value: str) -> dict[str, object]:
    try:
        mask = int(value, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise UsageError(f"mount option '{name}' takes an octal number up to 777, not '{value}'")
    settings = {"umask": ("file_mask", "directory_mask"), "fmask": ("file_mask",), "dmask": ("directory_mask",)}
    return dict.fromkeys(settings[name], mask)


def _read_ahead(name: str, value: str) -> dict[str, object]:
    if not (value.isascii() and value.isdigit()) or int(value) > 1 << 20:
        raise UsageError(f"mount option '{name}' takes a number of KiB, not '{value}'")
    return {"read_ahead_kib": int(value)}


def _timeout(name: str, value: str) -> dict[str, object]:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:
        raise UsageError(f"mount option '{name}' takes a number of seconds, not '{value}'")
    return {f"{name}_s": seconds}


_SWITCHES: Final[dict[str, dict[str, object]]] = {
    "allow_other": {"allow_other": True},
    "allow_root": {"allow_root": True},
    "noexec": {"noexec": True},
    "noxattr": {"xattr": False},
    "nonempty": {"nonempty": True},
    "private_tables": {"private_tables": True},
}
_VALUES: Final[dict[str, Callable[[str, str], dict[str, object]]]] = {
    "views": _views,
    "as_of": _as_of,
    "uid": _owner,
    "gid": _owner,
    "umask": _mask,
    "fmask": _mask,
    "dmask": _mask,
    "readahead": _read_ahead,
    "attr_timeout": _timeout,
    "entry_timeout": _timeout,
    "negative_timeout": _timeout,
}
