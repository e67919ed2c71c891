"""Where a mount process writes what it has to say."""

import logging
import logging.handlers
import os
from pathlib import Path
from typing import Final

from dicomfs.errors import MountError

_SYSLOG: Final = "/dev/log"


def configure(path: Path | None, *, foreground: bool, debug: bool) -> None:
    """Log to a file, or to stderr in the foreground, or to syslog where there is one."""
    handler = _handler(path, foreground=foreground)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    # pyfuse3 calls it an error when a reply finds that its caller was interrupted, which is usual.
    logging.getLogger("pyfuse3").setLevel(logging.WARNING if debug else logging.CRITICAL)


def _handler(path: Path | None, *, foreground: bool) -> logging.Handler:
    if path is not None:
        try:
            handler: logging.Handler = logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise MountError(f"{path}: cannot write the log there ({error.strerror})") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    elif foreground:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("dicomfs: %(message)s"))
    elif os.path.exists(_SYSLOG):
        handler = logging.handlers.SysLogHandler(_SYSLOG, logging.handlers.SysLogHandler.LOG_DAEMON)
        handler.setFormatter(logging.Formatter(f"dicomfs[{os.getpid()}]: %(levelname)s %(message)s"))
    else:
        handler = logging.NullHandler()
    return handler
