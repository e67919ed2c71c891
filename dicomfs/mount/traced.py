"""What `--debug` logs: every request with its numbers. Names are left out: they are patients'."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from pyfuse3 import FUSEError

from dicomfs.mount.operations import Operations
from dicomfs.mount.read_only import REQUESTS

log = logging.getLogger(__name__)

_REQUESTS: Final = (
    *("lookup", "getattr", "opendir", "readdir", "releasedir", "access", "statfs", "listxattr", "getxattr"),
    *("open", "read", "flush", "fsync", "fsyncdir", "release", "readlink"),
    *REQUESTS,
)
_Handler = Callable[..., Awaitable[object]]


def traced(operations: Operations) -> None:
    """Log every request that these operations answer, from now on."""
    for request in _REQUESTS:
        setattr(operations, request, _logging(request, getattr(operations, request)))


def _logging(request: str, handler: _Handler) -> _Handler:
    async def logged(*arguments: object) -> object:
        numbers = " ".join(str(argument) for argument in arguments if isinstance(argument, int))
        begin = time.perf_counter()
        outcome = "ok"
        try:
            return await handler(*arguments)
        except FUSEError as error:
            outcome = str(error)
            raise
        finally:
            log.debug("%s %s: %s, %.0f µs", request, numbers, outcome, (time.perf_counter() - begin) * 1e6)

    return logged
