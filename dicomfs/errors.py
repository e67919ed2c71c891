"""The errors that reach a user: each names what is wrong and what to do, and knows its exit status."""


class DicomfsError(Exception):
    """Anything a user is told about; the message is complete and holds no patient values."""

    exit_status = 1


class UsageError(DicomfsError):
    """The request itself is wrong: an option, a keyword, a path that cannot be."""

    exit_status = 2


class ArchiveMissing(DicomfsError):
    """There is no archive at that path, or not one that this version reads."""

    exit_status = 3


class Damaged(DicomfsError):
    """Bytes of the archive are missing or are not the bytes that were written."""

    exit_status = 3


class NotFound(DicomfsError):
    """What was asked for is not in the archive."""


class Locked(DicomfsError):
    """Another process is writing to the archive."""


class StorageFull(DicomfsError):
    """The disk that holds the archive is full, or may not be written."""


class Refused(DicomfsError):
    """The system does not let this user do it."""


class MountError(DicomfsError):
    """The drive could not be mounted or unmounted."""
