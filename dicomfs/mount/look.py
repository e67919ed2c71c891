"""How the nodes of a drive look to the kernel: whose they are, and how long it may believe what it was told."""

import os
import stat
from dataclasses import dataclass
from typing import Final

from pyfuse3 import EntryAttributes

from dicomfs.mount.options import MountOptions

FRAGMENT: Final = 4096
"""The unit in which statfs counts, and what a file says it is best read in."""


@dataclass(frozen=True, slots=True)
class Look:
    """Whose the nodes are, and how long the kernel may believe what it was told."""

    uid: int
    gid: int
    file_mode: int
    directory_mode: int
    private_file_mode: int
    private_directory_mode: int
    attr_timeout_s: float
    entry_timeout_s: float
    negative_timeout_s: float

    @classmethod
    def of(cls, options: MountOptions) -> "Look":
        """Read it off the mount options; nodes are the mounting user's unless they say otherwise."""
        return cls(
            uid=os.getuid() if options.uid is None else options.uid,
            gid=os.getgid() if options.gid is None else options.gid,
            file_mode=stat.S_IFREG | (0o666 & ~options.file_mask),
            directory_mode=stat.S_IFDIR | (0o777 & ~options.directory_mask),
            private_file_mode=stat.S_IFREG | (0o600 & ~options.file_mask),
            private_directory_mode=stat.S_IFDIR | (0o700 & ~options.directory_mask),
            attr_timeout_s=options.attr_timeout_s,
            entry_timeout_s=options.entry_timeout_s,
            negative_timeout_s=options.negative_timeout_s,
        )

    def entry(self, mode: int) -> EntryAttributes:
        """Return an entry with everything that all nodes of a kind share."""
        entry = EntryAttributes()
        entry.st_mode = mode
        entry.st_uid = self.uid
        entry.st_gid = self.gid
        # Python's buffers have this length: who wants a header shall not get frames with it.
        entry.st_blksize = FRAGMENT
        entry.attr_timeout = self.attr_timeout_s
        entry.entry_timeout = self.entry_timeout_s
        return entry


def negative(timeout_s: float) -> EntryAttributes:
    """Return the entry of what is not there, which may be believed for so long."""
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = timeout_s
    return entry


def set_times(entry: EntryAttributes, time_ns: int) -> None:
    """Give an entry its one time: nothing is ever changed, and nobody is watched reading."""
    entry.st_mtime_ns = time_ns
    entry.st_ctime_ns = time_ns
    entry.st_atime_ns = time_ns
