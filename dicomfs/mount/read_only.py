"""The requests that would write: each is refused alike, though the kernel lets few of them through."""

import errno
from typing import Final, Never

import pyfuse3
from pyfuse3 import FUSEError

REQUESTS: Final = (
    "create",
    "link",
    "mkdir",
    "mknod",
    "removexattr",
    "rename",
    "rmdir",
    "setattr",
    "setxattr",
    "symlink",
    "unlink",
    "write",
)


class ReadOnly(pyfuse3.Operations):
    """Operations of a filesystem that nobody writes to."""


async def _refuse(*_: object) -> Never:
    raise FUSEError(errno.EROFS)


for _request in REQUESTS:
    setattr(ReadOnly, _request, _refuse)
